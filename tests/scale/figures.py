"""What a measurement came to: the table for people, beside what is asked for and what is usual, and the file."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.scale.audit import Counts
from tests.scale.operator_process import ROOT

Bounds = Mapping[int, Mapping[str, float]]
"""Size -> figure -> the most that is asked for."""
Usual = Mapping[str, tuple[float, float]]
"""Figure -> the least and the most that is usual, at whatever size: only what doesn't grow with it."""


@dataclass
class Figures:
    """What one size came to, in the order of measuring."""

    models: int
    values: dict[str, float] = field(default_factory=dict)
    detail: dict[str, Counts] = field(default_factory=dict)


def show(results: list[Figures], bounds: Bounds, usual: Usual | None = None) -> None:
    """The table, then each phase's requests by verb and kind."""
    console = Console(width=140)
    table = Table(title="On simulated nodes")
    table.add_column("figure")
    for result in results:
        table.add_column(f"N={result.models}", justify="right")
    table.add_column("asked for", justify="right")
    table.add_column("usual", justify="right")
    for key in results[0].values:
        asked = [f"{limits[key]:g} at {size}" for size, limits in bounds.items() if key in limits]
        span = (usual or {}).get(key)
        cells = [_cell(result.values[key], span) if key in result.values else "" for result in results]
        table.add_row(key, *cells, ", ".join(asked), f"{span[0]:g} to {span[1]:g}" if span else "")
    console.print(table)
    for result in results:
        for phase, counts in result.detail.items():
            parts = [f"{v} {r}: {n / result.models:.2f}" for (v, r), n in counts.writes.most_common()]
            parts += [f"{v} {r} (read): {n / result.models:.2f}" for (v, r), n in counts.reads.most_common()]
            parts += [f"{v} {r} -> {c}: {n}" for (v, r, c), n in counts.refused.most_common()]
            console.print(f"N={result.models} {phase}: " + "; ".join(parts or ["nothing"]))


def _cell(value: float, span: tuple[float, float] | None) -> str:
    shown = f"{value:.2f}"
    return shown if span is None or span[0] <= value <= span[1] else f"[bold]{shown} ![/bold]"


def write(path: Path, results: list[Figures], command: str, bounds: Bounds) -> None:
    """The figures in the common format of docs/figures."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    rows = []
    for result in results:
        for key, value in result.values.items():
            bound = bounds.get(result.models, {}).get(key)
            unit = next((u for u in ("seconds", "CPU ms", "MiB", "%", "times") if u in key), "count")
            rows.append(
                {
                    "name": f"N={result.models} {key}",
                    "value": round(value, 3),
                    "unit": unit,
                    "bound": None if bound is None else f"at most {bound:g}",
                    "holds": None if bound is None else value <= bound,
                }
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "host": {"cores": os.cpu_count(), "memoryGiB": round(memory, 1), "machine": platform.machine()},
        "figures": rows,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
