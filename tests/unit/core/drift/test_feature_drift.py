"""Many features have one error rate, more rows find smaller changes, and missing or unknown values are seen."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from scipy import stats

from modelwright.core.drift import bins, feature_drift
from modelwright.core.drift.bins import FeatureValue
from modelwright.core.drift.feature_drift import Aspect, Correction, DriftMethods, DriftReport, ShareComparison

Draw = Callable[[random.Random], FeatureValue]
SEEDS = 200
ALLOWED = 19
"""Of 200 comparisons at 5 %: 20 and more have a probability under 0.1 %."""


def compare(
    before: dict[str, list[FeatureValue]], now: dict[str, list[FeatureValue]], comparison: DriftMethods | None = None
) -> DriftReport:
    made = {name: bins.build_bins(sample, most=bins.MAX_ORDERED_BINS) for name, sample in before.items()}
    return feature_drift.compare_features(
        {name: (of, of.count_values(now[name])) for name, of in made.items()}, comparison or DriftMethods()
    )


def label(share: float) -> Draw:
    return lambda r: "x" if r.random() < share else str(r.randrange(5))


def missing(share: float) -> Draw:
    return lambda r: math.nan if r.random() < share else r.gauss(0, 1)


def text(share: float) -> Draw:
    return lambda r: f"new {r.random()}" if r.random() < share else str(r.randrange(5))


def found(before: Draw, now: Draw, rows: int, seeds: int = 40) -> float:
    """Return the share of comparisons that report drift."""
    alarms = 0
    for seed in range(seeds):
        r = random.Random(seed)
        one = compare({"a": [before(r) for _ in range(1000)]}, {"a": [now(r) for _ in range(rows)]})
        alarms += one.excess > 1
    return alarms / seeds


POWER = [
    ("a label from 10 to 20 %, 500 rows", label(0.1), label(0.2), 500),
    ("a label from 10 to 20 %, 2,000 rows", label(0.1), label(0.2), 2000),
    ("a label from 5 to 10 %, 2,000 rows", label(0.05), label(0.1), 2000),
    ("missing from 1 to 4 %, 2,000 rows", missing(0.01), missing(0.04), 2000),
    ("unknown labels, 4 % of 500 rows", text(0), text(0.04), 500),
    ("0.3 standard deviations, 2,000 rows", lambda r: r.gauss(0, 1), lambda r: r.gauss(0.3, 1), 2000),
]


@pytest.mark.parametrize(("before", "now", "rows"), [case[1:] for case in POWER], ids=[case[0] for case in POWER])
def test_a_changed_field_differs(before: Draw, now: Draw, rows: int) -> None:
    assert found(before, now, rows) >= 0.9


def test_more_rows_find_more() -> None:
    few, many = (found(label(0.1), label(0.15), rows) for rows in (200, 2000))
    assert few < many
    assert many >= 0.8


def test_below_the_users_floor_is_no_drift_at_any_row_count() -> None:
    r = random.Random(1)
    before: dict[str, list[FeatureValue]] = {"a": [r.gauss(0, 1) for _ in range(10_000)]}
    now: dict[str, list[FeatureValue]] = {"a": [r.gauss(0.1, 1) for _ in range(100_000)]}
    assert compare(before, now).excess < 1
    assert compare(before, now, DriftMethods(numbers_floor=0.01)).excess > 1


@pytest.mark.parametrize("correction", Correction)
@pytest.mark.parametrize("rows", [50, 500])
def test_many_features_have_one_chance_of_5_percent(correction: Correction, rows: int) -> None:
    alarms, names = 0, [str(number) for number in range(12)]
    draws: list[Draw] = [lambda r: r.gauss(0, 1), label(0.1), missing(0.02)]
    for seed in range(SEEDS):
        r = random.Random(seed)
        of = {name: draws[int(name) % 3] for name in names}
        before = {name: [of[name](r) for _ in range(300)] for name in names}
        now = {name: [of[name](r) for _ in range(rows)] for name in names}
        alarms += compare(before, now, DriftMethods(correction=correction)).excess > 1
    assert alarms <= ALLOWED


def test_the_false_discovery_rate_finds_more_of_many() -> None:
    r = random.Random(3)
    names = [str(number) for number in range(20)]
    before: dict[str, list[FeatureValue]] = {name: [r.gauss(0, 1) for _ in range(1000)] for name in names}
    now: dict[str, list[FeatureValue]] = {name: [r.gauss(0.22, 1) for _ in range(400)] for name in names}
    one, all_ = (
        sum(figure.excess > 1 for figure in compare(before, now, DriftMethods(correction=correction)).figures)
        for correction in Correction
    )
    assert one < all_


SHARES = [
    ShareComparison(3, 1000, 9, 300, only_more=False),
    ShareComparison(0, 1000, 3, 200, only_more=True),
    ShareComparison(40, 1000, 2, 300, only_more=False),
    ShareComparison(900, 1000, 290, 300, only_more=False),
]


@pytest.mark.parametrize("share", SHARES)
def test_shares_of_few_events_are_compared_by_fishers_exact_test(share: ShareComparison) -> None:
    table = [[share.now, share.seen - share.now], [share.before, share.rows - share.before]]
    more = stats.fisher_exact(table, "greater").pvalue
    wanted = more if share.only_more else min(1.0, 2 * min(more, stats.fisher_exact(table, "less").pvalue))
    assert share.tail_probability() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("tail", [0.05, 1e-3])
@pytest.mark.parametrize("now", range(40))
@pytest.mark.parametrize("only_more", [True, False])
def test_a_share_exceeds_its_limit_when_its_tail_is_small(tail: float, now: int, only_more: bool) -> None:
    share = ShareComparison(12, 1000, now, 300, only_more)
    beyond = abs(share.value) > share.chance_limit(tail) and (share.value > 0 or not only_more)
    assert beyond == (share.tail_probability() <= tail)


def test_labels_seen_once_predict_unknown_ones() -> None:
    def tailed(r: random.Random) -> FeatureValue:
        return str(int(r.paretovariate(0.9)))

    assert found(tailed, tailed, 500, seeds=SEEDS) <= ALLOWED / SEEDS


def test_fewer_unknown_labels_than_expected_are_no_drift() -> None:
    once = [f"once {n}" for n in range(100)]
    common = ["x"] * 600 + ["y"] * 300
    found = compare({"plan": [*common, *once]}, {"plan": [*common, *once[:10] * 10]})
    (unknown,) = (figure for figure in found.figures if figure.aspect is Aspect.UNKNOWN)
    assert unknown.value == pytest.approx(-0.1)
    assert found.excess < 1


def test_free_text_is_reported_as_not_watched() -> None:
    r = random.Random(1)
    before: dict[str, list[FeatureValue]] = {"comment": [f"{r.random()}" for _ in range(300)], "age": [1.0, 2.0] * 150}
    now: dict[str, list[FeatureValue]] = {"comment": ["bonjour"] * 100, "age": [1.0, 2.0] * 50}
    found = compare(before, now)
    assert found.unwatched == ("comment",)
    assert {figure.feature for figure in found.figures} == {"age"}


def test_the_worst_features_are_listed_once_each() -> None:
    before: dict[str, list[FeatureValue]] = {name: [float(n % 10) for n in range(1000)] for name in "abcd"}
    now: dict[str, list[FeatureValue]] = {
        "a": [math.nan] * 60 + [9.0] * 140,
        "b": [float(n % 10) for n in range(200)],
        "c": [math.nan] * 20 + [float(n % 10) for n in range(180)],
        "d": [float(n % 5) for n in range(200)],
    }
    worst = compare(before, now).list_worst(3)
    assert {figure.feature for figure in worst} == {"a", "c", "d"}
    assert {figure.feature: figure.aspect for figure in worst}["c"] is Aspect.MISSING
    assert all(figure.excess > 1 for figure in worst)


def test_categories_have_no_method_of_numbers() -> None:
    with pytest.raises(ValueError, match="not categories"):
        DriftMethods(categories=feature_drift.DistanceMethod.WASSERSTEIN)


def test_nothing_to_compare_is_no_drift() -> None:
    assert compare({}, {}).excess == 0
