"""pvc://: a file or a folder on a volume claim that the pod has mounted read-only."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncGenerator
from pathlib import Path

from modelwright.agents.fetcher.errors import ArtifactChanged, FetchError, FetchReason, store_unreachable
from modelwright.agents.fetcher.port import (
    ArtifactKind,
    FetchContext,
    Listing,
    RemoteFile,
    detect_archive_form,
)

_READ_BYTES = 1 << 20
_VOLUME_FOLDERS = {"lost+found", ".snapshot", ".snapshots", ".zfs"}
"""Folders that file systems and storage create at a volume's root, often readable by root alone. They belong to no
artifact."""


class ClaimSource:
    """Files on a claim. Links are followed while they stay on the claim: ConfigMap-like volumes consist of them."""

    def __init__(self, context: FetchContext) -> None:
        self._context = context
        self._root = context.source_root / context.uri.authority
        self._where = context.uri.safe

    async def inspect(self, digest: str) -> Listing:
        del digest
        return await asyncio.to_thread(self._list_claim)

    def _list_claim(self) -> Listing:
        if not self._root.is_dir():
            raise FetchError(
                FetchReason.ARTIFACT_NOT_FOUND,
                f"{self._where}: the claim {self._context.uri.authority} is not mounted in this pod.",
            )
        start, part = self._root / self._context.uri.path, self._context.selection.path
        try:
            within = bool(part) and start.is_dir()
            start = start / part if within else start
            if start.is_dir():
                files: list[RemoteFile] = []
                self._walk_folder(start, "", (), files)
                return Listing(ArtifactKind.DIRECTORY, tuple(files), within=within)
            if self._context.uri.prefix and not within:
                raise FetchError(
                    FetchReason.ARTIFACT_NOT_FOUND, f"{self._where}: there is no such folder on the claim."
                )
            return Listing(
                ArtifactKind.FILE, (self._build_remote_file(start, start.name, unpack=not within),), within=within
            )
        except (FileNotFoundError, NotADirectoryError):
            missing = f"file or folder {part!a} (artifact.path)" if part else "such file or folder on the claim"
            raise FetchError(
                FetchReason.ARTIFACT_NOT_FOUND, f"{self._where}: there is no {missing}. Check the path."
            ) from None
        except PermissionError as error:
            raise FetchError(
                FetchReason.ACCESS_DENIED,
                f"{self._where}: this user (uid {os.getuid()}) may not read "
                f"{self._unreadable_name(error)}. The claim is "
                "mounted read-only, so set the modes of its files: readable for all, or for the group 65532.",
            ) from error
        except OSError as error:
            raise store_unreachable(f"{self._where}: the volume answers {error.strerror}") from error

    def _unreadable_name(self, error: OSError) -> str:
        name = os.path.relpath(error.filename, self._root) if isinstance(error.filename, str) else "."
        return "it" if name == "." else ascii(name)

    def _walk_folder(self, folder: Path, below: str, above: tuple[str, ...], files: list[RemoteFile]) -> None:
        real = self._resolve_inside(folder)
        if real in above:
            return
        if len(files) > self._context.settings.max_entries:
            return
        at_root = real == os.path.realpath(self._root)
        for child in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path = f"{below}{child.name}"
            if at_root and (child.name in _VOLUME_FOLDERS or child.name.startswith(".Trash-")):
                continue
            place = Path(child.path)
            if child.is_dir():
                self._walk_folder(place, f"{path}/", (*above, real), files)
            elif not child.is_symlink() or self._context.selection.matches_patterns(path):
                # A link outside the selection may lead anywhere.
                files.append(self._build_remote_file(place, path, unpack=False))

    def _resolve_inside(self, place: Path) -> str:
        real, root = os.path.realpath(place), os.path.realpath(self._root)
        if real != root and not real.startswith(root + os.sep):
            raise FetchError(
                FetchReason.UNSAFE_ARCHIVE,
                f"{self._where}: {place.name!a} is a link that leads out of the claim. Remove it, or leave it out with "
                "artifact.exclude.",
            )
        if place.is_symlink() and not os.path.lexists(real):
            raise FetchError(
                FetchReason.UNSAFE_ARCHIVE,
                f"{self._where}: {place.name!a} is a link to nothing. Remove it, or leave it out with "
                "artifact.exclude.",
            )
        return real

    def _build_remote_file(self, place: Path, path: str, *, unpack: bool) -> RemoteFile:
        real = self._resolve_inside(place)
        status = os.stat(real)
        if not stat.S_ISREG(status.st_mode):
            raise FetchError(FetchReason.UNSAFE_ARCHIVE, f"{self._where}: {path!a} is a device, a pipe or a socket.")
        form = detect_archive_form(path) if unpack else ""
        return RemoteFile(path, real, status.st_size, f"{status.st_size}-{status.st_mtime_ns}", unpack=form)

    async def read(self, file: RemoteFile, start: int, stop: int | None) -> AsyncGenerator[bytes, None]:
        end = (file.size or 0) if stop is None else stop
        try:
            descriptor = await asyncio.to_thread(os.open, file.key, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                status = os.fstat(descriptor)
                if f"{status.st_size}-{status.st_mtime_ns}" != file.version:
                    raise ArtifactChanged(f"{self._where}: {file.path} changed while it was read")
                while start < end:
                    data = await asyncio.to_thread(os.pread, descriptor, min(_READ_BYTES, end - start), start)
                    if not data:
                        return
                    start += len(data)
                    yield data
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            raise ArtifactChanged(f"{self._where}: {file.path} was removed while it was read") from None
        except PermissionError as error:
            raise FetchError(
                FetchReason.ACCESS_DENIED, f"{self._where}: this user (uid {os.getuid()}) may not read {file.path}."
            ) from error
        except OSError as error:
            raise store_unreachable(f"{self._where}: the volume answers {error.strerror}") from error

    async def close(self) -> None:
        return
