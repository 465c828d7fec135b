"""Rows of the rollout table for a Model with a RolloutPolicy, and for a rollback by hand.

What is safe comes first: a person's word, turning back, the deadline, a failed metric. None of these rows waits for a
write, a gateway or a metrics server.
"""

from __future__ import annotations

import math
from datetime import timedelta

from modelwright.api.common import seconds
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import RolloutPolicySpec
from modelwright.api.v1alpha1.rollout import ApprovalRecord, GateStatus, ReportStatus
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.people import Approved, Refused, Rejected, Waiting
from modelwright.core.revision import Revision
from modelwright.core.rollout import direct
from modelwright.core.rollout.actions import Action, Begin, Compare, Remove, Run, RunGate, SendTraffic
from modelwright.core.rollout.capacity import CapacityPlan, Pods, plan, replica_pods
from modelwright.core.rollout.evaluation import least_hold
from modelwright.core.rollout.observed import Observed, Problem, RevisionView, Rolling
from modelwright.core.rollout.record import (
    COUNTED,
    Record,
    begin_step,
    confirm_step,
    end_step,
    enter,
    overrule_step,
    taken_up,
    turn_back,
)
from modelwright.core.rollout.routing import Routing, Share
from modelwright.core.rollout.rule import ASK_GATEWAY, LOOK_SELDOM, WATCH_PODS, Row, Rule, Transition, after
from modelwright.core.rollout.steps import GATES, Step, StepKind
from modelwright.core.rollout.watch import STEPPING

NOT_OF_A_RECORD: frozenset[State] = frozenset({State.SUCCEEDED, State.ROLLED_BACK, State.ABORTED, State.SUPERSEDED})
"""States that a live record reaches by a transition only, never because a row that stays is in them."""

FAULTS: frozenset[str] = frozenset(
    {Reason.MODEL_LOAD_FAILED, Reason.CONTAINER_OOM_KILLED, Reason.DIGEST_MISMATCH, Reason.UNSAFE_ARCHIVE}
)
"""Why pods fail through what they serve: findings about a revision."""

GATEWAY_PATIENCE = timedelta(seconds=10)
"""How long a gateway may take to follow before that is told."""
LOOK_PATIENCE = timedelta(seconds=5)
"""How long a look takes at most, as a rule."""


def _rolling(o: Observed) -> Rolling:
    assert o.rolling is not None  # noqa: S101 - rows here hold for a Model with a record or a policy only
    return o.rolling


def _record(o: Observed) -> Record:
    record = o.record
    assert record is not None  # noqa: S101
    return record


def _candidate(o: Observed) -> Revision:
    to = _record(o).to
    assert to is not None  # noqa: S101 - a record is made with its candidate
    return to


def _in(o: Observed, *states: State) -> bool:
    return o.live is not None and o.live.state in states


def _stepping(o: Observed) -> bool:
    """A step goes on, of those that move traffic."""
    return _in(o, *STEPPING) and _record(o).status.step is not None


def _step(o: Observed) -> Step:
    return _rolling(o).steps[_record(o).step]


def _recreates(o: Observed) -> bool:
    return o.rolling is not None and o.rolling.policy.strategy.recreate is not None and not _fast(o)


def _view(o: Observed, revision: Revision | None) -> RevisionView | None:
    return o.revisions.get(revision.hash) if revision is not None else None


def _pods_of(o: Observed, revision: Revision | None) -> int:
    view = _view(o, revision)
    return max(view.pods, view.replicas or 0) if view is not None else 0


def _ready(o: Observed, revision: Revision | None, pods: int) -> bool:
    view = _view(o, revision)
    return view is not None and view.has(pods)


def _needs(o: Observed, step: Step) -> int:
    """Pods that the candidate must have before the step's traffic is all there."""
    full = o.replicas
    if full == 0:
        return 0
    if _rolling(o).replica_weighted and 0 < step.weight < 100:
        return replica_pods(full, step.weight, _budget(o))[0]
    if step.weight:
        return max(1, math.ceil(full * step.share / 100))
    # Without requests that count, it may do with fewer pods than its share where there is no room for more.
    wanted = max(1, math.ceil(full * step.share / 100))
    surge = _rolling(o).surge
    return wanted if surge is None else max(1, min(wanted, surge))


def _budget(o: Observed) -> int:
    surge = _rolling(o).surge
    return o.replicas + (o.replicas if surge is None else surge)


def _planned(o: Observed) -> bool:
    """Pods and weight have to move in turns: there is no room for both revisions at full size, or pods make the
    weights."""
    surge = _rolling(o).surge
    return o.replicas > 0 and (_rolling(o).replica_weighted or (surge is not None and surge < o.replicas))


def _plan(o: Observed, wish: int, least: int = 0) -> CapacityPlan:
    record = _record(o)
    candidate, serving = (
        Pods(view.replicas or 0, view.available) if view is not None else Pods(0, 0)
        for view in (_view(o, record.to), _view(o, record.source))
    )
    return plan(
        o.replicas,
        _budget(o) - o.replicas,
        wish,
        candidate,
        serving,
        _weight(o),
        "replicas" if _rolling(o).replica_weighted else "gateway",
        least=least,
    )


def _weight(o: Observed) -> int:
    """The candidate's share as the route or the pods have it now."""
    to = _record(o).to
    return min(100, o.traffic.weights.get(to.hash, 0)) if to is not None else 0


def _step_pods(o: Observed, step: Step) -> tuple[int, int]:
    """Pods of the candidate and of the serving revision to ask for now."""
    if not _planned(o) or _record(o).source is None:
        return _needs(o, step), o.replicas
    found = _plan(o, step.weight, 0 if step.weight else _needs(o, step))
    return found.candidate_replicas, found.serving_replicas


def baseline(policy: RolloutPolicySpec, record: Record, step: Step) -> Revision | None:
    """The fresh pods of the serving revision that the candidate is judged beside in a step; None without."""
    fresh = policy.analysis is not None and policy.analysis.baseline == "Fresh"
    return record.baseline if fresh and 0 < step.weight <= 50 and not step.mirror else None


def _fresh(o: Observed, step: Step) -> Revision | None:
    return baseline(_rolling(o).policy, _record(o), step)


