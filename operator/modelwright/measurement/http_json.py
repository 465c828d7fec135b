"""Reads a number from a JSON document of an HTTP server."""

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


async def read_number(client: JsonClient, connection: Connection, path: str, pointer: str) -> tuple[float | None, str]:
    """Read the number at `pointer` (RFC 6901) in the document at `path`; or None, and why there is none.

    Raises MeasurementError.
    """
    answer = await client.request_json(connection, path)
    if answer.status >= 400:
        raise MeasurementError(Reason.METRICS_SERVER_ERROR, f"connection {connection.name}: answered {answer.status}")
    member, why = resolve_pointer(answer.document, pointer)
    if why:
        return None, why
    place = f"the value at {pointer or 'the top'} of the document"
    if isinstance(member, bool) or not isinstance(member, int | float):
        return None, f"{place} is {_describe_type(member)}, not a number"
    try:
        value = float(member)
    except OverflowError:
        return None, f"{place} is too large a number"
    return (value, "") if math.isfinite(value) else (None, f"{place} is {value}")


def fill_path(path: str, request: MeasurementRequest, target: RevisionTarget) -> str:
    """Fill the placeholders of `path`.

    Raises MeasurementError, permanent, for an unknown one, and for a path that would leave that of the connection.
    """
    values = build_placeholders(request, target)

    def fill_one(match: re.Match[str]) -> str:
        if match[1] not in HTTP_PLACEHOLDERS:
            listed = ", ".join(f"$({name})" for name in HTTP_PLACEHOLDERS)
            raise MeasurementError(
                Reason.QUERY_REFUSED, f"$({match[1]}) is no placeholder of http; known are {listed}", permanent=True
            )
        return quote(values[match[1]], safe="")

    whole = _PLACEHOLDER.sub(fill_one, path)
    # Some servers drop the rest of a segment from a semicolon on before they resolve dots.
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
    """Return the member that a JSON pointer names, and why there is none ("" when there is one)."""
    member = document
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(member, dict) and key in member:
            member = member[key]
        elif isinstance(member, Sequence) and not isinstance(member, str) and _is_index(key, len(member)):
            member = member[int(key)]
        else:
            return None, f"the document has nothing at {pointer}"
    return member, ""


def _is_index(key: str, length: int) -> bool:
    return re.fullmatch(r"0|[1-9][0-9]{0,8}", key) is not None and int(key) < length


def _describe_type(member: Any) -> str:
    return {dict: "an object", list: "a list", str: "a text", bool: "true or false"}.get(type(member), "null")
