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
    template = o.template
    work = {"dataCheck": template.data_check, "train": template.train, "evaluate": template.evaluate}[
        STAGES_BY_STATE[o.state]
    ]
    assert work is not None  # noqa: S101 - a stage is begun only when the policy has it
    return work


def stage_entry(o: RunObservation) -> StageStatus:
    entry = current_stage(o.status)
    assert entry is not None  # noqa: S101 - a run gets into the state of a stage with the stage's entry
    return entry


def stage_is_in(o: RunObservation, *states: StageState) -> bool:
    return is_in_stage(o) and o.stage is not None and o.stage.state in states


def is_waiting(o: RunObservation) -> bool:
    """The object of the stage is held back by a queue or a person: no clock runs."""
    return stage_is_in(o, *WAITING_STAGE_STATES)


def update_stage(o: RunObservation, **changes: Any) -> RunObservation:
    stages = o.status.stages
    return o.with_status(stages=(*stages[:-1], stages[-1].model_copy(update=changes)))


def transition_to(o: RunObservation, state: RunState, reason: str, message: str) -> RunObservation:
    """The run in this state for this reason. Times move only when the state does, the message only with the reason;
    the clocks of the run and of the stage stop and start here."""
    status, now = o.status, o.now
    changes: dict[str, Any] = {}
    if (status.state, status.reason) != (state, str(reason)):
        changes = {"state": str(state), "reason": str(reason), "message": message}
        if status.state != state:
            changes["since"] = now
    ended = state in RUN_TERMINAL_STATES
    if ended and status.finished_at is None:
        changes["finished_at"] = now
    runs = not ended and state not in NOT_STARTED and not is_waiting(o)
    clock = set_running(status.clock, running=runs, now=now)
    if clock != (status.clock or ClockStatus()):
        changes["clock"] = clock
    o = o.with_status(**changes)
    entry = current_stage(o.status)
    if entry is None or entry.finished_at is not None:
        return o
    clock = set_running(entry.clock, running=runs, now=now)
    if clock != (entry.clock or ClockStatus()):
        o = update_stage(o, clock=clock)
    return update_stage(o, finished_at=now) if ended else o


def end_run(o: RunObservation, state: RunState, reason: str, message: str) -> RunObservation:
    """The run has ended; a stage that goes on has failed with it, for the same reason."""
    entry = current_stage(o.status)
    if entry is not None and entry.finished_at is None:
        o = update_stage(o, state=str(StageState.FAILED), reason=str(reason), message=message)
    return transition_to(o, state, reason, message)


def fail_run(o: RunObservation, reason: str, message: str) -> RunObservation:
    return end_run(o, RunState.FAILED, reason, message)


def start_stage(o: RunObservation, state: RunState) -> RunObservation:
    """The run at this stage. What was seen so far was of another object."""
    entry = StageStatus(name=STAGES_BY_STATE[state], state=str(StageState.PENDING), started_at=o.now)
    o = replace(o.with_status(stages=(*o.status.stages, entry)), stage=None, child=None)
    if state is RunState.EVALUATING:
        o = o.with_status(compared_with=o.serving)
    return transition_to(o, state, Reason.STAGE_RUNNING, f"the stage {STAGES_BY_STATE[state]} goes on")


def pass_stage(o: RunObservation, reason: str = "", message: str = "") -> RunObservation:
    """The present stage has ended well, with something to say or not, and the next one begins."""
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
