"""The window holds the rows of the last time, forgets them again, and says nothing about too few."""

from __future__ import annotations

import pytest

from modelwright.core.monitoring.reference import read
from modelwright.observe.window import Window

REFERENCE = read(
    {"inputs": [[number, 0] for number in range(100)], "predictions": [number % 2 for number in range(100)]}
)
LOW = [REFERENCE.place([float(number % 10), 0.0]) for number in range(50)]
EVEN = [REFERENCE.place([float(2 * number), 0.0]) for number in range(50)]


def window(**more: int) -> Window:
    return Window(REFERENCE, seconds=60, **{"min_samples": 50, "most_rows": 1000, **more})


def test_below_the_least_number_of_rows_there_is_no_figure() -> None:
    one = window()
    one.add(0, LOW[:49], [0] * 49)
    assert (one.inputs(0), one.predictions(0), one.rows(0), one.answers(0)) == (None, None, 49, 49)
    one.add(0, LOW[:1], [0])
    assert one.inputs(0) is not None
    assert one.predictions(0) is not None


def test_drift_of_one_feature_and_of_answers_is_told_apart() -> None:
    one = window()
    one.add(0, LOW, [0, 1] * 25)
    inputs, predictions = one.inputs(0), one.predictions(0)
    assert inputs is not None
    assert predictions is not None
    assert inputs.psi.keys() == {"0", "1", "max", "mean"}
    assert inputs.psi["0"] == inputs.psi["max"] > 1
    assert inputs.psi["1"] == pytest.approx(0, abs=1e-9)
    assert inputs.excess > 1 > predictions.excess
    assert predictions.psi.keys() == {"output"}


def test_what_is_old_is_forgotten_as_if_it_had_never_been() -> None:
    one, other = window(), window()
    one.add(0, LOW, [0] * 50)
    one.add(30, EVEN, [0, 1] * 25)
    other.add(30, EVEN, [0, 1] * 25)
    assert one.rows(60) == 100
    assert one.rows(61) == other.rows(61) == 50
    assert one.inputs(61) == other.inputs(61)
    assert one.predictions(61) == other.predictions(61)
    assert one.inputs(91) is None


def test_more_rows_than_it_may_hold_push_the_oldest_out() -> None:
    one, other = window(most_rows=50), window()
    one.add(0, LOW, [1] * 50)
    one.add(1, EVEN, [0, 1] * 25)
    other.add(1, EVEN, [0, 1] * 25)
    assert one.rows(1) == one.answers(1) == 50
    assert (one.inputs(1), one.predictions(1)) == (other.inputs(1), other.predictions(1))


def test_without_predictions_in_the_reference_there_is_no_figure_of_them() -> None:
    one = Window(read({"inputs": [[1.0]] * 9}), 60, 1, 10)
    one.add(0, [bytes([1])])
    assert one.inputs(0) is not None
    assert one.predictions(0) is None
