"""Windows hold the rows of their time, drop older ones, and have no figures of too few."""

from __future__ import annotations

import pytest

from modelwright.agents.drift_monitor.bin_windows import SLICES, BinCounts, RowWindow, SlicedWindow
from modelwright.agents.drift_monitor.drift_windows import DriftWindows, group_features
from modelwright.core.drift.feature_drift import Aspect, DriftMethods
from modelwright.core.drift.reference_sample import parse_reference

REFERENCE = parse_reference(
    {"inputs": [[number, 0] for number in range(100)], "predictions": [number % 2 for number in range(100)]}
)
LOW = [REFERENCE.place_row([float(number % 10), 0.0]) for number in range(50)]
EVEN = [REFERENCE.place_row([float(2 * number), 0.0]) for number in range(50)]
KINDS = [lambda: RowWindow(REFERENCE, 60, 1000), lambda: SlicedWindow(REFERENCE, 60)]


def content(counts: BinCounts) -> tuple[object, ...]:
    return counts.rows, counts.answers, [list(feature) for feature in counts.features], list(counts.predictions)


def windows(**more: int) -> DriftWindows:
    given = {"min_samples": 50, "most_rows": 1000, **more}
    window = RowWindow(REFERENCE, seconds=60, most_rows=given["most_rows"])
    return DriftWindows(REFERENCE, DriftMethods(), given["min_samples"], {"1m": window})


@pytest.mark.parametrize("make", KINDS)
def test_expired_rows_leave_no_trace(make: type[RowWindow]) -> None:
    one, other = make(), make()  # type: ignore[call-arg]
    one.add_rows(0, LOW, [0] * 50)
    one.add_rows(30, EVEN, [0, 1] * 25)
    other.add_rows(30, EVEN, [0, 1] * 25)
    assert one.current_counts(60).rows == 100
    assert content(one.current_counts(61)) == content(other.current_counts(61))
    assert content(one.current_counts(92)) == content(make().current_counts(92))  # type: ignore[call-arg]


def test_more_rows_than_it_may_hold_push_the_oldest_out() -> None:
    one, other = RowWindow(REFERENCE, 60, 50), RowWindow(REFERENCE, 60, 1000)
    one.add_rows(0, LOW, [1] * 50)
    for window in (one, other):
        window.add_rows(1, EVEN, [0, 1] * 25)
    assert content(one.current_counts(1)) == content(other.current_counts(1))


def test_long_window_holds_counts_of_slices_for_any_rows() -> None:
    window = SlicedWindow(REFERENCE, 4800)
    for second in range(0, 4800, 10):
        window.add_rows(second, LOW, [0] * 50)
    assert window.current_counts(4790).rows == 480 * 50
    assert len(window._slices) == SLICES
    assert window.current_counts(4801).rows == 470 * 50


def test_below_the_least_number_of_rows_there_is_no_figure() -> None:
    one = windows()
    one.add_rows(0, LOW[:49], [0] * 49)
    assert (one.input_drift("1m", 0), one.prediction_drift("1m", 0), one.feature_shares("1m", 0)) == (None, None, {})
    assert (one.count_rows("1m", 0), one.count_answers("1m", 0)) == (49, 49)
    one.add_rows(0, LOW[:1], [0])
    assert one.input_drift("1m", 0) is not None
    assert one.prediction_drift("1m", 0) is not None


def test_drift_of_a_feature_and_of_answers_are_distinguished() -> None:
    one = windows()
    one.add_rows(0, LOW, [0, 1] * 25)
    inputs, predictions = one.input_drift("1m", 0), one.prediction_drift("1m", 0)
    assert inputs is not None
    assert predictions is not None
    worst = inputs.figures[0]
    assert (worst.feature, worst.aspect) == ("0", Aspect.DISTANCE)
    assert worst.excess == inputs.excess > 1 > predictions.excess
    assert [figure.excess for figure in inputs.figures if figure.feature == "1"] == [0]


def test_shares_of_missing_and_unknown_values_are_of_all_rows() -> None:
    one = windows()
    one.add_rows(0, [REFERENCE.place_row([float("nan"), 0.0])] * 10 + [REFERENCE.place_row(["x", 0.0])] * 5 + LOW[:35])
    result = one.feature_shares("1m", 0)
    assert (result["0"].missing, result["0"].unknown) == (0.2, 0.1)
    assert (result["1"].missing, result["1"].unknown) == (0, 0)


def test_reference_without_predictions_gives_no_figure_of_them() -> None:
    reference = parse_reference({"inputs": [[1.0]] * 9, "features": ["age"]})
    one = DriftWindows(reference, DriftMethods(), 1, {"10s": RowWindow(reference, 10, 10)})
    one.add_rows(0, [bytes([1])])
    assert one.input_drift("10s", 0) is not None
    assert one.prediction_drift("10s", 0) is None
    assert [name for name, _ in one.watched_features("input")] == ["age"]
    assert one.watched_features("prediction") == []


def test_many_features_are_at_most_16_series() -> None:
    assert group_features({}, 16) == {}
    assert group_features({"a": 0.1, "b": 0.3}, 16) == {"a": 0.1, "b": 0.3}
    for size in (16, 17, 64, 784, 1024):
        many = group_features({str(at): float(at) for at in range(size)}, 16)
        assert len(many) <= 16
        assert max(many.values()) == size - 1
    assert group_features({str(at): float(at) for at in range(64)}, 16)["4-7"] == 7.0
