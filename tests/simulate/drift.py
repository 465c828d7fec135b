"""How often drift is found by chance, and how often a change is, by simulated rows through the code of the observer:
`python -m tests.simulate.drift` writes docs/figures/drift.json and the tables of docs/how-to/drift.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy import stats

from modelwright.core.drift import bins, feature_drift
from modelwright.core.drift.bins import MAX_BINS, MAX_ORDERED_BINS, Bins
from modelwright.core.drift.distances import ORDERED_METHODS, DistanceMethod
from modelwright.core.drift.feature_drift import Correction, DriftMethods
from tests.simulate import command
from tests.simulate.command import TENTH, Figure

PAGE = command.ROOT / "docs" / "how-to" / "drift.md"
FIGURES = command.FOLDER / "drift.json"
REFERENCE = 1000
ALPHA = feature_drift.ERROR_RATE
CONFIDENCE = 0.999

Random = np.random.Generator
Values = np.ndarray[Any, np.dtype[np.float64]]
Draw = Callable[[Random, int], Values]
"""(random, rows) -> values; labels are their numbers."""


def _labels(*shares: float) -> Draw:
    return lambda random, rows: random.choice(len(shares), size=rows, p=shares).astype(float)


def _ten_labels(first: float) -> Draw:
    return _labels(first, *[(1 - first) / 9] * 9)


def _missing(share: float) -> Draw:
    return lambda random, rows: np.where(random.random(rows) < share, np.nan, random.normal(size=rows))


NUMBERS: dict[str, Draw] = {
    "normal": lambda random, rows: random.normal(size=rows),
    "long tail": lambda random, rows: np.exp(2 * random.normal(size=rows)),
    "mostly 0": lambda random, rows: np.maximum(0, np.trunc(random.normal(-2, 6, rows))),
    "1 % missing": _missing(0.01),
}
LABELS: dict[str, Draw] = {
    "ten labels": _ten_labels(0.1),
    "rare label": _labels(0.98, 0.02),
    "long tail of labels": lambda random, rows: np.trunc(random.exponential(5, rows)),
    "labels without end": lambda random, rows: np.trunc(random.pareto(1.2, rows)),
}
SIZES = (50, 200, 500, 2000, 10_000)


def reference(values: Values, labels: bool, comparison: DriftMethods) -> Bins:
    """The bins of a sample."""
    if labels:
        return bins.build_bins([str(int(value)) for value in values.tolist()])
    return numbers(values, MAX_ORDERED_BINS if comparison.numbers in ORDERED_METHODS else MAX_BINS)


def numbers(values: Values, most: int) -> Bins:
    """As `bins.of`, in a tenth of its time, for finite numbers that are not all the same."""
    ordered = np.sort(values[~np.isnan(values)])
    cuts = np.unique(ordered[len(ordered) * np.arange(1, most) // most])
    ends = np.searchsorted(ordered, cuts, side="right")
    begins, ends = np.concatenate(([0], ends)), np.concatenate((ends, [len(ordered)]))
    if len(cuts) < 2 or (begins == ends).any():
        return bins.build_bins(values.tolist(), most=most)
    means = np.add.reduceat((ordered - ordered.mean()) / ordered.std(), begins) / (ends - begins)
    counts = (*(ends - begins).tolist(), 0, len(values) - len(ordered))
    return Bins(counts, tuple(cuts.tolist()), centers=tuple(means.tolist()))


def count(found: Bins, values: Values) -> list[int]:
    """Rows by bin, as `Bins.count` does it one by one."""
    if found.labels:
        numbers, times = np.unique(values, return_counts=True)
        counts = [0] * len(found.counts)
        for number, many in zip(numbers.tolist(), times.tolist(), strict=True):
            counts[found.bin_of(str(int(number)))] += many
        return counts
    missing = np.isnan(values)
    places = np.searchsorted(np.array(found.cuts), values[~missing], side="left")
    counts = np.bincount(places, minlength=len(found.counts)).tolist()
    counts[-1] += int(missing.sum())
    return counts


def alarm(before: list[Values], now: list[Values], labels: bool, comparison: DriftMethods) -> bool:
    """Whether a look at these features calls anything drift. Each has its reference sample."""
    made = [reference(values, labels, comparison) for values in before]
    rows = {str(n): (found, count(found, values)) for n, (found, values) in enumerate(zip(made, now, strict=True))}
    return feature_drift.compare_features(rows, comparison).excess > 1


def correlated(random: Random, rows: int, features: int, correlation: float) -> list[Values]:
    """Normal features with the same correlation of each with each."""
    common = random.normal(size=rows) * correlation**0.5
    return [common + (1 - correlation) ** 0.5 * random.normal(size=rows) for _ in range(features)]


def batches(random: Random, rows: int, size: int, kept: int) -> Values:
    """Normal numbers of requests with `size` rows that are nearly alike, of which `kept` count."""
    centers = random.normal(size=-(-rows // kept))
    found: Values = (np.repeat(centers, kept) + 0.1 * random.normal(size=len(centers) * kept)) / 1.01**0.5
    return found[:rows] if size > 1 else random.normal(size=rows)


Cell = tuple[str, Callable[[Random], bool]]


def false_alarms() -> Iterator[Cell]:
    """Cells without drift: (name, one look)."""
    for method in DistanceMethod:
        for kind, draws in (("numbers", NUMBERS), ("labels", LABELS)):
            if kind == "labels" and method in ORDERED_METHODS:
                continue
            comparison = DriftMethods(numbers=method) if kind == "numbers" else DriftMethods(categories=method)
            for name, draw in draws.items():
                for rows in SIZES:

                    def look(
                        random: Random,
                        draw: Draw = draw,
                        rows: int = rows,
                        labels: bool = kind == "labels",
                        comparison: DriftMethods = comparison,
                    ) -> bool:
                        return alarm([draw(random, REFERENCE)], [draw(random, rows)], labels, comparison)

                    yield f"no drift: {method}, {name}, n {rows}", look
    for correction in Correction:
        for features, correlation in ((10, 0.0), (10, 0.8), (100, 0.0), (100, 0.8)):
            for rows in (50, 500):

                def looks(
                    random: Random,
                    features: int = features,
                    correlation: float = correlation,
                    rows: int = rows,
                    correction: Correction = correction,
                ) -> bool:
                    before = correlated(random, REFERENCE, features, correlation)
                    now = correlated(random, rows, features, correlation)
                    return alarm(before, now, False, DriftMethods(correction=correction))

                yield f"no drift: {correction}, {features} features, correlation {correlation:g}, n {rows}", looks
    for size in (1, 2, 5, 10):

        def batch(random: Random, size: int = size) -> bool:
            now = batches(random, 500, size, 1)
            return alarm([random.normal(size=REFERENCE)], [now], False, DriftMethods())

        yield f"no drift: requests of {size} similar rows, one of each counted, n 500", batch


CHANGES: dict[str, tuple[Draw, Draw, bool]] = {
    "a label from 10 to 20 %": (_ten_labels(0.1), _ten_labels(0.2), True),
    "a label from 5 to 10 %": (_ten_labels(0.05), _ten_labels(0.1), True),
    "a label from 1 to 4 %": (_ten_labels(0.01), _ten_labels(0.04), True),
    "0.2 standard deviations": (NUMBERS["normal"], lambda random, rows: random.normal(0.2, 1, rows), False),
    "0.3 standard deviations": (NUMBERS["normal"], lambda random, rows: random.normal(0.3, 1, rows), False),
    "0.5 standard deviations": (NUMBERS["normal"], lambda random, rows: random.normal(0.5, 1, rows), False),
    "spread times 1.2": (NUMBERS["normal"], lambda random, rows: random.normal(0, 1.2, rows), False),
    "missing from 1 to 4 %": (_missing(0.01), _missing(0.04), False),
}
ASKED = {500: 0.9, 2000: 0.999, 10_000: 0.999}
"""Of a label from 10 to 20 %, by rows."""


def power() -> Iterator[tuple[str, int, Callable[[Random], bool]]]:
    """Cells with drift: (change, rows, one look)."""
    for name, (before, now, labels) in CHANGES.items():
        for rows in (200, 500, 2000, 10_000):

            def look(
                random: Random, before: Draw = before, now: Draw = now, labels: bool = labels, rows: int = rows
            ) -> bool:
                return alarm([before(random, REFERENCE)], [now(random, rows)], labels, DriftMethods())

            yield name, rows, look


def lowest(alarms: int, runs: int) -> float:
    """The lower end of the two-sided interval of Clopper and Pearson at 99.9 %."""
    return float(stats.beta.ppf((1 - CONFIDENCE) / 2, alarms, runs - alarms + 1)) if alarms else 0.0


def simulate(seed: int, runs: int, part: int | None) -> Iterator[Figure]:
    """All figures; with `part` 0 to 9 that tenth of the cells."""
    cells = list(false_alarms())
    rates, worst = [], 0.0
    for place, (name, look) in enumerate(cells):
        if part is not None and place % TENTH != part:
            continue
        random = np.random.default_rng((seed, place))
        alarms = sum(look(random) for _ in range(runs))
        rates.append(alarms / runs)
        worst = max(worst, lowest(alarms, runs))
        yield Figure(f"{name}: alarms", alarms / runs, "share")
    what = f"no drift, {len(rates)} cells"
    yield Figure(f"{what}: alarms, mean", sum(rates) / len(rates), "share", at_most=ALPHA)
    yield Figure(f"{what}: alarms, largest lower end of a 99.9 % interval", worst, "share", at_most=ALPHA)
    for place, (change, rows, look) in enumerate(power()):
        if part is not None and place % TENTH != part:
            continue
        random = np.random.default_rng((seed + 1, place))
        found = sum(look(random) for _ in range(runs // 2)) / (runs // 2)
        least = ASKED.get(rows) if change == "a label from 10 to 20 %" else None
        yield Figure(f"{change}, n {rows}: found", found, "share", at_least=least)


def tables() -> str:
    """What the page shows: changes by rows, and false alarms by method."""
    found = {figure["name"]: figure["value"] for figure in json.loads(FIGURES.read_text())["figures"]}
    sizes = (200, 500, 2000, 10_000)
    rows = ["| change, found with | " + " | ".join(f"{size:,} rows" for size in sizes) + " |", "|---|" + "---|" * 4]
    rows += [
        f"| {change} | " + " | ".join(f"{found[f'{change}, n {size}: found']:.2f}" for size in sizes) + " |"
        for change in CHANGES
    ]
    rows += [
        "",
        "| without drift, most alarms of any kind of data | " + " | ".join(f"{n:,} rows" for n in SIZES) + " |",
    ]
    rows.append("|---|" + "---|" * len(SIZES))
    for method in DistanceMethod:
        most = [
            max(v for name, v in found.items() if name.startswith(f"no drift: {method},") and f", n {n}:" in name)
            for n in SIZES
        ]
        rows.append(f"| `{method}` | " + " | ".join(f"{value:.3f}" for value in most) + " |")
    bounds = [row for row in json.loads(FIGURES.read_text())["figures"] if row["bound"] and "no drift" in row["name"]]
    rows.append("")
    rows += [f"Of {row['name']}: {row['value']:.3f} ({row['bound']} asked)." for row in bounds]
    return "\n".join(rows)


BEGIN, END = "<!-- drift: generated by `python -m tests.simulate.drift --tables` -->", "<!-- drift: end -->"


def page(text: str) -> str:
    """The page with its tables generated again."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{rest.partition(END)[2]}"


def write() -> None:
    """Make the page's tables again."""
    PAGE.write_text(page(PAGE.read_text()))


def main() -> None:
    """All cells, or a tenth of them."""
    command.run(
        __doc__ or "",
        "python -m tests.simulate.drift",
        FIGURES,
        lambda given: simulate(given.seed, 40 if given.quick else 2000, given.part),
        write,
        seed=23,
        parts=True,
    )


if __name__ == "__main__":
    main()
