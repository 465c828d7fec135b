"""The reference sample of a version: what it was made with, as bins that requests and answers are counted in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.core.monitoring import psi
from modelwright.core.monitoring.psi import Bins, Value

MOST_FEATURES = 1024
"""Features that are looked at; of more, as many spread evenly."""
MOST_CLASSES = 50
"""Whole numbers with no more different values than this are labels, not quantities."""


class ReferenceError(ValueError):
    """The sample can't be used; the text says what is wrong and where."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Bins of each feature that is looked at, and of the predictions.

    `width`: features of a row. `features`: place in a row -> its bins. `predictions` None: there are none to compare
    with, and the model isn't asked.
    """

    width: int
    features: dict[int, Bins]
    predictions: Bins | None = None

    def place(self, row: Sequence[Value]) -> bytes:
        """The bin of each feature looked at. `row` has `width` values."""
        return bytes(bins.place(label(row[at]) if bins.labels else row[at]) for at, bins in self.features.items())

    def place_prediction(self, value: Sequence[Value]) -> int | None:
        """The bin of one row of an output: a value, or a number for each class; None without predictions."""
        if self.predictions is None:
            return None
        found = prediction(value)
        return self.predictions.place(label(found) if self.predictions.labels else found)


def read(document: Any) -> Reference:
    """The sample of a parsed file: {"inputs": [[value, ...], ...], "predictions": [value, ...]}.

    Values are numbers or text; a prediction may also be a list of numbers, one for each class. `predictions` may be
    left out. Raises ReferenceError.
    """
    if not isinstance(document, dict) or not isinstance(document.get("inputs"), list) or not document["inputs"]:
        raise ReferenceError('the file must be {"inputs": [[...], ...], "predictions": [...]}, with at least one row')
    rows = document["inputs"]
    width = len(rows[0]) if isinstance(rows[0], list) else 0
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != width or not width:
            raise ReferenceError(f"inputs[{number}] must be a list of {width or 'some'} values, like the first row")
        if not all(map(_is_value, row)):
            raise ReferenceError(f"inputs[{number}] holds something that is no number and no text")
    looked_at = {width * number // MOST_FEATURES for number in range(MOST_FEATURES)}
    features = {at: psi.bins(_column([row[at] for row in rows])) for at in sorted(looked_at)}
    return Reference(width, features, _predictions(document.get("predictions"), len(rows)))


def _predictions(found: Any, rows: int) -> Bins | None:
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
        return psi.bins([label(value) for value in values])
    return psi.bins(_column(values))


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


def _column(values: list[Any]) -> list[Value]:
    found = [_value(value) for value in values]
    return [label(value) for value in found] if any(isinstance(value, str) for value in found) else found


def _value(value: Any) -> Value:
    return value if isinstance(value, str) else math.nan if value is None else float(value)


def _is_value(value: Any) -> bool:
    """Null stands for a number that is missing."""
    return value is None or isinstance(value, float | str) or (isinstance(value, int) and abs(value) < 2**1023)
