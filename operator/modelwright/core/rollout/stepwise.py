"""Rows of the rollout table for a Model with a RolloutPolicy, and for a rollback by hand.

What is safe comes first: a person's word, turning back, the deadline, a failed metric. None of these rows waits for a
write, a gateway or a metrics server.
"""

from __future__ import annotations

import math
from datetime import timedelta

from modelwright.api.common import parse_duration
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import RolloutPolicySpec
from modelwright.api.v1alpha1.rollout import ApprovalRecord, GateStatus, ReportStatus
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.people import ApprovalsMissing, Approved, CommandRefused, Rejected
from modelwright.core.problem import Problem
from modelwright.core.revision import Revision
from modelwright.core.rollout import direct
from modelwright.core.rollout.actions import (
    Action,
    EnsureComparer,
    EnsureRevision,
    RemoveRevision,
    RunGate,
    SetTraffic,
    StartRollout,
)
from modelwright.core.rollout.capacity import CapacityPlan, PodCounts, plan_capacity, replica_pods
from modelwright.core.rollout.decision import POLL_GATEWAY, POLL_PODS, RolloutRow
from modelwright.core.rollout.measured_step import STEP_STATES
from modelwright.core.rollout.observation import Observation, RevisionView, RolloutInput
from modelwright.core.rollout.record import (
    DEADLINE_STATES,
    RolloutRecord,
    confirm_step,
    end_step,
    overrule_step,
    record_command,
    start_rollback,
    start_step,
    transition_to,
)
from modelwright.core.rollout.step_analysis import minimum_hold
from modelwright.core.rollout.steps import GATE_ORDER, RolloutStep, StepKind
from modelwright.core.rollout.traffic_split import TrafficShare, TrafficSplit
from modelwright.core.table import POLL_IDLE, StateRow, Transition, requeue_in

TRANSITION_ONLY_STATES: frozenset[State] = frozenset(
    {State.SUCCEEDED, State.ROLLED_BACK, State.ABORTED, State.SUPERSEDED}
)
"""States that a live record reaches by a transition only, never because a row that stays is in them."""

CANDIDATE_FAULTS: frozenset[str] = frozenset(
    {Reason.MODEL_LOAD_FAILED, Reason.CONTAINER_OOM_KILLED, Reason.DIGEST_MISMATCH, Reason.UNSAFE_ARCHIVE}
)
"""Why pods fail through what they serve: findings about a revision."""

GATEWAY_GRACE = timedelta(seconds=10)
"""How long a gateway may take to follow before that is told."""
MEASUREMENT_GRACE = timedelta(seconds=5)
"""How long a look takes at most, as a rule."""


def _rollout_input(o: Observation) -> RolloutInput:
    assert o.rollout is not None  # noqa: S101 - rows here hold for a Model with a record or a policy only
    return o.rollout


def _require_record(o: Observation) -> RolloutRecord:
    record = o.record
    assert record is not None  # noqa: S101
    return record


def _require_candidate(o: Observation) -> Revision:
    to = _require_record(o).candidate
    assert to is not None  # noqa: S101 - a record is made with its candidate
    return to


def _is_in_state(o: Observation, *states: State) -> bool:
    return o.active_record is not None and o.active_record.state in states


def _is_in_step(o: Observation) -> bool:
    """A step goes on, of those that move traffic."""
    return _is_in_state(o, *STEP_STATES) and _require_record(o).status.step is not None


def _current_step(o: Observation) -> RolloutStep:
    return _rollout_input(o).steps[_require_record(o).step_index]


def _is_recreate(o: Observation) -> bool:
    return o.rollout is not None and o.rollout.policy.strategy.recreate is not None and not _skips_steps(o)


def _revision_view(o: Observation, revision: Revision | None) -> RevisionView | None:
    return o.revisions.get(revision.hash) if revision is not None else None


def _count_pods(o: Observation, revision: Revision | None) -> int:
    view = _revision_view(o, revision)
    return max(view.pods, view.replicas or 0) if view is not None else 0


def _has_ready_pods(o: Observation, revision: Revision | None, pods: int) -> bool:
    view = _revision_view(o, revision)
    return view is not None and view.has_available(pods)


def _pods_for_step(o: Observation, step: RolloutStep) -> int:
    """Pods that the candidate must have before the step's traffic is all there."""
    full = o.replicas
    if full == 0:
        return 0
    if _rollout_input(o).replica_weighted and 0 < step.weight < 100:
        return replica_pods(full, step.weight, _pod_budget(o))[0]
    if step.weight:
        return max(1, math.ceil(full * step.load_percent / 100))
    # Without requests that count, it may do with fewer pods than its share where there is no room for more.
    wanted = max(1, math.ceil(full * step.load_percent / 100))
    surge = _rollout_input(o).surge
    return wanted if surge is None else max(1, min(wanted, surge))


def _pod_budget(o: Observation) -> int:
    surge = _rollout_input(o).surge
    return o.replicas + (o.replicas if surge is None else surge)


def _needs_capacity_plan(o: Observation) -> bool:
    """Pods and weight have to move in turns: there is no room for both revisions at full size, or pods make the
    weights."""
    surge = _rollout_input(o).surge
    return o.replicas > 0 and (_rollout_input(o).replica_weighted or (surge is not None and surge < o.replicas))


def _plan_pods(o: Observation, wish: int, least: int = 0) -> CapacityPlan:
    record = _require_record(o)
    candidate, serving = (
        PodCounts(view.replicas or 0, view.available) if view is not None else PodCounts(0, 0)
        for view in (_revision_view(o, record.candidate), _revision_view(o, record.from_revision))
    )
    return plan_capacity(
        o.replicas,
        _pod_budget(o) - o.replicas,
        wish,
        candidate,
        serving,
        _candidate_weight(o),
        "replicas" if _rollout_input(o).replica_weighted else "gateway",
        least=least,
    )


def _candidate_weight(o: Observation) -> int:
    """The candidate's share as the route or the pods have it now."""
    to = _require_record(o).candidate
    return min(100, o.traffic.weights.get(to.hash, 0)) if to is not None else 0


def _step_pods(o: Observation, step: RolloutStep) -> tuple[int, int]:
    """Pods of the candidate and of the serving revision to ask for now."""
    if not _needs_capacity_plan(o) or _require_record(o).from_revision is None:
        return _pods_for_step(o, step), o.replicas
    found = _plan_pods(o, step.weight, 0 if step.weight else _pods_for_step(o, step))
    return found.candidate_replicas, found.serving_replicas


def baseline_revision(policy: RolloutPolicySpec, record: RolloutRecord, step: RolloutStep) -> Revision | None:
    """The fresh pods of the serving revision that the candidate is judged beside in a step; None without."""
    fresh = policy.analysis is not None and policy.analysis.baseline == "Fresh"
    return record.baseline if fresh and 0 < step.weight <= 50 and not step.mirror else None


def _fresh_baseline(o: Observation, step: RolloutStep) -> Revision | None:
    return baseline_revision(_rollout_input(o).policy, _require_record(o), step)


def _step_split(o: Observation, step: RolloutStep, weight: int | None = None) -> TrafficSplit:
    """How traffic is to be during a step; with `weight`, on the way there."""
    source, to = _require_record(o).from_revision, _require_candidate(o)
    share = step.weight if weight is None else weight
    if source is None:
        return TrafficSplit.all_to(to)
    if share == 0 and not step.mirror and not step.match:
        return TrafficSplit.all_to(source)
    if _rollout_input(o).replica_weighted:
        if share == 100:
            return TrafficSplit.all_to(to)
        return TrafficSplit((TrafficShare(source, 100 - share), TrafficShare(to, share)))
    shares = [TrafficShare(source, 100 - share), TrafficShare(to, share)]
    fresh = _fresh_baseline(o, step)
    if fresh is not None:
        shares = [TrafficShare(source, 100 - 2 * share), TrafficShare(fresh, share), TrafficShare(to, share)]
    return TrafficSplit(
        shares=tuple(share for share in shares if share.weight > 0),
        match=step.match,
        matched=to if step.match else None,
        mirror_percent=step.mirror,
        sticky=step.sticky,
        service_revision=source,
    )


