"""A named credentials Secret that is missing is reported by its name, before any request to a store."""

import json
from pathlib import Path

from modelwright.agents.fetcher.command import run_fetcher


def resolve(folder: Path, credentials: Path, name: str) -> tuple[int, dict]:
    log = folder / "termination"
    environment = {
        "MODELWRIGHT_CREDENTIALS": str(credentials),
        "MODELWRIGHT_CREDENTIALS_SECRET": name,
        "MODELWRIGHT_TERMINATION_LOG": str(log),
        "MODELWRIGHT_FETCH_ATTEMPTS": "1",
    }
    code = run_fetcher(["resolve", "--uri", "http://127.0.0.1:9/model"], environment)
    return code, json.loads(log.read_text())


def test_a_secret_that_is_missing_or_empty_is_named(tmp_path: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for credentials in (tmp_path / "none", empty):
        code, message = resolve(tmp_path, credentials, "model-store")
        assert (code, message["reason"]) == (1, "AccessDenied")
        assert "Secret model-store (credentialsSecretRef)" in message["message"]


def test_a_secret_that_is_there_lets_the_store_be_asked(tmp_path: Path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "AWS_REGION").write_text("x")
    assert resolve(tmp_path, tmp_path / "secret", "model-store")[1]["reason"] == "StoreUnreachable"
    assert resolve(tmp_path, tmp_path / "none", "")[1]["reason"] == "StoreUnreachable"
