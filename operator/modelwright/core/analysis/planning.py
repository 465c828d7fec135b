"""How the level is split, how many requests a decision takes, and at what rate they must come."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from modelwright.core.analysis.sequential import difference_interval, share_interval

MOST_SAMPLES = 1e9


def alpha_each(confidence: float, metrics: int, steps: int) -> float:
    """The level of one metric in one step: what may go wrong in the whole rollout, split evenly (Bonferroni).

    `metrics`: those that are judged as shares; `steps`: those at which they are judged.
    """
    if not 0 < confidence < 1 or metrics < 1 or steps < 1:
        raise ValueError(
            f"confidence {confidence}, {metrics} metrics, {steps} steps: confidence must be between 0 and 1, and both "
            "numbers at least 1"
        )
    return (1 - confidence) / (metrics * steps)


@functools.lru_cache(maxsize=4096)
def needed_samples(
    limit: float, base: float, alpha: float, *, ratio: float | None, worse: float = 0.0, power: float = 0.9
) -> int | None:
    """Requests of the candidate after which a decision has been made with probability `power`.

    `base` is the serving revision's share of bad requests, `worse` what the candidate's has on top. With a `ratio`
    (serving requests for each of the candidate) `limit` is a margin: the decision is Pass when worse < limit and Fail
    when worse > limit. Without one it is an absolute limit of base + worse. None when it would take more than 1e9.

    Approximation: the interval is asked at one outcome, the likeliest of those that are unlucky with probability
    1 - power (both shares moved against the decision, each by its part of the variance, and half a request more, since
    requests are whole). Looks before that number can only help.
    """
    share = min(1.0, base + worse)
    against = share - base if ratio is not None else share
    z = NormalDist().inv_cdf(power) * (1 if against < limit else -1)

    def decided(n: float) -> bool:
        one = share * (1 - share) / n
        zero = 0.0 if ratio is None else base * (1 - base) / (n * ratio)
        luck = z / math.sqrt(one + zero) if one + zero else 0.0
        bad = min(n, max(0.0, n * (share + luck * one) + math.copysign(0.5, luck) * bool(luck)))
        if ratio is None:
            interval = share_interval(n, bad, alpha)
        else:
            interval = difference_interval(n, bad, n * ratio, n * ratio * min(1.0, max(0.0, base - luck * zero)), alpha)
        return interval.high <= limit if against < limit else interval.low > limit

    if against == limit:
        return None
    found = smallest(decided, 1.0, MOST_SAMPLES)
    return None if found is None else math.ceil(found)


@dataclass(frozen=True, slots=True)
class Stage:
    """A step's parts of all requests that count for each revision (0 to 1), and its shortest time in seconds.

    Weight 10: 0.1 and 0.9. Mirroring 20 percent: 0.2 and 0.2.
    """

    candidate: float
    serving: float
    hold: float


@dataclass(frozen=True, slots=True)
class Ask:
    """A share to be decided: as in `needed_samples`, for a candidate as good as the serving revision."""

    limit: float
    base: float
    alpha: float
    min_samples: int = 300
    versus_serving: bool = True


def stage_seconds(stage: Stage, asks: Sequence[Ask], rate: float) -> float:
    """How long a step takes at `rate` requests per second for the Model; infinity when it can't be decided.

    What can't be had at all doesn't count here: a comparison where one revision gets nothing, anything where the
    candidate gets nothing.
    """
    seconds = stage.hold
    for ask in asks:
        if not stage.candidate or (ask.versus_serving and not stage.serving):
            continue
        ratio = stage.serving / stage.candidate if ask.versus_serving else None
        needed = needed_samples(ask.limit, ask.base, ask.alpha, ratio=ratio)
        if needed is None:
            return math.inf
        seconds = max(seconds, max(needed, ask.min_samples) / (rate * stage.candidate))
        if ask.versus_serving:
            seconds = max(seconds, ask.min_samples / (rate * stage.serving))
    return seconds


def needed_rate(stages: Sequence[Stage], asks: Sequence[Ask], deadline: float) -> float | None:
    """Requests per second for the Model with which a good candidate passes all stages by the deadline (seconds).

    None when no rate would do: the holds alone take that long, or a limit can't be decided.
    """
    return needed_rate_of([(stage, asks) for stage in stages], deadline)


def needed_rate_of(plan: Sequence[tuple[Stage, Sequence[Ask]]], deadline: float) -> float | None:
    """As `needed_rate`, for stages that each ask for shares of their own."""
    if sum(stage.hold for stage, _ in plan) >= deadline:
        return None
    at_one = [
        (stage.hold, stage_seconds(Stage(stage.candidate, stage.serving, 0.0), asks, 1.0)) for stage, asks in plan
    ]
    if any(math.isinf(seconds) for _, seconds in at_one):
        return None
    if not any(seconds for _, seconds in at_one):
        return 0.0
    return smallest(lambda rate: sum(max(hold, seconds / rate) for hold, seconds in at_one) <= deadline, 1e-6, 1e12)


def smallest(holds: Callable[[float], bool], low: float, high: float, *, within: float = 0.001) -> float | None:
    """The smallest number in [low, high] from which on a condition holds, or a little more; None: not even at `high`.

    `within`: how much more at most, as a share of it.
    """
    if holds(low):
        return low
    step = low
    while not holds(step):
        if step >= high:
            return None
        low, step = step, min(step * 4, high)
    high = step
    while high > low * (1 + within):
        middle = math.sqrt(low * high)
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
