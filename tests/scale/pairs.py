"""Modelwright beside the bare operator: measured in turn, so that the ratio says the same on any host at any hour."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.scale.answers import Report
from tests.scale.bench import EDITED, at_work
from tests.scale.figures import WIDTH, Bounds, Figures, cell, show_requests
from tests.scale.run import RESTARTED, WRITES
from tests.scale.subjects import PROFILES, SPIKE, Subject

SUBJECTS = (SPIKE, *PROFILES.values())
EDITED_FROM = 1000
"""The size from which on edits at a pace are measured too: what is asked of them is asked at 1,000 Models."""
COMPARED = (
    *(
        f"{phase}: {what}"
        for phase in ("create", "change")
        for what in (
            "seconds",
            "CPU ms a Model",
            "CPU ms of the API server a Model",
            "writes a Model",
            "peak memory MiB",
        )
    ),
    EDITED,
    RESTARTED,
    "restart: CPU seconds",
    "restart: peak memory MiB",
)

Round = Mapping[str, Figures]
"""Subject -> its figures, of one turn of each."""


def beside(profile: str, key: str) -> str:
    """The name of a figure of a profile, as a ratio to the bare operator's."""
    return f"{profile}, {key}, times the spike's"


def _bounds() -> Bounds:
    at_500: dict[str, float] = {}
    for profile, (create, change) in WRITES.items():
        asked = {
            "create: writes a Model": create,
            "change: writes a Model": change,
            "create: CPU ms a Model": 14.0,
            "change: CPU ms a Model": 20.0,
            "create: peak memory MiB": 110.0,
            "change: peak memory MiB": 110.0,
            "restart: peak memory MiB": 110.0,
            "restart: writes": 0.0,
            "restart: Events": 0.0,
        }
        at_500 |= {f"{profile}, {key}": most for key, most in asked.items()}
        at_500[beside(profile, RESTARTED)] = 1.7
    return {500: at_500}


BOUNDS = _bounds()
"""What issue 12 asks for. The pace beside the spike's is printed, and not bounded."""


async def measure(count: int, turn: int, folder: Path, report: Report) -> Round:
    """One turn of each subject, each on a fresh control plane. Each goes first as often as any other."""
    first = turn % len(SUBJECTS)
    found = {}
    for subject in (*SUBJECTS[first:], *SUBJECTS[:first]):
        found[subject.name] = await _one(subject, count, folder, report)
    return found


async def _one(subject: Subject, count: int, folder: Path, report: Report) -> Figures:
    figures = Figures(count)
    async with at_work(subject, figures, folder, report) as bench:
        await bench.create()
        await bench.change()
        if count >= EDITED_FROM:
            await bench.edit()
        await bench.restart()
    return figures


def summarize(count: int, rounds: Sequence[Round]) -> Figures:
    """Medians of all figures, then of the ratios; each ratio is of one turn."""
    summary = Figures(count)
    for subject in SUBJECTS:
        turns = [each[subject.name] for each in rounds]
        for key in turns[0].values:
            _add(summary, f"{subject.name}, {key}", [turn.values[key] for turn in turns])
        for key in dict.fromkeys(key for turn in turns for key in turn.parts):
            summary.parts[f"{subject.name}, {key}"] = statistics.median(turn.parts.get(key, 0.0) for turn in turns)
        for turn in turns:
            for key, number in turn.refused.items():
                name = f"{subject.name}, {key}"
                summary.refused[name] = summary.refused.get(name, 0.0) + number
    for profile in PROFILES:
        for key in COMPARED:
            found = [(each[profile].values.get(key), each[SPIKE.name].values.get(key)) for each in rounds]
            ratios = [ours / floor for ours, floor in found if ours is not None and floor]
            if ratios:
                _add(summary, beside(profile, key), ratios)
    return summary


def show(summary: Figures, turns: int) -> None:
    """A column for each subject, and one for each ratio; then the requests by verb and kind."""
    console = Console(width=WIDTH)
    table = Table(title=f"{summary.models} objects on simulated nodes: medians of {turns}")
    table.add_column("figure")
    for header in (
        *(subject.name for subject in SUBJECTS),
        *(f"{profile}, times" for profile in PROFILES),
        "asked for",
    ):
        table.add_column(header, justify="right")
    found = (key.partition(", ")[2] for key in summary.values if not key.endswith("times the spike's"))
    limits = BOUNDS.get(summary.models, {})
    for key in dict.fromkeys(found):
        own = [f"{subject.name}, {key}" for subject in SUBJECTS]
        ratios = [beside(profile, key) for profile in PROFILES]
        asked = [f"{limits[name]:g}" for name in own if name in limits]
        asked += [f"{limits[name]:g} times" for name in ratios if name in limits]
        table.add_row(key, *(cell(summary, name, BOUNDS) for name in (*own, *ratios)), ", ".join(dict.fromkeys(asked)))
    console.print(table)
    show_requests(console, summary)


def _add(summary: Figures, name: str, values: Sequence[float]) -> None:
    summary.values[name] = statistics.median(values)
    if len(values) > 1:
        summary.intervals[name] = interval(values)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Where the median lies with a confidence of at least 95 %, by order statistics, whatever the distribution. Of less
    than six values, which can't say that much, their whole range."""
    ordered, count = sorted(values), len(values)
    outside, left_out = 0.0, -1
    while outside <= 0.05:
        left_out += 1
        # The median is none of the inner ones when that few values, or fewer, lie on one side of it.
        outside += 2 * math.comb(count, left_out) / 2**count
    least = max(0, left_out - 1)
    return ordered[least], ordered[count - 1 - least]
