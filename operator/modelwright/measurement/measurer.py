"""Measures one metric of a policy once, by the provider of its source, and reports every error as a result."""

from __future__ import annotations

import logging
from datetime import datetime

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import SHADOW_BUILTINS, Metric
from modelwright.core.analysis import comparison_summary as comparison
from modelwright.core.analysis.evidence import (
    Measurement,
    MeasurementFailure,
    MetricValue,
    ValuePairs,
)
from modelwright.measurement.comparer_client import ComparerUrl, comparer_service_url
from modelwright.measurement.comparer_provider import ComparerProvider
from modelwright.measurement.connections import Connections
from modelwright.measurement.counter_provider import CounterProvider
from modelwright.measurement.evidence_checks import NoEvidence
from modelwright.measurement.http_provider import HttpProvider
from modelwright.measurement.job_provider import JobProvider
from modelwright.measurement.json_client import JsonClient, MeasurementError
from modelwright.measurement.port import JobRunner, MetricProvider, MetricResult, QueryText
from modelwright.measurement.prometheus_provider import PrometheusProvider
from modelwright.measurement.request import MeasurementRequest
from modelwright.measurement.rounds import MeasurementRound
from modelwright.measurement.servers import MetricsServers

log = logging.getLogger(__name__)


def is_measurable(request: MeasurementRequest, metric: Metric) -> bool:
    """Whether the step can measure `metric`: comparing answers needs a mirror step."""
    return request.mirror or metric.builtin not in SHADOW_BUILTINS


class Measurer:
    """Measures by the connections of the operator's configuration."""

    def __init__(
        self,
        connections: Connections,
        client: JsonClient,
        *,
        jobs: JobRunner | None = None,
        comparer_url: ComparerUrl = comparer_service_url,
    ) -> None:
        servers = MetricsServers(connections, client)
        self._http = HttpProvider(servers)
        self._jobs = JobProvider(jobs)
        self._comparer = ComparerProvider(client, comparer_url)
        self._counters = CounterProvider(servers)
        self._prometheus = PrometheusProvider(servers, self._counters)

    def choose_provider(self, request: MeasurementRequest, metric: Metric) -> MetricProvider:
        """Choose the provider of `metric` by its source; builtin metrics of mirror steps come from the comparer."""
        if metric.prometheus is not None:
            return self._prometheus
        if metric.http is not None:
            return self._http
        if metric.job is not None:
            return self._jobs
        if request.mirror and (metric.source != "Runtime" or metric.builtin in SHADOW_BUILTINS):
            return self._comparer
        return self._counters

    async def measure_metric(self, current: MeasurementRound, metric: Metric) -> Measurement:
        """Measure one metric. Never raises but for cancellation."""
        query = QueryText()
        result: MetricResult
        try:
            result = await self.choose_provider(current.request, metric).measure_metric(current, metric, query)
        except MeasurementError as error:
            result = error.failure
        except NoEvidence as error:
            result = MetricValue(None, why=str(error), reason=error.reason)
        except Exception as error:
            # A bug here must not end the measurements of a rollout: without them it could only time out.
            result = _internal_failure(current.request, metric, error)
        in_flight = "" if isinstance(result, MeasurementFailure) else await self._describe_in_flight(current, metric)
        return Measurement(metric.name, current.measured_at, result, query.text, in_flight)

    async def measure_range(self, request: MeasurementRequest, metric: Metric, end: datetime) -> ValuePairs:
        """Read the values of a query for both revisions from `request.since` to `end`. Never raises but for
        cancellation."""
        try:
            return await self._prometheus.measure_range(request, metric, end)
        except MeasurementError as error:
            return ValuePairs(failure=error.failure)
        except Exception as error:
            return ValuePairs(failure=_internal_failure(request, metric, error))

    async def measure_weight(self, current: MeasurementRound) -> int | None:
        """Measure the candidate's percentage of the requests, as `CounterProvider.measure_weight` does."""
        return await self._counters.measure_weight(current)

    async def _describe_in_flight(self, current: MeasurementRound, metric: Metric) -> str:
        """Describe the requests that have not ended, where the comparer or the runtimes know them.

        Counters grow at the end of a request, so they don't show requests that hang. No other source is read, and
        numbers that can't be read are left out.
        """
        if metric.builtin not in ("error-rate", "latency-over", "latency-percentile"):
            return ""
        if current.request.mirror and metric.source != "Runtime":
            summaries = current.state.summaries
            return f"{comparison.count_pending(summaries[max(summaries)])} copies" if summaries else ""
        return await current.read_in_flight(lambda: self._counters.describe_in_flight(current))


def _internal_failure(request: MeasurementRequest, metric: Metric, error: Exception) -> MeasurementFailure:
    """Log an unexpected error, and build the failure that stands for it."""
    log.exception("metric %s of %s/%s", metric.name, request.namespace, request.model)
    return MeasurementFailure(Reason.INTERNAL_ERROR, f"{type(error).__name__}; the operator's log has the details")