def _routing(o: Observed, step: Step, weight: int | None = None) -> Routing:
    """How traffic is to be during a step; with `weight`, on the way there."""
    source, to = _record(o).source, _candidate(o)
    share = step.weight if weight is None else weight
    if source is None:
        return Routing.to(to)
    if share == 0 and not step.mirror and not step.match:
        return Routing.to(source)
    if _rolling(o).replica_weighted:
        if share == 100:
            return Routing.to(to)
        return Routing((Share(source, 100 - share), Share(to, share)))
    shares = [Share(source, 100 - share), Share(to, share)]
    fresh = _fresh(o, step)
    if fresh is not None:
        shares = [Share(source, 100 - 2 * share), Share(fresh, share), Share(to, share)]
    return Routing(
        shares=tuple(share for share in shares if share.weight > 0),
        match=step.match,
        matched=to if step.match else None,
        mirror_percent=step.mirror,
        sticky=step.sticky,
        inside=source,
    )


def _goes(o: Observed, routing: Routing) -> bool:
    """Whether the live objects say so already."""
    traffic = o.traffic
    if traffic.named != routing.hashes or traffic.mirror != routing.mirror_percent:
        return False
    if traffic.mirror and traffic.stale_token:
        return False
    if (traffic.matched or None) != (routing.matched.hash if routing.matched else None):
        return False
    if _rolling(o).replica_weighted and routing.inside is None:
        return True
    return dict(traffic.weights) == dict(routing.weights) and traffic.sticky == routing.sticky


def _returned(o: Observed) -> bool:
    """Traffic is back with what served when the rollout began, or there was nothing to go back to."""
    source = _record(o).source
    if source is None:
        return True
    if not (_goes(o, Routing.to(source)) and o.traffic.confirmed):
        return False
    return not _recreates(o) or _ready(o, source, o.replicas)


def _fast(o: Observed) -> bool:
    """To a revision that served before, or by a person's hand: without gates and steps."""
    if o.record is None:
        return False
    record, to = _record(o), _record(o).to
    return record.by_hand or (to is not None and to.hash in _rolling(o).windowed)


def _next_gate(o: Observed) -> str | None:
    """The first gate that the policy asks for and that has not passed."""
    gates = _rolling(o).policy.gates
    if gates is None or _fast(o):
        return None
    passed = {gate.name for gate in _record(o).status.gates if gate.outcome == Outcome.PASS}
    return next((name for name in GATES if getattr(gates, name) is not None and name not in passed), None)


def _gate_result(o: Observed) -> Outcome | None:
    gate = _next_gate(o)
    found = next((entry for entry in _record(o).status.gates if entry.name == gate), None)
    return Outcome(found.outcome) if found is not None else None


def _gate_undecided(o: Observed) -> bool:
    """A gate has come to nothing that would let the candidate pass, or refuse it."""
    return _in(o, State.GATING, State.HOLDING) and _gate_result(o) in (Outcome.INCONCLUSIVE, Outcome.ERROR)


def _step_undecided(o: Observed) -> bool:
    """The metrics of the present step have decided nothing."""
    undecided = _rolling(o).outcome in (Outcome.INCONCLUSIVE, Outcome.ERROR)
    return undecided and _stepping(o) and _confirmed(o)


def _gate_ended(o: Observed) -> bool:
    """A gate has a result that the record doesn't have yet."""
    if not _in(o, State.GATING, State.HOLDING) or _record(o).status.step is not None:
        return False
    return _next_gate(o) in _rolling(o).gates and _gate_result(o) is None


def _note_gate(o: Observed) -> Record:
    record, gate = _record(o), _next_gate(o)
    assert gate is not None  # noqa: S101 - holds only with a gate that has ended
    result = _rolling(o).gates[gate]
    full = result.full_report
    report = ReportStatus(uri=full.uri, digest=full.digest) if full is not None else None
    entry = GateStatus(
        name=gate, outcome=result.outcome, reason=result.reason, message=result.message, report=report, at=o.now
    )
    return record.but(gates=(*record.status.gates, entry))


def _approved(o: Observed) -> bool:
    return isinstance(_rolling(o).people, Approved)


def _rejected(o: Observed) -> bool:
    return isinstance(_rolling(o).people, Rejected)


def _awaits_approval(o: Observed) -> bool:
    if _in(o, State.GATING, State.AWAITING_APPROVAL) and _record(o).status.step is None:
        return _next_gate(o) == "approval"
    return _stepping(o) and _step(o).kind is StepKind.APPROVAL


def _approval_timeout(o: Observed) -> timedelta:
    gates = _rolling(o).policy.gates
    if _record(o).status.step is None and gates is not None and gates.approval is not None:
        return timedelta(seconds=seconds(gates.approval.timeout))
    return _step(o).timeout or timedelta.max


def _place(record: Record) -> str:
    return "gate" if record.status.step is None else f"step {record.step}"


def _note_people(o: Observed, record: Record) -> Record:
    """`record` with the names of those whose word counted."""
    people = _rolling(o).people
    if people is None or not _awaits_approval(o):
        return record
    counted = (people.by,) if isinstance(people, Rejected) else people.counted
    place = _place(record)
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
    return record.but(approvals=(*record.status.approvals, *new)[-64:]) if new else record


def _pass_approval_gate(o: Observed) -> Record:
    record, people = _note_people(o, _record(o)), _rolling(o).people
    who = ", ".join(a.spec.approver for a in people.counted) if isinstance(people, Approved) else ""
    entry = GateStatus(name="approval", outcome=Outcome.PASS, reason="Approved", message=f"approved by {who}", at=o.now)
    return record.but(gates=(*record.status.gates, entry))


def _hold(o: Observed) -> timedelta:
    """How long the present step lasts at least."""
    return least_hold(_rolling(o).policy, _step(o), _rolling(o).longest_request)


def _past_hold(o: Observed) -> bool:
    entry = _record(o).step_status
    return entry is not None and entry.confirmed_at is not None and o.now - entry.confirmed_at >= _hold(o)


def _looked_on(o: Observed) -> bool:
    """A look that began after the hold should have told by now."""
    entry = _record(o).step_status
    if entry is None or entry.confirmed_at is None:
        return False
    return o.now - entry.confirmed_at >= _hold(o) + _interval(o) + LOOK_PATIENCE


def _hold_left(o: Observed) -> timedelta | None:
    entry = _record(o).step_status
    if entry is None or entry.confirmed_at is None:
        return None
    return max(_hold(o) - (o.now - entry.confirmed_at), timedelta(0))


def _interval(o: Observed) -> timedelta:
    analysis = _rolling(o).policy.analysis
    return timedelta(seconds=seconds(analysis.interval)) if analysis is not None else LOOK_SELDOM


def _look(o: Observed) -> timedelta:
    """When a step is to be looked at again: at its end, and at least as often as its evidence."""
    left = _hold_left(o)
    wait = _interval(o) if _rolling(o).policy.analysis is not None else LOOK_SELDOM
    if left:
        return min(left, wait)
    # The table changes once more when the look after the hold is overdue.
    return wait if _looked_on(o) else min(wait, LOOK_PATIENCE)


