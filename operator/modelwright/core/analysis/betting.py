"""Always-valid tests of the mean of bounded values, for any distribution of the values.

The values x lie between `low` and `high`: the share of an answer's rows that differ, or the difference of two requests
that are bad (1) or not (0). To test that the mean is at least m, bet against it: with a fixed s in [0, 1) the wealth

    W_s = product over the values of 1 + s (m - x) / (high - m)

starts at 1 and is never negative, since x <= high. If each value has a mean of at least m, given those before it, each
factor has a mean of at most 1, given those before it: W_s is a non-negative supermartingale, and so is every average of
W_s over s with weights that were fixed beforehand. By Ville's inequality (1939, "Etude critique de la notion de
collectif") it ever reaches 1/alpha with probability alpha at most. Nothing else is assumed: the values need not be
whole, identically distributed or, beyond their means, independent of the past. The test that the mean is at most m is
the mirror image, with 1 + s (x - m) / (m - low). Every test of a bounded mean by wealth consists of such bets:
Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting", J. R. Stat. Soc. B 86(1).

The weights over s are fixed, not learned from value to value, so the wealth depends on the frequency of each value and
not on the order. It can therefore be computed from counts: again at any time, after a restart, and from the sum of the
counts of several processes.

Counts of shares need points: a value between two points counts as a part at each of them, which preserves its mean
(`split_value`). The logarithm of a factor is concave in x, so the two parts add at most as much to log W_s as the value
would have added: the wealth by points is never above the wealth by values, and the test stays valid.

The wealth against "at least m" grows with m, since (m - x) / (high - m) does. The refuted limits are therefore all
those above some bound, and the bounds of both tests form an interval; each end is wrong with probability alpha at most.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

from modelwright.core.analysis.evidence import ValueSample
from modelwright.core.analysis.sequential import Interval

_BET_LOGITS = range(-8, 7)
_BISECTIONS = 30

Bets = tuple[tuple[float, float], ...]
"""Bets s with the logarithm of their weights, which sum to 1."""


def _build_bets(a: float, b: float) -> Bets:
    """Build bets with the weights of Beta(a, b) on evenly spaced logits of s."""
    bets = [1 / (1 + math.exp(-z)) for z in _BET_LOGITS]
    weights = [s**a * (1 - s) ** b for s in bets]
    return tuple((s, math.log(weight / sum(weights))) for s, weight in zip(bets, weights, strict=True))


BOLD_BETS, CAREFUL_BETS = _build_bets(2.0, 1.0), _build_bets(0.5, 1.0)
"""Bets that a claim is true, and that it is false. Any weights keep the level; they decide how many values are needed.
Most candidates are well within their limits, which large bets prove first. Harm often exceeds a limit only slightly,
which small bets prove."""


def split_value(value: float, points: Sequence[float]) -> tuple[tuple[int, float], ...]:
    """Split a value into parts at its neighbours among `points` (ascending, around it): (index, part).

    The parts sum to 1 and preserve the mean.
    """
    right = bisect_left(points, value)
    if points[right] == value:
        return ((right, 1.0),)
    part = (value - points[right - 1]) / (points[right] - points[right - 1])
    return (right - 1, 1 - part), (right, part)


def decide_mean(sample: ValueSample, limit: float, passes: float, fails: float, *, at_most: bool) -> bool | None:
    """Decide whether the mean is at most (else at least) `limit`. True: proven. False: disproven. None: undecided.

    `passes` and `fails` are error rates, each over all measurements together: of True when the mean is beyond the
    limit, and of False when it isn't.
    """
    if log_wealth(sample, limit, above=not at_most, bets=BOLD_BETS) >= -math.log(passes):
        return True
    return False if log_wealth(sample, limit, above=at_most, bets=CAREFUL_BETS) >= -math.log(fails) else None


def mean_interval(sample: ValueSample, passes: float, fails: float, *, at_most: bool) -> Interval:
    """Return the limits at which `decide_mean` is None."""
    passing, failing = (BOLD_BETS, -math.log(passes)), (CAREFUL_BETS, -math.log(fails))
    (above, low), (below, high) = (failing, passing) if at_most else (passing, failing)
    return Interval(
        _find_interval_end(sample, low, above=True, bets=above, edge=sample.low),
        _find_interval_end(sample, high, above=False, bets=below, edge=sample.high),
    )


def log_wealth(sample: ValueSample, limit: float, *, above: bool, bets: Bets) -> float:
    """Return the logarithm of the wealth of bets that the mean is above (else below) `limit`.

    It is infinite when one value is enough to refute a limit at the edge of the possible values.
    """
    room = limit - sample.low if above else sample.high - limit
    gains = [(value - limit if above else limit - value, weight) for value, weight in sample.weights if weight]
    if room <= 0:
        return math.inf if room < 0 or any(gain > 0 for gain, _ in gains) else 0.0
    logs = [
        log_weight + math.fsum(weight * math.log1p(bet * gain / room) for gain, weight in gains)
        for bet, log_weight in bets
    ]
    largest = max(logs)
    return largest + math.log(math.fsum(math.exp(log - largest) for log in logs))


def _find_interval_end(sample: ValueSample, bound: float, *, above: bool, bets: Bets, edge: float) -> float:
    """Return the refuted limit nearest to the mean, or the edge."""
    inner = sample.share
    if inner is None or log_wealth(sample, edge, above=above, bets=bets) < bound:
        return edge
    outer = edge
    for _ in range(_BISECTIONS):
        middle = (inner + outer) / 2
        if log_wealth(sample, middle, above=above, bets=bets) >= bound:
            outer = middle
        else:
            inner = middle
    return outer
