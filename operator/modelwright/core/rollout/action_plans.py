"""Builds the actions of a row from an observation."""

from __future__ import annotations

from modelwright.core.rollout.actions import (
    Action,
    EnsureComparer,
    EnsureRevision,
    RemoveRevision,
    RunGate,
    SetTraffic,
    StartRollout,
)
from modelwright.core.rollout.gate_predicates import next_gate
from modelwright.core.rollout.lookups import (
    count_pods,
    current_step,
    has_ready_pods,
    is_recreate,
    require_candidate,
    require_record,
    revision_view,
    rollout_input,
)
from modelwright.core.rollout.observation import Observation
from modelwright.core.rollout.step_targets import fresh_baseline, needs_capacity_plan, plan_pods, step_pods, step_split
from modelwright.core.rollout.steps import RolloutStep, StepKind
from modelwright.core.rollout.traffic_split import TrafficSplit


def ensure_source(o: Observation) -> tuple[Action, ...]:
    source = require_record(o).from_revision
    return (EnsureRevision(source),) if source is not None else ()


def keep_step(o: Observation) -> tuple[Action, ...]:
    """Keep the pods of the current step, and the traffic as it is."""
    record = require_record(o)
    if record.status.step is None:
        return (*ensure_source(o), *route_to_source(o))
    candidate, serving = step_pods(o, current_step(o))
    source = (EnsureRevision(record.from_revision, serving),) if record.from_revision is not None else ()
    fresh = fresh_baseline(o, current_step(o))
    baseline = (EnsureRevision(fresh, candidate),) if fresh is not None else ()
    return (*source, *baseline, EnsureRevision(require_candidate(o), candidate), *_ensure_comparer(o))


def hold_step(o: Observation) -> tuple[Action, ...]:
    """Keep the traffic as it is and, where pods and traffic move in turns, the pods too."""
    if not needs_capacity_plan(o):
        return keep_step(o)
    return hold_pods(o)


def hold_pods(o: Observation) -> tuple[Action, ...]:
    """Keep the pods of both revisions and the traffic as they are."""
    views = (revision_view(o, revision) for revision in (require_record(o).from_revision, require_record(o).candidate))
    return tuple(
        EnsureRevision(view.revision, view.replicas) for view in views if view is not None and view.replicas is not None
    )


def approach_step(o: Observation) -> tuple[Action, ...]:
    """Start the pods of a step before its traffic; without room for both revisions at full size, move traffic as far as
    the pods carry it."""
    step = current_step(o)
    if (
        not needs_capacity_plan(o)
        or rollout_input(o).replica_weighted
        or require_record(o).from_revision is None
        or not step.weight
    ):
        return keep_step(o)
    return (*keep_step(o), SetTraffic(step_split(o, step, plan_pods(o, step.weight).weight)))


def _ensure_comparer(o: Observation) -> tuple[Action, ...]:
    record = require_record(o)
    if record.from_revision is None or not current_step(o).mirror:
        return ()
    return (EnsureComparer(record.from_revision, require_candidate(o)),)


def route_to_source(o: Observation) -> tuple[Action, ...]:
    source = require_record(o).from_revision
    return (SetTraffic(TrafficSplit.all_to(source)),) if source is not None else ()


def apply_step(o: Observation) -> tuple[Action, ...]:
    return (*keep_step(o), SetTraffic(step_split(o, current_step(o))))


def return_to_source(o: Observation) -> tuple[Action, ...]:
    """Return all traffic to the revision that served before, as far as its ready pods carry it."""
    record, source = require_record(o), require_record(o).from_revision
    assert source is not None  # noqa: S101 - without one the rollback has ended already
    if is_recreate(o):
        if count_pods(o, record.candidate):
            return (EnsureRevision(require_candidate(o), 0),)
        return (EnsureRevision(source), *route_to_source(o))
    if not needs_capacity_plan(o) or record.candidate is None:
        # Traffic first: it must not wait for another write that fails.
        return (*route_to_source(o), EnsureRevision(source))
    back = plan_pods(o, 0)
    pods = (
        EnsureRevision(source, back.serving_replicas),
        *((EnsureRevision(record.candidate, back.candidate_replicas),) if count_pods(o, record.candidate) else ()),
    )
    if back.weight == 0 or has_ready_pods(o, source, o.replicas):
        return (*route_to_source(o), *pods)
    return (SetTraffic(step_split(o, RolloutStep(StepKind.WEIGHT, weight=back.weight))), *pods)


def remove_earlier_candidate(o: Observation) -> tuple[Action, ...]:
    """Return traffic to the serving revision, and remove the pods of an earlier candidate, Deployments last."""
    removals = (
        RemoveRevision(obsolete.revision, pods_only=bool(count_pods(o, obsolete.revision)))
        for obsolete in remove_obsolete(o)
    )
    return (*ensure_source(o), *route_to_source(o), *removals)


