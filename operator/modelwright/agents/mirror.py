"""Server for mirrored requests, shared by the comparer and the drift monitor.

A gateway mirrors requests and discards the answers, so each copy is acknowledged at once, whatever its outcome. The
queue is bounded in number and in bytes; copies beyond the bounds are dropped and counted. A request without the token
that the Model's route sets is not a copy: it is refused and only counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.registry import Collector
from yarl import URL

from modelwright.agents.environment import COUNT_COPIES
from modelwright.api import names
from modelwright.net.listener import ConnectionLimits, Listener

log = logging.getLogger(__name__)

SHADOW_HEADER = "Modelwright-Shadow"
"""Header of every request made from a copy; it lets a model server distinguish it from a caller's."""

_RETRY_STATUSES = frozenset({408, 425, 429})
_INFER_PATH = re.compile(r"(/v2/models/[^/]+(/versions/[^/]+)?)/infer/?$")
_DROPPED_HEADERS = frozenset(
    {
        # of the connection (RFC 9110, 7.6.1), or set for each connection
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
        "expect",
        "accept-encoding",
        # of the caller's session with the gateway; no model server reads them
        "cookie",
        # of the caller's trace, in which these requests have no place
        "traceparent",
        "tracestate",
        "baggage",
        "b3",
        "x-b3-traceid",
        "x-b3-spanid",
        "x-b3-parentspanid",
        "x-b3-sampled",
        "x-b3-flags",
        "uber-trace-id",
        "x-datadog-trace-id",
        "x-datadog-parent-id",
        # of the route and of this process
        names.COPY_TOKEN_HEADER.lower(),
    }
)
MIRROR_ROOM = ConnectionLimits(
    max_connections=512,
    max_per_address=256,
    head_bytes=64 << 10,
    max_headers=128,
    request_seconds=20.0,
    keepalive_seconds=3630.0,
)
"""Bounds of the listener.

A gateway must never send a copy on a connection that is just being closed here, and one gateway has many connections:
those that have sent a request stay open longer than any gateway keeps them, and close early only if there are too many.
Heads are the callers', so they may be as large as gateways accept.
"""
BODY_SECONDS = 10.0
_CHUNK = 64 << 10
_KEEPALIVE_SECONDS = 2.0


PageHandler = Callable[[web.Request], Awaitable[web.Response]]


@dataclass(frozen=True, slots=True)
class RevisionAnswer:
    """One revision's answer to a mirrored request.

    `status`: HTTP status; None without a response, and then `timed_out` distinguishes a timeout from a failed
    connection. `seconds`: from the request to the end of the answer. `whole`: False if the answer was too large to
    read.
    """

    status: int | None
    seconds: float
    body: bytes = b""
    header_length: int | None = None
    timed_out: bool = False
    whole: bool = True

    @property
    def is_success(self) -> bool:
        """True for a status of 2xx."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def has_latency(self) -> bool:
        """True if `seconds` measures the revision's speed: a fast failure is not a fast answer."""
        return self.is_success or self.timed_out

    @property
    def is_client_error(self) -> bool:
        """True if the revision rejected the request as invalid, which says nothing about the server."""
        return self.status is not None and 400 <= self.status < 500 and self.status not in _RETRY_STATUSES


