"""Verdicts: every kind of measurement against every kind of limit."""

import math
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from modelwright.core.analysis.evidence import (
    Arm,
    Block,
    Buckets,
    Histogram,
    Measurement,
    MeasurementFailure,
    MetricValue,
    Outcome,
    PairedRequests,
    RequestShares,
    ValueSample,
    Verdict,
)
from modelwright.core.analysis.judge import MetricLimits, combine_verdicts, judge_metric
from modelwright.core.analysis.planning import Levels
from modelwright.core.analysis.report_figures import Figure

PASS, FAIL, ERROR, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE
ALPHA = 0.0125
LEVELS = Levels(ALPHA, ALPHA)
INF = math.inf

Result = RequestShares | ValueSample | MetricValue | Histogram | Figure | MeasurementFailure


def judge(rule: MetricLimits, result: Result) -> Verdict:
    at = datetime(2026, 11, 1, tzinfo=UTC)
    return judge_metric(rule, Measurement(rule.name, at, result, "the query"), levels=LEVELS)


def shares(candidate: tuple[int, int], serving: tuple[int, int] | None = None) -> RequestShares:
    return RequestShares(Arm(*candidate), None if serving is None else Arm(*serving))


MARGIN = MetricLimits("errors", margin=0.02)
MAX = MetricLimits("errors", max=0.05)
BOTH = MetricLimits("errors", margin=0.02, max=0.05)
AGREE = MetricLimits("agreement", min=0.95)

SHARES = [
    ("no requests at all", MARGIN, shares((0, 0), (0, 0)), INCONCLUSIVE, "InsufficientSamples"),
    ("no requests of the candidate", MARGIN, shares((0, 0), (9000, 90)), INCONCLUSIVE, "InsufficientSamples"),
    ("no requests of the serving revision", MARGIN, shares((9000, 0), (0, 0)), INCONCLUSIVE, "InsufficientSamples"),
    ("few requests", MARGIN, shares((299, 0), (90000, 0)), INCONCLUSIVE, "InsufficientSamples"),
    ("few of the serving revision", MARGIN, shares((90000, 0), (299, 0)), INCONCLUSIVE, "InsufficientSamples"),
    ("equally good, enough requests", MARGIN, shares((3000, 30), (27000, 270)), PASS, "WithinLimits"),
    ("equally good, too few to tell", MARGIN, shares((400, 4), (3600, 36)), INCONCLUSIVE, "InsufficientEvidence"),
    ("harm smaller than the margin", MARGIN, shares((30000, 450), (27000, 270)), PASS, "WithinLimits"),
    ("harm of the margin", MARGIN, shares((30000, 900), (27000, 270)), INCONCLUSIVE, "InsufficientEvidence"),
    ("harm beyond the margin", MARGIN, shares((3000, 180), (27000, 270)), FAIL, "WorseThanServing"),
    ("plain harm before the asked number", MARGIN, shares((20, 20), (180, 0)), FAIL, "WorseThanServing"),
    ("plain harm beside few of the serving one", MARGIN, shares((200, 180), (20, 0)), FAIL, "WorseThanServing"),
    ("better than what serves", MARGIN, shares((3000, 30), (27000, 2700)), PASS, "WithinLimits"),
    ("bad as what serves", MARGIN, shares((9000, 4500), (9000, 4500)), INCONCLUSIVE, "InsufficientEvidence"),
    ("below the absolute limit", MAX, shares((3000, 90)), PASS, "WithinLimits"),
    ("about the absolute limit", MAX, shares((3000, 150)), INCONCLUSIVE, "InsufficientEvidence"),
    ("above the absolute limit", MAX, shares((3000, 240)), FAIL, "LimitExceeded"),
    ("few for the absolute limit", MAX, shares((200, 0)), INCONCLUSIVE, "InsufficientSamples"),
    ("both limits hold", BOTH, shares((9000, 90), (9000, 90)), PASS, "WithinLimits"),
    ("one holds, one is open", BOTH, shares((9000, 450), (9000, 450)), INCONCLUSIVE, "InsufficientEvidence"),
    ("one holds, one is broken", BOTH, shares((9000, 900), (9000, 900)), FAIL, "LimitExceeded"),
    ("one is open, one is broken", BOTH, shares((900, 900), (0, 0)), FAIL, "LimitExceeded"),
    ("no serving revision measured", MARGIN, shares((9000, 90)), INCONCLUSIVE, "NoServingData"),
    ("that, but an absolute limit is broken", BOTH, shares((9000, 9000)), FAIL, "LimitExceeded"),
    ("that, and an absolute limit holds", BOTH, shares((9000, 90)), INCONCLUSIVE, "NoServingData"),
]


