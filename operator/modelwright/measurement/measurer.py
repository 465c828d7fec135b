"""Measures one metric of a policy once: asks the source that it names, and tells every fault as a result."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import SHADOW_BUILTINS, HttpMetric, Metric, PrometheusMetric
from modelwright.core.analysis import comparison_summary as comparison
from modelwright.core.analysis import counters
from modelwright.core.analysis.comparison_summary import ComparisonSummary
from modelwright.core.analysis.evidence import (
    Buckets,
    Histogram,
    Measurement,
    MeasurementFailure,
    MetricValue,
    RequestShares,
    Series,
    ValuePairs,
    ValueSample,
)
from modelwright.core.analysis.report_figures import Figure
from modelwright.core.analysis.scraped_counters import block_ends
from modelwright.measurement import comparer_client, evidence_checks, http_json, queries, request_counters
from modelwright.measurement.comparer_client import ComparerUrl
from modelwright.measurement.connections import Connection, Connections, ConnectionType
from modelwright.measurement.json_client import JsonClient, MeasurementError
from modelwright.measurement.port import JobRunner, MeasurementRequest, RevisionTarget
from modelwright.measurement.prometheus import CounterReader, PrometheusClient
from modelwright.measurement.request_counters import RequestCounters, SeriesSelector

DEFAULT_CONNECTION = "default"
"""The Prometheus connection that builtin metrics are read from."""
WEIGHT_MIN_REQUESTS = 100
MAX_POINTS = 60
"""Points that a time which has passed is asked for."""

MetricResult = RequestShares | ValueSample | MetricValue | Histogram | Figure | MeasurementFailure
log = logging.getLogger(__name__)


@dataclass(slots=True)
class MeasurementState:
    """What is kept of an ask from look to look."""

    counters: CounterReader
    summaries: dict[datetime, ComparisonSummary] = field(default_factory=dict)
    """The last summary of each comparer of the step, by its start."""
    earlier_summaries: dict[datetime, ComparisonSummary] = field(default_factory=dict)
    """The first one of each that ran before the step: another mirror step was before it."""
    pods_requested_at: datetime | None = None
    selectors: evidence_checks.SelectorChecks = field(default_factory=evidence_checks.SelectorChecks)

    @classmethod
    def for_request(cls, ask: MeasurementRequest) -> MeasurementState:
        """An empty memory."""
        return cls(CounterReader(ask.since.timestamp()), pods_requested_at=ask.pods_requested_at or ask.since)

    def sum_summaries(self, summary: ComparisonSummary) -> ComparisonSummary:
        """What this comparer and those before or beside it have counted in the step: none of it is lost with a pod, nor
        counted twice. A comparer that ran before the step counts from its first look here."""
        known = self.summaries.get(summary.started_at)
        if known is None and self.pods_requested_at is not None and summary.started_at < self.pods_requested_at:
            self.earlier_summaries[summary.started_at] = summary
        if known is None or known.received <= summary.received:
            self.summaries[summary.started_at] = summary
        first, *others = [
            found - self.earlier_summaries[start] if start in self.earlier_summaries else found
            for start, found in self.summaries.items()
        ]
        return sum(others, first)


@dataclass(slots=True)
class MeasurementRound:
    """One look of an ask: everything in it is measured up to the same moment."""

    request: MeasurementRequest
    state: MeasurementState
    measured_at: datetime
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _summary: ComparisonSummary | MeasurementError | None = field(default=None, init=False)
    _in_flight: str | None = field(default=None, init=False)

    @property
    def unix_time(self) -> float:
        """Unix seconds."""
        return self.measured_at.timestamp()

    async def read_summary(self, web: JsonClient, url: ComparerUrl) -> ComparisonSummary:
        """The comparer's summary, asked for once a look. Raises Fault."""
        async with self._lock:
            if self._summary is None:
                try:
                    self._summary = self.state.sum_summaries(
                        await comparer_client.fetch_summary(web, url, self.request)
                    )
                except MeasurementError as fault:
                    self._summary = fault
        if isinstance(self._summary, MeasurementError):
            raise MeasurementError(self._summary.failure.reason, self._summary.failure.message)
        return self._summary

    async def read_in_flight(self, count: Callable[[], Awaitable[str]]) -> str:
        """What `count` gives, counted once a look."""
        async with self._lock:
            if self._in_flight is None:
                self._in_flight = await count()
        return self._in_flight


