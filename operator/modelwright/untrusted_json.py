"""Parses untrusted JSON: its size, depth and number of values are bounded before any of it becomes an object.

A byte of JSON can become 26 bytes of objects (`[[],[],...]`). Counting first costs less than parsing, because every
byte is only read by methods of bytes, which run in C.
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
    """Limits of a document. `size`: in bytes. `depth`: nesting of lists and objects.

    `values`: members, elements and lists count once, objects four times, in proportion to their memory: at most 80
    bytes each, beside the text itself.
    """

    size: int
    values: int = 100_000
    depth: int = 64


class DocumentError(ValueError):
    """A document that can't be parsed; the message is the end of a sentence about it."""


class DocumentTooLarge(DocumentError):
    """The document exceeds a limit."""


def parse_json(document: bytes | bytearray | str, limits: JsonLimits) -> Any:
    """Parse a JSON text (bytes: in UTF-8). Raises DocumentTooLarge, and DocumentError for an invalid one."""
    raw = document.encode("utf-8", "surrogatepass") if isinstance(document, str) else document
    if len(raw) > limits.size:
        raise DocumentTooLarge(f"is larger than {limits.size} bytes")
    marks = _structural_bytes(raw)
    values = marks.count(b",") + marks.count(b"[") + _OBJECT_WEIGHT * marks.count(b"{")
    if values > limits.values:
        raise DocumentTooLarge(f"has more than {limits.values} values")
    nested = marks.translate(_LEVELS, b",")
    for _ in range(limits.depth):
        if not nested:
            break
        nested = nested.replace(b"[]", b"")
    if nested.count(b"[") > 0 and nested.find(b"[]") >= 0:
        raise DocumentTooLarge(f"is nested deeper than {limits.depth} levels")
    if nested:
        raise DocumentError("is no JSON: its brackets don't match")
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise DocumentError("is no JSON: it is not in UTF-8") from None
    except ValueError as error:
        raise DocumentError(f"is no JSON: {error}") from None


def _structural_bytes(raw: bytes | bytearray) -> bytes | bytearray:
    """Extract the brackets and commas outside of strings."""
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Strings without a mark are empty then; two adjacent strings become one, which changes no count.
    raw = raw.translate(None, _OTHER_BYTES).replace(b'""', b"")
    outside, in_string = bytearray(), 0
    for start in range(0, len(raw), _PIECE_BYTES):
        parts = raw[start : start + _PIECE_BYTES].split(b'"')
        outside += b"".join(parts[in_string::2])
        in_string ^= len(parts) % 2 ^ 1
    return outside
