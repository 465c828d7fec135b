"""Predicates and facts about the progress of a step: its hold, and the evidence that its metrics give."""

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
"""Time that a measurement usually takes at most."""


def step_is_undecided(o: Observation) -> bool:
    """Whether the metrics of the current step have decided nothing."""
    undecided = rollout_input(o).outcome in (Outcome.INCONCLUSIVE, Outcome.ERROR)
    return undecided and is_in_step(o) and step_is_confirmed(o)


def _step_hold(o: Observation) -> timedelta:
    """Return the minimum duration of the current step."""
    return minimum_hold(rollout_input(o).policy, current_step(o), rollout_input(o).longest_request)


def hold_is_over(o: Observation) -> bool:
    entry = require_record(o).step_status
    return entry is not None and entry.confirmed_at is not None and o.now - entry.confirmed_at >= _step_hold(o)


def final_measurement_is_due(o: Observation) -> bool:
    """Whether a measurement that started after the hold should have ended by now."""
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
    """Return the time until the next reconciliation in a step: at the end of its hold, and with each measurement."""
    remaining = _remaining_hold(o)
    interval = _measurement_interval(o)
    if remaining:
        return min(remaining, interval)
    # The applicable row changes once more when the measurement after the hold is overdue.
    return interval if final_measurement_is_due(o) else min(interval, MEASUREMENT_GRACE)


def has_failed_metric(o: Observation) -> bool:
    """Whether a metric of the current step has failed, or of the previous one while the current one has no evidence of
    its own. A command that promotes the candidate nevertheless overrules that."""
    return not require_record(o).is_overruled and Outcome.FAIL in (
        rollout_input(o).outcome,
        rollout_input(o).earlier_outcome,
    )


def is_between_steps(o: Observation) -> bool:
    """Whether the measured evidence is that of an earlier step."""
    return is_in_state(o, State.PROMOTING) or (is_in_step(o) and not step_is_confirmed(o))


def has_enough_evidence(o: Observation) -> bool:
    """Whether the current step has the evidence that the policy requires."""
    return rollout_input(o).outcome in (None, Outcome.PASS)


def verdict_messages(o: Observation, outcome: Outcome) -> str:
    return "; ".join(v.message for v in rollout_input(o).verdicts if v.outcome is outcome and not v.dry_run)


def evidence_problem(o: Observation) -> Problem:
    messages = verdict_messages(o, Outcome.ERROR) or verdict_messages(o, Outcome.INCONCLUSIVE)
    has_error = rollout_input(o).outcome is Outcome.ERROR
    reason = Reason.ANALYSIS_ERROR if has_error else Reason.INSUFFICIENT_EVIDENCE
    return Problem(reason, messages or "nothing was measured yet")
