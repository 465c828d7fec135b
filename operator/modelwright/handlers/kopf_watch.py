"""Kopf as a watch frame: it signs in, and sends requests again that fail; lists and watches are read here, as bytes.

Why only that, and the settings: docs/adr/0001-kopf-as-watch-frame.md and 0026-what-one-object-may-take.md.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp
import kopf
from kopf._cogs.clients import api
from kopf._cogs.clients.errors import APIError

from modelwright.kube import codec, raw_objects
from modelwright.kube.kinds import Kind
from modelwright.kube.missing_rights import MISSING
from modelwright.kube.resync import WatchedKind

log = logging.getLogger(__name__)

EventSink = Callable[[Kind, str | None, Mapping[str, Any]], object]
CredentialsProvider = Callable[[], Awaitable[kopf.ConnectionInfo]]

MAX_EVENTS_PER_TURN = 50
"""Events of one stream that are taken before others get their turn; one that is large is taken alone."""
MAX_CONCURRENT_LISTS = 4
"""So many streams are listed at the same time: of each a page is in memory."""

DENIED_RETRY_SECONDS = (1.0, 5.0, 15.0, 30.0)
"""Between two tries of a stream that the API server doesn't let this process have."""
DENIED_CODES = (401, 403)

_CONNECTION_LOST = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError)


class WatchError(Exception):
    """A watch that can't go on: the API server says so, or what it sends is no event."""