def _traffic_matches(o: Observation, routing: TrafficSplit) -> bool:
    """Whether the live objects say so already."""
    traffic = o.traffic
    if traffic.named != routing.revision_hashes or traffic.mirror != routing.mirror_percent:
        return False
    if traffic.mirror and traffic.stale_token:
        return False
    if (traffic.matched or None) != (routing.matched.hash if routing.matched else None):
        return False
    if _rollout_input(o).replica_weighted and routing.service_revision is None:
        return True
    return dict(traffic.weights) == dict(routing.weights) and traffic.sticky == routing.sticky


def _traffic_returned(o: Observation) -> bool:
    """Traffic is back with what served when the rollout began, or there was nothing to go back to."""
    source = _require_record(o).from_revision
    if source is None:
        return True
    if not (_traffic_matches(o, TrafficSplit.all_to(source)) and o.traffic.confirmed):
        return False
    return not _is_recreate(o) or _has_ready_pods(o, source, o.replicas)


def _skips_steps(o: Observation) -> bool:
    """To a revision that served before, or by a person's hand: without gates and steps."""
    if o.record is None:
        return False
    record, to = _require_record(o), _require_record(o).candidate
    return record.is_manual or (to is not None and to.hash in _rollout_input(o).rollback_window)


def _next_gate(o: Observation) -> str | None:
    """The first gate that the policy asks for and that has not passed."""
    gates = _rollout_input(o).policy.gates
    if gates is None or _skips_steps(o):
        return None
    passed = {gate.name for gate in _require_record(o).status.gates if gate.outcome == Outcome.PASS}
    return next((name for name in GATE_ORDER if getattr(gates, name) is not None and name not in passed), None)


def _recorded_gate_outcome(o: Observation) -> Outcome | None:
    gate = _next_gate(o)
    found = next((entry for entry in _require_record(o).status.gates if entry.name == gate), None)
    return Outcome(found.outcome) if found is not None else None


def _gate_is_undecided(o: Observation) -> bool:
    """A gate has come to nothing that would let the candidate pass, or refuse it."""
    return _is_in_state(o, State.GATING, State.HOLDING) and _recorded_gate_outcome(o) in (
        Outcome.INCONCLUSIVE,
        Outcome.ERROR,
    )


def _step_is_undecided(o: Observation) -> bool:
    """The metrics of the present step have decided nothing."""
    undecided = _rollout_input(o).outcome in (Outcome.INCONCLUSIVE, Outcome.ERROR)
    return undecided and _is_in_step(o) and _step_is_confirmed(o)


def _has_new_gate_result(o: Observation) -> bool:
    """A gate has a result that the record doesn't have yet."""
    if not _is_in_state(o, State.GATING, State.HOLDING) or _require_record(o).status.step is not None:
        return False
    return _next_gate(o) in _rollout_input(o).gates and _recorded_gate_outcome(o) is None


def _record_gate(o: Observation) -> RolloutRecord:
    record, gate = _require_record(o), _next_gate(o)
    assert gate is not None  # noqa: S101 - holds only with a gate that has ended
    result = _rollout_input(o).gates[gate]
    full = result.full_report
    report = ReportStatus(uri=full.uri, digest=full.digest) if full is not None else None
    entry = GateStatus(
        name=gate, outcome=result.outcome, reason=result.reason, message=result.message, report=report, at=o.now
    )
    return record.with_status(gates=(*record.status.gates, entry))


def _is_approved(o: Observation) -> bool:
    return isinstance(_rollout_input(o).approval, Approved)


def _is_rejected(o: Observation) -> bool:
    return isinstance(_rollout_input(o).approval, Rejected)


def _awaits_approval(o: Observation) -> bool:
    if _is_in_state(o, State.GATING, State.AWAITING_APPROVAL) and _require_record(o).status.step is None:
        return _next_gate(o) == "approval"
    return _is_in_step(o) and _current_step(o).kind is StepKind.APPROVAL


def _approval_timeout(o: Observation) -> timedelta:
    gates = _rollout_input(o).policy.gates
    if _require_record(o).status.step is None and gates is not None and gates.approval is not None:
        return timedelta(seconds=parse_duration(gates.approval.timeout))
    return _current_step(o).timeout or timedelta.max


def _approval_place(record: RolloutRecord) -> str:
    return "gate" if record.status.step is None else f"step {record.step_index}"


def _record_approvals(o: Observation, record: RolloutRecord) -> RolloutRecord:
    """`record` with the names of those whose word counted."""
    people = _rollout_input(o).approval
    if people is None or not _awaits_approval(o):
        return record
    counted = (people.by,) if isinstance(people, Rejected) else people.counted
    place = _approval_place(record)
    known = {(entry.name, entry.place) for entry in record.status.approvals}
    new = tuple(
        ApprovalRecord(
            name=approval.name,
            approver=approval.spec.approver,
            decision=approval.spec.decision,
            reason=approval.spec.reason,
            place=place,
            at=o.now,
        )
        for approval in counted
        if (approval.name, place) not in known
    )
    return record.with_status(approvals=(*record.status.approvals, *new)[-64:]) if new else record


def _pass_approval_gate(o: Observation) -> RolloutRecord:
    record, people = _record_approvals(o, _require_record(o)), _rollout_input(o).approval
    who = ", ".join(a.spec.approver for a in people.counted) if isinstance(people, Approved) else ""
    entry = GateStatus(name="approval", outcome=Outcome.PASS, reason="Approved", message=f"approved by {who}", at=o.now)
    return record.with_status(gates=(*record.status.gates, entry))


def _step_hold(o: Observation) -> timedelta:
    """How long the present step lasts at least."""
    return minimum_hold(_rollout_input(o).policy, _current_step(o), _rollout_input(o).longest_request)


def _hold_is_over(o: Observation) -> bool:
    entry = _require_record(o).step_status
    return entry is not None and entry.confirmed_at is not None and o.now - entry.confirmed_at >= _step_hold(o)


def _final_measurement_is_due(o: Observation) -> bool:
    """A look that began after the hold should have told by now."""
    entry = _require_record(o).step_status
    if entry is None or entry.confirmed_at is None:
        return False
    return o.now - entry.confirmed_at >= _step_hold(o) + _measurement_interval(o) + MEASUREMENT_GRACE


def _remaining_hold(o: Observation) -> timedelta | None:
    entry = _require_record(o).step_status
    if entry is None or entry.confirmed_at is None:
        return None
    return max(_step_hold(o) - (o.now - entry.confirmed_at), timedelta(0))


def _measurement_interval(o: Observation) -> timedelta:
    analysis = _rollout_input(o).policy.analysis
    return timedelta(seconds=parse_duration(analysis.interval)) if analysis is not None else POLL_IDLE


def _requeue_in_step(o: Observation) -> timedelta:
    """When a step is to be looked at again: at its end, and at least as often as its evidence."""
    left = _remaining_hold(o)
    wait = _measurement_interval(o) if _rollout_input(o).policy.analysis is not None else POLL_IDLE
    if left:
        return min(left, wait)
    # The table changes once more when the look after the hold is overdue.
    return wait if _final_measurement_is_due(o) else min(wait, MEASUREMENT_GRACE)


