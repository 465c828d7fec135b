"""Takes copies of callers' requests, asks both revisions, and tells what it counted.

A gateway sends the copies and throws the answers away, so every copy is answered at once, whatever becomes of it. What
waits is bounded in number and in bytes; when the comparer is behind, copies are dropped and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from yarl import URL

from modelwright.compare.comparison import Answer, Tolerance, compare
from modelwright.compare.settings import Settings
from modelwright.compare.tally import Tally
from modelwright.core.shadow import Pair

log = logging.getLogger(__name__)

MARK = "Modelwright-Shadow"
"""Header of every request that the comparer makes: a model server can tell it from a caller's."""

_INFER = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/infer/?$")
_NOT_SENT = frozenset(
    {
        # of the connection (RFC 9110, 7.6.1), or made anew for each one
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "host", "content-length", "expect", "accept-encoding",
        # of the caller's session with the gateway; no model server reads them
        "cookie",
        # of the caller's trace, in which these requests have no place
        "traceparent", "tracestate", "baggage", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid",
        "x-b3-sampled", "x-b3-flags", "uber-trace-id", "x-datadog-trace-id", "x-datadog-parent-id",
    }
)  # fmt: skip
_LARGE = 64 << 10
_CHUNK = 64 << 10
_IDLE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Copy:
    """A copied request. `target`: path and query as the caller wrote them."""

    target: str
    headers: CIMultiDict[str]
    body: bytes


class Comparer:
    """`start` binds the port, `stop` ends in order. All methods belong to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        pair = Pair(serving=settings.serving_revision, candidate=settings.candidate_revision)
        self.tally = Tally(pair, datetime.now(UTC))
        self._tolerance = Tolerance(settings.relative_tolerance, settings.absolute_tolerance)
        self._registry = CollectorRegistry()
        self._registry.register(self.tally)
        self._queue: asyncio.Queue[Copy] = asyncio.Queue(settings.queue_length)
        self._bytes = 0
        self._turn = 0
        self._large = asyncio.Lock()
        self._stopping = False
        self._workers: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self.port = settings.port

    async def start(self) -> None:
        """Listen and work. Raises OSError when the port is taken."""
        settings = self._settings
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=settings.request_timeout_seconds),
            skip_auto_headers=("User-Agent", "Accept", "Content-Type", "Accept-Encoding"),
        )
        app = web.Application(client_max_size=settings.max_body_bytes)
        app.router.add_get("/summary", self._summary)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_route("*", "/{path:.*}", self._take)
        # Bodies are passed on as they come, compressed ones too.
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, auto_decompress=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, settings.host, settings.port, backlog=1024).start()
        self.port = next(iter(self._runner.addresses))[1]
        self._workers = [asyncio.create_task(self._work()) for _ in range(settings.concurrency)]

    async def stop(self) -> None:
        """No new copies, what waits is dropped, what is under way gets `stop_seconds`, then all is closed."""
        self._stopping = True
        while not self._queue.empty():
            copy = self._queue.get_nowait()
            self._bytes -= len(copy.body)
            self.tally.dropped += 1
            self._queue.task_done()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._queue.join(), self._settings.stop_seconds)
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.tally.received += 1
        if request.method != "POST" or not _INFER.search(request.rel_url.raw_path) or MARK in request.headers:
            self.tally.ignored += 1
        else:
            taken = False
            try:
                taken = await self._enqueue(request)
            finally:
                self.tally.dropped += not taken
        return web.Response(status=202)

    async def _enqueue(self, request: web.Request) -> bool:
        settings = self._settings
        length = request.content_length
        reserved = settings.max_body_bytes if length is None else length
        full = self._stopping or self._queue.full() or self._bytes + reserved > settings.queue_bytes
        if full or reserved > settings.max_body_bytes:
            return False
        self._bytes += reserved
        body = None
        try:
            body = await request.read()
            self._queue.put_nowait(Copy(request.rel_url.raw_path_qs, _sent(request.headers), body))
        except (web.HTTPRequestEntityTooLarge, aiohttp.ClientError, OSError, asyncio.QueueFull):
            self._bytes -= reserved
            return False
        except BaseException:
            self._bytes -= reserved
            raise
        self._bytes += len(body) - reserved
        return True

    async def _work(self) -> None:
        while True:
            copy = await self._queue.get()
            try:
                await self._compare(copy)
            except Exception:
                self.tally.uncomparable += 1
                log.exception("a copy could not be compared")
            finally:
                self._bytes -= len(copy.body)
                self._queue.task_done()

    async def _compare(self, copy: Copy) -> None:
        settings = self._settings
        sides = [("serving", settings.serving_url), ("candidate", settings.candidate_url)]
        # Whoever is asked second waits until the first request is written: they take turns.
        self._turn ^= 1
        async with asyncio.TaskGroup() as group:
            asked = {
                side: group.create_task(self._ask(url + copy.target, copy))
                for side, url in sides[:: 1 - 2 * self._turn]
            }
        serving, candidate = asked["serving"].result(), asked["candidate"].result()
        if len(serving.body) + len(candidate.body) > _LARGE:
            # Answers that come in meanwhile must not look late; and parsed ones take much memory, so one at a time.
            async with self._large:
                found = await asyncio.to_thread(compare, serving, candidate, self._tolerance)
        else:
            found = compare(serving, candidate, self._tolerance)
        self.tally.add(serving, candidate, found)

    async def _ask(self, url: str, copy: Copy) -> Answer:
        assert self._session is not None  # noqa: S101 - workers run after `start`
        began = time.monotonic()
        try:
            async with self._session.post(
                URL(url, encoded=True), headers=copy.headers, data=copy.body, allow_redirects=False
            ) as response:
                body = await self._read(response)
                seconds = time.monotonic() - began
                header = response.headers.get("Inference-Header-Content-Length", "")
                length = int(header) if header.isdecimal() else None
                return Answer(response.status, seconds, body or b"", length, whole=body is not None)
        except TimeoutError:
            return Answer(None, time.monotonic() - began, timed_out=True)
        except (aiohttp.ClientError, OSError, ValueError):
            return Answer(None, time.monotonic() - began)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes | None:
        """The body; None when it is larger than is read."""
        body = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            body += chunk
            if len(body) > self._settings.max_answer_bytes:
                response.close()
                return None
        return bytes(body)

    async def _summary(self, _: web.Request) -> web.Response:
        return web.Response(text=json.dumps(self.tally.summary().wire()), content_type="application/json")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _readyz(self, _: web.Request) -> web.Response:
        return web.Response(status=503 if self._stopping else 200, text="stopping" if self._stopping else "ok")


def _sent(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """What a model server may need of a caller's headers: all but those of the connection, the session and the trace.

    Authorization is kept, for servers that ask for a key: it goes where the gateway sends the caller's own request.
    """
    named = {name.strip().lower() for value in headers.getall("Connection", ()) for name in value.split(",")}
    sent = CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in _NOT_SENT and name.lower() not in named
    )
    # Nothing is gained by packing an answer that is read once.
    sent["Accept-Encoding"] = "identity"
    sent[MARK] = "1"
    return sent
