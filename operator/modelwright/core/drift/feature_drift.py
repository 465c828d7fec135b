"""Drift of features: distances, and shares of missing and unknown values, with one error rate for all.

A figure's limit is the larger of two values: the smallest effect that the user calls drift, and the value that chance
alone exceeds at these numbers of rows. So more rows detect smaller effects, down to the user's. Of all figures of one
report, chance makes any exceed its limit with a probability of 5 % at most (Bonferroni), or at most 5 % of those beyond
their limits are due to chance (Benjamini and Hochberg, 1995).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import NormalDist

from modelwright.core.drift import distances, quantiles
from modelwright.core.drift.bins import Bins
from modelwright.core.drift.distances import DEFAULT_FLOORS, ORDERED_METHODS, DistanceMethod

ERROR_RATE = 0.05
SHARE_FLOOR = 0.01
"""The smallest difference of the share of missing or unknown values that counts as drift, unless the user sets one."""
_EXACT_EVENTS = 200
_NORMAL = NormalDist()


class Correction(StrEnum):
    """The error rate that the 5 % bound when many features are compared."""

    BONFERRONI = "Bonferroni"
    BENJAMINI_HOCHBERG = "BenjaminiHochberg"


class Aspect(StrEnum):
    """The compared property of a feature."""

    DISTANCE = "distance"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class DriftMethods:
    """Method and floor by kind of feature, and the correction for many features."""

    numbers: DistanceMethod = DistanceMethod.KOLMOGOROV_SMIRNOV
    categories: DistanceMethod = DistanceMethod.CHI_SQUARE
    numbers_floor: float | None = None
    categories_floor: float | None = None
    share_floor: float = SHARE_FLOOR
    correction: Correction = Correction.BONFERRONI

    def __post_init__(self) -> None:
        if self.categories in ORDERED_METHODS:
            raise ValueError(f"{self.categories} compares numbers, not categories")

    def method_for(self, reference: Bins) -> DistanceMethod:
        """Return the method for a feature."""
        return self.categories if reference.labels else self.numbers

    def floor_for(self, reference: Bins) -> float:
        """Return the smallest distance of a feature that counts as drift."""
        chosen = self.categories_floor if reference.labels else self.numbers_floor
        return DEFAULT_FLOORS[self.method_for(reference)] if chosen is None else chosen


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """One comparison of one feature.

    `value` is the distance, or the difference of the shares (positive: more now). `floor` is the smallest value that
    counts as drift, at any number of rows. `method` is set for a distance.
    """

    feature: str
    aspect: Aspect
    value: float
    limit: float
    floor: float
    method: DistanceMethod | None = None

    @property
    def excess(self) -> float:
        """The value in units of its limit: above 1 it is drift. Fewer unknown values than expected are no drift."""
        if self.aspect is Aspect.UNKNOWN and self.value < 0:
            return 0.0
        return abs(self.value) / self.limit if self.limit else math.inf if self.value else 0.0


@dataclass(frozen=True, slots=True)
class ShareComparison:
    """Missing or unknown values: `before` of `rows` in the reference, `now` of `seen` in the window."""

    before: int
    rows: int
    now: int
    seen: int
    only_more: bool
    """Whether a decrease is no drift."""

    @property
    def value(self) -> float:
        """The difference of the shares."""
        return self.now / self.seen - self.before / self.rows

    def tail_probability(self) -> float:
        """Return the probability of a difference as large without drift.

        By Fisher's exact test, or with many events by the score test with Yates' correction.
        """
        total, rows = self.before + self.now, self.rows + self.seen
        if total <= _EXACT_EVENTS or rows - total <= _EXACT_EVENTS:
            more = quantiles.hypergeometric_tail(self.now, self.seen, total, rows)
            if self.only_more:
                return more
            fewer = quantiles.hypergeometric_tail(self.before, self.rows, total, rows)
            return min(1.0, 2 * min(more, fewer))
        error = self._standard_error()
        distance = max(0.0, abs(self.value) - self._continuity_correction())
        one_sided = 1 - _NORMAL.cdf(math.copysign(distance, self.value) / error)
        return one_sided if self.only_more else 2 * min(one_sided, 1 - one_sided)

    def chance_limit(self, tail: float) -> float:
        """Return the difference that chance exceeds with probability `tail`, given the total of both samples."""
        total, rows = self.before + self.now, self.rows + self.seen
        side = tail if self.only_more else tail / 2
        if total <= _EXACT_EVENTS or rows - total <= _EXACT_EVENTS:
            return self._exact_limit(side, total, rows)
        return -_NORMAL.inv_cdf(side) * self._standard_error() + self._continuity_correction()

    def _exact_limit(self, side: float, total: int, rows: int) -> float:
        """Return the smallest difference of this sign whose tail is at most `side`; beyond the possible if none is."""
        drawn = self.seen if self.value >= 0 else self.rows
        # Half an event below the first that is rejected, so that this one is beyond the limit.
        events = quantiles.hypergeometric_quantile(side, drawn, total, rows) - 0.5
        return abs(events / drawn - (total - events) / (rows - drawn))

    def _standard_error(self) -> float:
        pooled = (self.before + self.now) / (self.rows + self.seen)
        return math.sqrt(pooled * (1 - pooled) * (1 / self.rows + 1 / self.seen))

    def _continuity_correction(self) -> float:
        return (1 / self.rows + 1 / self.seen) / 2


@dataclass(frozen=True, slots=True)
class DriftReport:
    """All figures of one comparison, the largest excess first. `unwatched` are features of free text."""

    figures: tuple[FeatureDrift, ...]
    unwatched: tuple[str, ...] = ()

    @property
    def excess(self) -> float:
        """The largest excess."""
        return self.figures[0].excess if self.figures else 0.0

    def list_worst(self, count: int) -> tuple[FeatureDrift, ...]:
        """List the figures furthest beyond their limits, each feature once."""
        worst: dict[str, FeatureDrift] = {}
        for figure in self.figures:
            worst.setdefault(figure.feature, figure)
        return tuple(worst.values())[:count]


@dataclass(slots=True)
class _DriftTest:
    feature: str
    aspect: Aspect
    measured: distances.Distance | ShareComparison
    floor: float
    tail: float = field(init=False)

    def __post_init__(self) -> None:
        self.tail = self.measured.tail_probability()


def compare_features(features: Mapping[str, tuple[Bins, Sequence[int]]], comparison: DriftMethods) -> DriftReport:
    """Compare features, by name: the bins of the reference, and rows of the window by bin."""
    unwatched = tuple(name for name, (bins, _) in features.items() if not bins.is_watchable)
    tests = [test for name, (bins, counts) in features.items() for test in _build_tests(name, bins, counts, comparison)]
    if not tests:
        return DriftReport((), unwatched)
    tail = _corrected_level(tests, comparison.correction)
    figures = [
        FeatureDrift(
            test.feature,
            test.aspect,
            test.measured.value,
            max(test.floor, test.measured.chance_limit(tail)),
            test.floor,
            test.measured.method if isinstance(test.measured, distances.Distance) else None,
        )
        for test in tests
    ]
    return DriftReport(tuple(sorted(figures, key=lambda figure: -figure.excess)), unwatched)


def _build_tests(name: str, bins: Bins, counts: Sequence[int], comparison: DriftMethods) -> Iterable[_DriftTest]:
    if bins.is_watchable:
        distance = distances.measure_distance(comparison.method_for(bins), bins, counts)
        if distance is not None:
            yield _DriftTest(name, Aspect.DISTANCE, distance, comparison.floor_for(bins))
    rows, window_rows = bins.row_count, sum(counts)
    missing = ShareComparison(bins.counts[-1], rows, counts[-1], window_rows, only_more=False)
    unknown = ShareComparison(*bins.expected_unknown, counts[-2], window_rows, only_more=True)
    for aspect, share in ((Aspect.MISSING, missing), (Aspect.UNKNOWN, unknown)):
        # Without an event in either sample there is nothing to reject, so it takes no part of the error (Tarone, 1990).
        if window_rows and share.before + share.now and (aspect is Aspect.MISSING or bins.is_watchable):
            yield _DriftTest(name, aspect, share, comparison.share_floor)


def _corrected_level(tests: Sequence[_DriftTest], correction: Correction) -> float:
    """Return the level at which each figure is compared with chance."""
    if correction is Correction.BONFERRONI:
        return ERROR_RATE / len(tests)
    rejected = 0
    for rank, tail in enumerate(sorted(test.tail for test in tests), 1):
        if tail <= ERROR_RATE * rank / len(tests):
            rejected = rank
    return ERROR_RATE * max(rejected, 1) / len(tests)
