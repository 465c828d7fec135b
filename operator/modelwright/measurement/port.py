"""The port of metric sources: each provider measures the metrics of one kind of source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from modelwright.api.v1alpha1.policy import Metric
from modelwright.core.analysis.evidence import (
    Histogram,
    MeasurementFailure,
    MetricValue,
    RequestShares,
    ValueSample,
)
from modelwright.core.analysis.report_figures import Figure
from modelwright.measurement.request import MeasurementRequest
from modelwright.measurement.rounds import MeasurementRound

MetricResult = RequestShares | ValueSample | MetricValue | Histogram | Figure | MeasurementFailure


@dataclass(slots=True)
class QueryText:
    """The query of a measurement, for users; set before the request is sent, so that a failure shows it too."""

    text: str = ""


class MetricProvider(Protocol):
    """Measures metrics of one kind of source."""

    async def measure_metric(self, current: MeasurementRound, metric: Metric, query: QueryText) -> MetricResult:
        """Measure `metric` at the time of the round, and set the text of `query` before any request is sent.

        Raises MeasurementError when the source can't be read, and NoEvidence when its numbers decide nothing.
        """
        ...


class JobRunner(Protocol):
    """Runs the Jobs of metrics."""

    async def run_metric_job(
        self, request: MeasurementRequest, metric: Metric, /
    ) -> Figure | MetricValue | MeasurementFailure:
        """Run the Job of `metric` (its `job` is set) to its end, or adopt the one that an earlier operator has
        started. Never raises for what a Job does; ends within the metric's own timeout."""
        ...
