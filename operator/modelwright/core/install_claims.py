"""Claims by which exactly one install of the operator works in a namespace (docs/adr/0034).

A claim is an object in the namespace and names the install that made it. Another install may write a question into it;
the holder's leader answers by removing the question. An install that gets no answer in time takes the claim over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.api import names

ANSWER_TIMEOUT_SECONDS = 120.0
"""Time in which an install must answer. Its leader learns of a question by a watch, and a silent watch is dropped after
70 s; a leader that can't reach the API server has lost its Lease by then, and ended."""
QUESTION_INTERVAL_SECONDS = 60.0
"""Pause between an answer and the next question."""
SETTLE_SECONDS = 10.0
"""Pause between taking a claim over and the first write, in which the former holder learns of it."""

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class InstallClaim:
    """A claim: `install` is its holder, `asked_by` the install whose question is not answered yet, or empty."""

    namespace: str
    install: str
    asked_by: str
    uid: str
    version: str


def parse_claim(obj: Mapping[str, Any]) -> InstallClaim:
    """Parse a claim object."""
    metadata = obj["metadata"]
    annotations = metadata.get("annotations") or {}
    return InstallClaim(
        metadata["namespace"],
        str(annotations.get(names.ANNOTATION_INSTALL) or ""),
        str(annotations.get(names.ANNOTATION_CONTENDER) or ""),
        str(metadata["uid"]),
        str(metadata["resourceVersion"]),
    )


def build_claim(namespace: str, install: str) -> Object:
    """Build the claim of an install, for a namespace without one."""
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": names.CLAIM_NAME,
            "namespace": namespace,
            "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_ROLE: names.ROLE_CLAIM},
            "annotations": {names.ANNOTATION_INSTALL: install},
        },
        "revision": 1,
        "data": {"about": "The annotations say which install of Modelwright works in this namespace."},
    }


def build_claim_patch(known: InstallClaim, *, install: str | None = None, asked_by: str | None = None) -> Object:
    """Build a patch of exactly this state of a claim: another holder, another question, or (None) no question."""
    annotations: dict[str, str | None] = {names.ANNOTATION_CONTENDER: asked_by}
    if install is not None:
        annotations[names.ANNOTATION_INSTALL] = install
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": names.CLAIM_NAME,
            "namespace": known.namespace,
            "uid": known.uid,
            "resourceVersion": known.version,
            "annotations": annotations,
        },
    }
