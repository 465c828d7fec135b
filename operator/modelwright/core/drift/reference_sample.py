"""The reference sample of a version, as bins for counting its live requests and predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.core.drift import bins
from modelwright.core.drift.bins import MAX_BINS, MAX_ORDERED_BINS, Bins, FeatureValue
from modelwright.core.drift.distances import ORDERED_METHODS
from modelwright.core.drift.feature_drift import DriftMethods

MAX_FEATURES = 1024
"""Most features that are watched; of a larger number, this many at even distances."""
MAX_NAME_CHARACTERS = 63
MAX_CLASSES = 50
"""Most distinct values of whole numbers that are labels, not quantities."""


class InvalidReferenceSample(ValueError):
    """The sample can't be used; the text names the mistake and its place."""


@dataclass(frozen=True, slots=True)
class BinnedReference:
    """Bins of each watched feature, and of the predictions.

    `width` is the number of features of a row, `features` maps a place in a row to its bins, `names` has all features
    of a row or is empty. Without `predictions` there are none to compare, and no requests are sent to the model.
    """

    width: int
    features: dict[int, Bins]
    predictions: Bins | None = None
    names: tuple[str, ...] = ()

    def place_row(self, row: Sequence[FeatureValue]) -> bytes:
        """Return the bin of each watched feature. `row` has `width` values."""
        return bytes(
            feature_bins.bin_of(format_category(row[at]) if feature_bins.labels else row[at])
            for at, feature_bins in self.features.items()
        )

    def place_prediction(self, value: Sequence[FeatureValue]) -> int | None:
        """Return the bin of one row of an output: a value, or a number for each class; None without predictions."""
        if self.predictions is None:
            return None
        predicted = predicted_value(value)
        return self.predictions.bin_of(format_category(predicted) if self.predictions.labels else predicted)


def parse_reference(document: Any, comparison: DriftMethods | None = None) -> BinnedReference:
    """Parse a reference sample from a decoded file.

    It is {"inputs": [[value, ...], ...], "predictions": [value, ...], "features": [name, ...]}. Values are numbers,
    text or null; a prediction may also be a list of numbers, one for each class. `predictions` and `features` may be
    left out. `comparison` decides the number of bins. Raises InvalidReferenceSample.
    """
    methods = comparison or DriftMethods()
    most = MAX_ORDERED_BINS if methods.numbers in ORDERED_METHODS else MAX_BINS
    if not isinstance(document, dict) or not isinstance(document.get("inputs"), list) or not document["inputs"]:
        raise InvalidReferenceSample(
            'the file must be {"inputs": [[...], ...], "predictions": [...]}, with at least one row'
        )
    rows = document["inputs"]
    width = len(rows[0]) if isinstance(rows[0], list) else 0
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != width or not width:
            raise InvalidReferenceSample(
                f"inputs[{number}] must be a list of {width or 'some'} values, like the first row"
            )
        if not all(map(_is_value, row)):
            raise InvalidReferenceSample(f"inputs[{number}] holds something that is no number and no text")
    watched = {width * number // MAX_FEATURES for number in range(MAX_FEATURES)}
    features = {at: bins.build_bins(_column_values([row[at] for row in rows]), most=most) for at in sorted(watched)}
    predictions = _parse_predictions(document.get("predictions"), len(rows), most)
    return BinnedReference(width, features, predictions, _parse_names(document.get("features"), width))


def _parse_names(document: Any, width: int) -> tuple[str, ...]:
    if document is None:
        return ()
    if not isinstance(document, list) or len(document) != width:
        raise InvalidReferenceSample(f"features must be a list of {width} names, one for each value of a row")
    for number, name in enumerate(document):
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARACTERS or not name.isprintable():
            raise InvalidReferenceSample(
                f"features[{number}] must be a name of at most {MAX_NAME_CHARACTERS} printable characters"
            )
    if len(set(document)) < width:
        twice = next(name for name in document if document.count(name) > 1)
        raise InvalidReferenceSample(f"features names {twice!r} more than once")
    return tuple(document)


def _parse_predictions(document: Any, rows: int, most: int) -> Bins | None:
    if document is None or document == []:
        return None
    if not isinstance(document, list) or len(document) != rows:
        raise InvalidReferenceSample(f"predictions must be a list of {rows}, one for each row of inputs")
    values: list[FeatureValue] = []
    for number, value in enumerate(document):
        one = value if isinstance(value, list) and value else [value]
        if not all(map(_is_value, one)):
            raise InvalidReferenceSample(f"predictions[{number}] holds something that is no number and no text")
        values.append(predicted_value([_to_feature_value(part) for part in one]))
    if all(isinstance(value, float) and value.is_integer() for value in values) and len(set(values)) <= MAX_CLASSES:
        return bins.build_bins([format_label(value) for value in values])
    return bins.build_bins(_column_values(values), most=most)


def predicted_value(row: Sequence[FeatureValue]) -> FeatureValue:
    """Return the prediction in one row of an output.

    That is its value, the place of the largest of several numbers, or all of several texts.
    """
    if len(row) == 1:
        return row[0]
    numbers = [value for value in row if not isinstance(value, str)]
    if len(numbers) < len(row):
        return " ".join(map(format_label, row))
    return float(max(range(len(numbers)), key=lambda at: -math.inf if math.isnan(numbers[at]) else numbers[at]))


def format_label(value: FeatureValue) -> str:
    """Format a value as a category: 3.0 and "3" are the same."""
    if isinstance(value, str):
        return value
    return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)


def format_category(value: FeatureValue) -> str:
    """Format a value of a feature with categories; "" for a missing number."""
    return "" if not isinstance(value, str) and math.isnan(value) else format_label(value)


def _column_values(values: list[Any]) -> list[FeatureValue]:
    parsed = [_to_feature_value(value) for value in values]
    return [format_category(value) for value in parsed] if any(isinstance(value, str) for value in parsed) else parsed


def _to_feature_value(value: Any) -> FeatureValue:
    return value if isinstance(value, str) else math.nan if value is None else float(value)


def _is_value(value: Any) -> bool:
    """Return whether this is a JSON value of a feature. Null stands for a missing number."""
    return value is None or isinstance(value, float | str) or (isinstance(value, int) and abs(value) < 2**1023)