def _step_is_confirmed(o: Observation) -> bool:
    entry = _require_record(o).step_status
    return entry is not None and entry.confirmed_at is not None


def _step_is_ready(o: Observation) -> bool:
    """Everything that the step needs beside traffic is there."""
    step = _current_step(o)
    return _has_step_pods(o, step) and (not step.mirror or _rollout_input(o).comparer_ready)


def _has_step_pods(o: Observation, step: RolloutStep) -> bool:
    """The candidate's pods for a step are ready, and so are those it is judged beside."""
    needed, fresh = _pods_for_step(o, step), _fresh_baseline(o, step)
    return _has_ready_pods(o, _require_record(o).candidate, needed) and (
        fresh is None or _has_ready_pods(o, fresh, needed)
    )


def _has_failed_metric(o: Observation) -> bool:
    """A metric of the present step has failed, or of the one before while this one has no evidence of its own. Not
    after a person has promoted the candidate in spite of that."""
    return not _require_record(o).is_overruled and Outcome.FAIL in (
        _rollout_input(o).outcome,
        _rollout_input(o).earlier_outcome,
    )


def _is_between_steps(o: Observation) -> bool:
    """The evidence that goes on is that of an earlier step."""
    return _is_in_state(o, State.PROMOTING) or (_is_in_step(o) and not _step_is_confirmed(o))


def _candidate_is_faulty(o: Observation) -> bool:
    """The candidate's own pods have shown that they can't serve it. That they are not ready yet, fit no node or wait
    for an image or a store is no finding about the candidate."""
    view = _revision_view(o, _require_record(o).candidate)
    return view is not None and view.failure is not None and view.failure.reason in CANDIDATE_FAULTS


def _has_enough_evidence(o: Observation) -> bool:
    """The evidence that the policy asks for in this step is there."""
    return _rollout_input(o).outcome in (None, Outcome.PASS)


def _verdict_messages(o: Observation, outcome: Outcome) -> str:
    return "; ".join(v.message for v in _rollout_input(o).verdicts if v.outcome is outcome and not v.dry_run)


def _ensure_source(o: Observation) -> tuple[Action, ...]:
    source = _require_record(o).from_revision
    return (EnsureRevision(source),) if source is not None else ()


def _keep_step(o: Observation) -> tuple[Action, ...]:
    """Whatever the last step has set goes on."""
    record = _require_record(o)
    if record.status.step is None:
        return (*_ensure_source(o), *_route_to_source(o))
    candidate, serving = _step_pods(o, _current_step(o))
    source = (EnsureRevision(record.from_revision, serving),) if record.from_revision is not None else ()
    fresh = _fresh_baseline(o, _current_step(o))
    beside = (EnsureRevision(fresh, candidate),) if fresh is not None else ()
    return (*source, *beside, EnsureRevision(_require_candidate(o), candidate), *_ensure_comparer(o))


def _hold_step(o: Observation) -> tuple[Action, ...]:
    """Neither traffic nor, where pods and traffic move in turns, pods go any further."""
    if not _needs_capacity_plan(o):
        return _keep_step(o)
    return _hold_pods(o)


def _hold_pods(o: Observation) -> tuple[Action, ...]:
    """The pods of both revisions as they are, and traffic too."""
    views = (
        _revision_view(o, revision) for revision in (_require_record(o).from_revision, _require_record(o).candidate)
    )
    return tuple(
        EnsureRevision(view.revision, view.replicas) for view in views if view is not None and view.replicas is not None
    )


def _approach_step(o: Observation) -> tuple[Action, ...]:
    """Pods first; where both revisions have no room at full size, traffic as far as the pods carry it."""
    step = _current_step(o)
    if (
        not _needs_capacity_plan(o)
        or _rollout_input(o).replica_weighted
        or _require_record(o).from_revision is None
        or not step.weight
    ):
        return _keep_step(o)
    return (*_keep_step(o), SetTraffic(_step_split(o, step, _plan_pods(o, step.weight).weight)))


def _ensure_comparer(o: Observation) -> tuple[Action, ...]:
    record = _require_record(o)
    if record.from_revision is None or not _current_step(o).mirror:
        return ()
    return (EnsureComparer(record.from_revision, _require_candidate(o)),)


def _route_to_source(o: Observation) -> tuple[Action, ...]:
    source = _require_record(o).from_revision
    return (SetTraffic(TrafficSplit.all_to(source)),) if source is not None else ()


def _apply_step(o: Observation) -> tuple[Action, ...]:
    return (*_keep_step(o), SetTraffic(_step_split(o, _current_step(o))))


def _return_to_source(o: Observation) -> tuple[Action, ...]:
    record, source = _require_record(o), _require_record(o).from_revision
    assert source is not None  # noqa: S101 - without one there is nothing to bring back
    if _is_recreate(o):
        if _count_pods(o, record.candidate):
            return (EnsureRevision(_require_candidate(o), 0),)
        return (EnsureRevision(source), *_route_to_source(o))
    if not _needs_capacity_plan(o) or record.candidate is None:
        # Traffic first: it must not wait for whatever else can't be written.
        return (*_route_to_source(o), EnsureRevision(source))
    back = _plan_pods(o, 0)
    pods = (
        EnsureRevision(source, back.serving_replicas),
        *((EnsureRevision(record.candidate, back.candidate_replicas),) if _count_pods(o, record.candidate) else ()),
    )
    if back.weight == 0 or _has_ready_pods(o, source, o.replicas):
        return (*_route_to_source(o), *pods)
    return (SetTraffic(_step_split(o, RolloutStep(StepKind.WEIGHT, weight=back.weight))), *pods)


def _remove_earlier_candidate(o: Observation) -> tuple[Action, ...]:
    leaving = (
        RemoveRevision(gone.revision, pods_only=bool(_count_pods(o, gone.revision)))
        for gone in direct.remove_obsolete(o)
    )
    return (*_ensure_source(o), *_route_to_source(o), *leaving)


def _prepare_promotion(o: Observation) -> tuple[Action, ...]:
    record = _require_record(o)
    if record.from_revision is None:
        # Nobody is served yet: the route comes first, so that a refused one shows at once.
        return (EnsureRevision(_require_candidate(o)), SetTraffic(TrafficSplit.all_to(_require_candidate(o))))
    if _is_recreate(o):
        return (EnsureRevision(record.from_revision, 0), EnsureRevision(_require_candidate(o)))
    if _needs_capacity_plan(o) and _rollout_input(o).surge is not None:
        ahead = _plan_pods(o, 100)
        pods = (
            EnsureRevision(record.from_revision, ahead.serving_replicas),
            EnsureRevision(_require_candidate(o), ahead.candidate_replicas),
        )
        if _rollout_input(o).replica_weighted and not _has_ready_pods(o, record.candidate, 1):
            return pods
        # By pods, any share but 0 and 100 lets all of them be asked.
        share = min(max(ahead.weight, 1), 99) if _rollout_input(o).replica_weighted else ahead.weight
        return (*pods, SetTraffic(_step_split(o, RolloutStep(StepKind.WEIGHT, weight=100), share)))
    return (*_ensure_source(o), EnsureRevision(_require_candidate(o)))


def _promote_candidate(o: Observation) -> tuple[Action, ...]:
    source = () if _is_recreate(o) or _needs_capacity_plan(o) else _ensure_source(o)
    return (*source, EnsureRevision(_require_candidate(o)), SetTraffic(TrafficSplit.all_to(_require_candidate(o))))


def _stop_source(o: Observation) -> tuple[Action, ...]:
    source = _require_record(o).from_revision
    return (EnsureRevision(source, 0),) if source is not None else ()


