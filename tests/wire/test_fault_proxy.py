"""The proxy that injects faults does to a request what each fault says, and otherwise forwards it unchanged."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from modelwright.kube import api_errors, kinds
from modelwright.kube.client import KubeClient, load_configuration
from tests.faults import proxy as proxies
from tests.faults.proxy import Fault, Proxy, write_kubeconfig
from tests.unit.kube.fakes import model
from tests.wire.apiserver import FakeApiServer

MODELS = "/apis/modelwright.dev/v1alpha1/namespaces/vision/models"


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    server = FakeApiServer()
    await server.start()
    yield server
    await server.stop()


@contextlib.asynccontextmanager
async def through(server: FakeApiServer, folder: Path, *faults: Fault, **more: Any) -> AsyncIterator[Any]:
    """A proxy that always fails, and our client behind it."""
    write_kubeconfig(folder / "upstream", server.configuration().host)
    async with Proxy(folder / "upstream", folder / "kubeconfig", faults, **{"rate": 1.0, **more}) as proxy:
        client = KubeClient(await load_configuration(str(folder / "kubeconfig")), request_seconds=0.5)
        yield proxy, client
        await client.close()


@pytest.mark.parametrize(
    ("fault", "error", "status", "arrives"),
    [
        (Fault.THROTTLED, api_errors.Throttled, 429, False),
        (Fault.ERROR_500, api_errors.Transient, 500, False),
        (Fault.ERROR_503, api_errors.Transient, 503, False),
        (Fault.CONFLICT, api_errors.Conflict, 409, False),
        (Fault.SILENCE, api_errors.Transient, 0, False),
        (Fault.RESET, api_errors.Transient, 0, False),
        (Fault.LOST_ANSWER, api_errors.Transient, 0, True),
        (Fault.LATE_ERROR, api_errors.Transient, 504, True),
        (Fault.CUT_ANSWER, api_errors.Transient, 0, True),
    ],
)
async def test_a_write_fails_as_the_fault_says(
    server: FakeApiServer, tmp_path: Path, fault: Fault, error: type[api_errors.ApiError], status: int, arrives: bool
) -> None:
    async with through(server, tmp_path, fault) as (proxy, client):
        with pytest.raises(api_errors.ApiError) as caught:
            await client.create(model())
    assert (type(caught.value), caught.value.status) == (error, status)
    assert ((kinds.MODEL, "vision", "digits") in server.objects) == arrives
    assert proxy.injected == {fault: 1}
    assert proxy.written.created == ({"models": 1} if arrives else {})


async def test_a_late_write_arrives_although_its_connection_was_reset(
    server: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxies, "LATE_SECONDS", 0.05)
    async with through(server, tmp_path, Fault.LATE_WRITE) as (_, client):
        with pytest.raises(api_errors.Transient):
            await client.create(model())
        assert not server.objects
    assert (kinds.MODEL, "vision", "digits") in server.objects


async def test_an_older_list_lacks_the_newest_object(server: FakeApiServer, tmp_path: Path) -> None:
    async with through(server, tmp_path, Fault.STALE_LIST, budget=1) as (proxy, client):
        server.save(model("first"))
        # There is no older list yet.
        assert len(await client.list(kinds.MODEL)) == 1
        server.save(model("second"))
        assert len(await client.list(kinds.MODEL)) == 1
        assert len(await client.list(kinds.MODEL)) == 2
    assert proxy.injected == {Fault.STALE_LIST: 1}


async def test_the_next_page_of_a_list_has_expired(server: FakeApiServer, tmp_path: Path) -> None:
    server.save(model("first"))
    server.save(model("second"))
    async with through(server, tmp_path, Fault.EXPIRED_PAGE, budget=1) as (proxy, client):
        assert len(await client.list(kinds.MODEL)) == 2
    assert proxy.injected == {Fault.EXPIRED_PAGE: 1}


async def watched(server: FakeApiServer, folder: Path, fault: Fault, count: int) -> tuple[list[Any], str]:
    """The events of a watch that receives `count` of them, and how it ends."""
    got: list[Any] = []
    async with through(server, folder, fault) as (proxy, _):
        host = (await load_configuration(str(proxy.kubeconfig))).host
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(sock_read=0.5)) as session,
            session.get(f"{host}{MODELS}?watch=1") as answer,
        ):
            for n in range(count):
                server.save(model(f"m-{n}"))
            try:
                async for line in answer.content:
                    got.append(json.loads(line))
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                return got, type(error).__name__
    return got, "end"


@pytest.mark.parametrize(
    ("fault", "end"),
    [
        (Fault.EXPIRED_WATCH, "end"),
        (Fault.SILENT_WATCH, "SocketTimeoutError"),
        (Fault.CLOSED_WATCH, "ClientPayloadError"),
        (Fault.CUT_WATCH, "ClientPayloadError"),
    ],
)
async def test_a_watch_breaks_as_the_fault_says(server: FakeApiServer, tmp_path: Path, fault: Fault, end: str) -> None:
    got, ended = await watched(server, tmp_path, fault, 5)
    assert ended == end
    names = [event["object"]["metadata"]["name"] for event in got if event["type"] != "ERROR"]
    assert names == [f"m-{n}" for n in range(len(names))]
    assert len(names) < 5
    assert [event["object"]["code"] for event in got if event["type"] == "ERROR"] == (
        [410] if fault is Fault.EXPIRED_WATCH else []
    )


async def test_when_there_have_been_enough_it_only_forwards(server: FakeApiServer, tmp_path: Path) -> None:
    async with through(server, tmp_path, *Fault, budget=0) as (proxy, client):
        await client.create(model())
        assert await client.get(kinds.MODEL, "vision", "digits") is not None
        await client.delete(kinds.MODEL, "vision", "digits", uid="u1")
    assert not proxy.injected
    assert proxy.written.count == 2
    assert server.requests[0][1].endswith("models?fieldManager=modelwright&fieldValidation=Strict")


async def test_a_partition_swallows_everything_until_it_heals(server: FakeApiServer, tmp_path: Path) -> None:
    async with through(server, tmp_path) as (proxy, client):
        proxy.partition()
        with pytest.raises(api_errors.Transient, match="did not answer in time"):
            await client.create(model())
        assert not server.requests
        proxy.heal()
        await asyncio.wait_for(client.create(model()), 5)
    assert [method for method, _ in server.requests] == ["POST"]