@pytest.mark.parametrize(("case", "rule", "result", "outcome", "reason"), SHARES, ids=[case for case, *_ in SHARES])
def test_shares(case: str, rule: MetricLimits, result: RequestShares, outcome: Outcome, reason: str) -> None:
    verdict = judge(rule, result)
    assert (verdict.outcome, verdict.reason) == (outcome, reason), verdict.message
    assert verdict.query == "the query"
    assert verdict.message


def test_the_verdict_has_the_numbers() -> None:
    verdict = judge(MARGIN, shares((3000, 30), (27000, 270)))
    assert (verdict.candidate, verdict.serving, verdict.limit) == (0.01, 0.01, 0.02)
    assert (verdict.samples, verdict.serving_samples) == (3000, 27000)
    assert verdict.low is not None
    assert verdict.high is not None
    assert -0.02 < verdict.low < 0 < verdict.high < 0.02
    assert verdict.message.startswith(
        "candidate 1.00 % of 3000 requests; serving 1.00 % of 27000 requests; difference -"
    )


def answers(*weights: tuple[float, float]) -> ValueSample:
    return ValueSample(0.0, 1.0, weights)


ANSWERS = [
    ("enough agreement", AGREE, answers((1, 2940), (0, 60)), PASS, "WithinLimits"),
    ("too little agreement", AGREE, answers((1, 2700), (0, 300)), FAIL, "LimitExceeded"),
    ("agreement about its limit", AGREE, answers((1, 2850), (0, 150)), INCONCLUSIVE, "InsufficientEvidence"),
    ("that, but no answer differs much", AGREE, answers((1, 1000), (0.875, 600)), INCONCLUSIVE, "InsufficientEvidence"),
    ("rows that differ in many answers", AGREE, answers((1, 1000), (0.75, 1000)), FAIL, "LimitExceeded"),
    ("few answers of many rows", AGREE, answers((1, 299)), INCONCLUSIVE, "InsufficientSamples"),
    ("no answers at all", AGREE, answers((1, 0), (0, 0)), INCONCLUSIVE, "InsufficientSamples"),
    ("few answers, and all differ", AGREE, answers((0, 5)), FAIL, "LimitExceeded"),
    ("a margin of what is compared already", MARGIN, answers((1, 1000)), Outcome.ERROR, "UnexpectedMeasurement"),
]


@pytest.mark.parametrize(("case", "rule", "result", "outcome", "reason"), ANSWERS, ids=[case for case, *_ in ANSWERS])
def test_answers(case: str, rule: MetricLimits, result: ValueSample, outcome: Outcome, reason: str) -> None:
    verdict = judge(rule, result)
    assert (verdict.outcome, verdict.reason) == (outcome, reason), verdict.message


def paired(trials: int, both: int, candidate_only: int, serving_only: int) -> RequestShares:
    """Requests of a mirror step."""
    found = PairedRequests(trials, both, candidate_only, serving_only)
    return RequestShares(found.candidate, found.serving, found)


PAIRS = [
    ("no requests at all", MARGIN, paired(0, 0, 0, 0), INCONCLUSIVE, "InsufficientSamples"),
    ("few requests", MARGIN, paired(299, 0, 0, 0), INCONCLUSIVE, "InsufficientSamples"),
    ("enough requests, none bad", MARGIN, paired(300, 0, 0, 0), PASS, "WithinLimits"),
    ("many bad ones, at both", MARGIN, paired(300, 100, 0, 0), PASS, "WithinLimits"),
    ("as many at the one as at the other", MARGIN, paired(3000, 0, 100, 100), PASS, "WithinLimits"),
    ("that, too few to tell", MARGIN, paired(400, 0, 20, 20), INCONCLUSIVE, "InsufficientEvidence"),
    ("harm smaller than the margin", MARGIN, paired(9000, 90, 90, 0), PASS, "WithinLimits"),
    ("harm of the margin", MARGIN, paired(9000, 90, 180, 0), INCONCLUSIVE, "InsufficientEvidence"),
    ("harm beyond the margin", MARGIN, paired(3000, 30, 180, 0), FAIL, "WorseThanServing"),
    ("plain harm in few requests", MARGIN, paired(12, 0, 12, 0), FAIL, "WorseThanServing"),
    ("an absolute limit beside it", BOTH, paired(9000, 900, 0, 0), FAIL, "LimitExceeded"),
]


