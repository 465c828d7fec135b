"""Bets on a bounded mean keep their level for every distribution, and counts are enough to compute them."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from modelwright.core.analysis.betting import (
    BOLD_BETS,
    CAREFUL_BETS,
    Bets,
    decide_mean,
    log_wealth,
    mean_interval,
    split_value,
)
from modelwright.core.analysis.comparison_summary import DISAGREEMENT_POINTS
from modelwright.core.analysis.evidence import ValueSample
from modelwright.core.analysis.planning import estimate_answers, estimate_samples

UNTIMED = settings(deadline=None)
ROUNDING = 1e-9
ALPHAS = st.sampled_from([0.05, 0.0125, 1e-4])
SIDES = st.booleans()
BETS = st.sampled_from([BOLD_BETS, CAREFUL_BETS])
SHARES = st.floats(0.0, 1.0).map(lambda share: round(share, 6))
LIMITS = st.sampled_from([0.001, 0.02, 0.3, 0.5, 0.97])


def counted(values: Sequence[float], points: Sequence[float] = DISAGREEMENT_POINTS) -> ValueSample:
    """The values as the comparer counts them."""
    parts: Counter[float] = Counter()
    for value in values:
        for index, part in split_value(value, points):
            parts[points[index]] += part
    return ValueSample(points[0], points[-1], tuple(parts.items()))


def exactly(values: Sequence[float], low: float = 0.0, high: float = 1.0) -> ValueSample:
    return ValueSample(low, high, tuple(Counter(values).items()))


def log_mean_of_products(values: Sequence[float], limit: float, *, above: bool, bets: Bets) -> float:
    """The wealth by its definition, value by value, for values from 0 to 1."""
    total = 0.0
    for bet, log_weight in bets:
        gains = [(x - limit) / limit if above else (limit - x) / (1 - limit) for x in values]
        total += math.exp(log_weight) * math.prod(1 + bet * gain for gain in gains)
    return math.log(total)


@pytest.mark.parametrize("bets", [BOLD_BETS, CAREFUL_BETS])
def test_bets_leave_something_and_their_weights_sum_to_one(bets: Bets) -> None:
    assert all(0 <= bet < 1 for bet, _ in bets)
    assert math.fsum(math.exp(log) for _, log in bets) == pytest.approx(1)


@UNTIMED
@given(st.lists(st.sampled_from(DISAGREEMENT_POINTS), max_size=12), LIMITS, SIDES, BETS)
def test_wealth_is_the_mean_of_products_in_any_order(
    values: list[float], limit: float, above: bool, bets: Bets
) -> None:
    wanted = log_mean_of_products(values, limit, above=above, bets=bets)
    assert log_wealth(counted(values), limit, above=above, bets=bets) == pytest.approx(wanted, abs=1e-9)


@st.composite
def distributions(draw: st.DrawFn, values: st.SearchStrategy[float]) -> list[tuple[float, float]]:
    """(value, probability) of two to four values."""
    found = draw(st.lists(values, min_size=2, max_size=4, unique=True))
    parts = draw(st.lists(st.integers(1, 100), min_size=len(found), max_size=len(found)))
    return [(value, part / sum(parts)) for value, part in zip(found, parts, strict=True)]


@UNTIMED
@given(distributions(SHARES), SIDES, BETS, st.integers(1, 3))
def test_on_the_limit_the_mean_wealth_is_at_most_one(
    values: list[tuple[float, float]], above: bool, bets: Bets, length: int
) -> None:
    mean = math.fsum(value * probability for value, probability in values)
    assume(1e-3 < mean < 1 - 1e-3)
    expected = math.fsum(
        math.prod(probability for _, probability in run)
        * math.exp(log_wealth(counted([value for value, _ in run]), mean, above=above, bets=bets))
        for run in itertools.product(values, repeat=length)
    )
    assert expected <= 1 + ROUNDING
    if all(value in DISAGREEMENT_POINTS for value, _ in values):
        assert expected == pytest.approx(1)


@UNTIMED
@given(distributions(st.sampled_from([-1.0, 0.0, 1.0])), SIDES, BETS, st.integers(1, 4))
def test_on_the_limit_the_mean_wealth_of_pairs_is_one(
    values: list[tuple[float, float]], above: bool, bets: Bets, length: int
) -> None:
    mean = math.fsum(value * probability for value, probability in values)
    expected = math.fsum(
        math.prod(probability for _, probability in run)
        * math.exp(log_wealth(exactly([value for value, _ in run], -1.0), mean, above=above, bets=bets))
        for run in itertools.product(values, repeat=length)
    )
    assert expected == pytest.approx(1)


@UNTIMED
@given(st.lists(SHARES, max_size=12), LIMITS, SIDES, BETS)
def test_counting_by_points_never_adds_wealth(values: list[float], limit: float, above: bool, bets: Bets) -> None:
    by_points = log_wealth(counted(values), limit, above=above, bets=bets)
    assert by_points <= log_mean_of_products(values, limit, above=above, bets=bets) + ROUNDING


@given(st.floats(0.0, 1.0))
def test_a_value_is_split_into_parts_that_keep_its_mean(value: float) -> None:
    parts = split_value(value, DISAGREEMENT_POINTS)
    assert math.fsum(part for _, part in parts) == pytest.approx(1)
    assert math.fsum(DISAGREEMENT_POINTS[index] * part for index, part in parts) == pytest.approx(value, abs=1e-12)
    assert all(0 <= part <= 1 for _, part in parts)


@UNTIMED
@given(st.lists(SHARES, max_size=12), st.lists(SHARES, max_size=12), LIMITS, SIDES)
def test_the_counts_of_two_processes_add_up(one: list[float], other: list[float], limit: float, above: bool) -> None:
    apart = [dict(counted(values).weights) for values in (one, other)]
    added = tuple((point, sum(weights.get(point, 0.0) for weights in apart)) for point in DISAGREEMENT_POINTS)
    together = log_wealth(counted(one + other), limit, above=above, bets=BOLD_BETS)
    assert log_wealth(ValueSample(0.0, 1.0, added), limit, above=above, bets=BOLD_BETS) == pytest.approx(
        together, abs=1e-9
    )


@UNTIMED
@given(st.lists(st.integers(0, 5000), min_size=3, max_size=3), st.floats(-0.9, 0.9), ALPHAS, st.booleans())
def test_the_interval_holds_the_limits_that_are_not_decided(
    counts: list[int], limit: float, alpha: float, at_most: bool
) -> None:
    sample = ValueSample(-1.0, 1.0, tuple(zip((-1.0, 0.0, 1.0), map(float, counts), strict=True)))
    found = mean_interval(sample, alpha, alpha, at_most=at_most)
    assert -1 <= found.low <= found.high <= 1
    assert sample.share is None or found.low <= sample.share <= found.high
    assume(min(abs(found.low - limit), abs(found.high - limit)) > 1e-6)
    within = limit > found.high if at_most else limit < found.low
    beyond = limit < found.low if at_most else limit > found.high
    assert decide_mean(sample, limit, alpha, alpha, at_most=at_most) is (True if within else False if beyond else None)


@pytest.mark.parametrize(
    ("values", "limit", "at_most", "wanted"),
    [
        ([], 0.5, True, None),
        ([0.0] * 1000, 0.0, True, None),
        ([0.0] * 1000 + [0.25], 0.0, True, False),
        ([1.0] * 1000, 1.0, False, None),
        ([1.0] * 1000 + [0.75], 1.0, False, False),
        ([1.0] * 3, 1.0, True, None),
        ([0.5], 1.0, True, True),
    ],
)
def test_limits_at_the_edge(values: list[float], limit: float, at_most: bool, wanted: bool | None) -> None:
    assert decide_mean(counted(values), limit, 0.05, 0.05, at_most=at_most) is wanted


def draw_answers(
    randomness: random.Random, share: float, rows: int, together: float, answers: int
) -> list[tuple[int, int]]:
    """Answers with each number of differing rows, and how many. `together`: the part of the differing rows that come as
    whole answers; the others differ independently."""
    whole, alone = share * together, share * (1 - together) / (1 - share * together)
    found = Counter(
        rows if randomness.random() < whole else sum(randomness.random() < alone for _ in range(rows))
        for _ in range(answers)
    )
    return list(found.items())


@pytest.mark.parametrize(("rows", "together"), [(1, 1.0), (8, 1.0), (32, 1.0), (8, 0.0), (4, 0.5)])
def test_at_the_limit_the_level_holds_for_any_dependent_rows(rows: int, together: float) -> None:
    randomness, alpha, limit, runs = random.Random(13), 0.05, 0.1, 200
    passed = failed = 0
    for _ in range(runs):
        weights = [0.0] * len(DISAGREEMENT_POINTS)
        verdicts: list[bool | None] = []
        for _ in range(15):
            for differing, count in draw_answers(randomness, limit, rows, together, 20):
                for index, part in split_value(differing / rows, DISAGREEMENT_POINTS):
                    weights[index] += part * count
            sample = ValueSample(0.0, 1.0, tuple(zip(DISAGREEMENT_POINTS, weights, strict=True)))
            verdicts.append(decide_mean(sample, limit, alpha, alpha, at_most=True))
        passed, failed = passed + (True in verdicts), failed + (False in verdicts)
    # Of 200 runs, more than 18 come with probability 0.005 when each is wrong with probability 0.05.
    assert max(passed, failed) <= 18


@pytest.mark.parametrize("alpha", [0.05, 0.0125])
@pytest.mark.parametrize(
    ("limit", "base", "most"),
    [(0.02, 0.0, 1.0), (0.02, 0.01, 1.0), (0.05, 0.02, 1.0), (0.2, 0.1, 1.0), (0.02, 0.04, 1.1), (0.02, 0.5, 1.1)],
)
def test_single_rows_take_no_more_answers_than_an_interval_does(
    limit: float, base: float, most: float, alpha: float
) -> None:
    answers, requests = (
        estimate_answers(limit, base, alpha),
        estimate_samples(limit, base, alpha, ratio=None, worse=0.0),
    )
    assert answers is not None
    assert requests is not None
    assert answers <= most * requests + 1


def test_answers_on_the_limit_are_never_decided() -> None:
    assert estimate_answers(0.02, 0.02, 0.05) is None
    assert estimate_answers(0.0, 0.0, 0.05) is None
