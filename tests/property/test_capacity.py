"""Pods and weight of a rollout under every budget, wish and failure of pods: never over the budget, never beyond what
pods can carry, and there in the end."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from modelwright.core.rollout.capacity import (
    CapacityPlan,
    PodCounts,
    WeightedBy,
    achieved_shares,
    achieved_weight,
    is_feasible,
    nearest_replica_weight,
    plan_capacity,
    replica_pods,
)

WAYS: tuple[WeightedBy, ...] = ("gateway", "replicas")


@dataclass(frozen=True)
class World:
    """A rollout's pods and weight, as a gateway and two Deployments would have them."""

    total: int
    surge: int
    weighted_by: WeightedBy
    candidate: PodCounts
    serving: PodCounts
    weight: int = 0
    least: int = 0

    @property
    def budget(self) -> int:
        return self.total + self.surge

    @property
    def slack(self) -> int:
        return 0 if self.surge else 1

    def plan(self, wish: int) -> CapacityPlan:
        return plan_capacity(
            self.total, self.surge, wish, self.candidate, self.serving, self.weight, self.weighted_by, least=self.least
        )

    def follow(
        self, planned: CapacityPlan, candidate_ready: int | None = None, serving_ready: int | None = None
    ) -> "World":
        """What is planned is asked for and routed; so many pods (all, when None) become ready."""
        candidate, serving = planned.candidate_replicas, planned.serving_replicas
        return replace(
            self,
            candidate=PodCounts(candidate, candidate if candidate_ready is None else min(candidate, candidate_ready)),
            serving=PodCounts(serving, serving if serving_ready is None else min(serving, serving_ready)),
            weight=planned.weight,
        )

    def carries(self, pods: PodCounts, weight: int) -> bool:
        """Whether there are as many pods as this share of the requests needs, but for less than a percent."""
        return weight == 0 or 100 * (pods.ready + self.slack) > self.total * (weight - 1)


def start(total: int, surge: int, weighted_by: WeightedBy, least: int = 0) -> World:
    return World(total, surge, weighted_by, PodCounts(0, 0), PodCounts(total, total), 0, least)


budgets = st.tuples(st.integers(1, 40), st.integers(0, 40)).filter(lambda budget: is_feasible(*budget))
wishes = st.lists(st.integers(0, 100), min_size=1, max_size=6)


def over(world: World, planned: CapacityPlan) -> bool:
    """Whether there are ever too many pods: those that leave may still be there while others come."""
    candidate = max(world.candidate.budgeted, planned.candidate_replicas)
    return candidate + max(world.serving.budgeted, planned.serving_replicas) > world.budget


def assert_taken_from_what_no_weight_is_on(world: World, planned: CapacityPlan) -> None:
    """The gateway may still follow the weight before this plan: pods only go that this one doesn't need."""
    for asked, pods, weight in (
        (planned.candidate_replicas, world.candidate, world.weight),
        (planned.serving_replicas, world.serving, 100 - world.weight),
    ):
        assert asked >= pods.requested or world.carries(PodCounts(asked, asked), weight)


@given(budgets, wishes, st.sampled_from(WAYS), st.integers(0, 1))
def test_every_wish_is_reached_within_the_budget(
    budget: tuple[int, int], wished: list[int], weighted_by: WeightedBy, least: int
) -> None:
    world = start(*budget, weighted_by, least if weighted_by == "gateway" else 0)
    for wish in wished:
        for _ in range(8 * world.budget + 8):
            planned = world.plan(wish)
            assert not over(world, planned)
            if weighted_by == "gateway":
                assert_taken_from_what_no_weight_is_on(world, planned)
                assert world.carries(world.candidate, planned.weight)
                assert world.carries(world.serving, 100 - planned.weight)
                assert min(world.weight, wish) <= planned.weight <= max(world.weight, wish)
            else:
                assert world.candidate.ready + world.serving.ready >= world.total - world.slack
            before, world = world, world.follow(planned)
            if world == before:
                break
        else:
            raise AssertionError(f"no end: {world}")
        if weighted_by == "gateway":
            assert world.weight == wish
            assert world.candidate.ready >= (1 if wish or world.least else 0)
        else:
            assert (world.candidate.ready, world.serving.ready) == replica_pods(world.total, wish, world.budget)


@given(
    budgets, st.sampled_from(WAYS), st.lists(st.tuples(*(st.integers(0, 100), *(st.integers(0, 80),) * 2)), max_size=20)
)
def test_failing_pods_never_exceed_budget_nor_get_weight(
    budget: tuple[int, int], weighted_by: WeightedBy, moves: list[tuple[int, int, int]]
) -> None:
    world = start(*budget, weighted_by)
    for wish, candidate_ready, serving_ready in moves:
        planned = world.plan(wish)
        assert not over(world, planned)
        if weighted_by == "gateway":
            assert planned.weight <= max(world.weight, wish)
            if planned.weight > world.weight:
                assert world.carries(world.candidate, planned.weight)
            if not world.candidate.ready:
                assert planned.weight == 0
            enough = world.candidate.ready and world.candidate.ready + world.serving.ready >= world.total
            if enough and planned.weight < world.weight:
                assert world.carries(world.serving, 100 - planned.weight)
        world = world.follow(planned, candidate_ready, serving_ready)


