"""What Python's own two readers of pickles make of a file, with nothing behind what it imports.

They are asked about what the scan's machine takes for no pickle: a text, say. They differ from each other, and where
one of them goes on, the file is a pickle to whoever loads it that way.
"""

from __future__ import annotations

import pickle
import re
from typing import Any, BinaryIO

MAX_READ_BYTES = 64 << 20
"""Bytes that are read of a file."""
_MAX_MEMO_PLACE = 1 << 20
"""Of the memo: the reader in C makes room for as many at once."""
_NUMBER = re.compile(rb"\s*[+]?(\d+)")


class _ReadLimitExceeded(Exception):
    """It goes on for longer than is read, or takes more memory than it should."""


class _AcceptingMeta(type):
    """A class that takes whatever a pickle gives to what it has imported."""

    def __setitem__(cls, key: Any, value: Any) -> None:
        """Takes an item."""


class _Inert(metaclass=_AcceptingMeta):
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


class _BoundedFile:
    """A file of which a part is read, and of which the reader in C is given no places that cost gigabytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left, self._last = file, MAX_READ_BYTES, b""

    def read(self, size: int = -1) -> bytes:
        """As a file does."""
        found = self._file.read(self._left + 1 if size < 0 else min(size, self._left + 1))
        if len(found) > self._left:
            raise _ReadLimitExceeded(f"it goes on after {MAX_READ_BYTES} bytes")
        if self._last == b"r" and len(found) == 4:
            self._check_memo_place(int.from_bytes(found, "little"))
        self._count_bytes(found)
        return found

    def readline(self) -> bytes:
        """As a file does."""
        found = self._file.readline(self._left + 1)
        if len(found) > self._left:
            raise _ReadLimitExceeded(f"it goes on after {MAX_READ_BYTES} bytes")
        if self._last == b"p" and (number := _NUMBER.match(found)) is not None:
            self._check_memo_place(int(number[1][:20]))
        self._count_bytes(found)
        return found

    def _check_memo_place(self, place: int) -> None:
        if place > _MAX_MEMO_PLACE:
            raise _ReadLimitExceeded(f"it uses place {place} of its memo")

    def _count_bytes(self, found: bytes) -> None:
        self._left, self._last = self._left - len(found), found


class _RecordingUnpickler:
    """What both are given."""

    names: list[tuple[str, str]]

    def find_class(self, module: str, name: str) -> type[_Inert]:
        """Notes what would be imported."""
        self.names.append((module, name))
        if len(self.names) > 10_000:
            raise _ReadLimitExceeded("it imports more than 10000 names")
        return _Inert

    def persistent_load(self, _: Any) -> _Inert:
        """As loaders of torch's files have one."""
        return _Inert()


class _CUnpickler(_RecordingUnpickler, pickle.Unpickler):
    pass


class _PythonUnpickler(_RecordingUnpickler, pickle._Unpickler):
    pass


READERS: tuple[Any, ...] = (_CUnpickler, _PythonUnpickler)


def load_with_reader(file: BinaryIO, reader: Any, names: list[tuple[str, str]]) -> str:
    """Has the reader load the file. Adds what it would import to `names`; says how far it got when that is to STOP, or
    further than is read."""
    loader = reader(_BoundedFile(file), encoding="latin-1")
    loader.names = names
    try:
        loader.load()
    except _ReadLimitExceeded as error:
        return str(error)
    except MemoryError:
        return "it takes more memory than there is"
    except Exception:
        # Whatever a reader raises: it is no pickle to it.
        return ""
    return "it is one"
