"""The module paths of former versions start the programs, for pods that were rendered by one."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FORMER = {
    "modelwright.compare": ("modelwright.agents.comparer", "SERVING_URL is needed"),
    "modelwright.observe": ("modelwright.agents.drift_monitor", "MODEL_NAMESPACE is needed"),
    "modelwright.check": ("modelwright.agents.prober", "URL is needed"),
    "modelwright.scan": ("modelwright.agents.scanner", "CANDIDATE_DIR"),
}


@pytest.mark.parametrize("former", FORMER)
def test_former_path_runs_the_program(former: str) -> None:
    _, setting = FORMER[former]
    done = subprocess.run(
        [sys.executable, "-m", former], env={"PYTHONPATH": str(ROOT / "operator")}, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("wrong settings: ")
    assert setting in done.stderr


@pytest.mark.parametrize("former", FORMER)
def test_import_of_former_path_runs_nothing(former: str) -> None:
    runpy.run_module(former, run_name="imported")


@pytest.mark.parametrize("former", FORMER)
def test_former_and_new_path_end_alike(former: str) -> None:
    outputs = [
        subprocess.run([sys.executable, "-m", path], env={"PYTHONPATH": str(ROOT / "operator")}, capture_output=True)
        for path in (former, FORMER[former][0])
    ]
    assert (outputs[0].returncode, outputs[0].stderr) == (outputs[1].returncode, outputs[1].stderr)
