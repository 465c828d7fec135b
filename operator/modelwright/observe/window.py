"""The rows of the last minutes, counted by bin; the metrics are made from it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from modelwright.core.monitoring import psi
from modelwright.core.monitoring.psi import Drift
from modelwright.core.monitoring.reference import Reference


@dataclass(frozen=True, slots=True)
class Figures:
    """What a window says of one kind. `excess`: the largest PSI in units of its threshold."""

    psi: Mapping[str, float]
    excess: float


@dataclass(slots=True)
class Window:
    """At most `most_rows` rows that are no older than `seconds`. Times are in seconds of any clock that only goes on.

    Below `min_samples` rows it says nothing. Not thread-safe: one event loop owns it.
    """

    reference: Reference
    seconds: float
    min_samples: int
    most_rows: int
    _rows: deque[tuple[float, bytes]] = field(default_factory=deque)
    _answers: deque[tuple[float, int]] = field(default_factory=deque)
    _inputs: list[list[int]] = field(init=False)
    _predictions: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._inputs = [[0] * len(bins.counts) for bins in self.reference.features.values()]
        predictions = self.reference.predictions
        self._predictions = [0] * len(predictions.counts) if predictions is not None else []

    def add(self, now: float, rows: Sequence[bytes], answers: Sequence[int] = ()) -> None:
        """Count rows, by the bins of their features, and answers, by their bin."""
        for row in rows:
            self._rows.append((now, row))
            self._count(row, 1)
        for answer in answers:
            self._answers.append((now, answer))
            self._predictions[answer] += 1
        self._forget(now)

    def rows(self, now: float) -> int:
        """Rows whose inputs are counted now."""
        self._forget(now)
        return len(self._rows)

    def answers(self, now: float) -> int:
        """Rows whose answers are counted now."""
        self._forget(now)
        return len(self._answers)

    def inputs(self, now: float) -> Figures | None:
        """How far the inputs are from the reference; None below `min_samples`."""
        if self.rows(now) < self.min_samples:
            return None
        features = self.reference.features
        found = {
            at: psi.drift(bins, counts, features=len(features))
            for (at, bins), counts in zip(features.items(), self._inputs, strict=True)
        }
        return _figures(psi.series({at: drift.psi for at, drift in found.items()}), found.values())

    def predictions(self, now: float) -> Figures | None:
        """How far the answers are from the reference; None below `min_samples` or without predictions in it."""
        if self.reference.predictions is None or self.answers(now) < self.min_samples:
            return None
        drift = psi.drift(self.reference.predictions, self._predictions)
        return _figures({"output": drift.psi}, (drift,))

    def _count(self, row: bytes, step: int) -> None:
        for counts, place in zip(self._inputs, row, strict=True):
            counts[place] += step

    def _forget(self, now: float) -> None:
        while self._rows and (len(self._rows) > self.most_rows or now - self._rows[0][0] > self.seconds):
            self._count(self._rows.popleft()[1], -1)
        while self._answers and (len(self._answers) > self.most_rows or now - self._answers[0][0] > self.seconds):
            self._predictions[self._answers.popleft()[1]] -= 1


def _figures(series: Mapping[str, float], found: Iterable[Drift]) -> Figures:
    return Figures(series, max(drift.excess for drift in found))