def _run_gate(o: Observation) -> tuple[Action, ...]:
    gate = _next_gate(o)
    assert gate is not None  # noqa: S101
    if gate != "infra":
        return (*_ensure_source(o), *_route_to_source(o), RunGate(gate))
    run = EnsureRevision(_require_candidate(o), min(1, o.replicas))
    asks = (RunGate(gate),) if _has_ready_pods(o, _require_candidate(o), 1) else ()
    return (*_ensure_source(o), *_route_to_source(o), run, *asks)


def _start_rollout(o: Observation) -> tuple[Action, ...]:
    return (*direct.keep_routed_revisions(o), StartRollout(_rollout_input(o).next_number))


def _apply_command(o: Observation) -> RolloutRecord:
    """The record after its command."""
    record, decision = _require_record(o), _rollout_input(o).command
    command = record.spec.command
    assert decision is not None  # noqa: S101
    assert command is not None  # noqa: S101
    if isinstance(decision, CommandRefused):
        return record_command(record, accepted=False, message=decision.message, now=o.now)
    record = record_command(record, accepted=True, message="", now=o.now)
    said = f"{command.by}: {command.reason}"
    if command.name == "pause":
        return record.with_status(paused=True)
    if command.name == "resume":
        return record.with_status(paused=None, freeze_overridden=True if _rollout_input(o).frozen_until else None)
    if command.name == "retry":
        return record.with_status(retried=True)
    if command.name == "release":
        return record.with_status(released=True)
    if command.name == "abort":
        return start_rollback(record, State.ABORTED, Reason.ABORTED_BY_COMMAND, said, o.now)
    proven = _rollout_input(o).outcome in (None, Outcome.PASS) and not _skips_evidence(o)
    record = overrule_step(record, o.now) if _has_failed_metric(o) else end_step(record, "Skipped", o.now)
    record = record.with_status(paused=None, without_evidence=None if proven else True)
    return transition_to(record, State.PROMOTING, Reason.PROMOTED, said, o.now)


def _skips_evidence(o: Observation) -> bool:
    """Evidence that the policy asks for in this or a later step is left out when the rollout is promoted now."""
    if _rollout_input(o).policy.analysis is None:
        return False
    later = [step for step in _rollout_input(o).steps[_require_record(o).step_index + 1 :] if not step.is_promotion]
    tested = _rollout_input(o).policy.strategy.ab_test is not None and _rollout_input(o).ab_test_won is not True
    return bool(later) or tested or not _step_is_confirmed(o)


def _has_new_command(o: Observation) -> bool:
    record = o.record
    if record is None or o.rollout is None or o.rollout.command is None or record.spec.command is None:
        return False
    return all(entry.token != record.spec.command.token for entry in record.status.commands)


def _advance_step(o: Observation) -> RolloutRecord:
    record, steps = _record_approvals(o, _require_record(o)), _rollout_input(o).steps
    if record.step_index + 1 >= len(steps):
        return transition_to(
            end_step(record, "Pass", o.now), State.PROMOTING, Reason.PROMOTED, "every step has passed", o.now
        )
    return start_step(record, steps, record.step_index + 1, o.now)


def _start_steps(o: Observation) -> RolloutRecord:
    """The record at its first step, or at the promotion where there are none."""
    record = _require_record(o)
    if _skips_steps(o):
        why = Reason.ROLLED_BACK_BY_HAND if record.is_manual else Reason.FAST_ROLLBACK
        return transition_to(record, State.PROMOTING, why, "back to a revision that served before", o.now)
    if record.from_revision is None:
        return transition_to(record, State.PROMOTING, Reason.FIRST_REVISION, "nothing served before: no steps", o.now)
    if _is_recreate(o):
        return transition_to(record, State.PROGRESSING, Reason.STOPPING_PREVIOUS, "the previous revision stops", o.now)
    record = start_step(record, _rollout_input(o).steps, 0, o.now)
    return transition_to(record, State.PROGRESSING, Reason.STEP_IN_PROGRESS, "the first step begins", o.now)


def _finish_rollout(o: Observation) -> RolloutRecord:
    record, to = _require_record(o), _require_candidate(o)
    if record.is_manual:
        assert record.spec.rollback is not None  # noqa: S101
        said = f"{record.spec.rollback.by}: {record.spec.rollback.reason}"
        return transition_to(record, State.SUCCEEDED, Reason.ROLLED_BACK_BY_HAND, said, o.now)
    reason, text = Reason.PROMOTED, f"version {to.version} takes all traffic"
    if record.status.without_evidence:
        reason, text = Reason.PROMOTED_WITHOUT_EVIDENCE, f"{text}; a person promoted it without the evidence asked for"
    elif record.from_revision is None:
        reason = Reason.FIRST_REVISION
    elif to.hash in _rollout_input(o).rollback_window:
        reason = Reason.FAST_ROLLBACK
    return transition_to(end_step(record, "Pass", o.now).with_status(weight=100), State.SUCCEEDED, reason, text, o.now)


def _roll_back(ending: State, reason: Reason, o: Observation, text: str) -> RolloutRecord:
    return start_rollback(_record_approvals(o, _require_record(o)), ending, reason, text, o.now)


def _recorded_problem(o: Observation) -> Problem:
    """Why the record is on its way back, or has ended."""
    status = _require_record(o).status
    return Problem(status.reason or "", status.message or "")


def _unsupported_policy(o: Observation) -> Problem | None:
    """What the record's policy asks for in vain: it was edited just before it was kept, or the gateway has changed."""
    return None if _require_record(o).is_manual or _skips_steps(o) else _rollout_input(o).policy_problem


def _supersede_unsupported(o: Observation) -> RolloutRecord:
    problem = _unsupported_policy(o) or Problem(Reason.POLICY_NOT_SUPPORTED, "")
    return _roll_back(State.SUPERSEDED, Reason(problem.reason), o, problem.message)


def _reverted_row(state: State) -> RolloutRow:
    return StateRow(
        name=f"the target's last rollout ended {state}, and nobody has asked for another try",
        when=lambda o: o.rollout is not None and o.waits_for_retry and _require_record(o).state is state,
        state=state,
        reason=lambda o: Problem(_recorded_problem(o).reason, _reverted_message(o), stalled=True),
        actions=lambda o: (*direct.keep_routed_revisions(o), *direct.remove_obsolete(o)),
        summary="keep what serves, remove the candidate",
    )


def _reverted_message(o: Observation) -> str:
    record = _require_record(o)
    what = "was not promoted, and is not in quarantine" if record.ended_undecided else "was taken back"
    return (
        f"version {_require_candidate(o).version} {what}: {record.status.message}. It is tried again after the command "
        f"retry on ModelRollout {record.name}, or when spec.version has named another one meanwhile"
    )


def _pods_problem(o: Observation, pods: int) -> Problem:
    to = _require_candidate(o)
    view = _revision_view(o, to)
    if view is not None and view.failure is not None:
        return Problem(view.failure.reason, view.failure.message)
    return Problem(Reason.WAITING_FOR_PODS, f"version {to.version}: {pods} ready pods are waited for")


def _approval_problem(o: Observation) -> Problem:
    people = _rollout_input(o).approval
    if isinstance(people, ApprovalsMissing):
        return Problem(people.reason, people.message, people.stalled)
    return Problem(Reason.AWAITING_APPROVAL, people.message if isinstance(people, Rejected) else "people must approve")


def _evidence_problem(o: Observation) -> Problem:
    text = (
        _verdict_messages(o, Outcome.ERROR) or _verdict_messages(o, Outcome.INCONCLUSIVE) or "nothing was measured yet"
    )
    erring = _rollout_input(o).outcome is Outcome.ERROR
    return Problem(Reason.ANALYSIS_ERROR if erring else Reason.INSUFFICIENT_EVIDENCE, text)


