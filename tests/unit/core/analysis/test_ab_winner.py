"""The one decision about values at the end of an A/B test."""

import math
import random

import numpy as np
import pytest
from scipy import stats

from modelwright.core.analysis.ab_winner import NEEDED_POINTS, decide_winner
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.analysis.figure_evidence import student_cdf

Pairs = list[tuple[float, float]]


def course(seed: int, count: int, mean: float, correlation: float = 0.0) -> Pairs:
    """Both revisions' values, each of which resembles the one before it; the candidate's are higher by `mean`."""
    draw = np.random.default_rng(seed)
    steps = draw.normal(size=(2, count)) * math.sqrt(1 - correlation**2)
    values = np.empty((2, count))
    values[:, 0] = draw.normal(size=2)
    for at in range(1, count):
        values[:, at] = correlation * values[:, at - 1] + steps[:, at]
    return [(one + mean, zero) for one, zero in values.T.tolist()]


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
    verdict = decide_winner("score", course(3, 60, mean), alpha=0.05, higher_is_better=higher, margin=margin)
    assert verdict.outcome is expected
    assert verdict.low is not None
    assert verdict.high is not None
    assert verdict.low < mean < verdict.high


@pytest.mark.parametrize(("count", "correlation"), [(30, 0.0), (30, 0.5), (30, 0.9), (60, 0.3), (60, 0.8)])
def test_equal_revisions_rarely_win_at_any_autocorrelation(count: int, correlation: float) -> None:
    """400 tests at 5 %: 33 would be three standard deviations too many."""
    won = 0
    for seed in range(400):
        verdict = decide_winner("score", course(seed, count, 0.0, correlation), alpha=0.05, higher_is_better=True)
        won += verdict.outcome is Outcome.PASS
    assert won <= 33


def test_thirty_independent_points_find_one_standard_deviation() -> None:
    won = 0
    for seed in range(200):
        pairs = [(one / math.sqrt(2) + 1, zero / math.sqrt(2)) for one, zero in course(seed, NEEDED_POINTS, 0.0)]
        verdict = decide_winner("score", pairs, alpha=0.05, higher_is_better=True)
        won += verdict.outcome is Outcome.PASS
    assert won >= 180


def test_common_influences_cancel_out() -> None:
    load = [10 * math.sin(at / 5) for at in range(60)]
    draw = random.Random(1)
    pairs = [(load[at] + 0.5 + draw.gauss(0, 0.3), load[at] + draw.gauss(0, 0.3)) for at in range(60)]
    assert decide_winner("score", pairs, alpha=0.05, higher_is_better=True).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("case", "pairs", "expected"),
    [
        ("equal values", [(float(at), float(at)) for at in range(30)], Outcome.FAIL),
        ("always the same distance", [(at + 2.0, float(at)) for at in range(30)], Outcome.PASS),
        ("values that never change", [(5.0, 3.0)] * 60, Outcome.FAIL),
        ("values that changed once", [(5.0, 3.0)] * 30 + [(6.0, 3.0)] * 30, Outcome.FAIL),
    ],
)
def test_values_without_chance(case: str, pairs: Pairs, expected: Outcome) -> None:
    assert decide_winner("score", pairs, alpha=0.05, higher_is_better=True).outcome is expected


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_moments_without_both_values_do_not_count(broken: float) -> None:
    pairs = [*course(1, NEEDED_POINTS - 1, 5.0), (broken, 1.0), (1.0, broken)]
    verdict = decide_winner("score", pairs, alpha=0.05, higher_is_better=True)
    assert (verdict.outcome, verdict.reason, verdict.samples) == (
        Outcome.INCONCLUSIVE,
        "InsufficientPoints",
        NEEDED_POINTS - 1,
    )


@pytest.mark.parametrize("degrees", [1, 1.5, 4, 29, 58.7, 1000])
@pytest.mark.parametrize("t", [-50.0, -2.5, -0.1, 0.0, 1.0, 2.132, 12.0, 1e6])
def test_the_distribution_is_that_of_scipy(t: float, degrees: float) -> None:
    assert student_cdf(t, degrees) == pytest.approx(stats.t.cdf(t, degrees), abs=1e-12)