class KopfStreams:
    """One stream of events for each watched kind and namespace.

    `sink(kind, event_type, obj)` takes each event; `event_type` is None for objects of a list. It must not keep or
    change `obj`. What it raises is logged; the event is then lost until the next sweep.

    A stream that is refused (401, 403) is tried again: a right that was taken away may be given back. Namespaces whose
    first lists are refused don't keep the others waiting: `listed` is set without them, `unread` says so, and
    `completed(namespace)` is called when all of theirs have been read after all.
    """

    def __init__(
        self,
        watched: Iterable[WatchedKind],
        sink: EventSink,
        settings: kopf.OperatorSettings,
        namespaces: Iterable[str] = (),
    ) -> None:
        self._watched = tuple(watched)
        self._sink = sink
        self._settings = settings
        self._namespaces = tuple(namespaces)
        self._tasks: list[asyncio.Task[None]] = []
        self._unlisted: Counter[str | None] = Counter()
        self._refused: Counter[str | None] = Counter()
        self._list_slots = asyncio.Semaphore(MAX_CONCURRENT_LISTS)
        self.listed = asyncio.Event()
        """Set once the first list of every stream has reached the sink, or was refused in one of several namespaces."""
        self.completed: Callable[[str], None] = lambda _: None

    def is_unread(self, namespace: str) -> bool:
        """Whether something of a namespace has never been read, because the API server refuses it."""
        return bool(self._unlisted) and self._unlisted[namespace] > 0

    async def run(self, login: CredentialsProvider, *, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Watch until `stop` is set. A stream that ends ends this, with its error: a store that ages helps nobody.

        `login` is asked at start and whenever a token has run out; `ready` is set when Kopf has started.
        """
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry, id="login")(_without_arguments(login))
        kopf.on.startup(registry=registry, id="streams")(_without_arguments(self._start_streams))
        kopf.on.cleanup(registry=registry, id="streams")(_without_arguments(self._stop_streams))
        operator = asyncio.create_task(
            kopf.operator(
                registry=registry,
                settings=self._settings,
                clusterwide=not self._namespaces,
                namespaces=self._namespaces,
                ready_flag=ready,
                stop_flag=stop,
            ),
            name="kopf",
        )
        started = asyncio.create_task(ready.wait(), name="kopf has started")
        try:
            await asyncio.wait({operator, started}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({operator, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
            ended = [task for task in self._tasks if task.done() and not task.cancelled()]
            if ended and not stop.is_set():
                stop.set()
                await asyncio.wait({operator})
                ended[0].result()
            await operator
        finally:
            started.cancel()
            operator.cancel()

    async def _start_streams(self) -> None:
        """Open the streams. Called by Kopf, so that they are in its context, where its credentials are."""
        places = [(what, namespace) for what in self._watched for namespace in what.namespaces or (None,)]
        self._unlisted = Counter(namespace for _, namespace in places)
        for what, namespace in places:
            where = f"{what.kind.kind} in {namespace}" if namespace else what.kind.kind
            self._tasks.append(asyncio.create_task(self._run_stream(what, namespace), name=f"watch of {where}"))

    async def _stop_streams(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run_stream(self, what: WatchedKind, namespace: str | None) -> None:
        first, refusals = True, 0
        while True:
            pause = self._settings.watching.reconnect_backoff
            try:
                async with self._list_slots:
                    version = await self._list_kind(what, namespace)
                MISSING.record_success("list", what.kind, what.kind.path(namespace))
                if first:
                    self._finish_first_list(namespace, refused_before=refusals > 0)
                first, refusals = False, 0
                since: str | None = version
                while since is not None:
                    since = await self._watch_once(what, namespace, since)
            except _CONNECTION_LOST:
                # The list: a watch that is lost is opened again where it was.
                pass
            except APIError as error:
                if error.status in DENIED_CODES:
                    pause = self._report_refusal(what, namespace, error, refusals)
                    if first and not refusals:
                        self._refused[namespace] += 1
                        self._update_listed()
                    refusals += 1
                # A list whose continue token has run out begins again as well.
                elif error.status not in (410, 429):
                    raise
            await asyncio.sleep(pause)

    def _finish_first_list(self, namespace: str | None, *, refused_before: bool) -> None:
        self._unlisted[namespace] -= 1
        self._refused[namespace] -= refused_before
        complete, late = not self._unlisted[namespace], self.listed.is_set()
        self._unlisted = +self._unlisted
        self._update_listed()
        if complete and late and namespace is not None:
            self.completed(namespace)

    def _update_listed(self) -> None:
        """Without what is refused in one of several namespaces; what is refused everywhere is waited for."""
        if all(
            namespace is not None and self._refused[namespace] == left for namespace, left in self._unlisted.items()
        ):
            self.listed.set()

    def _report_refusal(self, what: WatchedKind, namespace: str | None, error: APIError, refusals: int) -> float:
        """Seconds until the next try."""
        pause = DENIED_RETRY_SECONDS[min(refusals, len(DENIED_RETRY_SECONDS) - 1)] * random.uniform(0.8, 1.2)  # noqa: S311
        fields = {
            "kind": what.kind.kind,
            "namespace": namespace,
            "error": str(error.message),
            "retry_in": round(pause, 1),
        }
        MISSING.record_refusal(str(error.message))
        log.error("the API server does not let this process list or watch", extra=fields)
        return pause

    async def _list_kind(self, what: WatchedKind, namespace: str | None) -> str:
        """Give everything there is to the sink; the resourceVersion to watch from."""
        kind, taken, version = what.kind, 0, ""
        path = kind.path(namespace)

        async def ask(limit: int, token: str) -> bytes:
            query = {"limit": str(limit)} | _label_query(what) | ({"continue": token} if token else {})
            url = f"{path}?{urlencode(query)}"
            async with await api.request("get", url, settings=self._settings, logger=log) as response:
                with _closed_as_lost():
                    return await raw_objects.read_body(response, raw_objects.PAGE_BYTES)

        async for page in raw_objects.read_pages(ask, self._settings.watching.chunk_size or 0):
            version = page.version
            for raw in page.items:
                self._sink_object(kind, None, raw)
                taken += 1
                if taken % MAX_EVENTS_PER_TURN == 0 or raw_objects.is_large(raw):
                    await asyncio.sleep(0)
        return version

    async def _watch_once(self, what: WatchedKind, namespace: str | None, version: str) -> str | None:
        """One connection: events go to the sink. From where to go on; None when everything must be listed again."""
        try:
            silence = self._settings.watching.inactivity_timeout or 0
            lines = self._watch_lines(what, namespace, version)
            async with asyncio.timeout(silence) as timeout, aclosing(lines):
                taken = 0
                async for line in lines:
                    event, raw = raw_objects.parse_event(line)
                    if event == "ERROR":
                        error = codec.loads(raw)
                        if error.get("code") in (410, *DENIED_CODES):
                            return None
                        raise WatchError(f"watch of {what.kind}: {error}")
                    if event == "BOOKMARK":
                        version = raw_objects.parse_version(raw)
                    elif event in ("ADDED", "MODIFIED", "DELETED"):
                        version = self._sink_object(what.kind, event, raw)
                    else:
                        log.warning("an event of an unknown type is ignored", extra={"type": event})
                    timeout.reschedule(asyncio.get_running_loop().time() + silence)
                    taken += 1
                    if taken % MAX_EVENTS_PER_TURN == 0 or raw_objects.is_large(raw):
                        await asyncio.sleep(0)
        except _CONNECTION_LOST:
            pass
        return version

    async def _watch_lines(self, what: WatchedKind, namespace: str | None, version: str) -> AsyncGenerator[bytes]:
        watching = self._settings.watching
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version} | _label_query(what)
        query["timeoutSeconds"] = str(watching.server_timeout)
        response = await api.request(
            "get",
            f"{what.kind.path(namespace)}?{urlencode(query)}",
            settings=self._settings,
            # `connect` includes the DNS, which `sock_connect` doesn't.
            timeout=aiohttp.ClientTimeout(
                total=watching.client_timeout, connect=30, sock_connect=watching.connect_timeout
            ),
            logger=log,
        )
        MISSING.record_success("watch", what.kind, what.kind.path(namespace))
        async with response:
            with _closed_as_lost():
                async for line in api.iter_jsonlines(response.content):
                    yield line

    def _sink_object(self, kind: Kind, event: str | None, raw: raw_objects.Raw) -> str:
        """Give an object to the sink; its resourceVersion."""
        obj = raw_objects.parse_object(kind, raw)
        try:
            self._sink(kind, event, obj)
        except Exception:
            name = obj["metadata"].get("name")
            log.exception("a watched event could not be taken", extra={"kind": kind.kind, "object": name})
        return str(obj["metadata"].get("resourceVersion", ""))


def _label_query(what: WatchedKind) -> dict[str, str]:
    return {"labelSelector": what.labels} if what.labels else {}


def _without_arguments(function: Callable[[], Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """`function` as a handler of Kopf, which passes what nobody asked for."""

    async def handle(**_: Any) -> Any:
        return await function()

    return handle


def build_settings() -> kopf.OperatorSettings:
    """Kopf's settings for watching only: nothing is written, stored or posted, and dead streams are noticed."""
    s = kopf.OperatorSettings()
    # Streams of several kinds, and of several operators, should not all end in the same second.
    s.watching.server_timeout = 290 + random.randint(0, 60)  # noqa: S311
    s.watching.client_timeout = s.watching.server_timeout + 30
    s.watching.connect_timeout = 10
    s.watching.reconnect_backoff = 1.0
    s.watching.inactivity_timeout = 70
    # Of a larger list more stays in the memory of the process when it has long been read.
    s.watching.chunk_size = 100
    s.networking.request_timeout = 30
    s.networking.connect_timeout = 5
    s.networking.error_backoffs = (1, 2, 5)
    s.networking.enforce_retry_after = True
    s.scanning.disabled = True
    s.peering.standalone = True
    s.posting.enabled = False
    s.execution.max_workers = 1
    s.process.ultimate_exiting_timeout = 30
    return s


@contextmanager
def _closed_as_lost() -> Iterator[None]:
    """When it signs in again, Kopf closes the session under all that read; aiohttp raises RuntimeError for these."""
    try:
        yield
    except RuntimeError as error:
        if "closed" not in str(error):
            raise
        raise aiohttp.ClientConnectionError(str(error)) from error
