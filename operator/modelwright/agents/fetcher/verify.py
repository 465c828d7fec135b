"""Hashes a file's bytes on receipt and compares the result with the announced hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from modelwright.agents.fetcher.digest import FileEntry
from modelwright.agents.fetcher.errors import FetchError, FetchReason
from modelwright.agents.fetcher.port import RemoteFile


class FileHasher:
    """sha256 of one file; also the git blob id if the store lists that instead."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._git = hashlib.sha1(usedforsecurity=False) if file.git_blob and not file.sha256 else None
        if self._git is not None:
            self._git.update(f"blob {file.size}\0".encode())

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Hash the next bytes."""
        self._sha256.update(data)
        if self._git is not None:
            self._git.update(data)
        self.size += len(data)

    def update_all(self, pieces: Iterable[bytes | bytearray]) -> None:
        """Hash the next pieces."""
        for data in pieces:
            self.update(data)

    def verified_entry(self) -> FileEntry:
        """Return the file's entry. Raises FetchError(DigestMismatch) if the store had announced other content."""
        sha256 = self._sha256.hexdigest()
        if self._file.sha256 and sha256 != self._file.sha256:
            raise digest_mismatch(self._file.path, f"sha256:{self._file.sha256}", f"sha256:{sha256}")
        if self._git is not None and self._git.hexdigest() != self._file.git_blob:
            raise digest_mismatch(
                self._file.path, f"git blob {self._file.git_blob}", f"git blob {self._git.hexdigest()}"
            )
        return FileEntry(self._file.path, self.size, sha256)


def digest_mismatch(subject: str, pinned: str, actual: str) -> FetchError:
    """Build the error for content with another digest than the pinned one."""
    return FetchError(
        FetchReason.DIGEST_MISMATCH,
        f"{subject} has digest {actual}, but {pinned} is pinned. The artifact was changed or damaged after it was "
        "registered: "
        "restore it, or register the new content as a new ModelVersion.",
    )
