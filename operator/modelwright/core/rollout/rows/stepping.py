"""Rows of the steps that move traffic."""

from __future__ import annotations

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.problem import Problem
from modelwright.core.rollout.action_plans import apply_step, approach_step, hold_step, keep_step
from modelwright.core.rollout.approval_predicates import approval_problem, is_approved
from modelwright.core.rollout.decision import GATEWAY_GRACE, POLL_GATEWAY, POLL_PODS, RolloutRow
from modelwright.core.rollout.evidence_predicates import (
    evidence_problem,
    final_measurement_is_due,
    has_enough_evidence,
    has_failed_metric,
    hold_is_over,
    is_between_steps,
    requeue_in_step,
    verdict_messages,
)
from modelwright.core.rollout.lookups import (
    current_step,
    is_exposed,
    is_in_step,
    pods_problem,
    require_record,
    rollout_input,
    step_is_confirmed,
)
from modelwright.core.rollout.observation import Observation
from modelwright.core.rollout.record import transition_to
from modelwright.core.rollout.step_targets import has_step_pods, pods_for_step, step_split, traffic_matches
from modelwright.core.rollout.steps import StepKind
from modelwright.core.rollout.transitions import advance_step, roll_back
from modelwright.core.table import StateRow, Transition, requeue_in


def _step_traffic_problem(o: Observation) -> Problem:
    """Explain why the gateway does not follow a step yet, once that takes long or is impossible; else the progress."""
    problem, entry = o.traffic.problem, require_record(o).step_status
    slow = entry is not None and o.now - entry.started_at >= GATEWAY_GRACE
    if problem is not None and (problem.stalled or slow):
        return problem
    status = require_record(o).status
    if status.state == State.PROGRESSING and status.reason and not step_is_confirmed(o):
        # The traffic is about to be confirmed: until then a write of the record can be saved.
        return Problem(status.reason, status.message or "")
    return _step_progress(o)


def _step_progress(o: Observation) -> Problem:
    step, record = current_step(o), require_record(o)
    progress = f"step {record.step_index + 1} of {len(rollout_input(o).steps)}: {step.kind}"
    if step.kind is StepKind.WEIGHT:
        progress += f" {step.weight} %"
    return Problem(Reason.STEP_IN_PROGRESS, progress)


def _comparer_is_missing(o: Observation) -> bool:
    return (
        is_in_step(o)
        and current_step(o).mirror > 0
        and not step_is_confirmed(o)
        and not rollout_input(o).comparer_ready
    )


def _candidate_won_test(o: Observation) -> bool:
    return (
        is_in_step(o)
        and current_step(o).kind is StepKind.AB_TEST
        and hold_is_over(o)
        and rollout_input(o).ab_test_won is True
        and has_enough_evidence(o)
    )


def _candidate_lost_test(o: Observation) -> bool:
    return (
        is_in_step(o)
        and current_step(o).kind is StepKind.AB_TEST
        and hold_is_over(o)
        and rollout_input(o).ab_test_won is False
    )


def _step_has_passed(o: Observation) -> bool:
    return (
        is_in_step(o)
        and current_step(o).kind is not StepKind.AB_TEST
        and hold_is_over(o)
        and has_enough_evidence(o)
        and (current_step(o).kind is not StepKind.APPROVAL or is_approved(o))
    )


def _step_stays_undecided(o: Observation) -> bool:
    return (
        is_in_step(o)
        and hold_is_over(o)
        and final_measurement_is_due(o)
        and rollout_input(o).outcome in (Outcome.INCONCLUSIVE, Outcome.ERROR)
        and rollout_input(o).policy.on_inconclusive == "Rollback"
        and current_step(o).kind is not StepKind.APPROVAL
    )


