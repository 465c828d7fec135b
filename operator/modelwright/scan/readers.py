"""What Python's own two readers of pickles make of a file, with nothing behind what it imports.

They are asked about what the scan's machine takes for no pickle: a text, say. They differ from each other, and where
one of them goes on, the file is a pickle to whoever loads it that way.
"""

from __future__ import annotations

import pickle
import re
from typing import Any, BinaryIO

MOST = 64 << 20
"""Bytes that are read of a file."""
_MOST_PLACE = 1 << 20
"""Of the memo: the reader in C makes room for as many at once."""
_NUMBER = re.compile(rb"\s*[+]?(\d+)")


class _Endless(Exception):
    """It goes on for longer than is read, or takes more memory than it should."""


class _Takes(type):
    """A class that takes whatever a pickle gives to what it has imported."""

    def __setitem__(cls, key: Any, value: Any) -> None:
        """Takes an item."""


class _Inert(metaclass=_Takes):
    """Stands for what was imported, and for what calling that gives."""

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Takes all."""

    def __call__(self, *_: Any, **__: Any) -> _Inert:
        return _Inert()

    def __setitem__(self, key: Any, value: Any) -> None:
        """Takes an item."""

    def __setstate__(*_: Any) -> None:
        """Takes a state, of the class as of what it makes."""

    append = extend = add = __setstate__


class _Source:
    """A file of which a part is read, and of which the reader in C is given no places that cost gigabytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left, self._last = file, MOST, b""

    def read(self, size: int = -1) -> bytes:
        """As a file does."""
        found = self._file.read(self._left + 1 if size < 0 else min(size, self._left + 1))
        if len(found) > self._left:
            raise _Endless(f"it goes on after {MOST} bytes")
        if self._last == b"r" and len(found) == 4:
            self._place(int.from_bytes(found, "little"))
        self._spend(found)
        return found

    def readline(self) -> bytes:
        """As a file does."""
        found = self._file.readline(self._left + 1)
        if len(found) > self._left:
            raise _Endless(f"it goes on after {MOST} bytes")
        if self._last == b"p" and (number := _NUMBER.match(found)) is not None:
            self._place(int(number[1][:20]))
        self._spend(found)
        return found

    def _place(self, place: int) -> None:
        if place > _MOST_PLACE:
            raise _Endless(f"it uses place {place} of its memo")

    def _spend(self, found: bytes) -> None:
        self._left, self._last = self._left - len(found), found


class _Reader:
    """What both are given."""

    names: list[tuple[str, str]]

    def find_class(self, module: str, name: str) -> type[_Inert]:
        """Notes what would be imported."""
        self.names.append((module, name))
        if len(self.names) > 10_000:
            raise _Endless("it imports more than 10000 names")
        return _Inert

    def persistent_load(self, _: Any) -> _Inert:
        """As loaders of torch's files have one."""
        return _Inert()


class _InC(_Reader, pickle.Unpickler):
    pass


class _InPython(_Reader, pickle._Unpickler):
    pass


READERS: tuple[Any, ...] = (_InC, _InPython)


def read(file: BinaryIO, reader: Any, names: list[tuple[str, str]]) -> str:
    """Has the reader load the file. Adds what it would import to `names`; says how far it got when that is to STOP, or
    further than is read."""
    loader = reader(_Source(file), encoding="latin-1")
    loader.names = names
    try:
        loader.load()
    except _Endless as error:
        return str(error)
    except MemoryError:
        return "it takes more memory than there is"
    except Exception:
        # Whatever a reader raises: it is no pickle to it.
        return ""
    return "it is one"
