"""Metrics that a Job reports."""

from __future__ import annotations

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import Metric
from modelwright.core.analysis.evidence import MeasurementFailure, MetricValue
from modelwright.core.analysis.report_figures import Figure
from modelwright.measurement.json_client import MeasurementError
from modelwright.measurement.port import JobRunner, QueryText
from modelwright.measurement.rounds import MeasurementRound


class JobProvider:
    """Measures `job` metrics. `jobs` is None in an operator that runs none."""

    def __init__(self, jobs: JobRunner | None) -> None:
        self._jobs = jobs

    async def measure_metric(
        self, current: MeasurementRound, metric: Metric, query: QueryText
    ) -> Figure | MetricValue | MeasurementFailure:
        """Run the metric's Job to its end. Raises MeasurementError, permanent, in an operator that runs no Jobs."""
        assert metric.job is not None  # noqa: S101 - the measurer chooses by it
        if self._jobs is None:
            message = "this operator runs no Jobs for metrics"
            raise MeasurementError(Reason.METRIC_SOURCE_MISSING, message, permanent=True)
        query.text = f"Job: {metric.job.value}"
        return await self._jobs.run_metric_job(current.request, metric)
