"""Builtin metrics of mirror steps, from the counts of the comparer."""

from __future__ import annotations

from datetime import UTC

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import Metric
from modelwright.core.analysis import comparison_summary as comparison
from modelwright.core.analysis.evidence import MetricValue
from modelwright.measurement import comparer_client
from modelwright.measurement.comparer_client import ComparerUrl
from modelwright.measurement.evidence_checks import NoEvidence
from modelwright.measurement.json_client import JsonClient
from modelwright.measurement.port import MetricResult, QueryText
from modelwright.measurement.rounds import MeasurementRound


class ComparerProvider:
    """Measures builtin metrics from the comparer's summary."""

    def __init__(self, client: JsonClient, url: ComparerUrl) -> None:
        self._client = client
        self._url = url

    async def measure_metric(self, current: MeasurementRound, metric: Metric, query: QueryText) -> MetricResult:
        """Derive `metric` from the summary. Raises MeasurementError, and NoEvidence for copies without the token."""
        query.text = f"comparer: {metric.builtin}"
        summary = await current.read_summary(self._client, self._url)
        if summary.refused and not summary.received:
            raise NoEvidence(Reason.COPIES_WITHOUT_TOKEN, comparer_client.describe_rejected_requests(summary.refused))
        if metric.builtin == "agreement":
            return comparison.agreement_sample(summary)
        if metric.builtin == "absolute-difference":
            return comparison.mean_difference(summary, "absolute")
        if metric.builtin == "relative-difference":
            return comparison.mean_difference(summary, "relative")
        if metric.builtin in ("latency-over", "latency-percentile"):
            return comparison.latency_histogram(summary)
        if metric.builtin == "error-rate":
            return comparison.error_shares(summary)
        requests = summary.compared + summary.uncomparable
        seconds = (current.measured_at - summary.started_at.astimezone(UTC)).total_seconds()
        if seconds <= 0:
            return MetricValue(None, why="the comparer has only just started")
        return MetricValue(requests / seconds, requests / seconds)