def _confirmed(o: Observed) -> bool:
    entry = _record(o).step_status
    return entry is not None and entry.confirmed_at is not None


def _at_size(o: Observed) -> bool:
    """Everything that the step needs beside traffic is there."""
    step = _step(o)
    return _has_pods(o, step) and (not step.mirror or _rolling(o).comparer_ready)


def _has_pods(o: Observed, step: Step) -> bool:
    """The candidate's pods for a step are ready, and so are those it is judged beside."""
    needed, fresh = _needs(o, step), _fresh(o, step)
    return _ready(o, _record(o).to, needed) and (fresh is None or _ready(o, fresh, needed))


def _failed(o: Observed) -> bool:
    """A metric of the present step has failed, or of the one before while this one has no evidence of its own. Not
    after a person has promoted the candidate in spite of that."""
    return not _record(o).overruled and Outcome.FAIL in (_rolling(o).outcome, _rolling(o).watched)


def _between_steps(o: Observed) -> bool:
    """The evidence that goes on is that of an earlier step."""
    return _in(o, State.PROMOTING) or (_stepping(o) and not _confirmed(o))


def _pods_fail(o: Observed) -> bool:
    """The candidate's own pods have shown that they can't serve it. That they are not ready yet, fit no node or wait
    for an image or a store is no finding about the candidate."""
    view = _view(o, _record(o).to)
    return view is not None and view.failure is not None and view.failure.reason in FAULTS


def _enough(o: Observed) -> bool:
    """The evidence that the policy asks for in this step is there."""
    return _rolling(o).outcome in (None, Outcome.PASS)


def _verdicts(o: Observed, outcome: Outcome) -> str:
    return "; ".join(v.message for v in _rolling(o).verdicts if v.outcome is outcome and not v.dry_run)


def _keep_source(o: Observed) -> tuple[Action, ...]:
    source = _record(o).source
    return (Run(source),) if source is not None else ()


def _keep_step(o: Observed) -> tuple[Action, ...]:
    """Whatever the last step has set goes on."""
    record = _record(o)
    if record.status.step is None:
        return (*_keep_source(o), *_send_to_source(o))
    candidate, serving = _step_pods(o, _step(o))
    source = (Run(record.source, serving),) if record.source is not None else ()
    fresh = _fresh(o, _step(o))
    beside = (Run(fresh, candidate),) if fresh is not None else ()
    return (*source, *beside, Run(_candidate(o), candidate), *_comparer(o))


def _stay(o: Observed) -> tuple[Action, ...]:
    """Neither traffic nor, where pods and traffic move in turns, pods go any further."""
    if not _planned(o):
        return _keep_step(o)
    return _as_they_are(o)


def _as_they_are(o: Observed) -> tuple[Action, ...]:
    """The pods of both revisions as they are, and traffic too."""
    views = (_view(o, revision) for revision in (_record(o).source, _record(o).to))
    return tuple(Run(view.revision, view.replicas) for view in views if view is not None and view.replicas is not None)


def _approach_step(o: Observed) -> tuple[Action, ...]:
    """Pods first; where both revisions have no room at full size, traffic as far as the pods carry it."""
    step = _step(o)
    if not _planned(o) or _rolling(o).replica_weighted or _record(o).source is None or not step.weight:
        return _keep_step(o)
    return (*_keep_step(o), SendTraffic(_routing(o, step, _plan(o, step.weight).weight)))


def _comparer(o: Observed) -> tuple[Action, ...]:
    record = _record(o)
    if record.source is None or not _step(o).mirror:
        return ()
    return (Compare(record.source, _candidate(o)),)


def _send_to_source(o: Observed) -> tuple[Action, ...]:
    source = _record(o).source
    return (SendTraffic(Routing.to(source)),) if source is not None else ()


def _set_step(o: Observed) -> tuple[Action, ...]:
    return (*_keep_step(o), SendTraffic(_routing(o, _step(o))))


def _bring_back(o: Observed) -> tuple[Action, ...]:
    record, source = _record(o), _record(o).source
    assert source is not None  # noqa: S101 - without one there is nothing to bring back
    if _recreates(o):
        if _pods_of(o, record.to):
            return (Run(_candidate(o), 0),)
        return (Run(source), *_send_to_source(o))
    if not _planned(o) or record.to is None:
        # Traffic first: it must not wait for whatever else can't be written.
        return (*_send_to_source(o), Run(source))
    back = _plan(o, 0)
    pods = (
        Run(source, back.serving_replicas),
        *((Run(record.to, back.candidate_replicas),) if _pods_of(o, record.to) else ()),
    )
    if back.weight == 0 or _ready(o, source, o.replicas):
        return (*_send_to_source(o), *pods)
    return (SendTraffic(_routing(o, Step(StepKind.WEIGHT, weight=back.weight))), *pods)


def _make_room(o: Observed) -> tuple[Action, ...]:
    leaving = (Remove(gone.revision, pods_only=bool(_pods_of(o, gone.revision))) for gone in direct.sweep(o))
    return (*_keep_source(o), *_send_to_source(o), *leaving)


def _promote_when_ready(o: Observed) -> tuple[Action, ...]:
    record = _record(o)
    if record.source is None:
        # Nobody is served yet: the route comes first, so that a refused one shows at once.
        return (Run(_candidate(o)), SendTraffic(Routing.to(_candidate(o))))
    if _recreates(o):
        return (Run(record.source, 0), Run(_candidate(o)))
    if _planned(o) and _rolling(o).surge is not None:
        ahead = _plan(o, 100)
        pods = (Run(record.source, ahead.serving_replicas), Run(_candidate(o), ahead.candidate_replicas))
        if _rolling(o).replica_weighted and not _ready(o, record.to, 1):
            return pods
        # By pods, any share but 0 and 100 lets all of them be asked.
        share = min(max(ahead.weight, 1), 99) if _rolling(o).replica_weighted else ahead.weight
        return (*pods, SendTraffic(_routing(o, Step(StepKind.WEIGHT, weight=100), share)))
    return (*_keep_source(o), Run(_candidate(o)))


def _promote(o: Observed) -> tuple[Action, ...]:
    source = () if _recreates(o) or _planned(o) else _keep_source(o)
    return (*source, Run(_candidate(o)), SendTraffic(Routing.to(_candidate(o))))


def _stop_source(o: Observed) -> tuple[Action, ...]:
    source = _record(o).source
    return (Run(source, 0),) if source is not None else ()


