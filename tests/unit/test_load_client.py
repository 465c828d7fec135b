"""The load client counts: what it calls lost is exactly what the server spoiled, and a stall shows in latencies."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator

import pytest

from devcluster.load.background import BackgroundLoad
from devcluster.load.client import UNKNOWN, Load, Report, Target, v2_body, version_of
from tests.servers.v2.server import Behaviour, Server

BODY = v2_body([[0.0] * 4])


@contextlib.asynccontextmanager
async def serving(version: str = "digits-1", **behaviour: object) -> AsyncIterator[tuple[Server, Target]]:
    server = Server("digits", version, Behaviour.from_json({"seed": 3, **behaviour}))
    port = await server.listen("127.0.0.1", 0)
    await server.load()
    yield (
        server,
        Target("http://models.example.com/v2/models/digits/infer", BODY, ("127.0.0.1", port), {"X-Caller": "load"}),
    )
    await server.stop(0.2)


async def test_every_answer_is_counted_once():
    async with serving() as (server, target):
        report = await Load(target, rate=500, fresh_share=0.25).run(requests=400)
    assert (report.total, report.answered, report.lost) == (400, 400, [])
    assert report.versions == {"digits-1": 400}
    assert report.by_connection == {"keep-alive": 300, "fresh": 100}
    assert report.connections_opened >= 101
    assert server.infer_requests == 400
    assert sum(sum(second.values()) for second in report.timeline.values()) == 400


async def test_bodies_are_sent_in_turn_and_each_answer_is_recorded():
    bodies = [v2_body([[float(n)] * 4]) for n in range(3)]
    async with serving() as (_, target):
        load = Load(target, rate=300, bodies=bodies)
        report = await load.run(requests=30)
    assert len(report.answers) == report.answered == 30
    assert sorted(answer.due for answer in report.answers) == [pytest.approx(n / 300) for n in range(30)]
    assert {answer.version for answer in report.answers} == {"digits-1"}
    sent = [request.split(b"\r\n\r\n")[1] for request in load._requests["fresh"]]
    assert sent == bodies


async def test_each_injected_fault_is_one_lost_request():
    shares = {"errorShare": 0.1, "abortShare": 0.05, "hangShare": 0.02}
    async with serving(**shares) as (server, target):
        report = await Load(target, rate=400, fresh_share=0.2, timeout=5).run(requests=600)
    kinds = report.to_json()["lostByKind"]
    assert min(server.faults.values()) > 0
    # A reset is seen as one by the client unless it arrives as an end of stream; both are the server's aborts.
    assert kinds["status"] == server.faults["error"]
    assert kinds.get("reset", 0) + kinds.get("closed", 0) == server.faults["abort"]
    assert kinds["timeout"] == server.faults["hang"]
    assert len(report.lost) == sum(server.faults.values())
    assert report.answered + len(report.lost) == report.total == 600
    assert {lost.version for lost in report.lost if lost.kind == "status"} == {"digits-1"}
    assert all(lost.cause and lost.clock for lost in report.lost)
    assert {lost.status for lost in report.lost if lost.kind != "status"} == {None}
    assert {lost.status for lost in report.lost if lost.kind == "status"} <= {500, 503}


async def test_nothing_listening_is_lost_as_refused():
    async with serving() as (_, target):
        pass
    report = await Load(target, rate=100).run(requests=10)
    assert [lost.kind for lost in report.lost] == ["refused"] * 10


async def test_a_stall_shows_in_every_request_due_during_it():
    async with serving() as (server, target):
        load = Load(target, rate=200)
        running = asyncio.create_task(load.run(seconds=2))
        await asyncio.sleep(0.5)
        server.configure(Behaviour.from_json({"latency": {"seconds": 0.6}}))
        await asyncio.sleep(0.5)
        server.configure(Behaviour())
        report = await running
    slow = [seconds for seconds in report.latencies if seconds >= 0.6]
    assert report.total == 400
    # An open loop goes on asking: about 100 requests were due in the slow half second, not the one a closed loop sends.
    assert 60 <= len(slow) <= 140


async def test_a_server_that_goes_away_gracefully_loses_nothing():
    async with serving() as (old, target), serving("digits-2") as (_, other):
        load = Load(target, rate=300)
        running = asyncio.create_task(load.run(seconds=1.5))
        await asyncio.sleep(0.7)
        # What a gateway does at a change of version: callers connect elsewhere, then the old server leaves.
        load._host, load._port = other.address
        async with asyncio.timeout(60):
            while old._connections:
                for connection in load._pool:
                    if connection.writer.get_extra_info("peername")[1] == target.address[1]:
                        connection.writer.close()
                await asyncio.sleep(0.01)
        await old.stop(2)
        report = await running
    assert report.lost == []
    assert set(report.versions) == {"digits-1", "digits-2"}
    assert sum(report.versions.values()) == 450


async def test_a_load_runs_beside_blocking_code():
    def use(target: Target) -> Report:
        with BackgroundLoad(target, rate=200) as load:
            load.run_until(50)
            assert load.elapsed() >= 0.2
        return load.report

    async with serving() as (server, target):
        report = await asyncio.to_thread(use, target)
    assert report.total == report.answered == server.infer_requests >= 50


async def test_a_wrong_answer_is_lost():
    async with serving() as (_, target):
        report = await Load(target, rate=100, check=lambda body: None if b"nonsense" in body else "no nonsense").run(
            requests=5
        )
    assert [(lost.kind, lost.cause) for lost in report.lost] == [("wrong", "no nonsense")] * 5


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "closed"),
        (b"what is this\r\n\r\n", "malformed"),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "status"),
    ],
)
async def test_broken_answers_are_lost_with_their_cause(raw: bytes, kind: str):
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with listener:
        address = listener.sockets[0].getsockname()[:2]
        report = await Load(Target("http://x/infer", b"", address), rate=100).run(requests=3)
    assert [lost.kind for lost in report.lost] == [kind] * 3


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end", b"until the end"),
    ],
)
async def test_reads_every_way_to_frame_a_body(raw: bytes, body: bytes):
    reader = asyncio.StreamReader()
    reader.feed_data(raw)
    reader.feed_eof()
    assert (await Load._answer(reader))[3] == body


@pytest.mark.parametrize(
    ("head", "body", "version"),
    [
        (b"HTTP/1.1 200 OK\r\nx-MODEL-version:  a-1\r\n\r\n", b"", "a-1"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b'{"model_version":"a-2"}', "a-2"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b'{"model_version":""}', None),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"plain", None),
    ],
)
def test_version_comes_from_header_or_field(head: bytes, body: bytes, version: str | None):
    assert version_of(head, body) == version


def test_percentiles_and_report_of_nothing():
    report = Report(10, latencies=[0.1 * n for n in range(1, 101)])
    assert report.percentile(0.5) == pytest.approx(5.0)
    assert report.percentile(0.99) == pytest.approx(9.9)
    assert math.isnan(Report(10).percentile(0.5))
    assert Report(10).to_json()["latencySeconds"]["p50"] is None
    assert "lost: 0" in Report(10).lines()
    assert UNKNOWN not in report.versions


def test_only_plain_http_is_spoken():
    with pytest.raises(ValueError, match="http:// only"):
        Load(Target("https://x/infer", b""), rate=1)
