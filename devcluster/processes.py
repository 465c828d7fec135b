"""Starts daemons and ends them by a recorded identity (pid, start time, program), never by name."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devcluster.errors import log_failure

# Kept so that daemons that end while we run are reaped, and don't remain as zombies.
_STARTED: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Daemon:
    """A process as it was started. A pid alone is not an identity, because pids are reused."""

    name: str
    pid: int
    start: int
    boot: str
    exe: str
    log: str
    argv: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()

    def alive(self) -> bool:
        return self.present() and program(self.pid) is not None

    def present(self) -> bool:
        """Whether it is alive or exiting: an exiting process no longer reports its program, but may still hold its
        ports."""
        return self.boot == boot_id() and start_time(self.pid) == self.start and program(self.pid) in (self.exe, None)

    def signal(self, number: int) -> None:
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    if fields[0] in "ZX" and threads(pid) <= 1:
        return None
    return int(fields[19])


def threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def program(pid: int) -> str | None:
    """Return the program of a process. A binary replaced on disk is still the same program."""
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
    except OSError:
        return None


def identify(name: str, pid: int, log: Path, argv: Sequence[str] = (), env: Mapping[str, str] | None = None) -> Daemon:
    """Record a running process; raises when it has already ended."""
    start, exe = start_time(pid), program(pid)
    if start is None or exe is None:
        raise log_failure(f"{name} ended as soon as it was started", log)
    return Daemon(
        name=name,
        pid=pid,
        start=start,
        boot=boot_id(),
        exe=exe,
        log=str(log),
        argv=tuple(argv),
        env=tuple((env or {}).items()),
    )


def spawn(
    name: str,
    argv: Sequence[str],
    log: Path,
    env: Mapping[str, str] | None = None,
    inside: Daemon | None = None,
) -> Daemon:
    """Start a daemon in its own session; `inside` names the first process of a sandbox to start it in."""
    log.parent.mkdir(parents=True, exist_ok=True)
    enter = [] if inside is None else ["nsenter", f"--target={inside.pid}", "--mount", "--net", "--pid", "--"]
    with log.open("ab") as out:
        out.write(f"--- {time.strftime('%Y-%m-%dT%H:%M:%S')} {' '.join(argv)}\n".encode())
        out.flush()
        child = subprocess.Popen(
            [*enter, *argv],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )
    pid = child.pid if inside is None else only_child(child.pid, name, log)
    _STARTED.append(child)
    return identify(name, pid, log, argv, env)


def reap() -> None:
    _STARTED[:] = [child for child in _STARTED if child.poll() is None]


def only_child(parent: int, name: str, log: Path, timeout: float = 10) -> int:
    """Return the one process that a launcher (nsenter, unshare) has forked, once it runs its own program."""
    launcher = program(parent)
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        for child in children(parent):
            if program(child) not in (None, launcher):
                return child
        if start_time(parent) is None:
            break
        time.sleep(0.01)
    raise log_failure(f"{name} did not start", log)


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def interrupt_on_sigterm() -> None:
    """From now on SIGTERM ends this process like Ctrl-C in a terminal: with KeyboardInterrupt, which also ends the
    programs it waits for. Daemons have their own sessions and are left alone."""
    session = os.getsid(0)

    def interrupt(*_: object) -> None:
        for pid in _descendants(os.getpid(), session):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def _descendants(pid: int, session: int) -> list[int]:
    pids = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split()):
                with contextlib.suppress(ProcessLookupError):
                    if os.getsid(child) == session:
                        pids += [child, *_descendants(child, session)]
    return pids


def parent(pid: int) -> int:
    """Return the parent's pid. Raises OSError when the process is gone."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat[stat.rindex(")") + 2 :].split()[1])


def end_all(daemons: Iterable[Daemon], grace: float = 5) -> None:
    """Ask each daemon to end, wait, and kill the remaining ones."""
    wanted = [daemon for daemon in daemons if daemon.present()]
    for number, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        for daemon in wanted:
            daemon.signal(number)
        deadline = time.monotonic() + wait
        while wanted and time.monotonic() < deadline:
            wanted = [daemon for daemon in wanted if daemon.present()]
            if wanted:
                time.sleep(0.02)
    reap()
    if wanted:
        names = ", ".join(f"{daemon.name} (pid {daemon.pid})" for daemon in wanted)
        raise log_failure(f"these processes do not end: {names}")
