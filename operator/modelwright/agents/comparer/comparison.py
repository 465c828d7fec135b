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
    """A histogram that grows; `bounds` are its upper bounds, in order, without the infinite one."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one finite value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def merge(self, other: GrowingHistogram) -> None:
        """Count all that `other`, of the same bounds, has counted."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum

    def to_distribution(self) -> Distribution:
        """As the summary tells it."""
        total, buckets = 0, []
        for bound, count in zip([*(f"{bound:g}" for bound in self.bounds), "+Inf"], self.counts, strict=True):
            total += count
            buckets.append((bound, total))
        # JSON has no infinity; so large a sum is out of every limit as it is.
        return Distribution(count=total, sum=max(min(self.sum, 1.7e308), -1.7e308), buckets=tuple(buckets))


@dataclass(slots=True)
class AnswerComparison:
    """What came of one request. `compared` False: the serving revision gave nothing to compare with.

    `labels` and `argmax` are [rows, disagreements] of those two ways to compare.
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
        """Share of the rows that differ; None when there is nothing to compare. Of no rows, all differ when the
        candidate gave something else."""
        if not self.compared or not (self.rows or self.mismatch):
            return None
        return self.disagreements / self.rows if self.rows else 1.0


@dataclass(frozen=True, slots=True)
class NumberTolerance:
    """Numbers agree when they are within `relative` of the larger one, or within `absolute`."""

    relative: float = 1e-3
    absolute: float = 1e-6

    def agrees(self, one: float, other: float) -> bool:
        """Whether two numbers agree; NaN agrees with NaN."""
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        return math.isclose(one, other, rel_tol=self.relative, abs_tol=self.absolute)


def compare_answers(serving: RevisionAnswer, candidate: RevisionAnswer, tolerance: NumberTolerance) -> AnswerComparison:
    """The serving revision's answer is what the candidate's is measured by.

    What it refuses, fails to answer or answers in another protocol can't be compared. When the candidate doesn't give
    what the serving revision gave, all rows differ.
    """
    result = AnswerComparison()
    result.serving_failed = not serving.is_success and not serving.is_client_error
    result.candidate_failed = not candidate.is_success and (serving.is_success or not candidate.is_client_error)
    if not serving.is_success:
        return result
    try:
        wanted = _parse_answer(serving)
    except TensorError:
        return result
    result.compared = True
    result.rows = _count_rows(wanted)
    given: Mapping[str, Tensor] = {}
    if not candidate.is_success:
        result.mismatch = "unanswered"
    else:
        try:
            given = _parse_answer(candidate)
            result.mismatch = _find_mismatch(wanted, given)
        except TensorError:
            result.mismatch = "unreadable"
    if result.mismatch is not None:
        result.disagreements = result.rows
        return result
    differs = [False] * result.rows
    for name, tensor in wanted.items():
        _compare_tensor(tensor, given[name], tolerance, differs, result)
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


def _find_mismatch(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Mismatch | None:
    if wanted.keys() != given.keys():
        return "names"
    # Of another width, numbers are still numbers; text and integers are not the same labels.
    if any(_value_kind(tensor) != _value_kind(given[name]) for name, tensor in wanted.items()):
        return "datatypes"
    if any(tensor.shape != given[name].shape for name, tensor in wanted.items()):
        return "shapes"
    return None


def _value_kind(tensor: Tensor) -> str:
    return "number" if tensor.is_float else "text" if tensor.datatype == "BYTES" else "integer"


def _compare_tensor(
    wanted: Tensor, given: Tensor, tolerance: NumberTolerance, differs: list[bool], result: AnswerComparison
) -> None:
    """Marks the rows of `differs` in which the two tensors, of one shape, differ."""
    rows = len(differs)
    if not rows or not wanted.values:
        return
    size = len(wanted.values) // rows
    for row in range(rows):
        ours, theirs = wanted.values[row * size : (row + 1) * size], given.values[row * size : (row + 1) * size]
        if wanted.is_float:
            classes = wanted.shape[-1] if len(wanted.shape) > 1 else 1
            same = _compare_numbers(
                cast(Sequence[float], ours), cast(Sequence[float], theirs), classes, tolerance, result
            )
        else:
            same = list(ours) == list(theirs)
            result.labels[0] += 1
            result.labels[1] += not same
        if not same:
            differs[row] = True


def _compare_numbers(
    ours: Sequence[float], theirs: Sequence[float], classes: int, tolerance: NumberTolerance, result: AnswerComparison
) -> bool:
    """Whether all numbers of a row agree: each within the tolerance, or, of two sets of probabilities, in the class
    that is most probable. Counts every difference on the way."""
    same = True
    for start in range(0, len(ours), classes):
        one, other = ours[start : start + classes], theirs[start : start + classes]
        near = True
        for left, right in zip(one, other, strict=True):
            near &= tolerance.agrees(left, right)
            _count_difference(left, right, result)
        if classes > 1:
            agree = _find_argmax(one) == _find_argmax(other)
            result.argmax[0] += 1
            result.argmax[1] += not agree
            if _are_probabilities(one) and _are_probabilities(other):
                near = agree
        same &= near
    return same


def _count_difference(one: float, other: float, result: AnswerComparison) -> None:
    if not math.isfinite(one) or not math.isfinite(other):
        result.non_finite += not (one == other or (math.isnan(one) and math.isnan(other)))
        return
    # Halves, so that the difference of two very large numbers is still one.
    apart, larger = abs(one / 2 - other / 2), max(abs(one), abs(other))
    result.absolute.add(min(2 * apart, 1.7e308))
    result.relative.add(2 * (apart / larger) if larger else 0.0)


def _find_argmax(values: Sequence[float]) -> int:
    """Place of the largest; -1 when one of them is NaN."""
    return -1 if any(map(math.isnan, values)) else max(range(len(values)), key=values.__getitem__)


def _are_probabilities(values: Sequence[float]) -> bool:
    return all(value >= 0 for value in values) and abs(sum(values) - 1) <= _SUM_TOLERANCE
