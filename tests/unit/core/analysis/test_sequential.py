"""Always-valid intervals against brute force, known values and simulated truth."""

import math
import random

import numpy as np
import pytest
from scipy import integrate, optimize, special, stats

from modelwright.core.analysis.sequential import SHARE_PRIOR, Interval, difference_interval, share_interval

ARMS = [(0, 0), (1, 0), (1, 1), (10, 0), (10, 10), (10, 3), (300, 0), (300, 3), (300, 150), (300, 300), (20000, 260)]
ALPHAS = [0.05, 0.0125, 1e-6]


def log_martingale(trials: int, events: int, p: float) -> float:
    """By its definition: the likelihood averaged over the prior, by the likelihood at p."""
    a, b = SHARE_PRIOR
    mixture = stats.betabinom.logpmf(events, trials, a, b)
    return float(mixture - stats.binom.logpmf(events, trials, p))


def marginal(trials: int, events: int) -> float:
    """Likelihood of one sequence of requests, averaged over the prior."""
    a, b = SHARE_PRIOR
    return float(special.beta(a + events, b + trials - events) / special.beta(a, b))


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("trials", "events"), ARMS)
def test_the_interval_of_a_share_ends_at_the_martingales_bound(trials: int, events: int, alpha: float) -> None:
    found = share_interval(trials, events, alpha)
    bound = -math.log(alpha)
    for end, edge in ((found.low, 0.0), (found.high, 1.0)):
        if end not in (edge, 0.0, 1.0) and abs(end - edge) > 1e-9:
            assert log_martingale(trials, events, end) == pytest.approx(bound, abs=1e-4)
        else:
            assert end == pytest.approx(edge, abs=1e-9)


@pytest.mark.parametrize("alpha", ALPHAS[:2])
@pytest.mark.parametrize("zero", [(0, 0), (10, 3), (300, 0), (2700, 30), (10, 10)])
@pytest.mark.parametrize("one", [(1, 0), (10, 10), (300, 3), (300, 150)])
def test_the_interval_of_a_difference_projects_the_set(
    one: tuple[int, int], zero: tuple[int, int], alpha: float
) -> None:
    found = difference_interval(*one, *zero, alpha)
    (n1, k1), (n0, k0) = one, zero
    apart = marginal(n1, k1) * marginal(n0, k0)
    bound = -math.log(alpha) + math.log(apart) - math.log((apart + marginal(n1 + n0, k1 + k0)) / 2)

    def least(d: float) -> float:
        low, high = max(0.0, -d), min(1.0, 1 - d)
        minimum = optimize.minimize_scalar(
            lambda p: log_martingale(*zero, p) + log_martingale(*one, p + d),
            bounds=(low, high),
            method="bounded",
            options={"xatol": 1e-12},
        )
        ends = [log_martingale(*zero, p) + log_martingale(*one, min(1.0, max(0.0, p + d))) for p in (low, high)]
        return min(float(minimum.fun), *ends)

    for end, outwards in ((found.low, -1), (found.high, 1)):
        nudge = 1e-3 * max(1e-2, found.high - found.low)
        inside, outside = end - outwards * nudge, end + outwards * nudge
        assert least(inside) < bound
        if -1 < outside < 1:
            assert least(outside) > bound


@pytest.mark.parametrize(("trials", "p"), [(1, 0.3), (5, 0.01), (20, 0.9)])
def test_the_martingale_has_mean_one_under_the_truth(trials: int, p: float) -> None:
    mean = sum(
        math.comb(trials, k) * p**k * (1 - p) ** (trials - k) * math.exp(log_martingale(trials, k, p))
        for k in range(trials + 1)
    )
    assert mean == pytest.approx(1)


@pytest.mark.parametrize(("p1", "p0"), [(0.1, 0.1), (0.3, 0.05), (0.01, 0.9)])
def test_the_martingale_of_two_arms_has_mean_one_under_the_truth(p1: float, p0: float) -> None:
    n1, n0 = 4, 7
    mean = 0.0
    for k1 in range(n1 + 1):
        for k0 in range(n0 + 1):
            sequences = math.comb(n1, k1) * math.comb(n0, k0)
            mean += sequences * (marginal(n1, k1) * marginal(n0, k0) + marginal(n1 + n0, k1 + k0)) / 2
            found = difference_interval(n1, k1, n0, k0, 0.05)
            assert found.low <= k1 / n1 - k0 / n0 <= found.high
    assert mean == pytest.approx(1)
    assert sum(marginal(n1, k) * math.comb(n1, k) for k in range(n1 + 1)) == pytest.approx(1)
    assert log_martingale(n1, 1, p1) + log_martingale(n0, 1, p0) == pytest.approx(
        math.log(marginal(n1, 1) * marginal(n0, 1)) - math.log(p1 * (1 - p1) ** (n1 - 1) * p0 * (1 - p0) ** (n0 - 1))
    )


def test_the_mixture_is_the_average_over_the_prior() -> None:
    average, _ = integrate.quad(lambda p: stats.beta.pdf(p, *SHARE_PRIOR) * stats.binom.pmf(3, 10, p), 0, 1)
    assert math.log(average) - stats.binom.logpmf(3, 10, 0.2) == pytest.approx(log_martingale(10, 3, 0.2), abs=1e-6)


def test_without_requests_nothing_is_known() -> None:
    assert share_interval(0, 0, 0.05) == Interval(0, 1)
    assert difference_interval(0, 0, 0, 0, 0.05) == Interval(-1, 1)
    nothing_of_serving = difference_interval(1000, 0, 0, 0, 0.05)
    assert nothing_of_serving.low == -1
    assert nothing_of_serving.high < 0.02


def test_swapping_the_arms_mirrors_the_interval() -> None:
    there, back = difference_interval(400, 7, 3600, 30, 0.01), difference_interval(3600, 30, 400, 7, 0.01)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))


def test_a_smaller_level_gives_a_wider_interval() -> None:
    wide, narrow = (difference_interval(400, 7, 3600, 30, alpha) for alpha in (0.001, 0.05))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("count", [10**6, 10**9, 10**12])
def test_huge_counts_lose_no_sense(count: int) -> None:
    found = difference_interval(count, count // 100, count, count // 100, 0.01)
    assert found.low < 0 < found.high
    assert found.high - found.low < 5 * math.sqrt(100 / count)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, 2.0, math.nan])
def test_a_level_that_is_none_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        share_interval(1, 0, alpha)


def test_at_all_measurements_together_the_truth_is_inside() -> None:
    """200 runs of 30 measurements at level 0.2: 40 may miss it at any; 63 would be four deviations more."""
    draw = np.random.default_rng(4)
    missed = 0
    for _ in range(200):
        one = np.cumsum(draw.binomial(20, 0.05, 30)).tolist()
        zero = np.cumsum(draw.binomial(60, 0.02, 30)).tolist()
        looks = ((20 * i, one[i - 1], 60 * i, zero[i - 1]) for i in range(1, 31))
        missed += any(0.03 not in difference_interval(*counts, 0.2) for counts in looks)
    assert missed <= 63


def test_the_order_of_the_arms_requests_does_not_matter() -> None:
    """Only counts enter, so the interval is the same in any order of requests; here for fractions of them."""
    draw = random.Random(4)
    events = [draw.random() < 0.1 for _ in range(200)]
    shuffled = draw.sample(events, len(events))
    assert share_interval(200, sum(events), 0.05) == share_interval(200, sum(shuffled), 0.05)
