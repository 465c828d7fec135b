"""Distances of one feature's rows from its reference, by five methods, with their distribution without drift.

Each method has a value that doesn't depend on the number of rows, the probability of a larger one without drift, and
the value that chance exceeds with a given probability. All work on counts by bin:

- `PSI`: population stability index, sum (q - p) ln(q / p). Without drift chi-square times (1/n + 1/m) (Yurdakul and
  Naranjo, 2020, "Statistical properties of the population stability index", J. Risk Model Validation 14(4)).
- `ChiSquare`: sqrt(sum (q - p)^2 / r) with r the share in both samples together: Pearson's chi-square of the table of
  both samples, times (1/n + 1/m), and its root. 0.1 is small, 0.3 medium (Cohen's w).
- `JensenShannon`: the Jensen-Shannon distance, natural logarithm, as scipy's. Without drift its square is chi-square
  times (1/n + 1/m) / 8 (Menendez et al., 1995), and in small samples larger by up to 1.8 divided by the expected rows
  of a bin (by simulation: 2 to 20 bins, 5 to 50 rows each).
- `KolmogorovSmirnov`: the largest difference of the distribution functions at the cuts of the bins. The limit is that
  of raw values, which binned ones keep, too.
- `Wasserstein`: the area between the distribution functions, in standard deviations of the reference, between the
  means of the bins. Without drift it is the integral of a Brownian bridge's absolute value; its quantiles are those of
  the gamma distribution with the integral's exact mean and variance, stretched by 6 %, the most that they fall short.

n and m are the rows of the reference and of the window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import accumulate, pairwise

from modelwright.core.drift import quantiles
from modelwright.core.drift.bins import Bins


class DistanceMethod(StrEnum):
    """A method of comparing a feature with its reference."""

    PSI = "PSI"
    CHI_SQUARE = "ChiSquare"
    JENSEN_SHANNON = "JensenShannon"
    KOLMOGOROV_SMIRNOV = "KolmogorovSmirnov"
    WASSERSTEIN = "Wasserstein"


ORDERED_METHODS = frozenset({DistanceMethod.KOLMOGOROV_SMIRNOV, DistanceMethod.WASSERSTEIN})
"""Methods for values with an order: numbers, not categories."""

DEFAULT_FLOORS = {
    DistanceMethod.PSI: 0.1,
    DistanceMethod.CHI_SQUARE: 0.1,
    DistanceMethod.JENSEN_SHANNON: 0.05,
    DistanceMethod.KOLMOGOROV_SMIRNOV: 0.05,
    DistanceMethod.WASSERSTEIN: 0.1,
}
"""The smallest value that counts as drift, at any number of rows, unless the user sets another."""

_ADDED_ROWS = 1.0
_LEAST_EXPECTED = {DistanceMethod.CHI_SQUARE: 1.0, DistanceMethod.JENSEN_SHANNON: 5.0}
_GAMMA_STRETCH = 1.06
_JENSEN_SHANNON_STRETCH = 1.8


@dataclass(frozen=True, slots=True)
class Distance:
    """A distance, `value`, by `method`, with the properties of the samples that its distribution depends on."""

    method: DistanceMethod
    value: float
    scale: float
    """(1/n + 1/m)"""
    degrees: int
    """Number of used bins less one; unused by the ordered methods."""
    spread: tuple[float, float] = (0.0, 0.0)
    """Mean and standard deviation of the Wasserstein distance without drift, for a scale of 1."""

    def chance_limit(self, tail: float) -> float:
        """Return the value that chance alone exceeds with probability `tail`."""
        match self.method:
            case DistanceMethod.PSI:
                return quantiles.chi_square_quantile(tail, self.degrees) * self.scale
            case DistanceMethod.CHI_SQUARE:
                return math.sqrt(quantiles.chi_square_quantile(tail, self.degrees) * self.scale)
            case DistanceMethod.JENSEN_SHANNON:
                return math.sqrt(quantiles.chi_square_quantile(tail, self.degrees) * self.scale / 8)
            case DistanceMethod.KOLMOGOROV_SMIRNOV:
                return quantiles.kolmogorov_quantile(tail) * math.sqrt(self.scale)
            case DistanceMethod.WASSERSTEIN:
                shape, unit = self._gamma_parameters()
                return quantiles.gamma_quantile(tail, shape) * unit if shape else math.inf

    def tail_probability(self) -> float:
        """Return the probability of a value as large as this one without drift."""
        match self.method:
            case DistanceMethod.PSI:
                return quantiles.chi_square_tail(self.value / self.scale, self.degrees)
            case DistanceMethod.CHI_SQUARE:
                return quantiles.chi_square_tail(self.value**2 / self.scale, self.degrees)
            case DistanceMethod.JENSEN_SHANNON:
                return quantiles.chi_square_tail(8 * self.value**2 / self.scale, self.degrees)
            case DistanceMethod.KOLMOGOROV_SMIRNOV:
                return quantiles.kolmogorov_tail(self.value / math.sqrt(self.scale))
            case DistanceMethod.WASSERSTEIN:
                shape, unit = self._gamma_parameters()
                return quantiles.gamma_tail(self.value / unit, shape) if shape else 1.0

    def _gamma_parameters(self) -> tuple[float, float]:
        """Return shape and unit of the Wasserstein distance's gamma distribution; (0, 0) where all rows are equal."""
        mean, deviation = self.spread
        if mean == 0:
            return 0.0, 0.0
        # Rounded, so that windows of one size share a quantile.
        unit = _GAMMA_STRETCH * deviation**2 / mean * math.sqrt(self.scale)
        return round((mean / deviation) ** 2, 3), unit