def _return_problem(o: Observation) -> Problem:
    """What keeps traffic from coming back, when something does; else why it has to."""
    refused = o.traffic.problem if o.traffic.problem is not None and o.traffic.problem.stalled else None
    return o.problem or refused or _recorded_problem(o)


def _takeover_problem(o: Observation) -> Problem:
    problem, since = o.traffic.problem, _require_record(o).status.since
    slow = since is not None and o.now - since >= GATEWAY_GRACE
    if problem is not None and (problem.stalled or slow):
        return problem
    return Problem(Reason.WAITING_FOR_ROUTE, f"version {_require_candidate(o).version} is ready and takes over")


def _step_traffic_problem(o: Observation) -> Problem:
    """The gateway is about to follow a step: worth a word only when that takes long, or can't be."""
    problem, entry = o.traffic.problem, _require_record(o).step_status
    slow = entry is not None and o.now - entry.started_at >= GATEWAY_GRACE
    if problem is not None and (problem.stalled or slow):
        return problem
    status = _require_record(o).status
    if status.state == State.PROGRESSING and status.reason and not _step_is_confirmed(o):
        # In a moment it is confirmed: until then the record needn't be written.
        return Problem(status.reason, status.message or "")
    return _step_progress(o)


def _step_progress(o: Observation) -> Problem:
    step, record = _current_step(o), _require_record(o)
    what = f"step {record.step_index + 1} of {len(_rollout_input(o).steps)}: {step.kind}"
    if step.kind is StepKind.WEIGHT:
        what += f" {step.weight} %"
    return Problem(Reason.STEP_IN_PROGRESS, what)


def _retention_problem(o: Observation) -> Problem:
    names = ", ".join(sorted({revision.version for revision in o.obsolete_revisions}))
    version = o.target.version if o.target else ""
    return Problem(Reason.SERVING, f"version {version} takes all traffic; {names} is kept for going back")


def _pinned_problem(o: Observation) -> Problem:
    rollback = _require_record(o).spec.rollback
    assert rollback is not None  # noqa: S101
    text = (
        f"{rollback.by} took the Model back to version {_require_candidate(o).version}: {rollback.reason}. "
        "It stays there "
        f"until spec.version is changed, or the command release on ModelRollout {_require_record(o).name}"
    )
    return Problem(Reason.HELD_BY_ROLLBACK, text, stalled=True)


def _is_frozen(o: Observation) -> bool:
    if (
        o.active_record is None
        or o.active_record.is_manual
        or o.active_record.status.freeze_overridden
        or _rollout_input(o).frozen_until is None
    ):
        return False
    return o.active_record.state not in (State.PROMOTING, State.ROLLING_BACK) and not _skips_steps(o)


def _freeze_problem(o: Observation) -> Problem:
    until = _rollout_input(o).frozen_until
    assert until is not None  # noqa: S101
    text = (
        f"frozen until {until:%Y-%m-%d %H:%M} UTC; the command resume on ModelRollout "
        f"{_require_record(o).name} goes on anyway"
    )
    return Problem(Reason.FREEZE_WINDOW, text)


def _is_exposed(o: Observation) -> bool:
    """In a state in which callers' requests may reach the candidate, and there is something to go back to."""
    return _is_in_step(o) or (_is_in_state(o, State.PROMOTING) and _require_record(o).from_revision is not None)


def _candidate_lost_pods(o: Observation) -> bool:
    if not _is_exposed(o):
        return False
    to = _require_candidate(o)
    view = _revision_view(o, to)
    gets = o.traffic.weights.get(to.hash, 0) > 0 or o.traffic.matched == to.hash
    return gets and (view is None or (not view.available and view.replicas != 0))


def _source_lost_pods(o: Observation) -> bool:
    """What served should have pods, and has no ready one either: that is no finding about the candidate."""
    view = _revision_view(o, _require_record(o).from_revision)
    return view is not None and bool(view.replicas) and not view.available


def _lost_pods_message(o: Observation) -> str:
    return _pods_problem(
        o, o.replicas if _is_in_state(o, State.PROMOTING) else _pods_for_step(o, _current_step(o))
    ).message


def _all_lost_message(o: Observation) -> str:
    source = _require_record(o).from_revision
    return f"{_lost_pods_message(o)}; version {source.version if source else ''}, which served, has no ready pod either"


def _deadline_has_passed(o: Observation) -> bool:
    record = o.active_record
    if record is None or record.is_manual or record.state not in DEADLINE_STATES:
        return False
    if record.from_revision is None and record.state is not State.GATING:
        # There is nothing to go back to: its pods go on trying.
        return False
    return record.elapsed_time(o.now) >= timedelta(seconds=parse_duration(_rollout_input(o).policy.deadline))


def _deadline_message(o: Observation) -> str:
    status, trouble = _require_record(o).status, _rollout_input(o).last_failure
    limit = f"{_rollout_input(o).policy.deadline} (spec.deadline)"
    text = f"it did not end within {limit}; it was {status.state}: {status.message}"
    return f"{text}; in its way: {trouble}" if trouble and trouble != status.message else text


def _undecided_message(o: Observation) -> str:
    text = (_gate_problem(o) if _gate_is_undecided(o) else _evidence_problem(o)).message
    return f"{text}; nothing else came within {_rollout_input(o).policy.deadline} (spec.deadline)"


def _recreate_timed_out(o: Observation) -> bool:
    record = o.active_record
    if record is None or not _is_recreate(o) or record.state is not State.PROGRESSING or record.status.step is not None:
        return False
    recreate = _rollout_input(o).policy.strategy.recreate
    since = record.status.since
    return (
        recreate is not None
        and since is not None
        and o.now - since >= timedelta(seconds=parse_duration(recreate.timeout))
    )


def _is_recreating(o: Observation) -> bool:
    return _is_in_state(o, State.PROGRESSING) and _require_record(o).status.step is None and _is_recreate(o)


def _has_earlier_candidate(o: Observation) -> bool:
    """An earlier candidate still has requests or pods."""
    source = _require_record(o).from_revision
    return bool(o.traffic.named - ({source.hash} if source else set())) or bool(o.obsolete_revisions)


