"""Unpacks zip and tar archives. Nothing lands outside the folder or exceeds the limits."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, BinaryIO, cast

from modelwright.agents.fetcher import disk
from modelwright.agents.fetcher.errors import FetchError, FetchReason
from modelwright.agents.fetcher.paths import check_relative_path, list_parents, resolve_link_target
from modelwright.agents.fetcher.port import RemoteFile
from modelwright.agents.fetcher.report import format_size
from modelwright.agents.fetcher.selection import PathCandidates, Selection
from modelwright.agents.fetcher.settings import FetchSettings

_READ_BYTES = 1 << 20
_SPACE_CHECK_BYTES = 64 << 20
_RATIO_FROM = 64 << 20  # small archives may have any ratio
_HEADER_BYTES = 4 << 20  # between two members of a tar: long names and extended attributes
_DIRECTORY_BYTES = 64 << 20  # of a zip's table of contents, which Python reads as a whole
_WHITEOUT = ".wh."
_OPAQUE_WHITEOUT = ".wh..wh..opq"


class UnpackedPart:
    """The part of an archive, or of the layers of one image, that is unpacked, and the names found instead of it."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.candidates = PathCandidates(selection)
        self.is_file = False
        """Whether the last entry at the selection's path was a file."""

    def is_at_or_below(self, path: str) -> bool:
        """Return whether the selection's path is `path` or in that folder."""
        return bool(self.selection.path) and f"{self.selection.path}/".startswith(f"{path}/" if path else "")


def unpack_archive(
    packed: Path, file: RemoteFile, tree: Path, settings: FetchSettings, where: str, part: UnpackedPart | None = None
) -> None:
    """Unpack `packed`, or `part` of it, into `tree`. Blocking.

    Raises FetchError (UnsafeArchive, ArtifactTooLarge, DiskFull). Files get mode 0644, or 0755 if their owner may
    execute them; no other mode, owner or time is kept. With `whiteouts`, `.wh.NAME` members remove entries of earlier
    layers, as in container images. Members outside the part are skipped, of any kind.
    """
    part = part or UnpackedPart(Selection())
    target = _UnpackTarget(tree, packed.stat().st_size, settings, where, part, whiteouts=file.whiteouts)
    try:
        if file.unpack == "zip":
            _unpack_zip(packed, target, where)
        else:
            _unpack_tar(packed, target, where)
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        EOFError,
        zlib.error,
        gzip.BadGzipFile,
        struct.error,
        NotImplementedError,
        UnicodeError,
    ) as error:
        raise _unsafe_archive(
            where, f"it is damaged or not {_describe_form(file.unpack)} ({type(error).__name__})"
        ) from error
    except RuntimeError as error:
        # zipfile raises nothing more specific for an encrypted member
        raise _unsafe_archive(where, "it is encrypted or damaged") from error
    except RecursionError as error:
        raise _unsafe_archive(where, "it is nested too deeply") from error


def _describe_form(form: str) -> str:
    return {"zip": "a zip archive", "tar": "a tar archive", "tar.gz": "a gzip-compressed tar archive"}.get(
        form, "an archive"
    )


def _unsafe_archive(where: str, why: str) -> FetchError:
    return FetchError(
        FetchReason.UNSAFE_ARCHIVE,
        f"{where}: the archive can't be unpacked: {why}. Pack the model again and register the new digest.",
    )


