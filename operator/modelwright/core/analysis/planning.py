"""Planning of rollouts: the split of the level, the requests that a decision takes, and the rate they must have."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from modelwright.core.analysis import betting
from modelwright.core.analysis.blocks import BlockPair, evidence_beyond, evidence_within
from modelwright.core.analysis.evidence import ValueSample
from modelwright.core.analysis.sequential import share_interval

MAX_SAMPLES = 1e9
COMMON_BAD_SHARE = 0.5
"""Assumed part of a mirror step's bad requests that are bad at both revisions, since the request is the cause."""
_BLOCKS = 24
_LUCK_OF_PASS, _LUCK_OF_FAIL, _LEARNING_COST = 0.95, 1.15, 0.5
"""Fitted to simulation: how unlucky the outcome is, in units of `power`, and the bets' loss while they learn."""


@dataclass(frozen=True, slots=True)
class Levels:
    """The probabilities that one metric wrongly passes, and wrongly fails, in one step, over all measurements."""

    passes: float
    fails: float


def split_levels(confidence: float, metrics: int, steps: int) -> Levels:
    """Split the level over `metrics` (those that are judged as shares) and `steps` (those that judge them).

    Any one Fail rolls a rollout back, so all of them share 1 - `confidence` evenly (Bonferroni). A candidate that is
    worse than a limit allows is promoted only when it passes that metric too, so each Pass may have all of it
    (intersection-union test; Berger 1982, "Multiparameter hypothesis testing and acceptance sampling", Technometrics
    24(4)). Raises ValueError for a confidence outside of 0 to 1, and for numbers below 1.
    """
    if not 0 < confidence < 1 or metrics < 1 or steps < 1:
        raise ValueError(
            f"confidence {confidence}, {metrics} metrics, {steps} steps: confidence must be between 0 and 1, and both "
            "numbers at least 1"
        )
    return Levels(1 - confidence, (1 - confidence) / (metrics * steps))


@functools.lru_cache(maxsize=4096)
def estimate_samples(
    limit: float, base: float, alpha: float, *, ratio: float | None, worse: float = 0.0, power: float = 0.9
) -> int | None:
    """Estimate the candidate's requests after which a decision is made with probability `power`.

    `base` is the serving revision's share of bad requests, `worse` the candidate's excess, `alpha` the level of the
    decision. With a `ratio` (serving requests for each of the candidate) `limit` is a margin: the decision is Pass when
    worse < limit and Fail when worse > limit. Without one it is an absolute limit of base + worse. None when it would
    take more than 1e9.

    Approximation: the evidence is computed for one outcome, the likeliest of those that are unlucky with probability
    1 - power (both shares moved against the decision, each by its part of the variance, and half a request more, since
    requests are whole), in equal blocks. The real bets also learn from chance, which costs a Fail more; and earlier
    measurements help, most of all a Pass. The estimate is 0.98 to 1.4 times the simulated number (`tests.simulate`),
    and more where a dozen requests suffice.
    """
    share = min(1.0, base + worse)
    against = share - base if ratio is not None else share
    passes = against < limit
    z = NormalDist().inv_cdf(power) * (1 if passes else -1)
    if ratio is not None:
        z *= _LUCK_OF_PASS if passes else _LUCK_OF_FAIL
    wanted = -math.log(alpha) + (0.0 if passes else _LEARNING_COST)

    def decided(n: float) -> bool:
        one = share * (1 - share) / n
        zero = 0.0 if ratio is None else base * (1 - base) / (n * ratio)
        luck = z / math.sqrt(one + zero) if one + zero else 0.0
        bad = min(n, max(0.0, n * (share + luck * one) + math.copysign(0.5, luck) * bool(luck)))
        if ratio is None:
            interval = share_interval(n, bad, alpha)
            return interval.high <= limit if passes else interval.low > limit
        serving = n * ratio * min(1.0, max(0.0, base - luck * zero))
        block = BlockPair(n / _BLOCKS, bad / _BLOCKS, n * ratio / _BLOCKS, serving / _BLOCKS)
        evidence = (evidence_within if passes else evidence_beyond)([block] * _BLOCKS, limit)
        return evidence.last >= wanted

    if against == limit:
        return None
    count = find_smallest(decided, 1.0, MAX_SAMPLES)
    return None if count is None else math.ceil(count)


def estimate_answers(limit: float, base: float, alpha: float, *, power: float = 0.9) -> int | None:
    """Estimate the answers after which it is decided whether at most `limit` of their rows differ, when `base` do.

    Parameters as in `estimate_samples`. Answers are assumed to differ as a whole, which takes the most of them.
    """
    return _estimate_values(0.0, ((0.0, 1 - base), (1.0, base)), limit, alpha, power)


def estimate_pairs(
    limit: float, base: float, alpha: float, *, worse: float = 0.0, common: float = COMMON_BAD_SHARE, power: float = 0.9
) -> int | None:
    """Estimate as `estimate_samples` with a margin, where both revisions receive the same requests.

    `common` is the part of the serving revision's bad requests that are bad at the candidate too.
    """
    own = base * (1 - common)
    values = ((-1.0, own), (0.0, 1 - 2 * own - worse), (1.0, own + worse))
    return _estimate_values(-1.0, values, limit, alpha, power)