def is_measurable(ask: MeasurementRequest, metric: Metric) -> bool:
    """Whether the step can measure `metric`: comparing answers needs a mirror step."""
    return ask.mirror or metric.builtin not in SHADOW_BUILTINS


class Measurer:
    """Measures by the connections of the operator's configuration."""

    def __init__(
        self,
        connections: Connections,
        web: JsonClient,
        *,
        jobs: JobRunner | None = None,
        comparer_url: ComparerUrl = comparer_client.comparer_service_url,
    ) -> None:
        self._connections = connections
        self._web = web
        self._jobs = jobs
        self._comparer_url = comparer_url

    async def measure_metric(self, look: MeasurementRound, metric: Metric) -> Measurement:
        """The measurement of one metric. Never raises but for cancellation."""
        query = QueryText()
        try:
            result = await self._measure_result(look, metric, query)
        except MeasurementError as fault:
            result = fault.failure
        except evidence_checks.NoEvidence as found:
            result = MetricValue(None, why=str(found), reason=found.reason)
        except Exception as error:
            # Whatever goes wrong in here must not end the looks of a rollout: without them it only ever times out.
            log.exception("metric %s of %s/%s", metric.name, look.request.namespace, look.request.model)
            result = MeasurementFailure(
                Reason.INTERNAL_ERROR, f"{type(error).__name__}; the operator's log has the details"
            )
        in_flight = "" if isinstance(result, MeasurementFailure) else await self._describe_in_flight(look, metric)
        return Measurement(metric.name, look.measured_at, result, query.text, in_flight)

    async def _describe_in_flight(self, look: MeasurementRound, metric: Metric) -> str:
        """Requests that have not ended, where the comparer or the runtimes know them: what is counted at the end of a
        request doesn't show those that hang. Nothing else is asked, and what can't be had is left out."""
        if metric.builtin not in ("error-rate", "latency-over", "latency-percentile"):
            return ""
        if look.request.mirror and metric.source != "Runtime":
            summaries = look.state.summaries
            return f"{comparison.count_pending(summaries[max(summaries)])} copies" if summaries else ""
        return await look.read_in_flight(lambda: self._query_in_flight(look))

    async def _query_in_flight(self, look: MeasurementRound) -> str:
        found = []
        for name, target in (("candidate", look.request.candidate), ("serving", look.request.serving)):
            try:
                query = (
                    await request_counters.build_in_flight_query(look.request, target) if target is not None else None
                )
                if query is None:
                    continue
                value, _ = await self._prometheus_client(look.request, DEFAULT_CONNECTION).query_number(
                    query, look.unix_time
                )
            except MeasurementError:
                continue
            found += [f"{name} {value:.0f}"] if value is not None else []
        return ", ".join(found)

    async def measure_range(self, ask: MeasurementRequest, metric: Metric, end: datetime) -> ValuePairs:
        """The values of a query for both revisions from `ask.since` to `end`: MOST_POINTS of them, or fewer so that
        they are an interval of looks apart. Never raises but for cancellation."""
        try:
            return await self._measure_query_range(ask, metric, end)
        except MeasurementError as fault:
            return ValuePairs(failure=fault.failure)
        except Exception as error:
            log.exception("metric %s of %s/%s", metric.name, ask.namespace, ask.model)
            text = f"{type(error).__name__}; the operator's log has the details"
            return ValuePairs(failure=MeasurementFailure(Reason.INTERNAL_ERROR, text))

    async def _measure_query_range(self, ask: MeasurementRequest, metric: Metric, end: datetime) -> ValuePairs:
        asked = metric.prometheus
        if asked is None or asked.query is None or ask.serving is None:
            message = "only a prometheus query is compared over a time that has passed"
            raise MeasurementError(Reason.QUERY_REFUSED, message, permanent=True)
        if not queries.distinguishes_revisions(asked.query):
            raise _indistinct_targets_error("prometheus.query", "a winner is found by comparing")
        server = self._prometheus_client(ask, asked.provider)
        length = (end - ask.since).total_seconds()
        step = max(length / MAX_POINTS, ask.interval.total_seconds())
        # Counted back from the end, and none at the begin: a query looks back over some time before its point.
        start = end.timestamp() - step * (math.floor(length / step + 1e-6) - 1)
        found = []
        for target in (ask.candidate, ask.serving):
            text = await self._check_query(server.connection, asked.query, ask, target, "prometheus.query")
            values, why = await server.query_range(text, start, end.timestamp(), step)
            if missing := await evidence_checks.explain_missing_data(server, text, end.timestamp(), ask.namespace):
                values, why = {}, missing
            found.append((values, why))
        (ones, _), (zeros, _) = found
        pairs = tuple((value, zeros[at]) for at, value in ones.items() if at in zeros)
        return ValuePairs(pairs, _join_reasons([why for _, why in found]))

    async def measure_weight(self, look: MeasurementRound) -> int | None:
        """Percent of the requests that the candidate was sent since the step began, as the gateway has counted; None
        without a gateway that is known, below WEIGHT_MIN_REQUESTS requests, and while it can't be had."""
        ask = look.request
        if (
            ask.gateway is None
            or ask.serving is None
            or ask.mirror
            or ask.gateway.controller not in request_counters.GATEWAY_COUNTERS
        ):
            return None
        try:
            server = self._prometheus_client(look.request, DEFAULT_CONNECTION)
            sources = [
                await request_counters.find_counters(ask, "Gateway", target) for target in (ask.candidate, ask.serving)
            ]
            read = [(await self._read_counters(look, server, [one.all_requests]))[0] for one in sources]
        except (MeasurementError, evidence_checks.NoEvidence):
            return None
        since = ask.since.timestamp()
        # From the first scrape in the step on: requests before it went by the weights of the step before, in part.
        began = max((at for series in read for one in series for at in _first_after(one, since)), default=None)
        if began is None:
            return None
        grown = [
            counters.sum_growth(one.all_requests.select_series(series), began, look.unix_time)
            for one, series in zip(sources, read, strict=True)
        ]
        total = sum(grown)
        return round(100 * grown[0] / total) if total >= WEIGHT_MIN_REQUESTS else None

    async def _measure_result(self, look: MeasurementRound, metric: Metric, query: QueryText) -> MetricResult:
        if metric.prometheus is not None:
            return await self._from_prometheus(look, metric, metric.prometheus, query)
        if metric.http is not None:
            return await self._from_http(look, metric, metric.http, query)
        if metric.job is not None:
            if self._jobs is None:
                raise MeasurementError(
                    Reason.METRIC_SOURCE_MISSING, "this operator runs no Jobs for metrics", permanent=True
                )
            query.text = f"Job: {metric.job.value}"
            return await self._jobs.run_metric_job(look.request, metric)
        if look.request.mirror and (metric.source != "Runtime" or metric.builtin in SHADOW_BUILTINS):
            return await self._from_comparer(look, metric, query)
        return await self._from_counters(look, metric, query)

    async def _from_comparer(self, look: MeasurementRound, metric: Metric, query: QueryText) -> MetricResult:
        query.text = f"comparer: {metric.builtin}"
        told = await look.read_summary(self._web, self._comparer_url)
        if told.refused and not told.received:
            raise evidence_checks.NoEvidence(
                Reason.COPIES_WITHOUT_TOKEN, comparer_client.describe_rejected_requests(told.refused)
            )
        if metric.builtin == "agreement":
            return comparison.agreement_sample(told)
        if metric.builtin == "absolute-difference":
            return comparison.mean_difference(told, "absolute")
        if metric.builtin == "relative-difference":
            return comparison.mean_difference(told, "relative")
        if metric.builtin in ("latency-over", "latency-percentile"):
            return comparison.latency_histogram(told)
        if metric.builtin == "error-rate":
            return comparison.error_shares(told)
        asked = told.compared + told.uncomparable
        seconds = (look.measured_at - told.started_at.astimezone(UTC)).total_seconds()
        if seconds <= 0:
            return MetricValue(None, why="the comparer has only just started")
        return MetricValue(asked / seconds, asked / seconds)

    async def _from_counters(self, look: MeasurementRound, metric: Metric, query: QueryText) -> MetricResult:
        ask, server = look.request, self._prometheus_client(look.request, DEFAULT_CONNECTION)
        targets = _compared_targets(ask, metric)
        errors = metric.builtin == "error-rate"
        sources = [
            await request_counters.find_counters(ask, metric.source, target, errors=errors) for target in targets
        ]
        wanted = [_select_counters(metric, one, target) for one, target in zip(sources, targets, strict=True)]
        query.text = f"{sources[0].name}: {wanted[0][-1].selectors[0]}"
        found = [await self._read_counters(look, server, one) for one in wanted]
        if not any(series for each in found for series in each):
            return MetricValue(None, why=f"Prometheus has no series of {wanted[0][-1].selectors[0]}: is it scraped?")
        start, end = ask.since.timestamp(), look.unix_time
        meant = [
            [one.select_series(series) for one, series in zip(each, groups, strict=True)]
            for each, groups in zip(wanted, found, strict=True)
        ]
        if metric.builtin in ("latency-over", "latency-percentile"):
            return _build_histogram([each[0] for each in meant], [one.seconds_per_unit for one in sources], start, end)
        if errors:
            for target in targets if sources[0].name == "Runtime" else ():
                # Revisions of one runtime ask for the same errors: what one of them has, the other can have.
                alike = [index for index, other in enumerate(targets) if other.metrics == target.metrics]
                pair = wanted[alike[0]][0].selectors[0], wanted[alike[0]][1].selectors[0]
                what = f"spec.metrics.errors of the runtime of {target.version}"
                read = [found[index] for index in alike]
                await look.state.selectors.check_bad_selector(server, pair, read, what, look.unix_time, ask.namespace)
            return evidence_checks.compute_shares(meant, start, end)
        if end <= start:
            return MetricValue(None, why="the step has only just begun")
        rates = [counters.sum_growth(each[0], start, end) / (end - start) for each in meant]
        return MetricValue(rates[0], rates[1] if len(rates) > 1 else None)

    async def _from_prometheus(
        self, look: MeasurementRound, metric: Metric, asked: PrometheusMetric, query: QueryText
    ) -> MetricResult:
        ask, server = look.request, self._prometheus_client(look.request, asked.provider)
        targets = _queried_targets(
            ask, metric, f"{asked.query or ''}{asked.bad or ''}{asked.total or ''}", "prometheus"
        )
        if asked.query is not None:
            filled = [
                await self._check_query(server.connection, asked.query, ask, one, "prometheus.query") for one in targets
            ]
            query.text = filled[0]
            return await self._query_value(look, server, filled)
        texts = (("bad", asked.bad or ""), ("total", asked.total or ""))
        pairs = [
            [
                await self._check_selector(server.connection, text, ask, target, f"prometheus.{name}")
                for name, text in texts
            ]
            for target in targets
        ]
        query.text = f"bad: {pairs[0][0]}; total: {pairs[0][1]}"
        read = [
            evidence_checks.require_single_scrape(await look.state.counters.read_counts(server, pair, look.unix_time))
            for pair in pairs
        ]
        if not any(series for groups in read for series in groups):
            return MetricValue(None, why=f"Prometheus has no series of {pairs[0][1]}")
        await look.state.selectors.check_bad_selector(
            server, pairs[0], read, "prometheus.bad", look.unix_time, ask.namespace
        )
        return evidence_checks.compute_shares(read, ask.since.timestamp(), look.unix_time)

    async def _query_value(self, look: MeasurementRound, server: PrometheusClient, texts: Sequence[str]) -> MetricValue:
        found = _build_value([await server.query_number(text, look.unix_time) for text in texts])
        who = look.request.namespace
        query = await queries.try_parse_query(texts[0], "prometheus.query", who)
        if found.candidate is None or query is None or not query.always_gives_number:
            return found
        if missing := await evidence_checks.explain_missing_data(server, texts[0], look.unix_time, who):
            raise evidence_checks.NoEvidence(Reason.VALUE_WITHOUT_DATA, missing)
        if await self._count_requests(look) == 0:
            message = "the query gives a number without any data, and the candidate has answered no request in the step"
            raise evidence_checks.NoEvidence(Reason.VALUE_WITHOUT_DATA, message)
        if len(texts) > 1 and (
            missing := await evidence_checks.explain_missing_data(server, texts[1], look.unix_time, who)
        ):
            return replace(found, serving=None, why=f"serving revision: {missing}")
        return found

    async def _count_requests(self, look: MeasurementRound) -> float | None:
        """Requests that the candidate has answered in the step; None where nothing counts them."""
        try:
            counted = (await request_counters.find_counters(look.request, "Auto", look.request.candidate)).all_requests
            (series,) = await self._read_counters(
                look, self._prometheus_client(look.request, DEFAULT_CONNECTION), [counted]
            )
        except (MeasurementError, evidence_checks.NoEvidence):
            return None
        return counters.sum_growth(counted.select_series(series), look.request.since.timestamp(), look.unix_time)

    async def _from_http(
        self, look: MeasurementRound, metric: Metric, asked: HttpMetric, query: QueryText
    ) -> MetricResult:
        connection = self._find_connection(look.request, asked.provider, "HTTP")
        targets = _queried_targets(look.request, metric, asked.path, "http")
        paths = [http_json.fill_path(asked.path, look.request, target) for target in targets]
        query.text = f"{paths[0]} {asked.value}".strip()
        return _build_value([await http_json.read_number(self._web, connection, path, asked.value) for path in paths])

    async def _read_counters(
        self, look: MeasurementRound, server: PrometheusClient, wanted: Sequence[SeriesSelector]
    ) -> tuple[tuple[Series, ...], ...]:
        """What was counted by the series of each that is wanted, by the first of its alternatives that has any."""
        found: tuple[tuple[Series, ...], ...] = tuple(() for _ in wanted)
        for chosen in zip(*(one.selectors for one in wanted), strict=True):
            found = evidence_checks.require_single_scrape(
                await look.state.counters.read_counts(server, chosen, look.unix_time)
            )
            if any(found):
                break
        return found

    async def _check_query(
        self, connection: Connection, text: str, ask: MeasurementRequest, target: RevisionTarget, what: str
    ) -> str:
        filled = queries.fill_placeholders(text, queries.build_placeholders(ask, target))
        if connection.enforced_label is None:
            queries.check_size(filled, what)
            return filled
        return await queries.enforce_label(filled, connection.enforced_label, ask.namespace, what)

    async def _check_selector(
        self, connection: Connection, text: str, ask: MeasurementRequest, target: RevisionTarget, what: str
    ) -> str:
        return await queries.extend_selector(
            await self._check_query(connection, text, ask, target, what), what, ask.namespace
        )

    def _prometheus_client(self, ask: MeasurementRequest, name: str) -> PrometheusClient:
        return PrometheusClient(self._web, self._find_connection(ask, name, "Prometheus"))

    def _find_connection(self, ask: MeasurementRequest, name: str, kind: ConnectionType) -> Connection:
        return find_connection(self._connections, name, kind, ask.namespace)


