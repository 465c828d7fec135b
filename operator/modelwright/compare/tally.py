"""Everything the comparer has counted since it started; the summary and the metrics are both made from it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from modelwright.compare.comparison import Answer, Comparison, Measure
from modelwright.core.shadow import (
    DIFFERENCE_BUCKETS,
    LATENCY_BUCKETS,
    Agreement,
    Difference,
    Latencies,
    Mismatches,
    Pair,
    Sides,
    Summary,
)


class Tally(Collector):
    """Counters that only grow. Not thread-safe: one event loop owns it."""

    def __init__(self, pair: Pair, started_at: datetime) -> None:
        self.pair, self.started_at = pair, started_at
        self.received = self.ignored = self.dropped = self.compared = self.uncomparable = 0
        self.rows = self.disagreements = 0
        self.labels, self.argmax = [0, 0], [0, 0]
        self.mismatches = dict.fromkeys(Mismatches.model_fields, 0)
        self.errors = {"serving": 0, "candidate": 0}
        self.latency = {"serving": Measure(LATENCY_BUCKETS), "candidate": Measure(LATENCY_BUCKETS)}
        self.absolute, self.relative, self.non_finite = Measure(DIFFERENCE_BUCKETS), Measure(DIFFERENCE_BUCKETS), 0

    @property
    def pending(self) -> int:
        """Copies that were taken and are not finished."""
        return self.received - self.ignored - self.dropped - self.compared - self.uncomparable

    def add(self, serving: Answer, candidate: Answer, found: Comparison) -> None:
        """Take what came of one request."""
        self.compared += found.compared
        self.uncomparable += not found.compared
        self.rows += found.rows
        self.disagreements += found.disagreements
        for mine, theirs in ((self.labels, found.labels), (self.argmax, found.argmax)):
            mine[0] += theirs[0]
            mine[1] += theirs[1]
        if found.mismatch is not None:
            self.mismatches[found.mismatch] += 1
        self.absolute.merge(found.absolute)
        self.relative.merge(found.relative)
        self.non_finite += found.non_finite
        self.errors["serving"] += found.serving_failed
        self.errors["candidate"] += found.candidate_failed
        for side, answer in (("serving", serving), ("candidate", candidate)):
            # To fail fast is not to be fast.
            if answer.good or answer.timed_out:
                self.latency[side].add(answer.seconds)

    def summary(self) -> Summary:
        """The counters as they are told."""
        return Summary(
            started_at=self.started_at,
            pair=self.pair,
            received=self.received,
            ignored=self.ignored,
            dropped=self.dropped,
            compared=self.compared,
            uncomparable=self.uncomparable,
            rows=self.rows,
            disagreements=self.disagreements,
            agreement=1 - self.disagreements / self.rows if self.rows else None,
            labels=Agreement(rows=self.labels[0], disagreements=self.labels[1]),
            argmax=Agreement(rows=self.argmax[0], disagreements=self.argmax[1]),
            mismatches=Mismatches(**self.mismatches),
            difference=Difference(
                absolute=self.absolute.wire(), relative=self.relative.wire(), non_finite=self.non_finite
            ),
            errors=Sides(**self.errors),
            latency=Latencies(**{side: measure.wire() for side, measure in self.latency.items()}),
        )

    def collect(self) -> Iterator[Metric]:
        """The counters as Prometheus metrics; a fixed number of series."""
        summary = self.summary()
        requests = _counter("requests", "Copies of callers' requests, by what became of them.", "result")
        for name in ("ignored", "dropped", "compared", "uncomparable"):
            requests.add_metric([name], getattr(summary, name))
        yield requests
        rows = _counter("rows", "Rows compared.", "result")
        rows.add_metric(["agree"], summary.rows - summary.disagreements)
        rows.add_metric(["differ"], summary.disagreements)
        yield rows
        mismatches = _counter("mismatches", "Answers of the candidate that differ as a whole.", "what")
        for name, count in self.mismatches.items():
            mismatches.add_metric([name], count)
        yield mismatches
        errors = _counter("errors", "Requests that a revision failed to answer.", "revision")
        for side, count in self.errors.items():
            errors.add_metric([side], count)
        yield errors
        latency = HistogramMetricFamily(
            "modelwright_comparer_answer_seconds", "Time to an answer.", labels=["revision"]
        )
        for side, measured in (("serving", summary.latency.serving), ("candidate", summary.latency.candidate)):
            latency.add_metric([side], list(measured.buckets), measured.sum)
        yield latency
        differences = HistogramMetricFamily(
            "modelwright_comparer_difference", "How far apart numbers of the two answers are.", labels=["kind"]
        )
        kinds = (("absolute", summary.difference.absolute), ("relative", summary.difference.relative))
        for kind, measured in kinds:
            differences.add_metric([kind], list(measured.buckets), measured.sum)
        yield differences
        yield GaugeMetricFamily("modelwright_comparer_pending", "Copies waiting or being asked.", self.pending)


def _counter(name: str, text: str, label: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"modelwright_comparer_{name}", text, labels=[label])
