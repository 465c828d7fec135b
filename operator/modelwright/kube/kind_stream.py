"""Lists and watches of a shard: every event of a kind in its order, what is somebody else's dropped undecoded.

Kopf lists the whole cluster before it watches, decodes everything, and can't read metadata only: with shards that is
what everybody else has (docs/adr/0016). An operator without shards watches by Kopf, and none of this.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Any

import aiohttp

from modelwright.kube import api_errors, codec, raw_objects
from modelwright.kube.client import KubeClient
from modelwright.kube.kinds import Kind
from modelwright.obs.clock import Clock

log = logging.getLogger(__name__)

Object = dict[str, Any]

MAX_EVENTS_PER_TURN = 50
"""Events or objects that are taken before others get their turn."""
SILENCE_SECONDS = 75.0
"""A stream without events has a bookmark each minute: one that is silent for longer is dead."""
STREAM_SECONDS = (290, 350)
RECONNECT_SECONDS = 0.1
RETRY_SECONDS = (1.0, 2.0, 5.0)
DENIED_RETRY_SECONDS = (1.0, 5.0, 15.0, 30.0)
ACCEPT_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
ACCEPT_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
_JSON = "application/json"
_TYPE = re.compile(rb'\{"type": ?"([A-Z]+)"')
_NAMESPACE = re.compile(rb'"namespace": ?"([^"]*)"')


class ResourceVersionExpired(Exception):
    """The resourceVersion to watch from is too old: what has changed since can't be had but by a list."""


class StreamClient(KubeClient):
    """A client for lists and watches. It needs connections of its own: each stream keeps one."""

    async def list_all(
        self, kind: Kind, namespace: str | None = None, *, metadata_only: bool = False
    ) -> tuple[list[Object], str]:
        """All objects of a kind at one moment, and its resourceVersion."""
        found: list[Object] = []
        version = ""
        async for objects, of_list in self.iterate_batches(kind, namespace, metadata_only=metadata_only):
            found += objects
            version = of_list
        return found, version

    async def iterate_batches(
        self, kind: Kind, namespace: str | None = None, *, labels: str | None = None, metadata_only: bool = False
    ) -> AsyncIterator[tuple[Iterable[Object], str]]:
        """All objects of a kind at one moment, some at a time, with the resourceVersion of that moment. Each is parsed
        when it has its turn; between them others get theirs."""
        async for page in self.raw_pages(kind, namespace, labels=labels, metadata_only=metadata_only):
            batch: list[raw_objects.Raw] = []
            for raw in page.items:
                batch.append(raw)
                if len(batch) == MAX_EVENTS_PER_TURN or raw_objects.is_large(raw):
                    yield (raw_objects.parse_object(kind, each) for each in batch), page.version
                    batch = []
                    await asyncio.sleep(0)
            yield (raw_objects.parse_object(kind, each) for each in batch), page.version

    async def current_version(self, kind: Kind) -> str:
        """The resourceVersion of this moment, to watch the kind from."""
        page = await self._request_object(
            "GET", kind, kind.path(None), {"limit": "1"}, accept=ACCEPT_METADATA_LIST, verb="list"
        )
        return str(page["metadata"]["resourceVersion"])

    async def watch_lines(
        self, kind: Kind, version: str, labels: str | None, metadata_only: bool
    ) -> AsyncIterator[bytes]:
        """The events after `version`, each as it came, until the stream ends. Raises Expired, and ApiError."""
        lasts = random.randint(*STREAM_SECONDS)  # noqa: S311 - jitter, not a secret
        query = {
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(lasts),
        }
        if labels:
            query["labelSelector"] = labels
        path = kind.path(None)
        method, url, headers, _, _ = await self._api.param_serialize(
            "GET",
            path,
            query_params=query,
            header_params={"Accept": ACCEPT_METADATA if metadata_only else _JSON},
            auth_settings=["BearerToken"],
        )
        # `connect` includes the DNS, which `sock_connect` doesn't.
        timeout = aiohttp.ClientTimeout(total=lasts + 30, connect=30, sock_connect=5, sock_read=SILENCE_SECONDS)
        try:
            answer = await self._api.call_api(method, url, headers, _request_timeout=timeout)
            response = answer.response
            try:
                if response.status == 410:
                    raise ResourceVersionExpired
                if response.status >= 300:
                    body = await response.read()
                    raise api_errors.error_from_response(
                        response.status, body, response.headers, request=f"watch {path}"
                    )
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield line
            finally:
                response.close()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise api_errors.error_without_response(error, request=f"watch {path}") from error


