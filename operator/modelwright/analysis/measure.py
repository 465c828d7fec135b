"""Measures one metric of a policy once: asks the source that it names, and tells every fault as a result."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime

from modelwright.analysis import builtin, comparer, http, promql
from modelwright.analysis.builtin import Counted, Source
from modelwright.analysis.comparer import ComparerUrl
from modelwright.analysis.connections import Connection, Connections, ConnectionType
from modelwright.analysis.port import Ask, Jobs, Target
from modelwright.analysis.prometheus import Counters, Prometheus
from modelwright.analysis.web import Fault, Web
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import SHADOW_BUILTINS, HttpMetric, Metric, PrometheusMetric
from modelwright.core import shadow
from modelwright.core.analysis import counters
from modelwright.core.analysis.evidence import (
    Arm,
    Buckets,
    Failure,
    Histogram,
    Measurement,
    Points,
    Series,
    Shares,
    Value,
)
from modelwright.core.shadow import Summary

DEFAULT_CONNECTION = "default"
"""The Prometheus connection that builtin metrics are read from."""
WEIGHT_MIN_REQUESTS = 100
MOST_POINTS = 60
"""Points that a time which has passed is asked for."""

Result = Shares | Value | Histogram | Failure
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Memory:
    """What is kept of an ask from look to look."""

    counters: Counters

    @classmethod
    def of(cls, ask: Ask) -> Memory:
        """An empty memory."""
        return cls(Counters(ask.since.timestamp()))


@dataclass(slots=True)
class Look:
    """One look of an ask: everything in it is measured up to the same moment."""

    ask: Ask
    memory: Memory
    at: datetime
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _summary: Summary | Fault | None = field(default=None, init=False)

    @property
    def now(self) -> float:
        """Unix seconds."""
        return self.at.timestamp()

    async def summary(self, web: Web, url: ComparerUrl) -> Summary:
        """The comparer's summary, asked for once a look. Raises Fault."""
        async with self._turn:
            if self._summary is None:
                try:
                    self._summary = await comparer.summary(web, url, self.ask)
                except Fault as fault:
                    self._summary = fault
        if isinstance(self._summary, Fault):
            raise Fault(self._summary.failure.reason, self._summary.failure.message)
        return self._summary


def applies(ask: Ask, metric: Metric) -> bool:
    """Whether the step can measure `metric`: comparing answers needs a mirror step."""
    return ask.mirror or metric.builtin not in SHADOW_BUILTINS


