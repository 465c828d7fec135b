"""The evidence of `blocks` for many rollouts at once, by numpy: a test holds it against the operator's code.

For shares up to a half: near 1 it has fewer digits than that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from modelwright.core.analysis.blocks import BET_PRIOR, HARM_PRIOR_REQUESTS

Floats = np.ndarray[Any, np.dtype[np.float64]]
Bet = tuple[float, Floats, Floats]
Bets = Callable[[tuple[Floats, ...]], list[Bet]]
TINY = 1e-300


def within(n1: Floats, k1: Floats, n0: Floats, k0: Floats, limit: float) -> Floats:
    """Log evidence against "at least `limit`" after each block; arrays of (rollouts, blocks), counts of each block."""

    def bets(past: tuple[Floats, ...]) -> list[Bet]:
        pooled = share(past[0] + past[2], past[1] + past[3])
        own = share(past[0], past[1]), share(past[2], past[3])
        return [(0.75, pooled, pooled), (0.15, *late(past, pooled, pooled)), (0.1, *late(past, *own))]

    return product(n1, k1, n0, k0, limit, bets)


def beyond(n1: Floats, k1: Floats, n0: Floats, k0: Floats, limit: float) -> Floats:
    """Log evidence against "at most `limit`" after each block."""

    def bets(past: tuple[Floats, ...]) -> list[Bet]:
        serving = share(past[0], past[1])
        begin = np.minimum(0.95, serving + max(0.0, 2 * limit) + 0.02)
        harmed = (past[3] + HARM_PRIOR_REQUESTS * begin) / (past[2] + HARM_PRIOR_REQUESTS)
        gross = np.minimum(serving, 0.4), np.full_like(serving, 0.5)
        return [(1 / 3, serving, harmed), (1 / 3, *late(past, serving, harmed)), (1 / 3, *gross)]

    return product(n0, k0, n1, k1, -limit, bets)


def share(trials: Floats, events: Floats) -> Floats:
    """What is bet on, from earlier counts."""
    return (events + BET_PRIOR[0]) / (trials + sum(BET_PRIOR))


def late(past: tuple[Floats, ...], one: Floats, zero: Floats) -> tuple[Floats, Floats]:
    """The bet, but none before the first block."""
    first = past[0] + past[2] == 0
    return np.where(first, 1.0, one), np.where(first, 0.0, zero)


def product(
    n1: Floats, k1: Floats, n0: Floats, k0: Floats, limit: float, bets: Callable[[tuple[Floats, ...]], list[Bet]]
) -> Floats:
    """Log of the bets' products, averaged by stake, after each block."""
    earlier = [np.cumsum(x, axis=1) - x for x in (n1, k1, n0, k0)]
    logs: list[Floats] = []
    found = np.zeros(n1.shape)
    for j in range(n1.shape[1]):
        now = tuple(np.asarray(x[:, j], dtype=float) for x in (n1, k1, n0, k0))
        made = bets(tuple(x[:, j] for x in earlier))
        logs = logs or [np.full(len(n1), math.log(part)) for part, _, _ in made]
        for i, (_, one, zero) in enumerate(made):
            counted = (one - zero < limit) & (now[0] > 0) & (now[2] > 0)
            logs[i] = logs[i] + np.where(counted, factor(*now, one, zero, limit), 0.0)
        found[:, j] = np.logaddexp.reduce(logs)
    return found


def factor(n1: Floats, k1: Floats, n0: Floats, k0: Floats, one: Floats, zero: Floats, limit: float) -> Floats:
    """Log likelihood of a block at (`one`, `zero`) by that at the nearest point of the hypothesis."""
    r0 = nearest(n1, one, n0, zero, limit)
    return likelihood(n1, k1, n0, k0, one, zero) - likelihood(n1, k1, n0, k0, r0 + limit, r0)


def likelihood(n1: Floats, k1: Floats, n0: Floats, k0: Floats, p1: Floats, p0: Floats) -> Floats:
    """Logarithm, without the binomial coefficients."""
    return term(k1, p1) + term(n1 - k1, 1 - p1) + term(k0, p0) + term(n0 - k0, 1 - p0)


def term(count: Floats, p: Floats) -> Floats:
    return np.where(count > 0, count * np.log(np.maximum(p, TINY)), 0.0)


def nearest(n1: Floats, q1: Floats, n0: Floats, q0: Floats, limit: float) -> Floats:
    """The serving share of the nearest point with difference `limit`, by Newton's method on the slope."""
    low = np.maximum(max(0.0, -limit), np.minimum(q0, q1 - limit))
    high = np.minimum(min(1.0, 1.0 - limit), np.maximum(q0, q1 - limit))
    x = (low + high) / 2
    for _ in range(9):
        y = x + limit
        vx, vy = np.maximum(x * (1 - x), TINY), np.maximum(y * (1 - y), TINY)
        # Times the variance of the smaller share the slope is nearly a line.
        ratio = vx / vy if limit >= 0 else vy / vx
        near, far = ((n0, q0, x), (n1, q1, y)) if limit >= 0 else ((n1, q1, y), (n0, q0, x))
        value = near[0] * (near[1] - near[2]) + far[0] * (far[1] - far[2]) * ratio
        low, high = np.where(value > 0, x, low), np.where(value > 0, high, x)
        bend = ((far[1] - far[2]) * (1 - 2 * near[2] - ratio * (1 - 2 * far[2]))) / np.maximum(
            far[2] * (1 - far[2]), TINY
        )
        slope = -near[0] + far[0] * (bend - ratio)
        with np.errstate(all="ignore"):
            after = x - value / slope
        x = np.where((slope < 0) & (after >= low) & (after <= high), after, (low + high) / 2)
    return x
