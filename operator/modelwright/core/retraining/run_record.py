"""Predicates over the record of a TrainingRun, and the elementary changes of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from modelwright.api.common import parse_duration
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.retraining import Work
from modelwright.api.v1alpha1.rollout import ClockStatus
from modelwright.api.v1alpha1.training import RunState, StageState, StageStatus
from modelwright.core.retraining.run_observation import (
    RUN_TERMINAL_STATES,
    STAGES_BY_STATE,
    RunObservation,
    current_stage,
)
from modelwright.core.retraining.stage_reading import WAITING_STAGE_STATES
from modelwright.core.stopwatch import elapsed_time, set_running

NOT_STARTED = frozenset({RunState.PENDING, RunState.QUEUED})


def is_in_state(o: RunObservation, *states: RunState) -> bool:
    return o.state in states


def is_active(o: RunObservation) -> bool:
    return o.state not in RUN_TERMINAL_STATES


def has_started(o: RunObservation) -> bool:
    return is_active(o) and o.state not in NOT_STARTED


def is_in_stage(o: RunObservation) -> bool:
    return o.state in STAGES_BY_STATE


def stage_work(o: RunObservation) -> Work:
    template, stage = o.template, STAGES_BY_STATE[o.state]
    work = {"dataCheck": template.data_check, "train": template.train, "evaluate": template.evaluate}[stage]
    assert work is not None  # noqa: S101 - only stages that the policy has are started
    return work


def stage_entry(o: RunObservation) -> StageStatus:
    entry = current_stage(o.status)
    assert entry is not None  # noqa: S101 - the state of a stage is entered together with the stage's entry
    return entry


def stage_is_in(o: RunObservation, *states: StageState) -> bool:
    return is_in_stage(o) and o.stage is not None and o.stage.state in states


def is_waiting(o: RunObservation) -> bool:
    """Whether the object of the stage is suspended or queued, so that no clock runs."""
    return stage_is_in(o, *WAITING_STAGE_STATES)


def update_stage(o: RunObservation, **changes: Any) -> RunObservation:
    stages = o.status.stages
    return o.with_status(stages=(*stages[:-1], stages[-1].model_copy(update=changes)))


def transition_to(o: RunObservation, state: RunState, reason: str, message: str) -> RunObservation:
    """Put the run into a state for a reason.

    Times change only with the state, the message only with state or reason. The clocks of the run and of the stage
    start and stop here.
    """
    status, now = o.status, o.now
    changes: dict[str, Any] = {}
    if (status.state, status.reason) != (state, str(reason)):
        changes = {"state": str(state), "reason": str(reason), "message": message}
        if status.state != state:
            changes["since"] = now
    ended = state in RUN_TERMINAL_STATES
    if ended and status.finished_at is None:
        changes["finished_at"] = now
    running = not ended and state not in NOT_STARTED and not is_waiting(o)
    clock = set_running(status.clock, running=running, now=now)
    if clock != (status.clock or ClockStatus()):
        changes["clock"] = clock
    o = o.with_status(**changes)
    entry = current_stage(o.status)
    if entry is None or entry.finished_at is not None:
        return o
    clock = set_running(entry.clock, running=running, now=now)
    if clock != (entry.clock or ClockStatus()):
        o = update_stage(o, clock=clock)
    return update_stage(o, finished_at=now) if ended else o


def end_run(o: RunObservation, state: RunState, reason: str, message: str) -> RunObservation:
    """End the run; a stage in progress fails with it, for the same reason."""
    entry = current_stage(o.status)
    if entry is not None and entry.finished_at is None:
        o = update_stage(o, state=str(StageState.FAILED), reason=str(reason), message=message)
    return transition_to(o, state, reason, message)


def fail_run(o: RunObservation, reason: str, message: str) -> RunObservation:
    return end_run(o, RunState.FAILED, reason, message)


def start_stage(o: RunObservation, state: RunState) -> RunObservation:
    """Start the stage of this state. The observed object, if any, was that of the previous stage."""
    entry = StageStatus(name=STAGES_BY_STATE[state], state=str(StageState.PENDING), started_at=o.now)
    o = replace(o.with_status(stages=(*o.status.stages, entry)), stage=None, child=None)
    if state is RunState.EVALUATING:
        o = o.with_status(compared_with=o.serving)
    return transition_to(o, state, Reason.STAGE_RUNNING, f"the stage {STAGES_BY_STATE[state]} goes on")


def pass_stage(o: RunObservation, reason: str = "", message: str = "") -> RunObservation:
    """End the current stage as succeeded, and start the next one or the registration."""
    clock = set_running(stage_entry(o).clock, running=False, now=o.now)
    o = update_stage(o, state=str(StageState.SUCCEEDED), reason=reason, message=message, finished_at=o.now, clock=clock)
    if o.state is RunState.CHECKING_DATA:
        return start_stage(o, RunState.TRAINING)
    if o.state is RunState.TRAINING and o.template.evaluate is not None:
        return start_stage(o, RunState.EVALUATING)
    return transition_to(
        o, RunState.REGISTERING, Reason.REGISTERING_VERSION, "all stages passed; the ModelVersion is made"
    )


def remaining_time(clock: ClockStatus | None, limit: str, now: datetime) -> timedelta:
    return timedelta(seconds=parse_duration(limit)) - elapsed_time(clock, now)
