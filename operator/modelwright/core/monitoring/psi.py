"""How far requests are from a reference sample: the population stability index, and how large it may be by chance.

PSI = sum over bins of (current - reference) * ln(current / reference), of the shares in each bin: the symmetrised
divergence of Jeffreys (1946, "An invariant form for the prior probability in estimation problems", Proc. R. Soc. Lond.
A 186). Without drift it is distributed as chi-square with B - 1 degrees of freedom, times (1/n_reference +
1/n_current) (Yurdakul and Naranjo, 2020, "Statistical properties of the population stability index", J. Risk Model
Validation 14(4)). The usual limit of 0.1 is therefore passed by chance alone in most small samples; `threshold` is the
larger of it and what chance does.

Numbers are put into bins of equal share of the reference, cut at values of it: a value that many rows have is a bin of
its own. Shares are smoothed by a row in each bin (Laplace's rule), so that an empty one is no infinity; of the current
rows by no more than what the reference lets expect there, and not at all where neither has any, so that smoothing alone
never looks like drift.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Value = float | str
"""A number, or the label of a category."""

FLOOR = 0.1
"""The least PSI that is called drift, however many rows there are."""
MOST_BINS = 10
MOST_LABELS = 20
"""Categories of their own, the most frequent ones; all others are one."""
MOST_SERIES = 16
LEAST_ROWS = 5
"""Rows of the reference that a category of its own needs (Cochran's rule for chi-square)."""
_ALPHA = 0.05
_ADDED = 1.0


@dataclass(frozen=True, slots=True)
class Bins:
    """Where values go, and how many rows of the reference went there. The last bin is for what fits nowhere: no
    number, or a label that isn't known."""

    counts: tuple[int, ...]
    cuts: tuple[float, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    """Bin by label; empty for numbers."""

    @property
    def rows(self) -> int:
        """Rows of the reference."""
        return sum(self.counts)

    def place(self, value: Value) -> int:
        """The bin of a value, 0 to len(counts) - 1."""
        last = len(self.counts) - 1
        if self.labels:
            return self.labels.get(value, last) if isinstance(value, str) else last
        if isinstance(value, str) or math.isnan(value):
            return last
        return bisect_left(self.cuts, value)

    def count(self, values: Sequence[Value]) -> list[int]:
        """How many of `values` are in each bin."""
        counts = [0] * len(self.counts)
        for value in values:
            counts[self.place(value)] += 1
        return counts


@dataclass(frozen=True, slots=True)
class Drift:
    """The PSI of one feature. `excess`: the PSI divided by its threshold, so 1.0 is the limit."""

    psi: float
    threshold: float

    @property
    def excess(self) -> float:
        """PSI / threshold."""
        return self.psi / self.threshold


def bins(sample: Sequence[Value]) -> Bins:
    """Bins by a reference sample of one feature, all numbers or all labels. Raises ValueError when it is empty."""
    if not sample:
        raise ValueError("a reference sample needs at least one row")
    if any(isinstance(value, str) for value in sample):
        common = Counter(str(value) for value in sample).most_common(MOST_LABELS)
        kept = sorted(label for label, count in common if count >= LEAST_ROWS)
        return _counted(sample, labels={label: place for place, label in enumerate(kept)})
    ordered = sorted(value for value in sample if isinstance(value, float | int) and not math.isnan(value))
    found = {ordered[len(ordered) * part // MOST_BINS] for part in range(1, MOST_BINS)} if ordered else set()
    if len(found) == 1 and ordered[0] == ordered[-1]:
        # The same value in every row: smaller, equal, larger.
        found.add(math.nextafter(ordered[0], -math.inf))
    return _counted(sample, cuts=tuple(sorted(found)))


def _counted(sample: Sequence[Value], cuts: tuple[float, ...] = (), labels: Mapping[str, int] | None = None) -> Bins:
    empty = Bins((0,) * ((len(labels) if labels else len(cuts) + 1) + 1), cuts, labels or {})
    return Bins(tuple(empty.count(sample)), empty.cuts, empty.labels)


def drift(reference: Bins, counts: Sequence[int], *, features: int = 1) -> Drift:
    """The PSI of `counts`, rows by bin of `reference`, at least one.

    `features`: how many are looked at together. The threshold is passed by chance with 5 % by any of them, not by each
    (Bonferroni).
    """
    total = sum(counts)
    if total < 1:
        raise ValueError("there are no rows to compare with the reference")
    pairs = [(was, now) for was, now in zip(reference.counts, counts, strict=True) if was or now]
    before = [was + _ADDED for was, _ in pairs]
    known = math.fsum(before)
    after = [now + min(_ADDED, total * was / known) for (_, now), was in zip(pairs, before, strict=True)]
    seen = math.fsum(after)
    psi = math.fsum(
        (now / seen - was / known) * math.log(now * known / (was * seen))
        for was, now in zip(before, after, strict=True)
    )
    chance = critical_value(max(len(pairs), 2), reference.rows, total, alpha=_ALPHA / features)
    return Drift(psi, max(FLOOR, chance))


def critical_value(size: int, reference: int, current: int, *, alpha: float = _ALPHA) -> float:
    """PSI of `size` bins, at least 2, that chance passes with probability `alpha` when nothing has drifted."""
    return chi_square(1 - alpha, size - 1) * (1 / reference + 1 / current)


def chi_square(probability: float, degrees: int) -> float:
    """The quantile of the chi-square distribution with `degrees` >= 1 at 0 < `probability` < 1, to 1e-9 of itself."""
    low, high = 0.0, float(degrees)
    while _tail(high, degrees) > 1 - probability:
        high *= 2
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _tail(middle, degrees) > 1 - probability else (low, middle)
    return high


def _tail(x: float, degrees: int) -> float:
    """P(X > x), by the recurrence of the incomplete gamma function (DLMF 8.8.6, 8.4.6)."""
    half = x / 2
    if half == 0:
        return 1.0
    order = 1.0 if degrees % 2 == 0 else 0.5
    found = math.exp(-half) if degrees % 2 == 0 else math.erfc(math.sqrt(half))
    while order < degrees / 2:
        found += math.exp(order * math.log(half) - half - math.lgamma(order + 1))
        order += 1
    return found


def series(figures: Mapping[int, float]) -> dict[str, float]:
    """At most 16 series from figures by feature, and their `max` and `mean`.

    More features are grouped with their neighbours, named by the first and the last; a group's figure is its largest.
    """
    places = sorted(figures)
    size = -(-len(places) // MOST_SERIES)
    found: dict[str, float] = {}
    for start in range(0, len(places), max(size, 1)):
        group = places[start : start + size]
        name = str(group[0]) if len(group) == 1 else f"{group[0]}-{group[-1]}"
        found[name] = max(figures[place] for place in group)
    if places:
        found["max"] = max(figures.values())
        found["mean"] = math.fsum(figures.values()) / len(figures)
    return found
