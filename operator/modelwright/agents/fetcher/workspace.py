"""The folder in which an artifact is assembled: finished files, partial files, and a journal to resume from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from modelwright.agents.fetcher import disk
from modelwright.agents.fetcher.digest import FileEntry
from modelwright.agents.fetcher.port import RemoteFile
from modelwright.agents.fetcher.report import TransferMeter
from modelwright.agents.fetcher.transfer import Pieces
from modelwright.agents.fetcher.verify import FileHasher

FILE_MODE = 0o644  # another user (uid) serves the model
FOLDER_MODE = 0o755
_READ_BYTES = 1 << 20
_SPACE_CHECK_BYTES = 64 << 20


@dataclass(frozen=True)
class _FinishedFile:
    size: int
    version: str
    sha256: str


class Workspace:
    """Layout below `root`: tree/ holds finished files, archives/ those to unpack, partial/ partial files, journal.jsonl
    the state of each.

    A partial file is always a gapless prefix, so a kill at any moment leaves a state to resume from. Everything here is
    hashed again before use: a node that lost power may have kept the journal and lost the data.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tree = root / "tree"
        self.archives = root / "archives"
        self._partial = root / "partial"
        self._journal_path = root / "journal.jsonl"
        self._journal: BinaryIO | None = None
        self._done: dict[str, _FinishedFile] = {}
        self._partial_files: dict[str, tuple[int, str]] = {}
        self._folders: set[Path] = set()
        self.used_leftovers = False

    def open(self) -> None:
        """Create the folders, or resume an earlier try of this container."""
        with disk.translate_errors(self.root, "The download"):
            for folder in (self.root, self.tree, self.archives, self._partial):
                folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            self.tree.chmod(FOLDER_MODE)
            self._read_journal()
            self._journal = self._journal_path.open("ab", buffering=0)

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def wipe_folder(self) -> None:
        """Discard everything and start again."""
        self.close()
        remove_path(self.root)
        self._done.clear()
        self._partial_files.clear()
        self._folders.clear()
        self.used_leftovers = False
        self.open()

    def _read_journal(self) -> None:
        try:
            lines = self._journal_path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        for line in lines:
            try:
                record = json.loads(line)
                key, size, version, sha256 = record["path"], record["size"], record["version"], record["sha256"]
            except (ValueError, KeyError, TypeError):
                continue  # a kill can truncate the last line
            if sha256:
                self._done[key] = _FinishedFile(size, version, sha256)
            else:
                self._partial_files[key] = (size, version)

    def _append_journal(self, *notes: tuple[RemoteFile, int | None, str]) -> None:
        """Record files with their size and sha256, '' for a partial one. A file without a version is never resumed."""
        lines = [
            json.dumps({"path": file.path, "size": size, "version": file.version, "sha256": sha256}) + "\n"
            for file, size, sha256 in notes
            if file.version
        ]
        if self._journal is not None and lines:
            self._journal.write("".join(lines).encode())

    @property
    def has_leftovers(self) -> bool:
        """Whether an earlier try has finished files."""
        return bool(self._done)

    def stored_bytes(self) -> int:
        """Return the bytes that earlier tries left on the disk. Blocking."""
        if not self._done and not self._partial_files:
            return 0
        total = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                total += os.lstat(os.path.join(folder, name)).st_size
        return total

    def finished_path(self, file: RemoteFile) -> Path:
        """Return the path of the finished file."""
        if file.unpack:
            return self.archives / _flat_name(file.path)
        return self.tree / file.path

    def verify_finished(self, files: list[RemoteFile]) -> dict[str, FileEntry]:
        """Return entries, by path, of the files that an earlier try finished in exactly this version. Blocking."""
        entries = {file.path: self._verify_file(file) for file in files}
        return {path: entry for path, entry in entries.items() if entry is not None}

    def _verify_file(self, file: RemoteFile) -> FileEntry | None:
        """Return the file's entry if its journal record matches the disk."""
        done = self._done.get(file.path)
        if done is None or not file.version or done.version != file.version or done.size != file.size:
            return None
        place = self.finished_path(file)
        try:
            if place.stat().st_size != done.size:
                return None
            hasher = FileHasher(file)
            with place.open("rb") as stored:
                while data := stored.read(_READ_BYTES):
                    hasher.update(data)
        except OSError:
            return None
        entry = hasher.verified_entry()
        if entry.sha256 != done.sha256:
            return None
        self.used_leftovers = True
        return entry

    def _make_folder(self, path: Path) -> None:
        if path in self._folders:
            return
        if path not in (self.tree, self.archives):
            self._make_folder(path.parent)
            path.mkdir(mode=FOLDER_MODE, exist_ok=True)
            path.chmod(FOLDER_MODE)
        self._folders.add(path)

    def write_small(self, content: list[tuple[RemoteFile, Pieces]]) -> list[FileEntry]:
        """Write and hash whole files. Blocking."""
        entries = []
        for file, pieces in content:
            hasher = FileHasher(file)
            hasher.update_all(pieces)
            entries.append(hasher.verified_entry())
            place = self.finished_path(file)
            with disk.translate_errors(self.root, file.path):
                self._make_folder(place.parent)
                _write_pieces(place, pieces)
        with disk.translate_errors(self.root, "The journal"):
            self._append_journal(
                *((file, entry.size, entry.sha256) for (file, _), entry in zip(content, entries, strict=True))
            )
        return entries

    def keep_only(self, paths: set[str]) -> None:
        """Remove everything from the tree except these files: leftovers of another listing, or of an archive that an
        earlier try was unpacking. Blocking."""
        with disk.translate_errors(self.root, "The download"):
            for folder, subfolders, names in os.walk(self.tree, topdown=False):
                below = os.path.relpath(folder, self.tree)
                for name in (*names, *(name for name in subfolders if os.path.islink(os.path.join(folder, name)))):
                    if os.path.normpath(os.path.join(below, name)) not in paths:
                        os.unlink(os.path.join(folder, name))
                if folder != str(self.tree) and not os.listdir(folder):
                    os.rmdir(folder)

    def open_partial(self, file: RemoteFile, meter: TransferMeter) -> PartialFile:
        """Open the sink of a larger file, which keeps the bytes of an earlier try of the same version. Blocking."""
        resume = (
            file.size is not None
            and bool(file.version)
            and self._partial_files.get(file.path) == (file.size, file.version)
        )
        with disk.translate_errors(self.root, file.path):
            if not resume:
                self._append_journal((file, file.size, ""))
            sink = PartialFile(self, file, self._partial / _flat_name(file.path), resume=resume)
        if sink.offset:
            self.used_leftovers = True
            meter.resumed += sink.offset
        return sink

    def move_finished(self, file: RemoteFile, partial: Path, entry: FileEntry) -> None:
        """Move a verified file from `partial` to its place and record it."""
        place = self.finished_path(file)
        self._make_folder(place.parent)
        partial.chmod(FILE_MODE)
        partial.replace(place)
        self._append_journal((file, entry.size, entry.sha256))


