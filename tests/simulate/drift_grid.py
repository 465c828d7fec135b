"""False alarms and power of drift side by side, by rows, features, their correlation, and rows of a request:
`python -m tests.simulate.drift_grid` writes docs/figures/drift-grid.json and the second table of docs/how-to/drift.md.

Callers send requests of some rows that are nearly alike, of which the observer counts one, as by default. One feature
moves by MOVED standard deviations, the others stay; the same rows before that are the ones without drift.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from modelwright.core.drift import feature_drift as compared
from modelwright.core.drift.bins import MAX_BINS, MAX_ORDERED_BINS
from modelwright.core.drift.distances import ORDERED_METHODS
from modelwright.core.drift.feature_drift import DriftMethods
from tests.simulate import command, drift
from tests.simulate.command import Figure
from tests.simulate.drift import Random, Values

FIGURES = command.FOLDER / "drift-grid.json"
MOVED = 0.3
SIZES = (50, 200, 500, 2000, 10_000)
"""Rows that callers send."""
BATCHES = (1, 2, 5, 10)
"""Rows of a request."""
KINDS = ((1, 0.0), (10, 0.0), (10, 0.8), (100, 0.0), (100, 0.8))
"""Features, and the correlation of each with each."""
RUNS = {1: 1000, 10: 400, 100: 100}
"""By features: a hundred take as long as a hundred runs of one."""


@dataclass(frozen=True)
class Cell:
    """What callers send."""

    features: int
    correlation: float
    batch: int
    rows: int

    @property
    def name(self) -> str:
        """As the figures call it."""
        many = f"{self.features} feature{'s' if self.features > 1 else ''}"
        return f"{many}, correlation {self.correlation:g}, requests of {self.batch}, n {self.rows}"

    def looks(self, random: Random) -> tuple[bool, bool]:
        """Whether a look calls the rows drift, without any and with one feature that has moved."""
        before = drift.correlated(random, drift.REFERENCE, self.features, self.correlation)
        now = counted(random, self)
        made = [drift.numbers(values, most_bins()) for values in before]
        rows = {
            str(n): (found, drift.count(found, values)) for n, (found, values) in enumerate(zip(made, now, strict=True))
        }
        still = compared.compare_features(rows, DriftMethods()).excess > 1
        rows["0"] = (made[0], drift.count(made[0], now[0] + MOVED))
        return still, compared.compare_features(rows, DriftMethods()).excess > 1


def most_bins() -> int:
    """Most bins of a number by the default method."""
    return MAX_ORDERED_BINS if DriftMethods().numbers in ORDERED_METHODS else MAX_BINS


def counted(random: Random, cell: Cell) -> list[Values]:
    """The rows that count, by feature: one of each request, drawn at random from rows that differ by a tenth."""
    requests = -(-cell.rows // cell.batch)
    centers = drift.correlated(random, requests, cell.features, cell.correlation)
    if cell.batch == 1:
        return centers
    drawn = random.integers(cell.batch, size=requests), np.arange(requests)
    spread = 1.01**0.5
    return [(one + 0.1 * random.normal(size=(cell.batch, requests))[drawn]) / spread for one in centers]


def cells() -> list[Cell]:
    """All of them."""
    return [
        Cell(features, correlation, batch, rows)
        for features, correlation in KINDS
        for batch in BATCHES
        for rows in SIZES
    ]


def simulate(seed: int, part: int | None, *, quick: bool = False) -> Iterator[Figure]:
    """All figures; with `part` 0 to 9 those of a tenth of the cells."""
    rates, worst = [], 0.0
    for place, cell in command.chosen(enumerate(cells()), part):
        random, runs = np.random.default_rng((seed, place)), 10 if quick else RUNS[cell.features]
        looks = [cell.looks(random) for _ in range(runs)]
        alarms, found = (sum(each) for each in zip(*looks, strict=True))
        rates.append(alarms / runs)
        worst = max(worst, drift.lowest(alarms, runs))
        yield Figure(f"{cell.name}: false alarms", alarms / runs, "share")
        yield Figure(f"{cell.name}: found", found / runs, "share")
    yield Figure(f"grid, {len(rates)} cells: false alarms, mean", sum(rates) / len(rates), "share", at_most=drift.ALPHA)
    what = "false alarms, largest lower end of a 99.9 % interval"
    yield Figure(f"grid, {len(rates)} cells: {what}", worst, "share", at_most=drift.ALPHA)


def table() -> str:
    """What the page shows."""
    found = {figure["name"]: figure["value"] for figure in json.loads(FIGURES.read_text())["figures"]}
    rows = [
        "| features | rows of a request | " + " | ".join(f"{size:,} rows" for size in SIZES) + " |",
        "|---|---|" + "---|" * len(SIZES),
    ]
    for features, correlation in KINDS:
        for batch in BATCHES:
            names = [Cell(features, correlation, batch, size).name for size in SIZES]
            kind = f"{features}, correlation {correlation:g}" if features > 1 else f"{features}"
            shown = [f"{found[f'{name}: found']:.2f} ({found[f'{name}: false alarms']:.3f})" for name in names]
            rows.append(f"| {kind} | {batch} | " + " | ".join(shown) + " |")
    bounds = [figure for figure in json.loads(FIGURES.read_text())["figures"] if figure["bound"]]
    rows += ["", *(f"Of the {row['name']}: {row['value']:.3f} ({row['bound']} asked)." for row in bounds)]
    return "\n".join(rows)


BEGIN = "<!-- drift-grid: generated by `python -m tests.simulate.drift_grid --tables` -->"
END = "<!-- drift-grid: end -->"


def page(text: str) -> str:
    """The page with its table generated again."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"


def write() -> None:
    """Make the page's table again."""
    drift.PAGE.write_text(page(drift.PAGE.read_text()))


def main() -> None:
    """All cells, or a tenth of them."""
    command.run(
        __doc__ or "",
        "python -m tests.simulate.drift_grid",
        FIGURES,
        lambda given: simulate(given.seed, given.part, quick=given.quick),
        write,
        seed=29,
        parts=True,
    )


if __name__ == "__main__":
    main()
