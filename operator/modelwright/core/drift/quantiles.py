"""Quantiles and tails of the distributions behind drift limits: chi-square, gamma, Kolmogorov, hypergeometric.

Each agrees with scipy.stats to a relative 1e-6 (`tests/unit/core/drift/test_quantiles.py`); scipy is no part of the
operator or its agents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache

_PRECISION = 1e-12
_MOST_TERMS = 10_000


@lru_cache(maxsize=4096)
def chi_square_quantile(tail: float, degrees: float) -> float:
    """Return the value that a chi-square variable of `degrees` > 0 exceeds with probability `tail`, 0 < tail < 1."""
    return 2 * gamma_quantile(tail, degrees / 2)


def chi_square_tail(value: float, degrees: float) -> float:
    """Return the probability that a chi-square variable of `degrees` > 0 exceeds `value`."""
    return gamma_tail(value / 2, degrees / 2)


@lru_cache(maxsize=4096)
def gamma_quantile(tail: float, shape: float) -> float:
    """Return the value that a gamma variable of `shape` > 0, scale 1, exceeds with probability `tail`, 0 < tail < 1."""
    return _solve_falling(lambda value: gamma_tail(value, shape), tail, max(shape, 1.0))


def gamma_tail(value: float, shape: float) -> float:
    """Return the probability that a gamma variable of `shape` > 0 and scale 1 exceeds `value`.

    The regularised incomplete gamma function Q: by its series below shape + 1, by its continued fraction above
    (DLMF 8.11.4 and 8.9.2, the latter by Lentz's method).
    """
    if value <= 0:
        return 1.0
    front = math.exp(shape * math.log(value) - value - math.lgamma(shape))
    if value < shape + 1:
        term = total = 1 / shape
        for step in range(1, _MOST_TERMS):
            term *= value / (shape + step)
            total += term
            if term < total * _PRECISION:
                break
        return max(0.0, 1 - front * total)
    below = value + 1 - shape
    ratio = 1 / below
    inverse, fraction = math.inf, ratio
    for step in range(1, _MOST_TERMS):
        factor = step * (shape - step)
        below += 2
        ratio = 1 / (factor * ratio + below)
        inverse = below + factor / inverse
        change = ratio * inverse
        fraction *= change
        if abs(change - 1) < _PRECISION:
            break
    return front * fraction


@lru_cache(maxsize=4096)
def kolmogorov_quantile(tail: float) -> float:
    """Return the value that the Kolmogorov distribution exceeds with probability `tail`, 0 < tail < 1."""
    return _solve_falling(kolmogorov_tail, tail, 1.0)


def kolmogorov_tail(value: float) -> float:
    """Return the probability that the Kolmogorov distribution exceeds `value` (DLMF 20.4.1 for small values)."""
    if value <= 0:
        return 1.0
    if value < 0.8:
        # The other form of the theta function: few terms where the first form needs many.
        terms = (math.exp(-(((2 * k - 1) * math.pi) ** 2) / (8 * value * value)) for k in range(1, 8))
        return max(0.0, 1 - math.sqrt(2 * math.pi) / value * math.fsum(terms))
    return 2 * math.fsum((-1) ** (k - 1) * math.exp(-2 * (k * value) ** 2) for k in range(1, 8))


def hypergeometric_tail(events: int, drawn: int, total: int, rows: int) -> float:
    """Return the probability of at least `events` among `drawn` of `rows` rows, of which `total` are events.

    Fisher's exact test of two shares is this with the events of both samples as `total`.
    """
    least = max(0, drawn + total - rows)
    if events <= least:
        return 1.0
    return min(1.0, math.fsum(chance for _, chance in _descending_probabilities(drawn, total, rows, events)))


def hypergeometric_quantile(tail: float, drawn: int, total: int, rows: int) -> int:
    """Return the smallest number of events whose `hypergeometric_tail` is at most `tail`.

    It is one more than the possible maximum when there is none.
    """
    quantile, reached = min(drawn, total) + 1, 0.0
    for events, chance in _descending_probabilities(drawn, total, rows, max(0, drawn + total - rows)):
        reached += chance
        if reached > tail:
            break
        quantile = events
    return quantile


def _descending_probabilities(drawn: int, total: int, rows: int, down_to: int) -> Iterator[tuple[int, float]]:
    """Yield numbers of events and their probabilities, from the possible maximum down."""
    events = min(drawn, total)
    if events < down_to:
        return
    log = _log_choose(total, events) + _log_choose(rows - total, drawn - events) - _log_choose(rows, drawn)
    while True:
        yield events, math.exp(log)
        if events == down_to:
            return
        ratio = events * (rows - total - drawn + events) / ((total - events + 1) * (drawn - events + 1))
        log += math.log(ratio)
        events -= 1


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _solve_falling(tail_of: Callable[[float], float], tail: float, start: float) -> float:
    """Solve for the point where the falling function `tail_of` reaches `tail`, to 1e-10 of the result."""
    low, high = 0.0, start
    while tail_of(high) > tail:
        low, high = high, 2 * high
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        if tail_of(middle) > tail:
            low = middle
        else:
            high = middle
    return (low + high) / 2
