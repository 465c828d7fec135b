"""Reads API responses as bytes: pages of a bounded size, split and measured before objects are built from them.

The smallest JSON values take some forty times as much memory in Python as on the wire: a page of a hundred objects of
the largest size that etcd stores would take gigabytes. So a page with too many bytes is requested again in parts, its
objects stay bytes until they are consumed, and an object whose values would take more than `OBJECT_MEMORY_BYTES` is
reduced to its metadata and its status (docs/adr/0026).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import msgspec

from modelwright.api.common import TOO_LARGE_KEY
from modelwright.kube import codec
from modelwright.kube.kinds import Kind

Object = dict[str, Any]

PAGE_BYTES = 4 << 20
"""Most bytes of a page: three times the largest object that etcd stores. A larger one is requested again in parts."""
FIRST_PAGE_OBJECTS, PAGE_GROWTH = 8, 4
"""Objects of the first page of a list, and the factor by which the next ones grow while they are small."""
OBJECT_MEMORY_BYTES = 12 << 20
"""Memory that the values of one object may take, as `estimate_memory` estimates it."""
SMALL_OBJECT_BYTES = 64 << 10
"""An object of at most so many bytes never exceeds the limit on memory, for any content."""
STATUS_BYTES = 64 << 10
"""Largest status that is kept of an object that is too large, so that the same status is not written repeatedly."""
RESPONSE_BYTES = 16 << 20
"""Most bytes of any other response of the API server."""

Raw = bytes | msgspec.Raw
PageReader = Callable[[int, str], Awaitable[bytes]]
"""Reads a page of so many objects, from this continue token on, as bytes. Raises ResponseTooLarge."""


class ResponseTooLarge(Exception):
    """A response has more bytes than its limit."""


class _Metadata(msgspec.Struct):
    name: str = ""
    namespace: str | None = None
    uid: str = ""
    resourceVersion: str = ""
    generation: int | None = None
    creationTimestamp: str | None = None
    deletionTimestamp: str | None = None
    managedFields: msgspec.Raw = msgspec.Raw()


class _Object(msgspec.Struct):
    metadata: _Metadata
    status: msgspec.Raw = msgspec.Raw()


class _ListMetadata(msgspec.Struct):
    resourceVersion: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct):
    metadata: _ListMetadata = msgspec.field(default_factory=_ListMetadata)
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


_object_decoder = msgspec.json.Decoder(_Object)
_list_decoder = msgspec.json.Decoder(_List)
_event_decoder = msgspec.json.Decoder(_Event)


class Page:
    """A page of a list: its objects as bytes, and the resourceVersion of the list."""

    def __init__(self, raw: bytes) -> None:
        """Parse a page. Raises ValueError when `raw` is no list."""
        parsed = _list_decoder.decode(raw)
        self.version = parsed.metadata.resourceVersion
        self.continue_token = parsed.metadata.continue_
        self.items = parsed.items or []


async def read_pages(read_page: PageReader, objects: int, *, first: int = FIRST_PAGE_OBJECTS) -> AsyncIterator[Page]:
    """Yield all pages of a list, each of at most so many objects; raises ResponseTooLarge when a single object is.

    The first page has at most `first`: an API server may need longer for a hundred large objects than the timeout.
    """
    count, token = min(objects, first), ""
    while True:
        try:
            raw = await read_page(count, token)
        except ResponseTooLarge:
            if count == 1:
                raise
            count = max(1, count // PAGE_GROWTH)
            continue
        if len(raw) * PAGE_GROWTH <= PAGE_BYTES:
            count = min(objects, count * PAGE_GROWTH)
        page = Page(raw)
        del raw
        yield page
        token = page.continue_token
        del page
        if not token:
            return


async def read_body(response: aiohttp.ClientResponse, at_most: int) -> bytes:
    """Read the body of a response. Closes the connection and raises ResponseTooLarge beyond `at_most` bytes."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > at_most:
            response.close()
            raise ResponseTooLarge(f"the answer has more than {at_most} bytes")
        parts.append(part)
    return b"".join(parts)


def parse_event(line: bytes) -> tuple[str, bytes]:
    """Split a line of a watch into event type and object. Raises ValueError when it is no event."""
    parsed = _event_decoder.decode(line)
    return parsed.type, bytes(parsed.object)


def parse_object(kind: Kind, raw: Raw) -> Object:
    """Parse an object, without managedFields. One that is too large has metadata and status only, and the reason under
    TOO_LARGE_KEY.

    Raises ValueError for bytes that are no object.
    """
    data = bytes(raw)
    parsed = _object_decoder.decode(data)
    managed = bytes(parsed.metadata.managedFields)
    for separator in (b":", b": "):
        # They are never used, and any writer may add as many as fit. Within a string their name would not end in a
        # quote.
        data = data.replace(b'"managedFields"' + separator + managed, b'"managedFields":null', 1)
    if (size := estimate_memory(data)) <= OBJECT_MEMORY_BYTES:
        obj: Object = codec.loads(data)
        obj["metadata"].pop("managedFields", None)
    else:
        status = bytes(parsed.status)
        obj = {"metadata": _identity_metadata(parsed.metadata), TOO_LARGE_KEY: _size_message(size)}
        if 0 < len(status) <= STATUS_BYTES:
            obj["status"] = codec.loads(status)
    obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind
    return obj


def parse_version(raw: Raw) -> str:
    """Parse the resourceVersion of an object or a bookmark."""
    return _object_decoder.decode(raw).metadata.resourceVersion


def parse_identity(kind: Kind, raw: Raw) -> Object:
    """Parse the identity and state of an object only, without its content."""
    metadata = _identity_metadata(_object_decoder.decode(raw).metadata)
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}


def is_large(raw: Raw) -> bool:
    """Return whether an object is so large that the event loop should run other tasks after it."""
    return len(memoryview(raw)) > SMALL_OBJECT_BYTES


def estimate_memory(data: bytes) -> int:
    """Estimate the most memory that the values of a JSON text take, by counting its separators and delimiters."""
    size = len(data)
    if size <= SMALL_OBJECT_BYTES:
        return size
    lists, objects, quotes = data.count(b"["), data.count(b"{"), data.count(b'"')
    return 4 * size + 40 * data.count(b",") + 72 * lists + 200 * objects + 25 * quotes


def _size_message(size: int) -> str:
    return (
        f"its values would take about {size >> 20} MiB in memory, and may take "
        f"{OBJECT_MEMORY_BYTES >> 20}: make it smaller, "
        "most of all lists and maps of very many short values"
    )


def _identity_metadata(metadata: _Metadata) -> Object:
    return {
        key: value
        for key in (
            "name",
            "namespace",
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
        )
        if (value := getattr(metadata, key))
    }