def _run_gate(o: Observed) -> tuple[Action, ...]:
    gate = _next_gate(o)
    assert gate is not None  # noqa: S101
    if gate != "infra":
        return (*_keep_source(o), *_send_to_source(o), RunGate(gate))
    run = Run(_candidate(o), min(1, o.replicas))
    asks = (RunGate(gate),) if _ready(o, _candidate(o), 1) else ()
    return (*_keep_source(o), *_send_to_source(o), run, *asks)


def _begin(o: Observed) -> tuple[Action, ...]:
    return (*direct.keep_named(o), Begin(_rolling(o).number))


def _obey(o: Observed) -> Record:
    """The record after its command."""
    record, decision = _record(o), _rolling(o).command
    command = record.spec.command
    assert decision is not None  # noqa: S101
    assert command is not None  # noqa: S101
    if isinstance(decision, Refused):
        return taken_up(record, accepted=False, message=decision.message, now=o.now)
    record = taken_up(record, accepted=True, message="", now=o.now)
    said = f"{command.by}: {command.reason}"
    if command.name == "pause":
        return record.but(paused=True)
    if command.name == "resume":
        return record.but(paused=None, freeze_overridden=True if _rolling(o).frozen_until else None)
    if command.name == "retry":
        return record.but(retried=True)
    if command.name == "release":
        return record.but(released=True)
    if command.name == "abort":
        return turn_back(record, State.ABORTED, Reason.ABORTED_BY_COMMAND, said, o.now)
    proven = _rolling(o).outcome in (None, Outcome.PASS) and not _left_to_prove(o)
    record = overrule_step(record, o.now) if _failed(o) else end_step(record, "Skipped", o.now)
    record = record.but(paused=None, without_evidence=None if proven else True)
    return enter(record, State.PROMOTING, Reason.PROMOTED, said, o.now)


def _left_to_prove(o: Observed) -> bool:
    """Evidence that the policy asks for in this or a later step is left out when the rollout is promoted now."""
    if _rolling(o).policy.analysis is None:
        return False
    later = [step for step in _rolling(o).steps[_record(o).step + 1 :] if not step.last]
    tested = _rolling(o).policy.strategy.ab_test is not None and _rolling(o).wins is not True
    return bool(later) or tested or not _confirmed(o)


def _untaken_command(o: Observed) -> bool:
    record = o.record
    if record is None or o.rolling is None or o.rolling.command is None or record.spec.command is None:
        return False
    return all(entry.token != record.spec.command.token for entry in record.status.commands)


def _next(o: Observed) -> Record:
    record, steps = _note_people(o, _record(o)), _rolling(o).steps
    if record.step + 1 >= len(steps):
        return enter(end_step(record, "Pass", o.now), State.PROMOTING, Reason.PROMOTED, "every step has passed", o.now)
    return begin_step(record, steps, record.step + 1, o.now)


def _start(o: Observed) -> Record:
    """The record at its first step, or at the promotion where there are none."""
    record = _record(o)
    if _fast(o):
        why = Reason.ROLLED_BACK_BY_HAND if record.by_hand else Reason.FAST_ROLLBACK
        return enter(record, State.PROMOTING, why, "back to a revision that served before", o.now)
    if record.source is None:
        return enter(record, State.PROMOTING, Reason.FIRST_REVISION, "nothing served before: no steps", o.now)
    if _recreates(o):
        return enter(record, State.PROGRESSING, Reason.STOPPING_PREVIOUS, "the previous revision stops", o.now)
    record = begin_step(record, _rolling(o).steps, 0, o.now)
    return enter(record, State.PROGRESSING, Reason.STEP_IN_PROGRESS, "the first step begins", o.now)


def _succeed(o: Observed) -> Record:
    record, to = _record(o), _candidate(o)
    if record.by_hand:
        assert record.spec.rollback is not None  # noqa: S101
        said = f"{record.spec.rollback.by}: {record.spec.rollback.reason}"
        return enter(record, State.SUCCEEDED, Reason.ROLLED_BACK_BY_HAND, said, o.now)
    reason, text = Reason.PROMOTED, f"version {to.version} takes all traffic"
    if record.status.without_evidence:
        reason, text = Reason.PROMOTED_WITHOUT_EVIDENCE, f"{text}; a person promoted it without the evidence asked for"
    elif record.source is None:
        reason = Reason.FIRST_REVISION
    elif to.hash in _rolling(o).windowed:
        reason = Reason.FAST_ROLLBACK
    return enter(end_step(record, "Pass", o.now).but(weight=100), State.SUCCEEDED, reason, text, o.now)


def _turn(ending: State, reason: Reason, o: Observed, text: str) -> Record:
    return turn_back(_note_people(o, _record(o)), ending, reason, text, o.now)


def _because(o: Observed) -> Problem:
    """Why the record is on its way back, or has ended."""
    status = _record(o).status
    return Problem(status.reason or "", status.message or "")


def _unfit(o: Observed) -> Problem | None:
    """What the record's policy asks for in vain: it was edited just before it was kept, or the gateway has changed."""
    return None if _record(o).by_hand or _fast(o) else _rolling(o).refused


def _end_unfit(o: Observed) -> Record:
    problem = _unfit(o) or Problem(Reason.POLICY_NOT_SUPPORTED, "")
    return _turn(State.SUPERSEDED, Reason(problem.reason), o, problem.message)


def _taken_back_in(state: State) -> Rule:
    return Rule(
        f"the target's last rollout ended {state}, and nobody has asked for another try",
        lambda o: o.rolling is not None and o.waits_for_retry and _record(o).state is state,
        state,
        lambda o: Problem(_because(o).reason, _taken_back_text(o), stalled=True),
        lambda o: (*direct.keep_named(o), *direct.sweep(o)),
        "keep what serves, remove the candidate",
    )


def _taken_back_text(o: Observed) -> str:
    record = _record(o)
    what = "was not promoted, and is not in quarantine" if record.undecided else "was taken back"
    return (
        f"version {_candidate(o).version} {what}: {record.status.message}. It is tried again after the command "
        f"retry on ModelRollout {record.name}, or when spec.version has named another one meanwhile"
    )


def _pods_missing(o: Observed, pods: int) -> Problem:
    to = _candidate(o)
    view = _view(o, to)
    if view is not None and view.failure is not None:
        return Problem(view.failure.reason, view.failure.message)
    return Problem(Reason.WAITING_FOR_PODS, f"version {to.version}: {pods} ready pods are waited for")


