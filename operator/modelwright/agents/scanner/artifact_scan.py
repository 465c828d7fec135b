"""Walks an artifact's files and the content packed in them.

Each file is read in every way in which it could be loaded: file names prove nothing, since a loader may take any file
for a pickle.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import lzma
import os
import pickle
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from modelwright.agents.scanner import content_checks, pickles, readers, zip_checks
from modelwright.agents.scanner.allow_list import AllowList
from modelwright.agents.scanner.findings import MAX_FINDINGS, Findings

MAX_DEPTH = 4
MAX_MEMBERS = 20_000
MAX_UNPACKED_BYTES = 64 << 30
"""Most bytes read of archive members and decompressed streams, for all files together."""

_DECOMPRESSORS: tuple[tuple[bytes, Callable[[BinaryIO], Any]], ...] = (
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ", lzma.LZMAFile),
    (b"\x5d\x00", lzma.LZMAFile),
)
_UNREADABLE_MAGIC = ((b"\x04\x22\x4d\x18", "LZ4"), (b"\x28\xb5\x2f\xfd", "Zstandard"))
_OLD_JOBLIB_MAGIC = re.compile(rb"ZF[ \t\n\r\f\v]*[+-]?0?[xX]?[0-9a-fA-F]")
_PICKLE_ERRORS = (
    KeyError,
    IndexError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    UnicodeError,
    pickle.UnpicklingError,
    struct.error,
    RecursionError,
)


class ArtifactScan:
    """One scan of a folder."""

    def __init__(self, allowed: AllowList) -> None:
        self.findings = Findings()
        self._allowed = allowed
        self._bytes_left, self._members_left = MAX_UNPACKED_BYTES, MAX_MEMBERS
        self._unknown_files: list[str] = []

    def scan_folder(self, root: Path) -> Findings:
        """Scan all files below `root`. Links to folders are not followed: their targets are scanned where they lie, or
        are outside."""
        for path in _walk_files(root):
            # "!" stands before a member of an archive.
            name = str(path.relative_to(root)).replace("!", "%21")
            if self._allowed.allows_file(name):
                self.findings.allowed.append(name)
                continue
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode) and path.resolve().is_relative_to(root.resolve()) and path.is_file():
                # The target is scanned where it lies, and again under this name.
                mode = path.stat().st_mode
            if not stat.S_ISREG(mode):
                self.findings.add_unknown(name, "is no file that can be read")
                continue
            self.findings.files += 1
            self.findings.size += path.stat().st_size
            with path.open("rb") as file:
                self._scan_file(name, file, 0)
        for name in self._unknown_files:
            if name not in self.findings.tensors:
                self.findings.add_unknown(name, "is of a format that this gate does not know")
        return self.findings

    def _scan_file(self, name: str, file: BinaryIO, depth: int) -> None:
        """Scan one file, which must be seekable to its start."""
        head = _rewind_file(file).read(content_checks.HEAD_BYTES)
        judged = content_checks.check_content(name, head, lambda: _rewind_file(file), self._allowed, self.findings)
        self._check_magic(name, head)
        packed = self._scan_packed(name, head, file, depth)
        pickled = self._scan_pickles(name, file, known=packed or (judged and name.endswith(".model")))
        if not judged and not packed and not pickled:
            self._unknown_files.append(name)

    def _check_magic(self, name: str, head: bytes) -> None:
        """Report content that a loader recognizes by its first bytes, regardless of the file's name."""
        for magic, called in _UNREADABLE_MAGIC:
            if head.startswith(magic):
                self.findings.add_unknown(name, f"is packed with {called}, which this gate can't read")
        if _OLD_JOBLIB_MAGIC.match(head):
            self.findings.add_unknown(name, "is packed as joblib once did it, which this gate can't read")

    def _scan_packed(self, name: str, head: bytes, file: BinaryIO, depth: int) -> bool:
        """Return whether the file is packed; its content has then been scanned."""
        opener = next((open_ for magic, open_ in _DECOMPRESSORS if head.startswith(magic)), None)
        if opener is None and head[:1] == b"\x78" and len(head) > 1 and int.from_bytes(head[:2], "big") % 31 == 0:
            opener = _ZlibStream
        is_zip = zipfile.is_zipfile(_rewind_file(file))
        is_tar = head[257:262] == b"ustar"
        if opener is None and not is_zip and not is_tar:
            return False
        if depth >= MAX_DEPTH:
            self.findings.add_unknown(name, f"is packed more than {MAX_DEPTH} times")
            return True
        try:
            # A file may be several at once: an archive's table is at its end, and a stream starts at its beginning.
            if is_zip:
                self._scan_zip(name, _rewind_file(file), depth)
            if is_tar:
                self._scan_tar(name, _rewind_file(file), depth)
            if opener is not None:
                packed = opener
                self._scan_stream(name, lambda: packed(_rewind_file(file)), depth)
        except _LimitExceeded:
            self.findings.add_unknown(name, "holds more than this gate unpacks")
        except (
            OSError,
            EOFError,
            zipfile.BadZipFile,
            tarfile.TarError,
            zlib.error,
            lzma.LZMAError,
            RuntimeError,
            NotImplementedError,
            ValueError,
            KeyError,
        ) as error:
            self.findings.add_unknown(name, f"can't be unpacked: {type(error).__name__}: {error}")
        return True

    def _scan_zip(self, name: str, file: BinaryIO, depth: int) -> None:
        with zipfile.ZipFile(file) as archive:
            if doubt := zip_checks.find_ambiguity(file, archive):
                self.findings.add_unknown(name, f"may be another archive to another reader: {doubt}")
            for entry in archive.infolist():
                self._count_member()
                if entry.is_dir():
                    continue
                if entry.flag_bits & 0x1:
                    self.findings.add_unknown(f"{name}!{entry.filename}", "is encrypted")
                    continue
                self._scan_member(f"{name}!{entry.filename}", functools.partial(archive.open, entry), depth)

    def _scan_tar(self, name: str, file: BinaryIO, depth: int) -> None:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for entry in archive:
                self._count_member()
                if entry.isfile():
                    self._scan_member(f"{name}!{entry.name}", functools.partial(archive.extractfile, entry), depth)
                elif not entry.isdir():
                    self.findings.add_unknown(f"{name}!{entry.name}", "is a link or a device")

    def _scan_stream(self, name: str, open_: Callable[[], Any], depth: int) -> None:
        self._scan_member(f"{name}!", open_, depth)

    def _scan_member(self, name: str, open_: Callable[[], Any], depth: int) -> None:
        if self._allowed.allows_file(name):
            self.findings.allowed.append(name)
            return
        with open_() as member:
            self._scan_file(name, cast(BinaryIO, _MeteredMember(member, self)), depth + 1)

    def _count_member(self) -> None:
        self._members_left -= 1
        if self._members_left < 0:
            raise _LimitExceeded

    def spend_bytes(self, size: int) -> None:
        """Deduct bytes from those that may be unpacked."""
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise _LimitExceeded

    def _scan_pickles(self, name: str, file: BinaryIO, *, known: bool) -> bool:
        """Return whether the file is a sequence of pickles to its end. Names that are not allowed are reported in any
        case.

        `known`: the format has been identified, so the name is no reason to expect a pickle.
        """
        expected = content_checks.may_be_pickle(name) and not known
        as_joblib = self._run_machine(name, file, arrays=True)
        if as_joblib.wrapped:
            # A reader other than joblib continues in the middle of the first array.
            self._run_machine(name, file, arrays=False)
        if as_joblib.unreadable:
            self.findings.add_unknown(name, f"is a pickle that can't be analysed: {as_joblib.unreadable}")
            return True
        if as_joblib.whole:
            return True
        if as_joblib.count or expected or as_joblib.head:
            self.findings.add_unknown(name, f"is a pickle that can't be read to its end: {as_joblib.broken}")
            return True
        return self._try_python_readers(name, file)

    def _try_python_readers(self, name: str, file: BinaryIO) -> bool:
        """Return whether one of Python's two readers takes the file for a pickle.

        They differ in what they accept as a number, and so do Python's versions.
        """
        taken = False
        for reader in readers.READERS:
            names: list[tuple[str, str]] = []
            why = readers.load_with_reader(_rewind_file(file), reader, names)
            for module, imported in names:
                self._record_import(name, module, imported)
            if why or names:
                self.findings.add_unknown(name, f"is a pickle to some readers: {why or 'it imports'}")
                taken = True
        return taken

    def _record_import(self, name: str, module: str, imported: str) -> None:
        if len(self.findings.names) < MAX_FINDINGS:
            self.findings.names.add(f"{module}.{imported}")
        if not self._allowed.allows_global(module, imported):
            self.findings.add_code(name, f"imports {module}.{imported}")

    def _run_machine(self, name: str, file: BinaryIO, *, arrays: bool) -> _PickleRun:
        run, source = _PickleRun(), io.BufferedReader(_UnclosedFile(_rewind_file(file)), 1 << 16)

        record = functools.partial(self._record_import, name)
        run.head = source.peek(2)[:1] == b"\x80" and source.peek(2)[1:2] <= b"\x05"
        while source.peek(1)[:1]:
            machine = pickles.PickleMachine(cast(BinaryIO, source), record, arrays=arrays, framed=arrays)
            try:
                machine.load()
            except _LimitExceeded:
                raise
            except pickles.OpaquePickleError as error:
                run.unreadable = str(error)
            except _PICKLE_ERRORS as error:
                run.broken = f"{type(error).__name__}: {error}"
            run.wrapped = run.wrapped or machine.has_joblib_arrays
            if run.unreadable or run.broken:
                return run
            run.count += 1
        run.whole = run.count > 0
        return run


