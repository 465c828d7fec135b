"""The files of an artifact in the form in which model_signing compares them, from known hashes.

The only module that imports that library at load time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from model_signing import hashing, manifest
from model_signing._hashing.hashing import Digest

from modelwright.agents.fetcher.digest import FileEntry


class KnownHashes(hashing.Config):
    """A hashing configuration that hashes nothing.

    It leaves out exactly the signature and the files that the signature itself leaves out.
    """

    def __init__(self, entries: Sequence[FileEntry], *, single: bool, signature: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._single = single
        self._hashes = {
            PurePosixPath("." if single else entry.path): Digest("sha256", bytes.fromhex(entry.sha256))
            for entry in entries
        }
        self._ignored = {PurePosixPath(signature)}
        self.compared = False
        """Whether the library has asked for the files: then the signature itself is valid."""
        self.left_out: list[PurePosixPath] = []

    def add_ignored_paths(self, *, model_path: hashing.PathLike, paths: Iterable[hashing.PathLike]) -> None:
        del model_path
        self._ignored |= {PurePosixPath(str(path)) for path in paths}

    def hash(
        self, model_path: hashing.PathLike, *, files_to_hash: Iterable[hashing.PathLike] | None = None
    ) -> manifest.Manifest:
        del files_to_hash
        self.compared = True
        if not self._single:
            self.left_out = [path for path in self._hashes if any(path.is_relative_to(i) for i in self._ignored)]
        items = [
            manifest.FileManifestItem(path=path, digest=digest)
            for path, digest in self._hashes.items()
            if path not in self.left_out
        ]
        if not items:
            raise ValueError("it leaves out every file")
        form = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
        return manifest.Manifest(Path(str(model_path)).name, items, manifest.SerializationType.from_args(form))
