"""Builtin metrics from the request counters of gateways and runtimes, as Prometheus has scraped them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import Metric
from modelwright.core.analysis import counters
from modelwright.core.analysis.evidence import Buckets, Histogram, MetricValue, Series
from modelwright.core.analysis.scraped_counters import block_ends
from modelwright.measurement import evidence_checks, request_counters
from modelwright.measurement.evidence_checks import NoEvidence
from modelwright.measurement.json_client import MeasurementError
from modelwright.measurement.port import MetricResult, QueryText
from modelwright.measurement.request import RevisionTarget
from modelwright.measurement.request_counters import RequestCounters, SeriesSelector
from modelwright.measurement.revision_pairs import compared_targets
from modelwright.measurement.rounds import MeasurementRound
from modelwright.measurement.servers import MetricsServers

WEIGHT_MIN_REQUESTS = 100
"""Requests below which no observed weight is given."""


class CounterProvider:
    """Measures builtin metrics from counters of requests, and counts requests for other providers."""

    def __init__(self, servers: MetricsServers) -> None:
        self._servers = servers

    async def measure_metric(self, current: MeasurementRound, metric: Metric, query: QueryText) -> MetricResult:
        """Derive `metric` from the growth of counters since the step began. Raises MeasurementError, NoEvidence."""
        request = current.request
        server = self._servers.connect_prometheus(request.namespace)
        targets = compared_targets(request, metric)
        errors = metric.builtin == "error-rate"
        sources = [
            await request_counters.find_counters(request, metric.source, target, errors=errors) for target in targets
        ]
        selectors = [_select_counters(metric, source, target) for source, target in zip(sources, targets, strict=True)]
        first = selectors[0][-1].selectors[0]
        query.text = f"{sources[0].name}: {first}"
        groups = [await current.read_counters(server, one) for one in selectors]
        if not any(series for group in groups for series in group):
            return MetricValue(None, why=f"Prometheus has no series of {first}: is it scraped?")
        start, end = request.since.timestamp(), current.unix_time
        selected = [
            [selector.select_series(series) for selector, series in zip(*pair, strict=True)]
            for pair in zip(selectors, groups, strict=True)
        ]
        if metric.builtin in ("latency-over", "latency-percentile"):
            units = [source.seconds_per_unit for source in sources]
            return _build_histogram([series[0] for series in selected], units, start, end)
        if errors:
            for target in targets if sources[0].name == "Runtime" else ():
                # Revisions of one runtime share the selector of errors: series that one has, the other can have.
                alike = [index for index, other in enumerate(targets) if other.metrics == target.metrics]
                pair = selectors[alike[0]][0].selectors[0], selectors[alike[0]][1].selectors[0]
                field = f"spec.metrics.errors of the runtime of {target.version}"
                read = [groups[index] for index in alike]
                await current.state.selectors.check_bad_selector(server, pair, read, field, end, request.namespace)
            return evidence_checks.compute_shares(selected, start, end)
        if end <= start:
            return MetricValue(None, why="the step has only just begun")
        rates = [counters.sum_growth(series[0], start, end) / (end - start) for series in selected]
        return MetricValue(rates[0], rates[1] if len(rates) > 1 else None)

    async def measure_weight(self, current: MeasurementRound) -> int | None:
        """Measure the percentage of requests that the gateway has sent to the candidate since the step began.

        None without a known gateway, below WEIGHT_MIN_REQUESTS requests, and while the counters can't be read.
        """
        request = current.request
        if request.gateway is None or request.gateway.controller not in request_counters.GATEWAY_COUNTERS:
            return None
        if request.serving is None or request.mirror:
            return None
        try:
            server = self._servers.connect_prometheus(request.namespace)
            sources = [
                await request_counters.find_counters(request, "Gateway", target)
                for target in (request.candidate, request.serving)
            ]
            groups = [(await current.read_counters(server, [source.all_requests]))[0] for source in sources]
        except (MeasurementError, NoEvidence):
            return None
        since = request.since.timestamp()
        # From the first scrape in the step on: requests before it were sent, in part, by the weights of the last step.
        first_scrapes = (at for group in groups for series in group for at in _first_after(series, since))
        start = max(first_scrapes, default=None)
        if start is None:
            return None
        growth = [
            counters.sum_growth(source.all_requests.select_series(group), start, current.unix_time)
            for source, group in zip(sources, groups, strict=True)
        ]
        total = sum(growth)
        return round(100 * growth[0] / total) if total >= WEIGHT_MIN_REQUESTS else None

    async def count_requests(self, current: MeasurementRound) -> float | None:
        """Count the requests that the candidate has answered in the step; None where nothing counts them."""
        request = current.request
        try:
            selector = (await request_counters.find_counters(request, "Auto", request.candidate)).all_requests
            (series,) = await current.read_counters(self._servers.connect_prometheus(request.namespace), [selector])
        except (MeasurementError, NoEvidence):
            return None
        return counters.sum_growth(selector.select_series(series), request.since.timestamp(), current.unix_time)

    async def describe_in_flight(self, current: MeasurementRound) -> str:
        """Describe the unfinished requests of each revision whose runtime has a gauge of them, such as
        "candidate 2, serving 0". Revisions without one, or that can't be read, are left out."""
        request = current.request
        parts = []
        for name, target in (("candidate", request.candidate), ("serving", request.serving)):
            try:
                query = await request_counters.build_in_flight_query(request, target) if target is not None else None
                if query is None:
                    continue
                server = self._servers.connect_prometheus(request.namespace)
                value, _ = await server.query_number(query, current.unix_time)
            except MeasurementError:
                continue
            parts += [f"{name} {value:.0f}"] if value is not None else []
        return ", ".join(parts)


