"""The largest legal value of each field of a CRD, as its schema bounds it; and what handling it costs."""

from __future__ import annotations

import gc
import json
import re
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

from modelwright.api.cel import INT_OR_STRING, PRESERVE, VALIDATIONS

Json = dict[str, Any]
OBJECT_BYTES = 3 << 19
"""What etcd takes of one object, 1.5 MiB."""
CPU_SECONDS = 0.05
MEMORY_BYTES = 16 << 20
_PATTERN = re.compile(r"^self\.matches\(r'(.*)'\)$")
_SHAPES = (
    "a",
    "A",
    "0",
    "9",
    "0.9",
    "/a",
    "-0.9",
    "99999ms",
    "s3://a/a",
    "sha256:a",
    "https://a.a/",
    "a.",
    "a/",
    "a-",
    "2026-11-21T03:00:00.123456789+01:00",
    "0 0 30 2 *",
    "Europe/Berlin",
    "/a/b",
    "0-9",
    "V2",
    "https://",
)


class OpenField(Exception):
    """The schema bounds the field in no way; the text says what is missing."""


def fields(schema: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Json]]:
    """(path, schema) of every field below an object; an entry of a list is "[]", of a map "*"."""
    for name, child in (schema.get("properties") or {}).items():
        yield (*path, name), child
        yield from fields(child, (*path, name))
    for key, name in (("items", "[]"), ("additionalProperties", "*")):
        if isinstance(schema.get(key), dict):
            yield (*path, name), schema[key]
            yield from fields(schema[key], (*path, name))


def value(schema: Json, room: int = OBJECT_BYTES, number: int = 0) -> Any:
    """The largest value that the schema allows and that takes at most about `room` bytes as JSON. `number` makes
    entries of one list or map different. Raises OpenField."""
    if schema.get(INT_OR_STRING):
        return "1" * int(schema.get("maxLength", 32))
    if schema.get(PRESERVE) and "properties" not in schema:
        if "maxProperties" not in schema:
            raise OpenField("an object of another API")
        count = int(schema["maxProperties"])
        return {f"a{at}": "a" * (room // count) for at in range(count)}
    if schema.get(PRESERVE):
        raise OpenField("an object of another API")
    if "enum" in schema:
        return max(schema["enum"], key=lambda one: len(str(one)))
    kind = schema["type"]
    if kind == "boolean":
        return True
    if kind == "integer":
        return schema["maximum"]
    if kind == "string":
        return _text(schema, room, number)
    if kind == "array":
        if "maxItems" not in schema:
            raise OpenField("no maxItems")
        entry = len(json.dumps(value(schema["items"], room)))
        count = max(1, min(int(schema["maxItems"]), room // max(entry, 1)))
        return [value(schema["items"], room // count, at) for at in range(count)]
    if isinstance(schema.get("additionalProperties"), dict):
        if "maxProperties" not in schema:
            raise OpenField("no maxProperties")
        count = min(int(schema["maxProperties"]), 4096)
        return {f"a{at}": value(schema["additionalProperties"], room // count, at) for at in range(count)}
    found, properties = {}, schema.get("properties") or {}
    for name, child in properties.items():
        try:
            found[name] = value(child, room // len(properties), number)
        except OpenField:
            if name in schema.get("required", ()):
                found[name] = {}
    return found


def _text(schema: Json, room: int, number: int) -> str:
    if schema.get("format") == "date-time":
        return "2026-11-21T03:00:00Z"
    if "maxLength" not in schema:
        raise OpenField("no maxLength")
    most = max(1, min(int(schema["maxLength"]), room))
    rules = [found[1] for rule in schema.get(VALIDATIONS, []) if (found := _PATTERN.match(rule["rule"]))]
    patterns = [re.compile(pattern) for pattern in (*rules, *filter(None, [schema.get("pattern")]))]
    tail = str(number) if number else ""
    for shape in _SHAPES:
        for text in (shape + shape[-1] * most, shape * most):
            text = text[: most - len(tail)] + tail
            if all(pattern.search(text) for pattern in patterns):
                return text
        if all(pattern.search(shape) for pattern in patterns):
            return shape
    return "a" * most  # refused, which must be as cheap


def put(document: Json, path: tuple[str, ...], found: Any) -> Json:
    """`document` with `found` at `path`; what is missing on the way is made."""
    if not path:
        return found
    name, *rest = path
    if name == "[]":
        first = document[0] if isinstance(document, list) and document else {}
        return [put(first, tuple(rest), found)]  # type: ignore[return-value]
    if name == "*":
        return {"a": put({}, tuple(rest), found)}
    document = document if isinstance(document, dict) else {}
    return {**document, name: put(document.get(name, {}), tuple(rest), found)}


def cost(work: Callable[[], Any]) -> tuple[float, int]:
    """(CPU seconds of this thread, bytes at most) that `work` takes, once all it loads is loaded."""
    work()
    gc.disable()
    try:
        seconds = min(_seconds(work) for _ in range(3))
    finally:
        gc.enable()
    tracemalloc.start()
    try:
        work()
        return seconds, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _seconds(work: Callable[[], Any]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began
