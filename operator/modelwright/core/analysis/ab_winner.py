"""The winner of an A/B test: a metric of two revisions over the same time, compared once, at the declared end.

The tests use the difference at each moment, so that common influences, such as load, cancel out. One moment resembles
the next, so n moments are worth fewer. Two tests must agree, each of them a one-sided t-test of the mean difference:

- by the means of five equal parts of the time (batch means; Ibragimov, Mueller 2010, "t-Statistic based correlation and
  heterogeneity robust inference", J. Bus. Econ. Stat. 28(4)), which assumes nothing about the values within a part;
- by the number of independent moments that n moments are worth, n (1 - r) / (1 + r) for a correlation r of one moment
  with the next. The estimate of r is corrected for its bias (Kendall 1954, "Note on bias in the estimation of
  autocorrelation", Biometrika 41), and half of its standard error is added.

Neither is valid for repeated measurements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, variance

from modelwright.api.reasons import Reason
from modelwright.core.analysis.evidence import Outcome, Verdict
from modelwright.core.analysis.figure_evidence import student_cdf

NEEDED_POINTS = 30
"""Moments that detect a difference of one standard deviation with probability 0.9, if they are independent."""
BATCHES = 5


@dataclass(frozen=True, slots=True)
class _MeanEstimate:
    """An estimate of the mean difference with its standard error and degrees of freedom."""

    value: float
    error: float
    degrees: float

    def p_value(self) -> float:
        """Return the probability of a mean at least so large when the true one is 0."""
        if not self.error:
            return 0.0 if self.value > 0 else 1.0
        return 1 - student_cdf(self.value / self.error, self.degrees)

    def half_width(self, alpha: float) -> float:
        """Return the distance that the true mean exceeds with probability `alpha` on either side."""
        low, high = 0.0, 1e9
        while high - low > 1e-9 * high:
            middle = (low + high) / 2
            if 1 - student_cdf(middle, self.degrees) > alpha:
                low = middle
            else:
                high = middle
        return high * self.error


def decide_winner(
    metric: str,
    pairs: Sequence[tuple[float, float]],
    *,
    alpha: float,
    higher_is_better: bool,
    margin: float = 0.0,
) -> Verdict:
    """Decide whether the candidate wins: Pass when it is proven better by more than `margin`, in the metric's unit.

    `pairs` are the candidate's value and the serving revision's at the same moment, oldest first. Moments without two
    finite numbers are left out. With enough moments and no proof the candidate loses, which is Fail. With fewer than
    NEEDED_POINTS the verdict is Inconclusive.
    """
    usable_pairs = [pair for pair in pairs if all(math.isfinite(value) for value in pair)]
    count = len(usable_pairs)
    if count < NEEDED_POINTS:
        message = f"{count} time points that both revisions have a value at; {NEEDED_POINTS} are needed"
        reason = Reason.INSUFFICIENT_POINTS
        return Verdict(metric, Outcome.INCONCLUSIVE, reason, message, samples=count, serving_samples=count)
    sign = 1.0 if higher_is_better else -1.0
    better = [sign * (one - zero) - margin for one, zero in usable_pairs]
    means = (_estimate_by_batches(better), _estimate_by_effective_size(better))
    # Values that never change may be one sample that was returned repeatedly.
    p = max(mean.p_value() for mean in means) if len(set(usable_pairs)) > 1 else 1.0
    difference = fmean(one - zero for one, zero in usable_pairs)
    reach = max(mean.half_width(alpha) for mean in means)
    wins = p <= alpha
    message = (
        f"candidate {'higher' if difference >= 0 else 'lower'} by {abs(difference):.4g} ({difference - reach:.4g} to "
        f"{difference + reach:.4g}), p {p:.2g} at level {alpha:.2g}, {count} time points worth "
        f"{means[1].degrees + 1:.0f} independent ones"
    )
    return Verdict(
        metric,
        Outcome.PASS if wins else Outcome.FAIL,
        Reason.BETTER_THAN_SERVING if wins else Reason.NOT_PROVEN_BETTER,
        message,
        candidate=fmean(one for one, _ in usable_pairs),
        serving=fmean(zero for _, zero in usable_pairs),
        low=difference - reach,
        high=difference + reach,
        limit=sign * margin,
        samples=count,
        serving_samples=count,
    )


def _estimate_by_batches(values: Sequence[float]) -> _MeanEstimate:
    size = len(values) // BATCHES
    first = len(values) - size * BATCHES
    parts = [fmean(values[start : start + size]) for start in range(first, len(values), size)]
    return _MeanEstimate(fmean(values), math.sqrt(variance(parts) / BATCHES), BATCHES - 1)


def _estimate_by_effective_size(values: Sequence[float]) -> _MeanEstimate:
    n, mean = len(values), fmean(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    if not squares:
        return _MeanEstimate(mean, 0.0, n - 1)
    raw = math.fsum((one - mean) * (other - mean) for one, other in pairwise(values)) / squares
    unbiased = min(1.0, (n * raw + 1) / (n - 3))
    r = min(1 - 2 / n, max(0.0, unbiased + 0.5 * math.sqrt((1 - unbiased**2) / n)))
    worth = n * (1 - r) / (1 + r)
    # The subtracted mean is correlated with the values, which makes their variance too small.
    spread = squares / (n - 1) / max(0.1, 1 - 1 / worth)
    return _MeanEstimate(mean, math.sqrt(spread / worth), max(1.0, worth - 1))
