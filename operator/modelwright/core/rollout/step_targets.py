"""Pods and traffic that a step asks for, and whether they are there."""

from __future__ import annotations

import math

from modelwright.api.v1alpha1.policy import RolloutPolicySpec
from modelwright.core.revision import Revision
from modelwright.core.rollout.capacity import CapacityPlan, PodCounts, plan_capacity, replica_pods
from modelwright.core.rollout.lookups import (
    candidate_weight,
    current_step,
    has_ready_pods,
    is_recreate,
    require_candidate,
    require_record,
    revision_view,
    rollout_input,
)
from modelwright.core.rollout.observation import Observation
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.rollout.steps import RolloutStep
from modelwright.core.rollout.traffic_split import TrafficShare, TrafficSplit


def pods_for_step(o: Observation, step: RolloutStep) -> int:
    """Pods that the candidate must have before the step's traffic is all there."""
    full = o.replicas
    if full == 0:
        return 0
    if rollout_input(o).replica_weighted and 0 < step.weight < 100:
        return replica_pods(full, step.weight, _pod_budget(o))[0]
    if step.weight:
        return max(1, math.ceil(full * step.load_percent / 100))
    # Without requests that count, it may do with fewer pods than its share where there is no room for more.
    wanted = max(1, math.ceil(full * step.load_percent / 100))
    surge = rollout_input(o).surge
    return wanted if surge is None else max(1, min(wanted, surge))


def _pod_budget(o: Observation) -> int:
    surge = rollout_input(o).surge
    return o.replicas + (o.replicas if surge is None else surge)


def needs_capacity_plan(o: Observation) -> bool:
    """Pods and weight have to move in turns: there is no room for both revisions at full size, or pods make the
    weights."""
    surge = rollout_input(o).surge
    return o.replicas > 0 and (rollout_input(o).replica_weighted or (surge is not None and surge < o.replicas))


def plan_pods(o: Observation, wish: int, least: int = 0) -> CapacityPlan:
    record = require_record(o)
    candidate, serving = (
        PodCounts(view.replicas or 0, view.available) if view is not None else PodCounts(0, 0)
        for view in (revision_view(o, record.candidate), revision_view(o, record.from_revision))
    )
    return plan_capacity(
        o.replicas,
        _pod_budget(o) - o.replicas,
        wish,
        candidate,
        serving,
        candidate_weight(o),
        "replicas" if rollout_input(o).replica_weighted else "gateway",
        least=least,
    )


def step_pods(o: Observation, step: RolloutStep) -> tuple[int, int]:
    """Pods of the candidate and of the serving revision to ask for now."""
    if not needs_capacity_plan(o) or require_record(o).from_revision is None:
        return pods_for_step(o, step), o.replicas
    found = plan_pods(o, step.weight, 0 if step.weight else pods_for_step(o, step))
    return found.candidate_replicas, found.serving_replicas


def baseline_revision(policy: RolloutPolicySpec, record: RolloutRecord, step: RolloutStep) -> Revision | None:
    """The fresh pods of the serving revision that the candidate is judged beside in a step; None without."""
    fresh = policy.analysis is not None and policy.analysis.baseline == "Fresh"
    return record.baseline if fresh and 0 < step.weight <= 50 and not step.mirror else None


def fresh_baseline(o: Observation, step: RolloutStep) -> Revision | None:
    return baseline_revision(rollout_input(o).policy, require_record(o), step)


def step_split(o: Observation, step: RolloutStep, weight: int | None = None) -> TrafficSplit:
    """How traffic is to be during a step; with `weight`, on the way there."""
    source, to = require_record(o).from_revision, require_candidate(o)
    share = step.weight if weight is None else weight
    if source is None:
        return TrafficSplit.all_to(to)
    if share == 0 and not step.mirror and not step.match:
        return TrafficSplit.all_to(source)
    if rollout_input(o).replica_weighted:
        if share == 100:
            return TrafficSplit.all_to(to)
        return TrafficSplit((TrafficShare(source, 100 - share), TrafficShare(to, share)))
    shares = [TrafficShare(source, 100 - share), TrafficShare(to, share)]
    fresh = fresh_baseline(o, step)
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


def traffic_matches(o: Observation, routing: TrafficSplit) -> bool:
    """Whether the live objects say so already."""
    traffic = o.traffic
    if traffic.named != routing.revision_hashes or traffic.mirror != routing.mirror_percent:
        return False
    if traffic.mirror and traffic.stale_token:
        return False
    if (traffic.matched or None) != (routing.matched.hash if routing.matched else None):
        return False
    if rollout_input(o).replica_weighted and routing.service_revision is None:
        return True
    return dict(traffic.weights) == dict(routing.weights) and traffic.sticky == routing.sticky


def traffic_returned(o: Observation) -> bool:
    """Traffic is back with what served when the rollout began, or there was nothing to go back to."""
    source = require_record(o).from_revision
    if source is None:
        return True
    if not (traffic_matches(o, TrafficSplit.all_to(source)) and o.traffic.confirmed):
        return False
    return not is_recreate(o) or has_ready_pods(o, source, o.replicas)


def step_is_ready(o: Observation) -> bool:
    """Everything that the step needs beside traffic is there."""
    step = current_step(o)
    return has_step_pods(o, step) and (not step.mirror or rollout_input(o).comparer_ready)


def has_step_pods(o: Observation, step: RolloutStep) -> bool:
    """The candidate's pods for a step are ready, and so are those it is judged beside."""
    needed, fresh = pods_for_step(o, step), fresh_baseline(o, step)
    return has_ready_pods(o, require_record(o).candidate, needed) and (
        fresh is None or has_ready_pods(o, fresh, needed)
    )