class Measurer:
    """Measures by the connections of the operator's configuration."""

    def __init__(
        self,
        connections: Connections,
        web: Web,
        *,
        jobs: Jobs | None = None,
        comparer_url: ComparerUrl = comparer.in_cluster,
    ) -> None:
        self._connections = connections
        self._web = web
        self._jobs = jobs
        self._comparer_url = comparer_url

    async def measure(self, look: Look, metric: Metric) -> Measurement:
        """The measurement of one metric. Never raises but for cancellation."""
        query = Query()
        try:
            result = await self._result(look, metric, query)
        except Fault as fault:
            result = fault.failure
        except Exception as error:
            # Whatever goes wrong in here must not end the looks of a rollout: without them it only ever times out.
            log.exception("metric %s of %s/%s", metric.name, look.ask.namespace, look.ask.model)
            result = Failure(Reason.INTERNAL_ERROR, f"{type(error).__name__}; the operator's log has the details")
        return Measurement(metric.name, look.at, result, query.text)

    async def series(self, ask: Ask, metric: Metric, end: datetime) -> Points:
        """The values of a query for both revisions from `ask.since` to `end`: MOST_POINTS of them, or fewer so that
        they are an interval of looks apart. Never raises but for cancellation."""
        try:
            return await self._course(ask, metric, end)
        except Fault as fault:
            return Points(failure=fault.failure)
        except Exception as error:
            log.exception("metric %s of %s/%s", metric.name, ask.namespace, ask.model)
            text = f"{type(error).__name__}; the operator's log has the details"
            return Points(failure=Failure(Reason.INTERNAL_ERROR, text))

    async def _course(self, ask: Ask, metric: Metric, end: datetime) -> Points:
        asked = metric.prometheus
        if asked is None or asked.query is None or ask.serving is None:
            message = "only a prometheus query is compared over a time that has passed"
            raise Fault(Reason.QUERY_REFUSED, message, permanent=True)
        if not promql.tells_revisions_apart(asked.query):
            raise _not_told_apart("prometheus.query", "a winner is found by comparing")
        server = self._prometheus(asked.provider)
        length = (end - ask.since).total_seconds()
        step = max(length / MOST_POINTS, ask.interval.total_seconds())
        # Counted back from the end, and none at the begin: a query looks back over some time before its point.
        start = end.timestamp() - step * (math.floor(length / step + 1e-6) - 1)
        found = []
        for target in (ask.candidate, ask.serving):
            text = self._checked(server.connection, asked.query, ask, target, "prometheus.query")
            found.append(await server.course(text, start, end.timestamp(), step))
        return Points(found[0][0], found[1][0], _told([why for _, why in found]))

    async def observed_weight(self, look: Look) -> int | None:
        """Percent of the requests that the candidate was sent since the step began, as the gateway has counted; None
        without a gateway that is known, below WEIGHT_MIN_REQUESTS requests, and while it can't be had."""
        ask = look.ask
        if ask.gateway is None or ask.serving is None or ask.mirror or ask.gateway.controller not in builtin.GATEWAYS:
            return None
        try:
            server = self._prometheus(DEFAULT_CONNECTION)
            sources = [builtin.source(ask, "Gateway", target) for target in (ask.candidate, ask.serving)]
            read = [await self._read(look, server, found.all) for found in sources]
        except Fault:
            return None
        since = ask.since.timestamp()
        # From the first scrape in the step on: requests before it went by the weights of the step before, in part.
        began = max((at for series in read for one in series for at in _first_after(one, since)), default=None)
        if began is None:
            return None
        grown = [
            counters.growth(found.all.of(series), began, look.now, beside=series)
            for found, series in zip(sources, read, strict=True)
        ]
        total = sum(grown)
        return round(100 * grown[0] / total) if total >= WEIGHT_MIN_REQUESTS else None

    async def _result(self, look: Look, metric: Metric, query: Query) -> Result:
        if metric.prometheus is not None:
            return await self._from_prometheus(look, metric, metric.prometheus, query)
        if metric.http is not None:
            return await self._from_http(look, metric, metric.http, query)
        if metric.job is not None:
            if self._jobs is None:
                raise Fault(Reason.METRIC_SOURCE_MISSING, "this operator runs no Jobs for metrics", permanent=True)
            query.text = f"Job: {metric.job.value}"
            return await self._jobs.measure(look.ask, metric)
        if look.ask.mirror and (metric.source != "Runtime" or metric.builtin in SHADOW_BUILTINS):
            return await self._from_comparer(look, metric, query)
        return await self._from_counters(look, metric, query)

    async def _from_comparer(self, look: Look, metric: Metric, query: Query) -> Result:
        query.text = f"comparer: {metric.builtin}"
        told = await look.summary(self._web, self._comparer_url)
        if metric.builtin == "agreement":
            return shadow.agreement(told)
        if metric.builtin == "absolute-difference":
            return shadow.difference(told, "absolute")
        if metric.builtin == "relative-difference":
            return shadow.difference(told, "relative")
        if metric.builtin in ("latency-over", "latency-percentile"):
            return shadow.latency(told)
        asked = told.compared + told.uncomparable
        if metric.builtin == "error-rate":
            arms = [Arm(asked, min(asked, failed)) for failed in (told.errors.candidate, told.errors.serving)]
            return Shares(arms[0], arms[1])
        seconds = (look.at - told.started_at.astimezone(UTC)).total_seconds()
        if seconds <= 0:
            return Value(None, why="the comparer has only just started")
        return Value(asked / seconds, asked / seconds)

    async def _from_counters(self, look: Look, metric: Metric, query: Query) -> Result:
        ask, server = look.ask, self._prometheus(DEFAULT_CONNECTION)
        targets = _targets(ask, metric)
        errors = metric.builtin == "error-rate"
        sources = [builtin.source(ask, metric.source, target, errors=errors) for target in targets]
        wanted = [_wanted(metric, one, target) for one, target in zip(sources, targets, strict=True)]
        query.text = f"{sources[0].name}: {wanted[0][-1].selectors[0]}"
        found = [[await self._read(look, server, one, fresh=one is each[-1]) for one in each] for each in wanted]
        if not any(series for each in found for series in each):
            return Value(None, why=f"Prometheus has no series of {wanted[0][-1].selectors[0]}: is it scraped?")
        start, end = ask.since.timestamp(), look.now
        if metric.builtin in ("latency-over", "latency-percentile"):
            buckets = [
                _buckets(each[0].of(read[0]), one.unit, start, end)
                for one, each, read in zip(sources, wanted, found, strict=True)
            ]
            return Histogram(buckets[0], buckets[1] if len(buckets) > 1 else None)
        if errors:
            arms = [
                counters.arm(each[0].of(read[0]), each[1].of(read[1]), start, end)
                for each, read in zip(wanted, found, strict=True)
            ]
            return Shares(arms[0], arms[1] if len(arms) > 1 else None)
        if end <= start:
            return Value(None, why="the step has only just begun")
        rates = [
            counters.growth(each[0].of(read[0]), start, end, beside=read[0]) / (end - start)
            for each, read in zip(wanted, found, strict=True)
        ]
        return Value(rates[0], rates[1] if len(rates) > 1 else None)

    async def _from_prometheus(self, look: Look, metric: Metric, asked: PrometheusMetric, query: Query) -> Result:
        ask, server = look.ask, self._prometheus(asked.provider)
        targets = _compared(ask, metric, f"{asked.query or ''}{asked.bad or ''}{asked.total or ''}", "prometheus")
        if asked.query is not None:
            queries = [self._checked(server.connection, asked.query, ask, one, "prometheus.query") for one in targets]
            query.text = queries[0]
            return _value([await server.number(text, look.now) for text in queries])
        texts = (("bad", asked.bad or ""), ("total", asked.total or ""))
        pairs = [
            [self._selector(server.connection, text, ask, target, f"prometheus.{name}") for name, text in texts]
            for target in targets
        ]
        query.text = f"bad: {pairs[0][0]}; total: {pairs[0][1]}"
        read = [
            [await look.memory.counters.read(server, text, look.now, fresh=text is pair[1]) for text in pair]
            for pair in pairs
        ]
        if not any(series for pair in read for series in pair):
            return Value(None, why=f"Prometheus has no series of {pairs[0][1]}")
        arms = [counters.arm(bad, total, ask.since.timestamp(), look.now) for bad, total in read]
        return Shares(arms[0], arms[1] if len(arms) > 1 else None)

    async def _from_http(self, look: Look, metric: Metric, asked: HttpMetric, query: Query) -> Result:
        connection = self._connection(asked.provider, "HTTP")
        targets = _compared(look.ask, metric, asked.path, "http")
        paths = [http.filled(asked.path, look.ask, target) for target in targets]
        query.text = f"{paths[0]} {asked.value}".strip()
        return _value([await http.number(self._web, connection, path, asked.value) for path in paths])

    async def _read(
        self, look: Look, server: Prometheus, counted: Counted, *, fresh: bool = True
    ) -> tuple[Series, ...]:
        for selector in counted.selectors:
            if series := await look.memory.counters.read(server, selector, look.now, fresh=fresh):
                return series
        return ()

    def _checked(self, connection: Connection, text: str, ask: Ask, target: Target, what: str) -> str:
        filled = promql.fill(text, promql.placeholders(ask, target))
        if connection.enforced_label is None:
            return filled
        return promql.enforced(filled, connection.enforced_label, ask.namespace, what)

    def _selector(self, connection: Connection, text: str, ask: Ask, target: Target, what: str) -> str:
        return promql.plain(self._checked(connection, text, ask, target, what), what)

    def _prometheus(self, name: str) -> Prometheus:
        return Prometheus(self._web, self._connection(name, "Prometheus"))

    def _connection(self, name: str, kind: ConnectionType) -> Connection:
        return named(self._connections, name, kind)


