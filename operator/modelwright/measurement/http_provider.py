"""Metrics that are a number in a JSON document of an HTTP server."""

from __future__ import annotations

from modelwright.api.v1alpha1.policy import HttpMetric, Metric
from modelwright.core.analysis.evidence import MetricValue
from modelwright.measurement import http_json
from modelwright.measurement.port import QueryText
from modelwright.measurement.revision_pairs import build_value, queried_targets
from modelwright.measurement.rounds import MeasurementRound
from modelwright.measurement.servers import MetricsServers, find_connection


class HttpProvider:
    """Measures `http` metrics."""

    def __init__(self, servers: MetricsServers) -> None:
        self._servers = servers

    async def measure_metric(self, current: MeasurementRound, metric: Metric, query: QueryText) -> MetricValue:
        """Read the number of each revision. Raises MeasurementError."""
        source: HttpMetric | None = metric.http
        assert source is not None  # noqa: S101 - the measurer chooses by it
        request = current.request
        connection = find_connection(self._servers.connections, source.provider, "HTTP", request.namespace)
        targets = queried_targets(request, metric, source.path, "http")
        paths = [http_json.fill_path(source.path, request, target) for target in targets]
        query.text = f"{paths[0]} {source.value}".strip()
        client = self._servers.client
        return build_value([await http_json.read_number(client, connection, path, source.value) for path in paths])
