"""Counts flakes: whole runs of `make test`, one row per run in docs/figures/flakes.json.

`run` runs the suite on the committed tree, with a new seed for each run, and beside busy processes on request;
`add LOG` adds the output of a run made elsewhere. A developer writes the cause of a failure into its row.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FILE = Path("docs/figures/flakes.json")
LOGS = Path("build/flakes")
RUNS, BESIDE_LOAD, LOAD = 10, 5, 4
BOUND = "0 in ten whole runs, five of them beside a load of 4"
MAKE_TEST = ("make", "--no-print-directory", "test")
Row = dict[str, Any]

_BEGUN = re.compile(r"==> ([^:]+):?")
_ENDED = re.compile(r"==> (.+): (ok|FAILED|ended)\b.*, \d+ s")
_TEST = re.compile(r"(?:FAILED|ERROR) (\S+?\.py(?:::[^\[\s]+(?:\[.*?\](?= - |$))?)?)(?: - .*)?")
_OVER = re.compile(r"(All passed in|Not passed, after) (\d+) s\b.*")
_SEED = re.compile(r"MODELWRIGHT_SEED=(\d+)\b")


@dataclass(frozen=True)
class Output:
    """The output of a whole run of `make test`."""

    passed: bool
    seconds: int
    seed: int | None
    failed: tuple[str, ...]
    """Ids of failed tests; names of steps in which something other than a test failed."""

    @classmethod
    def of(cls, text: str) -> Output:
        """Parse the output. Raises ValueError when it is not that of a whole run."""
        lines = [line.rstrip() for line in text.splitlines()]
        ends = [match for line in lines if (match := _OVER.fullmatch(line))]
        if not ends:
            raise ValueError(
                "this is not the whole output of `make test`: it ends with neither All passed nor Not passed"
            )
        seeds = [int(match[1]) for line in lines if (match := _SEED.search(line))]
        passed, seconds = ends[-1][1] == "All passed in", int(ends[-1][2])
        return cls(passed, seconds, seeds[0] if seeds else None, tuple(dict.fromkeys(_failures(lines))))


@dataclass
class _Step:
    name: str
    explained: bool = False
    """Whether a failure inside it is already known."""


def _failures(lines: Iterable[str]) -> Iterator[str]:
    """Yield failures. Steps are nested; a failed step is named when nothing inside it is."""
    under_way: list[_Step] = []
    for line in lines:
        if match := _TEST.fullmatch(line):
            yield match[1]
            for step in under_way:
                step.explained = True
        elif (match := _ENDED.fullmatch(line)) and match[1] in (names := [step.name for step in under_way]):
            place = names.index(match[1])
            if match[2] != "ok" and not under_way[place].explained:
                yield ": ".join(names[: place + 1])
                for step in under_way[:place]:
                    step.explained = True
            del under_way[place:]
        elif match := _BEGUN.fullmatch(line):
            under_way.append(_Step(match[1]))


def row(output: Output, *, commit: str, date: str, seed: int | None, load: int, command: str) -> Row:
    """Build a new row, whose cause is still unknown."""
    return {
        "commit": commit,
        "date": date,
        "seed": output.seed if seed is None else seed,
        "load": load,
        "command": command,
        "seconds": output.seconds,
        "passed": output.passed,
        "failed": list(output.failed),
        "cause": None,
    }


KEYS = tuple(row(Output(True, 0, 0, ()), commit="", date="", seed=0, load=0, command=""))


def row_faults(rows: Sequence[Row]) -> list[str]:
    """List missing or inconsistent entries of the rows."""
    problems = []
    for number, each in enumerate(rows, start=1):
        where = f"row {number} ({each.get('date')}, {each.get('commit', '')[:7]})"
        if tuple(each) != KEYS:
            problems.append(f"{where}: has {', '.join(each)}, not {', '.join(KEYS)}")
            continue
        if not re.fullmatch(r"[0-9a-f]{40}", each["commit"]):
            problems.append(f"{where}: commit is not a whole one")
        if each["passed"] and (each["failed"] or each["cause"]):
            problems.append(f"{where}: passed, and names what failed")
        if not each["passed"] and not each["failed"]:
            problems.append(f"{where}: failed, and doesn't say what")
        if not each["passed"] and not each["cause"]:
            problems.append(
                f"{where}: cause is empty; find out why {', '.join(each['failed'])} failed, and write it there"
            )
    if [each.get("date", "") for each in rows] != sorted(each.get("date", "") for each in rows):
        problems.append("the rows are not in the order of their dates")
    return problems


@dataclass(frozen=True)
class Summary:
    """Totals of all rows, and of those since the last failure."""

    runs: int
    failed: int
    streak: int
    beside_load: int

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Summary:
        since = len(rows)
        while since and rows[since - 1]["passed"]:
            since -= 1
        newest = rows[since:]
        return cls(
            len(rows),
            sum(not each["passed"] for each in rows),
            len(newest),
            sum(each["load"] >= LOAD for each in newest),
        )

    @property
    def holds(self) -> bool:
        """Whether enough runs have passed since the last failure."""
        return self.streak >= RUNS and self.beside_load >= BESIDE_LOAD


def read(root: Path) -> list[Row]:
    """Read the rows, oldest first; empty without a file."""
    path = root / FILE
    return json.loads(path.read_text())["rows"] if path.exists() else []


def append(root: Path, new: Row) -> None:
    """Insert a row by date; the others stay unchanged."""
    rows = sorted([*read(root), new], key=lambda each: str(each["date"]))
    content = {"command": "make flakes", "bound": BOUND, "rows": rows}
    whole = root / FILE.with_suffix(".new")
    whole.write_text(json.dumps(content, indent=2) + "\n")
    whole.rename(root / FILE)


def run(root: Path, load: int, seed: int, command: Sequence[str] = MAKE_TEST) -> bool:
    """Run the checked out commit once, append its row, and return whether it passed."""
    commit, began = _git(root, "rev-parse", "HEAD").strip(), datetime.now(UTC)
    log = root / LOGS / f"{began:%Y%m%dT%H%M%SZ}-{seed}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"make test of {commit[:7]}, seed {seed}, beside a load of {load}; its output is in {log}", flush=True)
    start = time.monotonic()
    with _checkout(root, commit) as tree, _busy_processes(load), log.open("wb") as out:
        status = _run_whole(command, tree, out.fileno(), {**_environment(), "MODELWRIGHT_SEED": str(seed)})
    output = _read_output(log.read_text(errors="replace"), status, round(time.monotonic() - start), seed)
    new_row = row(
        output,
        commit=commit,
        date=_stamp(began),
        seed=seed,
        load=load,
        command=f"MODELWRIGHT_SEED={seed} make test",
    )
    append(root, new_row)
    print(f"{'passed' if output.passed else 'FAILED'} in {output.seconds} s; a row of {FILE} is written", flush=True)
    for each in output.failed:
        print(f"  {each}")
    return output.passed


def _read_output(text: str, status: int, seconds: int, seed: int) -> Output:
    """Parse the output; when it reports no failure, use the exit status."""
    try:
        output = Output.of(text)
    except ValueError:
        output = Output(False, seconds, seed, ())
    passed = output.passed and status == 0
    return replace(output, passed=passed, failed=output.failed or (() if passed else (f"make test: exit {status}",)))


def _environment() -> dict[str, str]:
    """Return the environment without the variables of an enclosing make, such as RUNS= and LOAD=."""
    return {
        key: value
        for key, value in os.environ.items()
        if key not in ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS")
    }


def _run_whole(command: Sequence[str], folder: Path, out: int, environment: dict[str, str]) -> int:
    """Run to the end. On a signal, end the run like Ctrl-C, wait for it, and raise KeyboardInterrupt."""
    stopped = []

    def stop(number: int, _: FrameType | None) -> None:
        stopped.append(number)
        os.killpg(process.pid, signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    process = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, start_new_session=True
    )
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped:
        raise KeyboardInterrupt
    return status


@contextlib.contextmanager
def _checkout(root: Path, commit: str) -> Iterator[Path]:
    """Check the commit out beside this tree, whose later edits it does not contain."""
    with tempfile.TemporaryDirectory(prefix="modelwright-flakes-") as folder:
        tree = Path(folder) / "tree"
        _git(root, "worktree", "add", "--quiet", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            _git(root, "worktree", "remove", "--force", str(tree))


_SPIN = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(10**6): pass
"""