def measure_distance(method: DistanceMethod, reference: Bins, counts: Sequence[int]) -> Distance | None:
    """Measure the distance of `counts`, rows by bin of `reference`; None when either has nothing to compare.

    Missing values are left out: their share is compared separately. Raises ValueError for an ordered method and
    categories.
    """
    before, now = reference.known_counts, reference.compared_counts(counts)
    rows, window_rows = sum(before), sum(now)
    if not rows or not window_rows:
        return None
    if method in ORDERED_METHODS and reference.labels:
        raise ValueError(f"{method} compares numbers, and these are categories")
    scale = 1 / rows + 1 / window_rows
    if method is DistanceMethod.KOLMOGOROV_SMIRNOV:
        return Distance(method, max(map(abs, _cdf_differences(before, now, rows, window_rows)), default=0.0), scale, 0)
    if method is DistanceMethod.WASSERSTEIN:
        widths = _bin_widths(reference)
        area = math.fsum(
            abs(step) * width
            for step, width in zip(_cdf_differences(before, now, rows, window_rows), widths, strict=True)
        )
        return Distance(method, area, scale, 0, _bridge_moments(before, widths))
    pairs = [(was, is_) for was, is_ in zip(before, now, strict=True) if was or is_]
    if method is DistanceMethod.PSI:
        return Distance(method, _psi_value(pairs), scale, max(len(pairs) - 1, 1))
    merged = _merge_small_bins(pairs, _LEAST_EXPECTED[method] * (rows + window_rows) / min(rows, window_rows))
    degrees = max(len(merged) - 1, 1)
    if method is DistanceMethod.CHI_SQUARE:
        return Distance(method, math.sqrt(_chi_square(merged, rows, window_rows)), scale, degrees)
    scale *= _small_sample_factor(merged, rows, window_rows)
    return Distance(method, math.sqrt(_jensen_shannon(merged, rows, window_rows)), scale, degrees)


def _psi_value(pairs: Sequence[tuple[int, int]]) -> float:
    """Compute the PSI with a row added to each bin (Laplace's rule), so that an empty bin causes no infinity.

    The window's bins get no more than the reference predicts for them, so that smoothing alone never resembles drift.
    """
    before = [was + _ADDED_ROWS for was, _ in pairs]
    known, total = math.fsum(before), sum(now for _, now in pairs)
    after = [now + min(_ADDED_ROWS, total * was / known) for (_, now), was in zip(pairs, before, strict=True)]
    window_total = math.fsum(after)
    return math.fsum(
        (now / window_total - was / known) * math.log(now * known / (was * window_total))
        for was, now in zip(before, after, strict=True)
    )


def _merge_small_bins(pairs: Sequence[tuple[int, int]], least: float) -> list[tuple[int, int]]:
    """Merge the bins that have fewer than `least` rows in both samples together into one.

    Where few rows are expected, the sum is not distributed as chi-square (Cochran, 1954).
    """
    kept, small = [], [0, 0]
    for was, now in pairs:
        if was + now >= least:
            kept.append((was, now))
        else:
            small[0] += was
            small[1] += now
    if sum(small):
        kept.append((small[0], small[1]))
    return kept


def _chi_square(pairs: Sequence[tuple[int, int]], rows: int, window_rows: int) -> float:
    return math.fsum((now / window_rows - was / rows) ** 2 * (rows + window_rows) / (was + now) for was, now in pairs)


def _jensen_shannon(pairs: Sequence[tuple[int, int]], rows: int, window_rows: int) -> float:
    def half(share: float, middle: float) -> float:
        return share * math.log(share / middle) / 2 if share else 0.0

    total = 0.0
    for was, now in pairs:
        p, q = was / rows, now / window_rows
        total += half(p, (p + q) / 2) + half(q, (p + q) / 2)
    return max(total, 0.0)


def _small_sample_factor(pairs: Sequence[tuple[int, int]], rows: int, window_rows: int) -> float:
    share = min(rows, window_rows) / (rows + window_rows)
    return 1 + _JENSEN_SHANNON_STRETCH * math.fsum(1 / (share * (was + now)) for was, now in pairs) / len(pairs)


def _cdf_differences(before: Sequence[int], now: Sequence[int], rows: int, window_rows: int) -> list[float]:
    """Return the difference of the distribution functions at each cut."""
    pairs = zip(accumulate(before[:-1]), accumulate(now[:-1]), strict=True)
    return [after / window_rows - was / rows for was, after in pairs]


def _bin_widths(reference: Bins) -> tuple[float, ...]:
    return tuple(right - left for left, right in pairwise(reference.centers))


@lru_cache(maxsize=2048)
def _bridge_moments(before: tuple[int, ...], widths: tuple[float, ...]) -> tuple[float, float]:
    """Return mean and standard deviation of sum |B(F)| w over the cuts, B a Brownian bridge, F the reference's shares.

    Of two normal variables with correlation r and unit variance, E|XY| = 2/pi (sqrt(1 - r^2) + r asin r).
    """
    rows = sum(before)
    below = [count / rows for count in accumulate(before[:-1])]
    sizes = [math.sqrt(share * (1 - share)) * width for share, width in zip(below, widths, strict=True)]
    mean = math.sqrt(2 / math.pi) * math.fsum(sizes)
    square = 0.0
    for at, share in enumerate(below):
        for other in range(at, len(below)):
            if not sizes[at] or not sizes[other]:
                continue
            correlation = min(1.0, math.sqrt(share * (1 - below[other]) / ((1 - share) * below[other])))
            both = math.sqrt(1 - correlation**2) + correlation * math.asin(correlation)
            square += (1 if at == other else 2) * sizes[at] * sizes[other] * both * 2 / math.pi
    return mean, math.sqrt(max(square - mean**2, 0.0))
