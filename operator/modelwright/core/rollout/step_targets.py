"""Pods and traffic (of route and Service) that a step requires, and whether they are in place."""

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
    """Return the number of pods that the candidate needs for the step's traffic."""
    full = o.replicas
    if full == 0:
        return 0
    if rollout_input(o).replica_weighted and 0 < step.weight < 100:
        return replica_pods(full, step.weight, _pod_budget(o))[0]
    pods = max(1, math.ceil(full * step.load_percent / 100))
    surge = rollout_input(o).surge
    # Without a share of the callers' requests, fewer pods are enough if there is no room for more.
    return pods if step.weight or surge is None else max(1, min(pods, surge))


def _pod_budget(o: Observation) -> int:
    surge = rollout_input(o).surge
    return o.replicas + (o.replicas if surge is None else surge)


def needs_capacity_plan(o: Observation) -> bool:
    """Whether pods and weight have to move in turns: there is no room for both revisions at full size, or the numbers
    of pods are the weights."""
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
    """Return the numbers of pods of the candidate and of the serving revision to request now."""
    if not needs_capacity_plan(o) or require_record(o).from_revision is None:
        return pods_for_step(o, step), o.replicas
    planned = plan_pods(o, step.weight, 0 if step.weight else pods_for_step(o, step))
    return planned.candidate_replicas, planned.serving_replicas


def baseline_revision(policy: RolloutPolicySpec, record: RolloutRecord, step: RolloutStep) -> Revision | None:
    """Return the revision of fresh pods with which the candidate is compared in a step; None without such pods."""
    fresh = policy.analysis is not None and policy.analysis.baseline == "Fresh"
    return record.baseline if fresh and 0 < step.weight <= 50 and not step.mirror else None


def fresh_baseline(o: Observation, step: RolloutStep) -> Revision | None:
    return baseline_revision(rollout_input(o).policy, require_record(o), step)


def step_split(o: Observation, step: RolloutStep, weight: int | None = None) -> TrafficSplit:
    """Build the traffic split of a step; with `weight`, an intermediate one on the way to it."""
    source, candidate = require_record(o).from_revision, require_candidate(o)
    share = step.weight if weight is None else weight
    if source is None:
        return TrafficSplit.all_to(candidate)
    if share == 0 and not step.mirror and not step.match:
        return TrafficSplit.all_to(source)
    if rollout_input(o).replica_weighted:
        if share == 100:
            return TrafficSplit.all_to(candidate)
        return TrafficSplit((TrafficShare(source, 100 - share), TrafficShare(candidate, share)))
    shares = [TrafficShare(source, 100 - share), TrafficShare(candidate, share)]
    fresh = fresh_baseline(o, step)
    if fresh is not None:
        shares = [TrafficShare(source, 100 - 2 * share), TrafficShare(fresh, share), TrafficShare(candidate, share)]
    return TrafficSplit(
        shares=tuple(share for share in shares if share.weight > 0),
        match=step.match,
        matched=candidate if step.match else None,
        mirror_percent=step.mirror,
        sticky=step.sticky,
        service_revision=source,
    )


def traffic_matches(o: Observation, split: TrafficSplit) -> bool:
    """Whether the live objects have this traffic split already."""
    traffic = o.traffic
    if traffic.named != split.revision_hashes or traffic.mirror != split.mirror_percent:
        return False
    if traffic.mirror and traffic.stale_token:
        return False
    if (traffic.matched or None) != (split.matched.hash if split.matched else None):
        return False
    if rollout_input(o).replica_weighted and split.service_revision is None:
        return True
    return dict(traffic.weights) == dict(split.weights) and traffic.sticky == split.sticky


def traffic_returned(o: Observation) -> bool:
    """Whether all traffic is back on the revision that served before, or there was none."""
    source = require_record(o).from_revision
    if source is None:
        return True
    if not (traffic_matches(o, TrafficSplit.all_to(source)) and o.traffic.confirmed):
        return False
    return not is_recreate(o) or has_ready_pods(o, source, o.replicas)


def step_is_ready(o: Observation) -> bool:
    """Whether everything that the step needs besides traffic is ready."""
    step = current_step(o)
    return has_step_pods(o, step) and (not step.mirror or rollout_input(o).comparer_ready)


def has_step_pods(o: Observation, step: RolloutStep) -> bool:
    """Whether the candidate's pods for a step are ready, and those with which it is compared."""
    needed, fresh = pods_for_step(o, step), fresh_baseline(o, step)
    return has_ready_pods(o, require_record(o).candidate, needed) and (
        fresh is None or has_ready_pods(o, fresh, needed)
    )
