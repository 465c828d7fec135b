"""A number in a JSON document that an HTTP server gives."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, unquote

from modelwright.api.reasons import Reason
from modelwright.measurement.connections import Connection
from modelwright.measurement.json_client import JsonClient, MeasurementError
from modelwright.measurement.queries import build_placeholders
from modelwright.measurement.request import MeasurementRequest, RevisionTarget

_PLACEHOLDER = re.compile(r"\$\(([^()]*)\)")
HTTP_PLACEHOLDERS = ("NAMESPACE", "MODEL", "VERSION", "REVISION")


async def read_number(web: JsonClient, connection: Connection, path: str, pointer: str) -> tuple[float | None, str]:
    """The number at `pointer` (RFC 6901) in the document at `path`; or None, and why there is none. Raises Fault."""
    answer = await web.request_json(connection, path)
    if answer.status >= 400:
        raise MeasurementError(Reason.METRICS_SERVER_ERROR, f"connection {connection.name}: answered {answer.status}")
    found, why = resolve_pointer(answer.document, pointer)
    if why:
        return None, why
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None, f"what is at {pointer or 'the top'} of the document is {_describe_type(found)}, not a number"
    try:
        value = float(found)
    except OverflowError:
        return None, f"what is at {pointer or 'the top'} of the document is too large a number"
    return (
        (value, "") if math.isfinite(value) else (None, f"what is at {pointer or 'the top'} of the document is {value}")
    )


def fill_path(path: str, ask: MeasurementRequest, target: RevisionTarget) -> str:
    """`path` with its placeholders filled in. Raises Fault, permanent, for one that is not known, and for a path that
    would leave the connection's own."""
    known = build_placeholders(ask, target)

    def value(found: re.Match[str]) -> str:
        if found[1] not in HTTP_PLACEHOLDERS:
            listed = ", ".join(f"$({name})" for name in HTTP_PLACEHOLDERS)
            raise MeasurementError(
                Reason.QUERY_REFUSED, f"$({found[1]}) is no placeholder of http; known are {listed}", permanent=True
            )
        return quote(known[found[1]], safe="")

    whole = _PLACEHOLDER.sub(value, path)
    # Some servers take off what follows a semicolon before they resolve dots.
    if any(
        unquote(part).partition(";")[0] in (".", "..")
        for part in re.split(r"[/\\]|%2f|%5c", whole.partition("?")[0], flags=re.I)
    ):
        raise MeasurementError(Reason.QUERY_REFUSED, f"http.path must not go up: {path}", permanent=True)
    if "#" in whole:
        raise MeasurementError(
            Reason.QUERY_REFUSED, f"http.path has a fragment, which is never sent: {path}", permanent=True
        )
    return whole


def resolve_pointer(document: Any, pointer: str) -> tuple[Any, str]:
    """What a JSON pointer points to, and why nothing is there ("" when something is)."""
    found = document
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, Sequence) and not isinstance(found, str) and _is_index(key, len(found)):
            found = found[int(key)]
        else:
            return None, f"the document has nothing at {pointer}"
    return found, ""


def _is_index(key: str, length: int) -> bool:
    return re.fullmatch(r"0|[1-9][0-9]{0,8}", key) is not None and int(key) < length


def _describe_type(found: Any) -> str:
    return {dict: "an object", list: "a list", str: "a text", bool: "true or false"}.get(type(found), "null")
