"""The one decision at the end of an A/B test."""

import math
import random

import pytest
from scipy import stats

from modelwright.core.analysis.evidence import Outcome
from modelwright.core.analysis.ranks import MOST_POINTS, NEEDED_POINTS, decide_winner, mann_whitney


def points(seed: int, count: int, mean: float, *, rounded: bool = False) -> list[float]:
    draw = random.Random(seed)
    return [round(value) if rounded else value for value in (draw.gauss(mean, 1) for _ in range(count))]


@pytest.mark.parametrize("rounded", [False, True], ids=["no ties", "many ties"])
@pytest.mark.parametrize(("n1", "n0", "mean"), [(30, 30, 0.0), (30, 45, 0.5), (8, 50, -1.0), (100, 100, 0.3)])
def test_it_agrees_with_scipy(n1: int, n0: int, mean: float, rounded: bool) -> None:
    one, zero = points(1, n1, mean, rounded=rounded), points(2, n0, 0, rounded=rounded)
    expected = stats.mannwhitneyu(one, zero, alternative="greater", method="asymptotic", use_continuity=True)
    found = mann_whitney(one, zero, 0.05)
    assert found.u == expected.statistic
    assert found.larger == pytest.approx(expected.pvalue, abs=1e-12)


def test_the_shift_is_the_median_of_all_differences() -> None:
    assert mann_whitney([1, 5, 6], [0, 2], 0.05).shift == 3.5


def test_the_interval_of_the_shift_holds_the_truth_as_often_as_it_says() -> None:
    """1,000 runs with 5 % on each side: 100 may miss it; 140 would be four standard deviations more."""
    missed = 0
    for seed in range(1000):
        found = mann_whitney(points(seed, 30, 0.7), points(-1 - seed, 30, 0), 0.05)
        missed += not found.low <= 0.7 <= found.high
    assert missed <= 140


def test_equal_points_prove_nothing() -> None:
    found = mann_whitney([3.0] * 40, [3.0] * 40, 0.05)
    assert (found.larger, found.shift) == (1, 0)


def test_few_points_have_no_bounded_interval() -> None:
    found = mann_whitney([1.0], [2.0], 0.05)
    assert (found.low, found.high) == (-math.inf, math.inf)


def test_an_empty_group_is_refused() -> None:
    with pytest.raises(ValueError, match="both groups"):
        mann_whitney([], [1.0], 0.05)


WINNERS = [
    ("better by far", 2.0, True, 0.0, Outcome.PASS),
    ("the same", 0.0, True, 0.0, Outcome.FAIL),
    ("worse", -2.0, True, 0.0, Outcome.FAIL),
    ("lower where lower is better", -2.0, False, 0.0, Outcome.PASS),
    ("higher where lower is better", 2.0, False, 0.0, Outcome.FAIL),
    ("better, but not by the margin", 1.0, True, 2.0, Outcome.FAIL),
    ("better by more than the margin", 3.0, True, 1.0, Outcome.PASS),
    ("lower by more than the margin", -3.0, False, 1.0, Outcome.PASS),
]


@pytest.mark.parametrize(("case", "mean", "higher", "margin", "expected"), WINNERS, ids=[case for case, *_ in WINNERS])
def test_the_winner(case: str, mean: float, higher: bool, margin: float, expected: Outcome) -> None:
    told = decide_winner(
        "score", points(3, 60, mean), points(4, 60, 0), alpha=0.05, higher_is_better=higher, margin=margin
    )
    assert told.outcome is expected
    assert told.low is not None
    assert told.high is not None
    assert told.low < told.high
    assert told.low <= mean <= told.high


@pytest.mark.parametrize(("n1", "n0"), [(NEEDED_POINTS - 1, 100), (100, NEEDED_POINTS - 1), (0, 0)])
def test_too_few_points_decide_nothing(n1: int, n0: int) -> None:
    told = decide_winner("score", points(1, n1, 9), points(2, n0, 0), alpha=0.05, higher_is_better=True)
    assert (told.outcome, told.reason) == (Outcome.INCONCLUSIVE, "InsufficientPoints")
    assert f"{NEEDED_POINTS} of each are needed" in told.message


def test_what_is_no_number_is_no_point() -> None:
    told = decide_winner("score", [math.nan] * 60, points(2, 60, 0), alpha=0.05, higher_is_better=True)
    assert told.samples == 0
    assert told.outcome is Outcome.INCONCLUSIVE


def test_the_needed_points_find_one_standard_deviation_nine_times_of_ten() -> None:
    """At p < 0.02, as research measured; 200 runs."""
    found = sum(
        mann_whitney(points(seed, NEEDED_POINTS, 1), points(-1 - seed, NEEDED_POINTS, 0), 0.02).larger < 0.02
        for seed in range(200)
    )
    assert found >= 170


def test_many_points_are_thinned_evenly() -> None:
    told = decide_winner(
        "score", points(1, 20 * MOST_POINTS, 1), points(2, 20 * MOST_POINTS, 0), alpha=0.05, higher_is_better=True
    )
    assert told.outcome is Outcome.PASS
    assert told.samples == 20 * MOST_POINTS
