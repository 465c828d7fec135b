"""Whether the API server proves who writes approvals and commands; the rules themselves are in manifests/policies."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class AdmissionState:
    """State of the admission policies, which prove who writes approvals and commands and protect the operator's pods.

    While they are missing no approval, command, gate, signature or training result counts.

    `in_force` is None until the first check has ended. `problem` explains False, for users. `since` is the time at
    which the policies returned after they were missing: earlier objects prove nothing. None: never missing.
    """

    in_force: bool | None = None
    problem: str = ""
    since: datetime | None = None


IN_FORCE = AdmissionState(in_force=True)
