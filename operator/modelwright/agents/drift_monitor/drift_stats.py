"""Counters of the drift monitor since its start, and the figures of its windows, as Prometheus metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from modelwright.agents.drift_monitor.drift_windows import DriftWindows, group_features
from modelwright.agents.drift_monitor.settings import DriftMonitorSettings
from modelwright.core.drift.feature_drift import Aspect, DriftReport

_LABELS = ("namespace", "model", "version")
MAX_SERIES = 16
WORST_FEATURES = 3


class DriftStats(Collector):
    """Counters that only grow, and the windows. Not thread-safe: one event loop owns them."""

    def __init__(
        self, settings: DriftMonitorSettings, windows: DriftWindows, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.windows = windows
        self.now = now
        self.refused = self.received = self.ignored = self.dropped = self.observed = self.unreadable = (
            self.unanswered
        ) = 0
        self.rows = 0
        self._label_values = [settings.model_namespace, settings.model_name, settings.model_version]

    @property
    def pending(self) -> int:
        """Number of copies received and not finished."""
        return self.received - self.ignored - self.dropped - self.observed - self.unreadable

    def collect(self) -> Iterator[Metric]:
        """Yield a bounded number of series: at most 60 of drift a window, and a few counters."""
        requests = CounterMetricFamily(
            "modelwright_observed_requests",
            "Copies of callers' requests, by what became of them; unanswered ones are observed too.",
            labels=[*_LABELS, "result"],
        )
        for name in ("refused", "ignored", "dropped", "observed", "unreadable", "unanswered"):
            requests.add_metric([*self._label_values, name], getattr(self, name))
        yield requests
        rows = CounterMetricFamily("modelwright_observed_rows", "Rows of requests that were counted.", labels=_LABELS)
        rows.add_metric(self._label_values, self.rows)
        yield rows
        yield from self._collect_drift(self.now())

    def _collect_drift(self, now: float) -> Iterator[Metric]:
        windows = self.windows
        row_counts = self._create_gauge("observed_window_rows", "Rows that the drift figures are made from.", "kind")
        excess = self._create_gauge(
            "drift_excess", "The largest figure of drift in units of its limit: above 1 it is drift.", "kind"
        )
        distance = self._create_gauge(
            "drift_distance", "Distance of a feature from the version's reference sample.", "kind", "feature", "method"
        )
        worst = self._create_gauge(
            "drift_worst_excess",
            "The three features with the largest figures in units of their limits.",
            "kind",
            "feature",
            "aspect",
        )
        missing = self._create_gauge(
            "drift_missing_ratio", "Share of the values of a feature that are missing.", "feature"
        )
        unknown = self._create_gauge(
            "drift_unknown_ratio", "Share of the values of a feature that its reference doesn't know.", "feature"
        )
        unwatched = self._create_gauge(
            "drift_unwatched_features", "Features that are free text, and not compared with the reference.", "kind"
        )
        for window in windows.windows:
            row_counts.add_metric([*self._label_values, window, "input"], windows.count_rows(window, now))
            row_counts.add_metric([*self._label_values, window, "prediction"], windows.count_answers(window, now))
            shares = windows.feature_shares(window, now)
            for gauge, values in (
                (missing, {name: share.missing for name, share in shares.items()}),
                (unknown, {name: share.unknown for name, share in shares.items()}),
            ):
                for feature, value in group_features(values, MAX_SERIES).items():
                    gauge.add_metric([*self._label_values, window, feature], value)
            for kind, report in (
                ("input", windows.input_drift(window, now)),
                ("prediction", windows.prediction_drift(window, now)),
            ):
                if report is None:
                    continue
                excess.add_metric([*self._label_values, window, kind], report.excess)
                unwatched.add_metric([*self._label_values, window, kind], len(report.unwatched))
                for figure in report.list_worst(WORST_FEATURES):
                    worst.add_metric([*self._label_values, window, kind, figure.feature, figure.aspect], figure.excess)
                for method, figures in self._distances_by_method(kind, report).items():
                    for feature, value in group_features(figures, MAX_SERIES).items():
                        distance.add_metric([*self._label_values, window, kind, feature, method], value)
        yield from (row_counts, excess, distance, worst, missing, unknown, unwatched)

    def _distances_by_method(self, kind: str, report: DriftReport) -> dict[str, dict[str, float]]:
        """Return distances by method and feature, features in the order of a row: each method has its own scale."""
        distances = {figure.feature: figure.value for figure in report.figures if figure.aspect is Aspect.DISTANCE}
        by_method: dict[str, dict[str, float]] = {}
        for feature, bins in self.windows.watched_features(kind):
            if feature in distances:
                by_method.setdefault(self.windows.comparison.method_for(bins), {})[feature] = distances[feature]
        return by_method

    def _create_gauge(self, name: str, text: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"modelwright_{name}", text, labels=[*_LABELS, "window", *labels])
