"""Counters of the comparer since its start; the source of both the summary and the metrics."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from modelwright.agents.comparer.comparison import AnswerComparison, GrowingHistogram
from modelwright.agents.mirror import RevisionAnswer
from modelwright.core.analysis.betting import split_value
from modelwright.core.analysis.comparison_summary import (
    DIFFERENCE_BUCKETS,
    DISAGREEMENT_POINTS,
    LATENCY_BUCKETS,
    AnswerMismatches,
    ComparedAnswers,
    ComparisonSummary,
    Latencies,
    NumberDifferences,
    PairedCounts,
    RevisionCounts,
    RevisionPair,
    RowAgreement,
)

_LATENCY_METRICS = (
    ("modelwright_comparer_response_duration_seconds", "Time to a response."),
    (
        "modelwright_comparer_answer_seconds",
        "Former name of modelwright_comparer_response_duration_seconds; the next release removes it.",
    ),
)
"""Queries of policies may use the former name for one more release."""


class PairCounts:
    """Counts requests that were bad at both revisions, or at only one of them."""

    def __init__(self) -> None:
        self.total = self.both = self.candidate_only = self.serving_only = 0

    def add(self, *, serving: bool, candidate: bool) -> None:
        """Count one request: whether it was bad at each revision."""
        self.total += 1
        self.both += serving and candidate
        self.candidate_only += candidate and not serving
        self.serving_only += serving and not candidate

    def to_paired(self) -> PairedCounts:
        """Build the summary's form."""
        return PairedCounts(
            total=self.total, both=self.both, candidate_only=self.candidate_only, serving_only=self.serving_only
        )


