"""Objects of others, read field by field: what was neither used nor noted in the end is named by `left_out`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

FieldPath = tuple[str | int, ...]
Json = dict[str, Any]

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
UNSUPPORTED = "has no place here"


class UnreadableField(ValueError):
    """A field has not the type that its API gives it; the text names the field."""


class UsageLedger:
    """Which parts of one object were used, and what is to be said of others."""

    def __init__(self) -> None:
        self.used: set[FieldPath] = set()
        self.notes: dict[tuple[FieldPath, str], bool] = {}
        """By place and text: whether the note is about all that is there."""
        self._noted: set[FieldPath] = set()

    def add_note(self, path: FieldPath, text: str, *, whole: bool) -> None:
        """Say something of a part."""
        self.notes[path, text] = whole or self.notes.get((path, text), False)
        if whole and path:
            self._noted.add(path)

    def is_covered(self, path: FieldPath) -> bool:
        """Whether the part, or one that holds it, was used or noted."""
        return any(path[:end] in self.used or path[:end] in self._noted for end in range(1, len(path) + 1))


class Fields:
    """A mapping of the object, at a path in it. What is taken out of it counts as used."""

    def __init__(self, value: Mapping[str, Any], path: FieldPath = (), ledger: UsageLedger | None = None) -> None:
        self.value, self.path = value, path
        self.ledger = UsageLedger() if ledger is None else ledger

    def __contains__(self, key: str) -> bool:
        return self.value.get(key) is not None

    def member_names(self) -> list[str]:
        """Names of the members that have a value."""
        return [key for key, value in self.value.items() if value is not None]

    def take(self, key: str) -> Any:
        """The member as it is; None when it is absent."""
        self.ledger.used.add((*self.path, key))
        return self.value.get(key)

    def text(self, key: str, default: str = "") -> str:
        """A text, or a number written without quotes."""
        value = self.take(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self._type_error(key, "a text", value)
        return str(value)

    def number(self, key: str) -> int | None:
        """A whole number, which some write in quotes."""
        value = self.take(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int) or not re.fullmatch(r"-?[0-9]{1,9}", str(value)):
            raise self._type_error(key, "a whole number", value)
        return int(value)

    def decimal(self, key: str) -> float | None:
        """A number, as a number."""
        value = self.take(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
            raise self._type_error(key, "a number", value)
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._type_error(key, "true or false", value)
        return value

    def child(self, key: str) -> Fields:
        """The mapping at a member; an empty one when it is absent."""
        value = self.value.get(key)
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise self._type_error(key, "a mapping", value)
        return Fields(value, (*self.path, key), self.ledger)

    def children(self, key: str) -> list[Fields]:
        """The mappings of a list."""
        value = self.value.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
            raise self._type_error(key, "a list of mappings", value)
        return [Fields(entry, (*self.path, key, index), self.ledger) for index, entry in enumerate(value)]

    def texts(self, key: str) -> dict[str, str]:
        """A mapping of texts, such as labels."""
        part = self.child(key)
        return {name: part.text(name) for name in part.member_names()}

    def note(self, key: str, text: str) -> None:
        """Say of a member what becomes of it; nothing when it is absent."""
        if key in self.value:
            self.ledger.add_note((*self.path, key), text, whole=True)

    def note_all(self, text: str) -> None:
        """Say of this part, and of all that is in it, what becomes of it."""
        self.ledger.add_note(self.path, text, whole=True)

    def note_here(self, text: str) -> None:
        """Say something about this part; its members have still to be used or noted."""
        self.ledger.add_note(self.path, text, whole=False)

    def _type_error(self, key: str, wanted: str, value: object) -> UnreadableField:
        return UnreadableField(f"{format_path((*self.path, key))}: must be {wanted}, and is {str(value)[:60]!r}")


def format_path(path: FieldPath) -> str:
    """A path as people write it: spec.steps[0].weight."""
    found = ""
    for part in path:
        if isinstance(part, int):
            found += f"[{part}]"
        else:
            found += f".{part}" if _PLAIN_KEY.fullmatch(str(part)) else f"[{part}]"
    return found.removeprefix(".")


def path_without_indices(path: FieldPath) -> str:
    """A path without the places in lists: spec.steps.weight."""
    return ".".join(str(part) for part in path if not isinstance(part, int))


def list_unused(root: Fields, hints: Mapping[str, str]) -> Iterator[tuple[FieldPath, str]]:
    """The largest parts of which nothing was used or noted, with what is to be said of each. `hints`: what to say, by
    path without places in lists, or by the last name of one; members without a hint take that of the nearest part that
    holds them."""
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
    found = [each for place, member in members for each in _unused_paths(member, place, ledger, hints)]
    explained = _find_hint(path, hints) or not any(_find_hint(each, hints) for each in found)
    return [path] if path and explained and not _is_partly_used(path, ledger) else found


def _is_partly_used(path: FieldPath, ledger: UsageLedger) -> bool:
    """Whether something below the path was used or noted."""
    places = [*ledger.used, *(place for place, _ in ledger.notes)]
    return any(place[: len(path)] == path and len(place) > len(path) for place in places)
