"""Reads objects of other projects field by field; `list_unused` names fields that were neither used nor noted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

FieldPath = tuple[str | int, ...]
Json = dict[str, Any]

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
UNSUPPORTED = "has no place here"


class UnreadableField(ValueError):
    """A field has another type than its API defines; the text names the field."""


class UsageLedger:
    """Records which parts of one object were used, and the notes about others."""

    def __init__(self) -> None:
        self.used: set[FieldPath] = set()
        self.notes: dict[tuple[FieldPath, str], bool] = {}
        """By path and text: whether the note covers everything below the path."""
        self._noted: set[FieldPath] = set()

    def add_note(self, path: FieldPath, text: str, *, whole: bool) -> None:
        """Add a note about a part."""
        self.notes[path, text] = whole or self.notes.get((path, text), False)
        if whole and path:
            self._noted.add(path)

    def is_covered(self, path: FieldPath) -> bool:
        """Return whether the part, or one that contains it, was used or noted."""
        return any(path[:end] in self.used or path[:end] in self._noted for end in range(1, len(path) + 1))


class Fields:
    """A mapping in the object, at a path. Reading a field marks it as used."""

    def __init__(self, value: Mapping[str, Any], path: FieldPath = (), ledger: UsageLedger | None = None) -> None:
        self.value, self.path = value, path
        self.ledger = UsageLedger() if ledger is None else ledger

    def __contains__(self, key: str) -> bool:
        return self.value.get(key) is not None

    def member_names(self) -> list[str]:
        """List the names of the fields that have a value."""
        return [key for key, value in self.value.items() if value is not None]

    def take(self, key: str) -> Any:
        """Return the field unchanged; None when it is absent."""
        self.ledger.used.add((*self.path, key))
        return self.value.get(key)

    def text(self, key: str, default: str = "") -> str:
        """Return a text, or a number written without quotes."""
        value = self.take(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self._type_error(key, "a text", value)
        return str(value)

    def number(self, key: str) -> int | None:
        """Return a whole number, which may be in quotes."""
        value = self.take(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int) or not re.fullmatch(r"-?[0-9]{1,9}", str(value)):
            raise self._type_error(key, "a whole number", value)
        return int(value)

    def decimal(self, key: str) -> float | None:
        """Return a number."""
        value = self.take(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
            raise self._type_error(key, "a number", value)
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        """Return true or false."""
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._type_error(key, "true or false", value)
        return value

    def child(self, key: str) -> Fields:
        """Return the mapping in a field; an empty one when it is absent."""
        value = self.value.get(key)
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise self._type_error(key, "a mapping", value)
        return Fields(value, (*self.path, key), self.ledger)

    def children(self, key: str) -> list[Fields]:
        """Return the mappings in a list."""
        value = self.value.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
            raise self._type_error(key, "a list of mappings", value)
        return [Fields(entry, (*self.path, key, index), self.ledger) for index, entry in enumerate(value)]

    def texts(self, key: str) -> dict[str, str]:
        """Return a mapping of texts, such as labels."""
        part = self.child(key)
        return {name: part.text(name) for name in part.member_names()}

    def note(self, key: str, text: str) -> None:
        """Note the treatment of a field, if it is present."""
        if key in self.value:
            self.ledger.add_note((*self.path, key), text, whole=True)

    def note_all(self, text: str) -> None:
        """Note the treatment of this part and everything in it."""
        self.ledger.add_note(self.path, text, whole=True)

    def note_here(self, text: str) -> None:
        """Add a note about this part; its fields still have to be used or noted."""
        self.ledger.add_note(self.path, text, whole=False)

    def _type_error(self, key: str, wanted: str, value: object) -> UnreadableField:
        return UnreadableField(f"{format_path((*self.path, key))}: must be {wanted}, and is {str(value)[:60]!r}")


def format_path(path: FieldPath) -> str:
    """Format a path: spec.steps[0].weight."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if _PLAIN_KEY.fullmatch(str(part)) else f"[{part}]"
    return text.removeprefix(".")


def path_without_indices(path: FieldPath) -> str:
    """Format a path without list indices: spec.steps.weight."""
    return ".".join(str(part) for part in path if not isinstance(part, int))


def list_unused(root: Fields, hints: Mapping[str, str]) -> Iterator[tuple[FieldPath, str]]:
    """Yield the largest parts that were neither used nor noted, each with an explanation. `hints`: explanations by
    path without list indices, or by a field's name; a field without a hint takes that of the nearest enclosing
    part."""
    for path in _unused_paths(root.value, (), root.ledger, hints):
        above = (_find_hint(path[:end], hints) for end in range(len(path), 1, -1) if not isinstance(path[end - 1], int))
        yield path, next((text for text in above if text), UNSUPPORTED)


def _find_hint(path: FieldPath, hints: Mapping[str, str]) -> str | None:
    last = next((str(part) for part in reversed(path) if not isinstance(part, int)), "")
    return hints.get(path_without_indices(path)) or hints.get(last)


def _unused_paths(value: Any, path: FieldPath, ledger: UsageLedger, hints: Mapping[str, str]) -> list[FieldPath]:
    if ledger.is_covered(path):
        return []
    if isinstance(value, Mapping):
        members = [((*path, str(key)), member) for key, member in value.items()]
    else:
        members = [((*path, place), member) for place, member in enumerate(value)] if isinstance(value, list) else []
    unused = [each for place, member in members for each in _unused_paths(member, place, ledger, hints)]
    explained = _find_hint(path, hints) or not any(_find_hint(each, hints) for each in unused)
    return [path] if path and explained and not _is_partly_used(path, ledger) else unused


def _is_partly_used(path: FieldPath, ledger: UsageLedger) -> bool:
    """Return whether anything below the path was used or noted."""
    places = [*ledger.used, *(place for place, _ in ledger.notes)]
    return any(place[: len(path)] == path and len(place) > len(path) for place in places)