def _waiting_text(o: Observed) -> Problem:
    people = _rolling(o).people
    if isinstance(people, Waiting):
        return Problem(people.reason, people.message, people.stalled)
    return Problem(Reason.AWAITING_APPROVAL, people.message if isinstance(people, Rejected) else "people must approve")


def _undecided(o: Observed) -> Problem:
    text = _verdicts(o, Outcome.ERROR) or _verdicts(o, Outcome.INCONCLUSIVE) or "nothing was measured yet"
    erring = _rolling(o).outcome is Outcome.ERROR
    return Problem(Reason.ANALYSIS_ERROR if erring else Reason.INSUFFICIENT_EVIDENCE, text)


def _in_the_way_back(o: Observed) -> Problem:
    """What keeps traffic from coming back, when something does; else why it has to."""
    refused = o.traffic.problem if o.traffic.problem is not None and o.traffic.problem.stalled else None
    return o.problem or refused or _because(o)


def _taking_over(o: Observed) -> Problem:
    problem, since = o.traffic.problem, _record(o).status.since
    slow = since is not None and o.now - since >= GATEWAY_PATIENCE
    if problem is not None and (problem.stalled or slow):
        return problem
    return Problem(Reason.WAITING_FOR_ROUTE, f"version {_candidate(o).version} is ready and takes over")


def _switching(o: Observed) -> Problem:
    """The gateway is about to follow a step: worth a word only when that takes long, or can't be."""
    problem, entry = o.traffic.problem, _record(o).step_status
    slow = entry is not None and o.now - entry.started_at >= GATEWAY_PATIENCE
    if problem is not None and (problem.stalled or slow):
        return problem
    status = _record(o).status
    if status.state == State.PROGRESSING and status.reason and not _confirmed(o):
        # In a moment it is confirmed: until then the record needn't be written.
        return Problem(status.reason, status.message or "")
    return _going(o)


def _going(o: Observed) -> Problem:
    step, record = _step(o), _record(o)
    what = f"step {record.step + 1} of {len(_rolling(o).steps)}: {step.kind}"
    if step.kind is StepKind.WEIGHT:
        what += f" {step.weight} %"
    return Problem(Reason.STEP_IN_PROGRESS, what)


def _previous_kept(o: Observed) -> Problem:
    names = ", ".join(sorted({revision.version for revision in o.leftovers}))
    version = o.target.version if o.target else ""
    return Problem(Reason.SERVING, f"version {version} takes all traffic; {names} is kept for going back")


def _held(o: Observed) -> Problem:
    rollback = _record(o).spec.rollback
    assert rollback is not None  # noqa: S101
    text = (
        f"{rollback.by} took the Model back to version {_candidate(o).version}: {rollback.reason}. It stays there "
        f"until spec.version is changed, or the command release on ModelRollout {_record(o).name}"
    )
    return Problem(Reason.HELD_BY_ROLLBACK, text, stalled=True)


def _frozen(o: Observed) -> bool:
    if o.live is None or o.live.by_hand or o.live.status.freeze_overridden or _rolling(o).frozen_until is None:
        return False
    return o.live.state not in (State.PROMOTING, State.ROLLING_BACK) and not _fast(o)


def _freeze_text(o: Observed) -> Problem:
    until = _rolling(o).frozen_until
    assert until is not None  # noqa: S101
    text = (
        f"frozen until {until:%Y-%m-%d %H:%M} UTC; the command resume on ModelRollout {_record(o).name} goes on anyway"
    )
    return Problem(Reason.FREEZE_WINDOW, text)


def _exposed(o: Observed) -> bool:
    """In a state in which callers' requests may reach the candidate, and there is something to go back to."""
    return _stepping(o) or (_in(o, State.PROMOTING) and _record(o).source is not None)


def _lost_its_pods(o: Observed) -> bool:
    if not _exposed(o):
        return False
    to = _candidate(o)
    view = _view(o, to)
    gets = o.traffic.weights.get(to.hash, 0) > 0 or o.traffic.matched == to.hash
    return gets and (view is None or (not view.available and view.replicas != 0))


def _source_lost_too(o: Observed) -> bool:
    """What served should have pods, and has no ready one either: that is no finding about the candidate."""
    view = _view(o, _record(o).source)
    return view is not None and bool(view.replicas) and not view.available


def _lost_text(o: Observed) -> str:
    return _pods_missing(o, o.replicas if _in(o, State.PROMOTING) else _needs(o, _step(o))).message


def _all_lost_text(o: Observed) -> str:
    source = _record(o).source
    return f"{_lost_text(o)}; version {source.version if source else ''}, which served, has no ready pod either"


def _over_deadline(o: Observed) -> bool:
    record = o.live
    if record is None or record.by_hand or record.state not in COUNTED:
        return False
    if record.source is None and record.state is not State.GATING:
        # There is nothing to go back to: its pods go on trying.
        return False
    return record.elapsed(o.now) >= timedelta(seconds=seconds(_rolling(o).policy.deadline))


def _deadline_text(o: Observed) -> str:
    status, trouble = _record(o).status, _rolling(o).trouble
    limit = f"{_rolling(o).policy.deadline} (spec.deadline)"
    text = f"it did not end within {limit}; it was {status.state}: {status.message}"
    return f"{text}; in its way: {trouble}" if trouble and trouble != status.message else text


def _undecided_text(o: Observed) -> str:
    text = (_gate_text(o) if _gate_undecided(o) else _undecided(o)).message
    return f"{text}; nothing else came within {_rolling(o).policy.deadline} (spec.deadline)"


def _recreate_timeout(o: Observed) -> bool:
    record = o.live
    if record is None or not _recreates(o) or record.state is not State.PROGRESSING or record.status.step is not None:
        return False
    recreate = _rolling(o).policy.strategy.recreate
    since = record.status.since
    return recreate is not None and since is not None and o.now - since >= timedelta(seconds=seconds(recreate.timeout))


def _recreating(o: Observed) -> bool:
    return _in(o, State.PROGRESSING) and _record(o).status.step is None and _recreates(o)


def _behind(o: Observed) -> bool:
    """An earlier candidate still has requests or pods."""
    source = _record(o).source
    return bool(o.traffic.named - ({source.hash} if source else set())) or bool(o.leftovers)


