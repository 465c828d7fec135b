"""Processes are ended by identity (pid, start time, program): never another one that got the same pid."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from devcluster import processes
from devcluster.errors import ClusterError
from devcluster.state import State


@pytest.fixture
def daemon(tmp_path: Path):
    started = processes.spawn("sleeper", ["sleep", "300"], tmp_path / "sleeper.log")
    yield started
    processes.end_all([started], grace=0)


def test_a_started_process_is_alive_until_it_is_ended(daemon: processes.Daemon) -> None:
    assert daemon.alive()
    processes.end_all([daemon])
    assert not daemon.alive()


@pytest.mark.parametrize("change", [{"start": 1}, {"boot": "another"}, {"exe": "/bin/other"}])
def test_a_pid_that_was_used_again_is_left_alone(daemon: processes.Daemon, change: dict) -> None:
    stranger = replace(daemon, **change)
    assert not stranger.alive()
    processes.end_all([stranger])
    assert daemon.alive()


def test_a_zombie_is_dead(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    while Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    assert processes.start_time(child) is None
    os.waitpid(child, 0)


def test_a_process_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "l"
    ignore = "import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    # The interpreter itself: what starts as another program and becomes Python would be taken for a stranger.
    stubborn = processes.spawn("stubborn", [os.path.realpath(sys.executable), "-c", ignore], log)
    while "\ndeaf" not in log.read_text():
        time.sleep(0.01)
    processes.end_all([stubborn], grace=0.3)
    assert processes.start_time(stubborn.pid) is None


def test_what_ends_at_once_is_an_error_with_the_log(tmp_path: Path) -> None:
    log = tmp_path / "broken.log"
    started = processes.spawn("broken", ["sh", "-c", "echo the reason; sleep 0.1; exit 3"], log)
    while started.alive():
        time.sleep(0.01)
    assert "the reason" in log.read_text()


_WAITING = """
import subprocess, sys, threading, time
from pathlib import Path
from devcluster import processes
processes.interrupt_on_sigterm()
folder = Path(sys.argv[1])
def run(name):
    subprocess.run(["sh", "-c", f"echo $$ > {folder}/{name}; exec sleep 300"])
try:
    print(processes.spawn("daemon", ["sleep", "300"], folder / "log").pid, flush=True)
    thread = threading.Thread(target=run, args=["thread"])
    thread.start()
    run("main")
except KeyboardInterrupt:
    thread.join()
    print("interrupted", flush=True)
"""


def test_sigterm_ends_awaited_programs_and_no_daemons(tmp_path: Path) -> None:
    command = subprocess.Popen([sys.executable, "-c", _WAITING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert command.stdout is not None
    daemon = processes.identify("daemon", int(command.stdout.readline()), tmp_path / "log")
    try:
        waited_for = [tmp_path / name for name in ("main", "thread")]
        while not all(file.exists() and file.read_text().endswith("\n") for file in waited_for):
            time.sleep(0.01)
        command.terminate()
        assert command.stdout.read() == "interrupted\n"
        assert command.wait() == 0
        assert [processes.start_time(int(file.read_text())) for file in waited_for] == [None, None]
        assert daemon.alive()
    finally:
        command.kill()
        command.wait()
        processes.end_all([daemon], grace=0)


def test_state_comes_back_as_it_was_saved(tmp_path: Path, daemon: processes.Daemon) -> None:
    saved = State(tmp_path / "run", profile="full", ready=True, facts={"slot": 3})
    saved.record(replace(daemon, env=(("A", "b"),)))
    loaded = State.load(tmp_path / "run")
    assert loaded == saved
    assert loaded.dead() == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"daemons": {"x": {}}}'])
def test_a_torn_state_file_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    assert State.load(tmp_path).daemons == {}


def test_errors_show_the_end_of_the_log(tmp_path: Path) -> None:
    from devcluster.errors import log_failure

    log = tmp_path / "x.log"
    log.write_text("\n".join(f"line {number}" for number in range(100)))
    error = log_failure("the thing broke", log)
    assert isinstance(error, ClusterError)
    assert "the thing broke" in str(error)
    assert str(log) in str(error)
    assert "line 99" in str(error)
    assert "line 10\n" not in str(error)