@pytest.mark.parametrize(("case", "rule", "result", "outcome", "reason"), PAIRS, ids=[case for case, *_ in PAIRS])
def test_pairs(case: str, rule: MetricLimits, result: RequestShares, outcome: Outcome, reason: str) -> None:
    verdict = judge(rule, result)
    assert (verdict.outcome, verdict.reason) == (outcome, reason), verdict.message


def test_pairs_are_shown_with_requests_bad_at_one_only() -> None:
    verdict = judge(MARGIN, paired(3000, 60, 30, 20))
    assert verdict.message.startswith("candidate 3.00 % of 3000 requests; serving 2.67 % of 3000 requests; difference ")
    assert verdict.message.endswith("; bad at one alone: 30 and 20")
    assert (verdict.candidate, verdict.samples, verdict.serving_samples) == (0.03, 3000, 3000)


def test_requests_bad_at_both_do_not_hide_the_difference() -> None:
    result = paired(1000, 100, 10, 10)
    assert judge(MARGIN, result).outcome is PASS
    assert judge(MARGIN, replace(result, pairs=None)).outcome is INCONCLUSIVE


@pytest.mark.parametrize(
    "rule",
    [MetricLimits("slow", margin=0.05, threshold=0.25), MetricLimits("p90", margin=0.05, percentile=0.9)],
    ids=["latency over a threshold", "a percentile"],
)
def test_latencies_are_compared_by_pairs_where_there_are_some(rule: MetricLimits) -> None:
    buckets = ((0.1, 400), (0.25, 640), (math.inf, 700))
    alone = Histogram(buckets, buckets)
    bounds = ((0.1, PairedRequests(700, 290, 10, 10)), (0.25, PairedRequests(700, 55, 5, 5)))
    assert judge(rule, alone).outcome is INCONCLUSIVE
    assert judge(rule, replace(alone, pairs=bounds)).outcome is PASS


def test_agreement_is_shown_as_agreement() -> None:
    verdict = judge(AGREE, answers((1, 2940), (0, 60)))
    assert verdict.candidate == pytest.approx(0.98)
    assert verdict.low is not None
    assert verdict.low > 0.95
    assert "98.00 % of 3000 answers" in verdict.message
    assert "at least 95.00" in verdict.message


def test_too_few_requests_are_reported_with_the_minimum() -> None:
    message = judge(MARGIN, shares((120, 0), (299, 0))).message
    assert "120 of 300 requests answered by the candidate and 299 of 300" in message