class _PickleRun:
    """Result of reading a file as pickles."""

    def __init__(self) -> None:
        self.count, self.whole, self.wrapped, self.head = 0, False, False, False
        self.unreadable = self.broken = ""


class _LimitExceeded(Exception):
    """More is packed than may be read."""


class _UnclosedFile(io.RawIOBase):
    """Wraps a file that stays open when a buffer around the wrapper is dropped."""

    def __init__(self, file: BinaryIO) -> None:
        self._inner = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._inner.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _MeteredMember(io.RawIOBase):
    """A member of an archive whose bytes are counted."""

    def __init__(self, member: BinaryIO, scan: ArtifactScan) -> None:
        self._member, self._scan = member, scan

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._member.read(len(buffer))
        self._scan.spend_bytes(len(data))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        before = self._member.tell()
        after = self._member.seek(offset, whence)
        # A stream seeks by unpacking everything before the position.
        self._scan.spend_bytes(after if after < before else after - before)
        return after

    def tell(self) -> int:
        return self._member.tell()


class _ZlibStream(io.RawIOBase):
    """A zlib stream in joblib's form."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._at = file, 0
        self._start = file.tell()
        self._restart_stream()

    def _restart_stream(self) -> None:
        self._file.seek(self._start)
        self._inflate, self._at, self._ready = zlib.decompressobj(), 0, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and not self._inflate.eof:
            data = self._inflate.unconsumed_tail or self._file.read(1 << 16)
            if not data:
                raise EOFError("the stream ends in the middle")
            self._ready = self._inflate.decompress(data, 1 << 20)
            if self._inflate.eof and (self._inflate.unused_data or self._file.read(1)):
                raise ValueError("something follows its stream")
        chunk, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(chunk)] = chunk
        self._at += len(chunk)
        return len(chunk)

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 1:
            offset += self._at
        elif whence == 2:
            while self.read(1 << 20):
                pass
            offset += self._at
        if offset < self._at:
            self._restart_stream()
        while self._at < offset and self.read(min(1 << 20, offset - self._at)):
            pass
        return self._at

    def tell(self) -> int:
        return self._at


def _rewind_file(file: BinaryIO) -> BinaryIO:
    file.seek(0)
    return file


def _walk_files(root: Path) -> Iterator[Path]:
    def fails(error: OSError) -> None:
        raise error

    for folder, names, files in os.walk(root, onerror=fails):
        names.sort()
        linked = [name for name in names if Path(folder, name).is_symlink()]
        yield from (Path(folder, name) for name in sorted(files + linked))
