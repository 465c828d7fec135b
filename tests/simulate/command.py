"""What the commands of the simulations share: options, output, and the files of docs/figures."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "figures"
TENTH = 10
Cell = TypeVar("Cell")


@dataclass(frozen=True)
class Figure:
    """One line of a file in docs/figures; `at_most` or `at_least` is what it is held against."""

    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    def row(self) -> dict[str, Any]:
        bound = None
        if self.at_most is not None:
            bound = f"at most {self.at_most:g}"
        elif self.at_least is not None:
            bound = f"at least {self.at_least:g}"
        return {
            "name": self.name,
            "value": float(f"{self.value:.4g}"),
            "unit": self.unit,
            "bound": bound,
            "holds": None if bound is None else self.holds,
        }

    @property
    def holds(self) -> bool:
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )


def document(figures: list[Figure], command: str) -> dict[str, Any]:
    """The figures in the common format of docs/figures."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "commit": commit.stdout.strip(),
        "host": {"cores": os.cpu_count(), "memoryGiB": round(memory, 1), "machine": platform.machine()},
        "figures": [figure.row() for figure in figures],
    }


def chosen(cells: Iterable[Cell], part: int | None) -> list[Cell]:
    """All cells; with `part` 0 to 9 that tenth of them."""
    found = list(cells)
    return found if part is None else found[part::TENTH]


def run(
    text: str,
    command: str,
    path: Path,
    simulate: Callable[[argparse.Namespace], Iterable[Figure]],
    tables: Callable[[], None],
    *,
    seed: int,
    parts: bool = False,
    arguments: Sequence[str] | None = None,
) -> None:
    """Simulate and print by the options of the command line; a whole run is written to `path` and into `tables`.

    `simulate` gets the options: seed, quick and, with `parts`, part. Exits with 1 when a bound doesn't hold, but for
    the few runs of --quick.
    """
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--quick", action="store_true", help="few runs, some seconds; nothing is written")
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--tables", action="store_true", help="only make the tables of the docs again")
    if parts:
        help_ = "only this tenth of the cells; nothing is written"
        parser.add_argument("--part", type=int, choices=range(TENTH), help=help_)
    given = parser.parse_args(arguments)
    if given.tables:
        tables()
        return
    begin, figures = time.monotonic(), []
    for figure in simulate(given):
        figures.append(figure)
        row = figure.row()
        held = {True: "ok", False: "NO", None: ""}[row["holds"]]
        sys.stdout.write(f"{row['value']:>8g} {row['unit']:<10} {held:<2} {row['bound'] or '':<14} {row['name']}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{time.monotonic() - begin:.0f} s\n")
    if given.quick:
        return
    if not parts or given.part is None:
        path.write_text(json.dumps(document(figures, command), indent=2) + "\n")
        tables()
    sys.exit(0 if all(figure.holds for figure in figures) else 1)