class _UnpackTarget:
    """Writes members below one folder and counts them.

    `check_name`, `locate_member`, `locate_hardlink` and `apply_whiteout` take paths of the archive, all other methods
    take paths of the tree.
    """

    def __init__(
        self, tree: Path, packed_bytes: int, settings: FetchSettings, where: str, part: UnpackedPart, *, whiteouts: bool
    ) -> None:
        self._tree = tree
        self._part = part
        self._packed = max(packed_bytes, 1)
        self._settings = settings
        self._where = where
        self._whiteouts = whiteouts
        self._entries = 0
        self._bytes = 0
        self._unchecked_bytes = 0
        self._links: set[str] = set()
        self._folders: set[str] = {""}
        self._own: set[str] = set()

    def check_name(self, raw: str) -> str | None:
        """Return the member's checked path in the archive, None if it can't be in the part. Counts the member."""
        self._entries += 1
        if self._entries > self._settings.max_entries:
            raise FetchError(
                FetchReason.ARTIFACT_TOO_LARGE,
                f"{self._where}: the archive has more than {self._settings.max_entries} entries "
                "(MODELWRIGHT_FETCH_MAX_ENTRIES).",
            )
        try:
            return check_relative_path(raw, f"{self._where}: the archive")
        except FetchError:
            path, bare = self._part.selection.path, raw.lstrip("./")
            if not path or bare == path or bare.startswith(f"{path}/"):
                raise
            return None

    def locate_member(self, path: str, *, folder: bool = False, link: str | None = None) -> str | None:
        """Return the path for the member in the tree; None outside the part. `link`: the target, if it is a link."""
        part, selection = self._part, self._part.selection
        place = selection.relative_to_path(path)
        if place is None or (selection.path and not place and (folder or link is not None)):
            part.candidates.add_name(path)
            if part.is_at_or_below(path):
                part.candidates.link = "" if link is None else f"{path[:120]!a} is a link to {link[:120]!a}"
                if not folder or (part.is_file and path == selection.path):
                    self._replace_part(is_file=False)
            return None
        if selection.path and not place:
            self._replace_part(is_file=True)
            place = selection.name
        elif part.is_file:
            self._replace_part(is_file=False)
        if folder:
            # With patterns, a folder is made for the first of its files.
            return None if selection.include or selection.exclude else place
        if not selection.matches_patterns(place):
            part.candidates.add_name(path)
            return None
        return place

    def locate_hardlink(self, raw: str) -> str:
        """Return the path in the tree of the file that a hard link names."""
        path = check_relative_path(raw, f"{self._where}: the archive")
        place = self._part.selection.place_of(path)
        if place is None:
            raise _unsafe_archive(self._where, f"a hard link leads to {path[:120]!a}, which is not unpacked")
        return place

    def _replace_part(self, *, is_file: bool) -> None:
        """Hide the content at the part's path, since an entry of another kind replaces it."""
        self._own.clear()
        self._remove_inherited()
        self._part.is_file = is_file

    def _remove_inherited(self) -> None:
        """Remove everything that an earlier layer has written."""
        self._clear_folder("")
        self._folders = {""}
        self._links = {path for path in self._links if (self._tree / path).is_symlink()}

    def _clear_folder(self, path: str) -> None:
        folder = self._tree / path
        for child in folder.iterdir() if folder.is_dir() else ():
            relative = f"{path}/{child.name}".lstrip("/")
            if relative not in self._own and not any(own.startswith(relative + "/") for own in self._own):
                _delete_path(child)

    def count_skipped(self, size: int) -> None:
        """Count bytes that are read and not written: they take time like others."""
        self._bytes += size
        self._check_limits(self._bytes)

    def is_relevant(self, path: str) -> bool:
        """Return whether the member is in the part, or above it."""
        return self._part.selection.relative_to_path(path) is not None or self._part.is_at_or_below(path)

    def is_wanted(self, path: str) -> bool:
        """Return whether the member, if it is a file, is unpacked."""
        selection = self._part.selection
        return selection.place_of(path) is not None or bool(selection.path and path == selection.path)

    def check_announced(self, size: int) -> None:
        """Reject an archive whose own headers exceed the limits, before anything is written."""
        self._check_limits(self._bytes + size)

    def require_space(self, size: int) -> None:
        disk.require_space(self._tree, size, f"{self._where}: unpacking")

    def _check_limits(self, total: int) -> None:
        limit = self._settings.max_unpacked_bytes
        if total > limit:
            raise FetchError(
                FetchReason.ARTIFACT_TOO_LARGE,
                f"{self._where}: the archive unpacks to more than {format_size(limit)} "
                "(MODELWRIGHT_FETCH_MAX_UNPACKED_BYTES).",
            )
        if total > _RATIO_FROM and total / self._packed > self._settings.max_unpacked_ratio:
            raise FetchError(
                FetchReason.UNSAFE_ARCHIVE,
                f"{self._where}: the archive grows more than {self._settings.max_unpacked_ratio:g} times when unpacked "
                "(MODELWRIGHT_FETCH_MAX_UNPACKED_RATIO), as an archive made to fill a disk does.",
            )

    def make_folder(self, path: str) -> None:
        """Create the folder and its parents; nothing is ever written through a link."""
        if path in self._folders:
            return
        parent, _, _ = path.rpartition("/")
        self.make_folder(parent)
        place = self._tree / path
        if path in self._links or place.is_symlink():
            raise _unsafe_archive(
                self._where, f"{path[:120]!a} is a link, and another entry would be written through it"
            )
        if place.exists() and not place.is_dir():
            raise _unsafe_archive(self._where, f"{path[:120]!a} is both a file and a folder")
        with disk.translate_errors(self._tree, path):
            place.mkdir(exist_ok=True)
            place.chmod(0o755)
        self._folders.add(path)

    def _clear_path(self, path: str) -> Path:
        """Return the place for a new file or link. An earlier one of that name is removed, as in tar; a folder is an
        error."""
        parent, _, _ = path.rpartition("/")
        self.make_folder(parent)
        place = self._tree / path
        if place.is_symlink() or place.is_file():
            place.unlink()
            self._links.discard(path)
        elif place.exists():
            raise _unsafe_archive(self._where, f"{path[:120]!a} is both a file and a folder")
        self._own.add(path)
        return place

    def write_file(self, path: str, content: IO[bytes], *, executable: bool) -> None:
        if not path:
            raise _unsafe_archive(self._where, "a file has no name")
        place = self._clear_path(path)
        with disk.translate_errors(self._tree, path):
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        with os.fdopen(descriptor, "wb") as out:
            while data := content.read(_READ_BYTES):
                self._bytes += len(data)
                self._unchecked_bytes += len(data)
                self._check_limits(self._bytes)
                if self._unchecked_bytes >= _SPACE_CHECK_BYTES:
                    self._unchecked_bytes = 0
                    disk.require_space(self._tree, len(data), f"{self._where}: unpacking")
                with disk.translate_errors(self._tree, path):
                    out.write(data)
            with disk.translate_errors(self._tree, path):
                out.flush()
                os.fchmod(descriptor, 0o755 if executable else 0o644)

    def make_symlink(self, path: str, target: str) -> None:
        resolve_link_target(path, target, f"{self._where}: the archive")
        place = self._clear_path(path)
        with disk.translate_errors(self._tree, path):
            place.symlink_to(target)
        self._links.add(path)

    def copy_hardlink(self, path: str, target: str) -> None:
        """Copy the file that a hard link names; this archive must contain it."""
        source = self._tree / target
        parent = target
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            if (self._tree / parent).is_symlink():
                raise _unsafe_archive(self._where, f"{path[:120]!a} is a hard link that goes through a symbolic link")
        if source.is_symlink() or not source.is_file() or target == path:
            raise _unsafe_archive(
                self._where,
                f"{path[:120]!a} is a hard link to something that is not a file before it in the archive",
            )
        with source.open("rb") as content:
            self.write_file(path, content, executable=bool(source.stat().st_mode & stat.S_IXUSR))

    def apply_whiteout(self, path: str) -> bool:
        """Apply a container image's deletion marker; False if the member is none."""
        parent, _, name = path.rpartition("/")
        if not self._whiteouts or not name.startswith(_WHITEOUT):
            return False
        folder = self._part.selection.relative_to_path(parent)
        if folder is None and not self._part.is_at_or_below(parent):
            return True
        if folder is not None and any(
            above in self._links or (self._tree / above).is_symlink() for above in list_parents(f"{folder}/x") if above
        ):
            raise _unsafe_archive(self._where, f"{path[:120]!a} deletes through a link")
        if name == _OPAQUE_WHITEOUT:
            if folder is None:
                self._remove_inherited()
            else:
                self._clear_folder(folder)
            return True
        deleted = check_relative_path(
            f"{parent}/{name.removeprefix(_WHITEOUT)}".lstrip("/"), f"{self._where}: the archive"
        )
        if self._part.is_at_or_below(deleted):
            self._remove_inherited()
        elif victim := self._part.selection.relative_to_path(deleted):
            _delete_path(self._tree / victim)
            self._folders = {
                folder for folder in self._folders if folder != victim and not folder.startswith(victim + "/")
            }
        return True


