"""Uses Kopf as a watch frame: Kopf authenticates and retries failed requests; this module reads lists and watches.

Reasons and settings: docs/adr/0001-kopf-as-watch-frame.md and 0026-what-one-object-may-take.md.
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
"""Events of one stream handled before yielding to the event loop, which also happens after each large one."""
MAX_CONCURRENT_LISTS = 4
"""Streams listed at the same time: each holds a page in memory."""

DENIED_RETRY_SECONDS = (1.0, 5.0, 15.0, 30.0)
"""Pauses between attempts of a stream that the API server denies."""
DENIED_CODES = (401, 403)

_CONNECTION_LOST = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError)


class WatchError(Exception):
    """A watch that cannot continue: the API server sent an error, or a line that is no event."""


class KopfStreams:
    """One stream of events for each watched kind and namespace.

    `sink(kind, event_type, obj)` receives each event; `event_type` is None for objects of a list. It must not keep or
    modify `obj`. Its exceptions are logged; the event is then lost until the next resync.

    A denied stream (401, 403) is retried: a revoked right may be granted again. Namespaces whose first lists are denied
    do not delay the others: `listed` is set without them, `is_unread` reports them, and `completed(namespace)` is
    called when all of their lists have succeeded.
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
        """Set once the first list of every stream has reached the sink, or was denied in one of several namespaces."""
        self.completed: Callable[[str], None] = lambda _: None

    def is_unread(self, namespace: str) -> bool:
        """Return whether some kind of a namespace has never been read, because the API server denies it."""
        return bool(self._unlisted) and self._unlisted[namespace] > 0

    async def run(self, login: CredentialsProvider, *, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Watch until `stop` is set. Raises the error of the first stream that ends: a stale store is of no use.

        `login` is called at start and whenever a token has expired; `ready` is set when Kopf has started.
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
        """Open the streams. Called by Kopf, so that they run in its context, which holds its credentials."""
        places = [(watched, namespace) for watched in self._watched for namespace in watched.namespaces or (None,)]
        self._unlisted = Counter(namespace for _, namespace in places)
        for watched, namespace in places:
            name = f"{watched.kind.kind} in {namespace}" if namespace else watched.kind.kind
            self._tasks.append(asyncio.create_task(self._run_stream(watched, namespace), name=f"watch of {name}"))

    async def _stop_streams(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run_stream(self, watched: WatchedKind, namespace: str | None) -> None:
        first, refusals = True, 0
        while True:
            pause = self._settings.watching.reconnect_backoff
            try:
                async with self._list_slots:
                    version = await self._list_kind(watched, namespace)
                MISSING.record_success("list", watched.kind, watched.kind.path(namespace))
                if first:
                    self._finish_first_list(namespace, refused_before=refusals > 0)
                first, refusals = False, 0
                since: str | None = version
                while since is not None:
                    since = await self._watch_once(watched, namespace, since)
            except _CONNECTION_LOST:
                # The list failed: a lost watch is opened again from its last resourceVersion.
                pass
            except APIError as error:
                if error.status in DENIED_CODES:
                    pause = self._report_refusal(watched, namespace, error, refusals)
                    if first and not refusals:
                        self._refused[namespace] += 1
                        self._update_listed()
                    refusals += 1
                # A list whose continue token has expired starts again as well.
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
        """Set `listed` unless a list is missing. Lists denied in one of several namespaces are not waited for; those
        denied everywhere are."""
        if all(
            namespace is not None and self._refused[namespace] == unlisted
            for namespace, unlisted in self._unlisted.items()
        ):
            self.listed.set()

    def _report_refusal(self, watched: WatchedKind, namespace: str | None, error: APIError, refusals: int) -> float:
        """Log a denied stream; returns the seconds until the next attempt."""
        pause = DENIED_RETRY_SECONDS[min(refusals, len(DENIED_RETRY_SECONDS) - 1)] * random.uniform(0.8, 1.2)  # noqa: S311
        fields = {
            "kind": watched.kind.kind,
            "namespace": namespace,
            "error": str(error.message),
            "retry_in": round(pause, 1),
        }
        MISSING.record_refusal(str(error.message))
        log.error("the API server denies this process to list or watch", extra=fields)
        return pause

    async def _list_kind(self, watched: WatchedKind, namespace: str | None) -> str:
        """Pass all objects to the sink; returns the resourceVersion to watch from."""
        kind, handled, version = watched.kind, 0, ""
        path = kind.path(namespace)

        async def read_page(limit: int, token: str) -> bytes:
            query = {"limit": str(limit)} | _label_query(watched) | ({"continue": token} if token else {})
            url = f"{path}?{urlencode(query)}"
            async with await api.request("get", url, settings=self._settings, logger=log) as response:
                with _closed_as_lost():
                    return await raw_objects.read_body(response, raw_objects.PAGE_BYTES)

        async for page in raw_objects.read_pages(read_page, self._settings.watching.chunk_size or 0):
            version = page.version
            for raw in page.items:
                self._sink_object(kind, None, raw)
                handled += 1
                if handled % MAX_EVENTS_PER_TURN == 0 or raw_objects.is_large(raw):
                    await asyncio.sleep(0)
        return version

    async def _watch_once(self, watched: WatchedKind, namespace: str | None, version: str) -> str | None:
        """Watch over one connection and pass events to the sink. Returns the resourceVersion to continue from; None
        when everything must be listed again."""
        try:
            silence = self._settings.watching.inactivity_timeout or 0
            lines = self._watch_lines(watched, namespace, version)
            async with asyncio.timeout(silence) as timeout, aclosing(lines):
                handled = 0
                async for line in lines:
                    event, raw = raw_objects.parse_event(line)
                    if event == "ERROR":
                        error = codec.loads(raw)
                        if error.get("code") in (410, *DENIED_CODES):
                            return None
                        raise WatchError(f"watch of {watched.kind}: {error}")
                    if event == "BOOKMARK":
                        version = raw_objects.parse_version(raw)
                    elif event in ("ADDED", "MODIFIED", "DELETED"):
                        version = self._sink_object(watched.kind, event, raw)
                    else:
                        log.warning("an event of an unknown type is ignored", extra={"type": event})
                    timeout.reschedule(asyncio.get_running_loop().time() + silence)
                    handled += 1
                    if handled % MAX_EVENTS_PER_TURN == 0 or raw_objects.is_large(raw):
                        await asyncio.sleep(0)
        except _CONNECTION_LOST:
            pass
        return version

    async def _watch_lines(self, watched: WatchedKind, namespace: str | None, version: str) -> AsyncGenerator[bytes]:
        watching = self._settings.watching
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version} | _label_query(watched)
        query["timeoutSeconds"] = str(watching.server_timeout)
        response = await api.request(
            "get",
            f"{watched.kind.path(namespace)}?{urlencode(query)}",
            settings=self._settings,
            # `connect` includes DNS, which `sock_connect` does not.
            timeout=aiohttp.ClientTimeout(
                total=watching.client_timeout, connect=30, sock_connect=watching.connect_timeout
            ),
            logger=log,
        )
        MISSING.record_success("watch", watched.kind, watched.kind.path(namespace))
        async with response:
            with _closed_as_lost():
                async for line in api.iter_jsonlines(response.content):
                    yield line

    def _sink_object(self, kind: Kind, event: str | None, raw: raw_objects.Raw) -> str:
        """Pass an object to the sink; returns its resourceVersion."""
        obj = raw_objects.parse_object(kind, raw)
        try:
            self._sink(kind, event, obj)
        except Exception:
            name = obj["metadata"].get("name")
            log.exception("a watched event could not be handled", extra={"kind": kind.kind, "object": name})
        return str(obj["metadata"].get("resourceVersion", ""))


def _label_query(watched: WatchedKind) -> dict[str, str]:
    return {"labelSelector": watched.labels} if watched.labels else {}


def _without_arguments(function: Callable[[], Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Wrap `function` as a handler of Kopf, which passes arguments that are not needed."""

    async def handle(**_: Any) -> Any:
        return await function()

    return handle


def build_settings() -> kopf.OperatorSettings:
    """Build Kopf's settings for watching only: nothing is written, stored or posted, and dead streams are detected."""
    settings = kopf.OperatorSettings()
    # Streams of several kinds, and of several operators, should not all end in the same second.
    settings.watching.server_timeout = 290 + random.randint(0, 60)  # noqa: S311
    settings.watching.client_timeout = settings.watching.server_timeout + 30
    settings.watching.connect_timeout = 10
    settings.watching.reconnect_backoff = 1.0
    settings.watching.inactivity_timeout = 70
    # Larger pages would leave more memory allocated to the process long after they were read.
    settings.watching.chunk_size = 100
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = (1, 2, 5)
    settings.networking.enforce_retry_after = True
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.execution.max_workers = 1
    settings.process.ultimate_exiting_timeout = 30
    return settings


@contextmanager
def _closed_as_lost() -> Iterator[None]:
    """Convert aiohttp's RuntimeError for a closed session: when it authenticates again, Kopf closes it under
    readers."""
    try:
        yield
    except RuntimeError as error:
        if "closed" not in str(error):
            raise
        raise aiohttp.ClientConnectionError(str(error)) from error
