"""A shard's store keeps what is the shard's, and its client writes nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from modelwright.core.sharding import NamespaceOwnership, NamespaceState, PeerLease
from modelwright.kube import api_errors, kinds
from modelwright.kube.client import KubeClient
from modelwright.kube.kinds import Kind
from modelwright.kube.resync import ResyncConfig, ResyncHooks, WatchedKind
from modelwright.kube.sharded import (
    RECONCILE_CLAIM,
    UNANSWERED_WRITE_SECONDS,
    ShardClient,
    ShardResync,
    ShardStore,
    namespaces_to_list,
)
from modelwright.obs.clock import FakeClock
from modelwright.reconcile import watches
from tests.lib import objects
from tests.unit.kube.fakes import FakeClient

Object = dict[str, Any]


def owning(*namespaces: str, shard: str = "red") -> NamespaceOwnership:
    own = NamespaceOwnership(shard)
    own.apply_list(
        {name: NamespaceState(shard, 5) for name in namespaces} | {"elsewhere": NamespaceState("blue", 6)}, 10
    )
    own.activate_claims(own.pending_claims(), [PeerLease("blue", "blue", 99)])
    return own


def a_model(namespace: str, version: int = 1, *, endpoint: bool = True, **metadata: Any) -> Object:
    spec = {"endpoint": objects.endpoint("gateways", hostnames=["a.example.com"], pathPrefix="/x")} if endpoint else {}
    obj = objects.model(namespace, **spec)
    obj["metadata"] |= {
        "uid": f"uid-{namespace}",
        "resourceVersion": str(version),
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"kept": "no"},
        **metadata,
    }
    return {**obj, "status": {"url": "http://a.example.com/x"}}


def a_service(namespace: str, version: int = 1) -> Object:
    metadata = {"namespace": namespace, "name": "digits", "uid": "s", "resourceVersion": str(version)}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {}}


def test_children_elsewhere_are_not_kept_and_gateways_are() -> None:
    store = ShardStore(owning("vision"))
    for namespace in ("vision", "elsewhere", "unheard-of"):
        store.apply(kinds.SERVICE, "ADDED", a_service(namespace))
        store.put(a_service(namespace, 2))
        metadata = {"namespace": namespace, "name": "models", "uid": namespace, "resourceVersion": "1"}
        store.apply(kinds.GATEWAY, None, {"metadata": metadata})
    assert store.list_names(kinds.SERVICE) == (("vision", "digits"),)
    assert store.count(kinds.GATEWAY) == 3


def test_of_other_shards_models_only_the_endpoint_is_kept() -> None:
    store = ShardStore(owning("vision"), watches.INDEXERS)
    store.apply(kinds.MODEL, "ADDED", a_model("elsewhere"))
    assert store.list_names(kinds.MODEL) == ()
    (kept,) = store.by_index("place", kinds.ENDPOINT, "gateways/models a.example.com/x")
    assert set(kept["metadata"]) == {"name", "namespace", "uid", "generation", "creationTimestamp", "resourceVersion"}
    assert set(kept["spec"]) == {"endpoint"}
    assert set(kept) == {"apiVersion", "kind", "metadata", "spec"}


@pytest.mark.parametrize("how", ["deleted", "without an endpoint", "no longer readable"])
def test_an_endpoint_elsewhere_goes_and_its_rivals_hear_of_it(how: str) -> None:
    store = ShardStore(owning("vision"), watches.INDEXERS)
    store.apply(kinds.MODEL, "ADDED", a_model("elsewhere"))
    heard: list[tuple[Kind, bool]] = []
    store.subscribe(lambda kind, _, new: heard.append((kind, new is not None)))
    changed = a_model("elsewhere", 2, endpoint=how != "without an endpoint", generation=2)
    if how == "no longer readable":
        changed["spec"]["version"] = {"name": "Not A Name", "more": 1}
    store.apply(kinds.MODEL, "DELETED" if how == "deleted" else "MODIFIED", changed)
    assert store.count(kinds.ENDPOINT) == 0
    assert heard == [(kinds.ENDPOINT, False)]


def test_a_status_elsewhere_concerns_nobody() -> None:
    store = ShardStore(owning("vision"), watches.INDEXERS)
    store.apply(kinds.MODEL, "ADDED", a_model("elsewhere"))
    heard: list[Kind] = []
    store.subscribe(lambda kind, _, __: heard.append(kind))
    store.apply(kinds.MODEL, "MODIFIED", a_model("elsewhere", 2))
    assert heard == []
    store.apply(kinds.MODEL, "MODIFIED", a_model("elsewhere", 3, deletionTimestamp="2026-01-02T00:00:00Z"))
    assert heard == [kinds.ENDPOINT]


def test_rivals_in_both_shards_are_woken() -> None:
    store = ShardStore(owning("vision"), watches.INDEXERS)
    store.apply(kinds.MODEL, "ADDED", a_model("vision"))
    store.apply(kinds.MODEL, "ADDED", a_model("elsewhere"))
    (kept,) = store.list(kinds.ENDPOINT)
    assert watches.affected_keys(kinds.ENDPOINT, kept, store) == (("Model", "vision", "digits"),)


def test_a_namespace_that_returns_unchanged_is_kept_again() -> None:
    own = owning("vision")
    store = ShardStore(own, watches.INDEXERS)
    store.apply(kinds.MODEL, "ADDED", a_model("vision", 7))
    store.apply(kinds.SERVICE, "ADDED", a_service("vision"))
    own.apply_change("vision", NamespaceState("blue", 20))
    store.drop_namespace("vision")
    assert (store.count(kinds.MODEL), store.count(kinds.SERVICE), store.count(kinds.ENDPOINT)) == (0, 0, 1)
    store.put(a_service("vision", 9))
    assert store.count(kinds.SERVICE) == 0, "the late answer of a write brings nothing back"
    own.apply_change("vision", NamespaceState("red", 30))
    assert store.count(kinds.ENDPOINT) == 1, "its place is not free before the Model is there"
    store.apply(kinds.MODEL, None, a_model("vision", 7))
    store.apply(kinds.SERVICE, None, a_service("vision"))
    assert (store.count(kinds.MODEL), store.count(kinds.SERVICE), store.count(kinds.ENDPOINT)) == (1, 1, 0)


def test_endpoints_of_deleted_models_go_when_the_namespace_joins() -> None:
    own = owning("vision")
    store = ShardStore(own, watches.INDEXERS)
    store.apply(kinds.MODEL, "ADDED", a_model("elsewhere"))
    own.apply_change("elsewhere", NamespaceState("red", 30))
    store.drop_stale_endpoints("elsewhere")
    assert store.count(kinds.ENDPOINT) == 0


def test_few_namespaces_are_listed_singly_and_models_all_at_once() -> None:
    few, many = ["a", "b"], [f"n{number}" for number in range(500)]
    assert namespaces_to_list(kinds.SERVICE, few) == ("a", "b")
    for kind, namespaces in ((kinds.SERVICE, many), (kinds.MODEL, few), (kinds.GATEWAY, few)):
        assert namespaces_to_list(kind, namespaces) == (None,)
    assert namespaces_to_list(kinds.CLUSTER_MODEL_RUNTIME, few) == (None,)


class Writes:
    """What reaches the API server through a ShardClient, and how each is answered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, own: NamespaceOwnership) -> None:
        self.sent: list[tuple[str, str]] = []
        self.answer: Callable[[], Object] = dict
        self.clock = FakeClock()
        self.gate = asyncio.Event()
        self.gate.set()

        async def call(_: KubeClient, method: str, kind: Kind, path: str, *__: Any, **___: Any) -> Object:
            self.sent.append((method, path))
            await self.gate.wait()
            return self.answer()

        monkeypatch.setattr(KubeClient, "_request_object", call)
        monkeypatch.setattr(KubeClient, "__init__", lambda this, **_: setattr(this, "_clock", self.clock))
        self.client = ShardClient(own=own)


