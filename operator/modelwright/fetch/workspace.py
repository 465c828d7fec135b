"""The folder in which an artifact grows: finished files, the beginning of unfinished ones, and a journal to go on
from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from modelwright.fetch import disk
from modelwright.fetch.digest import Entry
from modelwright.fetch.port import RemoteFile
from modelwright.fetch.report import Meter
from modelwright.fetch.transfer import Pieces
from modelwright.fetch.verify import Hasher

FILE_MODE = 0o644  # another user (uid) serves the model
FOLDER_MODE = 0o755
_READ = 1 << 20
_SPACE_STEP = 64 << 20


@dataclass(frozen=True)
class _Done:
    size: int
    version: str
    sha256: str


class Workspace:
    """Layout below `root`: tree/ holds finished files, archives/ what is to be unpacked, partial/ beginnings,
    journal.jsonl what is what.

    A beginning is always a gapless prefix, so a kill at any moment leaves something to go on from. Nothing here is
    trusted
    without hashing it again: a node that lost power may have kept the journal and lost the data.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tree = root / "tree"
        self.archives = root / "archives"
        self._partial = root / "partial"
        self._journal_path = root / "journal.jsonl"
        self._journal: BinaryIO | None = None
        self._done: dict[str, _Done] = {}
        self._begun: dict[str, tuple[int, str]] = {}
        self._folders: set[Path] = set()
        self.used_leftovers = False

    def open(self) -> None:
        """Creates the folders, or takes over what an earlier try of this container left."""
        with disk.writing(self.root, "The download"):
            for folder in (self.root, self.tree, self.archives, self._partial):
                folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            self.tree.chmod(FOLDER_MODE)
            self._read_journal()
            self._journal = self._journal_path.open("ab", buffering=0)

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def wipe(self) -> None:
        """Throw everything away and begin anew."""
        self.close()
        remove(self.root)
        self._done.clear()
        self._begun.clear()
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
                continue  # a kill can cut the last line
            if sha256:
                self._done[key] = _Done(size, version, sha256)
            else:
                self._begun[key] = (size, version)

    def _note(self, *notes: tuple[RemoteFile, int | None, str]) -> None:
        """Files with their size and sha256, or '' for one that is only begun. What has no version is never taken up."""
        lines = [
            json.dumps({"path": file.path, "size": size, "version": file.version, "sha256": sha256}) + "\n"
            for file, size, sha256 in notes
            if file.version
        ]
        if self._journal is not None and lines:
            self._journal.write("".join(lines).encode())

    @property
    def has_leftovers(self) -> bool:
        return bool(self._done)

    def stored_bytes(self) -> int:
        """How much earlier tries left on the disk. Blocking."""
        if not self._done and not self._begun:
            return 0
        total = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                total += os.lstat(os.path.join(folder, name)).st_size
        return total

    def place(self, file: RemoteFile) -> Path:
        """Where the finished file goes."""
        if file.unpack:
            return self.archives / _name(file.path)
        return self.tree / file.path

    def finished(self, files: list[RemoteFile]) -> dict[str, Entry]:
        """Entries, by path, of those files of which an earlier try finished exactly this version. Blocking."""
        found = {file.path: self._finished(file) for file in files}
        return {path: entry for path, entry in found.items() if entry is not None}

    def _finished(self, file: RemoteFile) -> Entry | None:
        """The file's entry, when what the journal says of it is true on the disk."""
        done = self._done.get(file.path)
        if done is None or not file.version or done.version != file.version or done.size != file.size:
            return None
        place = self.place(file)
        try:
            if place.stat().st_size != done.size:
                return None
            hasher = Hasher(file)
            with place.open("rb") as stored:
                while data := stored.read(_READ):
                    hasher.update(data)
        except OSError:
            return None
        entry = hasher.entry()
        if entry.sha256 != done.sha256:
            return None
        self.used_leftovers = True
        return entry

    def _folder(self, path: Path) -> None:
        if path in self._folders:
            return
        if path not in (self.tree, self.archives):
            self._folder(path.parent)
            path.mkdir(mode=FOLDER_MODE, exist_ok=True)
            path.chmod(FOLDER_MODE)
        self._folders.add(path)

    def write_small(self, content: list[tuple[RemoteFile, Pieces]]) -> list[Entry]:
        """Writes and hashes whole files. Blocking."""
        entries = []
        for file, pieces in content:
            hasher = Hasher(file)
            hasher.update_all(pieces)
            entries.append(hasher.entry())
            place = self.place(file)
            with disk.writing(self.root, file.path):
                self._folder(place.parent)
                _write(place, pieces)
        with disk.writing(self.root, "The journal"):
            self._note(*((file, entry.size, entry.sha256) for (file, _), entry in zip(content, entries, strict=True)))
        return entries

    def keep_only(self, paths: set[str]) -> None:
        """Takes everything out of the tree that is not one of these files: what an earlier try left of another listing,
        or of an archive that it had begun to unpack. Blocking."""
        with disk.writing(self.root, "The download"):
            for folder, subfolders, names in os.walk(self.tree, topdown=False):
                below = os.path.relpath(folder, self.tree)
                for name in (*names, *(name for name in subfolders if os.path.islink(os.path.join(folder, name)))):
                    if os.path.normpath(os.path.join(below, name)) not in paths:
                        os.unlink(os.path.join(folder, name))
                if folder != str(self.tree) and not os.listdir(folder):
                    os.rmdir(folder)

    def begin(self, file: RemoteFile, meter: Meter) -> PartialFile:
        """The sink of a larger file, which has what an earlier try of the same version left. Blocking."""
        resume = (
            file.size is not None and bool(file.version) and self._begun.get(file.path) == (file.size, file.version)
        )
        with disk.writing(self.root, file.path):
            if not resume:
                self._note((file, file.size, ""))
            sink = PartialFile(self, file, self._partial / _name(file.path), resume=resume)
        if sink.offset:
            self.used_leftovers = True
            meter.resumed += sink.offset
        return sink

    def finish(self, file: RemoteFile, partial: Path, entry: Entry) -> None:
        place = self.place(file)
        self._folder(place.parent)
        partial.chmod(FILE_MODE)
        partial.replace(place)
        self._note((file, entry.size, entry.sha256))


