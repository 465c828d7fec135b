"""The time of day of the leader's node jumps: no step ends early, no deadline is met early, no schedule fires twice."""

from __future__ import annotations

import pytest

from modelwright.obs.clock import FakeClock, SteadyClock
from tests.lib.stepped import Operator
from tests.unit.reconcile import test_retraining as retraining
from tests.unit.reconcile import test_rollouts as rollouts

HOUR = 3600.0
STEPS = rollouts.policy({"weight": 10, "hold": "20m"}, {"weight": 100}, keepPrevious="30s", deadline="40m")


def canary() -> tuple[rollouts.RolloutHarness, FakeClock]:
    """A rollout at its first step."""
    world = rollouts.RolloutHarness(STEPS)
    steady = SteadyClock(world.clock)
    world.scheduler.at = steady.now
    world.operator = Operator(world.api, steady, measurements=world.scheduler)
    world.want("v2")
    world.go(lambda: world.weights.get("v2") == 10)
    return world, world.clock


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
def test_clock_changes_shorten_no_hold_and_no_deadline(jump: float) -> None:
    world, clock = canary()
    clock.jump_wall_clock(jump)
    for _ in range(10):
        world.look(60)
        assert world.weights["v2"] == 10
        assert world.record["state"] == "Progressing"
    # A clock that is brought back by 5 % of the time that passes: 20 minutes take no longer than 21.
    world.go(lambda: world.serving == "v2", looks=18, seconds=60)


def retrained() -> tuple[retraining.RetrainingHarness, FakeClock]:
    world = retraining.RetrainingHarness(retraining.HOURLY)
    steady = SteadyClock(world.clock)
    world.api._clock = steady
    world.operator = Operator(world.api, steady)
    return world, world.clock


def test_schedule_fires_once_when_the_clock_is_set_back() -> None:
    world, clock = retrained()
    world.go(lambda: len(world.runs) == 1, looks=70, seconds=60)
    clock.jump_wall_clock(-HOUR)
    for _ in range(50):
        world.look(60)
    assert len(world.runs) == 1
    world.go(lambda: len(world.runs) == 2, looks=20, seconds=60)


def test_schedule_is_not_early_when_the_clock_is_set_forward() -> None:
    world, clock = retrained()
    world.go(lambda: len(world.runs) == 1, looks=70, seconds=60)
    clock.jump_wall_clock(HOUR)
    for _ in range(50):
        world.look(60)
    assert len(world.runs) == 1
