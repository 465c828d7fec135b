"""The rows of a request and of its answer, in the Open Inference Protocol (V2), as a reference sample has them."""

from __future__ import annotations

from collections.abc import Mapping

from modelwright.compare.tensors import Scalar, Tensor, Unreadable
from modelwright.core.monitoring.psi import Value


def inputs(tensors: Mapping[str, Tensor], width: int, most: int) -> list[list[Value]]:
    """The first `most` rows: of each, the values of all tensors, one after the other as the request has them.

    Raises Unreadable when the tensors have not the same number of rows, or a row has not `width` values.
    """
    rows = _rows(tensors)
    sizes = [(tensor, len(tensor.values) // rows if rows else 0) for tensor in tensors.values()]
    found = sum(size for _, size in sizes)
    if rows and found != width:
        raise Unreadable(f"a row has {found} values, and the reference has {width}")
    return [
        [_value(value) for tensor, size in sizes for value in tensor.values[row * size : (row + 1) * size]]
        for row in range(min(rows, most))
    ]


def answers(tensors: Mapping[str, Tensor], most: int) -> list[list[Value]]:
    """The first `most` rows of the first output."""
    first = next(iter(tensors.values()))
    rows = first.shape[0] if first.shape else 1
    size = len(first.values) // rows if rows else 0
    return [[_value(value) for value in first.values[row * size : (row + 1) * size]] for row in range(min(rows, most))]


def _rows(tensors: Mapping[str, Tensor]) -> int:
    counts = {tensor.shape[0] if tensor.shape else 1 for tensor in tensors.values()}
    if len(counts) != 1:
        raise Unreadable("the tensors have not the same number of rows")
    return counts.pop()


def _value(value: Scalar) -> Value:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else float(value)
