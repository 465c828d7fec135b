"""Old ModelRollouts and what deletes them, on a simulated cluster."""

from modelwright.kube.queue import Key
from tests.lib.rollout_harness import RolloutHarness


def sweep(world: RolloutHarness, keys: list[Key]) -> None:
    world.operator.queue.update(dict.fromkeys(keys))
    world.operator.work()
