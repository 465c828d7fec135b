"""ModelRollouts outlive their Model for a while, and no longer."""

from modelwright.kube import kinds
from modelwright.kube.queue import Key
from modelwright.reconcile.model_rollout import list_orphans
from tests.lib.history import sweep
from tests.lib.rollout_harness import CANARY, NS, RolloutHarness


def test_a_record_stays_for_history_ttl_after_its_model_has_gone() -> None:
    world = RolloutHarness(CANARY | {"historyTTL": "24h"})
    world.want("v2")
    world.go_to("Succeeded")
    assert list_orphans(world.operator.store) == []
    world.api.user_delete(kinds.MODEL, NS, "digits")
    world.api.collect()
    world.look()
    gone = list_orphans(world.operator.store)
    assert gone == [Key("ModelRollout", NS, "digits-1"), Key("ModelRollout", NS, "digits-2")]
    sweep(world, gone)
    assert len(world.records) == 2
    world.clock.advance(24 * 3600)
    sweep(world, gone)
    assert world.records == []
