"""Rows of a request and of its answer in the Open Inference Protocol (V2), in the form of a reference sample."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from random import Random

from modelwright.agents.tensors import Scalar, Tensor, TensorError
from modelwright.core.drift.bins import FeatureValue

MAX_NAME_LENGTH = 63


def count_rows(tensors: Mapping[str, Tensor]) -> int:
    """Return the number of rows of a request. Raises TensorError if its tensors differ in it."""
    counts = {tensor.shape[0] if tensor.shape else 1 for tensor in tensors.values()}
    if len(counts) != 1:
        raise TensorError("the tensors have not the same number of rows")
    return counts.pop()


def sample_rows(rows: int, max_rows: int, random: Random) -> Sequence[int]:
    """Choose at random which rows of a request are counted, at most `max_rows`.

    Rows of one request often resemble each other, while the limits of chance assume independent rows.
    """
    return range(rows) if rows <= max_rows else random.sample(range(rows), max_rows)


def name_features(tensors: Mapping[str, Tensor], rows: int) -> tuple[str, ...]:
    """Name the values of a row: by the tensor if a row of it is one value, else with an index, `input-0[3]`.

    Empty if a name is unusable as the label of a metric, or if two values share a name: callers write them.
    """
    return _expand_names((name, len(tensor.values) // rows if rows else 0) for name, tensor in tensors.items())


def names_from_metadata(metadata: bytes, width: int) -> tuple[str, ...]:
    """Name the values of a row by a model's metadata (GET /v2/models/NAME), for rows of `width` values.

    Empty if it has no usable names, or not for this many values; a single tensor may leave its size open.
    """
    try:
        inputs = json.loads(metadata)["inputs"]
        tensors = [(entry["name"], [int(size) for size in entry["shape"][1:]]) for entry in inputs]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return ()
    if len(tensors) == 1 and min(tensors[0][1], default=1) < 1:
        tensors = [(tensors[0][0], [width])]
    if not all(isinstance(name, str) and 0 < math.prod(shape) <= width for name, shape in tensors):
        return ()
    sizes = [(name, math.prod(shape)) for name, shape in tensors]
    return _expand_names(sizes) if sum(size for _, size in sizes) == width else ()


def _expand_names(sizes: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    names: list[str] = []
    for name, size in sizes:
        if not name.isprintable() or not 0 < len(name) <= MAX_NAME_LENGTH:
            return ()
        names += [name] if size == 1 else [f"{name}[{place}]" for place in range(size)]
    return tuple(names) if len(set(names)) == len(names) else ()


def read_input_rows(
    tensors: Mapping[str, Tensor], width: int, rows: int, chosen: Iterable[int]
) -> list[list[FeatureValue]]:
    """Return the `chosen` of all `rows`: the values of all tensors, in the request's order.

    Raises TensorError if a row does not have `width` values.
    """
    sizes = [(tensor, len(tensor.values) // rows if rows else 0) for tensor in tensors.values()]
    row_width = sum(size for _, size in sizes)
    if rows and row_width != width:
        raise TensorError(f"a row has {row_width} values, and the reference has {width}")
    return [
        [_convert_value(value) for tensor, size in sizes for value in tensor.values[row * size : (row + 1) * size]]
        for row in chosen
    ]


def read_output_rows(tensors: Mapping[str, Tensor], rows: int, chosen: Iterable[int]) -> list[list[FeatureValue]]:
    """Return the `chosen` of all `rows` of the first output. Raises TensorError if its number of rows differs."""
    first = next(iter(tensors.values()))
    if (first.shape[0] if first.shape else 1) != rows:
        raise TensorError("the answer has other rows than the request")
    size = len(first.values) // rows if rows else 0
    output_rows = [[_convert_value(value) for value in first.values[row * size : (row + 1) * size]] for row in chosen]
    if not all(output_rows):
        raise TensorError("the answer has empty rows")
    return output_rows


def _convert_value(value: Scalar) -> FeatureValue:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else float(value)
