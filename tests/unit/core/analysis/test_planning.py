"""Planning: the split of the level, and the requests and the rate that a policy needs."""

import math
from dataclasses import replace

import pytest

from modelwright.core.analysis.blocks import BlockPair, evidence_within
from modelwright.core.analysis.planning import (
    SampleSizeQuery,
    StepTraffic,
    estimate_answers,
    estimate_pairs,
    estimate_rate,
    estimate_samples,
    estimate_step_seconds,
    find_smallest,
    split_levels,
)

ALPHA = 0.0125
ERRORS, LATENCY = SampleSizeQuery(0.02, 0.01, ALPHA), SampleSizeQuery(0.05, 0.05, ALPHA)
CANARY = (StepTraffic(0.1, 0.9, 120), StepTraffic(0.5, 0.5, 120))


def test_only_the_level_of_a_fail_is_split() -> None:
    found = split_levels(0.95, 2, 3)
    assert found.fails * 6 == pytest.approx(0.05)
    assert found.passes == pytest.approx(0.05)


@pytest.mark.parametrize(("confidence", "metrics", "steps"), [(1.0, 1, 1), (0.0, 1, 1), (0.9, 0, 1), (0.9, 1, 0)])
def test_a_level_that_can_not_be_split_is_refused(confidence: float, metrics: int, steps: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        split_levels(confidence, metrics, steps)


def test_without_any_bad_request_the_needed_number_is_exact() -> None:
    needed = estimate_samples(0.02, 0.0, ALPHA, ratio=1.0)
    assert needed is not None
    blocks = 24
    assert evidence_within([BlockPair(needed / blocks, 0, needed / blocks, 0)] * blocks, 0.02).last >= -math.log(ALPHA)
    fewer = needed * 0.99 / blocks
    assert evidence_within([BlockPair(fewer, 0, fewer, 0)] * blocks, 0.02).last < -math.log(ALPHA)


@pytest.mark.parametrize(
    ("easier", "harder"),
    [
        ({"limit": 0.03}, {}),
        ({"base": 0.005}, {}),
        ({"alpha": 0.05}, {}),
        ({"ratio": 9.0}, {}),
        ({"power": 0.5}, {}),
        ({}, {"worse": 0.01}),
        ({"worse": 0.2}, {"worse": 0.05}),
    ],
)
def test_an_easier_question_needs_fewer_requests(easier: dict[str, float], harder: dict[str, float]) -> None:
    plain = {"limit": 0.02, "base": 0.01, "alpha": ALPHA, "ratio": 1.0}
    fewer, more = estimate_samples(**{**plain, **easier}), estimate_samples(**{**plain, **harder})
    assert fewer is not None
    assert more is not None
    assert fewer < more


@pytest.mark.parametrize(("limit", "base", "worse"), [(0.02, 0.01, 0.0), (0.05, 0.05, 0.0), (0.05, 0.05, 0.1)])
def test_pairs_take_fewer_requests_than_arms(limit: float, base: float, worse: float) -> None:
    pairs = estimate_pairs(limit, base, ALPHA, worse=worse)
    requests = estimate_samples(limit, base, ALPHA, ratio=1.0, worse=worse)
    assert pairs is not None
    assert requests is not None
    assert pairs <= 0.75 * requests
    fewer = estimate_pairs(limit, base, ALPHA, worse=worse, common=0.9)
    assert fewer is not None
    assert fewer < pairs


def test_pairs_on_the_margin_are_never_decided() -> None:
    assert estimate_pairs(0.0, 0.01, ALPHA) is None
    assert estimate_pairs(0.02, 0.01, ALPHA, worse=0.02) is None


def test_a_stage_takes_what_its_unit_takes() -> None:
    stage = StepTraffic(1.0, 1.0, 0.0)
    seconds = [estimate_step_seconds(stage, (replace(LATENCY, unit=unit),), 1.0) for unit in ("request", "pair")]
    assert seconds == [estimate_samples(0.05, 0.05, ALPHA, ratio=1.0), estimate_pairs(0.05, 0.05, ALPHA)]
    answers = SampleSizeQuery(0.02, 0.01, ALPHA, versus_serving=False, unit="answer")
    assert estimate_step_seconds(stage, (answers,), 1.0) == estimate_answers(0.02, 0.01, ALPHA)


def test_a_share_on_the_limit_is_never_decided() -> None:
    assert estimate_samples(0.02, 0.01, ALPHA, ratio=1.0, worse=0.02) is None
    assert estimate_samples(0.0, 0.01, ALPHA, ratio=1.0) is None
    assert estimate_samples(0.05, 0.05, ALPHA, ratio=None) is None


def test_an_absolute_limit_needs_no_serving_revision() -> None:
    needed = estimate_samples(0.03, 0.01, ALPHA, ratio=None)
    assert needed is not None
    assert 500 < needed < 2000


def test_the_default_policy_is_decidable_at_20_requests_a_second() -> None:
    assert sum(estimate_step_seconds(stage, (ERRORS, LATENCY), 20) for stage in CANARY) < 1800
    rate = estimate_rate(CANARY, (ERRORS, LATENCY), 1800)
    assert rate is not None
    assert 4 < rate < 9
    assert sum(estimate_step_seconds(stage, (ERRORS, LATENCY), rate) for stage in CANARY) == pytest.approx(
        1800, rel=0.01
    )


def test_bursts_take_as_many_times_the_requests() -> None:
    plain, bursts = (
        SampleSizeQuery(0.02, 0.01, ALPHA, min_samples=1),
        SampleSizeQuery(0.02, 0.01, ALPHA, min_samples=1, burst=5),
    )
    assert estimate_step_seconds(CANARY[0], (bursts,), 1) == 5 * estimate_step_seconds(CANARY[0], (plain,), 1)


def test_a_step_takes_at_least_its_hold() -> None:
    assert estimate_step_seconds(CANARY[1], (ERRORS,), 1e6) == 120


def test_the_minimum_of_requests_counts_for_both_revisions() -> None:
    ask = SampleSizeQuery(0.5, 0.0, ALPHA, min_samples=10000)
    assert estimate_step_seconds(StepTraffic(0.9, 0.1, 0), (ask,), 10) == 10000
    assert estimate_step_seconds(StepTraffic(0.1, 0.9, 0), (ask,), 10) == 10000


def test_without_comparison_only_absolute_limits_take_time() -> None:
    alone = StepTraffic(1.0, 0.0, 60)
    assert estimate_step_seconds(alone, (ERRORS,), 1) == 60
    assert estimate_step_seconds(alone, (SampleSizeQuery(0.03, 0.01, ALPHA, versus_serving=False),), 1) > 60
    assert estimate_step_seconds(StepTraffic(0.0, 1.0, 60), (ERRORS,), 1) == 60


def test_a_limit_that_can_not_be_decided_has_no_rate() -> None:
    assert estimate_step_seconds(CANARY[0], (SampleSizeQuery(0.0, 0.01, ALPHA),), 1e9) == math.inf
    assert estimate_rate(CANARY, (SampleSizeQuery(0.0, 0.01, ALPHA),), 1800) is None


def test_holds_that_fill_the_deadline_have_no_rate() -> None:
    assert estimate_rate(CANARY, (ERRORS,), 240) is None


def test_a_policy_without_metrics_needs_no_requests() -> None:
    assert estimate_rate(CANARY, (), 1800) == 0


def test_a_longer_deadline_needs_fewer_requests_a_second() -> None:
    rates = [estimate_rate(CANARY, (ERRORS, LATENCY), deadline) for deadline in (600, 1800, 7200)]
    assert all(rate is not None for rate in rates)
    assert rates == sorted(rates, key=lambda rate: -(rate or 0))


def test_find_smallest_returns_the_number_or_none() -> None:
    assert find_smallest(lambda x: x >= 100, 1, 1e6) == pytest.approx(100, rel=0.001)
    assert find_smallest(lambda x: True, 1, 1e6) == 1
    assert find_smallest(lambda x: False, 1, 1e6) is None
    assert find_smallest(lambda x: x >= 1e6, 1, 1e6) == pytest.approx(1e6, rel=0.001)
