"""`make test` itself: what runs beside what, what is printed, and that nothing it has started outlives it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import suite
from scripts.suite import Layer, Suite

ROOT = Path(__file__).parents[2]
MARKERS = {
    "chart": ["test-chart"],
    "fetch": ["test-fetch"],
    "metrics": ["test-metrics"],
    "controlplane": ["test-controlplane"],
    "kwok": ["test-kwok"],
    "e2e": ["test-e2e", "test-cluster"],
}


def shell(name: str, script: str, budget: int = 60, **more: tuple[str, ...]) -> Layer:
    return Layer(name, ("bash", "-c", script), budget, **more)


def played(folder: Path, *lanes: list[Layer]) -> Suite:
    found = Suite(lanes, folder)
    found.play(every=0.01)
    return found


def until(true: object, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


def test_every_target_exists_and_no_layer_waits_for_a_later_one() -> None:
    makefile = (ROOT / "Makefile").read_text()
    lanes = [(*suite.CLUSTER, suite.DOWN), (*suite.COMPUTE, *suite.WHOLE)]
    assert len({layer.name for lane in lanes for layer in lane}) == sum(map(len, lanes))
    for lane, other in (lanes, lanes[::-1]):
        known = {layer.name for layer in other}
        for layer in lane:
            assert re.search(rf"^{layer.command[-1]}:", makefile, re.MULTILINE), layer.command
            assert {*layer.after, *layer.needs} <= known, layer
            known.add(layer.name)


def test_a_layer_collects_every_folder_that_has_its_tests() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for marker, targets in MARKERS.items():
        recipes = [re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE) for target in targets]
        folders = {ROOT / name for recipe in recipes if recipe for name in re.findall(r"tests/[\w/]+", recipe[1])}
        pattern = rf"mark\.{marker}\b"
        marked = [file for file in (ROOT / "tests").rglob("*.py") if re.search(pattern, file.read_text())]
        assert marked
        assert [file for file in marked if not {*file.parents} & folders] == []


def test_no_two_layers_of_different_lanes_wait_for_each_other() -> None:
    over: set[str] = set()
    lanes = [[*suite.CLUSTER, suite.DOWN], list(suite.COMPUTE)]
    while any(lanes):
        ready = [lane for lane in lanes if lane and {*lane[0].after, *lane[0].needs} <= over]
        assert ready, f"all wait: {[lane[0].name for lane in lanes if lane]}"
        over.add(ready[0].pop(0).name)


def test_lanes_run_in_parallel_and_each_layer_is_printed_whole(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    wait = "while [ ! -e {} ]; do sleep 0.02; done"
    here = shell("here", f"echo one; touch {tmp_path}/here; {wait.format(tmp_path / 'there')}; echo two")
    there = shell("there", f"echo three; touch {tmp_path}/there; {wait.format(tmp_path / 'here')}; echo four")
    found = played(tmp_path, [here], [there])
    assert found.passed
    said = capfdbinary.readouterr().out.decode()
    assert "==> here:\none\ntwo\n==> here: ok, " in said
    assert "==> there:\nthree\nfour\n==> there: ok, " in said


def test_a_failure_ends_nothing_else_but_what_needs_it(tmp_path: Path) -> None:
    bad = shell("bad", "echo ERROR of a log; echo FAILED tests/test_x.py::test_y - assert 0; exit 3")
    later = shell("later", "true")
    needs, after = shell("needs", "true", needs=("bad",)), shell("after", "true", after=("bad",))
    found = played(tmp_path, [bad, later], [needs, after])
    assert {run.layer.name: run.state for run in found} == {
        "bad": "FAILED",
        "later": "ok",
        "needs": "not run",
        "after": "ok",
    }
    assert not found.passed
    assert found.failures() == [f"bad: see {tmp_path}/bad.log", "  FAILED tests/test_x.py::test_y - assert 0"]


def test_a_layer_begins_once_those_it_comes_after_have_ended(tmp_path: Path) -> None:
    first = shell("first", f"sleep 0.2; touch {tmp_path}/done")
    assert played(tmp_path, [first], [shell("second", f"test -e {tmp_path}/done", after=("first",))]).passed


def test_a_row_says_what_is_over_its_budget(tmp_path: Path) -> None:
    found = played(tmp_path, [shell("quick", "true"), shell("slow", "sleep 1.1", budget=1)])
    assert found["quick"].row() == "ok          0 s of    60 s  quick"
    assert found["slow"].row() == "ok          1 s of     1 s  slow  over its budget by 0 s"


def test_one_that_runs_long_says_so_meanwhile(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "STATUS_SECONDS", 0.2)
    played(tmp_path, [shell("long", "echo half of it; sleep 0.5")])
    assert "    long: 0 s; half of it\n" in capfdbinary.readouterr().out.decode()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT is not ignored by what the test starts, though the tests themselves run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("deaf", [False, True])
def test_what_runs_is_ended_with_all_it_has_started(
    tmp_path: Path, deaf: bool, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "GRACE", dict.fromkeys(suite.GRACE, 0.5 if deaf else 20))
    trap = "trap '' INT TERM; " if deaf else "trap 'echo tidied up; exit 1' INT; "
    # A background process of a shell ignores SIGINT by itself.
    child = f"sleep 1000 & echo $! > {tmp_path}/pid; echo under way; wait"
    found = Suite([[shell("long", trap + child), shell("never", "true")]], tmp_path)
    playing = threading.Thread(target=found.play, args=(0.01,))
    playing.start()
    pid = tmp_path / "pid"
    until(lambda: pid.exists() and pid.read_text().strip())
    found.stop(signal.SIGTERM)
    playing.join()
    assert {run.layer.name: run.state for run in found} == {"long": "ended", "never": "not run"}
    assert not found.passed
    said = capfdbinary.readouterr().out.decode()
    assert "==> long:\nunder way\n" in said
    assert ("tidied up" in said) is not deaf
    until(lambda: not alive(int(pid.read_text())))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


MAKEFILE = """
setup:
cluster-status:
\t@test -e up
cluster-up:
\t@touch up brought
cluster-down:
\t@rm up; touch taken
%:
\t@echo this is $@; test "$(BROKEN)" != $@
test-e2e:
\t@touch running; while [ -e hang ]; do sleep 0.1; done
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the command itself, and a Makefile whose targets do next to nothing."""
    (tmp_path / "scripts").mkdir()
    for name in ("suite.py", "test", "step"):
        (tmp_path / "scripts" / name).write_bytes((ROOT / "scripts" / name).read_bytes())
        (tmp_path / "scripts" / name).chmod(0o755)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "Makefile").write_text(MAKEFILE)
    return tmp_path


def start(project: Path, **environment: str) -> subprocess.Popen[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.Popen(
        [project / "scripts" / "test"], env={**kept, **environment}, stdout=subprocess.PIPE, text=True
    )


def test_the_command_passes_says_so_and_takes_its_cluster_down(project: Path) -> None:
    process = start(project)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    table = said[said.index("\nok ") :]
    names = re.findall(r"^ok +\d+ s (?:of +\d+ s| {10})  (.*)$", table, re.MULTILINE)
    assert names == ["setup", *(layer.name for layer in (*suite.CLUSTER, suite.DOWN, *suite.COMPUTE))], said
    assert "All passed in " in table
    assert (project / "taken").exists()


def test_the_seed_follows_from_the_tree_and_from_no_message(project: Path) -> None:
    def committed(message: str) -> str:
        git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.com")
        for command in (("init", "-q"), ("add", "Makefile"), ("commit", "-q", "--allow-empty", "-m", message)):
            subprocess.run((*git, *command), cwd=project, check=True)
        said, _ = start(project, MODELWRIGHT_SEED="").communicate(timeout=60)
        return re.search(r"MODELWRIGHT_SEED=(\d+) ", said)[1]  # type: ignore[index]

    one, same = committed("one"), committed("another message")
    (project / "Makefile").write_text(f"{MAKEFILE}\n# Another tree.\n")
    assert one == same != committed("another tree")


def test_the_command_fails_with_one_layer_and_runs_the_others(project: Path) -> None:
    process = start(project, BROKEN="docs")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search(r"^FAILED +\d+ s of +\d+ s  docs$", said, re.MULTILINE), said
    assert said.count("==> simulated nodes: ok, ") == 1
    assert "Not passed, after " in said


def test_the_command_leaves_a_cluster_alone_that_was_up_before(project: Path) -> None:
    (project / "up").touch()
    process = start(project)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert (project / "up").exists()
    assert "cluster down" not in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_takes_its_cluster_down_when_it_is_ended(project: Path, number: signal.Signals) -> None:
    (project / "hang").touch()
    process = start(project)
    until(lambda: (project / "running").exists())
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert (project / "taken").exists()
    assert re.search(r"^ended +\d+ s of +\d+ s  end to end$", said, re.MULTILINE), said
    assert "Not passed, after " in said
