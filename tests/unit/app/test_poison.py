"""Objects that no schema of ours would let in, as a CRD of another version might: each harms itself at most."""

from typing import Any

import pytest

from modelwright.app.enqueue import enqueue_spread
from modelwright.kube import kinds
from modelwright.kube.queue import Key, WorkQueue
from modelwright.kube.store import Store
from modelwright.obs.clock import FakeClock
from modelwright.reconcile import watches
from tests.lib import objects
from tests.lib.kstatus import is_ready
from tests.lib.rollout_harness import CANARY, NS, RolloutHarness

SPECS: dict[str, Any] = {
    "no map": "text",
    "a list": [],
    "references are text": {"modelRef": "digits", "policyRef": "x", "rolloutPolicyRef": 3, "version": "x"},
    "references are lists": {"modelRef": [1], "policyRef": [1], "target": [5], "endpoint": {"parentRefs": [3]}},
    "names are maps": {"modelRef": {"name": {}}, "policyRef": {"name": [1]}, "version": {"name": {}}},
    "of the Model, the rest is nothing": {"modelRef": {"name": "digits"}, "target": 5, "artifact": 1, "lineage": 3},
}
POISON = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


def poison(kind: kinds.Kind, spec: Any) -> dict[str, Any]:
    metadata = {"name": "poison", **({"namespace": NS} if kind.namespaced else {})}
    return {"apiVersion": objects.API_VERSION, "kind": kind.kind, "metadata": metadata, "spec": spec}


@POISON
@pytest.mark.parametrize("kind", kinds.OWN_KINDS, ids=lambda kind: kind.kind)
async def test_it_is_kept_and_looked_at_so_that_no_sweep_misses_it(kind: kinds.Kind, spec: Any) -> None:
    clock = FakeClock()
    store, queue = Store(watches.INDEXERS), WorkQueue(clock)
    store.subscribe(watches.build_router(store, queue))
    obj = poison(kind, spec)
    obj["metadata"] |= {"uid": "u1", "resourceVersion": "1"}
    store.apply(kind, "ADDED", obj)
    enqueue_spread(store, queue, 600)
    clock.advance(61)
    place = (obj["metadata"].get("namespace", ""), "poison")
    assert store.list_names(kind) == (place,)
    queued = {await queue.get() for _ in range(len(queue))}
    assert kind not in watches.RECONCILED_KINDS or Key(kind.kind, *place) in queued


@POISON
def test_a_canary_beside_it_ends_as_without_it(spec: Any) -> None:
    world = RolloutHarness(CANARY)
    for kind in kinds.OWN_KINDS:
        if kind not in (kinds.MODEL_RUNTIME, kinds.CLUSTER_MODEL_RUNTIME):
            world.api.user_create(poison(kind, spec))
    world.restart()
    world.want("v2")
    world.go(lambda: world.serving == "v2" and is_ready(world.model))
