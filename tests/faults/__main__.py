"""`python -m tests.faults`: every story under every fault and the disasters, printed, and written to docs/figures."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from devcluster import ControlPlane
from devcluster.processes import interrupt_on_sigterm
from tests.controlplane.stories import STORIES
from tests.faults import disasters, matrix, report


def main() -> int:
    """Exit status 1 when something was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, help="instead of all: so many places of different stories")
    parser.add_argument("--stories", default=",".join(STORIES), help="comma-separated")
    parser.add_argument("--away", type=float, default=300, help="seconds without an API server")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--at-once", type=int, default=4, help="stories beside each other")
    parser.add_argument("--write", type=Path, help="file for the figures; a full run goes to docs/figures")
    parser.add_argument("--tables", action="store_true", help="only make the table in the docs from the figures")
    given = parser.parse_args()
    if given.tables:
        report.PAGE.write_text(report.page(report.PAGE.read_text()))
        return 0
    interrupt_on_sigterm()
    stories = given.stories.split(",")
    everywhere = matrix.everywhere(given.seed, stories)
    places = matrix.sample(given.seed, given.sample, stories) if given.sample else everywhere
    folder = Path(tempfile.mkdtemp(prefix="modelwright-faults-"))
    _say(f"{len(places)} stories under faults, seed {given.seed}; logs are in {folder}")
    with ControlPlane(kwok_nodes=2) as plane:
        outcomes = asyncio.run(matrix.play(plane, folder, places, given.at_once, _tell))
    with ControlPlane(kwok_nodes=2) as plane:
        lived_through = asyncio.run(disasters.play(plane, folder, given.away))
    for one in lived_through:
        _say(f"{one.name}: {one.seconds:.0f} s{_wrong(one.wrong)}")
    rows = report.figures(outcomes, lived_through)
    full = not given.sample and stories == list(STORIES)
    target = given.write or (report.FIGURES if full else None)
    if target:
        report.write(target, rows, f"python -m tests.faults {' '.join(sys.argv[1:])}".strip())
    return int(any(row["holds"] is False for row in rows))


def _tell(outcome: matrix.Outcome) -> None:
    _say(f"{outcome.place.namespace}: {outcome.told}{_wrong(outcome.wrong)}")


def _wrong(text: str) -> str:
    return f"\n  WRONG: {text}" if text else ""


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
