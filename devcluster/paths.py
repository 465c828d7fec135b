"""Locations on disk: binaries and images in a cache, one folder per running cluster."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devcluster.errors import ClusterError

TOOLS = Path(__file__).parent / "tools"


def cache() -> Path:
    """Return the cache folder; `MODELWRIGHT_CACHE` moves it."""
    return Path(os.environ.get("MODELWRIGHT_CACHE") or Path.home() / ".cache" / "modelwright")


def binaries() -> Path:
    return cache() / "bin"


def runs() -> Path:
    return cache() / "run"


def remove(folder: Path) -> None:
    """Remove a folder and its content; raises when that fails."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise ClusterError(f"{folder} can't be removed: does something still use it?")


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, so that two commands never do the same work at once."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
