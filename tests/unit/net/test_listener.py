"""What strangers can cost one of our servers: connections, heads, time and log lines are bounded."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from modelwright.net import listener
from modelwright.net.listener import ConnectionLimits, Listener, LogThrottle, TlsCertificate

QUICK = ConnectionLimits(
    max_connections=8, max_per_address=8, head_seconds=0.2, request_seconds=0.4, keepalive_seconds=0.2
)
PATIENT = replace(QUICK, head_seconds=60.0, request_seconds=60.0, keepalive_seconds=60.0)
HALF = b"GET /ok HTTP/1.1\r\nHost: x\r\nX: "
WHOLE = b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n"


async def ok(_: web.Request) -> web.Response:
    return web.Response(text="ok")


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


async def hang(request: web.Request) -> web.StreamResponse:
    """Begins to answer, and never ends."""
    response = web.StreamResponse()
    await response.prepare(request)
    await asyncio.Event().wait()
    raise AssertionError


async def fail(_: web.Request) -> web.Response:
    raise RuntimeError("a mistake of ours")


@contextlib.asynccontextmanager
async def serving(
    room: ConnectionLimits, tls: Callable[[], ssl.SSLContext] | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Listener]:
    app = web.Application()
    app.router.add_get("/ok", ok)
    app.router.add_get("/hang", hang)
    app.router.add_get("/fail", fail)
    app.router.add_post("/echo", echo)
    app.router.add_post("/ok", ok)
    actual = await Listener.start(app, host, 0, room, tls=tls)
    try:
        yield actual
    finally:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(actual.close(), 1)


class Client:
    """A connection that sends bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def of(cls, server: Listener, sent: bytes = b"", host: str = "127.0.0.1") -> Client:
        self = cls(*await asyncio.open_connection(host, server.port))
        await self.send(sent)
        return self

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def status(self) -> int:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await self.reader.readexactly(int(length.split(b":")[1]))
        return int(head.split()[1])

    async def closed(self) -> bool:
        """Wait for the end of the connection."""
        try:
            return await asyncio.wait_for(self.reader.read(), 20) == b""
        except ConnectionError:
            return True


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
async def test_without_a_host_both_families_are_served(host: str) -> None:
    async with serving(PATIENT, host="") as server:
        client = await Client.of(server, WHOLE, host)
        assert await client.status() == 200


async def test_where_there_is_no_ipv6_ipv4_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    made = socket.create_server

    def refuse(address: tuple[str, int], **more: Any) -> socket.socket:
        if address[0] == "::":
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return made(address, **more)

    monkeypatch.setattr("modelwright.net.listener.socket.create_server", refuse)
    async with serving(PATIENT, host="") as server:
        client = await Client.of(server, WHOLE)
        assert await client.status() == 200


async def test_ports_of_both_families_that_are_taken_are_an_error() -> None:
    async with serving(PATIENT, host="") as server:
        with pytest.raises(OSError, match="in use"):
            await Listener.start(web.Application(), "", server.port, PATIENT)


@pytest.mark.parametrize("sent", [b"", HALF, b"\r\n\r\n" * 10 + HALF, b"POST /ok HTTP/1.1\r\nHost: x\r\n"])
async def test_an_incomplete_head_ends_the_connection_in_time(sent: bytes) -> None:
    async with serving(QUICK) as server:
        client = await Client.of(server, sent)
        assert await client.closed()
        assert server.open_connections == 0


async def test_a_head_that_comes_byte_by_byte_has_no_more_time() -> None:
    async with serving(QUICK) as server:
        client = await Client.of(server)

        async def trickle() -> None:
            with contextlib.suppress(ConnectionError):
                while not client.writer.is_closing():
                    await client.send(b"\r\n")
                    await asyncio.sleep(0.01)

        trickling = asyncio.create_task(trickle())
        assert await client.closed()
        trickling.cancel()


async def test_an_idle_connection_and_an_endless_answer_end() -> None:
    async with serving(QUICK) as server:
        idle = await Client.of(server, WHOLE)
        assert await idle.status() == 200
        assert await idle.closed()
        endless = await Client.of(server, WHOLE.replace(b"/ok", b"/hang"))
        await endless.reader.readuntil(b"\r\n\r\n")
        assert await endless.closed()


async def test_the_second_head_on_a_connection_has_a_time_of_its_own() -> None:
    async with serving(replace(QUICK, keepalive_seconds=60.0)) as server:
        client = await Client.of(server, WHOLE)
        assert await client.status() == 200
        await client.send(HALF)
        assert await client.closed()


@pytest.mark.parametrize(
    "head",
    [
        HALF + b"a" * 20_000,
        b"GET /" + b"a" * 20_000,
        b"GET /ok HTTP/1.1\r\n" + b"".join(b"X-%d: aaaaaaaaaa\r\n" % n for n in range(2_000)),
        b"\r\n\r\n" + HALF + b"a" * 20_000,
    ],
    ids=["one line", "target", "many lines", "after empty lines"],
)
async def test_a_large_head_is_refused_before_it_is_whole(head: bytes) -> None:
    async with serving(PATIENT) as server:
        client = await Client.of(server, head)
        assert (await client.reader.readline()).split()[1] in (b"431", b"400")


async def test_bodies_are_no_heads_and_the_next_request_is_read() -> None:
    async with serving(PATIENT) as server:
        client = await Client.of(server)
        for path in (b"/echo", b"/ok", b"/echo"):
            body = b"a\r\n\r\n" * 20_000
            await client.send(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path, len(body)) + body)
            assert await client.status() == 200
        await client.send(WHOLE * 3)
        assert [await client.status() for _ in range(3)] == [200] * 3


