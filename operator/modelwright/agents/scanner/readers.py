"""Loads a file with Python's own two readers of pickles, with inert objects in place of imports.

They try the files that the scan's machine does not take for a pickle, such as texts. The two differ, and if one of them
succeeds, the file is a pickle to any loader of that kind.
"""

from __future__ import annotations

import pickle
import re
from typing import Any, BinaryIO

MAX_READ_BYTES = 64 << 20
"""Most bytes read of a file."""
_MAX_MEMO_PLACE = 1 << 20
"""Highest place in the memo: the reader in C allocates that many at once."""
_NUMBER = re.compile(rb"\s*[+]?(\d+)")


class _ReadLimitExceeded(Exception):
    """The file is longer than the limit, or would take too much memory."""


class _AcceptingMeta(type):
    """Makes a class that accepts every operation of a pickle on an imported object."""

    def __setitem__(cls, key: Any, value: Any) -> None:
        """Accept an item."""


class _Inert(metaclass=_AcceptingMeta):
    """Stands for an imported object, and for the result of calling it."""

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Accept all arguments."""

    def __call__(self, *_: Any, **__: Any) -> _Inert:
        return _Inert()

    def __setitem__(self, key: Any, value: Any) -> None:
        """Accept an item."""

    def __setstate__(*_: Any) -> None:
        """Accept a state, of the class or of its instance."""

    append = extend = add = __setstate__


class _BoundedFile:
    """A file read up to a limit, which gives the reader in C no memo places that cost gigabytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left, self._last = file, MAX_READ_BYTES, b""

    def read(self, size: int = -1) -> bytes:
        """Read as a file does."""
        data = self._file.read(self._left + 1 if size < 0 else min(size, self._left + 1))
        if len(data) > self._left:
            raise _ReadLimitExceeded(f"it continues after {MAX_READ_BYTES} bytes")
        if self._last == b"r" and len(data) == 4:
            self._check_memo_place(int.from_bytes(data, "little"))
        self._count_bytes(data)
        return data

    def readline(self) -> bytes:
        """Read as a file does."""
        line = self._file.readline(self._left + 1)
        if len(line) > self._left:
            raise _ReadLimitExceeded(f"it continues after {MAX_READ_BYTES} bytes")
        if self._last == b"p" and (number := _NUMBER.match(line)) is not None:
            self._check_memo_place(int(number[1][:20]))
        self._count_bytes(line)
        return line

    def _check_memo_place(self, place: int) -> None:
        if place > _MAX_MEMO_PLACE:
            raise _ReadLimitExceeded(f"it uses place {place} of its memo")

    def _count_bytes(self, data: bytes) -> None:
        self._left, self._last = self._left - len(data), data


class _RecordingUnpickler:
    """Common part of both readers."""

    names: list[tuple[str, str]]

    def find_class(self, module: str, name: str) -> type[_Inert]:
        """Record the name that would be imported."""
        self.names.append((module, name))
        if len(self.names) > 10_000:
            raise _ReadLimitExceeded("it imports more than 10000 names")
        return _Inert

    def persistent_load(self, _: Any) -> _Inert:
        """Accept persistent ids, as loaders of torch files do."""
        return _Inert()


class _CUnpickler(_RecordingUnpickler, pickle.Unpickler):
    pass


class _PythonUnpickler(_RecordingUnpickler, pickle._Unpickler):
    pass


READERS: tuple[Any, ...] = (_CUnpickler, _PythonUnpickler)


def load_with_reader(file: BinaryIO, reader: Any, names: list[tuple[str, str]]) -> str:
    """Load the file with the reader and add the names that it would import to `names`.

    Returns how far it got if that is to STOP, or beyond the limit; else an empty text.
    """
    loader = reader(_BoundedFile(file), encoding="latin-1")
    loader.names = names
    try:
        loader.load()
    except _ReadLimitExceeded as error:
        return str(error)
    except MemoryError:
        return "it takes more memory than there is"
    except Exception:
        # Any error of a reader means that the file is not a pickle to it.
        return ""
    return "it is one"
