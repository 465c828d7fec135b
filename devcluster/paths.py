"""Where things are kept on disk: binaries and images in a cache, one folder per running cluster."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOOLS = Path(__file__).parent / "tools"


def cache() -> Path:
    """The cache folder; `MODELWRIGHT_CACHE` moves it."""
    return Path(os.environ.get("MODELWRIGHT_CACHE") or Path.home() / ".cache" / "modelwright")


def binaries() -> Path:
    return cache() / "bin"


def runs() -> Path:
    return cache() / "run"


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, so that two commands never do the same work at once."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
