"""pvc:// at the root of a volume: what the file system or the storage keeps there is not the artifact."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from modelwright.fetch import uri
from modelwright.fetch.credentials import Credentials
from modelwright.fetch.errors import FetchError
from modelwright.fetch.port import Context
from modelwright.fetch.settings import Settings
from modelwright.fetch.sources.pvc import ClaimSource


def source(root: Path, address: str) -> ClaimSource:
    return ClaimSource(Context(uri.parse(address), Credentials(root, {}), Settings(), source_root=root))


def listed(root: Path, address: str) -> list[str]:
    return [file.path for file in asyncio.run(source(root, address).inspect("")).files]


def test_folders_of_the_volume_are_left_out_at_its_root_only(tmp_path: Path) -> None:
    for path in ("model.joblib", "lost+found/x", ".snapshot/x", ".Trash-1000/x", "kept/lost+found/x"):
        (tmp_path / "models" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "models" / path).write_text("x")
    assert listed(tmp_path, "pvc://models/") == ["kept/lost+found/x", "model.joblib"]
    assert listed(tmp_path, "pvc://models/lost+found/") == ["x"]


def test_what_cannot_be_read_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "secret").mkdir(parents=True)
    scan = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr("modelwright.fetch.sources.pvc.os.scandir", refuse)
    with pytest.raises(FetchError, match=r"may not read 'secret'\. The claim is mounted read-only") as error:
        listed(tmp_path, "pvc://models/")
    assert error.value.reason == "AccessDenied"
