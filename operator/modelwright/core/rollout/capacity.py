"""How many pods each revision of a rollout is to have, and how far its traffic may move with the pods there are."""

from __future__ import annotations

from collections.abc import Mapping


def replica_pods(total: int, wish: int) -> tuple[int, int]:
    """Pods (candidate, serving) whose numbers come nearest to `wish` percent for the candidate, 0..100, without a
    gateway. One side stays at `total`, so that neither is ever short of what all the traffic needs together."""
    if wish <= 0:
        return 0, total
    if wish >= 100:
        return total, 0
    if wish <= 50:
        return max(1, round(total * wish / (100 - wish))), total
    return total, max(1, round(total * (100 - wish) / wish))


def replica_weight(total: int, wish: int) -> float | None:
    """The percentage that `replica_pods` really make, when it is farther than 1/(2 * total) from the wish; None when
    the wish can be had."""
    candidate, serving = replica_pods(total, wish)
    made = 100 * candidate / (candidate + serving) if candidate + serving else 0.0
    return made if abs(made - wish) > 100 / (2 * max(total, 1)) else None


def achieved(candidate_ready: int, serving_ready: int) -> int:
    """Percent of the requests that the candidate gets when every ready pod gets the same; 0 when none is ready."""
    pods = candidate_ready + serving_ready
    return round(100 * candidate_ready / pods) if pods else 0


def achieved_shares(pods: Mapping[str, int]) -> dict[str, int]:
    """Percent of the requests by revision hash, above 0 only, summing to 100, when every ready pod gets the same."""
    total = sum(pods.values())
    if not total:
        return {}
    floors = {key: 100 * count // total for key, count in pods.items() if count}
    # Largest remainder, then by hash, so that two looks at the same pods agree.
    order = sorted(floors, key=lambda key: (-(100 * pods[key] % total), key))
    for key in order[: 100 - sum(floors.values())]:
        floors[key] += 1
    return {key: weight for key, weight in floors.items() if weight}