class KindStream:
    """One kind, followed until cancelled.

    `relist` brings everything up to date by lists, and gives the resourceVersion to watch from; it is called first, and
    whenever the stream has lost something. `take(type, object)` gets each event in its order, unless `wanted` says no
    to the namespaces that its bytes name: they hold the object's own, and may hold others. `passed` gets the
    resourceVersion of bookmarks.
    """

    def __init__(
        self,
        client: StreamClient,
        kind: Kind,
        *,
        relist: Callable[[], Awaitable[str]],
        take: Callable[[str, Object], None],
        clock: Clock,
        labels: str | None = None,
        metadata_only: bool = False,
        wanted: Callable[[list[bytes]], bool] | None = None,
        passed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._kind = kind
        self._relist = relist
        self._sink = take
        self._clock = clock
        self._labels = labels
        self._metadata_only = metadata_only
        self._wanted = wanted
        self._on_bookmark = passed
        self._version = ""
        self._failures = 0

    async def run(self) -> None:
        """Follow; API errors are logged and retried."""
        while True:
            try:
                self._version = await self._relist()
                while True:
                    await self._watch_once()
            except ResourceVersionExpired:
                log.info("a stream has lost its place: listing again", extra={"kind": self._kind.kind})
            except api_errors.ApiError as error:
                # The list: a stream's own errors are dealt with where they occur.
                await self._pause_after("list", error)

    async def _watch_once(self) -> None:
        """One connection, from the last known place."""
        try:
            lines = self._client.watch_lines(self._kind, self._version, self._labels, self._metadata_only)
            async with aclosing(lines):  # type: ignore[type-var]
                taken = 0
                async for line in lines:
                    self._failures = 0
                    self._handle_line(line)
                    taken += 1
                    if not taken % MAX_EVENTS_PER_TURN or raw_objects.is_large(line):
                        await asyncio.sleep(0)
            await self._clock.sleep(RECONNECT_SECONDS)
        except api_errors.ApiError as error:
            await self._pause_after("watch", error)

    def _handle_line(self, line: bytes) -> None:
        found = _TYPE.match(line)
        event_type = found[1] if found is not None else b""
        if event_type in (b"ADDED", b"MODIFIED", b"DELETED") and not self._is_wanted(line):
            return
        try:
            kind, raw = raw_objects.parse_event(line)
            if kind == "ERROR":
                code = int(codec.loads(raw).get("code") or 500)
                raise ResourceVersionExpired if code == 410 else api_errors.error_from_response(code, line, {})
            obj = raw_objects.parse_object(self._kind, raw)
            version = str(obj["metadata"]["resourceVersion"])
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
            raise api_errors.error_without_response(error, request=f"watch {self._kind.path(None)}") from error
        if kind == "BOOKMARK":
            self._on_bookmark(version)
        else:
            self._sink(kind, obj)
        self._version = version

    def _is_wanted(self, line: bytes) -> bool:
        return self._wanted is None or self._wanted(_NAMESPACE.findall(line))

    async def _pause_after(self, what: str, error: api_errors.ApiError) -> None:
        waits = DENIED_RETRY_SECONDS if isinstance(error, api_errors.Denied) else RETRY_SECONDS
        seconds = waits[min(self._failures, len(waits) - 1)]
        self._failures += 1
        log.warning(f"a {what} failed, trying again", extra={"kind": self._kind.kind, "error": str(error)})
        await self._clock.sleep(seconds)
