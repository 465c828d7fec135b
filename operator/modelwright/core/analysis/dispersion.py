"""Dispersion of bad requests: how much more blocks differ than independent requests would, which shows bursts.

In each block the candidate's bad requests are compared with those that it would have if the block's bad requests were
spread over both revisions by chance, so that common influences cancel out. The variance by chance is that of the
hypergeometric distribution; the dispersion is the mean of the squares, in units of that (Pearson's statistic by its
degrees of freedom; McCullagh, Nelder 1989, "Generalized Linear Models", section 4.5). Bursts of b requests with one
fate have a dispersion of b.
"""

from __future__ import annotations

from collections.abc import Iterable

from modelwright.core.analysis.blocks import EMPTY_PAIR, BlockPair

MAX_DISPERSION = 1.5
"""The largest dispersion at which a metric can pass."""
PRIOR_BLOCKS = 30.0
"""Blocks without any burst with which the estimate starts: few blocks prove no burst."""
MIN_VARIANCE = 0.5
"""Blocks are merged up to this variance: below it the squares of independent requests vary too much."""


def estimate_dispersion(pairs: Iterable[BlockPair]) -> float:
    """Estimate dispersion: 1 for independent requests, about b for bursts of b, 1 with fewer than two usable blocks."""
    deviations = list(_excess_and_variance(pairs))
    if len(deviations) < 2:
        return 1.0
    apart = sum(excess for excess, _ in deviations) / sum(variance for _, variance in deviations)
    squares = sum((excess - apart * variance) ** 2 / variance for excess, variance in deviations)
    return (squares + PRIOR_BLOCKS) / (len(deviations) - 1 + PRIOR_BLOCKS)


def _excess_and_variance(pairs: Iterable[BlockPair]) -> Iterable[tuple[float, float]]:
    """Yield, for merged blocks, the candidate's bad requests beyond its expected part, and their variance by chance."""
    block = EMPTY_PAIR
    for pair in pairs:
        block += pair
        trials, events = block.n1 + block.n0, block.k1 + block.k0
        if trials <= 1:
            continue
        variance = events * (trials - events) * block.n1 * block.n0 / (trials**2 * (trials - 1))
        if variance >= MIN_VARIANCE:
            yield block.k1 - events * block.n1 / trials, variance
            block = EMPTY_PAIR