def _delete_path(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


def _unpack_zip(packed: Path, target: _UnpackTarget, where: str) -> None:
    with packed.open("rb") as raw:
        _check_directory(raw, packed.stat().st_size, where)
    with zipfile.ZipFile(packed) as archive:
        members = [
            (member, path) for member in archive.infolist() if (path := target.check_name(member.filename)) is not None
        ]
        announced = sum(member.file_size for member, path in members if target.is_wanted(path))
        target.check_announced(announced)
        target.require_space(announced)
        for member, name in members:
            kind = stat.S_IFMT(member.external_attr >> 16)
            link = None
            if kind == stat.S_IFLNK and not member.is_dir() and target.is_relevant(name):
                if member.file_size > 4096:
                    raise _unsafe_archive(where, f"{name[:120]!a} is a link to an unusable path")
                link = archive.read(member).decode("utf-8")
            path = target.locate_member(name, folder=member.is_dir(), link=link)
            if path is None:
                continue
            if member.is_dir():
                target.make_folder(path)
            elif link is not None:
                target.make_symlink(path, link)
            elif kind in (0, stat.S_IFREG):
                with archive.open(member) as content:
                    target.write_file(path, content, executable=bool((member.external_attr >> 16) & stat.S_IXUSR))
            else:
                raise _unsafe_archive(where, f"{path[:120]!a} is a device, a pipe or a socket")


def _check_directory(raw: BinaryIO, size: int, where: str) -> None:
    """Reject a table of contents that is so large that reading it would exhaust the memory."""
    tail = min(size, 22 + 0xFFFF + 20 + 56)
    raw.seek(size - tail)
    data = raw.read(tail)
    end = data.rfind(b"PK\x05\x06")
    if end < 0 or len(data) < end + 22:
        raise _unsafe_archive(where, "it is damaged or not a zip archive")
    (length,) = struct.unpack_from("<I", data, end + 12)
    wide = data.rfind(b"PK\x06\x06")
    if wide >= 0 and len(data) >= wide + 56:
        length = max(length if length != 0xFFFFFFFF else 0, struct.unpack_from("<Q", data, wide + 40)[0])
    if length > _DIRECTORY_BYTES:
        raise FetchError(
            FetchReason.ARTIFACT_TOO_LARGE,
            f"{where}: the zip's table of contents is larger than {format_size(_DIRECTORY_BYTES)}.",
        )


class _MeteredStream:
    """Passes the decompressed tar stream on.

    Only a limited number of bytes may be read between two members, since a header could otherwise fill the memory.
    """

    def __init__(self, raw: IO[bytes], where: str) -> None:
        self._raw = raw
        self._where = where
        self.allowance: int | None = _HEADER_BYTES

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read(size)
        if self.allowance is not None:
            self.allowance -= len(data)
            if self.allowance < 0:
                raise _unsafe_archive(self._where, f"a header is larger than {format_size(_HEADER_BYTES)}")
        return data


def _unpack_tar(packed: Path, target: _UnpackTarget, where: str) -> None:
    with packed.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if zipped else raw
        metered = _MeteredStream(stream, where)
        # a stream ("r|") is read once from start to end: no seeks, no list of members in memory
        with tarfile.open(fileobj=metered, mode="r|", bufsize=64 << 10) as archive:  # type: ignore[call-overload]
            while (member := archive.next()) is not None:
                archive.members = []
                _unpack_member(archive, member, target, where, metered)
                # The rest of a member is skipped before the next one, a buffer at a time.
                left = max(archive.offset - cast(IO[bytes], archive.fileobj).tell(), 0)
                if left >= tarfile.BLOCKSIZE:
                    target.count_skipped(left)
                metered.allowance = _HEADER_BYTES + left


def _unpack_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, target: _UnpackTarget, where: str, metered: _MeteredStream
) -> None:
    name = target.check_name(member.name)
    if name is None or target.apply_whiteout(name):
        return
    path = target.locate_member(name, folder=member.isdir(), link=member.linkname if member.issym() else None)
    if path is None:
        return
    if member.isdir():
        target.make_folder(path)
    elif member.issym():
        target.make_symlink(path, member.linkname)
    elif member.islnk():
        target.copy_hardlink(path, target.locate_hardlink(member.linkname))
    elif member.isreg():
        target.check_announced(member.size)
        content = archive.extractfile(member)
        if content is None:
            raise _unsafe_archive(where, f"{path[:120]!a} has no content")
        metered.allowance = None
        target.write_file(path, content, executable=bool(member.mode & stat.S_IXUSR))
    else:
        raise _unsafe_archive(where, f"{path[:120]!a} is a device or a pipe")
