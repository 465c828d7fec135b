"""Lists and watches of a shard: the events of a kind in order, those of other shards dropped undecoded.

Kopf lists the whole cluster before it watches, decodes everything, and cannot read metadata only: with shards that
includes the objects of all other shards (docs/adr/0016). An operator without shards watches by Kopf instead.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import aiohttp

from modelwright.kube import api_errors, codec, raw_objects
from modelwright.kube.client import KubeClient
from modelwright.kube.kinds import Kind
from modelwright.obs.clock import Clock

log = logging.getLogger(__name__)

Object = dict[str, Any]

MAX_EVENTS_PER_TURN = 50
"""Events or objects handled before yielding to the event loop."""
SILENCE_SECONDS = 75.0
"""A stream without events has a bookmark each minute: one that is silent for longer is broken."""
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
    """The resourceVersion to watch from is too old: only a list returns the changes since."""


class StreamClient(KubeClient):
    """A client for lists and watches. It needs its own connections: each stream keeps one open."""

    async def list_all(
        self, kind: Kind, namespace: str | None = None, *, metadata_only: bool = False
    ) -> tuple[list[Object], str]:
        """List all objects of a kind at one moment, and the resourceVersion of that moment."""
        listed_objects: list[Object] = []
        version = ""
        async for objects, list_version in self.iterate_batches(kind, namespace, metadata_only=metadata_only):
            listed_objects += objects
            version = list_version
        return listed_objects, version

    async def iterate_batches(
        self, kind: Kind, namespace: str | None = None, *, labels: str | None = None, metadata_only: bool = False
    ) -> AsyncIterator[tuple[Iterable[Object], str]]:
        """Yield all objects of a kind at one moment in batches, with the resourceVersion of that moment. Each is parsed
        when it is consumed; between batches the event loop runs other tasks."""
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
        """Return the current resourceVersion, to watch the kind from."""
        page = await self._request_object(
            "GET", kind, kind.path(None), {"limit": "1"}, accept=ACCEPT_METADATA_LIST, verb="list"
        )
        return str(page["metadata"]["resourceVersion"])

    async def watch_lines(
        self, kind: Kind, version: str, labels: str | None, metadata_only: bool
    ) -> AsyncIterator[bytes]:
        """Yield the undecoded events after `version` until the stream ends. Raises ResourceVersionExpired and
        ApiError."""
        lifetime = random.randint(*STREAM_SECONDS)  # noqa: S311 - jitter, not a secret
        query = {
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(lifetime),
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
        # `connect` includes DNS, which `sock_connect` does not.
        timeout = aiohttp.ClientTimeout(total=lifetime + 30, connect=30, sock_connect=5, sock_read=SILENCE_SECONDS)
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
                incomplete = b""
                async for chunk in response.content.iter_any():
                    *lines, incomplete = (incomplete + chunk).split(b"\n")
                    for line in lines:
                        yield line
            finally:
                response.close()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise api_errors.error_without_response(error, request=f"watch {path}") from error


@dataclass(frozen=True, slots=True)
class StreamHandler:
    """The receiver of a stream."""

    relist: Callable[[], Awaitable[str]]
    """Brings the receiver up to date by lists, and returns the resourceVersion to watch from; called first, and
    whenever the stream has lost events."""
    apply: Callable[[str, Object], None]
    """Receives type and object of each event, in order."""
    is_wanted: Callable[[list[bytes]], bool] | None = None
    """Returns whether to decode an event, by the namespaces that its bytes contain: the object's own, and maybe others
    within its content. None decodes all."""
    on_bookmark: Callable[[str], None] = lambda _: None
    """Receives the resourceVersion of each bookmark."""


class KindStream:
    """A watch of one kind that runs until cancelled and reconnects as needed."""

    def __init__(
        self,
        client: StreamClient,
        kind: Kind,
        handler: StreamHandler,
        *,
        clock: Clock,
        labels: str | None = None,
        metadata_only: bool = False,
    ) -> None:
        self._client = client
        self._kind = kind
        self._handler = handler
        self._clock = clock
        self._labels = labels
        self._metadata_only = metadata_only
        self._version = ""
        self._failures = 0

    async def run(self) -> None:
        """List and watch; API errors are logged and retried."""
        while True:
            try:
                self._version = await self._handler.relist()
                while True:
                    await self._watch_once()
            except ResourceVersionExpired:
                log.info("the resourceVersion of a stream has expired: listing again", extra={"kind": self._kind.kind})
            except api_errors.ApiError as error:
                # An error of the list: a stream's own errors are handled where they occur.
                await self._pause_after("list", error)

    async def _watch_once(self) -> None:
        """Watch over one connection, from the last known resourceVersion."""
        try:
            lines = self._client.watch_lines(self._kind, self._version, self._labels, self._metadata_only)
            async with aclosing(lines):  # type: ignore[type-var]
                handled = 0
                async for line in lines:
                    self._failures = 0
                    self._handle_line(line)
                    handled += 1
                    if not handled % MAX_EVENTS_PER_TURN or raw_objects.is_large(line):
                        await asyncio.sleep(0)
            await self._clock.sleep(RECONNECT_SECONDS)
        except api_errors.ApiError as error:
            await self._pause_after("watch", error)

    def _handle_line(self, line: bytes) -> None:
        match = _TYPE.match(line)
        event_type = match[1] if match is not None else b""
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
            self._handler.on_bookmark(version)
        else:
            self._handler.apply(kind, obj)
        self._version = version

    def _is_wanted(self, line: bytes) -> bool:
        is_wanted = self._handler.is_wanted
        return is_wanted is None or is_wanted(_NAMESPACE.findall(line))

    async def _pause_after(self, operation: str, error: api_errors.ApiError) -> None:
        waits = DENIED_RETRY_SECONDS if isinstance(error, api_errors.Denied) else RETRY_SECONDS
        seconds = waits[min(self._failures, len(waits) - 1)]
        self._failures += 1
        log.warning(f"a {operation} failed, trying again", extra={"kind": self._kind.kind, "error": str(error)})
        await self._clock.sleep(seconds)
