"""The resync finds lost events: stale and missing objects, a restored API server, kinds that appear or disappear."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from modelwright.api.names import MANAGED_SELECTOR
from modelwright.kube import kinds
from modelwright.kube.resync import Resync, ResyncConfig, ResyncHooks, ResyncReport, WatchedKind, watched_kinds
from modelwright.kube.store import Store
from modelwright.obs.clock import FakeClock
from tests.unit.kube.fakes import FakeClient, model, transient

DIGITS = (kinds.MODEL, ("vision", "digits"))


class ResyncHarness:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.client = FakeClient()
        self.store = Store()
        self.ended: list[tuple[str, str]] = []
        self.enqueued = 0
        self.changes: list[tuple[bool, bool]] = []
        self.store.subscribe(lambda kind, old, new: self.changes.append((old is not None, new is not None)))
        self.resync = Resync(
            self.client,  # type: ignore[arg-type]
            self.store,
            (WatchedKind(kinds.MODEL), WatchedKind(kinds.DEPLOYMENT, MANAGED_SELECTOR)),
            ResyncConfig(served=kinds.ALL_KINDS),
            ResyncHooks(
                enqueue_all=self._enqueue_all,
                on_fatal=lambda reason: self.ended.append(("fatal", reason)),
                on_kinds_changed=lambda reason: self.ended.append(("kinds", reason)),
            ),
            clock=self.clock,
            rng=random.Random(1),
        )

    def _enqueue_all(self) -> None:
        self.enqueued += 1

    async def let_run(self, work: Coroutine[Any, Any, Any], seconds: float, step: float = 0.5) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        for _ in range(round(seconds / step) + 1):
            for _ in range(20):
                await asyncio.sleep(0)
            self.clock.advance(step)
        return task

    async def once(self) -> ResyncReport:
        return await (await self.let_run(self.resync.resync_once(), 121))


@pytest.fixture
def harness() -> ResyncHarness:
    return ResyncHarness()


async def test_a_store_in_sync_is_kept_and_everything_is_enqueued(harness: ResyncHarness) -> None:
    harness.store.put(harness.client.save(model()))
    harness.changes.clear()
    assert await harness.once() == ResyncReport()
    assert harness.changes == []
    assert harness.enqueued == 1


async def test_a_stale_object_is_dropped_and_dependents_are_notified(harness: ResyncHarness) -> None:
    harness.store.put({**model(uid="gone", resourceVersion="5")})
    harness.changes.clear()
    report = await harness.once()
    assert report.stale == [DIGITS]
    assert harness.store.count(kinds.MODEL) == 0
    assert harness.changes == [(True, False)]


async def test_an_object_made_anew_unnoticed_is_a_ghost_of_the_old_one(harness: ResyncHarness) -> None:
    harness.store.put(model(uid="old", resourceVersion="5"))
    harness.client.save(model())
    report = await harness.once()
    assert report.stale == [DIGITS]
    assert report.behind == [DIGITS]
    found = harness.store.get(kinds.MODEL, "vision", "digits")
    assert found is not None
    assert found["metadata"]["uid"] != "old"


async def test_what_is_created_while_the_list_is_under_way_is_no_ghost(harness: ResyncHarness) -> None:
    class Slow(FakeClient):
        async def list(self, kind: kinds.Kind, *args: Any, **more: Any) -> list[dict[str, Any]]:
            answer = await super().list(kind, *args, **more)
            if kind == kinds.MODEL:
                harness.store.put(model(name="new", uid="u-new", resourceVersion="900"))
            return answer

    harness.resync._client = Slow()  # type: ignore[assignment]
    report = await harness.once()
    assert report.stale == []
    assert harness.store.count(kinds.MODEL) == 1


@pytest.mark.parametrize("known", [None, "5"])
async def test_an_object_missing_for_two_minutes_is_fetched(harness: ResyncHarness, known: str | None) -> None:
    there = harness.client.save(model(uid="u1"))
    if known:
        harness.store.put(model(uid="u1", resourceVersion=known))
    report = await harness.once()
    assert report.behind == [DIGITS]
    assert harness.store.get(kinds.MODEL, "vision", "digits") == there


async def test_what_the_watch_brings_within_two_minutes_is_fine(harness: ResyncHarness) -> None:
    there = harness.client.save(model())
    task = await harness.let_run(harness.resync.resync_once(), 60)
    harness.store.put(there)
    report = await (await harness.let_run(_wait(task), 62))
    assert report == ResyncReport()


async def test_two_resyncs_in_a_row_behind_end_the_process(harness: ResyncHarness) -> None:
    harness.client.save(model(uid="u1"))
    harness.resync._escalate(await harness.once())
    assert harness.ended == []
    harness.resync._escalate(await harness.once())
    assert harness.ended == [], "the second resync was fine"
    for _ in range(2):
        harness.client.save(model(uid="u1"))
        harness.resync._escalate(await harness.once())
    [(how, why)] = harness.ended
    assert how == "fatal"
    assert "the watch of Model has stalled" in why


async def test_an_api_server_restored_from_a_backup_ends_the_process(harness: ResyncHarness) -> None:
    there = harness.client.save(model(uid="u1"))
    harness.store.put({**there, "metadata": {**there["metadata"], "resourceVersion": "99999"}})
    report = await harness.once()
    assert report.ahead == [DIGITS]
    harness.resync._escalate(report)
    assert harness.ended[0][0] == "fatal"
    assert "restored from a backup" in harness.ended[0][1]


@pytest.mark.parametrize("listed", [[], [model(uid="u1", resourceVersion="7")]], ids=["lacks it", "knows it older"])
async def test_a_list_older_than_the_object_itself_is_ignored(
    harness: ResyncHarness, listed: list[dict[str, Any]]
) -> None:
    class Lagging(FakeClient):
        async def list(self, kind: kinds.Kind, *args: Any, **more: Any) -> list[dict[str, Any]]:
            return listed if kind == kinds.MODEL else []

    client = Lagging()
    harness.store.put(client.save(model(uid="u1")))
    harness.changes.clear()
    harness.resync._client = client  # type: ignore[assignment]
    assert await harness.once() == ResyncReport()
    assert harness.store.count(kinds.MODEL) == 1
    assert harness.changes == []


async def test_kinds_that_appear_or_go_ask_for_a_new_start(harness: ResyncHarness) -> None:
    harness.client.served -= {kinds.HTTP_ROUTE, kinds.GRPC_ROUTE}
    task = await harness.let_run(harness.resync.run_discovery(), 61)
    assert harness.ended == [("kinds", "GRPCRoute is gone, HTTPRoute is gone")]
    task.cancel()


async def test_an_outage_is_not_taken_for_kinds_that_went(harness: ResyncHarness) -> None:
    harness.client.failing["served_kinds"] = [transient()]
    task = await harness.let_run(harness.resync.run_discovery(), 121)
    assert harness.ended == []
    assert len(harness.client.calls) == 2
    task.cancel()


async def test_it_runs_every_ten_minutes_give_or_take(harness: ResyncHarness) -> None:
    task = await harness.let_run(harness.resync.run(), 3600, step=5)
    assert 5 <= harness.enqueued <= 7
    task.cancel()


async def test_after_an_outage_the_resync_is_retried_within_a_minute(harness: ResyncHarness) -> None:
    harness.client.failing["list"] = [transient()]
    task = await harness.let_run(harness.resync.run(), 720 + 75, step=5)
    assert harness.enqueued == 1
    task.cancel()


def test_children_need_our_label_and_optional_kinds_are_served() -> None:
    served = set(kinds.ALL_KINDS) - set(kinds.OPTIONAL_KINDS)
    watched = {w.kind: w for w in watched_kinds(served)}
    assert set(kinds.OWN_KINDS) <= set(watched)
    assert not set(kinds.OPTIONAL_KINDS) & set(watched)
    for kind in (kinds.DEPLOYMENT, kinds.SERVICE, kinds.CONTROLLER_REVISION):
        assert watched[kind].labels == MANAGED_SELECTOR
    assert watched[kinds.POD].labels == f"{MANAGED_SELECTOR},modelwright.dev/role in (resolve,training,look)"
    assert all(w.labels is None for k, w in watched.items() if k in kinds.OWN_KINDS)
    assert kinds.LEASE not in watched
    assert kinds.EVENT not in watched
    with_gateways = {w.kind for w in watched_kinds(kinds.ALL_KINDS)}
    assert set(kinds.OPTIONAL_KINDS) <= with_gateways


def test_namespaced_mode_lists_namespaced_kinds_by_namespace() -> None:
    watched = {w.kind: w for w in watched_kinds(kinds.ALL_KINDS, ["a", "b"])}
    assert watched[kinds.MODEL].namespaces == ("a", "b")
    assert watched[kinds.CLUSTER_MODEL_RUNTIME].namespaces == ()


async def _wait(task: asyncio.Task[Any]) -> Any:
    return await asyncio.shield(task)
