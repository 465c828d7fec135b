"""Objects whose health Argo CD judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from scripts.argocd import GROUP, HERE

Object = dict[str, Any]


NOT_READABLE = {
    ("Model", "spec-not-readable"),
    ("RolloutPolicy", "refused"),
    ("RetrainingPolicy", "refused"),
    (
        "TrainingRun",
        "spec-not-readable",
    ),
}
"""States whose spec this operator can't read."""


def folder(kind: str) -> Path:
    return HERE / GROUP / kind


def file(kind: str, name: str) -> Path:
    return folder(kind) / "testdata" / f"{name}.yaml"


def stored(kind: str, name: str) -> Object:
    found: Object = yaml.safe_load(file(kind, name).read_text())
    return found
