"""The reference sample of a version: what it was made with, as bins that requests and answers are counted in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.core.monitoring import bins
from modelwright.core.monitoring.bins import MOST_BINS, MOST_ORDERED_BINS, Bins, Value
from modelwright.core.monitoring.distances import ORDERED
from modelwright.core.monitoring.drift import Comparison

MOST_FEATURES = 1024
"""Features that are watched; of more, as many spread evenly."""
LONGEST_NAME = 63
MOST_CLASSES = 50
"""Whole numbers with no more different values than this are labels, not quantities."""


class ReferenceError(ValueError):
    """The sample can't be used; the text says what is wrong and where."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Bins of each feature that is watched, and of the predictions.

    `width`: features of a row. `features`: place in a row -> its bins. `names`: of all features of a row, empty when
    the sample has none. `predictions` None: there are none to compare with, and the model isn't asked.
    """

    width: int
    features: dict[int, Bins]
    predictions: Bins | None = None
    names: tuple[str, ...] = ()

    def place(self, row: Sequence[Value]) -> bytes:
        """The bin of each feature looked at. `row` has `width` values."""
        return bytes(found.place(category(row[at]) if found.labels else row[at]) for at, found in self.features.items())

    def place_prediction(self, value: Sequence[Value]) -> int | None:
        """The bin of one row of an output: a value, or a number for each class; None without predictions."""
        if self.predictions is None:
            return None
        found = prediction(value)
        return self.predictions.place(category(found) if self.predictions.labels else found)


def read(document: Any, comparison: Comparison | None = None) -> Reference:
    """The sample of a parsed file: {"inputs": [[value, ...], ...], "predictions": [value, ...], "features": [name,
    ...]}.

    Values are numbers, text or null; a prediction may also be a list of numbers, one for each class. `predictions` and
    `features` may be left out. `comparison` says how fine the bins are to be. Raises ReferenceError.
    """
    how = comparison or Comparison()
    most = MOST_ORDERED_BINS if how.numbers in ORDERED else MOST_BINS
    if not isinstance(document, dict) or not isinstance(document.get("inputs"), list) or not document["inputs"]:
        raise ReferenceError('the file must be {"inputs": [[...], ...], "predictions": [...]}, with at least one row')
    rows = document["inputs"]
    width = len(rows[0]) if isinstance(rows[0], list) else 0
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != width or not width:
            raise ReferenceError(f"inputs[{number}] must be a list of {width or 'some'} values, like the first row")
        if not all(map(_is_value, row)):
            raise ReferenceError(f"inputs[{number}] holds something that is no number and no text")
    watched = {width * number // MOST_FEATURES for number in range(MOST_FEATURES)}
    features = {at: bins.of(_column([row[at] for row in rows]), most=most) for at in sorted(watched)}
    predictions = _predictions(document.get("predictions"), len(rows), most)
    return Reference(width, features, predictions, _names(document.get("features"), width))


def _names(found: Any, width: int) -> tuple[str, ...]:
    if found is None:
        return ()
    if not isinstance(found, list) or len(found) != width:
        raise ReferenceError(f"features must be a list of {width} names, one for each value of a row")
    for number, name in enumerate(found):
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
            raise ReferenceError(f"features[{number}] must be a name of at most {LONGEST_NAME} printable characters")
    if len(set(found)) < width:
        twice = next(name for name in found if found.count(name) > 1)
        raise ReferenceError(f"features names {twice!r} more than once")
    return tuple(found)


def _predictions(found: Any, rows: int, most: int) -> Bins | None:
    if found is None or found == []:
        return None
    if not isinstance(found, list) or len(found) != rows:
        raise ReferenceError(f"predictions must be a list of {rows}, one for each row of inputs")
    values: list[Value] = []
    for number, value in enumerate(found):
        one = value if isinstance(value, list) and value else [value]
        if not all(map(_is_value, one)):
            raise ReferenceError(f"predictions[{number}] holds something that is no number and no text")
        values.append(prediction([_value(part) for part in one]))
    if all(isinstance(value, float) and value.is_integer() for value in values) and len(set(values)) <= MOST_CLASSES:
        return bins.of([label(value) for value in values])
    return bins.of(_column(values), most=most)


def prediction(row: Sequence[Value]) -> Value:
    """What one row of an output says: its value, or the place of the largest of several numbers; of several texts,
    all."""
    if len(row) == 1:
        return row[0]
    numbers = [value for value in row if not isinstance(value, str)]
    if len(numbers) < len(row):
        return " ".join(map(label, row))
    return float(max(range(len(numbers)), key=lambda at: -math.inf if math.isnan(numbers[at]) else numbers[at]))


def label(value: Value) -> str:
    """A value as a category: 3.0 and "3" are the same."""
    if isinstance(value, str):
        return value
    return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)


def category(value: Value) -> str:
    """A value of a feature with categories; "" for a number that is missing."""
    return "" if not isinstance(value, str) and math.isnan(value) else label(value)


def _column(values: list[Any]) -> list[Value]:
    found = [_value(value) for value in values]
    return [category(value) for value in found] if any(isinstance(value, str) for value in found) else found


def _value(value: Any) -> Value:
    return value if isinstance(value, str) else math.nan if value is None else float(value)


def _is_value(value: Any) -> bool:
    """Null stands for a number that is missing."""
    return value is None or isinstance(value, float | str) or (isinstance(value, int) and abs(value) < 2**1023)
