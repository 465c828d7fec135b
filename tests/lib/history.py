"""Old ModelRollouts and what deletes them, on a simulated cluster."""

from modelwright.kube.queue import Key
from tests.lib.rollout_harness import World


def sweep(world: World, keys: list[Key]) -> None:
    world.operator.queue.update(dict.fromkeys(keys))
    world.operator.work()
