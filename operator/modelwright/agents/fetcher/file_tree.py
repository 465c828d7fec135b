"""Reads the files of a folder on the disk without following a link."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from modelwright.agents.fetcher import digest
from modelwright.agents.fetcher.digest import FileEntry
from modelwright.agents.fetcher.errors import FetchError
from modelwright.agents.fetcher.paths import resolve_link_target


@dataclass(frozen=True)
class FileTree:
    """Content of a folder, by relative posix path: files with their sizes in bytes, links with their targets, and empty
    folders.

    `unsupported`: entries that an artifact may not have (a device, a pipe, a link that leads out).
    """

    files: Mapping[str, int]
    links: Mapping[str, str]
    folders: frozenset[str]
    unsupported: tuple[str, ...] = ()

    def compute_digest(self, hashes: Mapping[str, str]) -> str:
        """Return the tree's digest, given the sha256 of each of its files."""
        entries = (FileEntry(path, size, hashes[path]) for path, size in self.files.items())
        return digest.tree_digest(entries, self.links.items(), self.folders)


def scan_tree(root: Path) -> FileTree:
    """Return the content of the folder. Raises OSError if it is none, is itself a link, or can't be read in part.
    Blocking."""
    if not stat.S_ISDIR(root.lstat().st_mode):
        raise NotADirectoryError(str(root))
    files: dict[str, int] = {}
    links: dict[str, str] = {}
    empty: set[str] = set()
    strange: list[str] = []
    for folder, folders, names, descriptor in os.fwalk(root, onerror=_raise_error, follow_symlinks=False):
        below = os.path.relpath(folder, root)
        if not folders and not names and below != ".":
            empty.add(below)
        for name in (*names, *folders):
            path = os.path.normpath(os.path.join(below, name))
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                files[path] = status.st_size
            elif stat.S_ISLNK(status.st_mode):
                links[path] = os.readlink(name, dir_fd=descriptor)
                if _leads_out(path, links[path]):
                    strange.append(path)
            elif not stat.S_ISDIR(status.st_mode):
                strange.append(path)
    return FileTree(files, links, frozenset(empty), tuple(strange))


def hash_files(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """Return the sha256 of these files below `root`, by path. Raises OSError for other kinds of entries. Blocking."""
    return {path: hash_file(root / path) for path in paths}


def folder_digest(root: Path) -> str:
    """Return the digest of all content of the folder. Blocking."""
    tree = scan_tree(root)
    return tree.compute_digest(hash_files(root, tree.files))


def hash_file(place: Path) -> str:
    """Return the sha256 of a file's bytes in hexadecimal. Raises OSError for a link, a pipe and the like. Blocking."""
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as content:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{place} is no file")
        return hashlib.file_digest(content, "sha256").hexdigest()


def _leads_out(path: str, target: str) -> bool:
    try:
        resolve_link_target(path, target, "the cache")
    except FetchError:
        return True
    return False


def _raise_error(error: OSError) -> None:
    raise error
