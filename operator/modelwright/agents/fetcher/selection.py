"""The part of an artifact that is the model: a folder or file in it, and patterns for its files. Pure."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from modelwright.agents.fetcher.errors import FetchError, FetchReason
from modelwright.agents.fetcher.paths import check_relative_path

MAX_PATH = 1024
MAX_PATTERN = 128
MAX_PATTERNS = 32
_KEY_LENGTH = 32
_MAX_SHOWN = 8
_UNUSABLE_CHARACTERS = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")


@dataclass(frozen=True)
class Selection:
    """A part of an artifact.

    `path` is a folder, of which the content is taken, or one file; '' is the whole artifact. Of that, a file is taken
    if its path below `path` matches one of `include` (none: every file) and none of `exclude`.

    Patterns are those of huggingface_hub's allow_patterns and ignore_patterns: `*` also matches slashes, and a slash at
    the end stands for all files in the folder.
    """

    path: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.path or self.include or self.exclude)

    @property
    def key(self) -> str:
        """A name of this part, '' for the whole; together with the whole's digest it identifies the files."""
        if not self:
            return ""
        text = json.dumps([self.path, self.include, self.exclude], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]

    def place_of(self, name: str) -> str | None:
        """Return the place of the artifact's file `name`; None if it is not in this part."""
        place = self.relative_to_path(name)
        return place if place and self.matches_patterns(place) else None

    def relative_to_path(self, name: str) -> str | None:
        """Return `name` relative to `path`: '' for the folder itself, None outside it."""
        if not self.path or name == self.path:
            return name if not self.path else ""
        return name[len(self.path) + 1 :] if name.startswith(f"{self.path}/") else None

    def matches_patterns(self, place: str) -> bool:
        """Return whether the patterns take the file at `place`, which is relative to `path`."""
        including, excluding = self._patterns
        if self.include and not any(pattern.match(place) for pattern in including):
            return False
        return not any(pattern.match(place) for pattern in excluding)

    @property
    def name(self) -> str:
        """The last segment of `path`."""
        return self.path.rpartition("/")[2]

    @cached_property
    def _patterns(self) -> tuple[list[re.Pattern[str]], list[re.Pattern[str]]]:
        return [_compile_pattern(one) for one in self.include], [_compile_pattern(one) for one in self.exclude]


def _compile_pattern(pattern: str) -> re.Pattern[str]:
    # fnmatch translates stars to atomic groups: time grows at most with the product of both lengths.
    return re.compile(fnmatch.translate(f"{pattern}*" if pattern.endswith("/") else pattern))


def parse_selection(path: str = "", include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Selection:
    """Build the selection. FetchError(InvalidURI) names an invalid field."""
    if path:
        _check_text(path, "artifact.path", MAX_PATH)
        if path != _clean_path(path):
            raise _invalid_field(
                "artifact.path",
                "must be relative, such as models/digits, without '.' or '..' and without a slash at its end",
            )
    for field, patterns in (("artifact.include", include), ("artifact.exclude", exclude)):
        if len(patterns) > MAX_PATTERNS:
            raise _invalid_field(field, f"may have {MAX_PATTERNS} patterns at most")
        for pattern in patterns:
            _check_text(pattern, field, MAX_PATTERN)
            if pattern.startswith("/") or {".", ".."} & set(pattern.split("/")):
                raise _invalid_field(field, f"has {pattern!a}; patterns are relative, without '.' or '..'")
    return Selection(path, tuple(include), tuple(exclude))


def _check_text(text: str, field: str, max_length: int) -> None:
    if not 1 <= len(text) <= max_length:
        raise _invalid_field(field, f"must have 1 to {max_length} characters")
    if _UNUSABLE_CHARACTERS.search(text):
        raise _invalid_field(field, "may not contain a backslash, a control character or invalid UTF-8")


def _clean_path(path: str) -> str:
    try:
        return check_relative_path(path, "artifact.path")
    except FetchError:
        return ""


def _invalid_field(field: str, why: str) -> FetchError:
    return FetchError(FetchReason.INVALID_URI, f"{field} {why}.")


class PathCandidates:
    """Names in an artifact near a selection's path, for the message if the path does not exist."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._segments = selection.path.split("/") if selection.path else []
        self._names: dict[int, dict[str, None]] = {}
        self._left_out = 0
        self.link = ""

    def add_name(self, name: str) -> None:
        """Add the name of an entry of the artifact."""
        parts = name.split("/")
        same = 0
        while same < min(len(parts), len(self._segments)) and parts[same] == self._segments[same]:
            same += 1
        if same < len(parts):
            self._left_out += same == len(self._segments)
            names = self._names.setdefault(same, {})
            if len(names) <= _MAX_SHOWN:
                names["/".join(parts[same:]) if same == len(self._segments) else parts[same]] = None

    def add_names(self, names: Iterable[str]) -> PathCandidates:
        """Add the names of entries; returns itself."""
        for name in names:
            self.add_name(name)
        return self

    def nothing_selected(self, where: str) -> FetchError:
        """Build the failure that the selection takes nothing of the artifact `where`."""
        path = self._selection.path
        if self.link:
            return _not_found(f"{where}: {self.link}. Write the folder that it leads to into artifact.path.")
        if self._left_out:
            present = self._format_names(len(self._segments))
            text = f"none of {self._left_out} files fits artifact.include and artifact.exclude; there are {present}"
            return _not_found(f"{where}: {text}.")
        depth = max((depth for depth in self._names if depth < len(self._segments)), default=None)
        if depth is None:
            return _not_found(f"{where}: there is no {path!a} (artifact.path), nor anything else.")
        place = f"in {'/'.join(self._segments[:depth])!a}" if depth else "at its top"
        return _not_found(
            f"{where}: there is no {path!a} (artifact.path); {place} there are {self._format_names(depth)}."
        )

    def _format_names(self, depth: int) -> str:
        names = list(self._names.get(depth, ()))
        more = " and more" if len(names) > _MAX_SHOWN else ""
        return ", ".join(ascii(name[:80]) for name in names[:_MAX_SHOWN]) + more


def _not_found(text: str) -> FetchError:
    return FetchError(FetchReason.ARTIFACT_NOT_FOUND, text)