def prepare_promotion(o: Observation) -> tuple[Action, ...]:
    """Bring the candidate to full size; where pods and traffic move in turns, move traffic along."""
    record = require_record(o)
    if record.from_revision is None:
        # No revision serves yet: the route comes first, so that a rejected one shows at once.
        return (EnsureRevision(require_candidate(o)), SetTraffic(TrafficSplit.all_to(require_candidate(o))))
    if is_recreate(o):
        return (EnsureRevision(record.from_revision, 0), EnsureRevision(require_candidate(o)))
    if needs_capacity_plan(o) and rollout_input(o).surge is not None:
        ahead = plan_pods(o, 100)
        pods = (
            EnsureRevision(record.from_revision, ahead.serving_replicas),
            EnsureRevision(require_candidate(o), ahead.candidate_replicas),
        )
        if rollout_input(o).replica_weighted and not has_ready_pods(o, record.candidate, 1):
            return pods
        # Weighted by pods, any share but 0 and 100 lets the Service select all of them.
        share = min(max(ahead.weight, 1), 99) if rollout_input(o).replica_weighted else ahead.weight
        return (*pods, SetTraffic(step_split(o, RolloutStep(StepKind.WEIGHT, weight=100), share)))
    return (*ensure_source(o), EnsureRevision(require_candidate(o)))


def promote_candidate(o: Observation) -> tuple[Action, ...]:
    source = () if is_recreate(o) or needs_capacity_plan(o) else ensure_source(o)
    return (*source, EnsureRevision(require_candidate(o)), SetTraffic(TrafficSplit.all_to(require_candidate(o))))


def stop_source(o: Observation) -> tuple[Action, ...]:
    source = require_record(o).from_revision
    return (EnsureRevision(source, 0),) if source is not None else ()


def run_gate(o: Observation) -> tuple[Action, ...]:
    gate = next_gate(o)
    assert gate is not None  # noqa: S101
    if gate != "infra":
        return (*ensure_source(o), *route_to_source(o), RunGate(gate))
    pod = EnsureRevision(require_candidate(o), min(1, o.replicas))
    job = (RunGate(gate),) if has_ready_pods(o, require_candidate(o), 1) else ()
    return (*ensure_source(o), *route_to_source(o), pod, *job)


def start_rollout(o: Observation) -> tuple[Action, ...]:
    return (*keep_routed_revisions(o), StartRollout(rollout_input(o).next_number))


def keep_routed_revisions(observed: Observation) -> tuple[Action, ...]:
    """Keep the revisions that receive requests now as they are stored, even if the version or runtime is gone; and the
    traffic to the fallback revision."""
    hashes = set(observed.traffic.named)
    fallback = observed.fallback_revision
    if fallback is not None:
        hashes.add(fallback.hash)
    kept = [EnsureRevision(observed.revisions[key].revision) for key in sorted(hashes) if key in observed.revisions]
    return (*kept, SetTraffic(TrafficSplit.all_to(fallback))) if fallback is not None else tuple(kept)


def _keep_other_revisions(observed: Observation) -> tuple[Action, ...]:
    return tuple(action for action in keep_routed_revisions(observed) if action != _ensure_target(observed))


def _ensure_other_revisions(observed: Observation) -> tuple[Action, ...]:
    return tuple(action for action in _keep_other_revisions(observed) if isinstance(action, EnsureRevision))


def remove_obsolete(observed: Observation) -> tuple[RemoveRevision, ...]:
    """Remove obsolete revisions, once traffic has left them for their retention time; at once if none ever served."""
    if observed.never_served:
        return tuple(RemoveRevision(revision) for revision in observed.obsolete_revisions)
    times = ((revision, observed.removable_at(revision)) for revision in observed.obsolete_revisions)
    return tuple(RemoveRevision(revision) for revision, time in times if time is not None and time <= observed.now)


def _ensure_target(observed: Observation) -> EnsureRevision:
    assert observed.target is not None  # noqa: S101 - an earlier row applies without a target
    return EnsureRevision(observed.target)


def _route_to_target(observed: Observation) -> SetTraffic:
    assert observed.target is not None  # noqa: S101 - an earlier row applies without a target
    return SetTraffic(TrafficSplit.all_to(observed.target))


def start_target(observed: Observation) -> tuple[Action, ...]:
    if observed.never_served:
        # No other revision serves: naming the target early shows a taken name or a rejected route at once, and callers
        # get "unavailable" rather than "not found".
        return (_ensure_target(observed), _route_to_target(observed), *remove_obsolete(observed))
    return (*_keep_other_revisions(observed), _ensure_target(observed), *remove_obsolete(observed))


def switch_to_target(observed: Observation) -> tuple[Action, ...]:
    return (*_ensure_other_revisions(observed), _ensure_target(observed), _route_to_target(observed))


def maintain_target(observed: Observation) -> tuple[Action, ...]:
    return (*switch_to_target(observed), *remove_obsolete(observed))
