"""What is known of the object that does a stage of a run, whatever its kind: engines read it, the machine decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.api.v1alpha1.training import StageState

ENDED_STAGE_STATES = frozenset({StageState.SUCCEEDED, StageState.FAILED})
WAITING_STAGE_STATES = frozenset({StageState.QUEUED, StageState.SUSPENDED})
"""States in which the clocks of stage and run stand still."""


@dataclass(frozen=True, slots=True)
class StageReading:
    """What the live object says now.

    `report`: the JSON object that a container left as its termination message, or that the object itself gives; None
    when there is none (yet). `image`: of the container that left it, with its digest where the node has told it.
    `problem`: the text could not be taken as a report, for people.
    """

    state: StageState
    reason: str = ""
    message: str = ""
    report: Mapping[str, Any] | None = None
    image: str | None = None
    problem: str | None = None