@functools.lru_cache(maxsize=4096)
def _estimate_values(
    low: float, values: tuple[tuple[float, float], ...], limit: float, alpha: float, power: float
) -> int | None:
    """Estimate how many values from `low` to 1 decide whether their mean is at most `limit`.

    `values` are pairs of (value, probability).
    """
    mean = math.fsum(value * part for value, part in values)
    variance = math.fsum((value - mean) ** 2 * part for value, part in values)
    if math.isclose(mean, limit, abs_tol=1e-12):
        return None
    luck = NormalDist().inv_cdf(power) * math.sqrt(variance)

    def proven(n: float) -> bool:
        sample = _unlucky_sample(low, values, n, luck * math.sqrt(n) + 0.5 * bool(variance), more=mean < limit)
        return betting.decide_mean(sample, limit, alpha, alpha, at_most=True) is (mean < limit)

    count = find_smallest(proven, 1.0, MAX_SAMPLES)
    return None if count is None else math.ceil(count)


def _unlucky_sample(
    low: float, values: tuple[tuple[float, float], ...], n: float, off: float, *, more: bool
) -> ValueSample:
    """Return n values whose sum is more (else less) by `off` than expected.

    Of pairs, each revision has half of that deviation, as far as it has bad requests.
    """
    counts = {value: n * part for value, part in values}
    up, down = counts[1.0], counts[low] if low else 0.0
    if more:
        fewer = min(off / 2, down)
        up, down = min(n - down + fewer, up + off - fewer), down - fewer
    else:
        fewer = min(off / 2 if low else off, up)
        up, down = up - fewer, min(n - up + fewer, down + off - fewer) if low else 0.0
    return ValueSample(low, 1.0, ((low, down), (0.0, n - up - down), (1.0, up)))


@dataclass(frozen=True, slots=True)
class StepTraffic:
    """A step's share of all requests for each revision (0 to 1), and its minimum duration in seconds.

    Weight 10: 0.1 and 0.9. Mirroring 20 percent: 0.2 and 0.2.
    """

    candidate: float
    serving: float
    hold: float


@dataclass(frozen=True, slots=True)
class SampleSizeQuery:
    """A share to be decided for a candidate as good as the serving revision, with parameters as in `estimate_samples`.

    `unit` is the counted unit, as in `estimate_answers` and `estimate_pairs`. `burst`: bad requests that share their
    fate.
    """

    limit: float
    base: float
    alpha: float
    min_samples: int = 300
    versus_serving: bool = True
    unit: Literal["request", "answer", "pair"] = "request"
    burst: int = 1

    def required_samples(self, ratio: float | None) -> int | None:
        """Return the candidate's requests that the decision takes; `ratio` as in `estimate_samples`."""
        if self.unit == "answer":
            return estimate_answers(self.limit, self.base, self.alpha)
        if self.unit == "pair":
            return estimate_pairs(self.limit, self.base, self.alpha)
        return estimate_samples(self.limit, self.base, self.alpha, ratio=ratio)


def estimate_step_seconds(stage: StepTraffic, queries: Sequence[SampleSizeQuery], rate: float) -> float:
    """Estimate a step's seconds at `rate` requests per second for the Model; infinity if it can't be decided.

    Impossible decisions don't count here: a comparison where one revision gets no requests, any decision where the
    candidate gets none.
    """
    seconds = stage.hold
    for query in queries:
        if not stage.candidate or (query.versus_serving and not stage.serving):
            continue
        ratio = stage.serving / stage.candidate if query.versus_serving else None
        needed = query.required_samples(ratio)
        if needed is None:
            return math.inf
        seconds = max(seconds, max(needed * query.burst, query.min_samples) / (rate * stage.candidate))
        if query.versus_serving:
            seconds = max(seconds, query.min_samples / (rate * stage.serving))
    return seconds


def estimate_rate(stages: Sequence[StepTraffic], queries: Sequence[SampleSizeQuery], deadline: float) -> float | None:
    """Estimate the requests per second with which a good candidate passes all steps by the deadline (seconds).

    None when no rate suffices: the holds alone take that long, or a limit can't be decided.
    """
    return estimate_plan_rate([(stage, queries) for stage in stages], deadline)


def estimate_plan_rate(plan: Sequence[tuple[StepTraffic, Sequence[SampleSizeQuery]]], deadline: float) -> float | None:
    """Estimate as `estimate_rate`, for steps with decisions of their own."""
    if sum(stage.hold for stage, _ in plan) >= deadline:
        return None
    at_one = [
        (stage.hold, estimate_step_seconds(StepTraffic(stage.candidate, stage.serving, 0.0), queries, 1.0))
        for stage, queries in plan
    ]
    if any(math.isinf(seconds) for _, seconds in at_one):
        return None
    if not any(seconds for _, seconds in at_one):
        return 0.0
    return find_smallest(
        lambda rate: sum(max(hold, seconds / rate) for hold, seconds in at_one) <= deadline, 1e-6, 1e12
    )


def find_smallest(holds: Callable[[float], bool], low: float, high: float, *, within: float = 0.001) -> float | None:
    """Find the smallest number in [low, high] from which on a condition holds; None if it fails even at `high`.

    The result exceeds the exact number by the share `within` at most.
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
