"""Decides the next state and the actions of a TrainingRun, by one decision table.

The record is written before anything is done, so that a crash between two writes neither loses nor repeats the object
of a stage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from modelwright.api.v1alpha1.training import RunState, TrainingRunStatus
from modelwright.core.retraining.run_actions import (
    RegisterVersion,
    ResolveData,
    RunAction,
    RunDecision,
    StartStage,
    StopStage,
)
from modelwright.core.retraining.run_inputs import hash_inputs, merge_parameters
from modelwright.core.retraining.run_observation import (
    RUN_TERMINAL_STATES,
    STAGES_BY_STATE,
    ChildRef,
    DataRole,
    ResolvedData,
    RunObservation,
    current_stage,
)
from modelwright.core.retraining.run_record import (
    is_active,
    is_in_stage,
    is_in_state,
    stage_entry,
    transition_to,
    update_stage,
)
from modelwright.core.retraining.run_table import RUN_TABLE, RunRow, RunStateRow
from modelwright.core.retraining.stage_reading import WAITING_STAGE_STATES
from modelwright.core.status.readiness import ConditionSummary, build_conditions
from modelwright.core.table import StateRow, trace

__all__ = [
    "RUN_TABLE",
    "RUN_TERMINAL_STATES",
    "STAGES_BY_STATE",
    "ChildRef",
    "DataRole",
    "RegisterVersion",
    "ResolveData",
    "ResolvedData",
    "RunAction",
    "RunDecision",
    "RunObservation",
    "RunStateRow",
    "StartStage",
    "StopStage",
    "current_stage",
    "decide_run",
    "hash_inputs",
    "merge_parameters",
    "trace_run",
]
"""The interface of the machine for reconcilers and the generator of the documentation."""


def decide_run(observed: RunObservation) -> RunDecision:
    """Decide the next record, after all transitions, and the actions that follow from it."""
    if observed.status.state is not None and observed.status.state not in set(RunState):
        # A newer operator wrote this state; a guess could create objects twice.
        return RunDecision(observed.status)
    *_, (row, observed) = trace_run(replace(observed, now=observed.now.replace(microsecond=0)))
    assert isinstance(row, StateRow)  # noqa: S101 - a trace ends with one
    return RunDecision(_with_conditions(observed, row), row.actions(observed), row.requeue_after(observed))


def trace_run(observed: RunObservation) -> Iterator[tuple[RunRow, RunObservation]]:
    """Yield the rows that apply in one reconciliation, each with the observation after it; the last is a `StateRow`."""
    return trace(RUN_TABLE, observed, apply=lambda _, updated: updated, record_state=_with_recorded_state)


def _with_recorded_state(o: RunObservation, row: RunStateRow) -> RunObservation:
    if not is_active(o):
        return o
    new_message = is_in_state(o, RunState.QUEUED)
    if is_in_stage(o) and o.stage is not None:
        reading, entry = o.stage, stage_entry(o)
        new_message = (entry.state, entry.reason) != (str(reading.state), reading.reason) or (
            # The cause of a wait becomes known only later, and changes with other workloads.
            reading.state in WAITING_STAGE_STATES and entry.message != reading.message
        )
        if new_message:
            o = update_stage(o, state=str(reading.state), reason=reading.reason, message=reading.message)
    problem = row.reason(o)
    o = transition_to(o, row.state or o.state, problem.reason, problem.message)
    # Otherwise the message stays with its reason: messages of pods differ from one attempt to the next.
    return o.with_status(message=problem.message) if new_message and o.status.message != problem.message else o


def _with_conditions(o: RunObservation, row: RunStateRow) -> TrainingRunStatus:
    problem = row.reason(o)
    failed = o.state in (RunState.FAILED, RunState.CANCELLED)
    reason, message = o.status.reason or problem.reason, o.status.message or problem.message
    summary = ConditionSummary(reason, message, stalled=failed, reconciling=is_active(o))
    generation = o.run.generation
    conditions = build_conditions(o.status.conditions, summary, None, generation=generation, now=o.now)
    return o.with_status(conditions=conditions, observed_generation=generation).status
