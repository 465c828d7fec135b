"""A shard's streams on a wire that breaks: order, what is dropped undecoded, and what a lost place costs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from modelwright.kube import api_errors, kind_stream, kinds, raw_objects
from modelwright.kube.kind_stream import KindStream, StreamClient, StreamHandler
from modelwright.kube.kinds import Kind
from modelwright.obs.clock import SystemClock
from tests.unit.kube.fakes import model
from tests.wire.apiserver import FakeApiServer, answer

Object = dict[str, Any]


class Follower:
    """A stream of Models, and what it has brought."""

    def __init__(self, client: StreamClient, wanted: Callable[[list[bytes]], bool] | None = None) -> None:
        self.client = client
        self.events: list[tuple[str, str]] = []
        self.lists = 0
        self.bookmarks: list[str] = []
        self.stream = KindStream(
            client,
            kinds.MODEL,
            StreamHandler(relist=self._relist, apply=self._apply, is_wanted=wanted, on_bookmark=self.bookmarks.append),
            clock=SystemClock(),
        )

    async def _relist(self) -> str:
        version = await self.client.current_version(kinds.MODEL)
        self.lists += 1
        return version

    def _apply(self, event: str, obj: Object) -> None:
        self.events.append((event, obj["metadata"]["name"]))


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    server = FakeApiServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(server: FakeApiServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StreamClient]:
    monkeypatch.setattr(kind_stream, "RETRY_SECONDS", (0.01,))
    client = StreamClient(server.configuration())
    yield client
    await client.close()


@contextlib.asynccontextmanager
async def following(server: FakeApiServer, follower: Follower) -> AsyncIterator[Follower]:
    task = asyncio.create_task(follower.stream.run())
    await until(lambda: server.watching(kinds.MODEL) == 1)
    try:
        yield follower
        assert not task.done(), task.exception()
    finally:
        task.cancel()


async def test_events_come_in_their_order_with_their_kind(server: FakeApiServer, client: StreamClient) -> None:
    async with following(server, Follower(client)) as follower:
        kept = [server.save(model(name=f"m{number}")) for number in range(50)]
        server.remove(kept[3])
        await until(lambda: len(follower.events) == 51)
    assert follower.events == [*(("ADDED", f"m{number}") for number in range(50)), ("DELETED", "m3")]


async def test_what_nobody_wants_is_not_decoded(
    server: FakeApiServer, client: StreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []

    class Counting:
        @staticmethod
        def parse_event(line: bytes) -> Any:
            decoded.append(line)
            return raw_objects.parse_event(line)

        parse_object = staticmethod(raw_objects.parse_object)
        is_large = staticmethod(raw_objects.is_large)

    named: list[list[bytes]] = []

    def wanted(namespaces: list[bytes]) -> bool:
        named.append(namespaces)
        return b"vision" in namespaces

    async with following(server, Follower(client, wanted)) as follower:
        monkeypatch.setattr(kind_stream, "raw_objects", Counting)
        for number in range(20):
            server.save(model(name=f"m{number}", namespace="elsewhere", annotations={"a": '"namespace":"vision"'}))
        server.save(model(name="mine"))
        await until(lambda: follower.events)
    assert follower.events == [("ADDED", "mine")]
    assert len(decoded) == 1
    assert named[0] == [b"elsewhere"], "a quoted text is no namespace"


async def test_a_broken_stream_goes_on_from_its_last_place(server: FakeApiServer, client: StreamClient) -> None:
    async with following(server, Follower(client)) as follower:
        server.save(model(name="before"))
        await until(lambda: follower.events)
        server.send(kinds.MODEL, None)
        server.save(model(name="meanwhile"), tell=False)
        await until(lambda: ("MODIFIED", "meanwhile") in follower.events or ("ADDED", "meanwhile") in follower.events)
    assert follower.lists == 1


@pytest.mark.parametrize("how", ["event", "status"])
async def test_a_place_that_has_expired_is_found_again_by_a_list(
    server: FakeApiServer, client: StreamClient, how: str
) -> None:
    async with following(server, Follower(client)) as follower:
        if how == "event":
            server.expire(kinds.MODEL)
        else:
            server.fault("GET", "watch=1", answer(410, "{}"))
            server.send(kinds.MODEL, None)
        await until(lambda: follower.lists == 2)
        server.save(model(name="after"))
        await until(lambda: follower.events)


@pytest.mark.parametrize("rubbish", [b"{half\n", b'{"type":"ADDED"}\n', b'{"type":"ADDED","object":{"metadata":{}}}\n'])
async def test_rubbish_on_the_wire_costs_a_connection_and_no_event(
    server: FakeApiServer, client: StreamClient, rubbish: bytes
) -> None:
    async with following(server, Follower(client)) as follower:
        server.send(kinds.MODEL, rubbish)
        await until(lambda: sum("watch=1" in path for _, path in server.requests) == 2)
        server.save(model(name="after"))
        await until(lambda: follower.events)


async def test_bookmarks_move_the_place(server: FakeApiServer, client: StreamClient) -> None:
    async with following(server, Follower(client)) as follower:
        server.tell(kinds.MODEL, "BOOKMARK", {"metadata": {"resourceVersion": "5000"}})
        await until(lambda: follower.bookmarks == ["5000"])
        server.send(kinds.MODEL, None)
        await until(lambda: any("resourceVersion=5000" in path for _, path in server.requests))


async def test_refusals_and_silence_are_waited_out(
    server: FakeApiServer, client: StreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind_stream, "SILENCE_SECONDS", 0.2)
    server.fault("GET", "watch=1", answer(500, "no"), times=3)
    async with following(server, Follower(client)) as follower:
        before = len(server.requests)
        await until(lambda: len(server.requests) >= before + 2)
        assert follower.lists == 1


async def test_a_list_has_all_pages_and_one_version(server: FakeApiServer, client: StreamClient) -> None:
    for number in range(3):
        server.save(model(name=f"m{number}"))
    kind: Kind = kinds.MODEL
    found, version = await client.list_all(kind)
    assert [(obj["metadata"]["name"], obj["kind"]) for obj in found] == [(f"m{n}", "Model") for n in range(3)]
    assert version == await client.current_version(kind)
    server.fault("GET", "limit=", answer(403, '{"kind":"Status","message":"no"}'))
    with pytest.raises(api_errors.Denied):
        await client.list_all(kind)
