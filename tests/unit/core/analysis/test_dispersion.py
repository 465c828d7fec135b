"""Dispersion of bad requests, estimated from blocks."""

import numpy as np
import pytest

from modelwright.core.analysis.blocks import BlockPair
from modelwright.core.analysis.dispersion import MAX_DISPERSION, estimate_dispersion


def blocks(seed: int, burst: int, number: int = 40, share: float = 0.05, weather: bool = False) -> list[BlockPair]:
    """Blocks in which `burst` requests in a row have one fate; with `weather` both revisions are worse for a while."""
    random = np.random.default_rng(seed)
    found = []
    for at in range(number):
        p = share * (6 if weather and at % 8 == 0 else 1)
        k1, k0 = burst * random.binomial(60 // burst, p), burst * random.binomial(540 // burst, p)
        found.append(BlockPair(60.0, float(k1), 540.0, float(k0)))
    return found


@pytest.mark.parametrize(("burst", "low", "high"), [(1, 0.7, 1.4), (5, 3.0, 6.0), (10, 5.0, 12.0)])
def test_it_is_about_the_size_of_a_burst(burst: int, low: float, high: float) -> None:
    found = [estimate_dispersion(blocks(seed, burst)) for seed in range(20)]
    assert low <= float(np.median(found)) <= high


def test_independent_requests_are_rarely_held() -> None:
    assert sum(estimate_dispersion(blocks(seed, 1)) > MAX_DISPERSION for seed in range(300)) <= 20


def test_common_influences_are_no_burst() -> None:
    assert sum(estimate_dispersion(blocks(seed, 1, weather=True)) > MAX_DISPERSION for seed in range(100)) <= 10


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [BlockPair(60.0, 0.0, 540.0, 0.0)] * 10,
        [BlockPair(60.0, 9.0, 540.0, 9.0)],
        [BlockPair(1.0, 1.0, 0.0, 0.0)] * 3,
    ],
)
def test_nothing_to_compare_is_no_burst(pairs: list[BlockPair]) -> None:
    assert estimate_dispersion(pairs) == 1
