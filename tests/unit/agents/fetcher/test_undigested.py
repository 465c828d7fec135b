"""`get` without a digest downloads the present content whole and nothing of an earlier try; a cache needs a digest."""

import io
import json
from pathlib import Path

import pytest

from modelwright.agents.fetcher.command import run_fetcher


def get(folder: Path, *arguments: str, **more: str) -> tuple[int, dict]:
    log = folder / "termination"
    environment = {
        "MODELWRIGHT_CREDENTIALS": str(folder / "none"),
        "MODELWRIGHT_TERMINATION_LOG": str(log),
        "MODELWRIGHT_SOURCE_ROOT": str(folder),
        **more,
    }
    code = run_fetcher(["get", "--uri", "pvc://claim/reference.json", *arguments], environment, io.StringIO())
    return code, json.loads(log.read_text())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    result = tmp_path / "claim" / "reference.json"
    result.parent.mkdir()
    result.write_text("one")
    return result


def test_present_content_is_taken_after_a_change_as_well(tmp_path: Path, source: Path):
    for text in ("one", "another"):
        source.write_text(text)
        code, message = get(tmp_path, "--dest", str(tmp_path / "models"))
        assert (code, message["sizeBytes"], message["fetched"]) == (0, len(text), True)
        assert [file.name for file in (tmp_path / "models").iterdir()] == ["reference.json"]
        assert (tmp_path / "models" / "reference.json").read_text() == text


def test_more_than_may_be_fetched_is_refused(tmp_path: Path, source: Path):
    code, message = get(tmp_path, "--dest", str(tmp_path / "models"), MODELWRIGHT_FETCH_MAX_BYTES="2")
    assert (code, message["reason"]) == (1, "ArtifactTooLarge")


def test_a_digest_is_still_checked(tmp_path: Path, source: Path):
    code, message = get(tmp_path, "--dest", str(tmp_path / "models"), "--digest", "sha256:" + "0" * 64)
    assert (code, message["reason"]) == (1, "DigestMismatch")


def test_a_cache_needs_a_digest(tmp_path: Path, source: Path):
    code, message = get(tmp_path, "--cache", str(tmp_path / "cache"))
    assert code == 1
    assert "--digest" in message["message"]
