"""Counting flakes: what the output of `make test` says, the rows, and runs of the committed tree."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from scripts import flakes
from scripts.flakes import Output, Summary

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).parent / "recorded"
"""The output of `make test`'s own programs, over tests that fail in each way; without the warnings of plugins."""
FAILED = (RECORDED / "make-test-failed.log").read_text()
PASSED = (RECORDED / "make-test-passed.log").read_text()
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_the_output_of_a_run_that_failed_names_tests_and_steps() -> None:
    assert Output.of(FAILED) == Output(
        passed=False,
        seconds=20,
        seed=2718281828,
        failed=(
            "tools",
            "verify: mypy",
            "verify: import rules",
            "tests/e2e/test_story.py::test_story",
            "tests/e2e/test_story.py::test_other",
            "tests/unit/test_broken.py",
            "tests/unit/test_queue.py::test_order[a b]",
            "tests/unit/test_queue.py::test_order[a - b]",
            "tests/unit/test_queue.py::TestQueue::test_it",
        ),
    )


def test_the_output_of_a_run_that_passed_names_nothing() -> None:
    assert Output.of(PASSED) == Output(passed=True, seconds=4, seed=3141592653, failed=())


@pytest.mark.parametrize(
    ("text", "failed"),
    [
        ("==> unit\n==> unit: FAILED (exit 2), 3 s\n", ("unit",)),
        ("==> unit: begins\n==> unit:\n==> unit: FAILED (exit 2), 3 s\n", ("unit",)),
        ("==> a\n==> b\n==> b: FAILED (exit 1), 0 s\n==> c\n==> c: ok, 0 s\n==> a: FAILED (exit 2), 3 s\n", ("a: b",)),
        ("==> a\n==> b\n==> b: ok, 0 s\n==> a: FAILED (exit 2), 3 s\n", ("a",)),
        (
            "==> a\nFAILED t/test_x.py::test_y - a\n==> a: FAILED (exit 1), 0 s\n==> b\n==> b: FAILED (exit 1), 0 s\n",
            ("t/test_x.py::test_y", "b"),
        ),
        ("FAILED t/test_x.py::test_y\nERROR t/test_x.py::test_y - at teardown\n", ("t/test_x.py::test_y",)),
        ("FAILED t/test_x.py::test_y[a] - assert 'b]' - 'c'\n", ("t/test_x.py::test_y[a]",)),
        ("ERROR    root:x.py:1 said t/test_x.py::test_y\nE  FAILED t/test_x.py::test_y\nFAILED to start x.py\n", ()),
    ],
    ids=["a step", "begins apart", "in a step", "outer", "a test, and a step", "twice", "brackets", "not pytest's"],
)
def test_what_failed(text: str, failed: tuple[str, ...]) -> None:
    assert Output.of(f"{text}\nNot passed, after 9 s.\n").failed == failed


@pytest.mark.parametrize("text", ["", "==> unit\n", FAILED.partition("\nNot passed")[0]])
def test_the_output_of_half_a_run_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not the whole output of `make test`"):
        Output.of(text)


def row(**more: Any) -> flakes.Row:
    made = flakes.row(
        Output(True, 1500, 7, ()), commit=COMMIT, date="2026-11-30T06:00:00Z", seed=None, load=0, command="make test"
    )
    return made | more


BROKEN = {"passed": False, "failed": ["tests/unit/test_x.py::test_y"]}


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([], None),
        ([row()], None),
        ([row(**BROKEN, cause="test_y counted a retry: fixed")], None),
        ([row(), row(**BROKEN)], r"row 2 \(2026-11-30T06:00:00Z, 0123456\): cause is empty; find out why tests/unit/"),
        ([row(passed=False, cause="unknown")], "failed, and doesn't say what"),
        ([row(failed=["x"])], "passed, and names what failed"),
        ([row(commit="0123456")], "commit is not a whole one"),
        ([row(more=1)], "has commit, .*, more, not commit"),
        ([row(), row(date="2026-11-29T06:00:00Z")], "not in the order"),
    ],
    ids=["none", "passed", "cause is known", "no cause", "what", "passed and failed", "commit", "keys", "order"],
)
def test_a_row_that_leaves_something_out_is_a_fault(rows: list[flakes.Row], fault: str | None) -> None:
    found = flakes.row_faults(rows)
    assert len(found) == (fault is not None)
    if fault is not None:
        assert re.search(fault, found[0])


