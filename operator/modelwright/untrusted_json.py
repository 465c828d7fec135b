"""Reads JSON of strangers: its bytes, depth and number of values are bounded before any of it becomes an object.

A byte of JSON can become 26 bytes of objects (`[[],[],...]`). Counting first costs less than parsing: only methods of
bytes that run in C look at every byte.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

_STRUCTURAL = b'[]{},"'
_OTHER_BYTES = bytes(byte for byte in range(256) if byte not in _STRUCTURAL)
_PIECE_BYTES = 64 << 10
_LEVELS = bytes.maketrans(b"{}", b"[]")
_OBJECT_WEIGHT = 4
"""An empty list takes 56 bytes, an object with one member 184."""


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """What is read of a document. `values`: members, elements and lists count once, objects four times, which is what
    they take of memory: at most 80 bytes each, beside the text itself. `depth`: lists and objects within each other.
    """

    size: int
    values: int = 100_000
    depth: int = 64


class DocumentError(ValueError):
    """A document that is not read; the message says why, as the end of a sentence about it."""


class DocumentTooLarge(DocumentError):
    """It is beyond a bound."""


def parse_json(document: bytes | bytearray | str, bounds: JsonLimits) -> Any:
    """The value of a JSON text (bytes: in UTF-8). Raises TooLarge, and DocumentError for what is no JSON."""
    raw = document.encode("utf-8", "surrogatepass") if isinstance(document, str) else document
    if len(raw) > bounds.size:
        raise DocumentTooLarge(f"is larger than {bounds.size} bytes")
    marks = _structural_bytes(raw)
    values = marks.count(b",") + marks.count(b"[") + _OBJECT_WEIGHT * marks.count(b"{")
    if values > bounds.values:
        raise DocumentTooLarge(f"has more than {bounds.values} values")
    nested = marks.translate(_LEVELS, b",")
    for _ in range(bounds.depth):
        if not nested:
            break
        nested = nested.replace(b"[]", b"")
    if nested.count(b"[") > 0 and nested.find(b"[]") >= 0:
        raise DocumentTooLarge(f"is nested deeper than {bounds.depth} levels")
    if nested:
        raise DocumentError("is no JSON: its brackets don't match")
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise DocumentError("is no JSON: it is not in UTF-8") from None
    except ValueError as error:
        raise DocumentError(f"is no JSON: {error}") from None


def _structural_bytes(raw: bytes | bytearray) -> bytes | bytearray:
    """The brackets and commas that are in no string."""
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Strings that hold no mark are empty then; two strings side by side become one, which changes nothing.
    raw = raw.translate(None, _OTHER_BYTES).replace(b'""', b"")
    found, inside = bytearray(), 0
    for start in range(0, len(raw), _PIECE_BYTES):
        parts = raw[start : start + _PIECE_BYTES].split(b'"')
        found += b"".join(parts[inside::2])
        inside ^= len(parts) % 2 ^ 1
    return found