ROWS: tuple[RolloutRow, ...] = (
    StateRow(
        name="a metric has failed between two steps, and the policy holds on failure",
        when=lambda o: is_exposed(o) and is_between_steps(o) and has_failed_metric(o),
        state=State.HOLDING,
        reason=lambda o: Problem(Reason.ANALYSIS_FAILED, verdict_messages(o, Outcome.FAIL), stalled=True),
        actions=hold_step,
        summary="hold for a person until the deadline; traffic stays as it is",
        requeue_after=requeue_in_step,
    ),
    Transition(
        name="the step is the promotion itself",
        when=lambda o: is_in_step(o) and current_step(o).is_promotion,
        update=lambda o: transition_to(
            require_record(o), State.PROMOTING, Reason.PROMOTED, "every step has passed", o.now
        ),
        summary="promote",
    ),
    StateRow(
        name="the candidate's pods for the step are not all ready",
        when=lambda o: is_in_step(o) and not step_is_confirmed(o) and not has_step_pods(o, current_step(o)),
        state=State.PROGRESSING,
        reason=lambda o: pods_problem(o, pods_for_step(o, current_step(o))),
        actions=approach_step,
        summary="run as many as the step's share needs; traffic stays as it is, or follows what pods there is room for",
        requeue_after=requeue_in(POLL_PODS),
    ),
    StateRow(
        name="the step mirrors requests, and the comparer is not ready",
        when=_comparer_is_missing,
        state=State.PROGRESSING,
        reason=lambda _: Problem(Reason.WAITING_FOR_PODS, "the comparer's pod is starting"),
        actions=keep_step,
        summary="run the comparer",
        requeue_after=requeue_in(POLL_PODS),
    ),
    StateRow(
        name="traffic is not as the step wants it",
        when=lambda o: is_in_step(o) and not traffic_matches(o, step_split(o, current_step(o))),
        state=State.PROGRESSING,
        reason=_step_traffic_problem,
        actions=apply_step,
        summary="set traffic as the step wants it",
        requeue_after=requeue_in(POLL_GATEWAY),
    ),
    StateRow(
        name="the gateway has not been seen to follow the step",
        when=lambda o: is_in_step(o) and not o.traffic.confirmed,
        state=State.PROGRESSING,
        reason=_step_traffic_problem,
        actions=apply_step,
        summary="check the gateway again",
        requeue_after=requeue_in(POLL_GATEWAY),
    ),
    Transition(
        name="the A/B test is over, and the candidate has won",
        when=_candidate_won_test,
        update=advance_step,
        summary="promote it",
    ),
    Transition(
        name="the A/B test is over, and the candidate has not won",
        when=_candidate_lost_test,
        update=lambda o: roll_back(State.ABORTED, Reason.AB_TEST_LOST, o, rollout_input(o).ab_test_message),
        summary="turn back, to end as Aborted: not to have won is no harm",
    ),
    Transition(
        name="the hold is over, the evidence is there, and the approvals are complete",
        when=_step_has_passed,
        update=advance_step,
        summary="start the next step, after the last one the promotion",
    ),
    Transition(
        name="the hold is over, the evidence decides nothing, and the policy rolls back then",
        when=_step_stays_undecided,
        update=lambda o: roll_back(State.ABORTED, Reason.INCONCLUSIVE, o, evidence_problem(o).message),
        summary="turn back, to end as Aborted: nothing was found against the candidate",
    ),
    StateRow(
        name="a metric has failed, and the policy holds on failure",
        when=lambda o: is_in_step(o) and rollout_input(o).outcome is Outcome.FAIL,
        state=State.HOLDING,
        reason=lambda o: Problem(Reason.ANALYSIS_FAILED, verdict_messages(o, Outcome.FAIL), stalled=True),
        actions=apply_step,
        summary="hold for a person until the deadline",
        requeue_after=requeue_in_step,
    ),
    StateRow(
        name="the step waits for approvals",
        when=lambda o: is_in_step(o) and current_step(o).kind is StepKind.APPROVAL and not is_approved(o),
        state=State.AWAITING_APPROVAL,
        reason=approval_problem,
        actions=apply_step,
        summary="keep the step, watch its metrics",
        requeue_after=requeue_in_step,
    ),
    StateRow(
        name="the step's hold is not over, or the measurement after it has not ended",
        when=lambda o: is_in_step(o) and not (hold_is_over(o) and final_measurement_is_due(o)),
        state=State.PROGRESSING,
        reason=_step_progress,
        actions=apply_step,
        summary="keep the step, watch its metrics",
        requeue_after=requeue_in_step,
    ),
    StateRow(
        name="the hold is over, and the evidence decides nothing yet",
        when=is_in_step,
        state=State.HOLDING,
        reason=evidence_problem,
        actions=apply_step,
        summary="hold until it does, or until the deadline",
        requeue_after=requeue_in_step,
    ),
)
