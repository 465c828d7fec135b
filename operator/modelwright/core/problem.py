"""A problem, as the status of an object reports it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """The cause for which the desired state isn't reached. `stalled`: waiting can't help, a user must act."""

    reason: str
    message: str
    stalled: bool = False
