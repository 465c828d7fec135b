"""The one decision about shares at the end of an A/B test."""

import numpy as np
import pytest

from modelwright.core.analysis.blocks import BlockPair
from modelwright.core.analysis.score_interval import score_interval


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        (BlockPair(10000, 400, 10000, 500), -0.0149, -0.0051),
        (BlockPair(300, 0, 300, 0), -0.0103, 0.0103),
        (BlockPair(300, 300, 300, 0), 0.9896, 1.0),
        (BlockPair(1000, 10, 9000, 90), -0.0047, 0.0066),
    ],
)
def test_the_interval(counts: BlockPair, low: float, high: float) -> None:
    found = score_interval(counts, 0.05)
    assert (found.low, found.high) == (pytest.approx(low, abs=2e-4), pytest.approx(high, abs=2e-4))


def test_swapped_revisions_mirror_the_interval() -> None:
    there = score_interval(BlockPair(700, 10, 3000, 90), 0.01)
    back = score_interval(BlockPair(3000, 90, 700, 10), 0.01)
    assert (there.low, there.high) == (-back.high, -back.low)


@pytest.mark.parametrize(
    ("sizes", "serving", "margin"),
    [((300, 300), 0.01, 0.0), ((300, 300), 0.05, 0.02), ((2700, 300), 0.003, 0.0), ((1000, 9000), 0.05, 0.0)],
)
def test_a_candidate_at_the_margin_wins_within_the_level(sizes: tuple[int, int], serving: float, margin: float) -> None:
    """2,000 tests at 5 %: 130 would be three standard deviations too many."""
    random = np.random.default_rng(1)
    n1, n0 = sizes
    ones, zeros = random.binomial(n1, serving - margin, 2000), random.binomial(n0, serving, 2000)
    counts = (BlockPair(n1, float(k1), n0, float(k0)) for k1, k0 in zip(ones, zeros, strict=True))
    assert sum(score_interval(pair, 0.05).high <= -margin for pair in counts) <= 130


def test_ten_thousand_requests_tell_apart_four_and_five_percent() -> None:
    random = np.random.default_rng(2)
    pairs = zip(random.binomial(10000, 0.04, 500), random.binomial(10000, 0.05, 500), strict=True)
    won = sum(score_interval(BlockPair(10000, float(k1), 10000, float(k0)), 0.05).high <= 0 for k1, k0 in pairs)
    assert won >= 450


def test_no_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="both revisions"):
        score_interval(BlockPair(0, 0, 10, 1), 0.05)
