"""Interval of the difference of two shares at one moment that was declared beforehand: the end of an A/B test.

The score test of Farrington and Manning (1990, "Test statistics and sample size formulae for comparative binomial
trials", Stat. Med. 9(12)): the variance is that of the nearest shares that the hypothesis allows. Its quantile is
corrected for skewness (Gart, Nam 1990, "Approximate interval estimation of the difference in binomial parameters",
Biometrics 46(3)), and the difference by half a request of the larger revision, since requests are whole. It isn't valid
for repeated measurements; at a single one it takes a quarter of the requests that always-valid evidence takes.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from modelwright.core.analysis.blocks import BlockPair, nearest_null_point
from modelwright.core.analysis.sequential import Interval

_PRECISION = 1e-7


def score_interval(counts: BlockPair, alpha: float) -> Interval:
    """Return the interval of candidate - serving, -1 to 1: each end is wrong with probability `alpha`.

    Raises ValueError when a revision has no requests.
    """
    if not counts.n1 or not counts.n0:
        raise ValueError("a score test needs requests of both revisions")
    turned = BlockPair(counts.n0, counts.k0, counts.n1, counts.k1)
    return Interval(-_upper_end(turned, alpha), _upper_end(counts, alpha))


def _upper_end(counts: BlockPair, alpha: float) -> float:
    low, high = counts.k1 / counts.n1 - counts.k0 / counts.n0, 1.0
    while high - low > _PRECISION:
        middle = (low + high) / 2
        if _is_refuted(counts, middle, alpha):
            high = middle
        else:
            low = middle
    return high


def _is_refuted(counts: BlockPair, limit: float, alpha: float) -> bool:
    """Return whether the difference is proven to be below `limit`, which is above the observed one."""
    p1, p0 = counts.k1 / counts.n1, counts.k0 / counts.n0
    (r1, g1), (r0, g0) = nearest_null_point(counts.n1, (p1, 1 - p1), counts.n0, (p0, 1 - p0), limit)
    variance = r1 * g1 / counts.n1 + r0 * g0 / counts.n0
    if variance <= 0:
        return False
    third: float = r1 * g1 * (g1 - r1) / counts.n1**2 - r0 * g0 * (g0 - r0) / counts.n0**2
    z = NormalDist().inv_cdf(1 - alpha)
    least = z - third / variance**1.5 * (z * z - 1) / 6
    apart: float = limit - (p1 - p0) - 0.5 / max(counts.n1, counts.n0)
    return bool(apart >= least * math.sqrt(variance))