def test_every_failed_run_that_is_recorded_has_a_cause() -> None:
    assert flakes.row_faults(flakes.read(ROOT)) == []


PASSES, LOADED, FAILS = row(), row(load=4), row(**BROKEN)


@pytest.mark.parametrize(
    ("rows", "wanted", "holds"),
    [
        ([], Summary(0, 0, 0, 0), False),
        ([PASSES] * 5 + [LOADED] * 5, Summary(10, 0, 10, 5), True),
        ([PASSES] * 4 + [LOADED] * 5, Summary(9, 0, 9, 5), False),
        ([PASSES] * 6 + [LOADED] * 4, Summary(10, 0, 10, 4), False),
        ([row(load=2)] * 5 + [PASSES] * 5, Summary(10, 0, 10, 0), False),
        ([FAILS] + [PASSES] * 5 + [LOADED] * 5, Summary(11, 1, 10, 5), True),
        ([PASSES] * 5 + [FAILS] + [LOADED] * 5, Summary(11, 1, 5, 5), False),
        ([LOADED] * 10 + [FAILS], Summary(11, 1, 0, 0), False),
    ],
    ids=["none", "ten", "nine", "four of them", "too little load", "failed before", "failed between", "failed last"],
)
def test_the_bound_is_on_the_runs_since_the_last_failure(rows: list[flakes.Row], wanted: Summary, holds: bool) -> None:
    assert Summary.of(rows) == wanted
    assert wanted.holds is holds


PROGRAM = """
import os, pathlib, sys
print("MODELWRIGHT_SEED=" + os.environ["MODELWRIGHT_SEED"])
print(os.environ.get("MAKEFLAGS", "no flags"), pathlib.Path("given").read_text())
pathlib.Path("left").touch()
"""
GOOD = PROGRAM + 'print("All passed in 12 s; its budget with a warm cache is 1800 s.")\n'
BAD = PROGRAM + 'print("FAILED t/test_x.py::test_y - no")\nprint("Not passed, after 13 s.")\nsys.exit(1)\n'
DIES = PROGRAM + "sys.exit(3)\n"
HANGS = PROGRAM + "import signal\nprint('up', flush=True)\nsignal.pause()\n"


LEAVES = """
import os
from scripts import flakes
with flakes._busy_processes(1) as processes:
    print(processes[0].pid, flush=True)
    os._exit(0)
"""
RUNS = """
import pathlib, sys
from scripts import flakes
sys.exit(flakes.main(["run"], pathlib.Path(sys.argv[1])))
"""


