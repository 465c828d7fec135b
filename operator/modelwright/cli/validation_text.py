"""Explains pydantic's validation errors to the author of a manifest."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import ValidationError

from modelwright.api.common import InvalidObject, list_problems
from modelwright.api.crd.definition import build_schema

Json = Mapping[str, Any]
Location = tuple[int | str, ...]

_TOO_SHORT = frozenset({"too_short", "string_too_short"})


def explain_problems(kind: Any, error: InvalidObject) -> list[tuple[str, str]]:
    """Return (path, problem and remedy) of each problem, without those that follow from another problem."""
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return list(error.problems)
    entries = cause.errors(include_url=False)
    named = [(entry, *problem) for entry, problem in zip(entries, list_problems(cause), strict=True)]
    replaced = {
        (*entry["loc"][:-1], near)
        for entry in entries
        if entry["type"] == "extra_forbidden" and (near := _closest_field(kind, entry["loc"])) is not None
    }
    return [
        (path, _describe_problem(kind, entry, text))
        for entry, path, text in named
        if not _is_consequence(entry, entries, replaced)
    ]


def closest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` most likely stands for."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return matches[0] if matches else None


def _is_consequence(entry: Any, entries: list[Any], replaced: set[Location]) -> bool:
    """Return whether the problem disappears once another one is fixed."""
    location = entry["loc"]
    if entry["type"] == "missing":
        return location in replaced
    if entry["type"] in _TOO_SHORT:
        return any(len(other["loc"]) > len(location) and other["loc"][: len(location)] == location for other in entries)
    return False


def _describe_problem(kind: Any, entry: Any, text: str) -> str:
    value = entry.get("input")
    match entry["type"]:
        case "extra_forbidden":
            name = _closest_field(kind, entry["loc"])
            return f"unknown field; did you mean {name}?" if name is not None else "unknown field"
        case "missing":
            return "required, and not given"
        case "string_type" if isinstance(value, bool):
            return f'must be a string: write it in quotes, "{str(value).lower()}"'
        case "string_type" if not isinstance(value, dict | list | type(None)):
            return f'must be a string: write it in quotes, "{value}"'
        case "int_type" | "float_type" | "bool_type" if isinstance(value, str):
            wanted = {"int_type": "an integer", "float_type": "a number", "bool_type": "true or false"}[entry["type"]]
            return f"must be {wanted}: write it without quotes"
        case "literal_error" | "enum" if isinstance(value, str):
            expected = str((entry.get("ctx") or {}).get("expected", ""))
            name = closest_name(value, expected.replace("'", "").replace(" or ", ", ").split(", "))
            return (
                f'is "{value}"; ' + (f"did you mean {name}? " if name is not None else "") + f"It is one of {expected}"
            )
        case _:
            return text


def _closest_field(kind: Any, location: Location) -> str | None:
    *parents, last = location
    return closest_name(str(last), _field_names(_kind_schema(kind), parents))


@cache
def _kind_schema(kind: Any) -> Json:
    return build_schema(kind)


def _field_names(node: Json, path: Iterable[int | str]) -> Iterator[str]:
    """Yield the names of the schema's fields at a path; none when the path does not exist."""
    for step in path:
        below = node.get("items") if isinstance(step, int) else (node.get("properties") or {}).get(step)
        below = below if below is not None else node.get("additionalProperties")
        if not isinstance(below, Mapping):
            return
        node = below
    yield from node.get("properties") or {}
