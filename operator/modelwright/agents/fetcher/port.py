"""The port between the transfer and the stores: the methods that a source implements."""

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
    """How an artifact's digest is computed."""

    FILE = "file"  # sha256 of the one file's bytes
    DIRECTORY = "directory"  # digest.directory_digest over the files
    PINNED = "pinned"  # the store names content by digest: OCI manifest, Hub commit


@dataclass(frozen=True)
class RemoteFile:
    """One file in a store.

    `path`: its place relative to the artifact's folder. `key`: its name for the source. `size`: in bytes, None if the
    store does not state it. `version` (ETag or similar): empty if the store has none; then no download is resumed.
    `ranges`: whether the store serves parts of it. `sha256` and `git_blob`: known in advance for some stores. `unpack`:
    zip, tar or tar.gz for an archive that is unpacked into the artifact's folder.
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
    """The files of an artifact at one moment.

    `varies`: machines of another architecture get other files. `within`: it lists only the selection's path, and its
    paths are relative to that.
    """

    kind: ArtifactKind
    files: tuple[RemoteFile, ...]
    pinned: str = ""
    varies: bool = False
    within: bool = False


@dataclass(frozen=True)
class FetchContext:
    """Inputs of a source."""

    uri: ArtifactURI
    credentials: StoreCredentials
    settings: FetchSettings
    source_root: Path = field(default=Path("/mnt/source"))
    selection: Selection = field(default=Selection())

    async def with_stall_timeout(self, awaitable: Awaitable[T], subject: str) -> T:
        """Await the result; raise a retryable DownloadStalled without one within `stall_seconds`."""
        try:
            async with asyncio.timeout(self.settings.stall_seconds):
                return await awaitable
        except TimeoutError:
            raise FetchError(
                FetchReason.DOWNLOAD_STALLED, f"{subject}: no answer for {self.settings.stall_seconds:g} s", retry=True
            ) from None


class ArtifactSource(Protocol):
    """A store that holds one artifact. Every failure is a FetchError with a text free of secrets."""

    async def inspect(self, digest: str) -> Listing:
        """Return the present files of the artifact.

        `digest`: the required one, '' if it is unknown; a store that names content by digest lists exactly that.
        """
        ...

    def read(self, file: RemoteFile, start: int, stop: int | None) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from `start` up to, not including, `stop` (None: to the end), in pieces of at most about a
        megabyte.

        Raises ArtifactChanged if the file differs from the listed one. Without `ranges`, start is 0 and stop None.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


ARCHIVE_SUFFIXES = {".zip": "zip", ".tar": "tar", ".tar.gz": "tar.gz", ".tgz": "tar.gz"}


def detect_archive_form(name: str) -> str:
    """Return `zip`, `tar` or `tar.gz` by the file name, else ''."""
    lower = name.lower()
    return next((form for suffix, form in ARCHIVE_SUFFIXES.items() if lower.endswith(suffix) and lower != suffix), "")
