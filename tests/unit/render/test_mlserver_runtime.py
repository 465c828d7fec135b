"""How the shipped runtime starts MLServer: code that an artifact names is not loaded unless the Model says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelwright.api import names
from tests.unit.render.builders import raw_model, template

ROOT = Path(__file__).resolve().parents[3]
COMMAND = yaml.safe_load((ROOT / "manifests/runtimes/mlserver.yaml").read_text())["spec"]["container"]["command"]
MAIN = """
import json, pathlib, sys
def main():
    found = pathlib.Path(sys.argv[-1]) / "model-settings.json"
    print(json.dumps([sys.argv[-1], json.loads(found.read_text()) if found.is_file() else None]))
"""
HOSTILE: dict[str, Any] = {
    "name": "other",
    "implementation": "evil.Model",
    "max_batch_size": 8,
    "parameters": {"uri": "./m.json", "environment_tarball": "./env.tgz", "content_type": "np"},
}


def started(tmp_path: Path, settings: Any = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """The shipped command, with an MLServer that tells where it was started and by what settings."""
    packages, artifact = tmp_path / "packages", tmp_path / "artifact"
    (packages / "mlserver").mkdir(parents=True)
    artifact.mkdir()
    (packages / "mlserver/__init__.py").write_text("")
    (packages / "mlserver/cli.py").write_text(MAIN)
    (packages / "uvicorn.py").write_text("Config = dict")
    (artifact / "m.json").write_text("{}")
    if settings is not None:
        (artifact / "model-settings.json").write_text(json.dumps(settings))
    given = {
        "PYTHONPATH": str(packages),
        "PATH": os.environ["PATH"],
        "MODEL_DIR": str(artifact),
        "MODEL_NAME": "digits",
        "MODEL_VERSION": "digits-v1",
        "MLSERVER_MODEL_URI": str(artifact),
        "MLSERVER_MODEL_IMPLEMENTATION": "mlserver_xgboost.XGBoostModel",
        **environment,
    }
    command = [sys.executable, *COMMAND[1:], "start", str(artifact)]
    return subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=False)


def test_an_artifact_chooses_no_implementation(tmp_path: Path) -> None:
    folder, settings = json.loads(started(tmp_path, HOSTILE).stdout)
    assert not Path(folder).is_relative_to(tmp_path), "modules would be imported from there"
    assert settings == {
        "name": "digits",
        "implementation": "mlserver_xgboost.XGBoostModel",
        "max_batch_size": 8,
        "parameters": {"uri": str(tmp_path / "artifact/m.json"), "version": "digits-v1", "content_type": "np"},
    }


def test_without_settings_a_single_file_is_the_model(tmp_path: Path) -> None:
    _, settings = json.loads(started(tmp_path).stdout)
    assert settings["parameters"]["uri"] == str(tmp_path / "artifact/m.json")


def test_the_model_is_in_the_artifact(tmp_path: Path) -> None:
    ended = started(tmp_path, {"parameters": {"uri": "../../etc/passwd"}})
    assert (ended.returncode, "leads out of the artifact" in ended.stderr) == (1, True)


def test_a_model_may_allow_it(tmp_path: Path) -> None:
    process = started(tmp_path, HOSTILE, MODEL_ALLOW_IMPLEMENTATION="true")
    assert json.loads(process.stdout) == [str(tmp_path / "artifact"), HOSTILE]


@pytest.mark.parametrize("allowed", [True, False])
def test_the_runtime_is_told_when_the_model_allows_it(allowed: bool) -> None:
    pods = template(raw_model(serving={"allowImplementation": True} if allowed else {}))
    (container,) = (c for c in pods["spec"]["containers"] if c["name"] == names.MODEL_CONTAINER)
    variables = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert variables.get("MODEL_ALLOW_IMPLEMENTATION") == ("true" if allowed else None)