class PartialFile:
    """A file that grows from its first byte; hashes the bytes it writes."""

    def __init__(self, workspace: Workspace, file: RemoteFile, path: Path, *, resume: bool) -> None:
        self._workspace = workspace
        self._file = file
        self._path = path
        self._hasher = FileHasher(file)
        self._unchecked_bytes = 0
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | (0 if resume else os.O_TRUNC), FILE_MODE)
        self._out = os.fdopen(descriptor, "r+b", buffering=0)
        if resume:
            if file.size is not None and os.fstat(descriptor).st_size > file.size:
                self._out.truncate(0)
            while data := self._out.read(_READ_BYTES):
                self._hasher.update(data)

    @property
    def offset(self) -> int:
        """Number of bytes written."""
        return self._hasher.size

    def append(self, pieces: Pieces) -> None:
        """Write and hash the next bytes. Blocking."""
        for data in pieces:
            with disk.translate_errors(self._workspace.root, self._file.path):
                view = memoryview(data)
                while view:
                    view = view[self._out.write(view) :]
            self._hasher.update(data)
            self._unchecked_bytes += len(data)
        if self._unchecked_bytes >= _SPACE_CHECK_BYTES and self._file.size is not None:
            self._unchecked_bytes = 0
            disk.require_space(self._workspace.root, self._file.size - self.offset, f"The rest of {self._file.path}")

    def restart(self) -> None:
        """Truncate the file. Blocking."""
        self._out.seek(0)
        self._out.truncate(0)
        self._hasher = FileHasher(self._file)

    def finish_file(self) -> FileEntry:
        """Verify the file and move it to its place. Blocking."""
        try:
            entry = self._hasher.verified_entry()
        except Exception:
            self.close()
            self._path.unlink(missing_ok=True)
            raise
        self.close()
        with disk.translate_errors(self._workspace.root, self._file.path):
            self._workspace.move_finished(self._file, self._path, entry)
        return entry

    def close(self) -> None:
        """Close the file."""
        self._out.close()


def _flat_name(path: str) -> str:
    """Return a flat, short name for any path."""
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:40]


def _write_pieces(place: Path, pieces: Pieces) -> None:
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    try:
        for data in pieces:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        os.fchmod(descriptor, FILE_MODE)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Create the folder and its parents; other users (uid) can read a new one with any umask."""
    if not path.is_dir():
        path.mkdir(parents=True)
        path.chmod(FOLDER_MODE)


def remove_path(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
