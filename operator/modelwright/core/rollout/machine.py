"""Decides the next state and the actions of a rollout, by one decision table.

`docs/concepts/rollout-states.md` is generated from this table; a test compares the two.
"""

from collections.abc import Iterator
from dataclasses import replace

from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.rollout import step_analysis
from modelwright.core.rollout.actions import Action
from modelwright.core.rollout.decision import Assessment, Decision, RolloutRow
from modelwright.core.rollout.observation import Observation, RolloutInput
from modelwright.core.rollout.record import RolloutRecord, transition_to
from modelwright.core.rollout.rows import (
    gating,
    idle,
    interventions,
    pausing,
    promoting,
    recreating,
    rollback_causes,
    rolling_back,
    stepping,
    unmanaged,
)
from modelwright.core.table import StateRow, determine, trace

TABLE: tuple[RolloutRow, ...] = (
    *interventions.ROWS,
    *rolling_back.ROWS,
    *rollback_causes.ROWS,
    *pausing.ROWS,
    *gating.ROWS,
    *recreating.ROWS,
    *stepping.ROWS,
    *promoting.ROWS,
    *idle.ROWS,
    *unmanaged.ROWS,
)
"""Safety comes first: commands, the rollback, the deadline and a failed metric wait for nothing else."""

TRANSITION_ONLY_STATES: frozenset[RolloutState] = frozenset(
    {RolloutState.SUCCEEDED, RolloutState.ROLLED_BACK, RolloutState.ABORTED, RolloutState.SUPERSEDED}
)
"""States that an active record reaches by a transition only, never through a `StateRow`."""


def apply_transitions(observed: Observation) -> Observation:
    """Return the observation with its record as it is to be written: all transitions applied, then the state, the
    reason and the clock of the row that ends the reading. Change nothing when the Model is suspended."""
    if observed.suspended:
        return observed
    *_, (_, observed) = trace_rows(observed)
    return observed


def trace_rows(observed: Observation) -> Iterator[tuple[RolloutRow, Observation]]:
    """Yield the rows that apply in one reconciliation, each with the observation after it; the last is a `StateRow`."""
    return trace(_applicable_rows(observed), observed, apply=_with_record, record_state=_with_recorded_state)


def determine_state(observed: Observation) -> Assessment:
    """Determine the state of a Model's rollout. All transitions have been applied to `observed`."""
    row = determine(_applicable_rows(observed), observed)
    reason = row.reason(observed)
    return Assessment(row.state, reason.reason, reason.message, reason.stalled)


def decide_actions(observed: Observation) -> Decision:
    """Decide the actions that follow from the state. At most one sets traffic; none when the Model is suspended."""
    if observed.suspended:
        return Decision(())
    row = determine(_applicable_rows(observed), observed)
    wait = row.requeue_after(observed)
    if wait is None and observed.obsolete_revisions:
        wait = observed.settle_time
    return Decision(row.actions(observed), wait)


def _with_record(observed: Observation, record: RolloutRecord) -> Observation:
    rollout = observed.rollout
    assert rollout is not None  # noqa: S101 - transitions apply to records only
    before, rollout = rollout.record, replace(rollout, record=record)
    if before is None or before.status.step != record.status.step:
        # Approvals and measurements belong to the step before.
        rollout = replace(
            rollout, approval=None, verdicts=(), outcome=_initial_outcome(rollout, record), earlier_outcome=None
        )
    return replace(observed, rollout=rollout)


def _initial_outcome(rollout: RolloutInput, record: RolloutRecord) -> Outcome | None:
    """Return the outcome of a step that has just started, before any measurement."""
    step = rollout.steps[record.step_index] if record.step_index < len(rollout.steps) else None
    return step_analysis.initial_outcome(rollout.policy, step) if step is not None else None


def _applicable_rows(observed: Observation) -> tuple[RolloutRow, ...]:
    """Select the rows that can apply: without a policy and a record, only those of a Model without either."""
    return TABLE if observed.rollout is not None else unmanaged.ROWS


def _with_recorded_state(observed: Observation, row: StateRow[Observation, RolloutState, Action]) -> Observation:
    record = observed.active_record
    if record is None or observed.rollout is None or row.state in TRANSITION_ONLY_STATES:
        return observed
    if record.state is RolloutState.ROLLING_BACK:
        # The record keeps the reason of the rollback, not that of an obstacle to it.
        return observed
    reason = row.reason(observed)
    record = transition_to(record, row.state, reason.reason, reason.message, observed.now)
    return replace(observed, rollout=replace(observed.rollout, record=record))


__all__ = ["TABLE", "Assessment", "Decision", "apply_transitions", "decide_actions", "determine_state", "trace_rows"]
