"""The observed state of the object that performs a stage of a run, regardless of its kind. Engines read it."""

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
    """State of the live object.

    `report`: the JSON object that a container left as its termination message, or that the object itself gives; None
    if there is none yet. `image`: of the container that left it, with its digest if the node has reported it.
    `problem`: why the text is no valid report, as a message.
    """

    state: StageState
    reason: str = ""
    message: str = ""
    report: Mapping[str, Any] | None = None
    image: str | None = None
    problem: str | None = None
