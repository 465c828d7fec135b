"""A reference sample is read whole or refused with the place that is wrong; rows go into the bins it makes."""

from __future__ import annotations

from typing import Any

import pytest

from modelwright.core.drift import reference_sample
from modelwright.core.drift.distances import DistanceMethod
from modelwright.core.drift.feature_drift import DriftMethods
from modelwright.core.drift.reference_sample import (
    InvalidReferenceSample,
    format_label,
    parse_reference,
    predicted_value,
)

WRONG = [
    ("no object", [], "with at least one row"),
    ("no inputs", {"predictions": [1]}, "with at least one row"),
    ("no rows", {"inputs": []}, "with at least one row"),
    ("a row that is no list", {"inputs": [[1], 2]}, r"inputs\[1\] must be a list of 1 values"),
    ("a row of nothing", {"inputs": [[]]}, r"inputs\[0\] must be a list of some values"),
    ("rows of two widths", {"inputs": [[1, 2], [1]]}, r"inputs\[1\] must be a list of 2 values"),
    ("a value that is a list", {"inputs": [[[1]]]}, r"inputs\[0\] holds something"),
    ("predictions of another number", {"inputs": [[1], [2]], "predictions": [1]}, "must be a list of 2"),
    ("predictions that are no list", {"inputs": [[1]], "predictions": "x"}, "must be a list of 1"),
    ("a prediction that is an object", {"inputs": [[1]], "predictions": [{}]}, r"predictions\[0\] holds"),
    ("names of another number", {"inputs": [[1, 2]], "features": ["a"]}, "features must be a list of 2 names"),
    ("a name that is no text", {"inputs": [[1]], "features": [1]}, r"features\[0\] must be a name"),
    ("a name of control characters", {"inputs": [[1]], "features": ["a\n"]}, r"features\[0\] must be a name"),
    ("a name twice", {"inputs": [[1, 2]], "features": ["a", "a"]}, "features names 'a' more than once"),
    ("a prediction that is an empty list", {"inputs": [[1]], "predictions": [[]]}, r"predictions\[0\] holds"),
]


@pytest.mark.parametrize(("document", "said"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_mistake_is_reported_with_its_place(document: Any, said: str) -> None:
    with pytest.raises(InvalidReferenceSample, match=said):
        parse_reference(document)


def test_numbers_and_text_stand_side_by_side_in_a_row() -> None:
    found = parse_reference({"inputs": [[number, "ab"[number % 2]] for number in range(100)]})
    assert (found.width, len(found.features), found.predictions) == (2, 2, None)
    assert found.place_row([-1.0, "a"]) == bytes([0, 0])
    assert found.place_row([99.0, "b"]) == bytes([31, 1])
    assert found.place_row([99.0, "never"]) == bytes([31, 3])
    assert found.place_prediction([1.0]) is None


def test_features_have_the_names_of_the_file() -> None:
    assert parse_reference({"inputs": [[1, 2]], "features": ["age", "income"]}).names == ("age", "income")
    assert parse_reference({"inputs": [[1, 2]]}).names == ()


def test_numbers_get_as_many_bins_as_the_method_needs() -> None:
    document = {"inputs": [[number] for number in range(100)]}
    assert len(parse_reference(document, DriftMethods(numbers=DistanceMethod.PSI)).features[0].known_counts) == 10
    assert (
        len(parse_reference(document, DriftMethods(numbers=DistanceMethod.WASSERSTEIN)).features[0].known_counts) == 32
    )


def test_null_is_a_value_that_is_missing_in_any_column() -> None:
    found = parse_reference({"inputs": [[None, None], [1, "a"], [2, "a"]]})
    assert [bins.counts[-1] for bins in found.features.values()] == [1, 1]


PREDICTIONS = [
    ("classes", [number % 3 for number in range(90)], [2.0], 2),
    ("classes, and an answer that is text", [number % 3 for number in range(90)], ["2"], 2),
    ("classes, and one that is unknown", [number % 3 for number in range(90)], [7.0], 4),
    ("names", ["cat", "dog"] * 45, ["dog"], 1),
    ("probabilities, by the largest", [[0.9, 0.1], [0.2, 0.8]] * 45, [0.4, 0.6], 1),
    ("booleans", [True, False] * 45, [1.0], 1),
    ("quantities", [number / 7 for number in range(90)], [0.0], 0),
    ("whole numbers of many values are quantities", list(range(90)), [89.0], 31),
]


@pytest.mark.parametrize(
    ("given", "answer", "place"), [case[1:] for case in PREDICTIONS], ids=[c[0] for c in PREDICTIONS]
)
def test_predictions_are_labels_or_quantities(given: list[Any], answer: list[Any], place: int) -> None:
    assert parse_reference({"inputs": [[0]] * 90, "predictions": given}).place_prediction(answer) == place


def test_very_many_features_are_sampled_evenly() -> None:
    found = parse_reference({"inputs": [[0.0] * 5000] * 2})
    assert len(found.features) == reference_sample.MAX_FEATURES
    assert (min(found.features), max(found.features)) == (0, 5000 - 5)
    assert len(found.place_row([1.0] * 5000)) == reference_sample.MAX_FEATURES


def test_labels_are_the_same_however_they_are_written() -> None:
    assert format_label(3.0) == format_label("3") == "3"
    assert (format_label(0.5), format_label(float("inf"))) == ("0.5", "inf")
    assert predicted_value(["a", "b"]) == "a b"