ROWS: tuple[RolloutRow, ...] = (
    Transition(
        name="a person has given a command that was not taken up yet",
        when=_has_new_command,
        update=_apply_command,
        summary="carry it out, or refuse it and say why",
    ),
    Transition(
        name="spec.version was changed since a person's rollback began",
        when=lambda o: o.record is not None and o.record.pins_model and _rollout_input(o).released_by_spec,
        update=lambda o: _require_record(o).with_status(released=True),
        summary="let the Model go",
    ),
    Transition(
        name="the Model wants another revision than the one that was taken back",
        when=lambda o: (
            o.record is not None
            and o.record.waits_for_retry
            and o.target is not None
            and o.record.candidate is not None
            and o.record.candidate.hash != o.target.hash
        ),
        update=lambda o: _require_record(o).with_status(lapsed=True),
        summary="end its quarantine: it may be wanted again",
    ),
    Transition(
        name="the Model wants another revision than the rollout moves to",
        when=lambda o: (
            o.active_record is not None
            and o.active_record.state is not State.ROLLING_BACK
            and o.target is not None
            and o.active_record.candidate is not None
            and o.active_record.candidate.hash != o.target.hash
        ),
        update=lambda o: _roll_back(
            State.SUPERSEDED,
            Reason.SUPERSEDED,
            o,
            f"version {o.target.version if o.target else ''} is wanted now",
        ),
        summary="turn back, to end as Superseded",
    ),
    Transition(
        name="turning back, and traffic is with what served",
        when=lambda o: _is_in_state(o, State.ROLLING_BACK) and _traffic_returned(o),
        update=lambda o: transition_to(
            _require_record(o),
            State(_require_record(o).status.ending or State.ABORTED),
            _recorded_problem(o).reason,
            _recorded_problem(o).message,
            o.now,
        ),
        summary="end as RolledBack, Aborted or Superseded",
    ),
    StateRow(
        name="turning back",
        when=lambda o: _is_in_state(o, State.ROLLING_BACK),
        state=State.ROLLING_BACK,
        reason=_return_problem,
        actions=_return_to_source,
        summary="send all traffic to what served when the rollout began, as its pods are ready",
        requeue_after=requeue_in(POLL_GATEWAY),
    ),
    Transition(
        name="a gate has ended",
        when=_has_new_gate_result,
        update=_record_gate,
        summary="write its result down",
    ),
    Transition(
        name="a gate has refused the candidate",
        when=lambda o: _is_in_state(o, State.GATING, State.HOLDING) and _recorded_gate_outcome(o) is Outcome.FAIL,
        update=lambda o: _roll_back(State.ROLLED_BACK, Reason.GATE_FAILED, o, _gate_problem(o).message),
        summary="turn back: no caller's request has reached it",
    ),
    Transition(
        name="the deadline has passed, and a metric has failed or the candidate's pods fail",
        when=lambda o: _deadline_has_passed(o) and (_has_failed_metric(o) or _candidate_is_faulty(o)),
        update=lambda o: _roll_back(State.ROLLED_BACK, Reason.DEADLINE_EXCEEDED, o, _deadline_message(o)),
        summary="turn back",
    ),
    Transition(
        name="the deadline has passed, and a gate or the step's metrics have decided nothing",
        when=lambda o: _deadline_has_passed(o) and (_gate_is_undecided(o) or _step_is_undecided(o)),
        update=lambda o: _roll_back(State.ABORTED, Reason.INCONCLUSIVE, o, _undecided_message(o)),
        summary="turn back, to end as Aborted: nothing was found against the candidate",
    ),
    Transition(
        name="the deadline has passed",
        when=_deadline_has_passed,
        update=lambda o: _roll_back(State.ABORTED, Reason.DEADLINE_EXCEEDED, o, _deadline_message(o)),
        summary="turn back, to end as Aborted: nothing was found against the candidate",
    ),
    Transition(
        name="a metric has failed, and the policy rolls back on failure",
        when=lambda o: _is_exposed(o) and _has_failed_metric(o) and _rollout_input(o).policy.on_failure == "Rollback",
        update=lambda o: _roll_back(State.ROLLED_BACK, Reason.ANALYSIS_FAILED, o, _verdict_messages(o, Outcome.FAIL)),
        summary="turn back",
    ),
    Transition(
        name="the candidate takes requests, and neither it nor what served has a ready pod",
        when=lambda o: (
            _candidate_lost_pods(o)
            and not _require_record(o).is_manual
            and _source_lost_pods(o)
            and not _candidate_is_faulty(o)
        ),
        update=lambda o: _roll_back(State.ABORTED, Reason.CANDIDATE_UNAVAILABLE, o, _all_lost_message(o)),
        summary="turn back, to end as Aborted: nothing was found against the candidate",
    ),
    Transition(
        name="the candidate takes requests and has no ready pod",
        when=lambda o: _candidate_lost_pods(o) and not _require_record(o).is_manual,
        update=lambda o: _roll_back(State.ROLLED_BACK, Reason.CANDIDATE_UNAVAILABLE, o, _lost_pods_message(o)),
        summary="turn back",
    ),
    StateRow(
        name="a rollback by hand takes requests and has no ready pod",
        when=lambda o: _candidate_lost_pods(o) and _has_ready_pods(o, _require_record(o).from_revision, 1),
        state=State.PROMOTING,
        reason=lambda o: _pods_problem(o, o.replicas),
        actions=lambda o: (
            *_return_to_source(o),
            *(() if _needs_capacity_plan(o) else (EnsureRevision(_require_candidate(o)),)),
        ),
        summary="send all traffic to what served, until its pods are ready",
        requeue_after=requeue_in(POLL_PODS),
    ),
    StateRow(
        name="the policy that it began with can't be read",
        when=lambda o: (
            o.active_record is not None
            and _rollout_input(o).snapshot_problem is not None
            and not _is_in_state(o, State.PROMOTING)
        ),
        state=State.HOLDING,
        reason=lambda o: _rollout_input(o).snapshot_problem or Problem(Reason.INVALID_POLICY, ""),
        actions=_hold_pods,
        summary="keep pods and traffic as they are, for a person, until the deadline",
        requeue_after=_requeue_in_step,
    ),
    Transition(
        name="a person has rejected it",
        when=lambda o: _awaits_approval(o) and _is_rejected(o),
        update=lambda o: _roll_back(State.ROLLED_BACK, Reason.APPROVAL_REJECTED, o, _approval_problem(o).message),
        summary="turn back",
    ),
    Transition(
        name="not enough people have approved in time",
        when=lambda o: (
            _awaits_approval(o)
            and _is_in_state(o, State.AWAITING_APPROVAL)
            and not _is_approved(o)
            and _require_record(o).status.since is not None
            and o.now - (_require_record(o).status.since or o.now) >= _approval_timeout(o)
        ),
        update=lambda o: _roll_back(State.ABORTED, Reason.APPROVAL_TIMEOUT, o, _approval_problem(o).message),
        summary="turn back, to end as Aborted: nothing was found against the candidate",
    ),
    Transition(
        name="recreate: the candidate was not ready in time, and its pods fail",
        when=lambda o: _recreate_timed_out(o) and _candidate_is_faulty(o),
        update=lambda o: _roll_back(State.ROLLED_BACK, Reason.START_TIMEOUT, o, _pods_problem(o, o.replicas).message),
        summary="turn back: stop the candidate, start the old revision again",
    ),
    Transition(
        name="recreate: the candidate was not ready in time",
        when=_recreate_timed_out,
        update=lambda o: _roll_back(State.ABORTED, Reason.START_TIMEOUT, o, _pods_problem(o, o.replicas).message),
        summary="turn back in the same way, to end as Aborted: nothing was found against the candidate",
    ),
    Transition(
        name="traffic is as the step wants it for the first time",
        when=lambda o: (
            _is_in_step(o)
            and not _step_is_confirmed(o)
            and not _has_failed_metric(o)
            and o.traffic.confirmed
            and _traffic_matches(o, _step_split(o, _current_step(o)))
            and _step_is_ready(o)
        ),
        update=lambda o: confirm_step(_require_record(o), o.now),
        summary="count hold and evidence from now",
    ),
    StateRow(
        name="a person has paused it",
        when=lambda o: (
            o.active_record is not None
            and bool(o.active_record.status.paused)
            and o.active_record.state is not State.PROMOTING
        ),
        state=State.HOLDING,
        reason=lambda _: Problem(Reason.PAUSED, "paused; the command resume lets it go on"),
        actions=_keep_step,
        summary="keep the step, watch its metrics",
        requeue_after=_requeue_in_step,
    ),
    Transition(
        name="its policy can't be followed, and nothing has begun",
        when=lambda o: _is_in_state(o, State.PENDING) and _unsupported_policy(o) is not None,
        update=_supersede_unsupported,
        summary="end it: the next one begins when the policy can be followed",
    ),
    StateRow(
        name="a freeze window is open, and nothing has begun",
        when=lambda o: _is_frozen(o) and _is_in_state(o, State.PENDING),
        state=State.PENDING,
        reason=_freeze_problem,
        actions=_remove_earlier_candidate,
        summary="wait for the end of the window",
        requeue_after=requeue_in(POLL_IDLE),
    ),
    StateRow(
        name="a freeze window is open in the middle of a rollout",
        when=_is_frozen,
        state=State.HOLDING,
        reason=_freeze_problem,
        actions=_keep_step,
        summary="keep the step, watch its metrics",
        requeue_after=_requeue_in_step,
    ),
    StateRow(
        name="the target can't be had in the middle of a rollout",
        when=lambda o: (
            o.active_record is not None
            and (o.target is None or o.problem is not None)
            and not _is_in_state(o, State.PROMOTING)
        ),
        state=State.HOLDING,
        reason=lambda o: o.problem or Problem(Reason.WAITING_FOR_VERSION, "no version to serve yet"),
        actions=_keep_step,
        summary="keep the step, watch its metrics",
        requeue_after=_requeue_in_step,
    ),
    StateRow(
        name="an earlier candidate has not left yet",
        when=lambda o: (
            _is_in_state(o, State.PENDING)
            and not _skips_steps(o)
            and _require_record(o).from_revision is not None
            and _has_earlier_candidate(o)
        ),
        state=State.PENDING,
        reason=lambda _: Problem(Reason.WAITING_FOR_TRAFFIC, "an earlier candidate is on its way out"),
        actions=_remove_earlier_candidate,
        summary="send all traffic to what serves, remove what is left over",
        requeue_after=requeue_in(POLL_GATEWAY),
    ),
    Transition(
        name="nothing stands in the way, and gates are asked for",
        when=lambda o: _is_in_state(o, State.PENDING) and _next_gate(o) is not None,
        update=lambda o: transition_to(
            _require_record(o), State.GATING, Reason.GATE_RUNNING, f"gate {_next_gate(o)}", o.now
        ),
        summary="begin with the gates",
    ),
    Transition(
        name="a gate has decided nothing, and the policy rolls back then",
        when=lambda o: _gate_is_undecided(o) and _rollout_input(o).policy.on_inconclusive == "Rollback",
        update=lambda o: _roll_back(State.ABORTED, Reason.INCONCLUSIVE, o, _gate_problem(o).message),
        summary="turn back, to end as Aborted: nothing was found against the candidate",
    ),
    StateRow(
        name="a gate has decided nothing",
        when=_gate_is_undecided,
        state=State.HOLDING,
        reason=lambda o: _gate_problem(o),
        actions=lambda o: (*_ensure_source(o), *_route_to_source(o)),
        summary="hold for a person until the deadline",
        requeue_after=requeue_in(POLL_IDLE),
    ),
    Transition(
        name="enough people have approved before any caller's request",
        when=lambda o: _awaits_approval(o) and _require_record(o).status.step is None and _is_approved(o),
        update=_pass_approval_gate,
        summary="write their names down",
    ),
    StateRow(
        name="people have to approve before any caller's request",
        when=lambda o: _awaits_approval(o) and _require_record(o).status.step is None,
        state=State.AWAITING_APPROVAL,
        reason=_approval_problem,
        actions=lambda o: (*_ensure_source(o), *_route_to_source(o)),
        summary="keep what serves, wait",
        requeue_after=requeue_in(POLL_IDLE),
    ),
    StateRow(
        name="a gate is to be passed",
        when=lambda o: (
            _is_in_state(o, State.GATING, State.HOLDING)
            and _require_record(o).status.step is None
            and _next_gate(o) is not None
        ),
        state=State.GATING,
        reason=lambda o: _gate_problem(o),
        actions=_run_gate,
        summary="run the gate's Job; for infra, one pod of the candidate",
        requeue_after=requeue_in(POLL_PODS),
    ),
    Transition(
        name="no gate is left to pass",
        when=lambda o: (
            _is_in_state(o, State.PENDING, State.GATING, State.AWAITING_APPROVAL, State.HOLDING)
            and _require_record(o).status.step is None
            and not _is_recreating(o)
        ),
        update=_start_steps,
        summary="begin with the first step; promote at once where there are none",
    ),
    StateRow(
        name="recreate: the old revision still has pods",
        when=lambda o: _is_recreating(o) and bool(_count_pods(o, _require_record(o).from_revision)),
        state=State.PROGRESSING,
        reason=lambda _: Problem(Reason.STOPPING_PREVIOUS, "the old revision stops before the new one starts"),
        actions=_stop_source,
        summary="stop the old revision",
        requeue_after=requeue_in(POLL_GATEWAY),
    ),
    StateRow(
        name="recreate: the candidate's pods are not all ready",
        when=lambda o: _is_recreating(o) and not _has_ready_pods(o, _require_record(o).candidate, o.replicas),
        state=State.PROGRESSING,
        reason=lambda o: _pods_problem(o, o.replicas),
        actions=_prepare_promotion,
        summary="run the candidate",
        requeue_after=requeue_in(POLL_PODS),
    ),
    Transition(
        name="recreate: the candidate's pods are ready",
        when=_is_recreating,
        update=lambda o: transition_to(
            _require_record(o), State.PROMOTING, Reason.PROMOTED, "the candidate is ready", o.now
        ),
        summary="promote it",
    ),
    StateRow(
        name="a metric has failed between two steps, and the policy holds on failure",
        when=lambda o: _is_exposed(o) and _is_between_steps(o) and _has_failed_metric(o),
        state=State.HOLDING,
        reason=lambda o: Problem(Reason.ANALYSIS_FAILED, _verdict_messages(o, Outcome.FAIL), stalled=True),
        actions=_hold_step,
        summary="hold for a person until the deadline; traffic stays as it is",
        requeue_after=_requeue_in_step,
    ),
    Transition(
        name="the step is the promotion itself",
        when=lambda o: _is_in_step(o) and _current_step(o).is_promotion,
        update=lambda o: transition_to(
            _require_record(o), State.PROMOTING, Reason.PROMOTED, "every step has passed", o.now
        ),
        summary="promote",
    ),
    StateRow(
        name="the candidate's pods for the step are not all ready",
        when=lambda o: _is_in_step(o) and not _step_is_confirmed(o) and not _has_step_pods(o, _current_step(o)),
        state=State.PROGRESSING,
        reason=lambda o: _pods_problem(o, _pods_for_step(o, _current_step(o))),
        actions=_approach_step,
        summary="run as many as the step's share needs; traffic stays as it is, or follows what pods there is room for",
        requeue_after=requeue_in(POLL_PODS),
    ),
    StateRow(
        name="the step mirrors requests, and the comparer is not ready",
        when=lambda o: (
            _is_in_step(o)
            and _current_step(o).mirror > 0
            and not _step_is_confirmed(o)
            and not _rollout_input(o).comparer_ready
        ),
        state=State.PROGRESSING,
        reason=lambda _: Problem(Reason.WAITING_FOR_PODS, "the comparer's pod is starting"),
        actions=_keep_step,
        summary="run the comparer",
        requeue_after=requeue_in(POLL_PODS),
    ),
    StateRow(
        name="traffic is not as the step wants it",
        when=lambda o: _is_in_step(o) and not _traffic_matches(o, _step_split(o, _current_step(o))),
        state=State.PROGRESSING,
        reason=_step_traffic_problem,
        actions=_apply_step,
        summary="set traffic as the step wants it",
        requeue_after=requeue_in(POLL_GATEWAY),
    ),
    StateRow(
        name="the gateway has not been seen to follow the step",
        when=lambda o: _is_in_step(o) and not o.traffic.confirmed,
        state=State.PROGRESSING,
        reason=_step_traffic_problem,
        actions=_apply_step,
        summary="ask the gateway again",
        requeue_after=requeue_in(POLL_GATEWAY),
    ),
    Transition(
        name="the A/B test is over, and the candidate has won",
        when=lambda o: (
            _is_in_step(o)
            and _current_step(o).kind is StepKind.AB_TEST
            and _hold_is_over(o)
            and _rollout_input(o).ab_test_won is True
            and _has_enough_evidence(o)
        ),
        update=_advance_step,
        summary="promote it",
    ),
    Transition(
        name="the A/B test is over, and the candidate has not won",
        when=lambda o: (
            _is_in_step(o)
            and _current_step(o).kind is StepKind.AB_TEST
            and _hold_is_over(o)
            and _rollout_input(o).ab_test_won is False
        ),
        update=lambda o: _roll_back(State.ABORTED, Reason.AB_TEST_LOST, o, _rollout_input(o).ab_test_message),
        summary="turn back, to end as Aborted: not to have won is no harm",
    ),
    Transition(
        name="the hold is over, the evidence is there, and enough people have approved",
        when=lambda o: (
            _is_in_step(o)
            and _current_step(o).kind is not StepKind.AB_TEST
            and _hold_is_over(o)
            and _has_enough_evidence(o)
            and (_current_step(o).kind is not StepKind.APPROVAL or _is_approved(o))
        ),
        update=_advance_step,
        summary="go on to the next step, after the last one to the promotion",
    ),
    Transition(
        name="the hold is over, the evidence decides nothing, and the policy rolls back then",
        when=lambda o: (
            _is_in_step(o)
            and _hold_is_over(o)
            and _final_measurement_is_due(o)
            and _rollout_input(o).outcome in (Outcome.INCONCLUSIVE, Outcome.ERROR)
            and _rollout_input(o).policy.on_inconclusive == "Rollback"
            and _current_step(o).kind is not StepKind.APPROVAL
        ),
        update=lambda o: _roll_back(State.ABORTED, Reason.INCONCLUSIVE, o, _evidence_problem(o).message),
        summary="turn back, to end as Aborted: nothing was found against the candidate",
    ),
    StateRow(
        name="a metric has failed, and the policy holds on failure",
        when=lambda o: _is_in_step(o) and _rollout_input(o).outcome is Outcome.FAIL,
        state=State.HOLDING,
        reason=lambda o: Problem(Reason.ANALYSIS_FAILED, _verdict_messages(o, Outcome.FAIL), stalled=True),
        actions=_apply_step,
        summary="hold for a person until the deadline",
        requeue_after=_requeue_in_step,
    ),
    StateRow(
        name="the step waits for people",
        when=lambda o: _is_in_step(o) and _current_step(o).kind is StepKind.APPROVAL and not _is_approved(o),
        state=State.AWAITING_APPROVAL,
        reason=_approval_problem,
        actions=_apply_step,
        summary="keep the step, watch its metrics",
        requeue_after=_requeue_in_step,
    ),
    StateRow(
        name="the step's hold is not over, or the look after it has not come back",
        when=lambda o: _is_in_step(o) and not (_hold_is_over(o) and _final_measurement_is_due(o)),
        state=State.PROGRESSING,
        reason=_step_progress,
        actions=_apply_step,
        summary="keep the step, watch its metrics",
        requeue_after=_requeue_in_step,
    ),
    StateRow(
        name="the hold is over, and the evidence decides nothing yet",
        when=_is_in_step,
        state=State.HOLDING,
        reason=_evidence_problem,
        actions=_apply_step,
        summary="hold until it does, or until the deadline",
        requeue_after=_requeue_in_step,
    ),
    Transition(
        name="the candidate was promoted, and it serves",
        when=lambda o: (
            _is_in_state(o, State.PROMOTING)
            and o.serving is not None
            and o.serving.revision.hash == _require_candidate(o).hash
            and _traffic_matches(o, TrafficSplit.all_to(_require_candidate(o)))
            and o.traffic.confirmed
        ),
        update=_finish_rollout,
        summary="end as Succeeded",
    ),
    StateRow(
        name="promoting, and the candidate's pods are not all ready",
        when=lambda o: (
            _is_in_state(o, State.PROMOTING) and not _has_ready_pods(o, _require_record(o).candidate, o.replicas)
        ),
        state=State.PROMOTING,
        reason=lambda o: _pods_problem(o, o.replicas),
        actions=_prepare_promotion,
        summary="bring it to full size; traffic stays as it is",
        requeue_after=requeue_in(POLL_PODS),
    ),
    StateRow(
        name="promoting",
        when=lambda o: _is_in_state(o, State.PROMOTING),
        state=State.PROMOTING,
        reason=_takeover_problem,
        actions=_promote_candidate,
        summary="send all traffic to the candidate, whose pods are those that were the canary",
        requeue_after=requeue_in(POLL_GATEWAY),
    ),
    _reverted_row(State.ROLLED_BACK),
    _reverted_row(State.ABORTED),
    StateRow(
        name="a person's rollback holds the Model",
        when=lambda o: o.record is not None and o.record.pins_model and not o.record.is_active and o.target_serves,
        state=State.SUCCEEDED,
        reason=_pinned_problem,
        actions=direct.maintain_target,
        summary="keep it there",
    ),
    StateRow(
        name="the policy can't be followed, and another revision is wanted",
        when=lambda o: _wants_new_rollout(o) and _rollout_input(o).problem is not None,
        state=State.PENDING,
        reason=lambda o: _rollout_input(o).problem or Problem(Reason.WAITING_FOR_POLICY, ""),
        actions=lambda o: (*direct.keep_routed_revisions(o), *direct.remove_obsolete(o)),
        summary="keep what serves",
        requeue_after=requeue_in(POLL_IDLE),
    ),
    StateRow(
        name="another revision is wanted",
        when=lambda o: _wants_new_rollout(o),
        state=State.PENDING,
        reason=lambda o: Problem(
            Reason.ROLLOUT_IN_PROGRESS, f"a rollout to version {o.target.version if o.target else ''}"
        ),
        actions=_start_rollout,
        summary="make a ModelRollout",
        requeue_after=requeue_in(POLL_GATEWAY),
    ),
    StateRow(
        name="the target serves, and the previous revision is kept for going back",
        when=lambda o: (
            o.rollout is not None
            and o.target_serves
            and o.traffic.confirmed
            and bool(o.obsolete_revisions)
            and o.retention > o.settle_time
            and o.target_ready
        ),
        state=State.SUCCEEDED,
        reason=_retention_problem,
        actions=direct.maintain_target,
        summary="keep both; remove the previous one after keepPrevious",
        requeue_after=lambda o: max(
            min((o.removable_at(r) or o.now for r in o.obsolete_revisions), default=o.now) - o.now, POLL_GATEWAY
        ),
    ),
)


def _wants_new_rollout(o: Observation) -> bool:
    return (
        o.rollout is not None
        and o.rollout.has_policy
        and o.active_record is None
        and o.target is not None
        and o.problem is None
        and (o.serving is None or o.serving.revision.hash != o.target.hash)
    )


def _gate_problem(o: Observation) -> Problem:
    gate = _next_gate(o)
    found = next((entry for entry in _require_record(o).status.gates if entry.name == gate), None)
    if found is not None:
        return Problem(Reason.GATE_FAILED, f"gate {gate}: {found.message}")
    unproven = _rollout_input(o).report_problem
    if unproven is not None and unproven.stalled:
        return Problem(unproven.reason, f"gate {gate} does not count: {unproven.message}", stalled=True)
    return Problem(Reason.GATE_RUNNING, f"gate {gate} is being looked at")