@contextlib.contextmanager
def _busy_processes(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run `count` busy processes. They end with the block, or when this process is gone."""
    processes = [subprocess.Popen([sys.executable, "-c", _SPIN, str(os.getpid())]) for _ in range(count)]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, stdout=subprocess.PIPE, text=True, check=True).stdout


def _stamp(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="run `make test`, and append a row a run")
    runs.add_argument("--runs", type=int, default=1)
    runs.add_argument("--load", type=int, default=0, help="busy processes beside it")
    runs.add_argument("--seed", type=int, help="of the first run; drawn when left out")
    added = commands.add_parser("add", help="append a row from the output of a run made elsewhere")
    added.add_argument(
        "log", type=argparse.FileType(errors="replace"), help="the whole output of make test; - is stdin"
    )
    added.add_argument("--commit", default="HEAD", help="what was run")
    added.add_argument("--date", type=datetime.fromisoformat, help="when it began; now when left out")
    added.add_argument("--load", type=int, default=0, help="busy processes beside it")
    added.add_argument("--seed", type=int, help="as the output says when left out")
    added.add_argument("--ran", default="make test", help="the command")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    options = _options(arguments)
    if options.command == "add":
        try:
            output = Output.of(options.log.read())
        except ValueError as error:
            print(error, file=sys.stderr)
            return 1
        commit = _git(root, "rev-parse", "--verify", f"{options.commit}^{{commit}}").strip()
        date = _stamp(options.date or datetime.now(UTC))
        append(root, row(output, commit=commit, date=date, seed=options.seed, load=options.load, command=options.ran))
        return 0
    first = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    try:
        passed = [run(root, options.load, (first + number) % 2**32) for number in range(options.runs)]
    except KeyboardInterrupt:
        print("stopped: the run that was under way is not recorded", file=sys.stderr)
        return 130
    print(f"{passed.count(False)} of {len(passed)} runs failed; asked for: {BOUND}")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
