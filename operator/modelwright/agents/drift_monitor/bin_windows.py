"""Counts of recent rows by bin: row by row in a short window, by slices of time in a long one."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from modelwright.core.drift.bins import Bins
from modelwright.core.drift.reference_sample import BinnedReference

SLICES = 48
"""Slices of a long window: its rows expire together with the others of the same 48th of its time."""


class BinCounts:
    """Rows by the bin of each feature, and answers by bin."""

    def __init__(self, reference: BinnedReference) -> None:
        self.rows = self.answers = 0
        self.features = [_zero_counts(bins) for bins in reference.features.values()]
        self.predictions = _zero_counts(reference.predictions) if reference.predictions is not None else array("l")

    def add_row(self, row: bytes, step: int = 1) -> None:
        """Count a row by the bins of its features; `step` -1 removes it."""
        self.rows += step
        for counts, place in zip(self.features, row, strict=True):
            counts[place] += step

    def add_answer(self, answer: int, step: int = 1) -> None:
        """Count an answer by its bin; `step` -1 removes it."""
        self.answers += step
        self.predictions[answer] += step

    def subtract_counts(self, other: BinCounts) -> None:
        """Subtract all counts of `other`."""
        self.rows -= other.rows
        self.answers -= other.answers
        for own, subtracted in zip(
            (*self.features, self.predictions), (*other.features, other.predictions), strict=True
        ):
            for place, count in enumerate(subtracted):
                own[place] -= count


@dataclass(slots=True)
class RowWindow:
    """At most `most_rows` rows, no older than `seconds`. Times are in seconds of any monotonic clock.

    Not thread-safe: one event loop owns it.
    """

    reference: BinnedReference
    seconds: float
    most_rows: int
    _rows: deque[tuple[float, bytes]] = field(default_factory=deque)
    _answers: deque[tuple[float, int]] = field(default_factory=deque)
    _counts: BinCounts = field(init=False)

    def __post_init__(self) -> None:
        self._counts = BinCounts(self.reference)

    def add_rows(self, now: float, rows: Sequence[bytes], answers: Sequence[int] = ()) -> None:
        """Count rows, by the bins of their features, and answers, by their bin."""
        for row in rows:
            self._rows.append((now, row))
            self._counts.add_row(row)
        for answer in answers:
            self._answers.append((now, answer))
            self._counts.add_answer(answer)
        self._drop_expired(now)

    def current_counts(self, now: float) -> BinCounts:
        """Return the counts of the window at the time `now`."""
        self._drop_expired(now)
        return self._counts

    def _drop_expired(self, now: float) -> None:
        while self._rows and (len(self._rows) > self.most_rows or now - self._rows[0][0] > self.seconds):
            self._counts.add_row(self._rows.popleft()[1], -1)
        while self._answers and (len(self._answers) > self.most_rows or now - self._answers[0][0] > self.seconds):
            self._counts.add_answer(self._answers.popleft()[1], -1)


@dataclass(slots=True)
class SlicedWindow:
    """All rows no older than `seconds`, to a 48th of it. Holds counts instead of rows, so its size is bounded."""

    reference: BinnedReference
    seconds: float
    _slices: deque[tuple[float, BinCounts]] = field(default_factory=deque)
    _counts: BinCounts = field(init=False)

    def __post_init__(self) -> None:
        self._counts = BinCounts(self.reference)

    def add_rows(self, now: float, rows: Sequence[bytes], answers: Sequence[int] = ()) -> None:
        """Count rows, by the bins of their features, and answers, by their bin."""
        self._drop_expired(now)
        if not self._slices or now - self._slices[-1][0] >= self.seconds / SLICES:
            self._slices.append((now, BinCounts(self.reference)))
        for counts in (self._counts, self._slices[-1][1]):
            _add_all(counts, rows, answers)

    def current_counts(self, now: float) -> BinCounts:
        """Return the counts of the window at the time `now`."""
        self._drop_expired(now)
        return self._counts

    def _drop_expired(self, now: float) -> None:
        while self._slices and now - self._slices[0][0] > self.seconds:
            self._counts.subtract_counts(self._slices.popleft()[1])


def _add_all(counts: BinCounts, rows: Iterable[bytes], answers: Iterable[int]) -> None:
    for row in rows:
        counts.add_row(row)
    for answer in answers:
        counts.add_answer(answer)


def _zero_counts(bins: Bins) -> array[int]:
    return array("l", bytes(array("l").itemsize * len(bins.counts)))
