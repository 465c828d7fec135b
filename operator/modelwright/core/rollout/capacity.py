"""Plans the number of pods of each revision in a rollout, and the weight that the ready pods can carry.

Weight follows readiness in both directions: a step forward waits for the candidate's pods, and so does the way back for
those of the serving revision if it was scaled down (requested in argo-rollouts#3888). Pods are removed only once the
weight has left them, and added only if the budget has room now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

WeightedBy = Literal["gateway", "replicas"]


@dataclass(frozen=True, slots=True)
class PodCounts:
    """Numbers of a revision's pods: `requested` by its Deployment, and `ready`."""

    requested: int
    ready: int

    @property
    def budgeted(self) -> int:
        """Pods that count against the budget now, including those that still answer but are to be removed."""
        return max(self.requested, self.ready)


@dataclass(frozen=True, slots=True)
class CapacityPlan:
    """The next numbers of pods, and the next `weight` of the candidate in percent, 0..100; weighted by replicas, the
    achieved one."""

    candidate_replicas: int
    serving_replicas: int
    weight: int


def is_feasible(total: int, surge: int) -> bool:
    """Whether two revisions can serve side by side within the budget, with at least one pod each."""
    return total + surge >= 2


def plan_capacity(
    total: int,
    surge: int,
    wish: int,
    candidate: PodCounts,
    serving: PodCounts,
    weight: int,
    weighted_by: WeightedBy = "gateway",
    *,
    least: int = 0,
) -> CapacityPlan:
    """Plan the next move towards `wish` percent for the candidate; to be repeated until nothing changes.

    `total`: pods needed for all the traffic. `surge`: pods allowed in addition; the sum is the budget. With surge 0
    either revision may be one pod short, since there is no other way; if there is no way at all, `is_feasible` is
    false. `weight`: the one that the gateway follows now. `least`: pods that the candidate keeps without any weight, as
    in a mirror step. The candidate never gets more than the larger of `weight` and `wish`.

    When pods have failed, so that both revisions together can't carry the traffic, the candidate's weight drops at once
    to its share of the ready pods; without a ready pod of its own, to 0, whether the serving revision is ready or not.
    """
    slack = 1 if surge <= 0 else 0
    if weighted_by == "replicas":
        return _plan_by_replicas(total, total + max(surge, 0), slack, wish, candidate, serving)
    budget = total + max(surge, 0)
    moved = _next_weight(total, slack, wish, candidate, serving, weight)
    # Until the gateway follows, either side must be able to carry the larger of the old and the new share.
    keep_candidate = max(_minimum_pods(total, slack, max(weight, moved)), least)
    keep_serving = _minimum_pods(total, slack, 100 - min(weight, moved))
    goal = max(_pods_for_weight(total, wish), least)
    if slack and 0 < wish < 100:
        goal = min(goal, total - 1)
    goal = max(goal, keep_candidate)
    if wish >= weight:
        serves = max(keep_serving, min(total, budget - goal))
        goal = _fit_in_budget(goal, candidate, serves, serving, budget)
        return CapacityPlan(goal, _fit_in_budget(serves, serving, goal, candidate, budget), moved)
    serves = _fit_in_budget(total, serving, goal, candidate, budget)
    return CapacityPlan(_fit_in_budget(goal, candidate, serves, serving, budget), serves, moved)


def _next_weight(total: int, slack: int, wish: int, candidate: PodCounts, serving: PodCounts, weight: int) -> int:
    most = _carried_percent(total, slack, candidate.ready)
    fewest = 100 - _carried_percent(total, slack, serving.ready)
    if candidate.ready and fewest <= most:
        return min(max(fewest, min(wish, most)), max(weight, wish))
    return min(weight, achieved_weight(candidate.ready, serving.ready))


def _pods_for_weight(total: int, weight: int) -> int:
    """Return the number of pods needed for `weight` percent of the requests."""
    return -(-total * weight // 100)


def _minimum_pods(total: int, slack: int, weight: int) -> int:
    """Return the minimum number of pods that may remain with `weight` percent."""
    return max(1, _pods_for_weight(total, weight) - slack) if weight > 0 else 0


def _carried_percent(total: int, slack: int, ready: int) -> int:
    """Return the percent of the requests that `ready` pods carry, rounded up."""
    if ready <= 0:
        return 0
    return 100 if ready + slack >= total else -(-100 * (ready + slack) // total)


def _fit_in_budget(wanted: int, pods: PodCounts, others: int, other: PodCounts, budget: int) -> int:
    """Limit `wanted` pods to the room that the budget has beside the pods of the other revision; as many as the
    Deployment requests now are always allowed."""
    return min(wanted, max(pods.requested, budget - max(others, other.budgeted)))


def _plan_by_replicas(
    total: int, budget: int, slack: int, wish: int, candidate: PodCounts, serving: PodCounts
) -> CapacityPlan:
    goal, serves = replica_pods(total, wish, budget)
    # The revision that loses pods waits for the pods that replace them.
    goal = max(goal, min(candidate.ready, total - slack - serving.ready))
    serves = max(serves, min(serving.ready, total - slack - candidate.ready))
    return CapacityPlan(
        _fit_in_budget(goal, candidate, serves, serving, budget),
        _fit_in_budget(serves, serving, goal, candidate, budget),
        achieved_weight(candidate.ready, serving.ready),
    )


def replica_pods(total: int, wish: int, budget: int | None = None) -> tuple[int, int]:
    """Return the numbers of pods (candidate, serving) nearest to `wish` percent for the candidate, 0..100, without a
    gateway. One side stays at `total` if the budget allows; else both share the budget, which is at least `total`."""
    if wish <= 0:
        return 0, total
    if wish >= 100:
        return total, 0
    if wish <= 50:
        pods = max(1, _round_half_up(total * wish, 100 - wish)), total
    else:
        pods = total, max(1, _round_half_up(total * (100 - wish), wish))
    if budget is None or sum(pods) <= budget:
        return pods
    share = min(max(1, _round_half_up(budget * wish, 100)), budget - 1)
    return share, budget - share


def nearest_replica_weight(total: int, wish: int) -> float | None:
    """Return the nearest percentage that pods can make if `wish`, 1..99, is impossible: one side would need less than
    half a pod. None if it is possible, within 1/(2 * total)."""
    small = min(wish, 100 - wish)
    if 2 * total * small >= 100 - small:
        return None
    candidate, serving = replica_pods(total, wish)
    return 100 * candidate / (candidate + serving)


def _round_half_up(numerator: int, denominator: int) -> int:
    """Round half up: round() would round halves to the even neighbour."""
    return (2 * numerator + denominator) // (2 * denominator)


def achieved_weight(candidate_ready: int, serving_ready: int) -> int:
    """Return the candidate's percent of the requests if every ready pod gets the same; 0 if none is ready."""
    pods = candidate_ready + serving_ready
    return _round_half_up(100 * candidate_ready, pods) if pods else 0


def achieved_shares(pods: Mapping[str, int]) -> dict[str, int]:
    """Return the percent of the requests by revision hash if every ready pod gets the same. They sum to 100; those
    without any are left out."""
    total = sum(pods.values())
    if not total:
        return {}
    floors = {key: 100 * count // total for key, count in pods.items() if count}
    # By the largest remainder, then by hash, so that two reconciliations with the same pods agree.
    order = sorted(floors, key=lambda key: (-(100 * pods[key] % total), key))
    for key in order[: 100 - sum(floors.values())]:
        floors[key] += 1
    return {key: weight for key, weight in floors.items() if weight}
