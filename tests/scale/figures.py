"""What a measurement came to: the table for people, beside what is asked for, and the file."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.scale.audit import Counts
from tests.scale.operator_process import ROOT

WIDTH = 160

Bounds = Mapping[int, Mapping[str, float]]
"""Size -> figure -> the most that is asked for."""


@dataclass
class Figures:
    """What one size came to, in the order of measuring."""

    models: int
    values: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Of those that are a median: the interval it lies in."""
    parts: dict[str, float] = field(default_factory=dict)
    """Writes and reads by verb and kind."""
    refused: dict[str, float] = field(default_factory=dict)

    def count(self, phase: str, counts: Counts, each: str = "", among: int = 1) -> None:
        """The requests of a phase: all of them, or for `each` of so many."""
        suffix = f" {each}" if each else ""
        self.values[f"{phase}: writes{suffix}"] = counts.total_writes / among
        self.values[f"{phase}: reads{suffix}"] = counts.total_reads / among
        self.values[f"{phase}: Events{suffix}"] = counts.events / among
        for what, counted in (("writes", counts.writes), ("reads", counts.reads)):
            for (verb, resource), number in counted.most_common():
                self.parts[f"{phase}: {what}{suffix}, {verb} {resource}"] = number / among
        for (verb, resource, code), number in counts.refused.most_common():
            self.refused[f"{phase}: {verb} {resource} -> {code}"] = number


def unit(name: str) -> str:
    """The unit of a figure, which its name says."""
    if " times " in name:
        return "times"
    return next((u for u in ("CPU seconds", "seconds", "CPU ms", "MiB", "%") if u in name), "count")


def show(results: Sequence[Figures], bounds: Bounds) -> None:
    """The table, then each phase's requests by verb and kind."""
    console = Console(width=WIDTH)
    table = Table(title="On simulated nodes")
    table.add_column("figure")
    for result in results:
        table.add_column(f"N={result.models}", justify="right")
    table.add_column("asked for", justify="right")
    for key in dict.fromkeys(key for result in results for key in result.values):
        asked = [f"{limits[key]:g} at {size}" for size, limits in bounds.items() if key in limits]
        table.add_row(key, *(cell(result, key, bounds) for result in results), ", ".join(asked))
    console.print(table)
    for result in results:
        show_requests(console, result)


def show_requests(console: Console, result: Figures) -> None:
    """One line for each phase: its requests by verb and kind, then those that were refused."""
    lines: dict[str, list[str]] = {}
    for name, value in result.parts.items():
        kind, _, what = name.rpartition(", ")
        lines.setdefault(kind, []).append(f"{what} {value:.2f}")
    for kind, parts in lines.items():
        console.print(f"N={result.models} {kind}: " + "; ".join(parts), soft_wrap=True)
    for name, number in result.refused.items():
        console.print(f"N={result.models} {name}: {number:g}", soft_wrap=True)


def cell(result: Figures, key: str, bounds: Bounds) -> str:
    """The value, with the interval it lies in; marked when it is above its bound. Empty when it wasn't measured."""
    value = result.values.get(key)
    if value is None:
        return ""
    bound = bounds.get(result.models, {}).get(key)
    shown = f"{value:.2f}"
    if key in result.intervals:
        low, high = result.intervals[key]
        shown += f" ({low:.2f} to {high:.2f})"
    return shown if bound is None or value <= bound else f"[bold]{shown} ![/bold]"


def write(path: Path, results: Sequence[Figures], command: str, bounds: Bounds) -> None:
    """The figures in the common format of docs/figures."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    content = {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "host": {"cores": os.cpu_count(), "memoryGiB": round(memory, 1), "machine": platform.machine()},
        "figures": [row for result in results for row in rows(result, bounds.get(result.models, {}))],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def rows(result: Figures, limits: Mapping[str, float]) -> list[dict[str, object]]:
    """One row for each figure; one that is a median has the interval it lies in."""
    found = []
    for key, value in {**result.values, **result.parts}.items():
        bound = limits.get(key)
        row: dict[str, object] = {
            "name": f"N={result.models} {key}",
            "value": round(value, 3),
            "unit": unit(key),
            "bound": None if bound is None else f"at most {bound:g}",
            "holds": None if bound is None else value <= bound,
        }
        if key in result.intervals:
            row["interval"] = [round(end, 3) for end in result.intervals[key]]
        found.append(row)
    return found
