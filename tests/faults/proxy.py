"""A proxy before the API server, for one operator: injects faults by a seeded chance, counts them, and remembers what
was written through it.

It speaks plain HTTP on loopback and asks the API server with the administrator's certificate of a kubeconfig. A seed
gives the same draws for the same requests in the same order; requests of several tasks come in any order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter, defaultdict, deque
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType

import aiohttp
import yaml
from aiohttp import web
from yarl import URL

from tests.lib.api import Api

NOT_FORWARDED = ("host", "accept-encoding", "content-length", "transfer-encoding", "connection")
NOT_WORK = ("leases", "events", "tokenreviews", "subjectaccessreviews")
REMEMBERED_LISTS = 6
LATE_SECONDS = 2.0
LONGEST_LINE = 2**22


class Fault(StrEnum):
    """What is done to a request; the value names it for people."""

    THROTTLED = "429 with Retry-After"
    ERROR_500 = "500"
    ERROR_503 = "503"
    CONFLICT = "409 on a write"
    SILENCE = "no answer"
    RESET = "connection reset"
    LOST_ANSWER = "write done, answer lost"
    LATE_ERROR = "write done, answered with 504"
    LATE_WRITE = "connection reset, write arrives later"
    CUT_ANSWER = "answer cut in its middle"
    STALE_LIST = "older list"
    EXPIRED_PAGE = "410 on the next page of a list"
    EXPIRED_WATCH = "410 in a watch"
    SILENT_WATCH = "watch open, events swallowed"
    CLOSED_WATCH = "watch half-closed"
    CUT_WATCH = "watch cut in the middle of an event"

    @property
    def key(self) -> str:
        """As part of a namespace's name."""
        return self.name.lower().replace("_", "-")


_WATCH = {Fault.EXPIRED_WATCH, Fault.SILENT_WATCH, Fault.CLOSED_WATCH, Fault.CUT_WATCH}
_WRITE = {Fault.CONFLICT, Fault.LOST_ANSWER, Fault.LATE_ERROR, Fault.LATE_WRITE}
_ANY = {Fault.THROTTLED, Fault.ERROR_500, Fault.ERROR_503, Fault.SILENCE, Fault.RESET}


@dataclass(frozen=True)
class Asked:
    """A request as far as faults care."""

    method: str
    path: str
    resource: str
    name: str
    watch: bool
    page: bool
    dry_run: bool

    @classmethod
    def of(cls, request: web.Request) -> Asked:
        parts = request.path.strip("/").split("/")
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        if len(rest) > 2 and rest[0] == "namespaces":
            rest = rest[2:]
        resource, name = (*rest[:2], "", "")[:2]
        query = request.query
        return cls(
            request.method,
            request.path,
            resource,
            name,
            watch=query.get("watch") in ("1", "true"),
            page="continue" in query,
            dry_run="dryRun" in query,
        )

    @property
    def list(self) -> bool:
        return self.method == "GET" and bool(self.resource) and not self.name and not self.watch

    @property
    def write(self) -> bool:
        return self.method != "GET" and not self.dry_run

    @property
    def work(self) -> bool:
        """A write that counts: not of a Lease or an Event, and no review."""
        return self.write and self.resource not in NOT_WORK

    def suffers(self, fault: Fault) -> bool:
        """Whether this fault can happen to it."""
        if fault in _WATCH:
            return self.watch
        if fault in _WRITE:
            return self.write
        if fault is Fault.STALE_LIST:
            return self.list and not self.page
        if fault is Fault.EXPIRED_PAGE:
            return self.list
        return fault in _ANY or not self.watch


@dataclass
class Written:
    """What reached the API server through a proxy and was accepted, Leases, Events, dry runs and reviews apart."""

    count: int = 0
    created: Counter[str] = field(default_factory=Counter)
    """Resource -> objects made."""


