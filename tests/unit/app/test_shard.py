"""What a shard reads from the Leases of other operators, and when passes are made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from modelwright.api.names import LABEL_SHARD
from modelwright.app.settings import Settings
from modelwright.app.shard_session import PeerLeases, ShardSession
from modelwright.core.sharding import NamespaceOwnership, NamespaceState, PeerLease
from modelwright.kube import kinds
from modelwright.kube.kinds import Kind
from modelwright.kube.lease import ANNOTATION_ADDRESS, ANNOTATION_FOLLOWED, LeaderElector, LeaseConfig
from modelwright.kube.queue import Key, WorkQueue
from modelwright.kube.resync import WatchedKind
from modelwright.kube.sharded import ShardStore
from modelwright.kube.workers import ReconcileResult
from modelwright.obs import metrics
from modelwright.obs.clock import FakeClock

Object = dict[str, Any]
RED = Settings(shard="red", lease_name="modelwright-operator-red")


def lease(name: str, shard: str = "", *, holder: str = "a-process", version: int = 1, **annotations: str) -> Object:
    known = {"address": ANNOTATION_ADDRESS, "followed": ANNOTATION_FOLLOWED}
    metadata: Object = {"name": name, "resourceVersion": str(version)}
    metadata["annotations"] = {known[key]: value for key, value in annotations.items()}
    if shard:
        metadata["labels"] = {LABEL_SHARD: shard}
    return {"metadata": metadata, "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15}}


def test_every_operators_lease_counts_but_its_own() -> None:
    found = PeerLeases(RED, FakeClock()).list_peers(
        [
            lease("modelwright-operator-red", "red", followed="9"),
            lease("blue", "blue", followed="12"),
            lease("another-red", "red", followed="12"),
            lease("unsharded", address="10.0.0.1:8080"),
            lease("modelwright-operator"),
            lease("unrelated"),
        ]
    )
    assert found == [
        PeerLease("blue", "blue", 12),
        PeerLease("another-red", "red", 12),
        PeerLease("unsharded", "", None),
        PeerLease("modelwright-operator", "", None),
    ]


def test_a_lease_is_free_when_released_or_unchanged_for_its_time() -> None:
    clock = FakeClock()
    leases = PeerLeases(RED, clock)

    def led(*, version: int, holder: str = "a-process") -> bool:
        return leases.list_peers([lease("blue", "blue", version=version, holder=holder)])[0].led

    assert not led(version=1, holder="")
    assert led(version=2)
    clock.advance(14)
    assert led(version=2)
    assert led(version=3), "it was renewed"
    clock.advance(14.9)
    assert led(version=3)
    clock.advance(0.2)
    assert not led(version=3)
    assert led(version=4), "a process has taken it"


@pytest.mark.parametrize("text", ["", "rubbish", "-5"])
def test_what_is_no_resource_version_says_nothing(text: str) -> None:
    (found,) = PeerLeases(RED, FakeClock()).list_peers([lease("blue", "blue", followed=text)])
    assert found.followed is None


def test_shards_without_a_leader_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    own = NamespaceOwnership("default")
    own.apply_list(
        {"a": NamespaceState("default", 1), "b": NamespaceState("red", 2), "c": NamespaceState("nobodys", 3)}, 3
    )
    PeerLeases(Settings(shard="default"), FakeClock()).report_shards(own, [lease("modelwright-operator-red", "red")])
    assert metrics.REGISTRY.get_sample_value("modelwright_shard_led", {"shard": "red"}) == 1
    assert metrics.REGISTRY.get_sample_value("modelwright_shard_led", {"shard": "default"}) == 1
    assert metrics.REGISTRY.get_sample_value("modelwright_shard_led", {"shard": "nobodys"}) == 0
    assert metrics.REGISTRY.get_sample_value("modelwright_shard_namespaces", {"shard": "nobodys"}) == 1
    assert [record.shards for record in caplog.records if "no leader" in record.message] == [["nobodys"]]
    metrics.SHARD_LED.clear()
    metrics.SHARD_NAMESPACES.clear()


class ListClient:
    """Lists from memory; `before_answer` may do what happens while a list is on its way."""

    def __init__(self) -> None:
        self.objects: dict[Kind, list[Object]] = {}
        self.at = "100"

    async def list_all(self, kind: Kind, namespace: str | None = None, **_: Any) -> tuple[list[Object], str]:
        found = self.objects.get(kind, [])
        return [o for o in found if namespace in (None, o["metadata"].get("namespace"))], self.at

    async def iterate_batches(
        self, kind: Kind, namespace: str | None = None, **_: Any
    ) -> AsyncIterator[tuple[list[Object], str]]:
        yield await self.list_all(kind, namespace)


def a_namespace(name: str, shard: str, version: int) -> Object:
    return {"metadata": {"name": name, "resourceVersion": str(version), "labels": {LABEL_SHARD: shard}}}


def a_model(namespace: str, name: str = "digits") -> Object:
    metadata = {"namespace": namespace, "name": name, "uid": f"{namespace}/{name}", "resourceVersion": "5"}
    return {"apiVersion": "modelwright.dev/v1alpha1", "kind": "Model", "metadata": metadata, "spec": {}}


class Fixture:
    def __init__(self) -> None:
        self.clock, self.client = FakeClock(), ListClient()
        self.own = NamespaceOwnership("red")
        self.store = ShardStore(self.own)
        self.queue = WorkQueue(self.clock)
        self.elector = LeaderElector(
            self.client,  # type: ignore[arg-type]
            LeaseConfig("ns", "l", "i"),
            on_lost=pytest.fail,
            clock=self.clock,
        )
        self.stopped: list[str] = []
        self.shard = ShardSession(
            RED,
            self.client,
            self.store,
            self.queue,
            self.elector,
            clock=self.clock,  # type: ignore[arg-type]
            stop=lambda why, code: self.stopped.append(why),
        )
        self.shard._watched = (WatchedKind(kinds.MODEL),)

    async def turns(self, count: int = 20) -> None:
        for _ in range(count):
            await asyncio.sleep(0)


async def test_a_new_leader_lists_namespaces_before_it_publishes_them() -> None:
    it = Fixture()
    it.own.apply_list({"vision": NamespaceState("red", 5)}, 10)
    it.shard.followed.set()
    it.client.objects = {kinds.NAMESPACE: [a_namespace("vision", "blue", 50)], kinds.LEASE: []}
    assert it.elector.followed_version() is None
    leading = asyncio.create_task(it.shard.run_leader())
    await it.turns()
    assert it.elector.followed_version() == 100
    assert not it.own.is_mine("vision")
    leading.cancel()


async def test_reconciles_wait_for_an_active_and_complete_namespace() -> None:
    it = Fixture()
    passes: list[Key] = []

    async def reconcile(key: Key) -> ReconcileResult:
        passes.append(key)
        return ReconcileResult()

    gated = it.shard.guard_reconciler(reconcile)
    it.client.objects = {kinds.NAMESPACE: [a_namespace("vision", "red", 50)], kinds.MODEL: [a_model("vision")]}
    it.shard.followed.set()
    await it.shard._list_namespaces()
    key = Key("Model", "vision", "digits")
    await gated(key)
    assert passes == []
    await it.turns()
    assert it.shard.is_complete("vision")
    await gated(key)
    assert passes == [], "loaded, and not begun"
    leading = asyncio.create_task(it.shard.run_leader())
    await it.turns()
    assert len(it.queue) == 1
    await gated(key)
    assert passes == [key]
    leading.cancel()
    await gated(Key("Model", "elsewhere", "gone"))
    assert len(passes) == 2, "a namespace of no shard has nothing to wait for"


async def test_an_older_list_ends_the_process() -> None:
    it = Fixture()
    it.own.apply_list({}, 500)
    await it.shard._list_namespaces()
    assert it.stopped == ["Namespaces are listed as of 100, after 500 had been seen"]
