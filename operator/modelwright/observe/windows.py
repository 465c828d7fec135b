"""The windows that are compared with the reference side by side, and what each says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from modelwright.core.monitoring import drift
from modelwright.core.monitoring.bins import Bins
from modelwright.core.monitoring.drift import Comparison, Look
from modelwright.core.monitoring.reference import Reference
from modelwright.core.monitoring.worst import KINDS, Worst
from modelwright.observe.window import PartWindow, RowWindow

OUTPUT = "output"
"""The name of the predictions, as a feature."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of the values of one feature in a window, 0 to 1."""

    missing: float
    unknown: float


@dataclass(slots=True)
class Windows:
    """Windows by name. Below `min_samples` rows a window says nothing. Not thread-safe: one event loop owns it."""

    reference: Reference
    comparison: Comparison
    min_samples: int
    windows: Mapping[str, RowWindow | PartWindow]
    names: tuple[str, ...] = field(init=False)
    """Of all features of a row: the reference's, or the tensors' of the first request that has as many."""

    def __post_init__(self) -> None:
        self.names = self.reference.names

    def add(self, now: float, rows: Sequence[bytes], answers: Sequence[int] = ()) -> None:
        """Count rows, by the bins of their features, and answers, by their bin, in each window."""
        for window in self.windows.values():
            window.add(now, rows, answers)

    def name(self, place: int) -> str:
        """The name of a feature by its place in a row."""
        return self.names[place] if self.names else str(place)

    def watched(self, kind: str) -> list[tuple[str, Bins]]:
        """Names and bins of what is compared, by kind: `input` or `prediction`."""
        if kind == "input":
            return [(self.name(place), bins) for place, bins in self.reference.features.items()]
        return [(OUTPUT, self.reference.predictions)] if self.reference.predictions is not None else []

    @property
    def unwatched(self) -> list[tuple[str, str]]:
        """Kind and name of each feature that is free text, and has no distance."""
        return [
            (kind, name) for kind in KINDS for name, bins in self.watched(kind) if not bins.watchable
        ]  # fmt: skip

    def rows(self, window: str, now: float) -> int:
        """Rows whose inputs are in the window."""
        return self.windows[window].counts(now).rows

    def answers(self, window: str, now: float) -> int:
        """Rows whose answers are in the window."""
        return self.windows[window].counts(now).answers

    def inputs(self, window: str, now: float) -> Look | None:
        """How far the inputs are from the reference; None below `min_samples`."""
        counts = self.windows[window].counts(now)
        if counts.rows < self.min_samples:
            return None
        found: dict[str, tuple[Bins, Sequence[int]]] = {
            self.name(place): (bins, rows)
            for (place, bins), rows in zip(self.reference.features.items(), counts.features, strict=True)
        }
        return drift.look(found, self.comparison)

    def predictions(self, window: str, now: float) -> Look | None:
        """How far the answers are from the reference; None below `min_samples` or without predictions in it."""
        counts, bins = self.windows[window].counts(now), self.reference.predictions
        if bins is None or counts.answers < self.min_samples:
            return None
        return drift.look({OUTPUT: (bins, counts.predictions)}, self.comparison)

    def figures(self, now: float) -> Iterator[Worst]:
        """All figures of all windows."""
        for window in self.windows:
            for kind, rows, look in (
                ("input", self.rows(window, now), self.inputs(window, now)),
                ("prediction", self.answers(window, now), self.predictions(window, now)),
            ):
                for figure in look.figures if look is not None else ():
                    yield Worst(window, kind, rows, figure)

    def shares(self, window: str, now: float) -> dict[str, Shares]:
        """Shares of missing and unknown values of each input, in its order; empty below `min_samples`."""
        counts = self.windows[window].counts(now)
        if counts.rows < self.min_samples:
            return {}
        return {
            self.name(place): Shares(rows[-1] / counts.rows, rows[-2] / counts.rows)
            for place, rows in zip(self.reference.features, counts.features, strict=True)
        }


def grouped(figures: Mapping[str, float], most: int) -> dict[str, float]:
    """At most `most` figures: neighbours are put together, named by the first and the last, and the largest counts."""
    names = list(figures)
    size = max(1, -(-len(names) // most))
    found: dict[str, float] = {}
    for start in range(0, len(names), size):
        group = names[start : start + size]
        name = group[0] if len(group) == 1 else f"{group[0]}-{group[-1]}"
        found[name] = max(figures[each] for each in group)
    return found
