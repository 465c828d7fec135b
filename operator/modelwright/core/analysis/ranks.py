"""Two groups of time points compared once, at the declared end of an A/B test.

The rank test of Mann and Whitney (1947, "On a test of whether one of two random variables is stochastically larger than
the other", Ann. Math. Stat. 18(1)) by its normal approximation, corrected for ties and continuity, and the shift
estimate of Hodges and Lehmann (1963, "Estimates of location based on rank tests", Ann. Math. Stat. 34(2)). It isn't
valid at repeated looks. A unit is a time point, such as one look's value: single requests of the same seconds are no
independent units.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, median

from modelwright.api.reasons import Reason
from modelwright.core.analysis.evidence import Outcome, Verdict

NEEDED_POINTS = 30
"""Time points in each group with which a shift of one standard deviation is found with probability 0.9."""
MOST_POINTS = 400
"""Points kept of each group: more are thinned evenly, since all pairs are looked at."""


@dataclass(frozen=True, slots=True)
class RankTest:
    """`u`: pairs in which the candidate is larger (ties count half). `larger`: p-value of "the candidate isn't larger",
    so that a small one says that it is. `shift`: by how much, in the unit of the points, from `low` to `high` with the
    asked confidence on each side.
    """

    u: float
    larger: float
    shift: float
    low: float
    high: float


def mann_whitney(candidate: Sequence[float], serving: Sequence[float], alpha: float) -> RankTest:
    """Compare two groups of at least one point each; `alpha` is the chance of error on each side of the interval.

    Raises ValueError for an empty group.
    """
    if not candidate or not serving:
        raise ValueError("a rank test needs points in both groups")
    n1, n0 = len(candidate), len(serving)
    ordered = sorted(serving)
    u = sum((bisect.bisect_left(ordered, x) + bisect.bisect_right(ordered, x)) / 2 for x in candidate)
    spread = _standard_deviation(candidate, serving)
    larger = 1.0 if spread == 0 else 1 - NormalDist().cdf((u - n1 * n0 / 2 - 0.5) / spread)
    pairs = sorted(x - y for x in candidate for y in serving)
    out = math.floor(n1 * n0 / 2 - 0.5 - NormalDist().inv_cdf(1 - alpha) * spread)
    low, high = (pairs[out], pairs[-1 - out]) if out >= 0 else (-math.inf, math.inf)
    return RankTest(u, larger, median(pairs), low, high)


def decide_winner(
    metric: str,
    candidate: Sequence[float],
    serving: Sequence[float],
    *,
    alpha: float,
    higher_is_better: bool,
    margin: float = 0.0,
) -> Verdict:
    """Whether the candidate wins: Pass when it is proven better by more than `margin`, in the unit of the metric.

    Points are the metric's values over time, oldest first; what is not a finite number is left out. With enough points
    and no proof the candidate loses, which is Fail. With fewer than NEEDED_POINTS of each: Inconclusive.
    """
    ones, zeros = _points(candidate), _points(serving)
    samples, serving_samples = len(ones), len(zeros)
    if min(samples, serving_samples) < NEEDED_POINTS:
        message = (
            f"{samples} time points of the candidate and {serving_samples} of the serving revision; "
            f"{NEEDED_POINTS} of each are needed"
        )
        return Verdict(
            metric,
            Outcome.INCONCLUSIVE,
            Reason.INSUFFICIENT_POINTS,
            message,
            samples=samples,
            serving_samples=serving_samples,
        )
    sign = 1.0 if higher_is_better else -1.0
    better = mann_whitney([sign * x - margin for x in _thinned(ones)], [sign * y for y in _thinned(zeros)], alpha)
    wins = better.larger <= alpha
    ends = sorted((sign * (better.low + margin), sign * (better.high + margin)))
    shift = sign * (better.shift + margin)
    message = (
        f"candidate {'higher' if shift >= 0 else 'lower'} by {abs(shift):.4g} ({ends[0]:.4g} to {ends[1]:.4g}), "
        f"p {better.larger:.2g} at level {alpha:.2g}, {samples} and {serving_samples} time points"
    )
    return Verdict(
        metric,
        Outcome.PASS if wins else Outcome.FAIL,
        Reason.BETTER_THAN_SERVING if wins else Reason.NOT_PROVEN_BETTER,
        message,
        candidate=median(ones),
        serving=median(zeros),
        low=ends[0],
        high=ends[1],
        limit=sign * margin,
        samples=samples,
        serving_samples=serving_samples,
    )


def _points(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _thinned(points: Sequence[float]) -> Sequence[float]:
    return points[:: -(-len(points) // MOST_POINTS)]


def _standard_deviation(one: Sequence[float], zero: Sequence[float]) -> float:
    n1, n0 = len(one), len(zero)
    n = n1 + n0
    sizes = (len(tuple(group)) for _, group in itertools.groupby(sorted((*one, *zero))))
    ties = sum(size**3 - size for size in sizes)
    variance = n1 * n0 / 12 * (n + 1 - ties / (n * (n - 1)))
    return math.sqrt(max(0.0, variance))