def named(connections: Connections, name: str, kind: ConnectionType) -> Connection:
    """The connection of this name and type. Raises Fault, permanent, when the configuration has none."""
    connection = connections.get(name)
    if connection is None or connection.type != kind:
        known = sorted(key for key, one in connections.items() if one.type == kind)
        have = f"it has {', '.join(known)}" if known else "it has none of that type"
        message = f"the operator's configuration has no {kind} connection called {name}; {have}"
        raise Fault(Reason.CONNECTION_UNKNOWN, message, permanent=True)
    return connection


@dataclass(slots=True)
class Query:
    """What was asked, for people; known before the answer is, so that a failure shows it too."""

    text: str = ""


def _first_after(series: Series, since: float) -> tuple[float, ...]:
    """When the first sample after `since` was taken, of a series that was there before."""
    times = [at for at, _ in series.samples]
    return tuple(at for at in times if at > since)[:1] if times and times[0] <= since else ()


def _wanted(metric: Metric, source: Source, target: Target) -> list[Counted]:
    """The counters that `metric` needs: bad and all, buckets, or all."""
    if metric.builtin == "error-rate":
        if source.bad is None:
            raise _nothing_counts(target, "errors")
        return [source.bad, source.all]
    if metric.builtin in ("latency-over", "latency-percentile"):
        if source.latency is None:
            raise _nothing_counts(target, "latency")
        return [source.latency]
    return [source.all]