class ComparisonStats(Collector):
    """Counters that only grow. Not thread-safe: one event loop owns them."""

    def __init__(self, pair: RevisionPair, started_at: datetime) -> None:
        self.pair, self.started_at = pair, started_at
        self.refused = self.received = self.ignored = self.dropped = self.compared = self.uncomparable = 0
        self.rows = self.disagreements = self.answers = self.agreeing = 0
        self.differing = [0.0] * len(DISAGREEMENT_POINTS)
        self.labels, self.argmax = [0, 0], [0, 0]
        self.mismatches = dict.fromkeys(AnswerMismatches.model_fields, 0)
        self.errors = {"serving": 0, "candidate": 0}
        self.latency = {"serving": GrowingHistogram(LATENCY_BUCKETS), "candidate": GrowingHistogram(LATENCY_BUCKETS)}
        self.paired_errors = PairCounts()
        self.paired_latency = {bound: PairCounts() for bound in LATENCY_BUCKETS}
        self.absolute, self.relative, self.non_finite = (
            GrowingHistogram(DIFFERENCE_BUCKETS),
            GrowingHistogram(DIFFERENCE_BUCKETS),
            0,
        )

    @property
    def pending(self) -> int:
        """Number of copies received and not finished."""
        return self.received - self.ignored - self.dropped - self.compared - self.uncomparable

    def add(self, serving: RevisionAnswer, candidate: RevisionAnswer, comparison: AnswerComparison) -> None:
        """Count the result of one request."""
        self.compared += comparison.compared
        self.uncomparable += not comparison.compared
        self.rows += comparison.rows
        self.disagreements += comparison.disagreements
        if (share := comparison.differing_share) is not None:
            self.answers += 1
            self.agreeing += not share
            for index, part in split_value(share, DISAGREEMENT_POINTS):
                self.differing[index] += part
        for own, added in ((self.labels, comparison.labels), (self.argmax, comparison.argmax)):
            own[0] += added[0]
            own[1] += added[1]
        if comparison.mismatch is not None:
            self.mismatches[comparison.mismatch] += 1
        self.absolute.merge(comparison.absolute)
        self.relative.merge(comparison.relative)
        self.non_finite += comparison.non_finite
        self.errors["serving"] += comparison.serving_failed
        self.errors["candidate"] += comparison.candidate_failed
        self.paired_errors.add(serving=comparison.serving_failed, candidate=comparison.candidate_failed)
        for side, answer in (("serving", serving), ("candidate", candidate)):
            if answer.has_latency:
                self.latency[side].add(answer.seconds)
        if serving.has_latency and candidate.has_latency:
            for bound, pairs in self.paired_latency.items():
                pairs.add(serving=serving.seconds > bound, candidate=candidate.seconds > bound)

    def build_summary(self) -> ComparisonSummary:
        """Build the summary that `/summary` returns."""
        answers = ComparedAnswers(
            count=self.answers, differing=tuple(zip(DISAGREEMENT_POINTS, self.differing, strict=True))
        )
        return ComparisonSummary(
            started_at=self.started_at,
            pair=self.pair,
            refused=self.refused,
            received=self.received,
            ignored=self.ignored,
            dropped=self.dropped,
            compared=self.compared,
            uncomparable=self.uncomparable,
            rows=self.rows,
            disagreements=self.disagreements,
            answers=answers,
            agreement=answers.sample.share,
            labels=RowAgreement(rows=self.labels[0], disagreements=self.labels[1]),
            argmax=RowAgreement(rows=self.argmax[0], disagreements=self.argmax[1]),
            mismatches=AnswerMismatches(**self.mismatches),
            difference=NumberDifferences(
                absolute=self.absolute.to_distribution(),
                relative=self.relative.to_distribution(),
                non_finite=self.non_finite,
            ),
            errors=RevisionCounts(**self.errors),
            latency=Latencies(**{side: measure.to_distribution() for side, measure in self.latency.items()}),
            paired_errors=self.paired_errors.to_paired(),
            paired_latency=tuple((f"{bound:g}", pairs.to_paired()) for bound, pairs in self.paired_latency.items()),
        )

    def collect(self) -> Iterator[Metric]:
        """Yield the counters as Prometheus metrics, with a fixed number of series."""
        summary = self.build_summary()
        requests = _create_counter("requests", "Copies of callers' requests, by what became of them.", "result")
        for name in ("refused", "ignored", "dropped", "compared", "uncomparable"):
            requests.add_metric([name], getattr(summary, name))
        yield requests
        rows = _create_counter("rows", "Rows compared.", "result")
        rows.add_metric(["agree"], summary.rows - summary.disagreements)
        rows.add_metric(["differ"], summary.disagreements)
        yield rows
        answers = _create_counter("answers", "Answers compared, by whether any of their rows differ.", "result")
        answers.add_metric(["agree"], self.agreeing)
        answers.add_metric(["differ"], self.answers - self.agreeing)
        yield answers
        # The label `what` is the former name of `type`; queries may use it for one more release.
        mismatches = CounterMetricFamily(
            "modelwright_comparer_mismatches",
            "Responses of the candidate that differ as a whole, by type.",
            labels=["type", "what"],
        )
        for name, count in self.mismatches.items():
            mismatches.add_metric([name, name], count)
        yield mismatches
        errors = _create_counter("errors", "Requests that a revision failed to answer.", "revision")
        for side, count in self.errors.items():
            errors.add_metric([side], count)
        yield errors
        pairs = _create_counter("pairs", "Requests that both revisions were asked, by which failed to answer.", "at")
        for at, count in _split_paired(summary.paired_errors or PairedCounts()):
            pairs.add_metric([at], count)
        yield pairs
        slow = CounterMetricFamily(
            "modelwright_comparer_slow_pairs",
            "Requests of which both times are known, by which revision took longer than `over` seconds.",
            labels=["over", "at"],
        )
        for bound, paired in summary.paired_latency:
            for at, count in _split_paired(paired):
                slow.add_metric([bound, at], count)
        yield slow
        for name, text in _LATENCY_METRICS:
            latency = HistogramMetricFamily(name, text, labels=["revision"])
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


def _split_paired(paired: PairedCounts) -> Iterator[tuple[str, int]]:
    """Yield the number of requests by where they were bad."""
    yield "both", paired.both
    yield "candidate", paired.candidate_only
    yield "serving", paired.serving_only
    yield "neither", paired.total - paired.both - paired.candidate_only - paired.serving_only


def _create_counter(name: str, text: str, label: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"modelwright_comparer_{name}", text, labels=[label])
