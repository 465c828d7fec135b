"""Why something that is wanted can't be had, as the status of an object reports it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something wanted can't be had. `stalled`: waiting won't mend it, a person has to change something."""

    reason: str
    message: str
    stalled: bool = False
