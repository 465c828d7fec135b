"""What a lock file pins."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


FOLDER = ROOT / "requirements"


def pins(name: str) -> dict[str, str]:
    """Version by package of a lock file; every pin must have a hash."""
    found: dict[str, str] = {}
    text = (FOLDER / f"{name}.txt").read_text()
    for entry in re.split(r"\n(?=[a-z0-9])", text):
        if match := re.match(r"([a-z0-9][a-z0-9._-]*)==(\S+)", entry, re.IGNORECASE):
            assert "--hash=sha256:" in entry, entry.splitlines()[0]
            found[canonicalize_name(match[1])] = match[2]
    return found
