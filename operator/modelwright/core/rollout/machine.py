"""The rollout's decisions: one table, read from the top, the first row whose condition holds applies.

`docs/concepts/rollout-states.md` is made from this table, and a test holds the two against each other.
"""

from collections.abc import Iterator
from dataclasses import replace

from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.rollout import direct, evaluation, stepwise
from modelwright.core.rollout.observed import Observed, Rolling
from modelwright.core.rollout.record import Record, enter
from modelwright.core.rollout.rule import Assessment, Decision, Row, Rule, Transition

TABLE: tuple[Row, ...] = (*stepwise.ROWS, *direct.ROWS)

MOST_TRANSITIONS = 16
"""More in one pass would be a loop: each one takes the rollout nearer to its end."""


def settle(observed: Observed) -> Observed:
    """`observed` with its record as it is to be written down: all transitions followed, then the state, the reason and
    the clock of the row that stays. Changes nothing when the Model is suspended."""
    if observed.suspended:
        return observed
    *_, (_, observed) = course(observed)
    return observed


def course(observed: Observed) -> Iterator[tuple[Row, Observed]]:
    """The rows that apply in one pass, each with the picture after it; the last one is the row that stays."""
    for _ in range(MOST_TRANSITIONS):
        row = _row(observed)
        if isinstance(row, Rule):
            yield row, _told(observed, row)
            return
        assert observed.rolling is not None  # noqa: S101 - transitions hold for records only
        record, before = row.then(observed), observed.rolling.record
        rolling = replace(observed.rolling, record=record)
        if before is None or before.status.step != record.status.step:
            # What people said, and what was measured, was about the place before.
            rolling = replace(rolling, people=None, verdicts=(), outcome=_not_yet(rolling, record), watched=None)
        observed = replace(observed, rolling=rolling)
        yield row, observed
    raise AssertionError(f"the rollout table does not come to rest at: {_row(observed).name}")


def determine(observed: Observed) -> Assessment:
    """The state that a Model's rollout is in. `observed` has been settled."""
    rule = _rule(observed)
    why = rule.explain(observed)
    return Assessment(rule.state, why.reason, why.message, why.stalled)


def decide(observed: Observed) -> Decision:
    """The actions that follow from the state. At most one changes traffic; none when the Model is suspended."""
    if observed.suspended:
        return Decision(())
    rule = _rule(observed)
    wait = rule.look_again(observed)
    if wait is None and observed.leftovers:
        wait = observed.settle
    return Decision(rule.act(observed), wait)


def _not_yet(rolling: Rolling, record: Record) -> Outcome | None:
    """What the metrics of a step that has only just begun come to."""
    step = rolling.steps[record.step] if record.step < len(rolling.steps) else None
    return evaluation.before_any(rolling.policy, step) if step is not None else None


def _rows(observed: Observed) -> tuple[Row, ...]:
    """The rows that can hold: without a policy and a record none of those for rollouts does."""
    return TABLE if observed.rolling is not None else direct.ROWS


def _row(observed: Observed) -> Row:
    return next(row for row in _rows(observed) if row.holds(observed))


def _rule(observed: Observed) -> Rule:
    """The row that stays; of a Model that is suspended in the middle of a transition, the one that would be next."""
    return next(row for row in _rows(observed) if isinstance(row, Rule) and row.holds(observed))


def _told(observed: Observed, rule: Rule) -> Observed:
    record = observed.live
    if record is None or observed.rolling is None or rule.state in stepwise.NOT_OF_A_RECORD:
        return observed
    if record.state is RolloutState.ROLLING_BACK:
        # Why it turned back stays written down, whatever is in the way.
        return observed
    why = rule.explain(observed)
    return replace(
        observed,
        rolling=replace(observed.rolling, record=enter(record, rule.state, why.reason, why.message, observed.now)),
    )


__all__ = ["TABLE", "Assessment", "Decision", "Rule", "Transition", "decide", "determine", "settle"]