def find_connection(connections: Connections, name: str, kind: ConnectionType, namespace: str) -> Connection:
    """The connection of this name and type, as it is used for objects of a namespace. Raises Fault, permanent, when the
    configuration has none."""
    connection = connections.get(name)
    if connection is None or connection.type != kind:
        known = sorted(key for key, one in connections.items() if one.type == kind)
        have = f"it has {', '.join(known)}" if known else "it has none of that type"
        message = f"the operator's configuration has no {kind} connection called {name}; {have}"
        raise MeasurementError(Reason.CONNECTION_UNKNOWN, message, permanent=True)
    return connection.for_namespace(namespace)


@dataclass(slots=True)
class QueryText:
    """What was asked, for people; known before the answer is, so that a failure shows it too."""

    text: str = ""


def _first_after(series: Series, since: float) -> tuple[float, ...]:
    """When the first sample after `since` was taken, of a series that was there before."""
    times = [at for at, _ in series.samples]
    return tuple(at for at in times if at > since)[:1] if times and times[0] <= since else ()


def _select_counters(metric: Metric, source: RequestCounters, target: RevisionTarget) -> list[SeriesSelector]:
    """The counters that `metric` needs: bad and all, buckets, or all."""
    if metric.builtin == "error-rate":
        if source.bad_requests is None:
            raise _no_counters_error(target, "errors")
        return [source.bad_requests, source.all_requests]
    if metric.builtin in ("latency-over", "latency-percentile"):
        if source.latency is None:
            raise _no_counters_error(target, "latency")
        return [source.latency]
    return [source.all_requests]


