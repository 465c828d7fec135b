"""Digests of artifacts: one file, a folder, an OCI manifest, a Hub commit. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from modelwright.agents.fetcher.errors import FetchError, FetchReason

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|git:[0-9a-f]{40}")


@dataclass(frozen=True, order=True)
class FileEntry:
    """One file of an artifact: relative posix path, size in bytes, sha256 in hexadecimal."""

    path: str
    size: int
    sha256: str


def check_digest_form(digest: str) -> str:
    """Return `digest` if it is `sha256:` + 64 or `git:` + 40 lower-case hexadecimal digits; else raise FetchError."""
    if not _DIGEST.fullmatch(digest):
        raise FetchError(
            FetchReason.INVALID_URI, "--digest must be sha256: and 64, or git: and 40, lower-case hexadecimal digits."
        )
    return digest


def directory_digest(entries: Iterable[FileEntry]) -> str:
    """Return the sha256 over the lines `path NUL size NUL sha256 NEWLINE`, sorted by the path's UTF-8 bytes."""
    return tree_digest(entries)


def tree_digest(files: Iterable[FileEntry], links: Iterable[tuple[str, str]] = (), folders: Iterable[str] = ()) -> str:
    """Return the digest of a whole tree.

    It equals `directory_digest` for files alone. A link (path, target) adds the line `path NUL link NUL sha256 of the
    target NEWLINE`, an empty folder `path NUL folder NUL NEWLINE`.
    """
    lines = [(_encode_path(entry.path), str(entry.size).encode(), entry.sha256.encode()) for entry in files]
    lines += [
        (_encode_path(path), b"link", hashlib.sha256(_encode_path(target)).hexdigest().encode())
        for path, target in links
    ]
    lines += [(_encode_path(path), b"folder", b"") for path in folders]
    whole = hashlib.sha256()
    for line in sorted(lines):
        whole.update(b"\0".join(line) + b"\n")
    return f"sha256:{whole.hexdigest()}"


def _encode_path(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def cache_folder_name(digest: str, part: str = "") -> str:
    """Return the name of a digest's folder in the shared cache: `sha256-...` or `git-...`; for a part of the artifact,
    with the part's key after a dot."""
    name = check_digest_form(digest).replace(":", "-")
    return f"{name}.{part}" if part else name
