"""Metrics that are PromQL of the policy's author: a query that gives a number, or selectors of bad and all requests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import Metric, PrometheusMetric
from modelwright.core.analysis.evidence import MetricValue, ValuePairs
from modelwright.measurement import evidence_checks, queries
from modelwright.measurement.connections import Connection
from modelwright.measurement.counter_provider import CounterProvider
from modelwright.measurement.evidence_checks import NoEvidence
from modelwright.measurement.json_client import MeasurementError
from modelwright.measurement.port import MetricResult, QueryText
from modelwright.measurement.prometheus import PrometheusClient
from modelwright.measurement.request import MeasurementRequest, RevisionTarget
from modelwright.measurement.revision_pairs import (
    build_value,
    indistinct_targets_error,
    join_reasons,
    queried_targets,
)
from modelwright.measurement.rounds import MeasurementRound
from modelwright.measurement.servers import MetricsServers

MAX_POINTS = 60
"""Points that the values of a past time are read at."""


class PrometheusProvider:
    """Measures `prometheus` metrics. `counters` counts the candidate's requests, to know a number without any data."""

    def __init__(self, servers: MetricsServers, counters: CounterProvider) -> None:
        self._servers = servers
        self._counters = counters

    async def measure_metric(self, current: MeasurementRound, metric: Metric, query: QueryText) -> MetricResult:
        """Query the number of each revision, or count bad and all requests. Raises MeasurementError, NoEvidence."""
        source: PrometheusMetric | None = metric.prometheus
        assert source is not None  # noqa: S101 - the measurer chooses by it
        request = current.request
        server = self._servers.connect_prometheus(request.namespace, source.provider)
        whole = f"{source.query or ''}{source.bad or ''}{source.total or ''}"
        targets = queried_targets(request, metric, whole, "prometheus")
        if source.query is not None:
            texts = [
                await _check_query(server.connection, source.query, request, target, "prometheus.query")
                for target in targets
            ]
            query.text = texts[0]
            return await self._query_value(current, server, texts)
        fields = (("bad", source.bad or ""), ("total", source.total or ""))
        pairs = [
            [
                await _check_selector(server.connection, text, request, target, f"prometheus.{name}")
                for name, text in fields
            ]
            for target in targets
        ]
        query.text = f"bad: {pairs[0][0]}; total: {pairs[0][1]}"
        state, now = current.state, current.unix_time
        groups = [
            evidence_checks.require_single_scrape(await state.counters.read_counts(server, pair, now)) for pair in pairs
        ]
        if not any(series for group in groups for series in group):
            return MetricValue(None, why=f"Prometheus has no series of {pairs[0][1]}")
        await state.selectors.check_bad_selector(server, pairs[0], groups, "prometheus.bad", now, request.namespace)
        return evidence_checks.compute_shares(groups, request.since.timestamp(), now)

    async def measure_range(self, request: MeasurementRequest, metric: Metric, end: datetime) -> ValuePairs:
        """Read the values of a query for both revisions from `request.since` to `end`.

        Reads MAX_POINTS of them, or fewer so that they are an interval apart. Raises MeasurementError.
        """
        source = metric.prometheus
        if source is None or source.query is None or request.serving is None:
            message = "only a prometheus query is compared over a time that has passed"
            raise MeasurementError(Reason.QUERY_REFUSED, message, permanent=True)
        if not queries.distinguishes_revisions(source.query):
            raise indistinct_targets_error("prometheus.query", "a winner is found by comparing")
        server = self._servers.connect_prometheus(request.namespace, source.provider)
        length = (end - request.since).total_seconds()
        step = max(length / MAX_POINTS, request.interval.total_seconds())
        # Counted back from the end, without a point at the start: a query reads samples from before its point.
        start = end.timestamp() - step * (math.floor(length / step + 1e-6) - 1)
        courses = []
        for target in (request.candidate, request.serving):
            text = await _check_query(server.connection, source.query, request, target, "prometheus.query")
            values, why = await server.query_range(text, start, end.timestamp(), step)
            if missing := await evidence_checks.explain_missing_data(server, text, end.timestamp(), request.namespace):
                values, why = {}, missing
            courses.append((values, why))
        (candidate, _), (serving, _) = courses
        pairs = tuple((value, serving[at]) for at, value in candidate.items() if at in serving)
        return ValuePairs(pairs, join_reasons([why for _, why in courses]))

    async def _query_value(
        self, current: MeasurementRound, server: PrometheusClient, texts: Sequence[str]
    ) -> MetricValue:
        """Query the number of each revision. Raises NoEvidence for a number that the query gives without any data."""
        now, namespace = current.unix_time, current.request.namespace
        value = build_value([await server.query_number(text, now) for text in texts])
        parsed = await queries.try_parse_query(texts[0], "prometheus.query", namespace)
        if value.candidate is None or parsed is None or not parsed.always_gives_number:
            return value
        if missing := await evidence_checks.explain_missing_data(server, texts[0], now, namespace):
            raise NoEvidence(Reason.VALUE_WITHOUT_DATA, missing)
        if await self._counters.count_requests(current) == 0:
            message = "the query gives a number without any data, and the candidate has answered no request in the step"
            raise NoEvidence(Reason.VALUE_WITHOUT_DATA, message)
        if len(texts) > 1 and (missing := await evidence_checks.explain_missing_data(server, texts[1], now, namespace)):
            return replace(value, serving=None, why=f"serving revision: {missing}")
        return value


async def _check_query(
    connection: Connection, text: str, request: MeasurementRequest, target: RevisionTarget, field: str
) -> str:
    """Fill the placeholders of a query; it is bounded in size, and has the enforced label of the connection."""
    filled = queries.fill_placeholders(text, queries.build_placeholders(request, target))
    if connection.enforced_label is None:
        queries.check_size(filled, field)
        return filled
    return await queries.enforce_label(filled, connection.enforced_label, request.namespace, field)


async def _check_selector(
    connection: Connection, text: str, request: MeasurementRequest, target: RevisionTarget, field: str
) -> str:
    """As `_check_query`, for a text that must be a plain selector."""
    checked = await _check_query(connection, text, request, target, field)
    return await queries.extend_selector(checked, field, request.namespace)