def _no_counters_error(target: RevisionTarget, what: str) -> MeasurementError:
    message = f"the runtime of version {target.version} names no counters of that (spec.metrics.{what})"
    return MeasurementError(Reason.METRIC_SOURCE_MISSING, message, permanent=True)


def _compared_targets(ask: MeasurementRequest, metric: Metric) -> list[RevisionTarget]:
    """The candidate, and the serving revision where there is one and the metric compares with it."""
    return [ask.candidate, ask.serving] if ask.serving is not None and metric.versus == "Serving" else [ask.candidate]


def _queried_targets(ask: MeasurementRequest, metric: Metric, text: str, what: str) -> list[RevisionTarget]:
    """The revisions to ask about: the serving one too, where it is compared with and the query can tell them apart."""
    targets = _compared_targets(ask, metric)
    if len(targets) == 1 or queries.distinguishes_revisions(text):
        return targets
    if metric.margin is not None:
        raise _indistinct_targets_error(what, "margin compares two revisions")
    return [ask.candidate]


def _indistinct_targets_error(what: str, why: str) -> MeasurementError:
    message = f"{what}: {why}, and nothing in the query tells them apart: use $(REVISION), $(VERSION) or $(PODS)"
    return MeasurementError(Reason.QUERY_REFUSED, message, permanent=True)


