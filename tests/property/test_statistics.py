"""Properties of all evidence: none is never a Pass, more harm never helps, order and spelling don't matter."""

import contextlib
import itertools
import math
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from modelwright.core.analysis.ab_winner import NEEDED_POINTS, decide_winner
from modelwright.core.analysis.counters import MoreBadThanTotal, build_histogram, count_arm, count_over, sum_growth
from modelwright.core.analysis.evidence import (
    Arm,
    Block,
    Histogram,
    Measurement,
    MeasurementFailure,
    MetricValue,
    Outcome,
    RequestShares,
    Series,
    ValueSample,
    Verdict,
)
from modelwright.core.analysis.judge import MetricLimits, combine_verdicts, judge_metric
from modelwright.core.analysis.planning import Levels, estimate_samples
from modelwright.core.analysis.scraped_counters import NEAR_ZERO_REQUESTS, count_growth
from modelwright.core.analysis.sequential import difference_interval, share_interval

INF, NAN = math.inf, math.nan
ALPHAS = st.sampled_from([0.2, 0.05, 0.0125, 1e-4, 1e-9])
LIMITS = st.one_of(st.none(), st.floats(0, 1))
ROUNDING = 1e-7
UNTIMED = settings(deadline=None)


@st.composite
def arms(draw: st.DrawFn, least: int = 0, most: int = 20000) -> Arm:
    trials = draw(
        st.one_of(st.integers(least, 10), st.integers(least, most)) if least < 10 else st.integers(least, most)
    )
    return Arm(trials, draw(st.one_of(st.integers(0, trials), st.sampled_from([0, trials, trials // 50]))))


@st.composite
def rules(draw: st.DrawFn) -> MetricLimits:
    kind = draw(st.sampled_from(["share", "over", "percentile", "value"]))
    margin, top = draw(LIMITS), draw(LIMITS)
    bottom = None if kind == "percentile" else draw(LIMITS)
    assume(any(limit is not None for limit in (margin, top, bottom)))
    return MetricLimits(
        "metric",
        margin=margin,
        max=top,
        min=bottom,
        min_samples=draw(st.integers(1, 1000)),
        threshold=0.25 if kind == "over" else None,
        percentile=draw(st.floats(0.01, 0.99)) if kind == "percentile" else None,
        higher_is_better=draw(st.booleans()),
        failures_allowed=draw(st.integers(0, 3)),
        failures_so_far=draw(st.integers(0, 3)),
        dry_run=draw(st.booleans()),
    )


def answers(agree: float, differ: float, half: float = 0.0) -> ValueSample:
    """Answers whose rows all agree, all differ, and half of them each."""
    return ValueSample(0.0, 1.0, ((0.0, agree), (0.5, half), (1.0, differ)))


COUNTS = st.one_of(st.integers(0, 20000).map(float), st.floats(0, 1000))
BUCKETS = st.lists(st.integers(0, 500), min_size=4, max_size=4).map(
    lambda new: tuple(zip((0.1, 0.25, 1.0, INF), itertools.accumulate(new), strict=True))
)
EMPTY_BUCKETS = st.sampled_from([(), ((0.1, 0), (0.25, 0), (INF, 0)), ((INF, 0),)])
NOTHING = st.sampled_from([None, NAN, INF, -INF])
RESULTS = st.one_of(
    st.builds(RequestShares, arms(), st.one_of(st.none(), arms())),
    st.builds(answers, COUNTS, COUNTS, COUNTS),
    st.builds(Histogram, st.one_of(BUCKETS, EMPTY_BUCKETS), st.one_of(st.none(), BUCKETS, EMPTY_BUCKETS)),
    st.builds(MetricValue, st.one_of(NOTHING, st.floats()), st.one_of(NOTHING, st.floats()), st.text(max_size=5)),
    st.builds(MeasurementFailure, st.just("QueryRefused"), st.text(max_size=5), st.booleans()),
)
NO_EVIDENCE = st.one_of(
    st.builds(RequestShares, st.just(Arm(0, 0)), st.one_of(st.none(), arms())),
    st.builds(answers, st.just(0.0), st.just(0.0)),
    st.builds(Histogram, EMPTY_BUCKETS, st.one_of(st.none(), BUCKETS, EMPTY_BUCKETS)),
    st.builds(MetricValue, NOTHING, st.one_of(NOTHING, st.floats())),
    st.builds(MeasurementFailure, st.just("MetricsServerTimeout"), st.just("")),
)


def judge(
    rule: MetricLimits,
    result: RequestShares | ValueSample | Histogram | MetricValue | MeasurementFailure,
    alpha: float = 0.01,
) -> Verdict:
    return judge_metric(rule, Measurement("metric", datetime.now(UTC), result), levels=Levels(alpha, alpha))


@UNTIMED
@given(rules(), NO_EVIDENCE, ALPHAS)
def test_no_evidence_of_the_candidate_is_never_success(
    rule: MetricLimits, result: RequestShares | ValueSample | Histogram | MetricValue | MeasurementFailure, alpha: float
) -> None:
    verdict = judge(rule, result, alpha)
    assert verdict.outcome is not Outcome.PASS
    assert combine_verdicts([verdict], declared=("metric",)) is not Outcome.PASS


@UNTIMED
@given(rules(), RESULTS, st.sampled_from(["missing", "empty"]))
def test_no_evidence_of_the_serving_revision_passes_no_margin(
    rule: MetricLimits, result: RequestShares | Histogram | MetricValue | MeasurementFailure, how: str
) -> None:
    assume(rule.margin is not None)
    if isinstance(result, RequestShares):
        result = RequestShares(result.candidate, None if how == "missing" else Arm(0, 0))
    elif isinstance(result, Histogram):
        result = Histogram(result.candidate, None if how == "missing" else ())
    elif isinstance(result, MetricValue):
        result = MetricValue(result.candidate, None if how == "missing" else NAN)
    assert judge(rule, result).outcome is not Outcome.PASS


@UNTIMED
@given(rules(), RESULTS)
def test_any_measurement_gets_a_verdict_with_a_message(
    rule: MetricLimits, result: RequestShares | Histogram | MetricValue | MeasurementFailure
) -> None:
    verdict = judge(rule, result)
    assert verdict.reason
    assert verdict.dry_run == rule.dry_run
    for number in (verdict.candidate, verdict.serving, verdict.low, verdict.high, verdict.limit):
        assert number is None or math.isfinite(number)


@UNTIMED
@given(rules(), st.one_of(st.builds(RequestShares, arms(), arms()), st.builds(Histogram, BUCKETS, BUCKETS)))
def test_fewer_requests_than_required_never_pass(rule: MetricLimits, result: RequestShares | Histogram) -> None:
    verdict = judge(rule, result)
    if verdict.outcome is Outcome.PASS:
        assert verdict.samples is not None
        assert verdict.samples >= rule.min_samples
        assert verdict.serving_samples is None or verdict.serving_samples >= rule.min_samples


def counts(arm: Arm) -> tuple[int, int]:
    return arm.trials, arm.events


def both(one: Arm, zero: Arm) -> tuple[int, int, int, int]:
    return *counts(one), *counts(zero)


@UNTIMED
@example(Arm(42, 1), Arm(106, 106), 1e-9)
@given(arms(1), arms(1), ALPHAS)
def test_an_interval_holds_its_estimate_and_possible_values_only(one: Arm, zero: Arm, alpha: float) -> None:
    assert one.share is not None
    assert zero.share is not None
    share, gap = share_interval(*counts(one), alpha), difference_interval(*both(one, zero), alpha)
    assert 0 <= share.low <= one.share + 1e-12
    assert one.share - 1e-12 <= share.high <= 1
    assert -1 <= gap.low <= one.share - zero.share + 1e-12
    assert one.share - zero.share - 1e-12 <= gap.high <= 1


@UNTIMED
@given(arms(), arms(), ALPHAS)
def test_swapped_arms_mirror_the_interval(one: Arm, zero: Arm, alpha: float) -> None:
    there, back = (
        difference_interval(*both(one, zero), alpha),
        difference_interval(*both(zero, one), alpha),
    )
    assert math.isclose(there.low, -back.high, abs_tol=ROUNDING)
    assert math.isclose(there.high, -back.low, abs_tol=ROUNDING)


@UNTIMED
@given(arms(1), arms(), ALPHAS)
def test_a_request_gone_bad_never_speaks_for_the_candidate(one: Arm, zero: Arm, alpha: float) -> None:
    """Above 0, where margins are. Where all but some are bad, or good beside all bad, the prior sways it a little."""
    assume(one.events < one.trials)
    worse = Arm(one.trials, one.events + 1)
    share, share_worse = share_interval(*counts(one), alpha), share_interval(*counts(worse), alpha)
    gap, gap_worse = (
        difference_interval(*both(one, zero), alpha),
        difference_interval(*both(worse, zero), alpha),
    )
    assert share_worse.high >= share.high - ROUNDING
    assert share_worse.low >= share.low - ROUNDING
    assert gap.high < 0 or gap_worse.high >= gap.high - ROUNDING
    assert 2 * one.events > one.trials or gap_worse.low >= gap.low - ROUNDING


@UNTIMED
@given(arms(300), arms(300), st.sampled_from([0.0, 0.005, 0.02, 0.1]), ALPHAS)
def test_a_request_gone_bad_never_brings_a_pass(one: Arm, zero: Arm, margin: float, alpha: float) -> None:
    rule = MetricLimits("m", margin=margin)
    if one.events and judge(rule, RequestShares(one, zero), alpha).outcome is Outcome.PASS:
        assert judge(rule, RequestShares(Arm(one.trials, one.events - 1), zero), alpha).outcome is Outcome.PASS


@UNTIMED
@given(arms(), arms(), st.floats(0, 0.5), ALPHAS)
def test_a_wider_margin_never_turns_a_pass(one: Arm, zero: Arm, margin: float, alpha: float) -> None:
    narrow = judge(MetricLimits("m", margin=margin), RequestShares(one, zero), alpha).outcome
    wide = judge(MetricLimits("m", margin=margin + 0.1), RequestShares(one, zero), alpha).outcome
    if narrow is Outcome.PASS:
        assert wide is Outcome.PASS
    if wide is Outcome.FAIL:
        assert narrow is Outcome.FAIL


@UNTIMED
@given(arms(), st.integers(1, 99), ALPHAS)
def test_answers_that_agree_are_judged_as_those_that_differ_are(one: Arm, percent: int, alpha: float) -> None:
    bad = judge(MetricLimits("m", max=percent / 100), answers(one.trials - one.events, one.events), alpha)
    good = judge(MetricLimits("m", min=1 - percent / 100), answers(one.events, one.trials - one.events), alpha)
    assert bad.low is not None
    assert bad.high is not None
    assume(min(abs(bad.low - percent / 100), abs(bad.high - percent / 100)) > ROUNDING)
    assert (bad.outcome, bad.reason) == (good.outcome, good.reason)


VERDICTS = st.builds(
    Verdict,
    st.sampled_from("abc"),
    st.sampled_from(list(Outcome)),
    st.just("Reason"),
    st.just("message"),
    dry_run=st.booleans(),
)


@UNTIMED
@given(st.lists(VERDICTS, max_size=5), st.sets(st.sampled_from("abc")), st.randoms())
def test_verdicts_together_pass_only_when_nothing_speaks_against(
    verdicts: list[Verdict], declared: set[str], random: object
) -> None:
    combined = combine_verdicts(verdicts, declared=declared)
    shuffled = list(verdicts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert combine_verdicts(shuffled, declared=declared) is combined
    deciding = [verdict for verdict in verdicts if not verdict.dry_run]
    outcomes = {verdict.outcome for verdict in deciding}
    if combined is Outcome.PASS:
        assert outcomes == {Outcome.PASS}
        assert declared <= {verdict.metric for verdict in deciding}
    assert (combined is Outcome.FAIL) == (Outcome.FAIL in outcomes)


@st.composite
def counters(draw: st.DrawFn) -> tuple[list[tuple[float, float]], dict[float, int]]:
    """Samples of a counter that is watched from its birth, and what was added between each sample and the one before.

    A process that starts again has added what it shows then.
    """
    samples, added = [(0.0, 0.0)], {}
    at = value = 0
    for gap, step, restarts, lost in draw(
        st.lists(st.tuples(st.integers(1, 40), st.integers(0, 50), st.booleans(), st.booleans()), max_size=15)
    ):
        at += gap
        if lost:
            samples.append((float(at), draw(st.sampled_from([NAN, INF]))))
            continue
        if restarts and (step < value / 2 or step < value <= NEAR_ZERO_REQUESTS):
            added[float(at)], value = step, step
        else:
            added[float(at)], value = step, value + step
        samples.append((float(at), float(value)))
    return samples, added


def counted_growth(series: list[Series], start: float, end: float) -> float:
    return sum_growth(count_growth([series], start).groups[0], start, end)


@UNTIMED
@given(counters(), st.integers(0, 300), st.integers(0, 300))
def test_growth_is_correct_despite_restarts_and_lost_scrapes(
    made: tuple[list[tuple[float, float]], dict[float, int]], start: int, length: int
) -> None:
    samples, added = made
    expected = sum(count for at, count in added.items() if start < at <= start + length)
    one = Series({"instance": "a"}, tuple(samples))
    assert counted_growth([one], start, start + length) == expected
    since = max(at for at, value in samples if at <= start and math.isfinite(value))
    shortened = Series({"instance": "a"}, tuple(sample for sample in samples if sample[0] >= since))
    assert counted_growth([shortened], start, start + length) == expected


@UNTIMED
@given(st.lists(counters(), max_size=4), st.integers(0, 200), st.integers(0, 200), st.integers(0, 200), st.randoms())
def test_growth_adds_up_over_time_and_over_series_in_any_order(
    made: list[tuple[list[tuple[float, float]], dict[float, int]]], start: int, first: int, second: int, random: object
) -> None:
    series = [Series({"instance": str(i)}, tuple(samples)) for i, (samples, _) in enumerate(made)]
    whole = counted_growth(series, start, start + first + second)
    assert whole == counted_growth(series, start, start + first) + counted_growth(
        series, start + first, start + first + second
    )
    random.shuffle(series)  # type: ignore[attr-defined]
    assert whole == counted_growth(series, start, start + first + second)
    assert whole == sum(counted_growth([one], start, start + first + second) for one in series)


SAMPLES = st.lists(st.tuples(st.integers(0, 300), st.floats(0, 1e6)), max_size=8).map(
    lambda samples: tuple((float(at), value) for at, value in sorted(samples))
)
SERIES = st.builds(
    Series,
    st.fixed_dictionaries(
        {"instance": st.sampled_from("ab"), "le": st.sampled_from(["0.25", "2.5e-01", "1", "1.0", "+Inf"])}
    ),
    SAMPLES,
)


@UNTIMED
@given(st.lists(SERIES, max_size=5), st.lists(SERIES, max_size=5), st.integers(0, 300), st.integers(0, 300))
def test_counts_are_never_negative_and_bad_never_outnumber_all(
    bad: list[Series], total: list[Series], start: int, length: int
) -> None:
    found = count_growth([bad, total], start).groups
    with contextlib.suppress(MoreBadThanTotal):
        both = count_arm(*found, start, start + length)
        assert 0 <= both.events <= both.trials


@UNTIMED
@given(st.lists(SERIES, max_size=8), st.integers(0, 300), st.integers(0, 300), st.randoms())
def test_a_histogram_is_cumulative_in_any_order(series: list[Series], start: int, length: int, random: object) -> None:
    try:
        made = build_histogram(count_growth([series], start).groups[0], start, start + length)
    except ValueError:
        return
    assert [bound for bound, _ in made] == sorted(bound for bound, _ in made)
    assert [count for _, count in made] == sorted(count for _, count in made)
    shuffled = list(series)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert build_histogram(count_growth([shuffled], start).groups[0], start, start + length) == made
    slow = [count_over(made, bound) for bound, _ in made if math.isfinite(bound)]
    assert all(found is not None for found in slow)


POINTS = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=NEEDED_POINTS, max_size=60)


@UNTIMED
@given(POINTS, st.booleans())
def test_at_most_one_revision_wins(pairs: list[tuple[int, int]], higher: bool) -> None:
    there = decide_winner("m", pairs, alpha=0.05, higher_is_better=higher)
    back = decide_winner("m", [(zero, one) for one, zero in pairs], alpha=0.05, higher_is_better=higher)
    assert Outcome.FAIL in (there.outcome, back.outcome)
    assert there.low == pytest.approx(-(back.high or 0.0))


@UNTIMED
@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=NEEDED_POINTS - 1), st.booleans())
def test_too_few_points_never_win(few: list[tuple[float, float]], higher: bool) -> None:
    assert decide_winner("m", few, alpha=0.05, higher_is_better=higher).outcome is Outcome.INCONCLUSIVE


@UNTIMED
@given(st.integers(1, 30), st.integers(0, 30), st.sampled_from([0.05, 0.001]), st.sampled_from([1, 4, 9]))
def test_with_the_needed_number_the_expected_outcome_is_decided(
    margin: int, base: int, alpha: float, ratio: int
) -> None:
    needed = estimate_samples(margin / 100, base / 100, alpha, ratio=ratio)
    assert needed is not None
    # Whole requests in whole blocks are a little less even than those of the plan.
    one, zero = (spread(1.05 * n + 20, n * base / 100) for n in (needed, needed * ratio))
    sums = [Arm(sum(block.trials for block in arm), sum(block.events for block in arm)) for arm in (one, zero)]
    rule = MetricLimits("m", margin=margin / 100, min_samples=1)
    assert judge(rule, RequestShares(*sums, blocks=(one, zero)), alpha).outcome is Outcome.PASS


def spread(trials: float, events: float, blocks: int = 20) -> tuple[Block, ...]:
    """Counts in equal blocks, as far as whole numbers can be."""
    ends = [(round(trials * n / blocks), round(events * n / blocks)) for n in range(blocks + 1)]
    return tuple(
        Block(15.0 * n, then[0] - before[0], min(then[0] - before[0], then[1] - before[1]))
        for n, (before, then) in enumerate(pairwise(ends), 1)
    )