class PartialFile:
    """A file that grows from its first byte on; hashes what it writes."""

    def __init__(self, workspace: Workspace, file: RemoteFile, path: Path, *, resume: bool) -> None:
        self._workspace = workspace
        self._file = file
        self._path = path
        self._hasher = Hasher(file)
        self._since_look = 0
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | (0 if resume else os.O_TRUNC), FILE_MODE)
        self._out = os.fdopen(descriptor, "r+b", buffering=0)
        if resume:
            if file.size is not None and os.fstat(descriptor).st_size > file.size:
                self._out.truncate(0)
            while data := self._out.read(_READ):
                self._hasher.update(data)

    @property
    def offset(self) -> int:
        return self._hasher.size

    def append(self, pieces: Pieces) -> None:
        """Writes and hashes the next bytes. Blocking."""
        for data in pieces:
            with disk.writing(self._workspace.root, self._file.path):
                view = memoryview(data)
                while view:
                    view = view[self._out.write(view) :]
            self._hasher.update(data)
            self._since_look += len(data)
        if self._since_look >= _SPACE_STEP and self._file.size is not None:
            self._since_look = 0
            disk.require(self._workspace.root, self._file.size - self.offset, f"The rest of {self._file.path}")

    def restart(self) -> None:
        """Begins the file anew. Blocking."""
        self._out.seek(0)
        self._out.truncate(0)
        self._hasher = Hasher(self._file)

    def finish(self) -> Entry:
        """Verifies the file and puts it into its place. Blocking."""
        try:
            entry = self._hasher.entry()
        except Exception:
            self.close()
            self._path.unlink(missing_ok=True)
            raise
        self.close()
        with disk.writing(self._workspace.root, self._file.path):
            self._workspace.finish(self._file, self._path, entry)
        return entry

    def close(self) -> None:
        self._out.close()


def _name(path: str) -> str:
    """A flat, short name for any path."""
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:40]


def _write(place: Path, pieces: Pieces) -> None:
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
    """The folder, with its parents; a new one can be read by other users (uid) whatever the umask."""
    if not path.is_dir():
        path.mkdir(parents=True)
        path.chmod(FOLDER_MODE)


def remove(path: Path) -> None:
    """Takes a file or a folder away; what is already gone is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