def _select_counters(metric: Metric, source: RequestCounters, target: RevisionTarget) -> list[SeriesSelector]:
    """Select the counters that `metric` needs: bad and all requests, buckets, or all requests."""
    if metric.builtin == "error-rate":
        if source.bad_requests is None:
            raise _no_counters_error(target, "errors")
        return [source.bad_requests, source.all_requests]
    if metric.builtin in ("latency-over", "latency-percentile"):
        if source.latency is None:
            raise _no_counters_error(target, "latency")
        return [source.latency]
    return [source.all_requests]


def _no_counters_error(target: RevisionTarget, field: str) -> MeasurementError:
    message = f"the runtime of version {target.version} names no counters of that (spec.metrics.{field})"
    return MeasurementError(Reason.METRIC_SOURCE_MISSING, message, permanent=True)


def _first_after(series: Series, since: float) -> tuple[float, ...]:
    """Time of the first sample after `since`, of a series that was there before."""
    times = [at for at, _ in series.samples]
    return tuple(at for at in times if at > since)[:1] if times and times[0] <= since else ()


def _build_histogram(
    groups: Sequence[tuple[Series, ...]], units: Sequence[float], start: float, end: float
) -> Histogram:
    """Build the histogram of the candidate and, when there is a second group, of the serving revision; of blocks too.

    `units`: seconds in one unit of each group's bounds.
    """
    sums = [_count_buckets(series, unit, start, end) for series, unit in zip(groups, units, strict=True)]
    if len(sums) == 1:
        return Histogram(sums[0], None)
    blocks = []
    for block_start, block_end in pairwise((start, *block_ends(start, end))):
        candidate, serving = (
            _count_buckets(series, unit, block_start, block_end) for series, unit in zip(groups, units, strict=True)
        )
        blocks.append((block_end, candidate, serving))
    return Histogram(sums[0], sums[1], blocks=tuple(blocks))


def _count_buckets(series: tuple[Series, ...], unit: float, start: float, end: float) -> Buckets:
    try:
        buckets = counters.build_histogram(series, start, end)
    except ValueError as error:
        raise MeasurementError(Reason.METRICS_ANSWER_INVALID, str(error)) from None
    return tuple((bound if math.isinf(bound) else bound * unit, count) for bound, count in buckets)
