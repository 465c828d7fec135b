"""Which install of the operator works in a namespace: one alone, by a claim that lies there (docs/adr/0034).

A claim names the install that made it. Another install may ask in it whether that one is still there; its leader
answers by taking the question out. Who gets no answer for long enough takes the claim over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.api import names

ANSWER_TIMEOUT_SECONDS = 120.0
"""How long an install has to answer. Its leader hears of a question by a watch, and a watch that is silent is given up
after 70 s; one that can't reach the API server has lost its Lease by then, and ended."""
QUESTION_INTERVAL_SECONDS = 60.0
"""Between an answer and the next question."""
SETTLE_SECONDS = 10.0
"""Between taking a claim over and the first write: whoever had it hears of that."""

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class InstallClaim:
    """`install` is its holder, `asked_by` the question that nobody has answered yet."""

    namespace: str
    install: str
    asked_by: str
    uid: str
    version: str


def parse_claim(obj: Mapping[str, Any]) -> InstallClaim:
    """What a claim says."""
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
    """The claim of an install, for a namespace without one."""
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
    """A patch of this very state of a claim: another holder, another question, or (None) none any more."""
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