@given(budgets, st.integers(1, 100))
def test_return_follows_the_pods_of_the_scaled_down_revision(budget: tuple[int, int], weight: int) -> None:
    total, surge = budget
    world = World(total, surge, "gateway", PodCounts(total, total), PodCounts(0, 0), 100)
    planned = world.plan(0)
    assert planned.weight == 100, "nothing can take the requests yet"
    assert planned.serving_replicas > 0 or planned.candidate_replicas < total
    for _ in range(4 * world.budget + 4):
        world = world.follow(world.plan(0))
    assert (world.weight, world.serving.ready, world.candidate.ready) == (0, total, 0)


@pytest.mark.parametrize("serving_ready", [0, 1, 4])
def test_a_candidate_without_ready_pods_loses_its_weight_at_once(serving_ready: int) -> None:
    assert plan_capacity(4, 1, 0, PodCounts(4, 0), PodCounts(4, serving_ready), 100).weight == 0
    assert plan_capacity(4, 1, 50, PodCounts(2, 0), PodCounts(4, serving_ready), 25).weight == 0


CASES = [
    (
        "a first small step brings up one pod and takes none away",
        (4, 1, 5, PodCounts(0, 0), PodCounts(4, 4), 0),
        (1, 4, 0),
    ),
    ("weight waits for readiness", (4, 1, 5, PodCounts(1, 0), PodCounts(4, 4), 0), (1, 4, 0)),
    ("then moves", (4, 1, 5, PodCounts(1, 1), PodCounts(4, 4), 0), (1, 4, 5)),
    ("a large step goes as far as the pods there are", (4, 4, 100, PodCounts(4, 2), PodCounts(4, 4), 5), (4, 4, 50)),
    (
        "with room for both the serving revision stays whole",
        (4, 4, 100, PodCounts(4, 4), PodCounts(4, 4), 5),
        (4, 4, 100),
    ),
    (
        "with little surge it leaves only what its weight needs not",
        (4, 1, 100, PodCounts(1, 1), PodCounts(4, 4), 25),
        (1, 3, 25),
    ),
    ("and room is used once it is there", (4, 1, 100, PodCounts(1, 1), PodCounts(3, 3), 25), (2, 3, 25)),
    ("pods that still answer count", (4, 1, 100, PodCounts(1, 1), PodCounts(3, 4), 25), (1, 3, 25)),
    ("without surge the serving revision is lowered first", (4, 0, 50, PodCounts(0, 0), PodCounts(4, 4), 0), (0, 3, 0)),
    ("going back asks for pods first", (4, 2, 0, PodCounts(4, 4), PodCounts(1, 1), 100), (4, 2, 75)),
    (
        "a candidate that lost pods keeps what it can carry",
        (4, 4, 100, PodCounts(4, 1), PodCounts(4, 4), 50),
        (4, 4, 25),
    ),
    ("both short: by what is ready", (4, 1, 50, PodCounts(2, 1), PodCounts(3, 1), 60), (2, 3, 50)),
]


@pytest.mark.parametrize(("given_", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_one_move(given_: tuple[int, int, int, PodCounts, PodCounts, int], expected: tuple[int, int, int]) -> None:
    assert plan_capacity(*given_) == CapacityPlan(*expected)


def test_a_shadowed_candidate_has_its_pod_without_any_weight() -> None:
    assert plan_capacity(4, 1, 0, PodCounts(0, 0), PodCounts(4, 4), 0, least=1) == CapacityPlan(1, 4, 0)
    assert plan_capacity(4, 1, 0, PodCounts(1, 1), PodCounts(4, 4), 0, least=1) == CapacityPlan(1, 4, 0)


@given(st.integers(1, 200), st.integers(1, 99))
def test_pods_make_a_weight_within_half_a_pod_or_say_the_nearest(total: int, wish: int) -> None:
    candidate, serving = replica_pods(total, wish)
    assert max(candidate, serving) == total
    made = 100 * candidate / (candidate + serving)
    nearest = nearest_replica_weight(total, wish)
    if nearest is None:
        assert abs(made - wish) <= 100 / (2 * total)
    else:
        assert nearest == made
        assert min(candidate, serving) == 1
        assert min(made, 100 - made) > min(wish, 100 - wish)


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 99))
def test_within_any_budget_the_pods_carry_all_traffic(total: int, surge: int, wish: int) -> None:
    assume(is_feasible(total, surge))
    candidate, serving = replica_pods(total, wish, total + surge)
    assert total <= candidate + serving <= max(total + surge, total)
    assert min(candidate, serving) >= 1


ACHIEVED = [((0, 0), 0), ((0, 3), 0), ((1, 3), 25), ((1, 2), 33), ((2, 1), 67), ((1, 7), 13), ((4, 0), 100)]


@pytest.mark.parametrize(("pods", "expected"), ACHIEVED)
def test_the_achieved_weight_is_the_share_of_ready_pods(pods: tuple[int, int], expected: int) -> None:
    assert achieved_weight(*pods) == expected


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(0, 300), max_size=5))
def test_achieved_shares_sum_to_100_and_are_near_the_share_of_pods(pods: dict[str, int]) -> None:
    shares = achieved_shares(pods)
    total = sum(pods.values())
    assert sum(shares.values()) == (100 if total else 0)
    for key, count in pods.items():
        assert not total or abs(shares.get(key, 0) - 100 * count / total) < 1
    assert achieved_shares(dict(reversed(pods.items()))) == shares
