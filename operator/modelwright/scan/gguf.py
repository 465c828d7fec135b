"""Reads the chat templates in the head of a GGUF file. Its tensors, and what isn't asked for, are passed over."""

from __future__ import annotations

from typing import BinaryIO

_MOST_PAIRS = 100_000
_MOST_TEXT = 4 << 20
_MOST_ELEMENTS = 20_000_000
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a number, by its type."""
_STRING, _ARRAY = 8, 9


class Malformed(ValueError):
    """The bytes are no such file, or one of another version."""


def templates(file: BinaryIO) -> list[str]:
    """The values of all keys that name a chat template. Raises Malformed."""
    end = file.seek(0, 2)
    file.seek(0)
    if file.read(4) != b"GGUF" or _number(file, 4) not in (2, 3):
        raise Malformed("it is no GGUF of version 2 or 3")
    _number(file, 8)
    pairs = _number(file, 8)
    if pairs > _MOST_PAIRS:
        raise Malformed(f"it has more than {_MOST_PAIRS} keys")
    found = []
    for _ in range(pairs):
        key = _text(file, end)
        kind = _number(file, 4)
        if kind == _STRING and "template" in key:
            found.append(_text(file, end))
        else:
            _skip(file, kind, end)
    return found


def _number(file: BinaryIO, size: int) -> int:
    data = file.read(size)
    if len(data) < size:
        raise Malformed("it ends in the middle")
    return int.from_bytes(data, "little")


def _text(file: BinaryIO, end: int) -> str:
    size = _number(file, 8)
    if size > min(_MOST_TEXT, end - file.tell()):
        raise Malformed("a text is longer than the file, or than can be")
    return file.read(size).decode("utf-8", "replace")


def _skip(file: BinaryIO, kind: int, end: int) -> None:
    if kind == _STRING:
        _pass_over(file, _number(file, 8), end)
    elif kind == _ARRAY:
        of, count = _number(file, 4), _number(file, 8)
        if of in _SIZES:
            _pass_over(file, count * _SIZES[of], end)
        elif of != _STRING or count > _MOST_ELEMENTS:
            raise Malformed("an array has elements of an unknown type, or too many")
        else:
            for _ in range(count):
                _pass_over(file, _number(file, 8), end)
    elif kind in _SIZES:
        _pass_over(file, _SIZES[kind], end)
    else:
        raise Malformed(f"a value has the unknown type {kind}")


def _pass_over(file: BinaryIO, size: int, end: int) -> None:
    if size > end - file.tell():
        raise Malformed("it ends in the middle")
    file.seek(size, 1)