class Proxy:
    """`async with Proxy(kubeconfig, folder)`; operators use `proxy.kubeconfig`.

    `faults` may happen, each request with chance `rate`, until there have been `budget`. Later the proxy only forwards.
    """

    def __init__(
        self,
        kubeconfig: Path,
        file: Path,
        faults: Collection[Fault] = (),
        *,
        seed: int | str = 0,
        rate: float = 0.2,
        budget: int = 40,
    ) -> None:
        self._upstream = Api(kubeconfig)
        self.kubeconfig = file
        self._faults = tuple(faults)
        self._rate = rate
        self._budget = budget
        self._chance = random.Random(seed)
        self._lists: dict[str, deque[tuple[int, bytes]]] = defaultdict(lambda: deque(maxlen=REMEMBERED_LISTS))
        self._later: set[asyncio.Task[None]] = set()
        self._swallows = False
        self.injected: Counter[Fault] = Counter()
        self.written = Written()

    async def __aenter__(self) -> Proxy:
        await self._upstream.__aenter__()
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        write_kubeconfig(self.kubeconfig, url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
        await asyncio.gather(*self._later, return_exceptions=True)
        await self._upstream.__aexit__(kind, error, trace)

    def partition(self) -> None:
        """From now on nothing passes, in either direction, and no connection is closed."""
        self._swallows = True

    def heal(self) -> None:
        """The end of the partition. What was swallowed stays so."""
        self._swallows = False

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self._swallows:
            return await _never()
        asked = Asked.of(request)
        fault = self._draw(asked)
        if asked.watch and (fault is None or fault in _WATCH):
            return await self._watch(request, fault)
        body = await request.read()
        if fault is Fault.STALE_LIST and not self._lists[_listing(request)]:
            fault = None
        if fault is Fault.EXPIRED_PAGE and not asked.page:
            # A page of one object, so that there is a next one.
            return await self._forward(request, asked, body, request.url.update_query(limit="1"))
        if fault is not None and self._take(fault):
            return await self._fail(fault, request, asked, body)
        return await self._forward(request, asked, body)

    def _draw(self, asked: Asked) -> Fault | None:
        possible = [fault for fault in self._faults if asked.suffers(fault)]
        if not possible or self.injected.total() >= self._budget or self._chance.random() >= self._rate:
            return None
        return self._chance.choice(possible)

    def _take(self, fault: Fault) -> bool:
        """Count a fault at the moment it happens; False when there have been enough."""
        if self.injected.total() >= self._budget:
            return False
        self.injected[fault] += 1
        return True

    async def _fail(self, fault: Fault, request: web.Request, asked: Asked, body: bytes) -> web.StreamResponse:
        match fault:
            case Fault.THROTTLED:
                return _status(429, "TooManyRequests", "too many requests", **{"Retry-After": "1"})
            case Fault.ERROR_500:
                return _status(500, "InternalError", "an error on the server has prevented the request")
            case Fault.ERROR_503:
                return web.Response(status=503, text="no healthy upstream")
            case Fault.CONFLICT:
                return _status(409, "Conflict", "the object has been modified; please apply your changes to the latest")
            case Fault.EXPIRED_PAGE:
                return _status(410, "Expired", "the provided continue parameter is too old")
            case Fault.SILENCE:
                return await _never()
            case Fault.RESET:
                return _reset(request)
            case Fault.LATE_WRITE:
                self._later.add(asyncio.create_task(self._deliver(request, body)))
                return _reset(request)
            case Fault.STALE_LIST:
                return _json(self._lists[_listing(request)][0][1])
        status, raw = await self._ask(request, asked, body)
        match fault:
            case Fault.LOST_ANSWER:
                return _reset(request)
            case Fault.LATE_ERROR:
                return _status(504, "Timeout", "request did not complete within the allotted timeout")
        # It ends as a whole answer would, so that only its content tells.
        return _json(raw[: max(1, len(raw) // 2)], status)

    async def _deliver(self, request: web.Request, body: bytes) -> None:
        url, method, headers = request.url, request.method, _headers(request)
        await asyncio.sleep(LATE_SECONDS)
        with contextlib.suppress(aiohttp.ClientError):
            # Not counted: what the operator has taken away meanwhile is made again by it, and by nobody's fault.
            await self._upstream.raw(method, url.raw_path_qs, headers, body)

    async def _forward(
        self, request: web.Request, asked: Asked, body: bytes, url: URL | None = None
    ) -> web.StreamResponse:
        try:
            status, raw = await self._ask(request, asked, body, url)
        except aiohttp.ClientError:
            # The API server is away: so are we.
            return _reset(request)
        if self._swallows:
            return await _never()
        if status == 200 and asked.list and not asked.page:
            self._remember(_listing(request), raw)
        return _json(raw, status)

    def _remember(self, listing: str, raw: bytes) -> None:
        """Keep a whole list, oldest first."""
        if not self._faults:
            return
        metadata = json.loads(raw).get("metadata", {})
        version = int(metadata.get("resourceVersion") or 0)
        known = self._lists[listing]
        if not metadata.get("continue") and (not known or known[-1][0] < version):
            known.append((version, raw))

    async def _ask(self, request: web.Request, asked: Asked, body: bytes, url: URL | None = None) -> tuple[int, bytes]:
        path = (url or request.url).raw_path_qs
        status, raw = await self._upstream.raw(request.method, path, _headers(request), body)
        if asked.work and status < 300:
            self.written.count += 1
            if status == 201:
                self.written.created[asked.resource] += 1
        return status, raw

    async def _watch(self, request: web.Request, fault: Fault | None) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        passes = self._chance.randint(0, 2)
        silent = False
        try:
            async with self._upstream.stream(request.rel_url.raw_path_qs, _headers(request)) as answer:
                if answer.status != 200:
                    return _json(await answer.read(), answer.status)
                await response.prepare(request)
                async for line in answer.content:
                    passes -= 1
                    silent = silent or self._swallows
                    if fault is not None and passes < 0 and not silent:
                        taken, fault = fault, None
                        if self._take(taken):
                            if taken is not Fault.SILENT_WATCH:
                                return await _break(taken, request, response, line)
                            silent = True
                    if not silent:
                        await response.write(line)
        except aiohttp.ClientError:
            pass
        if silent:
            return await _never()
        return response if response.prepared else _reset(request)


def write_kubeconfig(file: Path, url: str) -> None:
    """How to reach a server that asks nobody who they are."""
    content = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file.write_text(yaml.safe_dump(content))


def _listing(request: web.Request) -> str:
    return f"{request.headers.get('Accept')} {request.path} {request.query.get('labelSelector')}"


def _headers(request: web.Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name.lower() not in NOT_FORWARDED}


def _json(raw: bytes, status: int = 200) -> web.Response:
    return web.Response(status=status, body=raw, content_type="application/json")


def _status(code: int, reason: str, message: str, **headers: str) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return web.json_response(body, status=code, headers=headers)


async def _never() -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


def _reset(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _break(fault: Fault, request: web.Request, response: web.StreamResponse, line: bytes) -> web.StreamResponse:
    """End a watch in a bad way, instead of sending its next line."""
    if fault is Fault.EXPIRED_WATCH:
        gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
        await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
        return response
    if fault is Fault.CUT_WATCH:
        await response.write(line[: len(line) // 2])
    if request.transport is not None:
        # Without the chunk that says that this was all.
        request.transport.close()
    return response
