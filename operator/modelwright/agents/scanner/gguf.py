"""Reads the chat templates in the head of a GGUF file; its tensors and all other values are skipped."""

from __future__ import annotations

from typing import BinaryIO

_MAX_PAIRS = 100_000
_MAX_TEXT_BYTES = 4 << 20
_MAX_ELEMENTS = 20_000_000
_NUMBER_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a number, by its type."""
_STRING, _ARRAY = 8, 9


class GgufError(ValueError):
    """The bytes are not a GGUF file, or one of another version."""


def read_templates(file: BinaryIO) -> list[str]:
    """Return the values of all keys that name a chat template. Raises GgufError."""
    end = file.seek(0, 2)
    file.seek(0)
    if file.read(4) != b"GGUF" or _read_number(file, 4) not in (2, 3):
        raise GgufError("it is no GGUF of version 2 or 3")
    _read_number(file, 8)
    pairs = _read_number(file, 8)
    if pairs > _MAX_PAIRS:
        raise GgufError(f"it has more than {_MAX_PAIRS} keys")
    values = []
    for _ in range(pairs):
        key = _read_text(file, end)
        kind = _read_number(file, 4)
        if kind == _STRING and "template" in key:
            values.append(_read_text(file, end))
        else:
            _skip_value(file, kind, end)
    return values


def _read_number(file: BinaryIO, size: int) -> int:
    data = file.read(size)
    if len(data) < size:
        raise GgufError("it ends in the middle")
    return int.from_bytes(data, "little")


def _read_text(file: BinaryIO, end: int) -> str:
    size = _read_number(file, 8)
    if size > min(_MAX_TEXT_BYTES, end - file.tell()):
        raise GgufError("a text is longer than the file, or than the limit")
    return file.read(size).decode("utf-8", "replace")


def _skip_value(file: BinaryIO, kind: int, end: int) -> None:
    if kind == _STRING:
        _skip_bytes(file, _read_number(file, 8), end)
    elif kind == _ARRAY:
        element_kind, count = _read_number(file, 4), _read_number(file, 8)
        if element_kind in _NUMBER_BYTES:
            _skip_bytes(file, count * _NUMBER_BYTES[element_kind], end)
        elif element_kind != _STRING or count > _MAX_ELEMENTS:
            raise GgufError("an array has elements of an unknown type, or too many")
        else:
            for _ in range(count):
                _skip_bytes(file, _read_number(file, 8), end)
    elif kind in _NUMBER_BYTES:
        _skip_bytes(file, _NUMBER_BYTES[kind], end)
    else:
        raise GgufError(f"a value has the unknown type {kind}")


def _skip_bytes(file: BinaryIO, size: int, end: int) -> None:
    if size > end - file.tell():
        raise GgufError("it ends in the middle")
    file.seek(size, 1)