def _build_value(found: list[tuple[float | None, str]]) -> MetricValue:
    told = _join_reasons([why for _, why in found])
    return MetricValue(found[0][0], found[1][0] if len(found) > 1 else None, told)


def _join_reasons(whys: list[str]) -> str:
    """What was missing, the candidate's first."""
    return "; ".join(why if index == 0 else f"serving revision: {why}" for index, why in enumerate(whys) if why)


def _build_histogram(series: list[tuple[Series, ...]], units: list[float], start: float, end: float) -> Histogram:
    """Of the candidate and, when there are more, the serving revision; then by blocks too."""
    sums = [_count_buckets(each, unit, start, end) for each, unit in zip(series, units, strict=True)]
    if len(sums) == 1:
        return Histogram(sums[0], None)
    found = []
    for begin, until in pairwise((start, *block_ends(start, end))):
        one, zero = (_count_buckets(each, unit, begin, until) for each, unit in zip(series, units, strict=True))
        found.append((until, one, zero))
    return Histogram(sums[0], sums[1], blocks=tuple(found))


def _count_buckets(series: tuple[Series, ...], unit: float, start: float, end: float) -> Buckets:
    try:
        found = counters.build_histogram(series, start, end)
    except ValueError as error:
        raise MeasurementError(Reason.METRICS_ANSWER_INVALID, str(error)) from None
    return tuple((bound if math.isinf(bound) else bound * unit, count) for bound, count in found)
