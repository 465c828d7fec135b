"""Runs peers' own programs on our objects and keeps docs/figures/peers.json, one row per peer: `run [NAME ...]`, or
`stale`, which lists outdated rows: those whose dependencies have changed."""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from devcluster import parts
from devcluster.errors import ClusterError
from devcluster.progress import LiveProgress
from tests.e2e.peers import Peer, chosen

ROOT = Path(__file__).resolve().parent.parent
FILE = Path("docs/figures/peers.json")
Row = dict[str, Any]


def digest(files: Mapping[str, bytes]) -> str:
    """Return a hash of files by path, independent of order; any change, rename, addition or removal changes it."""
    whole = hashlib.sha256()
    for path, content in sorted(files.items()):
        whole.update(f"{hashlib.sha256(content).hexdigest()} {path}\n".encode())
    return whole.hexdigest()[:16]


def combined(hashes: Mapping[str, str]) -> str:
    """Return one hash of all dependencies of a peer."""
    return digest({dependency: each.encode() for dependency, each in hashes.items()})


def differing(row: Row, now: Mapping[str, str]) -> list[str]:
    """List the dependencies whose content differs from the row, and those added or removed since."""
    then = row["files"]
    return sorted(dependency for dependency in then.keys() | now.keys() if then.get(dependency) != now.get(dependency))


def stale_peers(rows: Iterable[Row], now: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return a line for each peer of `now` to be run again, with the reason."""
    row_by_peer = {row["peer"]: row for row in rows}
    lines = []
    for peer, hashes in now.items():
        row = row_by_peer.get(peer)
        if row is None:
            why = "never run"
        elif changed := differing(row, hashes):
            why = f"{', '.join(changed)} changed"
        elif row["outcome"] != "passed":
            why = f"{row['outcome']} on {row['date'][:10]}"
        else:
            continue
        lines.append(f"peers to run again: {peer} ({why}): make test-peers PEER={peer}")
    return lines


def replaced(rows: Iterable[Row], new: Row) -> list[Row]:
    """Return the rows with this one for its peer, sorted by peer."""
    return sorted([*(row for row in rows if row["peer"] != new["peer"]), new], key=lambda row: str(row["peer"]))


@dataclass(frozen=True)
class Outcome:
    """The result of a run of a peer's tests."""

    passed: int
    failed: tuple[str, ...]

    @classmethod
    def of_junit(cls, text: str) -> Outcome:
        """Parse pytest's JUnit report."""
        passed, failed = 0, []
        for case in ElementTree.fromstring(text).iter("testcase"):  # noqa: S314, pytest has just written it
            if case.find("failure") is not None or case.find("error") is not None:
                failed.append(str(case.get("name")))
            elif case.find("skipped") is None:
                passed += 1
        return cls(passed, tuple(failed))


def hashes(root: Path, peer: Peer) -> dict[str, str]:
    """Hash each dependency of the peer; a missing one has an empty hash."""
    hash_by_dependency = {}
    for dependency in peer.depends_on():
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", dependency]
        listed = subprocess.run(listing, cwd=root, capture_output=True, text=True, check=True).stdout
        files = [name for name in listed.split("\0") if name and (root / name).is_file()]
        hash_by_dependency[dependency] = digest({name: (root / name).read_bytes() for name in files}) if files else ""
    return hash_by_dependency


def read(root: Path) -> list[Row]:
    """Read the rows; empty without a file."""
    path = root / FILE
    return json.loads(path.read_text())["rows"] if path.exists() else []


def write(root: Path, rows: list[Row]) -> None:
    (root / FILE).write_text(json.dumps({"command": "make test-peers", "rows": rows}, indent=2) + "\n")


def run(root: Path, peers: Sequence[Peer], python: str = sys.executable) -> bool:
    """Run each peer in turn, and write its row as soon as it has ended. Return False unless all passed."""
    good = True
    for peer in peers:
        # Not measured: the first build of some takes longer than all their tests.
        try:
            _build(peer)
        except ClusterError as error:
            print(f"{peer.name} was not run, its row stays as it is: {error}", file=sys.stderr)
            good = False
            continue
        before, began = hashes(root, peer), time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            command = [python, "-m", "pytest", "-p", "no:cacheprovider", "-v", "-m", "peer", f"--junitxml={report}"]
            status = subprocess.run([*command, *peer.tests], cwd=root, check=False).returncode
            outcome = Outcome.of_junit(report.read_text()) if report.exists() else Outcome(0, ())
        good &= _record_run(root, peer, before, time.monotonic() - began, status, outcome)
    return good


def _record_run(root: Path, peer: Peer, before: dict[str, str], seconds: float, status: int, outcome: Outcome) -> bool:
    """Write the row of a run. A run that neither passed nor failed (skipped, interrupted) leaves it unchanged."""
    passed = status == 0 and outcome.passed > 0 and not outcome.failed
    if not passed and not outcome.failed:
        print(f"{peer.name} was not run (pytest ended with {status}, no test passed or failed): its row stays as it is")
        return False
    commit = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    row = {
        "peer": peer.name,
        "version": version(peer),
        "commit": subprocess.run(commit, cwd=root, capture_output=True, text=True, check=True).stdout.strip(),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seconds": round(seconds),
        "outcome": "passed" if passed else "failed",
        "failed": list(outcome.failed),
        "hash": combined(before),
        "files": before,
    }
    write(root, replaced(read(root), row))
    print(f"{peer.name} {row['version']}: {row['outcome']} in {row['seconds']} s, written to {FILE}")
    return passed


def version(peer: Peer) -> str:
    """Return the version of the program itself, from its go.mod."""
    tools = {part.name: part for part in parts.GO_TOOLS}
    return tools[peer.parts[0]].version() if peer.parts else ""


def _build(peer: Peer) -> None:
    with LiveProgress(f"programs of {peer.name}") as progress:
        parts.build([name for part in parts.GO_TOOLS if part.name in peer.parts for name in part.packages], progress)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("run", "stale"))
    parser.add_argument("peers", nargs="*", help="names; all when there is none")
    options = parser.parse_args(arguments)
    try:
        peers = chosen(options.peers)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if options.command == "run":
        return 0 if run(ROOT, peers) else 1
    for line in stale_peers(read(ROOT), {peer.name: hashes(ROOT, peer) for peer in peers}):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