def _nothing_counts(target: Target, what: str) -> Fault:
    message = f"the runtime of version {target.version} names no counters of that (spec.metrics.{what})"
    return Fault(Reason.METRIC_SOURCE_MISSING, message, permanent=True)


def _targets(ask: Ask, metric: Metric) -> list[Target]:
    """The candidate, and the serving revision where there is one and the metric compares with it."""
    return [ask.candidate, ask.serving] if ask.serving is not None and metric.versus == "Serving" else [ask.candidate]


def _compared(ask: Ask, metric: Metric, text: str, what: str) -> list[Target]:
    """The revisions to ask about: the serving one too, where it is compared with and the query can tell them apart."""
    targets = _targets(ask, metric)
    if len(targets) == 1 or promql.tells_revisions_apart(text):
        return targets
    if metric.margin is not None:
        raise _not_told_apart(what, "margin compares two revisions")
    return [ask.candidate]


def _not_told_apart(what: str, why: str) -> Fault:
    message = f"{what}: {why}, and nothing in the query tells them apart: use $(REVISION), $(VERSION) or $(PODS)"
    return Fault(Reason.QUERY_REFUSED, message, permanent=True)


def _value(found: list[tuple[float | None, str]]) -> Value:
    told = _told([why for _, why in found])
    return Value(found[0][0], found[1][0] if len(found) > 1 else None, told)


def _told(whys: list[str]) -> str:
    """What was missing, the candidate's first."""
    return "; ".join(why if index == 0 else f"serving revision: {why}" for index, why in enumerate(whys) if why)


def _buckets(series: tuple[Series, ...], unit: float, start: float, end: float) -> Buckets:
    try:
        found = counters.histogram(series, start, end)
    except ValueError as error:
        raise Fault(Reason.METRICS_ANSWER_INVALID, str(error)) from None
    return tuple((bound if math.isinf(bound) else bound * unit, count) for bound, count in found)
