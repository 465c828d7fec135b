"""pvc:// at the root of a volume: what the file system or the storage keeps there is not the artifact."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from modelwright.agents.fetcher import uri
from modelwright.agents.fetcher.errors import FetchError
from modelwright.agents.fetcher.port import FetchContext
from modelwright.agents.fetcher.selection import Selection
from modelwright.agents.fetcher.settings import FetchSettings
from modelwright.agents.fetcher.sources.pvc import ClaimSource
from modelwright.agents.fetcher.store_credentials import StoreCredentials


def source(root: Path, address: str, part: Selection) -> ClaimSource:
    return ClaimSource(
        FetchContext(
            uri.parse_uri(address), StoreCredentials(root, {}), FetchSettings(), source_root=root, selection=part
        )
    )


def listed(root: Path, address: str, part: Selection | None = None) -> list[str]:
    return [file.path for file in asyncio.run(source(root, address, part or Selection()).inspect("")).files]


def test_folders_of_the_volume_are_left_out_at_its_root_only(tmp_path: Path) -> None:
    for path in ("model.joblib", "lost+found/x", ".snapshot/x", ".Trash-1000/x", "kept/lost+found/x"):
        (tmp_path / "models" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "models" / path).write_text("x")
    assert listed(tmp_path, "pvc://models/") == ["kept/lost+found/x", "model.joblib"]
    assert listed(tmp_path, "pvc://models/lost+found/") == ["x"]


@pytest.mark.parametrize(
    ("target", "says"),
    [("/bin/absent", "leads out of the claim"), ("../elsewhere", "leads out of the claim"), ("absent", "to nothing")],
)
def test_dangling_link_of_a_claim_is_named_unless_excluded(tmp_path: Path, target: str, says: str) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "elsewhere").write_text("x")
    (tmp_path / "models" / "model.joblib").write_text("x")
    (tmp_path / "models" / "sh").symlink_to(target)
    with pytest.raises(FetchError, match=rf"'sh' is a link (that )?{says}.*artifact\.exclude") as error:
        listed(tmp_path, "pvc://models/")
    assert error.value.reason == "UnsafeArchive"
    assert listed(tmp_path, "pvc://models/", Selection(exclude=("sh",))) == ["model.joblib"]
    assert listed(tmp_path, "pvc://models/", Selection(include=("*.joblib",))) == ["model.joblib"]


def test_unreadable_file_is_named_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "secret").mkdir(parents=True)
    scan = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr("modelwright.agents.fetcher.sources.pvc.os.scandir", refuse)
    with pytest.raises(FetchError, match=r"may not read 'secret'\. The claim is mounted read-only") as error:
        listed(tmp_path, "pvc://models/")
    assert error.value.reason == "AccessDenied"
