"""The population stability index is what the formula says, is silent without drift at any size, and isn't with it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from modelwright.core.monitoring import psi

Draw = Callable[[random.Random], psi.Value]
SEEDS = 200
ALLOWED = 10
"""5 % of the seeds."""


def test_two_bins_come_to_what_is_worked_out_by_hand() -> None:
    reference = psi.bins(["a"] * 60 + ["b"] * 40)
    assert reference.counts == (60, 40, 0)
    found = psi.drift(reference, [30, 70, 0])
    # A row more in each bin that is in use: 61/102 and 41/102 before, 31/102 and 71/102 now.
    worked_out = (31 - 61) / 102 * math.log(31 / 61) + (71 - 41) / 102 * math.log(71 / 41)
    assert found.psi == pytest.approx(worked_out)
    assert found.threshold == 0.1
    assert found.excess == pytest.approx(worked_out / 0.1)


def test_the_same_shares_are_no_drift() -> None:
    reference = psi.bins([float(number) for number in range(1000)])
    assert psi.drift(reference, [10 * count for count in reference.counts]).psi == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("probability", "degrees", "quantile"),
    [
        (0.95, 1, 3.8415),
        (0.95, 2, 5.9915),
        (0.95, 9, 16.9190),
        (0.99, 4, 13.2767),
        (0.5, 7, 6.3458),
        (0.95, 60, 79.0819),
    ],
)
def test_the_quantiles_of_chi_square_are_those_of_the_tables(probability: float, degrees: int, quantile: float) -> None:
    assert psi.chi_square(probability, degrees) == pytest.approx(quantile, abs=5e-5)


@pytest.mark.parametrize(("rows", "critical"), [(50, 0.34), (100, 0.17), (500, 0.037), (2000, 0.012)])
def test_what_chance_does_falls_with_the_rows(rows: int, critical: float) -> None:
    assert psi.critical_value(10, 5000, rows) == pytest.approx(critical, rel=0.03)
    threshold = psi.drift(psi.bins(list(range(5000))), [rows // 10] * 10 + [0]).threshold
    assert threshold == pytest.approx(max(0.1, critical), rel=0.03)


DRAWS: dict[str, Draw] = {
    "a normal number": lambda r: r.gauss(0, 1),
    "a pixel, mostly 0": lambda r: float(max(0, int(r.gauss(-2, 6)))),
    "a rare yes": lambda r: float(r.random() < 0.02),
    "one of ten labels": lambda r: str(r.randrange(10)),
    "labels with a long tail": lambda r: str(int(r.expovariate(0.2))),
    "a number that is often missing": lambda r: math.nan if r.random() < 0.3 else r.random(),
}


@pytest.mark.parametrize("rows", [50, 200, 500, 2000])
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_without_drift_the_limit_is_passed_by_chance_in_5_percent_at_most(draw: Draw, rows: int) -> None:
    alarms = 0
    for seed in range(SEEDS if rows < 2000 else SEEDS // 4):
        r = random.Random(seed)
        reference = psi.bins([draw(r) for _ in range(1000)])
        alarms += psi.drift(reference, reference.count([draw(r) for _ in range(rows)])).excess > 1
    assert alarms <= ALLOWED


def test_many_features_together_have_one_chance_of_5_percent() -> None:
    alarms, features = 0, 20
    for seed in range(SEEDS):
        r = random.Random(seed)
        reference = [psi.bins([r.gauss(0, 1) for _ in range(400)]) for _ in range(features)]
        found = (psi.drift(b, b.count([r.gauss(0, 1) for _ in range(50)]), features=features) for b in reference)
        alarms += max(one.excess for one in found) > 1
    assert alarms <= ALLOWED


@pytest.mark.parametrize("rows", [200, 2000])
def test_a_shift_of_one_standard_deviation_is_found(rows: int) -> None:
    found = 0
    for seed in range(50):
        r = random.Random(seed)
        reference = psi.bins([r.gauss(0, 1) for _ in range(1000)])
        found += psi.drift(reference, reference.count([r.gauss(1, 1) for _ in range(rows)]), features=64).excess > 1
    assert found >= 49


CONSTANT = psi.bins([0.0] * 500)


@pytest.mark.parametrize("now", [1.0, -1.0, math.nan, "0"], ids=["larger", "smaller", "missing", "text"])
def test_what_always_was_the_same_and_is_another_now_is_drift(now: psi.Value) -> None:
    assert psi.drift(CONSTANT, CONSTANT.count([0.0] * 200)).psi == pytest.approx(0, abs=1e-9)
    assert psi.drift(CONSTANT, CONSTANT.count([0.0] * 100 + [now] * 100)).excess > 1


def test_a_label_that_was_never_seen_is_drift() -> None:
    reference = psi.bins(["cat", "dog"] * 200)
    assert psi.drift(reference, reference.count(["cat", "dog", "cow"] * 70)).excess > 1


def test_labels_that_are_rare_or_many_are_one_category() -> None:
    many = psi.bins([str(number % 100) for number in range(1000)])
    assert len(many.labels) == psi.MOST_LABELS
    assert many.counts[-1] == 800
    rare = psi.bins(["a"] * 50 + ["b"] * (psi.LEAST_ROWS - 1))
    assert rare.counts == (50, psi.LEAST_ROWS - 1)


@pytest.mark.parametrize("counts", [[0] * 11, []])
def test_nothing_to_compare_is_an_error(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="no rows"):
        psi.drift(psi.bins(list(range(100))), counts)


def test_an_empty_sample_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        psi.bins([])


def test_many_features_are_at_most_18_series() -> None:
    few = psi.series({0: 0.1, 1: 0.3})
    assert few == {"0": 0.1, "1": 0.3, "max": 0.3, "mean": pytest.approx(0.2)}
    for size in (16, 17, 64, 784, 1024):
        many = psi.series({at: float(at) for at in range(size)})
        assert len(many) <= psi.MOST_SERIES + 2
        assert many["max"] == size - 1
        grouped = {name: value for name, value in many.items() if name not in ("max", "mean")}
        assert max(grouped.values()) == size - 1
    assert psi.series({at: float(at) for at in range(64)})["4-7"] == 7.0
    assert psi.series({}) == {}
