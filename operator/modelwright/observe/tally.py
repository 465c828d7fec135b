"""What the observer has counted since it started, and what its window says, as Prometheus metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from modelwright.observe.settings import Settings
from modelwright.observe.window import Window

_LABELS = ("namespace", "model", "version")


class Tally(Collector):
    """Counters that only grow, beside the window. Not thread-safe: one event loop owns it."""

    def __init__(self, settings: Settings, window: Window, now: Callable[[], float] = time.monotonic) -> None:
        self.window = window
        self.now = now
        self.received = self.ignored = self.dropped = self.observed = self.unreadable = self.unanswered = 0
        self.rows = 0
        self._values = [settings.model_namespace, settings.model_name, settings.model_version]

    @property
    def pending(self) -> int:
        """Copies that were taken and are not finished."""
        return self.received - self.ignored - self.dropped - self.observed - self.unreadable

    def collect(self) -> Iterator[Metric]:
        """A bounded number of series: 21 at most of drift, and a few counters."""
        now, window = self.now(), self.window
        requests = CounterMetricFamily(
            "modelwright_observed_requests",
            "Copies of callers' requests, by what became of them; unanswered ones are observed too.",
            labels=[*_LABELS, "result"],
        )
        for name in ("ignored", "dropped", "observed", "unreadable", "unanswered"):
            requests.add_metric([*self._values, name], getattr(self, name))
        yield requests
        rows = CounterMetricFamily("modelwright_observed_rows", "Rows of requests that were counted.", labels=_LABELS)
        rows.add_metric(self._values, self.rows)
        yield rows
        held = GaugeMetricFamily(
            "modelwright_observed_window_rows", "Rows that the drift figures are made from.", labels=[*_LABELS, "kind"]
        )
        held.add_metric([*self._values, "input"], window.rows(now))
        held.add_metric([*self._values, "prediction"], window.answers(now))
        yield held
        psi = GaugeMetricFamily(
            "modelwright_drift_psi",
            "Population stability index of the window beside the version's reference sample.",
            labels=[*_LABELS, "kind", "feature"],
        )
        excess = GaugeMetricFamily(
            "modelwright_drift_excess",
            "The largest PSI in units of what is drift at this number of rows: above 1 it is.",
            labels=[*_LABELS, "kind"],
        )
        for kind, figures in (("input", window.inputs(now)), ("prediction", window.predictions(now))):
            if figures is not None:
                for feature, value in figures.psi.items():
                    psi.add_metric([*self._values, kind, feature], value)
                excess.add_metric([*self._values, kind], figures.excess)
        yield psi
        yield excess
