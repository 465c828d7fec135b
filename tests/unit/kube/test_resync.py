"""The sweep finds what the watch lost: ghosts, stale objects, a restored API server, kinds that come and go."""

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


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.client = FakeClient()
        self.store = Store()
        self.ended: list[tuple[str, str]] = []
        self.looked_again = 0
        self.changes: list[tuple[bool, bool]] = []
        self.store.subscribe(lambda kind, old, new: self.changes.append((old is not None, new is not None)))
        self.sweep = Resync(
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
        self.looked_again += 1

    async def let_run(self, work: Coroutine[Any, Any, Any], seconds: float, step: float = 0.5) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        for _ in range(round(seconds / step) + 1):
            for _ in range(20):
                await asyncio.sleep(0)
            self.clock.advance(step)
        return task

    async def once(self) -> ResyncReport:
        return await (await self.let_run(self.sweep.resync_once(), 121))


@pytest.fixture
def world() -> World:
    return World()


async def test_a_world_in_step_is_left_alone_and_everything_is_looked_at(world: World) -> None:
    world.store.put(world.client.save(model()))
    world.changes.clear()
    assert await world.once() == ResyncReport()
    assert world.changes == []
    assert world.looked_again == 1


async def test_a_ghost_is_dropped_and_its_dependents_hear_of_it(world: World) -> None:
    world.store.put({**model(uid="gone", resourceVersion="5")})
    world.changes.clear()
    report = await world.once()
    assert report.stale == [DIGITS]
    assert world.store.count(kinds.MODEL) == 0
    assert world.changes == [(True, False)]


async def test_an_object_made_anew_unnoticed_is_a_ghost_of_the_old_one(world: World) -> None:
    world.store.put(model(uid="old", resourceVersion="5"))
    world.client.save(model())
    report = await world.once()
    assert report.stale == [DIGITS]
    assert report.behind == [DIGITS]
    found = world.store.get(kinds.MODEL, "vision", "digits")
    assert found is not None
    assert found["metadata"]["uid"] != "old"


async def test_what_is_created_while_the_list_is_under_way_is_no_ghost(world: World) -> None:
    class Slow(FakeClient):
        async def list(self, kind: kinds.Kind, *args: Any, **more: Any) -> list[dict[str, Any]]:
            answer = await super().list(kind, *args, **more)
            if kind == kinds.MODEL:
                world.store.put(model(name="new", uid="u-new", resourceVersion="900"))
            return answer

    world.sweep._client = Slow()  # type: ignore[assignment]
    report = await world.once()
    assert report.stale == []
    assert world.store.count(kinds.MODEL) == 1


@pytest.mark.parametrize("known", [None, "5"])
async def test_what_the_watch_has_not_brought_after_two_minutes_is_fetched(world: World, known: str | None) -> None:
    there = world.client.save(model(uid="u1"))
    if known:
        world.store.put(model(uid="u1", resourceVersion=known))
    report = await world.once()
    assert report.behind == [DIGITS]
    assert world.store.get(kinds.MODEL, "vision", "digits") == there


async def test_what_the_watch_brings_within_two_minutes_is_fine(world: World) -> None:
    there = world.client.save(model())
    task = await world.let_run(world.sweep.resync_once(), 60)
    world.store.put(there)
    report = await (await world.let_run(_wait(task), 62))
    assert report == ResyncReport()


async def test_two_sweeps_in_a_row_behind_end_the_process_and_one_does_not(world: World) -> None:
    world.client.save(model(uid="u1"))
    world.sweep._escalate(await world.once())
    assert world.ended == []
    world.sweep._escalate(await world.once())
    assert world.ended == [], "the second sweep was fine"
    for _ in range(2):
        world.client.save(model(uid="u1"))
        world.sweep._escalate(await world.once())
    [(how, why)] = world.ended
    assert how == "fatal"
    assert "the watch of Model has stalled" in why


async def test_an_api_server_restored_from_a_backup_ends_the_process(world: World) -> None:
    there = world.client.save(model(uid="u1"))
    world.store.put({**there, "metadata": {**there["metadata"], "resourceVersion": "99999"}})
    report = await world.once()
    assert report.ahead == [DIGITS]
    world.sweep._escalate(report)
    assert world.ended[0][0] == "fatal"
    assert "restored from a backup" in world.ended[0][1]


@pytest.mark.parametrize("listed", [[], [model(uid="u1", resourceVersion="7")]], ids=["lacks it", "knows it older"])
async def test_a_list_of_an_older_state_than_the_object_itself_is_not_believed(
    world: World, listed: list[dict[str, Any]]
) -> None:
    class Lagging(FakeClient):
        async def list(self, kind: kinds.Kind, *args: Any, **more: Any) -> list[dict[str, Any]]:
            return listed if kind == kinds.MODEL else []

    client = Lagging()
    world.store.put(client.save(model(uid="u1")))
    world.changes.clear()
    world.sweep._client = client  # type: ignore[assignment]
    assert await world.once() == ResyncReport()
    assert world.store.count(kinds.MODEL) == 1
    assert world.changes == []


async def test_kinds_that_appear_or_go_ask_for_a_new_start(world: World) -> None:
    world.client.served -= {kinds.HTTP_ROUTE, kinds.GRPC_ROUTE}
    task = await world.let_run(world.sweep.run_discovery(), 61)
    assert world.ended == [("kinds", "GRPCRoute is gone, HTTPRoute is gone")]
    task.cancel()


async def test_an_outage_is_not_taken_for_kinds_that_went(world: World) -> None:
    world.client.failing["served_kinds"] = [transient()]
    task = await world.let_run(world.sweep.run_discovery(), 121)
    assert world.ended == []
    assert len(world.client.calls) == 2
    task.cancel()


async def test_it_runs_every_ten_minutes_give_or_take(world: World) -> None:
    task = await world.let_run(world.sweep.run(), 3600, step=5)
    assert 5 <= world.looked_again <= 7
    task.cancel()


async def test_an_outage_is_survived_and_tried_again_within_a_minute_or_so(world: World) -> None:
    world.client.failing["list"] = [transient()]
    task = await world.let_run(world.sweep.run(), 720 + 75, step=5)
    assert world.looked_again == 1
    task.cancel()


def test_children_are_watched_with_our_label_only_and_optional_kinds_when_served() -> None:
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


def test_namespaced_mode_lists_namespaces_only_where_there_are_any() -> None:
    watched = {w.kind: w for w in watched_kinds(kinds.ALL_KINDS, ["a", "b"])}
    assert watched[kinds.MODEL].namespaces == ("a", "b")
    assert watched[kinds.CLUSTER_MODEL_RUNTIME].namespaces == ()


async def _wait(task: asyncio.Task[Any]) -> Any:
    return await asyncio.shield(task)
