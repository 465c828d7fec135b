"""Medians and ratios of turns."""

import pytest

from tests.scale import pairs
from tests.scale.figures import Figures


def turn(spike: float, named: float, default: float) -> pairs.Round:
    return {
        name: Figures(100, {"create: seconds": seconds}, parts={"create: writes a Model, patch x": 2.0})
        for name, seconds in (("spike", spike), ("named", named), ("default", default))
    }


def test_ratios_are_of_one_turn_and_then_the_median_counts():
    # the host was twice as slow in the second turn: the ratio doesn't hear of it
    summary = pairs.summarize(100, [turn(10, 15, 20), turn(20, 30, 40), turn(10, 16, 21)])
    assert summary.values["spike, create: seconds"] == 10
    assert summary.values["named, create: seconds, times the spike's"] == 1.5
    assert summary.intervals["named, create: seconds, times the spike's"] == (1.5, 1.6)
    assert summary.values["default, create: seconds, times the spike's"] == 2.0
    assert summary.parts["named, create: writes a Model, patch x"] == 2.0


def test_one_turn_has_no_interval_and_what_was_not_measured_no_ratio():
    summary = pairs.summarize(100, [turn(10, 15, 20)])
    assert summary.intervals == {}
    assert "named, change: seconds, times the spike's" not in summary.values


@pytest.mark.parametrize(
    ("count", "expected"),
    [(3, (0, 2)), (5, (0, 4)), (6, (0, 5)), (8, (0, 7)), (9, (1, 7)), (10, (1, 8)), (20, (5, 14))],
)
def test_the_interval_leaves_out_as_many_as_a_table_of_order_statistics_says(count: int, expected: tuple[int, int]):
    assert pairs.interval(list(range(count))[::-1]) == expected


def test_every_bound_is_of_a_figure_that_is_measured():
    profiles = {key.partition(", ")[0] for key in pairs.BOUNDS[500]}
    assert profiles == {"named", "default"}
    assert pairs.BOUNDS[500]["default, restart: seconds to quiet, times the spike's"] == 1.7
    assert pairs.BOUNDS[500]["named, create: writes a Model"] == 5.0
