"""Compares the answers of two revisions to the same request."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from modelwright.agents.mirror import RevisionAnswer
from modelwright.agents.tensors import Tensor, TensorError, parse_tensors
from modelwright.core.analysis.comparison_summary import DIFFERENCE_BUCKETS, Distribution

Mismatch = Literal["unanswered", "unreadable", "names", "datatypes", "shapes"]

_SUM_TOLERANCE = 1e-3


class GrowingHistogram:
    """A histogram that only grows. `bounds`: its upper bounds in ascending order, without the infinite one."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one finite value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def merge(self, other: GrowingHistogram) -> None:
        """Add the counts of `other`, which has the same bounds."""
        self.counts = [own + added for own, added in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum

    def to_distribution(self) -> Distribution:
        """Build the cumulative histogram of the summary."""
        total, buckets = 0, []
        for bound, count in zip([*(f"{bound:g}" for bound in self.bounds), "+Inf"], self.counts, strict=True):
            total += count
            buckets.append((bound, total))
        # JSON has no infinity; a sum this large exceeds every limit anyway.
        return Distribution(count=total, sum=max(min(self.sum, 1.7e308), -1.7e308), buckets=tuple(buckets))


@dataclass(slots=True)
class AnswerComparison:
    """Result of comparing the two answers to one request.

    `compared`: False if the serving revision's answer allows no comparison. `labels` and `argmax`: [rows,
    disagreements] by each of those two methods.
    """

    compared: bool = False
    rows: int = 0
    disagreements: int = 0
    mismatch: Mismatch | None = None
    serving_failed: bool = False
    candidate_failed: bool = False
    labels: list[int] = field(default_factory=lambda: [0, 0])
    argmax: list[int] = field(default_factory=lambda: [0, 0])
    absolute: GrowingHistogram = field(default_factory=lambda: GrowingHistogram(DIFFERENCE_BUCKETS))
    relative: GrowingHistogram = field(default_factory=lambda: GrowingHistogram(DIFFERENCE_BUCKETS))
    non_finite: int = 0

    @property
    def differing_share(self) -> float | None:
        """Share of the rows that differ; None if there is nothing to compare. Without rows, a mismatch as a whole
        counts as 1."""
        if not self.compared or not (self.rows or self.mismatch):
            return None
        return self.disagreements / self.rows if self.rows else 1.0


@dataclass(frozen=True, slots=True)
class NumberTolerance:
    """Two numbers agree within `relative` of the larger one, or within `absolute`."""

    relative: float = 1e-3
    absolute: float = 1e-6

    def agrees(self, one: float, other: float) -> bool:
        """Return whether two numbers agree; NaN agrees with NaN."""
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        return math.isclose(one, other, rel_tol=self.relative, abs_tol=self.absolute)


def compare_answers(serving: RevisionAnswer, candidate: RevisionAnswer, tolerance: NumberTolerance) -> AnswerComparison:
    """Compare the candidate's answer with the serving revision's, which is the reference.

    There is no comparison if the serving revision rejects the request, fails, or answers in another protocol. If the
    candidate then lacks a comparable answer, every row differs.
    """
    result = AnswerComparison()
    result.serving_failed = not serving.is_success and not serving.is_client_error
    result.candidate_failed = not candidate.is_success and (serving.is_success or not candidate.is_client_error)
    if not serving.is_success:
        return result
    try:
        expected = _parse_answer(serving)
    except TensorError:
        return result
    result.compared = True
    result.rows = _count_rows(expected)
    actual: Mapping[str, Tensor] = {}
    if not candidate.is_success:
        result.mismatch = "unanswered"
    else:
        try:
            actual = _parse_answer(candidate)
            result.mismatch = _find_mismatch(expected, actual)
        except TensorError:
            result.mismatch = "unreadable"
    if result.mismatch is not None:
        result.disagreements = result.rows
        return result
    differs = [False] * result.rows
    for name, tensor in expected.items():
        _compare_tensor(tensor, actual[name], tolerance, differs, result)
    result.disagreements = sum(differs)
    return result


def _parse_answer(answer: RevisionAnswer) -> dict[str, Tensor]:
    if not answer.whole:
        raise TensorError("the answer is too large")
    return parse_tensors(answer.body, answer.header_length)


def _count_rows(tensors: Mapping[str, Tensor]) -> int:
    firsts = {tensor.shape[0] if tensor.shape else None for tensor in tensors.values()}
    first = firsts.pop()
    return first if first is not None and not firsts else 1


def _find_mismatch(expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> Mismatch | None:
    if expected.keys() != actual.keys():
        return "names"
    # Numbers of another width are still numbers; text and integers are different kinds of labels.
    if any(_value_kind(tensor) != _value_kind(actual[name]) for name, tensor in expected.items()):
        return "datatypes"
    if any(tensor.shape != actual[name].shape for name, tensor in expected.items()):
        return "shapes"
    return None


def _value_kind(tensor: Tensor) -> str:
    return "number" if tensor.is_float else "text" if tensor.datatype == "BYTES" else "integer"


def _compare_tensor(
    expected: Tensor, actual: Tensor, tolerance: NumberTolerance, differs: list[bool], result: AnswerComparison
) -> None:
    """Mark the rows of `differs` in which two tensors of the same shape differ."""
    rows = len(differs)
    if not rows or not expected.values:
        return
    size = len(expected.values) // rows
    for row in range(rows):
        expected_row, actual_row = (
            expected.values[row * size : (row + 1) * size],
            actual.values[row * size : (row + 1) * size],
        )
        if expected.is_float:
            classes = expected.shape[-1] if len(expected.shape) > 1 else 1
            same = _compare_numbers(
                cast(Sequence[float], expected_row), cast(Sequence[float], actual_row), classes, tolerance, result
            )
        else:
            same = list(expected_row) == list(actual_row)
            result.labels[0] += 1
            result.labels[1] += not same
        if not same:
            differs[row] = True


def _compare_numbers(
    expected: Sequence[float],
    actual: Sequence[float],
    classes: int,
    tolerance: NumberTolerance,
    result: AnswerComparison,
) -> bool:
    """Return whether all numbers of a row agree, counting each difference.

    They agree if each is within the tolerance; two sets of probabilities agree if the most probable class is the same.
    """
    same = True
    for start in range(0, len(expected), classes):
        expected_group, actual_group = expected[start : start + classes], actual[start : start + classes]
        near = True
        for left, right in zip(expected_group, actual_group, strict=True):
            near &= tolerance.agrees(left, right)
            _count_difference(left, right, result)
        if classes > 1:
            agree = _find_argmax(expected_group) == _find_argmax(actual_group)
            result.argmax[0] += 1
            result.argmax[1] += not agree
            if _are_probabilities(expected_group) and _are_probabilities(actual_group):
                near = agree
        same &= near
    return same


def _count_difference(one: float, other: float, result: AnswerComparison) -> None:
    if not math.isfinite(one) or not math.isfinite(other):
        result.non_finite += not (one == other or (math.isnan(one) and math.isnan(other)))
        return
    # Halved, so that the difference of two very large numbers stays finite.
    apart, larger = abs(one / 2 - other / 2), max(abs(one), abs(other))
    result.absolute.add(min(2 * apart, 1.7e308))
    result.relative.add(2 * (apart / larger) if larger else 0.0)


def _find_argmax(values: Sequence[float]) -> int:
    """Index of the largest value; -1 if one of them is NaN."""
    return -1 if any(map(math.isnan, values)) else max(range(len(values)), key=values.__getitem__)


def _are_probabilities(values: Sequence[float]) -> bool:
    return all(value >= 0 for value in values) and abs(sum(values) - 1) <= _SUM_TOLERANCE
