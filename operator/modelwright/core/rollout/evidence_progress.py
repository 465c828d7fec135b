"""Progress of a step towards its end: its hold, and the evidence that its metrics give."""

from __future__ import annotations

from datetime import timedelta

from modelwright.api.common import parse_duration
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.problem import Problem
from modelwright.core.rollout.lookups import (
    current_step,
    is_in_state,
    is_in_step,
    require_record,
    rollout_input,
    step_is_confirmed,
)
from modelwright.core.rollout.observation import Observation
from modelwright.core.rollout.step_analysis import minimum_hold
from modelwright.core.table import POLL_IDLE

MEASUREMENT_GRACE = timedelta(seconds=5)
"""How long a look takes at most, as a rule."""


def step_is_undecided(o: Observation) -> bool:
    """The metrics of the present step have decided nothing."""
    undecided = rollout_input(o).outcome in (Outcome.INCONCLUSIVE, Outcome.ERROR)
    return undecided and is_in_step(o) and step_is_confirmed(o)


def _step_hold(o: Observation) -> timedelta:
    """How long the present step lasts at least."""
    return minimum_hold(rollout_input(o).policy, current_step(o), rollout_input(o).longest_request)


def hold_is_over(o: Observation) -> bool:
    entry = require_record(o).step_status
    return entry is not None and entry.confirmed_at is not None and o.now - entry.confirmed_at >= _step_hold(o)


def final_measurement_is_due(o: Observation) -> bool:
    """A look that began after the hold should have told by now."""
    entry = require_record(o).step_status
    if entry is None or entry.confirmed_at is None:
        return False
    return o.now - entry.confirmed_at >= _step_hold(o) + _measurement_interval(o) + MEASUREMENT_GRACE


def _remaining_hold(o: Observation) -> timedelta | None:
    entry = require_record(o).step_status
    if entry is None or entry.confirmed_at is None:
        return None
    return max(_step_hold(o) - (o.now - entry.confirmed_at), timedelta(0))


def _measurement_interval(o: Observation) -> timedelta:
    analysis = rollout_input(o).policy.analysis
    return timedelta(seconds=parse_duration(analysis.interval)) if analysis is not None else POLL_IDLE


def requeue_in_step(o: Observation) -> timedelta:
    """When a step is to be looked at again: at its end, and at least as often as its evidence."""
    left = _remaining_hold(o)
    wait = _measurement_interval(o) if rollout_input(o).policy.analysis is not None else POLL_IDLE
    if left:
        return min(left, wait)
    # The table changes once more when the look after the hold is overdue.
    return wait if final_measurement_is_due(o) else min(wait, MEASUREMENT_GRACE)


def has_failed_metric(o: Observation) -> bool:
    """A metric of the present step has failed, or of the one before while this one has no evidence of its own. Not
    after a person has promoted the candidate in spite of that."""
    return not require_record(o).is_overruled and Outcome.FAIL in (
        rollout_input(o).outcome,
        rollout_input(o).earlier_outcome,
    )


def is_between_steps(o: Observation) -> bool:
    """The evidence that goes on is that of an earlier step."""
    return is_in_state(o, State.PROMOTING) or (is_in_step(o) and not step_is_confirmed(o))


def has_enough_evidence(o: Observation) -> bool:
    """The evidence that the policy asks for in this step is there."""
    return rollout_input(o).outcome in (None, Outcome.PASS)


def verdict_messages(o: Observation, outcome: Outcome) -> str:
    return "; ".join(v.message for v in rollout_input(o).verdicts if v.outcome is outcome and not v.dry_run)


def evidence_problem(o: Observation) -> Problem:
    text = verdict_messages(o, Outcome.ERROR) or verdict_messages(o, Outcome.INCONCLUSIVE) or "nothing was measured yet"
    erring = rollout_input(o).outcome is Outcome.ERROR
    return Problem(Reason.ANALYSIS_ERROR if erring else Reason.INSUFFICIENT_EVIDENCE, text)
