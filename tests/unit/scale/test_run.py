"""Sizes beside each other."""

import pytest

from tests.scale import run
from tests.scale.figures import Figures


def sized(models: int, cost: float, seconds: float, restart: float) -> Figures:
    values = dict.fromkeys(run.COSTS, cost)
    return Figures(models, {**values, "create: seconds": seconds, "change: seconds": seconds, run.RESTARTED: restart})


def test_a_larger_size_says_how_much_dearer_a_model_is_than_at_500():
    results = [sized(100, 9.0, 5.0, 1.0), sized(500, 10.0, 20.0, 2.0), sized(5000, 11.0, 300.0, 20.0)]
    run.compare(results)
    small, base, large = (result.values for result in results)
    assert not [key for key in (*small, *base) if "times" in key]
    assert large["create: CPU ms a Model, times that of 500 Models"] == pytest.approx(1.1)
    assert large["change: seconds a Model, times that of 500 Models"] == pytest.approx(1.5)
    assert large["restart: seconds to quiet, times that of 500 Models"] == pytest.approx(10.0)
    bounded = run.bounds("named")[5000]
    assert {key for key in bounded if "times" in key} <= set(large)


def test_a_size_that_was_cut_off_is_compared_in_what_it_has():
    results = [sized(500, 10.0, 20.0, 2.0), Figures(5000, {"create: seconds": 400.0})]
    run.compare(results)
    assert results[1].values == {"create: seconds": 400.0, "create: seconds a Model, times that of 500 Models": 2.0}


def test_without_the_base_size_nothing_is_compared():
    results = [sized(1000, 1.0, 1.0, 1.0)]
    run.compare(results)
    assert not [key for key in results[0].values if "times" in key]


def test_the_profiles_differ_in_the_writes_they_may_cost():
    named, default = (run.bounds(profile)[500] for profile in ("named", "default"))
    assert [named[f"{phase}: writes a Model"] for phase in ("create", "change")] == [5, 6]
    assert [default[f"{phase}: writes a Model"] for phase in ("create", "change")] == [6, 7]
