"""A full or read-only volume: the error names the folder and the cure."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from modelwright.agents.fetcher import disk
from modelwright.agents.fetcher.errors import FetchError, FetchReason


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_tmp_is_reported_with_its_path_and_the_cure(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> str:
        raise OSError(number, os.strerror(number))

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(disk.tempfile, "mkdtemp", full)
    with pytest.raises(FetchError) as message, disk.temporary_folder("The artifact"):
        raise AssertionError("there is no such folder")
    assert message.value.reason == FetchReason.DISK_FULL
    assert f"no space left in {tmp_path}" in message.value.message
    assert "sizeLimit" in message.value.message


def test_read_only_tmp_is_reported_with_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: Any, **__: Any) -> str:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(disk.tempfile, "mkdtemp", read_only)
    with (
        pytest.raises(FetchError, match="Check that the volume is not read-only") as message,
        disk.temporary_folder("The artifact"),
    ):
        raise AssertionError("there is no such folder")
    assert str(tmp_path) in message.value.message


def test_temporary_folder_is_removed_and_keeps_the_works_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def work() -> None:
        with disk.temporary_folder("The artifact") as folder:
            (folder / "file").write_text("x")
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        work()
    assert not list(tmp_path.iterdir())
