"""Rows that end or stop a rollout for safety: a gate, the deadline, failed metrics, lost pods, a rejection.

None of them waits for a write, a gateway or a metrics server.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from modelwright.api.common import parse_duration
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.problem import Problem
from modelwright.core.rollout.action_plans import hold_pods, return_to_source
from modelwright.core.rollout.actions import Action, EnsureRevision
from modelwright.core.rollout.approval_predicates import (
    approval_problem,
    approval_timeout,
    awaits_approval,
    is_approved,
    is_rejected,
)
from modelwright.core.rollout.decision import POLL_PODS, RolloutRow
from modelwright.core.rollout.evidence_predicates import (
    evidence_problem,
    has_failed_metric,
    requeue_in_step,
    step_is_undecided,
    verdict_messages,
)
from modelwright.core.rollout.gate_predicates import (
    gate_is_undecided,
    gate_problem,
    has_new_gate_result,
    recorded_gate_outcome,
)
from modelwright.core.rollout.lookups import (
    candidate_takes_requests,
    current_step,
    has_ready_pods,
    is_exposed,
    is_in_state,
    is_recreate,
    pods_problem,
    require_candidate,
    require_record,
    revision_view,
    rollout_input,
)
from modelwright.core.rollout.observation import Observation
from modelwright.core.rollout.record import DEADLINE_STATES
from modelwright.core.rollout.step_targets import needs_capacity_plan, pods_for_step
from modelwright.core.rollout.transitions import record_gate, roll_back
from modelwright.core.table import StateRow, Transition, requeue_in

CANDIDATE_FAULTS: frozenset[str] = frozenset(
    {Reason.MODEL_LOAD_FAILED, Reason.CONTAINER_OOM_KILLED, Reason.DIGEST_MISMATCH, Reason.UNSAFE_ARCHIVE}
)
"""Reasons of pod failures that the served model causes: findings about a revision."""


def _candidate_is_faulty(o: Observation) -> bool:
    """Whether the candidate's own pods have shown that they can't serve it. Pods that are not ready yet, fit no node,
    or wait for an image or a store are no finding about the candidate."""
    view = revision_view(o, require_record(o).candidate)
    return view is not None and view.failure is not None and view.failure.reason in CANDIDATE_FAULTS


def _candidate_lost_pods(o: Observation) -> bool:
    if not is_exposed(o):
        return False
    view = revision_view(o, require_candidate(o))
    return candidate_takes_requests(o) and (view is None or (not view.available and view.replicas != 0))


def _source_lost_pods(o: Observation) -> bool:
    """Whether the revision that served should have pods, and has no ready one either: then the loss of the candidate's
    pods is no finding about the candidate."""
    view = revision_view(o, require_record(o).from_revision)
    return view is not None and bool(view.replicas) and not view.available


def _lost_pods_message(o: Observation) -> str:
    return pods_problem(o, o.replicas if is_in_state(o, State.PROMOTING) else pods_for_step(o, current_step(o))).message


def _all_lost_message(o: Observation) -> str:
    source = require_record(o).from_revision
    return f"{_lost_pods_message(o)}; version {source.version if source else ''}, which served, has no ready pod either"


def _deadline_has_passed(o: Observation) -> bool:
    record = o.active_record
    if record is None or record.is_manual or record.state not in DEADLINE_STATES:
        return False
    if record.from_revision is None and record.state is not State.GATING:
        # There is no revision to return to: its pods keep trying.
        return False
    return record.elapsed_time(o.now) >= timedelta(seconds=parse_duration(rollout_input(o).policy.deadline))


def _deadline_message(o: Observation) -> str:
    status, failure = require_record(o).status, rollout_input(o).last_failure
    limit = f"{rollout_input(o).policy.deadline} (spec.deadline)"
    message = f"it did not end within {limit}; it was {status.state}: {status.message}"
    return f"{message}; in its way: {failure}" if failure and failure != status.message else message


def _undecided_message(o: Observation) -> str:
    message = (gate_problem(o) if gate_is_undecided(o) else evidence_problem(o)).message
    return f"{message}; no other result within {rollout_input(o).policy.deadline} (spec.deadline)"


def _recreate_timed_out(o: Observation) -> bool:
    record = o.active_record
    if record is None or not is_recreate(o) or record.state is not State.PROGRESSING or record.status.step is not None:
        return False
    recreate = rollout_input(o).policy.strategy.recreate
    since = record.status.since
    return (
        recreate is not None
        and since is not None
        and o.now - since >= timedelta(seconds=parse_duration(recreate.timeout))
    )


def _no_revision_has_pods(o: Observation) -> bool:
    return (
        _candidate_lost_pods(o)
        and not require_record(o).is_manual
        and _source_lost_pods(o)
        and not _candidate_is_faulty(o)
    )


def _return_until_ready(o: Observation) -> tuple[Action, ...]:
    return (
        *return_to_source(o),
        *(() if needs_capacity_plan(o) else (EnsureRevision(require_candidate(o)),)),
    )


def _snapshot_is_unreadable(o: Observation) -> bool:
    return (
        o.active_record is not None
        and rollout_input(o).snapshot_problem is not None
        and not is_in_state(o, State.PROMOTING)
    )


def _snapshot_problem(o: Observation) -> Problem:
    return rollout_input(o).snapshot_problem or Problem(Reason.INVALID_POLICY, "")


def _held_without_policy(o: Observation) -> Problem:
    problem = _snapshot_problem(o)
    return replace(problem, message=f"{problem.message}: put it back, or abort the rollout")


def _approval_timed_out(o: Observation) -> bool:
    return (
        awaits_approval(o)
        and is_in_state(o, State.AWAITING_APPROVAL)
        and not is_approved(o)
        and require_record(o).status.since is not None
        and o.now - (require_record(o).status.since or o.now) >= approval_timeout(o)
    )


ROWS: tuple[RolloutRow, ...] = (
    Transition(
        name="a gate has ended",
        when=has_new_gate_result,
        update=record_gate,
        summary="record its result",
    ),
    Transition(
        name="a gate has refused the candidate",
        when=lambda o: is_in_state(o, State.GATING, State.HOLDING) and recorded_gate_outcome(o) is Outcome.FAIL,
        update=lambda o: roll_back(State.ROLLED_BACK, Reason.GATE_FAILED, o, gate_problem(o).message),
        summary="turn back: no caller's request has reached it",
    ),
    Transition(
        name="the deadline has passed, and a metric has failed or the candidate's pods fail",
        when=lambda o: _deadline_has_passed(o) and (has_failed_metric(o) or _candidate_is_faulty(o)),
        update=lambda o: roll_back(State.ROLLED_BACK, Reason.DEADLINE_EXCEEDED, o, _deadline_message(o)),
        summary="turn back",
    ),
    Transition(
        name="the deadline has passed, and a gate or the step's metrics have decided nothing",
        when=lambda o: _deadline_has_passed(o) and (gate_is_undecided(o) or step_is_undecided(o)),
        update=lambda o: roll_back(State.ABORTED, Reason.INCONCLUSIVE, o, _undecided_message(o)),
        summary="turn back, to end as Aborted: nothing was found against the candidate",
    ),
    Transition(
        name="the deadline has passed",
        when=_deadline_has_passed,
        update=lambda o: roll_back(State.ABORTED, Reason.DEADLINE_EXCEEDED, o, _deadline_message(o)),
        summary="turn back, to end as Aborted: nothing was found against the candidate",
    ),
    Transition(
        name="a metric has failed, and the policy rolls back on failure",
        when=lambda o: is_exposed(o) and has_failed_metric(o) and rollout_input(o).policy.on_failure == "Rollback",
        update=lambda o: roll_back(State.ROLLED_BACK, Reason.ANALYSIS_FAILED, o, verdict_messages(o, Outcome.FAIL)),
        summary="turn back",
    ),
    Transition(
        name="the candidate takes requests, and neither it nor what served has a ready pod",
        when=_no_revision_has_pods,
        update=lambda o: roll_back(State.ABORTED, Reason.CANDIDATE_UNAVAILABLE, o, _all_lost_message(o)),
        summary="turn back, to end as Aborted: nothing was found against the candidate",
    ),
    Transition(
        name="the candidate takes requests and has no ready pod",
        when=lambda o: _candidate_lost_pods(o) and not require_record(o).is_manual,
        update=lambda o: roll_back(State.ROLLED_BACK, Reason.CANDIDATE_UNAVAILABLE, o, _lost_pods_message(o)),
        summary="turn back",
    ),
    StateRow(
        name="a manual rollback takes requests and has no ready pod",
        when=lambda o: _candidate_lost_pods(o) and has_ready_pods(o, require_record(o).from_revision, 1),
        state=State.PROMOTING,
        reason=lambda o: pods_problem(o, o.replicas),
        actions=_return_until_ready,
        summary="send all traffic to what served, until its pods are ready",
        requeue_after=requeue_in(POLL_PODS),
    ),
    Transition(
        name="callers' requests reach the candidate, and the policy that it started with can't be read",
        when=lambda o: _snapshot_is_unreadable(o) and is_exposed(o) and candidate_takes_requests(o),
        update=lambda o: roll_back(State.ABORTED, Reason.INVALID_POLICY, o, _snapshot_problem(o).message),
        summary="turn back, to end as Aborted: without its policy no metric can be judged",
    ),
    StateRow(
        name="the policy that it started with can't be read",
        when=_snapshot_is_unreadable,
        state=State.HOLDING,
        reason=_held_without_policy,
        actions=hold_pods,
        summary="keep pods and traffic as they are, for a person, until the deadline",
        requeue_after=requeue_in_step,
    ),
    Transition(
        name="a person has rejected it",
        when=lambda o: awaits_approval(o) and is_rejected(o),
        update=lambda o: roll_back(State.ROLLED_BACK, Reason.APPROVAL_REJECTED, o, approval_problem(o).message),
        summary="turn back",
    ),
    Transition(
        name="not enough approvals were given in time",
        when=_approval_timed_out,
        update=lambda o: roll_back(State.ABORTED, Reason.APPROVAL_TIMEOUT, o, approval_problem(o).message),
        summary="turn back, to end as Aborted: nothing was found against the candidate",
    ),
    Transition(
        name="recreate: the candidate was not ready in time, and its pods fail",
        when=lambda o: _recreate_timed_out(o) and _candidate_is_faulty(o),
        update=lambda o: roll_back(State.ROLLED_BACK, Reason.START_TIMEOUT, o, pods_problem(o, o.replicas).message),
        summary="turn back: stop the candidate, start the old revision again",
    ),
    Transition(
        name="recreate: the candidate was not ready in time",
        when=_recreate_timed_out,
        update=lambda o: roll_back(State.ABORTED, Reason.START_TIMEOUT, o, pods_problem(o, o.replicas).message),
        summary="turn back in the same way, to end as Aborted: nothing was found against the candidate",
    ),
)
