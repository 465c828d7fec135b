"""The GitHub Actions and the pre-commit hook: their shell lines run as a runner would run them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelwright.cli.plugin import verb_options

ROOT = Path(__file__).parents[2]
GOOD = """\
apiVersion: modelwright.dev/v1alpha1
kind: Model
metadata: {name: digits, namespace: vision}
spec: {version: {name: digits-v1}}
"""
BAD = GOOD.replace("version: {", "vresion: {")
MAIN = "import sys; from modelwright.cli.plugin import main; sys.exit(main())"
REAL = f'PYTHONPATH={ROOT / "operator"} exec {sys.executable} -c "{MAIN}" "$@"'
PYTHON = f"""\
#!/usr/bin/env bash
# Makes a venv as python3 does, but its pip installs what stands in $PLUGIN.
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$3/bin"
  cp "$0" "$3/bin/python"
elif [ "$1 $2" = "-m pip" ]; then
  echo "$@" >> "$RUNNER_TEMP/pip"
  cp "$PLUGIN" "$(dirname "$0")/kubectl-modelwright"
else
  exec {sys.executable} "$@"
fi
"""


def action(name: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((ROOT / "actions" / name / "action.yml").read_text())
    return read


class Runner:
    """A GitHub runner: steps of an action, one after the other, with what each leaves for the next."""

    def __init__(self, folder: Path, plugin: str) -> None:
        self.folder, self.work = folder, folder / "work"
        for path in (folder / "bin", folder / "temp", self.work):
            path.mkdir()
        (folder / "plugin").write_text(f"#!/usr/bin/env bash\n{plugin}\n")
        (folder / "bin" / "python3").write_text(PYTHON)
        for file in ("plugin", "bin/python3"):
            (folder / file).chmod(0o755)
        self.said = ""

    def run(self, name: str, **inputs: str) -> int:
        """The exit code of the first step that fails, else 0."""
        defined = action(name)
        assert inputs.keys() <= defined["inputs"].keys()
        values = {key: str(entry.get("default", "")) for key, entry in defined["inputs"].items()} | inputs
        for step in defined["runs"]["steps"]:
            assert step["shell"] == "bash"
            given = {
                key: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda found: values[found[1]], text)
                for key, text in step.get("env", {}).items()
            }
            script = self.folder / "step.sh"
            script.write_text(step["run"])
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
                cwd=self.work,
                env=self.environment(name) | given,
                capture_output=True,
                text=True,
            )
            self.said += done.stdout + done.stderr
            if done.returncode:
                return done.returncode
        return 0

    def environment(self, name: str) -> dict[str, str]:
        more = self.file("path").splitlines()
        return {
            "PATH": ":".join([*reversed(more), str(self.folder / "bin"), os.environ["PATH"]]),
            "HOME": str(self.folder),
            "RUNNER_TEMP": str(self.folder / "temp"),
            "PLUGIN": str(self.folder / "plugin"),
            "GITHUB_ACTION_PATH": str(ROOT / "actions" / name),
            **{f"GITHUB_{file.upper()}": str(self.folder / file) for file in ("path", "output", "step_summary")},
        }

    def file(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("name", ["lint", "wait"])
def test_no_input_is_code(name: str) -> None:
    for step in action(name)["runs"]["steps"]:
        assert "${{" not in step["run"]


def test_the_plugin_is_installed_once_from_the_action(tmp_path: Path) -> None:
    runner = Runner(tmp_path, REAL)
    (runner.work / "model.yaml").write_text(GOOD)
    assert [runner.run("lint"), runner.run("lint")] == [0, 0], runner.said
    (asked,) = (tmp_path / "temp" / "pip").read_text().splitlines()
    path, _, extra = asked.split()[-1].partition("[")
    extras = tomllib.loads((Path(path) / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert (Path(path), extra) == (ROOT, "cli]")
    assert "cli" in extras
    # The python3 of later steps is still the runner's.
    assert not (Path(runner.file("path").splitlines()[0]) / "python3").exists()


def test_lint_passes_what_the_api_takes(tmp_path: Path) -> None:
    runner = Runner(tmp_path, REAL)
    (runner.work / "a model.yaml").write_text(GOOD)
    assert runner.run("lint", files="a model.yaml\n\n") == 0, runner.said
    assert "::error" not in runner.said


def test_lint_fails_with_an_annotation_at_the_line(tmp_path: Path) -> None:
    runner = Runner(tmp_path, REAL)
    (runner.work / "model.yaml").write_text(BAD)
    assert runner.run("lint") == 1
    assert "::error file=model.yaml,line=4::" in runner.said


def test_lint_writes_sarif_also_when_it_fails(tmp_path: Path) -> None:
    runner = Runner(tmp_path, REAL)
    (runner.work / "model.yaml").write_text(BAD)
    assert runner.run("lint", sarif="lint.sarif") == 1
    (run,) = json.loads((runner.work / "lint.sarif").read_text())["runs"]
    assert [result["level"] for result in run["results"]] == ["error"]


def test_a_file_name_is_no_command(tmp_path: Path) -> None:
    runner = Runner(tmp_path, REAL)
    assert runner.run("lint", files='$(touch made); "; touch made') != 0
    assert not (runner.work / "made").exists()


WAITING = """\
echo "$@" >> "$RUNNER_TEMP/asked"
case $1 in
  status) echo "::error::a tree"; exit $CODE ;;
  why) printf 'errors: 12 %%\\nof 300\\n' ;;