async def test_half_sent_requests_make_room_for_whole_ones() -> None:
    async with serving(PATIENT) as server:
        flood = [await Client.of(server, HALF) for _ in range(50)]
        for _ in range(20):
            client = await Client.of(server, WHOLE)
            assert await client.status() == 200
        assert server.open_connections <= PATIENT.max_connections
        assert server.refused_connections >= 50 - PATIENT.max_connections
        assert all([await client.closed() for client in flood[:40]])


async def test_an_idle_connection_outlives_one_without_a_request() -> None:
    async with serving(PATIENT) as server:
        gateway = await Client.of(server, WHOLE)
        assert await gateway.status() == 200
        for _ in range(50):
            await Client.of(server, HALF)
        await gateway.send(WHOLE)
        assert await gateway.status() == 200


async def test_a_request_under_way_is_closed_for_nobody() -> None:
    async with serving(PATIENT) as server:
        busy = [await Client.of(server, WHOLE.replace(b"/ok", b"/hang")) for _ in range(8)]
        for client in busy:
            assert await client.reader.readline() == b"HTTP/1.1 200 OK\r\n"
        assert await (await Client.of(server)).closed()
        assert not any(client.reader.at_eof() for client in busy)


async def test_one_address_has_its_share_only() -> None:
    async with serving(replace(PATIENT, max_per_address=4)) as server:
        for _ in range(20):
            await Client.of(server, HALF)
        client = await Client.of(server, WHOLE)
        assert await client.status() == 200
        assert server.open_connections <= 4


async def test_malformed_requests_log_a_line_and_bugs_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(PATIENT) as server:
        for sent in (
            b"nonsense\r\n\r\n",
            b"GET /ok HTTP/1.1\r\nBad Header: x\r\n\r\n",
            b"\x16\x03\x01\x00\r\n\r\n",
        ) * 5:
            client = await Client.of(server, sent)
            assert await client.status() == 400
        for _ in range(3):
            client = await Client.of(
                server, b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"
            )
            assert await client.status() == 400
        assert len(caplog.records) <= 2
        assert not any(record.exc_info for record in caplog.records)
        client = await Client.of(server, WHOLE.replace(b"/ok", b"/fail"))
        assert await client.status() == 500
        assert "a mistake of ours" in caplog.text


def test_warnings_that_strangers_cause_are_counted_between_two() -> None:
    now, logger = [0.0], logging.getLogger("test")
    noise = LogThrottle(logger, lambda: now[0])
    actual: list[tuple[str, Any]] = []
    logger.warning = lambda message, extra: actual.append((message, extra["not_logged_before"]))  # type: ignore[assignment]
    for second in (0, 1, 2, 61, 62):
        now[0] = float(second)
        noise.warn_throttled("a", "why")
    noise.warn_throttled("b", "why")
    assert actual == [("a", 0), ("a", 2), ("b", 0)]


def certificate(folder: Path, name: str) -> None:
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "1",
            "-subj",
            f"/CN={name}",
            "-addext",
            f"subjectAltName=DNS:{name}",
            "-keyout",
            folder / listener.KEY,
            "-out",
            folder / listener.CERTIFICATE,
        ],
        check=True,
        capture_output=True,
    )


async def met_as(server: Listener) -> str:
    """The certificate that a new connection sees, in PEM."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    actual = ssl.DER_cert_to_PEM_cert(writer.get_extra_info("ssl_object").getpeercert(True))
    writer.close()
    return actual


async def test_a_changed_certificate_is_loaded_unless_it_is_invalid(tmp_path: Path) -> None:
    now = [0.0]
    certificate(tmp_path, "first")
    mounted = TlsCertificate(str(tmp_path), lambda: now[0])
    async with serving(QUICK, mounted.get_context) as server:
        first = await met_as(server)
        certificate(tmp_path, "second")
        assert await met_as(server) == first
        now[0] = 11.0
        second = await met_as(server)
        assert second == (tmp_path / listener.CERTIFICATE).read_text()
        (tmp_path / listener.CERTIFICATE).write_text("nonsense")
        now[0] = 22.0
        assert await met_as(server) == second
        half = await Client.of(server, b"\x16\x03\x01")
        assert await half.closed()
        assert server.open_connections <= 1
    with pytest.raises(ssl.SSLError):
        TlsCertificate(str(tmp_path))


FLOOD = """
import asyncio, resource, socket, sys
from modelwright.app.health import HealthChecks, start_server
from modelwright.agents.comparer.comparer import Comparer
from modelwright.agents.comparer.settings import ComparerSettings

def held():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) >> 10

async def main(kind, count):
    if kind == "comparer":
        nowhere = "http://127.0.0.1:1"
        server = Comparer(ComparerSettings(nowhere, nowhere, "a", "b", host="127.0.0.1", port=0))
        await server.start()
    else:
        server = await start_server(HealthChecks(), "127.0.0.1", 0)
    before = held()
    part = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, ((before + 256) << 20, part))
    lines = (b"X-%d: %s\\r\\n" % (n, b"a" * 7900) for n in range(100))
    sent = b"GET /livez HTTP/1.1\\r\\nHost: x\\r\\n" + b"".join(lines)
    flood = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(sent[: int(sys.argv[3])])
        flood.append(writer)
        await asyncio.sleep(0)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /metrics HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    print((await reader.readline()).split()[1].decode(), held() - before)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.mark.parametrize(("kind", "size"), [("operator", 800_000), ("operator", 7_000), ("comparer", 60_000)])
def test_half_sent_requests_by_the_hundreds_fit_into_memory(kind: str, size: int) -> None:
    """A process of its own, client and server in one, of which the server's part was 1.5 MiB a connection."""
    done = subprocess.run(
        [sys.executable, "-c", FLOOD, kind, "300", str(size)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    status, grown = done.stdout.split()
    assert (status, int(grown) < 192) == ("200", True), done.stdout
