"""The port between the transfer and the stores: what a source must be able to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeVar

from modelwright.agents.fetcher.errors import FetchError, FetchReason
from modelwright.agents.fetcher.selection import Selection
from modelwright.agents.fetcher.settings import FetchSettings
from modelwright.agents.fetcher.store_credentials import StoreCredentials
from modelwright.agents.fetcher.uri import ArtifactURI

T = TypeVar("T")


class ArtifactKind(StrEnum):
    """How an artifact's digest comes about."""

    FILE = "file"  # sha256 of the one file's bytes
    DIRECTORY = "directory"  # digest.of_directory over the files
    PINNED = "pinned"  # the store names content by digest: OCI manifest, Hub commit


@dataclass(frozen=True)
class RemoteFile:
    """One file in a store.

    `path` is where it goes, relative to the artifact's folder. `key` is how the source finds it again. `size` is in
    bytes, None
    when the store doesn't say. `version` (ETag or the like) is empty when the store has none: then nothing is resumed.
    `ranges` says whether any part of it can be asked for. `sha256` and `git_blob` are known beforehand for some stores.
    `unpack` is set for an archive that is to be unpacked into the artifact's folder: zip, tar, tar.gz.
    """

    path: str
    key: str
    size: int | None
    version: str = ""
    ranges: bool = True
    sha256: str = ""
    git_blob: str = ""
    unpack: str = ""
    whiteouts: bool = False


@dataclass(frozen=True)
class Listing:
    """What an artifact is made of, at one moment. `varies`: machines of another architecture get other files. `within`:
    it is of the selection's path alone, from which its paths begin."""

    kind: ArtifactKind
    files: tuple[RemoteFile, ...]
    pinned: str = ""
    varies: bool = False
    within: bool = False


@dataclass(frozen=True)
class FetchContext:
    """What a source gets to work with."""

    uri: ArtifactURI
    credentials: StoreCredentials
    settings: FetchSettings
    source_root: Path = field(default=Path("/mnt/source"))
    selection: Selection = field(default=Selection())

    async def with_stall_timeout(self, awaitable: Awaitable[T], what: str) -> T:
        """The result, or a retryable DownloadStalled when nothing came for `stall_seconds`."""
        try:
            async with asyncio.timeout(self.settings.stall_seconds):
                return await awaitable
        except TimeoutError:
            raise FetchError(
                FetchReason.DOWNLOAD_STALLED, f"{what}: no answer for {self.settings.stall_seconds:g} s", retry=True
            ) from None


class ArtifactSource(Protocol):
    """A store that holds one artifact. Every failure is a FetchError whose text holds no secret."""

    async def inspect(self, digest: str) -> Listing:
        """What the artifact is made of now. `digest` is the wanted one ('' when it is to be found out): a store that
        names content by digest looks up exactly that."""
        ...

    def read(self, file: RemoteFile, start: int, stop: int | None) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` up to, not including, `stop` (None: to the end), in pieces of at most about a
        megabyte.

        Raises ArtifactChanged when the file is no longer the one that was listed. Without `ranges`, start is 0 and
        stop None.
        """
        ...

    async def close(self) -> None:
        """Give connections back."""
        ...


ARCHIVE_SUFFIXES = {".zip": "zip", ".tar": "tar", ".tar.gz": "tar.gz", ".tgz": "tar.gz"}


def detect_archive_form(name: str) -> str:
    """`zip`, `tar` or `tar.gz` when the file name says so, else ''."""
    lower = name.lower()
    return next((form for suffix, form in ARCHIVE_SUFFIXES.items() if lower.endswith(suffix) and lower != suffix), "")