esac
"""


@pytest.mark.parametrize(("code", "result"), [(0, "promoted"), (1, "failed"), (2, "timeout")])
def test_wait_ends_as_the_rollout_does(tmp_path: Path, code: int, result: str) -> None:
    runner = Runner(tmp_path, f"CODE={code}\n{WAITING}")
    assert runner.run("wait", model="digits", namespace="vision", timeout="1h") == code
    assert runner.file("output") == f"result={result}\n"
    status, *why = (tmp_path / "temp" / "asked").read_text().splitlines()
    assert status == "status --wait --timeout 1h --namespace=vision -- digits"
    assert why == (["why --namespace=vision -- digits"] if code else [])


def test_wait_says_why_where_people_see_it(tmp_path: Path) -> None:
    runner = Runner(tmp_path, f"CODE=1\n{WAITING}")
    runner.run("wait", model="digits")
    assert "::error title=digits: failed::errors: 12 %25%0Aof 300\n" in runner.said
    assert runner.file("step_summary") == "### digits: failed\n\n    errors: 12 %\n    of 300\n"


def test_what_the_cluster_says_is_no_command_to_the_runner(tmp_path: Path) -> None:
    runner = Runner(tmp_path, f"CODE=0\n{WAITING}")
    runner.run("wait", model="digits")
    assert re.search(r"^::stop-commands::(\w{32})\n::error::a tree\n::\1::$", runner.said, re.MULTILINE)


def test_the_plugin_has_what_actions_and_hook_ask_for() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    lines = [shlex.split(hook["entry"])]
    for name in ("lint", "wait"):
        for step in action(name)["runs"]["steps"]:
            lines += [found.split() for found in re.findall(r"kubectl-modelwright [a-z].*", step["run"])]
    known = verb_options()
    assert {line[1] for line in lines} == {"lint", "status", "why"}
    for line in lines:
        assert {word for word in line if re.match("--?[a-z]", word)} <= known[line[1]].keys()


@pytest.mark.parametrize(("text", "code"), [(GOOD, 0), (BAD, 1)], ids=["a good file", "a bad file"])
def test_the_hook_judges_files(tmp_path: Path, text: str, code: int) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["additional_dependencies"] == [".[cli]"]
    runner = Runner(tmp_path, REAL)
    (tmp_path / "plugin").rename(tmp_path / "bin" / "kubectl-modelwright")
    (runner.work / "model.yaml").write_text(text)
    command = [*shlex.split(hook["entry"]), "model.yaml"]
    done = subprocess.run(command, cwd=runner.work, env=runner.environment("lint"), capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
