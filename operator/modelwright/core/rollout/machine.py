"""The rollout's decisions: one table, read from the top, the first row whose condition holds applies.

`docs/concepts/rollout-states.md` is made from this table, and a test holds the two against each other.
"""

from collections.abc import Iterator
from dataclasses import replace

from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.rollout import direct, step_analysis, stepwise
from modelwright.core.rollout.decision import Assessment, Decision, Row, StateRow, Transition
from modelwright.core.rollout.observation import Observation, RolloutInput
from modelwright.core.rollout.record import RolloutRecord, transition_to

TABLE: tuple[Row, ...] = (*stepwise.ROWS, *direct.ROWS)

MAX_TRANSITIONS = 16
"""More in one pass would be a loop: each one takes the rollout nearer to its end."""


def apply_transitions(observed: Observation) -> Observation:
    """`observed` with its record as it is to be written down: all transitions followed, then the state, the reason and
    the clock of the row that stays. Changes nothing when the Model is suspended."""
    if observed.suspended:
        return observed
    *_, (_, observed) = trace_rows(observed)
    return observed


def trace_rows(observed: Observation) -> Iterator[tuple[Row, Observation]]:
    """The rows that apply in one pass, each with the picture after it; the last one is the row that stays."""
    for _ in range(MAX_TRANSITIONS):
        row = _first_row(observed)
        if isinstance(row, StateRow):
            yield row, _with_recorded_state(observed, row)
            return
        assert observed.rollout is not None  # noqa: S101 - transitions hold for records only
        record, before = row.update(observed), observed.rollout.record
        rolling = replace(observed.rollout, record=record)
        if before is None or before.status.step != record.status.step:
            # What people said, and what was measured, was about the place before.
            rolling = replace(
                rolling, approval=None, verdicts=(), outcome=_initial_outcome(rolling, record), earlier_outcome=None
            )
        observed = replace(observed, rollout=rolling)
        yield row, observed
    raise AssertionError(f"the rollout table does not come to rest at: {_first_row(observed).name}")


def determine_state(observed: Observation) -> Assessment:
    """The state that a Model's rollout is in. `observed` has been settled."""
    rule = _first_state_row(observed)
    why = rule.reason(observed)
    return Assessment(rule.state, why.reason, why.message, why.stalled)


def decide_actions(observed: Observation) -> Decision:
    """The actions that follow from the state. At most one changes traffic; none when the Model is suspended."""
    if observed.suspended:
        return Decision(())
    rule = _first_state_row(observed)
    wait = rule.requeue_after(observed)
    if wait is None and observed.obsolete_revisions:
        wait = observed.settle_time
    return Decision(rule.actions(observed), wait)


def _initial_outcome(rolling: RolloutInput, record: RolloutRecord) -> Outcome | None:
    """What the metrics of a step that has only just begun come to."""
    step = rolling.steps[record.step_index] if record.step_index < len(rolling.steps) else None
    return step_analysis.initial_outcome(rolling.policy, step) if step is not None else None


def _applicable_rows(observed: Observation) -> tuple[Row, ...]:
    """The rows that can hold: without a policy and a record none of those for rollouts does."""
    return TABLE if observed.rollout is not None else direct.ROWS


def _first_row(observed: Observation) -> Row:
    return next(row for row in _applicable_rows(observed) if row.when(observed))


def _first_state_row(observed: Observation) -> StateRow:
    """The row that stays; of a Model that is suspended in the middle of a transition, the one that would be next."""
    return next(row for row in _applicable_rows(observed) if isinstance(row, StateRow) and row.when(observed))


def _with_recorded_state(observed: Observation, rule: StateRow) -> Observation:
    record = observed.active_record
    if record is None or observed.rollout is None or rule.state in stepwise.TRANSITION_ONLY_STATES:
        return observed
    if record.state is RolloutState.ROLLING_BACK:
        # Why it turned back stays written down, whatever is in the way.
        return observed
    why = rule.reason(observed)
    return replace(
        observed,
        rollout=replace(
            observed.rollout, record=transition_to(record, rule.state, why.reason, why.message, observed.now)
        ),
    )


__all__ = [
    "TABLE",
    "Assessment",
    "Decision",
    "StateRow",
    "Transition",
    "apply_transitions",
    "decide_actions",
    "determine_state",
]