async def test_the_client_writes_in_its_own_namespaces_only(monkeypatch: pytest.MonkeyPatch) -> None:
    own = owning("vision")
    writes = Writes(monkeypatch, own)
    await writes.client.create(a_service("vision"))
    await writes.client.get(kinds.SERVICE, "elsewhere", "digits")
    event = {"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"namespace": "elsewhere", "name": "e"}}
    await writes.client.create(event)
    await writes.client.create(a_service("elsewhere"), dry_run=True)
    assert len(writes.sent) == 4
    runtime = {"apiVersion": "modelwright.dev/v1alpha1", "kind": "ClusterModelRuntime", "metadata": {"name": "r"}}
    for refused in (a_service("elsewhere"), a_service("unheard-of"), runtime):
        with pytest.raises(api_errors.Conflict, match="shard red does not work on"):
            await writes.client.patch(refused)
    own.apply_change("vision", NamespaceState("blue", 20))
    with pytest.raises(api_errors.Conflict):
        await writes.client.delete(kinds.SERVICE, "vision", "digits", uid="s")
    assert len(writes.sent) == 4


async def test_the_default_shard_writes_what_belongs_to_no_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    writes = Writes(monkeypatch, owning("vision", shard="default"))
    await writes.client.patch(
        {"apiVersion": "modelwright.dev/v1alpha1", "kind": "ClusterModelRuntime", "metadata": {"name": "r"}}
    )
    assert len(writes.sent) == 1


async def test_a_write_in_progress_delays_handing_over_its_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    own = owning("vision")
    writes = Writes(monkeypatch, own)
    writes.gate.clear()
    writing = asyncio.create_task(writes.client.create(a_service("vision")))
    while not writes.sent:  # noqa: ASYNC110
        await asyncio.sleep(0)
    own.apply_change("vision", NamespaceState("blue", 20))
    assert own.followed_version == 10
    writes.gate.set()
    await writing
    assert own.followed_version == 20


async def test_a_write_without_response_counts_while_it_may_succeed(monkeypatch: pytest.MonkeyPatch) -> None:
    own = owning("vision")
    writes = Writes(monkeypatch, own)

    def unanswered() -> Object:
        raise api_errors.error_without_response(TimeoutError())

    writes.answer = unanswered
    with pytest.raises(api_errors.Transient):
        await writes.client.create(a_service("vision"))
    own.apply_change("vision", NamespaceState("blue", 20))
    writes.clock.advance(UNANSWERED_WRITE_SECONDS - 1)
    assert own.followed_version == 10
    writes.clock.advance(2)
    assert own.followed_version == 20


async def test_a_write_that_never_left_holds_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    own = owning("vision")
    writes = Writes(monkeypatch, own)

    def unsent() -> Object:
        raise api_errors.error_without_response(aiohttp.ConnectionTimeoutError())

    writes.answer = unsent
    with pytest.raises(api_errors.Transient):
        await writes.client.create(a_service("vision"))
    own.apply_change("vision", NamespaceState("blue", 20))
    assert own.followed_version == 20


async def test_a_reconcile_older_than_its_claim_writes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = owning("vision")
    writes = Writes(monkeypatch, own)
    RECONCILE_CLAIM.set(own.current_claim("vision"))
    own.apply_change("vision", NamespaceState("blue", 20))
    own.apply_change("vision", NamespaceState("red", 30))
    own.activate_claims(own.pending_claims(), [PeerLease("blue", "blue", 99)])
    with pytest.raises(api_errors.Conflict, match="another shard's since this reconcile started"):
        await writes.client.create(a_service("vision"))
    RECONCILE_CLAIM.set(own.current_claim("vision"))
    await writes.client.create(a_service("vision"))
    assert len(writes.sent) == 1


async def test_a_resync_covers_the_shards_own_namespaces_only() -> None:
    own, client, clock = owning("vision"), FakeClient(), FakeClock()
    store = ShardStore(own)
    for namespace in ("vision", "elsewhere"):
        client.objects[kinds.SERVICE, namespace, "digits"] = a_service(namespace)
    complete: set[str] = set()
    resync = ShardResync(
        client,
        store,
        [WatchedKind(kinds.SERVICE)],
        ResyncConfig(served=(), grace=0),
        ResyncHooks(enqueue_all=lambda: None, on_fatal=pytest.fail, on_kinds_changed=pytest.fail),
        clock=clock,
        own=own,
        complete=complete.__contains__,
    )
    report = await resync.resync_once()
    assert (report.stale, report.behind) == ([], []), "a namespace that is being loaded lacks nothing"
    complete.add("vision")
    resyncing = asyncio.create_task(resync.resync_once())
    while not resyncing.done():
        clock.advance(1)
        await asyncio.sleep(0)
    assert (await resyncing).behind == [(kinds.SERVICE, ("vision", "digits"))]
