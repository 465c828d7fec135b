"""Free space and disk errors, distinguished from all other failures of a write."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelwright.agents.fetcher.errors import FetchError, FetchReason
from modelwright.agents.fetcher.report import format_size


def free_bytes(folder: Path) -> int:
    """Return the bytes that an ordinary user can still write below `folder`."""
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def require_space(folder: Path, needed: int, subject: str) -> None:
    """Raise FetchError(DiskFull) unless `needed` bytes fit below `folder`."""
    free = free_bytes(folder)
    if needed > free:
        raise FetchError(
            FetchReason.DISK_FULL,
            f"{subject} needs {format_size(needed)} more, but {folder} has {format_size(free)} free. "
            "Use a larger volume, raise the emptyDir's sizeLimit or the node's disk, or remove models that nothing "
            "uses from the cache.",
        )


@contextmanager
def temporary_folder(subject: str) -> Iterator[Path]:
    """Create a folder in $TMPDIR or /tmp and remove it afterwards.

    tempfile's own search ends with "no usable directory" on a full disk, which names neither the cause nor the cure.
    """
    place = Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108 - a path in the pod
    with translate_errors(place, subject):
        folder = Path(tempfile.mkdtemp(dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def translate_errors(folder: Path, subject: str) -> Iterator[None]:
    """Convert errors of the operating system into FetchErrors that name the folder and the cure."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise FetchError(
                FetchReason.DISK_FULL,
                f"{subject}: no space left in {folder}. Use a larger volume or sizeLimit, or remove models that "
                "nothing uses from the cache.",
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise FetchError(
                FetchReason.INTERNAL_ERROR,
                f"{subject}: {folder} can't be written ({os.strerror(error.errno)}). Check that the volume is not "
                "read-only and that fsGroup lets this user write.",
            ) from error
        raise FetchError(
            FetchReason.INTERNAL_ERROR, f"{subject}: {folder}: {error.strerror or type(error).__name__}."
        ) from error
