"""`fingerprint` reports the state of data, under its former name as well."""

import io
import json
from pathlib import Path

import pytest

from modelwright.agents.fetcher.command import run_fetcher


@pytest.mark.parametrize("command", ["fingerprint", "look"])
def test_fingerprint_and_its_former_name_report_the_same(command: str, tmp_path: Path) -> None:
    claim, log = tmp_path / "claim", tmp_path / "termination"
    claim.mkdir()
    (claim / "rows.csv").write_text("a\n1\n")
    environment = {
        "MODELWRIGHT_CREDENTIALS": str(tmp_path / "none"),
        "MODELWRIGHT_TERMINATION_LOG": str(log),
        "MODELWRIGHT_SOURCE_ROOT": str(tmp_path),
    }
    arguments = [command, "--uri", "pvc://claim/", "--changed", "Count"]
    assert run_fetcher(arguments, environment, io.StringIO()) == 0
    assert json.loads(log.read_text()) == {"fingerprint": "1", "objects": 1, "bytes": 4}