class MirrorLimits(Protocol):
    """Settings that the server needs. Sizes in bytes, times in seconds."""

    @property
    def queue_length(self) -> int: ...
    @property
    def queue_bytes(self) -> int: ...
    @property
    def max_body_bytes(self) -> int: ...
    @property
    def max_answer_bytes(self) -> int: ...
    @property
    def concurrency(self) -> int: ...
    @property
    def request_timeout_seconds(self) -> float: ...
    @property
    def stop_seconds(self) -> float: ...
    @property
    def copy_token(self) -> str: ...
    @property
    def copies_without_token(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


class MirrorCounters(Protocol):
    """Counters of copies that this server keeps."""

    refused: int
    received: int
    ignored: int
    dropped: int


@dataclass(frozen=True, slots=True)
class MirroredRequest:
    """A copy of a caller's request. `target`: path and query as the caller wrote them."""

    target: str
    headers: CIMultiDict[str]
    body: bytes


class MirrorServer(ABC):
    """Receives mirrored requests and processes them in workers.

    `start` binds the port, `stop` shuts down in order. All methods belong to one event loop.
    """

    decompress = False
    """Whether compressed bodies are unpacked; otherwise they are passed on as received."""

    def __init__(
        self,
        limits: MirrorLimits,
        counters: MirrorCounters,
        metrics: Collector,
        pages: Mapping[str, PageHandler] | None = None,
    ) -> None:
        """`pages`: handlers of GET requests by path, beside metrics and probes."""
        self._limits = limits
        self._counters = counters
        self._pages = {
            **(pages or {}),
            "/metrics": self._get_metrics,
            "/healthz": self._get_healthz,
            "/readyz": self._get_readyz,
        }
        self._registry = CollectorRegistry()
        self._registry.register(metrics)
        self._queue: asyncio.Queue[MirroredRequest] = asyncio.Queue(limits.queue_length)
        self._queued_bytes = 0
        self._stopping = False
        self._workers: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None
        self._listener: Listener | None = None
        self.port = limits.port

    @abstractmethod
    async def process_copy(self, copy: MirroredRequest) -> None:
        """Process one copy. Exceptions are logged, and `count_failed` is called."""

    @abstractmethod
    def count_failed(self) -> None:
        """Count a copy for which `process_copy` has raised."""

    @abstractmethod
    def total_counts(self) -> Mapping[str, int]:
        """Return the totals for the last line of the log."""

    async def readiness_problem(self) -> str:
        """Return why copies can't be processed yet; empty if they can."""
        return ""

    async def start(self) -> None:
        """Bind the port and start the workers. Raises OSError if the port is taken."""
        limits = self._limits
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=limits.request_timeout_seconds),
            skip_auto_headers=("User-Agent", "Accept", "Content-Type", "Accept-Encoding"),
        )
        app = web.Application(client_max_size=limits.max_body_bytes)
        for path, page in self._pages.items():
            app.router.add_get(path, page)
        app.router.add_route("*", "/{path:.*}", self._receive_copy)
        self._listener = await Listener.start(
            app, limits.host, limits.port, MIRROR_ROOM, decompress=self.decompress, backlog=1024
        )
        self.port = self._listener.port
        self._workers = [asyncio.create_task(self._run_worker()) for _ in range(limits.concurrency)]

    async def stop(self) -> None:
        """Refuse new copies, drop those in the queue, give those in process `stop_seconds`, then close everything."""
        self._stopping = True
        while not self._queue.empty():
            copy = self._queue.get_nowait()
            self._queued_bytes -= len(copy.body)
            self._counters.dropped += 1
            self._queue.task_done()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._queue.join(), self._limits.stop_seconds)
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
        if self._listener is not None:
            await self._listener.close()

    async def send_copy(self, url: str, copy: MirroredRequest) -> RevisionAnswer:
        """Send a copy to the revision with the Service `url` and return its answer. Never raises for a server's
        behaviour."""
        assert self._session is not None  # noqa: S101 - workers run after `start`
        started = time.monotonic()
        try:
            async with self._session.post(
                URL(url + copy.target, encoded=True), headers=copy.headers, data=copy.body, allow_redirects=False
            ) as response:
                body = await self._read_body(response)
                seconds = time.monotonic() - started
                length = json_header_length(response.headers)
                return RevisionAnswer(response.status, seconds, body or b"", length, whole=body is not None)
        except TimeoutError:
            return RevisionAnswer(None, time.monotonic() - started, timed_out=True)
        except (aiohttp.ClientError, OSError, ValueError):
            return RevisionAnswer(None, time.monotonic() - started)

    async def get_body(self, url: str, seconds: float) -> bytes | None:
        """GET `url` within `seconds`; None for anything but a complete answer with status 200."""
        assert self._session is not None  # noqa: S101 - workers run after `start`
        try:
            async with self._session.get(
                URL(url, encoded=True),
                headers={SHADOW_HEADER: "1"},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=seconds),
            ) as response:
                return await self._read_body(response) if response.status == 200 else None
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
            return None

    def _has_valid_token(self, request: web.Request) -> bool:
        token = self._limits.copy_token
        if not token:
            return self._limits.copies_without_token == COUNT_COPIES
        sent = request.headers.getall(names.COPY_TOKEN_HEADER, [])
        return len(sent) == 1 and hmac.compare_digest(sent[0].encode("utf-8", "surrogateescape"), token.encode())

    async def _receive_copy(self, request: web.Request) -> web.Response:
        if not self._has_valid_token(request):
            self._counters.refused += 1
            return web.Response(status=403)
        self._counters.received += 1
        if (
            request.method != "POST"
            or not _INFER_PATH.search(request.rel_url.raw_path)
            or SHADOW_HEADER in request.headers
        ):
            self._counters.ignored += 1
        else:
            queued = False
            try:
                queued = await self._enqueue_copy(request)
            finally:
                self._counters.dropped += not queued
        return web.Response(status=202)

    async def _enqueue_copy(self, request: web.Request) -> bool:
        limits = self._limits
        length = request.content_length
        reserved = limits.max_body_bytes if length is None else length
        full = self._stopping or self._queue.full() or self._queued_bytes + reserved > limits.queue_bytes
        if full or reserved > limits.max_body_bytes:
            return False
        self._queued_bytes += reserved
        body = None
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await request.read()
            self._queue.put_nowait(
                MirroredRequest(request.rel_url.raw_path_qs, _forwarded_headers(request.headers), body)
            )
        except (web.HTTPRequestEntityTooLarge, web.HTTPBadRequest, aiohttp.ClientError, OSError, asyncio.QueueFull):
            self._queued_bytes -= reserved
            return False
        except BaseException:
            self._queued_bytes -= reserved
            raise
        self._queued_bytes += len(body) - reserved
        return True

    async def _run_worker(self) -> None:
        while True:
            copy = await self._queue.get()
            try:
                await self.process_copy(copy)
            except Exception:
                self.count_failed()
                log.exception("a mirrored request could not be processed")
            finally:
                self._queued_bytes -= len(copy.body)
                self._queue.task_done()

    async def _read_body(self, response: aiohttp.ClientResponse) -> bytes | None:
        """Read the body; None if it is larger than `max_answer_bytes`."""
        body = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            body += chunk
            if len(body) > self._limits.max_answer_bytes:
                response.close()
                return None
        return bytes(body)

    async def _get_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _get_healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _get_readyz(self, _: web.Request) -> web.Response:
        lacks = "stopping" if self._stopping else await self.readiness_problem()
        return web.Response(status=503 if lacks else 200, text=lacks or "ok")


def model_metadata_path(target: str) -> str:
    """Return the metadata path of the model that an inference request addresses: the part before /infer."""
    path = target.partition("?")[0]
    match = _INFER_PATH.search(path)
    return path[: match.end(1)] if match is not None else path


def json_header_length(headers: CIMultiDict[str] | CIMultiDictProxy[str]) -> int | None:
    """Length of the JSON before binary tensors, in bytes; None if there are none."""
    text = headers.get("Inference-Header-Content-Length", "")
    return int(text) if text.isdecimal() else None


def _forwarded_headers(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Return the caller's headers that a model server may need: all but those of the connection, session and trace.

    Authorization is kept for servers that require a key: the copy goes where the gateway sends the caller's own
    request.
    """
    named = {name.strip().lower() for value in headers.getall("Connection", ()) for name in value.split(",")}
    sent = CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if name.lower() not in _DROPPED_HEADERS and name.lower() not in named
    )
    # Compression gains nothing for an answer that is read once.
    sent["Accept-Encoding"] = "identity"
    sent[SHADOW_HEADER] = "1"
    return sent
