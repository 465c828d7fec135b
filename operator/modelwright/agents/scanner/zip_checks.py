"""Checks whether a zip archive is the same to all readers.

Some use the table's offset from the file's start, some its distance from the end, and some the header before each
member.
"""

from __future__ import annotations

import struct
import zipfile
from typing import BinaryIO

_END, _END64, _PLACE64, _MEMBER = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x03\x04"
_DESCRIPTOR_SIZES = (12, 16, 20, 24)
_MAX_COMMENT_BYTES = 1 << 16


def find_ambiguity(file: BinaryIO, archive: zipfile.ZipFile) -> str:
    """Describe the first ambiguity; empty if there is none. Table and members must fill the file without a gap."""
    size = file.seek(0, 2)
    first = max(0, size - _MAX_COMMENT_BYTES - 22)
    tail = _read_at(file, first, size - first)
    end_offset = tail.rfind(_END)
    if end_offset < 0 or len(tail) - end_offset < 22:
        return "its end is unknown"
    end = first + end_offset
    count, length, start, comment = struct.unpack("<10xHIIH", tail[end_offset : end_offset + 22])
    if end + 22 + comment != size:
        return "something follows it"
    table_end = end
    before = _read_at(file, max(0, end - 20), 20)
    if before.startswith(_PLACE64):
        (place,) = struct.unpack("<8xQ4x", before)
        record = _read_at(file, place, 56) if place == end - 76 else b""
        if len(record) < 56 or not record.startswith(_END64):
            return "it has two ends"
        count64, length64, start64 = struct.unpack("<32xQQQ", record)
        fields = ((count, count64, 0xFFFF), (length, length64, 0xFFFFFFFF), (start, start64, 0xFFFFFFFF))
        if any(short not in (long, marker) for short, long, marker in fields):
            return "its two ends differ"
        count, length, start, table_end = count64, length64, start64, place
    if start + length != table_end:
        return "its table is not where it says"
    return _check_members(file, archive, count, start)


def _check_members(file: BinaryIO, archive: zipfile.ZipFile, count: int, table: int) -> str:
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    if count != len(entries):
        return "its table has another length"
    after = [entry.header_offset for entry in entries[1:]] + [table]
    if entries and entries[0].header_offset != 0:
        return "something stands before it"
    if not entries and table != 0:
        return "something stands before it"
    for entry, following in zip(entries, after, strict=True):
        head = _read_at(file, entry.header_offset, 30)
        if len(head) < 30 or not head.startswith(_MEMBER):
            return "a member has no head"
        flags, named, extra = struct.unpack("<6xH18xHH", head)
        gap = following - (entry.header_offset + 30 + named + extra + entry.compress_size)
        if gap and not (flags & 0x8 and gap in _DESCRIPTOR_SIZES):
            return "something stands between its members"
    return ""


def _read_at(file: BinaryIO, place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)