ROWS: tuple[Row, ...] = (
    Transition(
        "a person has given a command that was not taken up yet",
        _untaken_command,
        _obey,
        "carry it out, or refuse it and say why",
    ),
    Transition(
        "spec.version was changed since a person's rollback began",
        lambda o: o.record is not None and o.record.holds and _rolling(o).released_by_spec,
        lambda o: _record(o).but(released=True),
        "let the Model go",
    ),
    Transition(
        "the Model wants another revision than the one that was taken back",
        lambda o: (
            o.record is not None
            and o.record.waits_for_retry
            and o.target is not None
            and o.record.to is not None
            and o.record.to.hash != o.target.hash
        ),
        lambda o: _record(o).but(lapsed=True),
        "end its quarantine: it may be wanted again",
    ),
    Transition(
        "the Model wants another revision than the rollout moves to",
        lambda o: (
            o.live is not None
            and o.live.state is not State.ROLLING_BACK
            and o.target is not None
            and o.live.to is not None
            and o.live.to.hash != o.target.hash
        ),
        lambda o: _turn(
            State.SUPERSEDED,
            Reason.SUPERSEDED,
            o,
            f"version {o.target.version if o.target else ''} is wanted now",
        ),
        "turn back, to end as Superseded",
    ),
    Transition(
        "turning back, and traffic is with what served",
        lambda o: _in(o, State.ROLLING_BACK) and _returned(o),
        lambda o: enter(
            _record(o),
            State(_record(o).status.ending or State.ABORTED),
            _because(o).reason,
            _because(o).message,
            o.now,
        ),
        "end as RolledBack, Aborted or Superseded",
    ),
    Rule(
        "turning back",
        lambda o: _in(o, State.ROLLING_BACK),
        State.ROLLING_BACK,
        _in_the_way_back,
        _bring_back,
        "send all traffic to what served when the rollout began, as its pods are ready",
        after(ASK_GATEWAY),
    ),
    Transition(
        "a gate has ended",
        _gate_ended,
        _note_gate,
        "write its result down",
    ),
    Transition(
        "a gate has refused the candidate",
        lambda o: _in(o, State.GATING, State.HOLDING) and _gate_result(o) is Outcome.FAIL,
        lambda o: _turn(State.ROLLED_BACK, Reason.GATE_FAILED, o, _gate_text(o).message),
        "turn back: no caller's request has reached it",
    ),
    Transition(
        "the deadline has passed, and a metric has failed or the candidate's pods fail",
        lambda o: _over_deadline(o) and (_failed(o) or _pods_fail(o)),
        lambda o: _turn(State.ROLLED_BACK, Reason.DEADLINE_EXCEEDED, o, _deadline_text(o)),
        "turn back",
    ),
    Transition(
        "the deadline has passed, and a gate or the step's metrics have decided nothing",
        lambda o: _over_deadline(o) and (_gate_undecided(o) or _step_undecided(o)),
        lambda o: _turn(State.ABORTED, Reason.INCONCLUSIVE, o, _undecided_text(o)),
        "turn back, to end as Aborted: nothing was found against the candidate",
    ),
    Transition(
        "the deadline has passed",
        _over_deadline,
        lambda o: _turn(State.ABORTED, Reason.DEADLINE_EXCEEDED, o, _deadline_text(o)),
        "turn back, to end as Aborted: nothing was found against the candidate",
    ),
    Transition(
        "a metric has failed, and the policy rolls back on failure",
        lambda o: _exposed(o) and _failed(o) and _rolling(o).policy.on_failure == "Rollback",
        lambda o: _turn(State.ROLLED_BACK, Reason.ANALYSIS_FAILED, o, _verdicts(o, Outcome.FAIL)),
        "turn back",
    ),
    Transition(
        "the candidate takes requests, and neither it nor what served has a ready pod",
        lambda o: _lost_its_pods(o) and not _record(o).by_hand and _source_lost_too(o) and not _pods_fail(o),
        lambda o: _turn(State.ABORTED, Reason.CANDIDATE_UNAVAILABLE, o, _all_lost_text(o)),
        "turn back, to end as Aborted: nothing was found against the candidate",
    ),
    Transition(
        "the candidate takes requests and has no ready pod",
        lambda o: _lost_its_pods(o) and not _record(o).by_hand,
        lambda o: _turn(State.ROLLED_BACK, Reason.CANDIDATE_UNAVAILABLE, o, _lost_text(o)),
        "turn back",
    ),
    Rule(
        "a rollback by hand takes requests and has no ready pod",
        lambda o: _lost_its_pods(o) and _ready(o, _record(o).source, 1),
        State.PROMOTING,
        lambda o: _pods_missing(o, o.replicas),
        lambda o: (*_bring_back(o), *(() if _planned(o) else (Run(_candidate(o)),))),
        "send all traffic to what served, until its pods are ready",
        after(WATCH_PODS),
    ),
    Rule(
        "the policy that it began with can't be read",
        lambda o: o.live is not None and _rolling(o).unread is not None and not _in(o, State.PROMOTING),
        State.HOLDING,
        lambda o: _rolling(o).unread or Problem(Reason.INVALID_POLICY, ""),
        _as_they_are,
        "keep pods and traffic as they are, for a person, until the deadline",
        _look,
    ),
    Transition(
        "a person has rejected it",
        lambda o: _awaits_approval(o) and _rejected(o),
        lambda o: _turn(State.ROLLED_BACK, Reason.APPROVAL_REJECTED, o, _waiting_text(o).message),
        "turn back",
    ),
    Transition(
        "not enough people have approved in time",
        lambda o: (
            _awaits_approval(o)
            and _in(o, State.AWAITING_APPROVAL)
            and not _approved(o)
            and _record(o).status.since is not None
            and o.now - (_record(o).status.since or o.now) >= _approval_timeout(o)
        ),
        lambda o: _turn(State.ABORTED, Reason.APPROVAL_TIMEOUT, o, _waiting_text(o).message),
        "turn back, to end as Aborted: nothing was found against the candidate",
    ),
    Transition(
        "recreate: the candidate was not ready in time, and its pods fail",
        lambda o: _recreate_timeout(o) and _pods_fail(o),
        lambda o: _turn(State.ROLLED_BACK, Reason.START_TIMEOUT, o, _pods_missing(o, o.replicas).message),
        "turn back: stop the candidate, start the old revision again",
    ),
    Transition(
        "recreate: the candidate was not ready in time",
        _recreate_timeout,
        lambda o: _turn(State.ABORTED, Reason.START_TIMEOUT, o, _pods_missing(o, o.replicas).message),
        "turn back in the same way, to end as Aborted: nothing was found against the candidate",
    ),
    Transition(
        "traffic is as the step wants it for the first time",
        lambda o: (
            _stepping(o)
            and not _confirmed(o)
            and not _failed(o)
            and o.traffic.confirmed
            and _goes(o, _routing(o, _step(o)))
            and _at_size(o)
        ),
        lambda o: confirm_step(_record(o), o.now),
        "count hold and evidence from now",
    ),
    Rule(
        "a person has paused it",
        lambda o: o.live is not None and bool(o.live.status.paused) and o.live.state is not State.PROMOTING,
        State.HOLDING,
        lambda _: Problem(Reason.PAUSED, "paused; the command resume lets it go on"),
        _keep_step,
        "keep the step, watch its metrics",
        _look,
    ),
    Transition(
        "its policy can't be followed, and nothing has begun",
        lambda o: _in(o, State.PENDING) and _unfit(o) is not None,
        _end_unfit,
        "end it: the next one begins when the policy can be followed",
    ),
    Rule(
        "a freeze window is open, and nothing has begun",
        lambda o: _frozen(o) and _in(o, State.PENDING),
        State.PENDING,
        _freeze_text,
        _make_room,
        "wait for the end of the window",
        after(LOOK_SELDOM),
    ),
    Rule(
        "a freeze window is open in the middle of a rollout",
        _frozen,
        State.HOLDING,
        _freeze_text,
        _keep_step,
        "keep the step, watch its metrics",
        _look,
    ),
    Rule(
        "the target can't be had in the middle of a rollout",
        lambda o: o.live is not None and (o.target is None or o.problem is not None) and not _in(o, State.PROMOTING),
        State.HOLDING,
        lambda o: o.problem or Problem(Reason.WAITING_FOR_VERSION, "no version to serve yet"),
        _keep_step,
        "keep the step, watch its metrics",
        _look,
    ),
    Rule(
        "an earlier candidate has not left yet",
        lambda o: _in(o, State.PENDING) and not _fast(o) and _record(o).source is not None and _behind(o),
        State.PENDING,
        lambda _: Problem(Reason.WAITING_FOR_TRAFFIC, "an earlier candidate is on its way out"),
        _make_room,
        "send all traffic to what serves, remove what is left over",
        after(ASK_GATEWAY),
    ),
    Transition(
        "nothing stands in the way, and gates are asked for",
        lambda o: _in(o, State.PENDING) and _next_gate(o) is not None,
        lambda o: enter(_record(o), State.GATING, Reason.GATE_RUNNING, f"gate {_next_gate(o)}", o.now),
        "begin with the gates",
    ),
    Transition(
        "a gate has decided nothing, and the policy rolls back then",
        lambda o: _gate_undecided(o) and _rolling(o).policy.on_inconclusive == "Rollback",
        lambda o: _turn(State.ABORTED, Reason.INCONCLUSIVE, o, _gate_text(o).message),
        "turn back, to end as Aborted: nothing was found against the candidate",
    ),
    Rule(
        "a gate has decided nothing",
        _gate_undecided,
        State.HOLDING,
        lambda o: _gate_text(o),
        lambda o: (*_keep_source(o), *_send_to_source(o)),
        "hold for a person until the deadline",
        after(LOOK_SELDOM),
    ),
    Transition(
        "enough people have approved before any caller's request",
        lambda o: _awaits_approval(o) and _record(o).status.step is None and _approved(o),
        _pass_approval_gate,
        "write their names down",
    ),
    Rule(
        "people have to approve before any caller's request",
        lambda o: _awaits_approval(o) and _record(o).status.step is None,
        State.AWAITING_APPROVAL,
        _waiting_text,
        lambda o: (*_keep_source(o), *_send_to_source(o)),
        "keep what serves, wait",
        after(LOOK_SELDOM),
    ),
    Rule(
        "a gate is to be passed",
        lambda o: _in(o, State.GATING, State.HOLDING) and _record(o).status.step is None and _next_gate(o) is not None,
        State.GATING,
        lambda o: _gate_text(o),
        _run_gate,
        "run the gate's Job; for infra, one pod of the candidate",
        after(WATCH_PODS),
    ),
    Transition(
        "no gate is left to pass",
        lambda o: (
            _in(o, State.PENDING, State.GATING, State.AWAITING_APPROVAL, State.HOLDING)
            and _record(o).status.step is None
            and not _recreating(o)
        ),
        _start,
        "begin with the first step; promote at once where there are none",
    ),
    Rule(
        "recreate: the old revision still has pods",
        lambda o: _recreating(o) and bool(_pods_of(o, _record(o).source)),
        State.PROGRESSING,
        lambda _: Problem(Reason.STOPPING_PREVIOUS, "the old revision stops before the new one starts"),
        _stop_source,
        "stop the old revision",
        after(ASK_GATEWAY),
    ),
    Rule(
        "recreate: the candidate's pods are not all ready",
        lambda o: _recreating(o) and not _ready(o, _record(o).to, o.replicas),
        State.PROGRESSING,
        lambda o: _pods_missing(o, o.replicas),
        _promote_when_ready,
        "run the candidate",
        after(WATCH_PODS),
    ),
    Transition(
        "recreate: the candidate's pods are ready",
        _recreating,
        lambda o: enter(_record(o), State.PROMOTING, Reason.PROMOTED, "the candidate is ready", o.now),
        "promote it",
    ),
    Rule(
        "a metric has failed between two steps, and the policy holds on failure",
        lambda o: _exposed(o) and _between_steps(o) and _failed(o),
        State.HOLDING,
        lambda o: Problem(Reason.ANALYSIS_FAILED, _verdicts(o, Outcome.FAIL), stalled=True),
        _stay,
        "hold for a person until the deadline; traffic stays as it is",
        _look,
    ),
    Transition(
        "the step is the promotion itself",
        lambda o: _stepping(o) and _step(o).last,
        lambda o: enter(_record(o), State.PROMOTING, Reason.PROMOTED, "every step has passed", o.now),
        "promote",
    ),
    Rule(
        "the candidate's pods for the step are not all ready",
        lambda o: _stepping(o) and not _confirmed(o) and not _has_pods(o, _step(o)),
        State.PROGRESSING,
        lambda o: _pods_missing(o, _needs(o, _step(o))),
        _approach_step,
        "run as many as the step's share needs; traffic stays as it is, or follows what pods there is room for",
        after(WATCH_PODS),
    ),
    Rule(
        "the step mirrors requests, and the comparer is not ready",
        lambda o: _stepping(o) and _step(o).mirror > 0 and not _confirmed(o) and not _rolling(o).comparer_ready,
        State.PROGRESSING,
        lambda _: Problem(Reason.WAITING_FOR_PODS, "the comparer's pod is starting"),
        _keep_step,
        "run the comparer",
        after(WATCH_PODS),
    ),
    Rule(
        "traffic is not as the step wants it",
        lambda o: _stepping(o) and not _goes(o, _routing(o, _step(o))),
        State.PROGRESSING,
        _switching,
        _set_step,
        "set traffic as the step wants it",
        after(ASK_GATEWAY),
    ),
    Rule(
        "the gateway has not been seen to follow the step",
        lambda o: _stepping(o) and not o.traffic.confirmed,
        State.PROGRESSING,
        _switching,
        _set_step,
        "ask the gateway again",
        after(ASK_GATEWAY),
    ),
    Transition(
        "the A/B test is over, and the candidate has won",
        lambda o: (
            _stepping(o)
            and _step(o).kind is StepKind.AB_TEST
            and _past_hold(o)
            and _rolling(o).wins is True
            and _enough(o)
        ),
        _next,
        "promote it",
    ),
    Transition(
        "the A/B test is over, and the candidate has not won",
        lambda o: _stepping(o) and _step(o).kind is StepKind.AB_TEST and _past_hold(o) and _rolling(o).wins is False,
        lambda o: _turn(State.ABORTED, Reason.AB_TEST_LOST, o, _rolling(o).test_text),
        "turn back, to end as Aborted: not to have won is no harm",
    ),
    Transition(
        "the hold is over, the evidence is there, and enough people have approved",
        lambda o: (
            _stepping(o)
            and _step(o).kind is not StepKind.AB_TEST
            and _past_hold(o)
            and _enough(o)
            and (_step(o).kind is not StepKind.APPROVAL or _approved(o))
        ),
        _next,
        "go on to the next step, after the last one to the promotion",
    ),
    Transition(
        "the hold is over, the evidence decides nothing, and the policy rolls back then",
        lambda o: (
            _stepping(o)
            and _past_hold(o)
            and _looked_on(o)
            and _rolling(o).outcome in (Outcome.INCONCLUSIVE, Outcome.ERROR)
            and _rolling(o).policy.on_inconclusive == "Rollback"
            and _step(o).kind is not StepKind.APPROVAL
        ),
        lambda o: _turn(State.ABORTED, Reason.INCONCLUSIVE, o, _undecided(o).message),
        "turn back, to end as Aborted: nothing was found against the candidate",
    ),
    Rule(
        "a metric has failed, and the policy holds on failure",
        lambda o: _stepping(o) and _rolling(o).outcome is Outcome.FAIL,
        State.HOLDING,
        lambda o: Problem(Reason.ANALYSIS_FAILED, _verdicts(o, Outcome.FAIL), stalled=True),
        _set_step,
        "hold for a person until the deadline",
        _look,
    ),
    Rule(
        "the step waits for people",
        lambda o: _stepping(o) and _step(o).kind is StepKind.APPROVAL and not _approved(o),
        State.AWAITING_APPROVAL,
        _waiting_text,
        _set_step,
        "keep the step, watch its metrics",
        _look,
    ),
    Rule(
        "the step's hold is not over, or the look after it has not come back",
        lambda o: _stepping(o) and not (_past_hold(o) and _looked_on(o)),
        State.PROGRESSING,
        _going,
        _set_step,
        "keep the step, watch its metrics",
        _look,
    ),
    Rule(
        "the hold is over, and the evidence decides nothing yet",
        _stepping,
        State.HOLDING,
        _undecided,
        _set_step,
        "hold until it does, or until the deadline",
        _look,
    ),
    Transition(
        "the candidate was promoted, and it serves",
        lambda o: (
            _in(o, State.PROMOTING)
            and o.serving is not None
            and o.serving.revision.hash == _candidate(o).hash
            and _goes(o, Routing.to(_candidate(o)))
            and o.traffic.confirmed
        ),
        _succeed,
        "end as Succeeded",
    ),
    Rule(
        "promoting, and the candidate's pods are not all ready",
        lambda o: _in(o, State.PROMOTING) and not _ready(o, _record(o).to, o.replicas),
        State.PROMOTING,
        lambda o: _pods_missing(o, o.replicas),
        _promote_when_ready,
        "bring it to full size; traffic stays as it is",
        after(WATCH_PODS),
    ),
    Rule(
        "promoting",
        lambda o: _in(o, State.PROMOTING),
        State.PROMOTING,
        _taking_over,
        _promote,
        "send all traffic to the candidate, whose pods are those that were the canary",
        after(ASK_GATEWAY),
    ),
    _taken_back_in(State.ROLLED_BACK),
    _taken_back_in(State.ABORTED),
    Rule(
        "a person's rollback holds the Model",
        lambda o: o.record is not None and o.record.holds and not o.record.live and o.target_serves,
        State.SUCCEEDED,
        _held,
        direct.keep,
        "keep it there",
    ),
    Rule(
        "the policy can't be followed, and another revision is wanted",
        lambda o: _wants_another(o) and _rolling(o).problem is not None,
        State.PENDING,
        lambda o: _rolling(o).problem or Problem(Reason.WAITING_FOR_POLICY, ""),
        lambda o: (*direct.keep_named(o), *direct.sweep(o)),
        "keep what serves",
        after(LOOK_SELDOM),
    ),
    Rule(
        "another revision is wanted",
        lambda o: _wants_another(o),
        State.PENDING,
        lambda o: Problem(Reason.ROLLOUT_IN_PROGRESS, f"a rollout to version {o.target.version if o.target else ''}"),
        _begin,
        "make a ModelRollout",
        after(ASK_GATEWAY),
    ),
    Rule(
        "the target serves, and the previous revision is kept for going back",
        lambda o: (
            o.rolling is not None
            and o.target_serves
            and o.traffic.confirmed
            and bool(o.leftovers)
            and o.patience > o.settle
            and o.target_ready
        ),
        State.SUCCEEDED,
        _previous_kept,
        direct.keep,
        "keep both; remove the previous one after keepPrevious",
        lambda o: max(min((o.leaves_at(r) or o.now for r in o.leftovers), default=o.now) - o.now, ASK_GATEWAY),
    ),
)


def _wants_another(o: Observed) -> bool:
    return (
        o.rolling is not None
        and o.rolling.led
        and o.live is None
        and o.target is not None
        and o.problem is None
        and (o.serving is None or o.serving.revision.hash != o.target.hash)
    )


def _gate_text(o: Observed) -> Problem:
    gate = _next_gate(o)
    found = next((entry for entry in _record(o).status.gates if entry.name == gate), None)
    if found is not None:
        return Problem(Reason.GATE_FAILED, f"gate {gate}: {found.message}")
    unproven = _rolling(o).unproven
    if unproven is not None and unproven.stalled:
        return Problem(unproven.reason, f"gate {gate} does not count: {unproven.message}", stalled=True)
    return Problem(Reason.GATE_RUNNING, f"gate {gate} is being looked at")
