"""JSON from and to bytes: by orjson, and by the standard library where orjson refuses what an API server may send.

orjson takes no object nested deeper than 254 levels (writing) or 1,024 (reading), and writes no integer beyond 64 bits.
One that it reads becomes a float, as in the API server itself.
"""

import json
from typing import Any

import orjson

_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False)


def loads(raw: bytes) -> Any:
    """The value of a JSON text in UTF-8. Raises ValueError for what is no JSON, RecursionError for too many levels."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return json.loads(raw)


def dumps(value: Any) -> bytes:
    """`value` as compact JSON in UTF-8. Raises TypeError for what has no JSON, RecursionError for too many levels."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return _ENCODER.encode(value).encode()
