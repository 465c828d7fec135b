"""The windows compared with the reference, and the drift of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from modelwright.agents.drift_monitor.bin_windows import RowWindow, SlicedWindow
from modelwright.core.drift import feature_drift
from modelwright.core.drift.bins import Bins
from modelwright.core.drift.feature_drift import DriftMethods, DriftReport
from modelwright.core.drift.reference_sample import BinnedReference
from modelwright.core.drift.worst_features import FEATURE_KINDS, WindowDrift

OUTPUT_FEATURE = "output"
"""Name of the predictions as a feature."""


@dataclass(frozen=True, slots=True)
class FeatureShares:
    """Shares of the values of one feature in a window, 0 to 1."""

    missing: float
    unknown: float


@dataclass(slots=True)
class DriftWindows:
    """Windows by name. A window with fewer than `min_samples` rows has no figures. Not thread-safe: one event loop owns
    it."""

    reference: BinnedReference
    comparison: DriftMethods
    min_samples: int
    windows: Mapping[str, RowWindow | SlicedWindow]
    names: tuple[str, ...] = field(init=False)
    """Names of all features of a row: the reference's, or those of the first request with as many values."""

    def __post_init__(self) -> None:
        self.names = self.reference.names

    def add_rows(self, now: float, rows: Sequence[bytes], answers: Sequence[int] = ()) -> None:
        """Count rows, by the bins of their features, and answers, by their bin, in each window."""
        for window in self.windows.values():
            window.add_rows(now, rows, answers)

    def feature_name(self, place: int) -> str:
        """Return the name of a feature by its place in a row."""
        return self.names[place] if self.names else str(place)

    def watched_features(self, kind: str) -> list[tuple[str, Bins]]:
        """Return names and bins of the compared features of a kind: `input` or `prediction`."""
        if kind == "input":
            return [(self.feature_name(place), bins) for place, bins in self.reference.features.items()]
        return [(OUTPUT_FEATURE, self.reference.predictions)] if self.reference.predictions is not None else []

    @property
    def unwatched_features(self) -> list[tuple[str, str]]:
        """Kind and name of each feature of free text, which has no distance."""
        return [
            (kind, name)
            for kind in FEATURE_KINDS
            for name, bins in self.watched_features(kind)
            if not bins.is_watchable
        ]

    def count_rows(self, window: str, now: float) -> int:
        """Return the number of rows in the window with inputs."""
        return self.windows[window].current_counts(now).rows

    def count_answers(self, window: str, now: float) -> int:
        """Return the number of rows in the window with answers."""
        return self.windows[window].current_counts(now).answers

    def input_drift(self, window: str, now: float) -> DriftReport | None:
        """Measure the distance of the inputs from the reference; None below `min_samples`."""
        counts = self.windows[window].current_counts(now)
        if counts.rows < self.min_samples:
            return None
        features: dict[str, tuple[Bins, Sequence[int]]] = {
            self.feature_name(place): (bins, rows)
            for (place, bins), rows in zip(self.reference.features.items(), counts.features, strict=True)
        }
        return feature_drift.compare_features(features, self.comparison)

    def prediction_drift(self, window: str, now: float) -> DriftReport | None:
        """Measure the distance of the answers from the reference; None below `min_samples` or if it has no
        predictions."""
        counts, bins = self.windows[window].current_counts(now), self.reference.predictions
        if bins is None or counts.answers < self.min_samples:
            return None
        return feature_drift.compare_features({OUTPUT_FEATURE: (bins, counts.predictions)}, self.comparison)

    def list_figures(self, now: float) -> Iterator[WindowDrift]:
        """Yield all figures of all windows."""
        for window in self.windows:
            for kind, rows, report in (
                ("input", self.count_rows(window, now), self.input_drift(window, now)),
                ("prediction", self.count_answers(window, now), self.prediction_drift(window, now)),
            ):
                for figure in report.figures if report is not None else ():
                    yield WindowDrift(window, kind, rows, figure)

    def feature_shares(self, window: str, now: float) -> dict[str, FeatureShares]:
        """Return the shares of missing and unknown values of each input, in its order; empty below `min_samples`."""
        counts = self.windows[window].current_counts(now)
        if counts.rows < self.min_samples:
            return {}
        return {
            self.feature_name(place): FeatureShares(rows[-1] / counts.rows, rows[-2] / counts.rows)
            for place, rows in zip(self.reference.features, counts.features, strict=True)
        }


def group_features(figures: Mapping[str, float], max_groups: int) -> dict[str, float]:
    """Reduce to at most `max_groups` figures: neighbours form a group with the names of the first and last, and the
    largest figure."""
    names = list(figures)
    size = max(1, -(-len(names) // max_groups))
    groups: dict[str, float] = {}
    for start in range(0, len(names), size):
        group = names[start : start + size]
        name = group[0] if len(group) == 1 else f"{group[0]}-{group[-1]}"
        groups[name] = max(figures[feature] for feature in group)
    return groups
