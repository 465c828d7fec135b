"""Encodes and decodes JSON with orjson, and with the standard library for valid input that orjson refuses.

orjson takes no object nested deeper than 254 levels (writing) or 1,024 (reading), and writes no integer beyond 64 bits.
It reads such an integer as a float, as the API server itself does.
"""

import json
from typing import Any

import orjson

_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False)


def loads(raw: bytes) -> Any:
    """Decode a JSON text in UTF-8. Raises ValueError for invalid JSON, RecursionError for too many levels."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return json.loads(raw)


def dumps(value: Any) -> bytes:
    """Encode `value` as compact JSON in UTF-8. Raises TypeError for types without a JSON form, RecursionError for too
    many levels."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return _ENCODER.encode(value).encode()
