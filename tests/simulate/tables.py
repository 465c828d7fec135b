"""The tables of docs/concepts/evidence.md: computed by the planner, or taken from docs/figures/simulate.json,
mirror.json and bursts.json."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

from modelwright.core.analysis.planning import (
    SampleSizeQuery,
    StepTraffic,
    estimate_pairs,
    estimate_rate,
    estimate_samples,
    split_levels,
)

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "concepts" / "evidence.md"
FIGURES = ROOT / "docs" / "figures" / "simulate.json"
MIRROR = ROOT / "docs" / "figures" / "mirror.json"
BURSTS = ROOT / "docs" / "figures" / "bursts.json"
LEVELS = split_levels(0.95, metrics=2, steps=2)
CANARY = (StepTraffic(0.1, 0.9, 120.0), StepTraffic(0.5, 0.5, 120.0))

NEEDED = (
    (0.0, 0.0, 0.02),
    (0.001, 0.001, 0.02),
    (0.01, 0.01, 0.02),
    (0.02, 0.02, 0.02),
    (0.01, 0.01, 0.05),
    (0.05, 0.05, 0.05),
    (0.10, 0.10, 0.05),
    (0.01, 0.03, 0.005),
    (0.01, 0.05, 0.02),
    (0.01, 0.10, 0.02),
    (0.01, 0.50, 0.02),
    (0.05, 0.15, 0.05),
    (0.05, 0.30, 0.05),
    (0.05, 1.00, 0.05),
)
"""Serving share, candidate's share, margin."""


PAIRS = (
    (0.0, 0.02, 0.0),
    (0.001, 0.02, 0.0),
    (0.01, 0.02, 0.0),
    (0.01, 0.005, 0.0),
    (0.05, 0.05, 0.0),
    (0.10, 0.05, 0.0),
    (0.01, 0.02, 0.04),
    (0.01, 0.02, 0.09),
    (0.05, 0.05, 0.10),
)
"""Serving share, margin, what the candidate has on top."""


def needed() -> str:
    """Requests of the candidate by serving and candidate's share and margin."""
    rows = ["| serving | candidate | margin | outcome | at weight 10 | at weight 50 |", "|---|---|---|---|---|---|"]
    for serving, candidate, margin in NEEDED:
        worse = candidate - serving
        alpha = LEVELS.passes if worse < margin else LEVELS.fails
        counts = [estimate_samples(margin, serving, alpha, ratio=ratio, worse=worse) for ratio in (9.0, 1.0)]
        told = " | ".join("never" if count is None else f"{count:,}" for count in counts)
        what = "as good" if worse == 0 else _percent(candidate)
        outcome = "Pass" if worse < margin else "Fail"
        rows.append(f"| {_percent(serving)} | {what} | {margin:g} | {outcome} | {told} |")
    return "\n".join(rows)


def paired() -> str:
    """Requests of a mirror step, by pairs and by independent arms."""
    rows = [
        "| serving | candidate | margin | outcome | pairs, half common | pairs, 90 % common | without pairs |",
        "|---|---|---|---|---|---|---|",
    ]
    for serving, margin, worse in PAIRS:
        alpha = LEVELS.passes if worse < margin else LEVELS.fails
        counts = [estimate_pairs(margin, serving, alpha, worse=worse, common=common) for common in (0.5, 0.9)]
        counts.append(estimate_samples(margin, serving, alpha, ratio=1.0, worse=worse))
        told = " | ".join("never" if count is None else f"{count:,}" for count in counts)
        what = "as good" if worse == 0 else _percent(serving + worse)
        outcome = "Pass" if worse < margin else "Fail"
        rows.append(f"| {_percent(serving)} | {what} | {margin:g} | {outcome} | {told} |")
    return "\n".join(rows)


def rates() -> str:
    """Requests per second that the default policy needs, by deadline."""
    deadlines = (15, 30, 60)
    rows = [
        "| share of bad requests | " + " | ".join(f"in {minutes} min" for minutes in deadlines) + " |",
        "|---|---|---|---|",
    ]
    for errors, slow in ((0.01, 0.05), (0.001, 0.01)):
        asks = (SampleSizeQuery(0.02, errors, LEVELS.passes), SampleSizeQuery(0.05, slow, LEVELS.passes))
        found = [estimate_rate(CANARY, asks, 60.0 * minutes) for minutes in deadlines]
        told = " | ".join("never" if rate is None else f"{math.ceil(rate)} per second" for rate in found)
        rows.append(f"| {_percent(errors)} errors, {_percent(slow)} slow | {told} |")
    return "\n".join(rows)


def measured(section: str) -> str:
    """The figures of the simulation whose names begin as the section's do."""
    file = {"mirror": MIRROR, "unblocked": BURSTS}.get(section, FIGURES)
    figures = json.loads(file.read_text())["figures"]
    starts = {
        "levels": ("A/A, ", "harm"),
        "bursts": ("bursts",),
        "winners": ("A/B",),
        "policies": ("default policy",),
        "mirror": ("",),
        "unblocked": ("bursts of 5", "no bursts, 1 % bad", "no bursts, 5 % bad"),
    }[section]
    rows = ["| what | simulated | asked for |", "|---|---|---|"]
    for figure in figures:
        if figure["name"].startswith(starts):
            unit = "" if figure["unit"] == "share" else f" {figure['unit']}"
            name = re.sub(r"^default policy, (20 requests/s, )?", "", figure["name"])
            rows.append(f"| {name} | {figure['value']:g}{unit} | {figure['bound'] or ''} |")
    return "\n".join(rows)


def page(text: str) -> str:
    """The page with its tables made anew."""
    sections = ("levels", "bursts", "unblocked", "winners", "policies", "mirror")
    made = {"needed": needed(), "rates": rates(), "pairs": paired(), **{name: measured(name) for name in sections}}
    for name, table in made.items():
        begin, end = f"<!-- {name}: made by python -m tests.simulate --tables -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n{table}\n{end}{after}"
    return text


def write() -> None:
    """Make the tables of the page anew."""
    PAGE.write_text(page(PAGE.read_text()))


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
