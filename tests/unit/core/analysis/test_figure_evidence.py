"""One-sided tests of an evaluation's figures: their level by exact enumeration, their values against scipy's."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from modelwright.core.analysis.figure_evidence import (
    FigureEvidence,
    MeanOfExamples,
    PairedExamples,
    ShareOfExamples,
    equally_good,
    incomplete_beta,
    lower_bound,
    student_cdf,
    upper_bound,
)
from tests.simulate.gates import LIMITS, SIZES, level_of_pairs


@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.01, 0.05 / 32, 0.05 / 128])
def test_pairs_keep_their_level_at_every_number_of_examples(alpha: float) -> None:
    levels = {(n, limit): level_of_pairs(n, limit, alpha) for n in SIZES for limit in LIMITS}
    worst = max(levels, key=lambda cell: levels[cell])
    assert levels[worst] <= alpha, worst
    # It is not kept by never claiming anything.
    assert levels[worst] > 0.8 * alpha


@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.01])
def test_pairs_come_near_their_level_where_examples_are_many(alpha: float) -> None:
    assert level_of_pairs(2000, -0.02, alpha) > 0.75 * alpha


@pytest.mark.parametrize(("n", "better", "worse"), [(310, 12, 9), (2000, 60, 60), (20, 0, 3), (50, 0, 0), (9, 5, 4)])
def test_the_interval_of_pairs_mirrors_and_holds_the_difference(n: int, better: int, worse: int) -> None:
    one, other = PairedExamples(n, better, worse), PairedExamples(n, worse, better)
    assert lower_bound(one, 0.05) == pytest.approx(-upper_bound(other, 0.05), abs=1e-9)
    assert lower_bound(one, 0.05) < (better - worse) / n < upper_bound(one, 0.05)
    assert lower_bound(one, 0.01) < lower_bound(one, 0.05)


@pytest.mark.parametrize(("n", "events"), [(1, 0), (1, 1), (20, 18), (310, 273), (2000, 2000), (10**6, 1234)])
def test_a_share_has_the_exact_interval(n: int, events: int) -> None:
    share = ShareOfExamples(n, events, events)
    low = stats.beta.ppf(0.05, events, n - events + 1) if events else 0.0
    high = stats.beta.ppf(0.95, events + 1, n - events) if events < n else 1.0
    assert (lower_bound(share, 0.05), upper_bound(share, 0.05)) == pytest.approx((low, high), abs=1e-9)


# Student's table, as in Abramowitz and Stegun 26.10 and NIST's handbook 1.3.6.7.2: upper 5 % and 0.5 %.
TABLE = [
    (1, 6.314, 63.657),
    (2, 2.920, 9.925),
    (4, 2.132, 4.604),
    (10, 1.812, 3.169),
    (30, 1.697, 2.750),
    (120, 1.658, 2.617),
]


@pytest.mark.parametrize(("degrees", "five", "half"), TABLE)
def test_students_t_is_the_tables(degrees: int, five: float, half: float) -> None:
    assert lower_bound(MeanOfExamples(0.0, 1.0, degrees + 1), 0.05) == pytest.approx(-five, abs=0.0006)
    assert upper_bound(MeanOfExamples(0.0, 1.0, degrees + 1), 0.005) == pytest.approx(half, abs=0.0006)


@pytest.mark.parametrize("degrees", [1, 2, 7, 100, 10**6, 10**12])
@pytest.mark.parametrize("t", [-40.0, -2.0, 0.0, 0.1, 3.0])
def test_students_t_is_scipys(degrees: int, t: float) -> None:
    assert student_cdf(t, degrees) == pytest.approx(stats.t.cdf(t, degrees), abs=1e-7)


@settings(deadline=None)
@given(x=st.floats(0, 1), a=st.floats(0.3, 1e6), b=st.floats(0.3, 1e6))
def test_the_incomplete_beta_function_is_scipys(x: float, a: float, b: float) -> None:
    assert incomplete_beta(x, a, b) == pytest.approx(special.betainc(a, b, x), abs=1e-7)


def counts() -> st.SearchStrategy[FigureEvidence]:
    pairs = st.integers(2, 3000).flatmap(
        lambda n: st.integers(0, n).flatmap(lambda b: st.integers(0, n - b).map(lambda w: PairedExamples(n, b, w)))
    )
    shares = st.integers(2, 3000).flatmap(lambda n: st.integers(0, n).map(lambda k: ShareOfExamples(n, k, k)))
    means = st.builds(MeanOfExamples, st.floats(-9, 9), st.floats(0.001, 9), st.integers(2, 3000))
    return st.one_of(pairs, shares, means)


@settings(deadline=None)
@given(evidence=counts(), one=st.floats(-1.2, 1.2), other=st.floats(-1.2, 1.2))
def test_no_limit_that_is_lower_has_less_against_it(evidence: FigureEvidence, one: float, other: float) -> None:
    low, high = sorted((one, other))
    for seen in (evidence, evidence.negated(), evidence.negated().negated()):
        assert 0 <= seen.p_value(low) <= seen.p_value(high) + 1e-9
        assert seen.p_value(high) <= 1
    # What is proven to be above a limit is not proven to be below it.
    assert evidence.p_value(one) + evidence.negated().p_value(-one) >= 0.99


@pytest.mark.parametrize(
    ("differing", "limit", "examples"),
    [(0.06, -0.005, 21_022), (0.06, -0.02, 1_447), (0.02, -0.05, 172), (0.06, 0.0, None)],
)
def test_how_many_examples_an_equal_candidate_needs(differing: float, limit: float, examples: int | None) -> None:
    assert equally_good(differing).required_examples(limit, 0.05, 0.9) == examples


@pytest.mark.parametrize(
    ("evidence", "limit", "examples"),
    [
        (ShareOfExamples(2000, 1860, 1860), 0.92, 6_079),
        (MeanOfExamples(1.0, 0.1, 100), 1.25, 138),
        (MeanOfExamples(1.0, 0.1, 100), 1.0, None),
    ],
)
def test_how_many_examples_tell_a_figure_from_its_limit(
    evidence: FigureEvidence, limit: float, examples: int | None
) -> None:
    assert evidence.required_examples(limit, 0.05, 0.9) == examples
    assert evidence.negated().required_examples(-limit, 0.05, 0.9) == examples
