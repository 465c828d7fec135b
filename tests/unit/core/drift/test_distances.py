"""Each method is what scipy says where scipy has it, is silent without drift at any size, and isn't with it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest
from scipy import stats
from scipy.spatial import distance

from modelwright.core.drift import bins, distances
from modelwright.core.drift.bins import Bins, FeatureValue
from modelwright.core.drift.distances import ORDERED_METHODS, Distance, DistanceMethod

Draw = Callable[[random.Random], FeatureValue]
SEEDS = 200
ALLOWED = 19
"""Of 200 comparisons at 5 %: 20 and more have a probability under 0.1 %."""


def made(sample: Sequence[FeatureValue], method: DistanceMethod) -> Bins:
    return bins.build_bins(sample, most=bins.MAX_ORDERED_BINS if method in ORDERED_METHODS else bins.MAX_BINS)


def measured(method: DistanceMethod, reference: Bins, counts: Sequence[int]) -> Distance:
    found = distances.measure_distance(method, reference, counts)
    assert found is not None
    return found


LABELS = bins.build_bins(["a"] * 600 + ["b"] * 300 + ["c"] * 100)
NOW = [120, 60, 40, 0, 0, 0]


def test_chi_square_is_that_of_the_table_of_both_samples() -> None:
    found = measured(DistanceMethod.CHI_SQUARE, LABELS, NOW)
    wanted = stats.chi2_contingency([LABELS.known_counts[:3], NOW[:3]], correction=False)
    assert found.value**2 / found.scale == pytest.approx(wanted.statistic, rel=1e-9)
    assert found.tail_probability() == pytest.approx(wanted.pvalue, rel=1e-6)
    assert found.chance_limit(0.01) == pytest.approx(
        math.sqrt(stats.chi2.isf(0.01, 2) * (1 / 1000 + 1 / 220)), rel=1e-6
    )


def test_the_jensen_shannon_distance_is_scipys() -> None:
    found = measured(DistanceMethod.JENSEN_SHANNON, LABELS, NOW)
    before, now = (
        [count / 1000 for count in LABELS.known_counts],
        [count / 220 for count in LABELS.compared_counts(NOW)],
    )
    assert found.value == pytest.approx(float(distance.jensenshannon(before, now)), rel=1e-9)


def test_psi_of_two_labels_is_the_formula() -> None:
    reference = bins.build_bins(["a"] * 60 + ["b"] * 40)
    # A row more in each bin: 61/102 and 41/102 before, 31/102 and 71/102 now.
    wanted = (31 - 61) / 102 * math.log(31 / 61) + (71 - 41) / 102 * math.log(71 / 41)
    assert measured(DistanceMethod.PSI, reference, [30, 70, 0, 0, 0]).value == pytest.approx(wanted)


def test_kolmogorov_smirnov_is_scipys_with_a_bin_per_value() -> None:
    r = random.Random(1)
    before, now = ([float(r.randrange(12)) for _ in range(rows)] for rows in (500, 300))
    reference = bins.build_bins(before, most=200)
    found = measured(DistanceMethod.KOLMOGOROV_SMIRNOV, reference, reference.count_values(now))
    assert found.value == pytest.approx(stats.ks_2samp(before, now).statistic, abs=1e-12)
    assert found.chance_limit(0.05) == pytest.approx(stats.kstwobign.isf(0.05) * math.sqrt(1 / 500 + 1 / 300), rel=1e-6)


def test_wasserstein_is_scipys_where_every_value_has_a_bin() -> None:
    r = random.Random(1)
    before, now = ([float(r.randrange(12)) for _ in range(rows)] for rows in (500, 300))
    mean = sum(before) / 500
    spread = math.sqrt(sum((value - mean) ** 2 for value in before) / 500)
    reference = bins.build_bins(before, most=200)
    found = measured(DistanceMethod.WASSERSTEIN, reference, reference.count_values(now))
    assert found.value == pytest.approx(stats.wasserstein_distance(before, now) / spread, abs=1e-9)


DRAWS: dict[str, Draw] = {
    "a normal number": lambda r: r.gauss(0, 1),
    "a number with a long tail": lambda r: math.exp(2 * r.gauss(0, 1)),
    "a pixel, mostly 0": lambda r: float(max(0, int(r.gauss(-2, 6)))),
    "a rare yes": lambda r: float(r.random() < 0.02),
    "one of ten labels": lambda r: str(r.randrange(10)),
    "labels with a long tail": lambda r: str(int(r.expovariate(0.2))),
    "a number that is often missing": lambda r: math.nan if r.random() < 0.3 else r.random(),
}
CASES = [
    (draw, method)
    for draw in DRAWS
    for method in DistanceMethod
    if method not in ORDERED_METHODS or "label" not in draw
]


@pytest.mark.parametrize(("draw", "method"), CASES, ids=[f"{draw}-{method}" for draw, method in CASES])
def test_without_drift_chance_exceeds_limits_in_5_percent(draw: str, method: DistanceMethod) -> None:
    alarms = dict.fromkeys((50, 500), 0)
    for seed in range(SEEDS):
        r = random.Random(seed)
        reference = made([DRAWS[draw](r) for _ in range(1000)], method)
        for rows in alarms:
            found = measured(method, reference, reference.count_values([DRAWS[draw](r) for _ in range(rows)]))
            alarms[rows] += found.value > found.chance_limit(0.05)
    assert max(alarms.values()) <= ALLOWED, alarms


@pytest.mark.parametrize("method", DistanceMethod)
def test_a_value_at_its_limit_has_the_probability_of_the_limit(method: DistanceMethod) -> None:
    r = random.Random(2)
    sample: list[FeatureValue] = [r.gauss(0, 1) for _ in range(1000)]
    reference = made(sample, method)
    found = measured(method, reference, reference.count_values([r.gauss(0, 1) for _ in range(300)]))
    for tail in (0.3, 0.05, 1e-4):
        at = Distance(method, found.chance_limit(tail), found.scale, found.degrees, found.spread)
        assert at.tail_probability() == pytest.approx(tail, rel=1e-5)


@pytest.mark.parametrize("rows", [200, 2000])
@pytest.mark.parametrize("method", DistanceMethod)
def test_a_shift_of_one_standard_deviation_is_detected(method: DistanceMethod, rows: int) -> None:
    found = 0
    for seed in range(20):
        r = random.Random(seed)
        reference = made([r.gauss(0, 1) for _ in range(1000)], method)
        one = measured(method, reference, reference.count_values([r.gauss(1, 1) for _ in range(rows)]))
        found += one.value > max(distances.DEFAULT_FLOORS[method], one.chance_limit(0.05 / 64))
    assert found == 20


def test_categories_have_no_order() -> None:
    with pytest.raises(ValueError, match="compares numbers"):
        distances.measure_distance(DistanceMethod.WASSERSTEIN, LABELS, NOW)


@pytest.mark.parametrize("method", DistanceMethod)
def test_without_known_values_there_is_no_distance(method: DistanceMethod) -> None:
    reference = made([1.0, 2.0, 3.0], method)
    size = len(reference.counts)
    assert distances.measure_distance(method, reference, [0] * size) is None
    assert distances.measure_distance(method, reference, [0] * (size - 1) + [9]) is None
    assert distances.measure_distance(method, made([math.nan] * 3, method), [1, 0, 0]) is None


@pytest.mark.parametrize("method", DistanceMethod)
def test_the_same_shares_are_no_distance(method: DistanceMethod) -> None:
    reference = made([float(number) for number in range(1000)], method)
    assert measured(method, reference, [10 * count for count in reference.counts]).value == pytest.approx(0, abs=1e-3)