def test_an_undecided_verdict_estimates_the_missing_requests() -> None:
    verdict = judge(MARGIN, shares((1000, 10), (9000, 90)))
    more = int(verdict.message.split("about ")[1].split(" more")[0])
    assert (
        judge(MARGIN, shares((1000 + more, 10 + more // 100), (9000 + 9 * more, 90 + 9 * more // 100))).outcome is PASS
    )
    assert more < 1000


def test_a_share_on_the_limit_has_no_estimate() -> None:
    assert "too close to the limit" in judge(MARGIN, shares((3000, 90), (27000, 270))).message


def test_limits_share_the_level_of_a_fail_and_must_all_pass() -> None:
    def failing(rule: MetricLimits) -> int:
        return next(bad for bad in range(900) if judge(rule, shares((900, bad), (9000, 10 * bad))).outcome is FAIL)

    assert failing(MAX) < failing(BOTH)
    passing = Measurement("errors", datetime.now(UTC), shares((900, 22)))
    for fails in (ALPHA, ALPHA / 100):
        assert judge_metric(MAX, passing, levels=Levels(ALPHA, fails)).outcome is PASS
    assert judge_metric(MAX, passing, levels=Levels(ALPHA / 100, ALPHA)).outcome is INCONCLUSIVE


def blocks(*counts: tuple[int, int, int, int], times: int = 1) -> RequestShares:
    """Of the candidate and the serving revision: requests and bad ones, `times` over."""
    every = counts * times
    ones = tuple(Block(15.0 * at, n1, k1) for at, (n1, k1, _, _) in enumerate(every, 1))
    zeros = tuple(Block(15.0 * at, n0, k0) for at, (_, _, n0, k0) in enumerate(every, 1))
    sums = [Arm(sum(b.trials for b in arm), sum(b.events for b in arm)) for arm in (ones, zeros)]
    return RequestShares(*sums, blocks=(ones, zeros))


BLOCKS = [
    ("as good, half of what the sums need", MARGIN, blocks((40, 0, 360, 4), (40, 1, 360, 3), times=12), PASS),
    ("harm, half of what the sums need", MARGIN, blocks((30, 2, 270, 2), (30, 1, 270, 3), times=20), FAIL),
    ("harm of the margin", MARGIN, blocks((100, 3, 900, 9), times=40), INCONCLUSIVE),
    ("in bursts", MARGIN, blocks((40, 0, 360, 0), (40, 4, 360, 0), (40, 0, 360, 20), times=30), INCONCLUSIVE),
    ("more of it at both in a bad hour", MARGIN, blocks(*[(20, 0, 180, 0)] * 9, (20, 10, 180, 90), times=40), PASS),
    ("none of it in blocks yet", MARGIN, RequestShares(Arm(3000, 30), Arm(27000, 270), blocks=((), ())), INCONCLUSIVE),
    ("gross harm before a block has ended", MARGIN, RequestShares(Arm(30, 15), Arm(270, 3), blocks=((), ())), FAIL),
]


@pytest.mark.parametrize(("case", "rule", "result", "outcome"), BLOCKS, ids=[case for case, *_ in BLOCKS])
def test_blocks(case: str, rule: MetricLimits, result: RequestShares, outcome: Outcome) -> None:
    verdict = judge(rule, result)
    assert verdict.outcome is outcome, verdict.message
    assert verdict.low is not None
    assert verdict.high is not None
    assert verdict.limit is not None
    assert (verdict.high <= verdict.limit, verdict.low >= verdict.limit) == (outcome is PASS, outcome is FAIL)


def test_sums_and_blocks_share_the_level_of_a_fail() -> None:
    """Two tests of the same requests would err twice as often as one."""

    def fails(level: float, result: RequestShares) -> bool:
        verdict = judge_metric(MARGIN, Measurement("errors", datetime.now(UTC), result), levels=Levels(ALPHA, level))
        return verdict.outcome is FAIL

    early = RequestShares(Arm(30, 15), Arm(270, 3), blocks=((), ()))
    sums = RequestShares(Arm(30, 15), Arm(270, 3))
    least = math.exp(next(x for x in np.arange(-40, 0, 0.01) if fails(math.exp(x), sums)))
    assert not fails(least * 63, early)
    assert fails(least * 65, early)
    verdict = judge(MARGIN, RequestShares(Arm(3000, 30), Arm(27000, 270), blocks=((), ())))
    assert (verdict.reason, "no block of time" in verdict.message) == ("InsufficientEvidence", True)


def test_bursts_hold_a_pass_until_the_policy_names_them() -> None:
    random = np.random.default_rng(3)
    bursts = [(100, 5 * int(random.binomial(20, 0.01)), 900, 5 * int(random.binomial(180, 0.01))) for _ in range(60)]
    verdict = judge(MARGIN, blocks(*bursts))
    assert (verdict.outcome, verdict.reason) == (INCONCLUSIVE, "Overdispersed")
    assert "bursts of about" in verdict.message
    assert judge(replace(MARGIN, burst=5), blocks(*bursts)).outcome is PASS


def histogram_of(counted: RequestShares) -> Histogram:
    """Bad requests as those that took longer than 0.25 s."""

    def buckets(arm: Arm | Block) -> Buckets:
        return ((0.25, arm.trials - arm.events), (INF, arm.trials))

    assert counted.serving is not None
    assert counted.blocks is not None
    ends = tuple((one.end, buckets(one), buckets(zero)) for one, zero in zip(*counted.blocks, strict=True))
    return Histogram(buckets(counted.candidate), buckets(counted.serving), blocks=ends)


ABSOLUTE = [
    ("max of a share", MetricLimits("m", max=0.05), False),
    ("min of a share", MetricLimits("m", min=0.0), False),
    ("max of the share over a time", MetricLimits("m", max=0.05, threshold=0.25), True),
    ("max of a percentile", MetricLimits("m", max=0.25, percentile=0.95), True),
]


@pytest.mark.parametrize(("case", "rule", "timed"), ABSOLUTE, ids=[case for case, *_ in ABSOLUTE])
def test_bursts_block_absolute_limits_beside_a_serving_revision(case: str, rule: MetricLimits, timed: bool) -> None:
    random = np.random.default_rng(3)
    bursts = [(100, 5 * int(random.binomial(20, 0.01)), 900, 5 * int(random.binomial(180, 0.01))) for _ in range(60)]
    found: RequestShares | Histogram = blocks(*bursts)
    if timed:
        found = histogram_of(blocks(*bursts))
    verdict = judge(rule, found)
    assert (verdict.outcome, verdict.reason) == (INCONCLUSIVE, "Overdispersed"), verdict.message
    assert judge(replace(rule, burst=5), found).outcome is PASS
    alone = replace(found, serving=None, blocks=None)
    assert judge(rule, alone).outcome is PASS, "nothing shows it there"


FAST = ((0.1, 8000), (0.25, 9700), (0.5, 9950), (INF, 10000))
SLOW = ((0.1, 500), (0.25, 7000), (0.5, 9900), (INF, 10000))
NONE = ((0.1, 0), (0.25, 0), (0.5, 0), (INF, 0))
OVER = MetricLimits("over", threshold=0.25, margin=0.05)
P95 = MetricLimits("p95", percentile=0.95, margin=0.05)
P95_MAX = MetricLimits("p95", percentile=0.95, max=0.25)

HISTOGRAMS = [
    ("as fast", OVER, FAST, FAST, PASS, "WithinLimits"),
    ("slower", OVER, SLOW, FAST, FAIL, "WorseThanServing"),
    ("nothing yet", OVER, NONE, NONE, INCONCLUSIVE, "InsufficientSamples"),
    ("no buckets yet", OVER, (), (), INCONCLUSIVE, "InsufficientSamples"),
    ("no buckets of the serving revision yet", OVER, FAST, (), INCONCLUSIVE, "InsufficientSamples"),
    ("no boundary", MetricLimits("over", threshold=0.3, margin=0.05), FAST, FAST, ERROR, "LatencyThresholdNotABucket"),
    ("no boundary of the serving one", OVER, FAST, ((0.1, 1), (INF, 1)), ERROR, "LatencyThresholdNotABucket"),
    ("absolute share over", MetricLimits("over", threshold=0.25, max=0.05), FAST, None, PASS, "WithinLimits"),
    ("... needs no serving revision", MetricLimits("over", threshold=0.25, max=0.05), SLOW, (), FAIL, "LimitExceeded"),
    ("p95 as fast", P95, FAST, FAST, PASS, "WithinLimits"),
    ("p95 slower", P95, SLOW, FAST, FAIL, "WorseThanServing"),
    ("p95 of nothing", P95, NONE, NONE, INCONCLUSIVE, "InsufficientSamples"),
    ("p95 without buckets", P95, (), (), INCONCLUSIVE, "InsufficientSamples"),
    ("p95 of the serving one unknown", P95, FAST, (), INCONCLUSIVE, "InsufficientSamples"),
    ("p95 of the serving one not measured", P95, FAST, None, INCONCLUSIVE, "NoServingData"),
    ("p95 of other buckets", P95, ((0.2, 9000), (INF, 9000)), FAST, ERROR, "LatencyThresholdNotABucket"),
    ("p95 with one infinite bucket", P95, ((INF, 9000),), ((INF, 9000),), ERROR, "LatencyThresholdNotABucket"),
    ("p95 in time", P95_MAX, FAST, None, PASS, "WithinLimits"),
    ("p95 too slow", P95_MAX, SLOW, None, FAIL, "LimitExceeded"),
    ("p95 no boundary", MetricLimits("p", percentile=0.95, max=0.3), FAST, None, ERROR, "LatencyThresholdNotABucket"),
    ("a histogram without need", MARGIN, FAST, FAST, ERROR, "UnexpectedMeasurement"),
]


@pytest.mark.parametrize(
    ("case", "rule", "candidate", "serving", "outcome", "reason"), HISTOGRAMS, ids=[case for case, *_ in HISTOGRAMS]
)
def test_histograms(
    case: str,
    rule: MetricLimits,
    candidate: tuple[tuple[float, int], ...],
    serving: tuple[tuple[float, int], ...] | None,
    outcome: Outcome,
    reason: str,
) -> None:
    verdict = judge(rule, Histogram(candidate, serving))
    assert (verdict.outcome, verdict.reason) == (outcome, reason), verdict.message
    assert verdict.permanent == (outcome is ERROR)


def test_a_percentile_is_shown_in_seconds_and_judged_as_a_share() -> None:
    verdict = judge(P95_MAX, Histogram(FAST, FAST))
    assert verdict.candidate == pytest.approx(0.25, rel=0.1)
    assert verdict.serving == verdict.candidate
    assert verdict.limit == pytest.approx(0.05)
    assert verdict.high is not None
    assert verdict.high <= 0.05
    assert verdict.message.startswith("p95 0.232 s, serving 0.232 s; candidate 3.00 % of 10000 requests")


def test_a_percentile_beyond_the_last_bound_is_compared_there() -> None:
    slow = ((0.1, 10), (0.5, 100), (INF, 1000))
    verdict = judge(P95, Histogram(slow, slow))
    assert verdict.message.startswith("p95 0.5 s, serving 0.5 s; requests over 0.5 s: ")


def test_a_wrong_threshold_is_reported_with_the_valid_ones() -> None:
    verdict = judge(MetricLimits("over", threshold=0.3, max=0.05), Histogram(FAST, None))
    assert "0.3 s" in verdict.message
    assert "0.1, 0.25, 0.5 s" in verdict.message


def test_shares_can_not_stand_for_a_percentile() -> None:
    assert judge(P95, shares((9000, 0), (9000, 0))).reason == "UnexpectedMeasurement"


def test_a_source_may_count_requests_over_the_threshold() -> None:
    assert judge(OVER, shares((9000, 0), (9000, 0))).outcome is PASS


VALUE = MetricLimits("score", max=10, min=2)
VALUES = [
    ("within", VALUE, MetricValue(5), PASS, "WithinLimits"),
    ("at a limit", VALUE, MetricValue(10), PASS, "WithinLimits"),
    ("above", VALUE, MetricValue(11), FAIL, "LimitExceeded"),
    ("below", VALUE, MetricValue(1), FAIL, "LimitExceeded"),
    ("nothing", VALUE, MetricValue(None, why="the answer is empty"), INCONCLUSIVE, "NoData"),
    ("NaN", VALUE, MetricValue(math.nan), INCONCLUSIVE, "NoData"),
    ("infinite", VALUE, MetricValue(INF), INCONCLUSIVE, "NoData"),
    ("worse than the margin", MetricLimits("v", margin=1), MetricValue(5, 3), FAIL, "WorseThanServing"),
    ("worse within the margin", MetricLimits("v", margin=1), MetricValue(4, 3), PASS, "WithinLimits"),
    ("better", MetricLimits("v", margin=1), MetricValue(1, 3), PASS, "WithinLimits"),
    (
        "less where more is better",
        MetricLimits("v", margin=1, higher_is_better=True),
        MetricValue(1, 3),
        FAIL,
        "WorseThanServing",
    ),
    (
        "more where more is better",
        MetricLimits("v", margin=1, higher_is_better=True),
        MetricValue(5, 3),
        PASS,
        "WithinLimits",
    ),
    ("min says that more is better", MetricLimits("v", margin=1, min=0), MetricValue(1, 3), FAIL, "WorseThanServing"),
    ("min and max say nothing", MetricLimits("v", margin=1, min=0, max=9), MetricValue(1, 3), PASS, "WithinLimits"),
    ("nothing of the serving one", MetricLimits("v", margin=1), MetricValue(5), INCONCLUSIVE, "NoServingData"),
    ("NaN of the serving one", MetricLimits("v", margin=1), MetricValue(5, math.nan), INCONCLUSIVE, "NoServingData"),
    ("that, and a limit holds", MetricLimits("v", margin=1, max=9), MetricValue(5), INCONCLUSIVE, "NoServingData"),
    ("that, and a limit doesn't", MetricLimits("v", margin=1, max=4), MetricValue(5), FAIL, "LimitExceeded"),
    ("tolerated", MetricLimits("v", max=4, failures_allowed=1), MetricValue(5), INCONCLUSIVE, "FailureTolerated"),
    (
        "once too often",
        MetricLimits("v", max=4, failures_allowed=1, failures_so_far=1),
        MetricValue(5),
        FAIL,
        "LimitExceeded",
    ),
    (
        "in time again",
        MetricLimits("v", max=4, failures_allowed=1, failures_so_far=1),
        MetricValue(3),
        PASS,
        "WithinLimits",
    ),
    (
        "too late",
        MetricLimits("v", max=4, failures_allowed=1, failures_so_far=2),
        MetricValue(3),
        FAIL,
        "LimitExceeded",
    ),
]


@pytest.mark.parametrize(("case", "rule", "result", "outcome", "reason"), VALUES, ids=[case for case, *_ in VALUES])
def test_values(case: str, rule: MetricLimits, result: MetricValue, outcome: Outcome, reason: str) -> None:
    verdict = judge(rule, result)
    assert (verdict.outcome, verdict.reason) == (outcome, reason), verdict.message


def figure(candidate: float, serving: float | None = None, **more: Any) -> Figure:
    return Figure("score", Decimal(str(candidate)), None if serving is None else Decimal(str(serving)), **more)


def right(n: int, better: int, worse: int) -> Figure:
    return figure(round(0.9 + (better - worse) / n, 6), 0.9, n=n, better=better, worse=worse)


LEAST, MOST_ERROR, ABOUT = (
    MetricLimits("s", min=0.9),
    MetricLimits("s", max=3),
    MetricLimits("s", margin=0.02, higher_is_better=True),
)
ERRED = {"n": 400, "standard_error": Decimal("0.01")}
OWN = {"n": 50, "candidate_standard_error": Decimal("0.1")}
FIGURES = [
    ("a share well above min", LEAST, figure(0.95, n=2000), PASS, "WithinLimits"),
    ("a share above min by less than chance", LEAST, figure(0.905, n=2000), INCONCLUSIVE, "TooFewExamples"),
    ("a share below min by less than chance", LEAST, figure(0.895, n=2000), INCONCLUSIVE, "TooFewExamples"),
    ("a share well below min", LEAST, figure(0.85, n=2000), FAIL, "LimitExceeded"),
    ("one example", LEAST, figure(1, n=1, flaw="n is 1"), INCONCLUSIVE, "UncertaintyMissing"),
    ("an error well below max", MOST_ERROR, figure(2.5, **OWN), PASS, "WithinLimits"),
    ("an error below max by less than chance", MOST_ERROR, figure(2.9, **OWN), INCONCLUSIVE, "TooFewExamples"),
    ("an error well above max", MOST_ERROR, figure(3.5, **OWN), FAIL, "LimitExceeded"),
    ("as good, of enough examples", ABOUT, right(20000, 600, 600), PASS, "WithinLimits"),
    ("as good, of few examples", ABOUT, right(500, 15, 15), INCONCLUSIVE, "TooFewExamples"),
    ("much worse", ABOUT, right(2000, 10, 120), FAIL, "WorseThanServing"),
    ("worse by less than chance", ABOUT, right(500, 10, 25), INCONCLUSIVE, "TooFewExamples"),
    ("a standard error, as good", MetricLimits("s", margin=0.1), figure(1, 1, **ERRED), PASS, "WithinLimits"),
    ("a standard error, worse", MetricLimits("s", margin=0.1), figure(1.3, 1, **ERRED), FAIL, "WorseThanServing"),
    ("nothing of the serving one", ABOUT, figure(0.9, n=2000), INCONCLUSIVE, "NoServingData"),
    ("a number alone, within", MetricLimits("s", max=3), figure(2), INCONCLUSIVE, "UncertaintyMissing"),
    ("a number alone, above", MetricLimits("s", max=3), figure(4), FAIL, "LimitExceeded"),
    ("numbers alone, as good", ABOUT, figure(0.9, 0.9), INCONCLUSIVE, "UncertaintyMissing"),
    ("numbers alone, worse", ABOUT, figure(0.8, 0.9), FAIL, "WorseThanServing"),
    ("an exact number, within", MetricLimits("s", max=3), figure(2, exact=True), PASS, "WithinLimits"),
    ("an exact number at the limit", MetricLimits("s", max=3), figure(3, exact=True), PASS, "WithinLimits"),
    ("an exact number, above", MetricLimits("s", max=3), figure(4, exact=True), FAIL, "LimitExceeded"),
    ("exact numbers at the margin", MetricLimits("s", margin=1), figure(4, 3, exact=True), PASS, "WithinLimits"),
    (
        "exact numbers beyond the margin",
        MetricLimits("s", margin=1),
        figure(4.1, 3, exact=True),
        FAIL,
        "WorseThanServing",
    ),
    (
        "one limit holds, one is open",
        MetricLimits("s", min=0.5, max=0.96),
        figure(0.95, n=500),
        INCONCLUSIVE,
        "TooFewExamples",
    ),
    ("tolerated", MetricLimits("s", max=3, failures_allowed=1), figure(3.5, **OWN), INCONCLUSIVE, "FailureTolerated"),
    (
        "too late",
        MetricLimits("s", max=3, failures_allowed=1, failures_so_far=2),
        figure(2, **OWN),
        FAIL,
        "LimitExceeded",
    ),
]


@pytest.mark.parametrize(("case", "rule", "result", "outcome", "reason"), FIGURES, ids=[case for case, *_ in FIGURES])
def test_figures_of_jobs(case: str, rule: MetricLimits, result: Figure, outcome: Outcome, reason: str) -> None:
    verdict = judge(rule, result)
    assert (verdict.outcome, verdict.reason) == (outcome, reason), verdict.message
    assert (verdict.candidate, verdict.samples) == (float(result.candidate), result.n)
    if verdict.low is not None and verdict.high is not None:
        assert verdict.low <= verdict.high


def test_only_a_measurement_out_of_the_limits_is_counted() -> None:
    assert judge(VALUE, MetricValue(11)).out_of_limits
    assert judge(MetricLimits("v", max=4, failures_allowed=1), MetricValue(5)).out_of_limits
    assert not judge(VALUE, MetricValue(5)).out_of_limits
    assert not judge(VALUE, MetricValue(None)).out_of_limits
    assert not judge(MetricLimits("v", max=4, failures_so_far=1), MetricValue(3)).out_of_limits


def test_a_missing_value_is_reported_with_its_cause() -> None:
    assert judge(VALUE, MetricValue(None, why="3 series, one was expected")).message == "3 series, one was expected"


@pytest.mark.parametrize("permanent", [False, True])
def test_a_failure_is_an_error_with_its_own_reason(permanent: bool) -> None:
    verdict = judge(MARGIN, MeasurementFailure("QueryRefused", "unexpected character", permanent))
    assert (verdict.outcome, verdict.reason, verdict.message) == (ERROR, "QueryRefused", "unexpected character")
    assert verdict.permanent == permanent


@pytest.mark.parametrize("result", [shares((9000, 0), (9000, 0)), MetricValue(5), MeasurementFailure("X", "y")])
def test_a_dry_run_is_judged_alike_and_marked(result: Result) -> None:
    rules = [MetricLimits("m", margin=0.02, max=9, dry_run=dry_run) for dry_run in (False, True)]
    real, dry = (judge(rule, result) for rule in rules)
    assert not real.dry_run
    assert dry.dry_run
    assert (real.outcome, real.reason, real.message) == (dry.outcome, dry.reason, dry.message)


def test_a_metric_without_a_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="without a limit it decides nothing"):
        MetricLimits("errors")


def test_a_percentile_with_a_minimum_is_refused() -> None:
    with pytest.raises(ValueError, match="min has no effect"):
        MetricLimits("p95", percentile=0.95, min=0.1)


def test_a_pass_without_any_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        MetricLimits("errors", max=1, min_samples=0)


def verdict(metric: str, outcome: Outcome, *, dry_run: bool = False) -> Verdict:
    return Verdict(metric, outcome, "Reason", "message", dry_run=dry_run)


COMBINED = [
    ("nothing was asked for", [], (), INCONCLUSIVE),
    ("declared, and nothing came", [], ("a",), INCONCLUSIVE),
    ("all pass", [("a", PASS), ("b", PASS)], ("a", "b"), PASS),
    ("one is missing", [("a", PASS)], ("a", "b"), INCONCLUSIVE),
    ("one is inconclusive", [("a", PASS), ("b", INCONCLUSIVE)], ("a", "b"), INCONCLUSIVE),
    ("an error beside", [("a", INCONCLUSIVE), ("b", ERROR)], ("a", "b"), ERROR),
    ("a failure beside", [("a", ERROR), ("b", FAIL)], ("a", "b"), FAIL),
    ("a failure beside what is missing", [("b", FAIL)], ("a", "b"), FAIL),
]


@pytest.mark.parametrize(("case", "found", "declared", "outcome"), COMBINED, ids=[case for case, *_ in COMBINED])
def test_verdicts_together(
    case: str, found: list[tuple[str, Outcome]], declared: tuple[str, ...], outcome: Outcome
) -> None:
    verdicts = [verdict(*one) for one in found]
    assert combine_verdicts(verdicts, declared=declared) is outcome
    assert combine_verdicts(reversed(verdicts), declared=declared) is outcome


def test_dry_runs_decide_nothing() -> None:
    failed = verdict("dry", FAIL, dry_run=True)
    assert combine_verdicts([failed, verdict("a", PASS)], declared=("a",)) is PASS
    assert combine_verdicts([failed], declared=()) is INCONCLUSIVE
    passed = verdict("a", PASS, dry_run=True)
    assert combine_verdicts([passed], declared=("a",)) is INCONCLUSIVE


def test_requests_in_flight_are_in_the_message() -> None:
    at, found = datetime(2026, 11, 1, tzinfo=UTC), shares((300, 3), (300, 3))
    plain, verdict = (
        judge_metric(MARGIN, Measurement("errors", at, found, in_flight=known), levels=LEVELS).message
        for known in ("", "candidate 12, serving 3")
    )
    assert verdict == f"{plain}; in flight: candidate 12, serving 3"


def test_half_of_the_evidence_must_be_from_complete_blocks() -> None:
    arms = [tuple(Block(15.0 * n, count, 0) for n in range(1, 41)) for count in (60, 540)]
    found = RequestShares(Arm(2400, 0), Arm(21600, 0), None, (arms[0], arms[1]))
    for complete_at, outcome, reason in (
        (0.0, PASS, "WithinLimits"),
        (60.0, PASS, "WithinLimits"),
        (585.0, INCONCLUSIVE, "RequestsNotEnded"),
    ):
        verdict = judge(replace(MARGIN, complete_at=complete_at), found)
        assert (verdict.outcome, verdict.reason) == (outcome, reason)
