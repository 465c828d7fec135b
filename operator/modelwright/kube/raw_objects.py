"""Objects as they come over the wire: pages of a bounded size, split and measured before anything is built of them.

The smallest JSON values take some forty times as much memory in Python as on the wire: a page of a hundred objects of
the largest size that etcd stores would take gigabytes. So a page is asked for again in parts when it has too many
bytes, its objects stay bytes until each has its turn, and one whose values would take more than `TREE_BYTES` never
becomes more than its metadata and its status (docs/adr/0026).
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
"""What a page may have: three times the largest object that etcd stores. One with more is asked for again in parts."""
FIRST_PAGE_OBJECTS, PAGE_GROWTH = 8, 4
"""So many objects the first page of a list has; by so much the next ones grow while they are small."""
OBJECT_MEMORY_BYTES = 12 << 20
"""What the values of one object may take in memory, as `weight` estimates it."""
SMALL_OBJECT_BYTES = 64 << 10
"""An object of so many bytes can't take more than that, whatever it consists of."""
STATUS_BYTES = 64 << 10
"""So large a status is kept of an object that is too large, so that what it says is not written again and again."""
RESPONSE_BYTES = 16 << 20
"""What any other answer of an API server may have."""

Raw = bytes | msgspec.Raw
PageReader = Callable[[int, str], Awaitable[bytes]]
"""Gets a page as it came: of so many objects, from this continue token on. Raises TooManyBytes."""


class ResponseTooLarge(Exception):
    """An answer has more bytes than it may have."""


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
    """Some objects of a list, as bytes, and the resourceVersion of the list."""

    def __init__(self, raw: bytes) -> None:
        """Raises ValueError when `raw` is no list."""
        found = _list_decoder.decode(raw)
        self.version = found.metadata.resourceVersion
        self.continue_token = found.metadata.continue_
        self.items = found.items or []


async def read_pages(ask: PageReader, objects: int, *, first: int = FIRST_PAGE_OBJECTS) -> AsyncIterator[Page]:
    """All pages of a list, each of at most so many objects; raises TooManyBytes when a single one is too large.

    The first has `first` at most: an API server may need longer for a hundred large ones than an answer may take.
    """
    count, token = min(objects, first), ""
    while True:
        try:
            raw = await ask(count, token)
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
    """The body of an answer; TooManyBytes, and the connection closed, when it has more than so many."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > at_most:
            response.close()
            raise ResponseTooLarge(f"the answer has more than {at_most} bytes")
        parts.append(part)
    return b"".join(parts)


def parse_event(line: bytes) -> tuple[str, bytes]:
    """Type and object of a line of a watch. Raises ValueError when it is none."""
    found = _event_decoder.decode(line)
    return found.type, bytes(found.object)


def parse_object(kind: Kind, raw: Raw) -> Object:
    """The object without managedFields; one that is too large has metadata and status only, and why as TOO_LARGE.

    Raises ValueError for what is no object.
    """
    data = bytes(raw)
    found = _object_decoder.decode(data)
    managed = bytes(found.metadata.managedFields)
    for separator in (b":", b": "):
        # Nobody reads them, and anybody may write as many as fit. Within a text their name would not end in a quote.
        data = data.replace(b'"managedFields"' + separator + managed, b'"managedFields":null', 1)
    if (size := estimate_memory(data)) <= OBJECT_MEMORY_BYTES:
        obj: Object = codec.loads(data)
        obj["metadata"].pop("managedFields", None)
    else:
        status = bytes(found.status)
        obj = {"metadata": _identity_metadata(found.metadata), TOO_LARGE_KEY: _size_message(size)}
        if 0 < len(status) <= STATUS_BYTES:
            obj["status"] = codec.loads(status)
    obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind
    return obj


def parse_version(raw: Raw) -> str:
    """The resourceVersion of an object, or of a bookmark."""
    return _object_decoder.decode(raw).metadata.resourceVersion


def parse_identity(kind: Kind, raw: Raw) -> Object:
    """The object with what tells which one it is, and in which state, and nothing else."""
    metadata = _identity_metadata(_object_decoder.decode(raw).metadata)
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}


def is_large(raw: Raw) -> bool:
    """Whether an object has so many bytes that others should have their turn after it."""
    return len(memoryview(raw)) > SMALL_OBJECT_BYTES


def estimate_memory(data: bytes) -> int:
    """About how many bytes the values of a JSON text take in memory at most: from what separates and begins them."""
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