def _commit(project: Path, program: str) -> str:
    (project / "test.py").write_text(program)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com"]
    for command in (["add", "."], ["commit", "-qm", "a commit"]):
        subprocess.run([*git, *command], cwd=project, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True, check=True)
    return head.stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository whose `make test` is a program of ours."""
    folder = tmp_path / "project"
    (folder / "docs/figures").mkdir(parents=True)
    (folder / "given").write_text("as committed")
    (folder / ".gitignore").write_text("build/\n")
    (folder / "Makefile").write_text(f"test:\n\t@{sys.executable} test.py\n")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def test_runs_are_of_the_committed_tree_and_append_a_row_each(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAKEFLAGS", "-- RUNS=2")
    good = _commit(project, GOOD)
    (project / "given").write_text("edited")
    assert flakes.main(["run", "--runs", "2", "--seed", str(2**32 - 1)], project) == 0
    first, second = flakes.read(project)
    assert [first["seed"], second["seed"]] == [2**32 - 1, 0]
    assert first | {"date": "", "seed": 0, "command": ""} == row(commit=good, date="", seed=0, seconds=12, command="")
    assert first["command"] == f"MODELWRIGHT_SEED={2**32 - 1} make test"
    bad = _commit(project, BAD)
    assert flakes.main(["run"], project) == 1
    *earlier, third = flakes.read(project)
    assert earlier == [first, second]
    assert (third["commit"], third["passed"], third["failed"]) == (bad, False, ["t/test_x.py::test_y"])
    assert [fault.partition(": ")[2] for fault in flakes.row_faults([third])] == [
        "cause is empty; find out why t/test_x.py::test_y failed, and write it there"
    ]
    said = [log.read_text() for each in (2**32 - 1, 0) for log in (project / flakes.LOGS).glob(f"*-{each}.log")]
    assert [("as committed" in text, "RUNS" in text) for text in said] == [(True, False)] * 2
    assert not (project / "left").exists()
    listed = subprocess.run(["git", "worktree", "list"], cwd=project, capture_output=True, text=True, check=True).stdout
    assert len(listed.splitlines()) == 1


@pytest.mark.parametrize(
    "program", [DIES, GOOD + "sys.exit(1)\n", DIES.replace("sys.exit", 'print("Not passed, after 3 s.")\nsys.exit')]
)
def test_a_failed_exit_without_named_failures_is_a_failure(project: Path, program: str) -> None:
    _commit(project, program)
    assert flakes.main(["run", "--seed", "5"], project) == 1
    (made,) = flakes.read(project)
    assert (made["passed"], made["failed"], made["seed"]) == (False, ["make test: exit 2"], 5)


def test_the_load_is_there_meanwhile_and_gone_afterwards() -> None:
    with flakes._busy_processes(2) as processes:
        assert [process.poll() for process in processes] == [None, None]
    assert [process.poll() for process in processes] == [-signal.SIGKILL] * 2


def test_the_load_ends_when_what_started_it_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", LEAVES], cwd=ROOT, stdout=subprocess.PIPE, text=True) as started:
        pid = int(started.communicate()[0])
    _until(lambda: not _runs(pid))


def test_a_run_that_is_stopped_is_ended_and_not_recorded(project: Path) -> None:
    _commit(project, HANGS)
    command = [sys.executable, "-c", RUNS, str(project)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as started:
        logs = project / flakes.LOGS
        _until(lambda: any("up\n" in log.read_text() for log in logs.glob("*.log")))
        started.send_signal(signal.SIGTERM)
        said = started.communicate()[1]
    assert started.returncode == 130
    assert said.splitlines()[-1] == "stopped: the run that was under way is not recorded"
    assert flakes.read(project) == []


def _until(true: Any) -> None:
    while not true():  # the test's time limit ends it
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_run_made_elsewhere_is_added_at_its_place(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = _commit(project, GOOD)
    flakes.append(project, row())
    log = ["add", str(RECORDED / "make-test-failed.log"), "--date", "2026-11-29T23:30:00+01:00", "--load", "4"]
    assert flakes.main([*log, "--commit", "HEAD", "--ran", "make test in CI"], project) == 0
    added, other = flakes.read(project)
    assert other == row()
    assert added == flakes.row(
        Output.of(FAILED), commit=head, date="2026-11-29T22:30:00Z", seed=None, load=4, command="make test in CI"
    )
    assert added["seed"] == 2718281828
    content = json.loads((project / flakes.FILE).read_text())
    assert content["bound"] == flakes.BOUND
    assert flakes.main(["add", os.devnull], project) == 1
    assert "not the whole output" in capsys.readouterr().err
    assert flakes.read(project) == [added, other]


DRAWS = """
from hypothesis import given, settings, strategies as st
drawn = []
@settings(max_examples=20, database=None)
@given(st.integers())
def test_draws(number):
    drawn.append(number)
def test_shows():
    print("drawn:", drawn)
"""


def test_hypothesis_draws_by_the_same_seed(tmp_path: Path) -> None:
    (tmp_path / "test_draws.py").write_text(DRAWS)

    def drawn() -> str:
        plugins = ("no:cacheprovider", "_hypothesis_pytestplugin", "tests.conftest")
        command = [sys.executable, "-m", "pytest", *(each for name in plugins for each in ("-p", name)), "-qs"]
        environment = {
            **os.environ,
            "MODELWRIGHT_SEED": "7",
            "PYTHONPATH": "operator:.",
            "PYTEST_ADDOPTS": "",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        done = subprocess.run(
            [*command, str(tmp_path)], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        (line,) = [line for line in done.stdout.splitlines() if "drawn:" in line]
        return line

    assert drawn() == drawn()
