"""Measures one metric of a policy once: asks the source that it names, and tells every fault as a result."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise

from modelwright.analysis import builtin, checks, comparer, http, promql
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
    Buckets,
    Failure,
    Histogram,
    Measurement,
    Points,
    Sample,
    Series,
    Shares,
    Value,
)
from modelwright.core.analysis.figures import Figure
from modelwright.core.analysis.scrapes import block_ends
from modelwright.core.shadow import Summary

DEFAULT_CONNECTION = "default"
"""The Prometheus connection that builtin metrics are read from."""
WEIGHT_MIN_REQUESTS = 100
MOST_POINTS = 60
"""Points that a time which has passed is asked for."""

Result = Shares | Sample | Value | Histogram | Figure | Failure
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Memory:
    """What is kept of an ask from look to look."""

    counters: Counters
    summaries: dict[datetime, Summary] = field(default_factory=dict)
    """The last summary of each comparer of the step, by its start."""
    before: dict[datetime, Summary] = field(default_factory=dict)
    """The first one of each that ran before the step: another mirror step was before it."""
    began: datetime | None = None
    selectors: checks.Selectors = field(default_factory=checks.Selectors)

    @classmethod
    def of(cls, ask: Ask) -> Memory:
        """An empty memory."""
        return cls(Counters(ask.since.timestamp()), began=ask.began or ask.since)

    def of_all(self, summary: Summary) -> Summary:
        """What this comparer and those before or beside it have counted in the step: none of it is lost with a pod, nor
        counted twice. A comparer that ran before the step counts from its first look here."""
        known = self.summaries.get(summary.started_at)
        if known is None and self.began is not None and summary.started_at < self.began:
            self.before[summary.started_at] = summary
        if known is None or known.received <= summary.received:
            self.summaries[summary.started_at] = summary
        first, *others = [
            found - self.before[start] if start in self.before else found for start, found in self.summaries.items()
        ]
        return sum(others, first)


@dataclass(slots=True)
class Look:
    """One look of an ask: everything in it is measured up to the same moment."""

    ask: Ask
    memory: Memory
    at: datetime
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _summary: Summary | Fault | None = field(default=None, init=False)
    _in_flight: str | None = field(default=None, init=False)

    @property
    def now(self) -> float:
        """Unix seconds."""
        return self.at.timestamp()

    async def summary(self, web: Web, url: ComparerUrl) -> Summary:
        """The comparer's summary, asked for once a look. Raises Fault."""
        async with self._turn:
            if self._summary is None:
                try:
                    self._summary = self.memory.of_all(await comparer.summary(web, url, self.ask))
                except Fault as fault:
                    self._summary = fault
        if isinstance(self._summary, Fault):
            raise Fault(self._summary.failure.reason, self._summary.failure.message)
        return self._summary

    async def in_flight(self, count: Callable[[], Awaitable[str]]) -> str:
        """What `count` gives, counted once a look."""
        async with self._turn:
            if self._in_flight is None:
                self._in_flight = await count()
        return self._in_flight


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
        except checks.NoEvidence as found:
            result = Value(None, why=str(found), reason=found.reason)
        except Exception as error:
            # Whatever goes wrong in here must not end the looks of a rollout: without them it only ever times out.
            log.exception("metric %s of %s/%s", metric.name, look.ask.namespace, look.ask.model)
            result = Failure(Reason.INTERNAL_ERROR, f"{type(error).__name__}; the operator's log has the details")
        in_flight = "" if isinstance(result, Failure) else await self._in_flight(look, metric)
        return Measurement(metric.name, look.at, result, query.text, in_flight)

    async def _in_flight(self, look: Look, metric: Metric) -> str:
        """Requests that have not ended, where the comparer or the runtimes know them: what is counted at the end of a
        request doesn't show those that hang. Nothing else is asked, and what can't be had is left out."""
        if metric.builtin not in ("error-rate", "latency-over", "latency-percentile"):
            return ""
        if look.ask.mirror and metric.source != "Runtime":
            summaries = look.memory.summaries
            return f"{shadow.pending(summaries[max(summaries)])} copies" if summaries else ""
        return await look.in_flight(lambda: self._count_in_flight(look))

    async def _count_in_flight(self, look: Look) -> str:
        found = []
        for name, target in (("candidate", look.ask.candidate), ("serving", look.ask.serving)):
            try:
                query = await builtin.in_flight(look.ask, target) if target is not None else None
                if query is None:
                    continue
                value, _ = await self._prometheus(look.ask, DEFAULT_CONNECTION).number(query, look.now)
            except Fault:
                continue
            found += [f"{name} {value:.0f}"] if value is not None else []
        return ", ".join(found)

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
        server = self._prometheus(ask, asked.provider)
        length = (end - ask.since).total_seconds()
        step = max(length / MOST_POINTS, ask.interval.total_seconds())
        # Counted back from the end, and none at the begin: a query looks back over some time before its point.
        start = end.timestamp() - step * (math.floor(length / step + 1e-6) - 1)
        found = []
        for target in (ask.candidate, ask.serving):
            text = await self._checked(server.connection, asked.query, ask, target, "prometheus.query")
            values, why = await server.course(text, start, end.timestamp(), step)
            if missing := await checks.missing_data(server, text, end.timestamp(), ask.namespace):
                values, why = {}, missing
            found.append((values, why))
        (ones, _), (zeros, _) = found
        pairs = tuple((value, zeros[at]) for at, value in ones.items() if at in zeros)
        return Points(pairs, _told([why for _, why in found]))

    async def observed_weight(self, look: Look) -> int | None:
        """Percent of the requests that the candidate was sent since the step began, as the gateway has counted; None
        without a gateway that is known, below WEIGHT_MIN_REQUESTS requests, and while it can't be had."""
        ask = look.ask
        if ask.gateway is None or ask.serving is None or ask.mirror or ask.gateway.controller not in builtin.GATEWAYS:
            return None
        try:
            server = self._prometheus(look.ask, DEFAULT_CONNECTION)
            sources = [await builtin.source(ask, "Gateway", target) for target in (ask.candidate, ask.serving)]
            read = [(await self._read(look, server, [one.all]))[0] for one in sources]
        except (Fault, checks.NoEvidence):
            return None
        since = ask.since.timestamp()
        # From the first scrape in the step on: requests before it went by the weights of the step before, in part.
        began = max((at for series in read for one in series for at in _first_after(one, since)), default=None)
        if began is None:
            return None
        grown = [
            counters.growth(one.all.of(series), began, look.now) for one, series in zip(sources, read, strict=True)
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
        if told.refused and not told.received:
            raise checks.NoEvidence(Reason.COPIES_WITHOUT_TOKEN, comparer.strangers(told.refused))
        if metric.builtin == "agreement":
            return shadow.agreement(told)
        if metric.builtin == "absolute-difference":
            return shadow.difference(told, "absolute")
        if metric.builtin == "relative-difference":
            return shadow.difference(told, "relative")
        if metric.builtin in ("latency-over", "latency-percentile"):
            return shadow.latency(told)
        if metric.builtin == "error-rate":
            return shadow.errors(told)
        asked = told.compared + told.uncomparable
        seconds = (look.at - told.started_at.astimezone(UTC)).total_seconds()
        if seconds <= 0:
            return Value(None, why="the comparer has only just started")
        return Value(asked / seconds, asked / seconds)

    async def _from_counters(self, look: Look, metric: Metric, query: Query) -> Result:
        ask, server = look.ask, self._prometheus(look.ask, DEFAULT_CONNECTION)
        targets = _targets(ask, metric)
        errors = metric.builtin == "error-rate"
        sources = [await builtin.source(ask, metric.source, target, errors=errors) for target in targets]
        wanted = [_wanted(metric, one, target) for one, target in zip(sources, targets, strict=True)]
        query.text = f"{sources[0].name}: {wanted[0][-1].selectors[0]}"
        found = [await self._read(look, server, one) for one in wanted]
        if not any(series for each in found for series in each):
            return Value(None, why=f"Prometheus has no series of {wanted[0][-1].selectors[0]}: is it scraped?")
        start, end = ask.since.timestamp(), look.now
        meant = [
            [one.of(series) for one, series in zip(each, groups, strict=True)]
            for each, groups in zip(wanted, found, strict=True)
        ]
        if metric.builtin in ("latency-over", "latency-percentile"):
            return _histogram([each[0] for each in meant], [one.unit for one in sources], start, end)
        if errors:
            for target in targets if sources[0].name == "Runtime" else ():
                # Revisions of one runtime ask for the same errors: what one of them has, the other can have.
                alike = [index for index, other in enumerate(targets) if other.metrics == target.metrics]
                pair = wanted[alike[0]][0].selectors[0], wanted[alike[0]][1].selectors[0]
                what = f"spec.metrics.errors of the runtime of {target.version}"
                read = [found[index] for index in alike]
                await look.memory.selectors.check(server, pair, read, what, look.now, ask.namespace)
            return checks.shares(meant, start, end)
        if end <= start:
            return Value(None, why="the step has only just begun")
        rates = [counters.growth(each[0], start, end) / (end - start) for each in meant]
        return Value(rates[0], rates[1] if len(rates) > 1 else None)

    async def _from_prometheus(self, look: Look, metric: Metric, asked: PrometheusMetric, query: Query) -> Result:
        ask, server = look.ask, self._prometheus(look.ask, asked.provider)
        targets = _compared(ask, metric, f"{asked.query or ''}{asked.bad or ''}{asked.total or ''}", "prometheus")
        if asked.query is not None:
            queries = [
                await self._checked(server.connection, asked.query, ask, one, "prometheus.query") for one in targets
            ]
            query.text = queries[0]
            return await self._value(look, server, queries)
        texts = (("bad", asked.bad or ""), ("total", asked.total or ""))
        pairs = [
            [await self._selector(server.connection, text, ask, target, f"prometheus.{name}") for name, text in texts]
            for target in targets
        ]
        query.text = f"bad: {pairs[0][0]}; total: {pairs[0][1]}"
        read = [checks.single(await look.memory.counters.read(server, pair, look.now)) for pair in pairs]
        if not any(series for groups in read for series in groups):
            return Value(None, why=f"Prometheus has no series of {pairs[0][1]}")
        await look.memory.selectors.check(server, pairs[0], read, "prometheus.bad", look.now, ask.namespace)
        return checks.shares(read, ask.since.timestamp(), look.now)

    async def _value(self, look: Look, server: Prometheus, queries: Sequence[str]) -> Value:
        found = _value([await server.number(text, look.now) for text in queries])
        who = look.ask.namespace
        query = await promql.parsed_here(queries[0], "prometheus.query", who)
        if found.candidate is None or query is None or not query.always:
            return found
        if missing := await checks.missing_data(server, queries[0], look.now, who):
            raise checks.NoEvidence(Reason.VALUE_WITHOUT_DATA, missing)
        if await self._requests(look) == 0:
            message = "the query gives a number without any data, and the candidate has answered no request in the step"
            raise checks.NoEvidence(Reason.VALUE_WITHOUT_DATA, message)
        if len(queries) > 1 and (missing := await checks.missing_data(server, queries[1], look.now, who)):
            return replace(found, serving=None, why=f"serving revision: {missing}")
        return found

    async def _requests(self, look: Look) -> float | None:
        """Requests that the candidate has answered in the step; None where nothing counts them."""
        try:
            counted = (await builtin.source(look.ask, "Auto", look.ask.candidate)).all
            (series,) = await self._read(look, self._prometheus(look.ask, DEFAULT_CONNECTION), [counted])
        except (Fault, checks.NoEvidence):
            return None
        return counters.growth(counted.of(series), look.ask.since.timestamp(), look.now)

    async def _from_http(self, look: Look, metric: Metric, asked: HttpMetric, query: Query) -> Result:
        connection = self._connection(look.ask, asked.provider, "HTTP")
        targets = _compared(look.ask, metric, asked.path, "http")
        paths = [http.filled(asked.path, look.ask, target) for target in targets]
        query.text = f"{paths[0]} {asked.value}".strip()
        return _value([await http.number(self._web, connection, path, asked.value) for path in paths])

    async def _read(self, look: Look, server: Prometheus, wanted: Sequence[Counted]) -> tuple[tuple[Series, ...], ...]:
        """What was counted by the series of each that is wanted, by the first of its alternatives that has any."""
        found: tuple[tuple[Series, ...], ...] = tuple(() for _ in wanted)
        for chosen in zip(*(one.selectors for one in wanted), strict=True):
            found = checks.single(await look.memory.counters.read(server, chosen, look.now))
            if any(found):
                break
        return found

    async def _checked(self, connection: Connection, text: str, ask: Ask, target: Target, what: str) -> str:
        filled = promql.fill(text, promql.placeholders(ask, target))
        if connection.enforced_label is None:
            promql.check_size(filled, what)
            return filled
        return await promql.enforced(filled, connection.enforced_label, ask.namespace, what)

    async def _selector(self, connection: Connection, text: str, ask: Ask, target: Target, what: str) -> str:
        return await promql.plain(await self._checked(connection, text, ask, target, what), what, ask.namespace)

    def _prometheus(self, ask: Ask, name: str) -> Prometheus:
        return Prometheus(self._web, self._connection(ask, name, "Prometheus"))

    def _connection(self, ask: Ask, name: str, kind: ConnectionType) -> Connection:
        return named(self._connections, name, kind, ask.namespace)


def named(connections: Connections, name: str, kind: ConnectionType, namespace: str) -> Connection:
    """The connection of this name and type, as it is used for objects of a namespace. Raises Fault, permanent, when the
    configuration has none."""
    connection = connections.get(name)
    if connection is None or connection.type != kind:
        known = sorted(key for key, one in connections.items() if one.type == kind)
        have = f"it has {', '.join(known)}" if known else "it has none of that type"
        message = f"the operator's configuration has no {kind} connection called {name}; {have}"
        raise Fault(Reason.CONNECTION_UNKNOWN, message, permanent=True)
    return connection.in_namespace(namespace)


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


def _histogram(series: list[tuple[Series, ...]], units: list[float], start: float, end: float) -> Histogram:
    """Of the candidate and, when there are more, the serving revision; then by blocks too."""
    sums = [_buckets(each, unit, start, end) for each, unit in zip(series, units, strict=True)]
    if len(sums) == 1:
        return Histogram(sums[0], None)
    found = []
    for begin, until in pairwise((start, *block_ends(start, end))):
        one, zero = (_buckets(each, unit, begin, until) for each, unit in zip(series, units, strict=True))
        found.append((until, one, zero))
    return Histogram(sums[0], sums[1], blocks=tuple(found))


def _buckets(series: tuple[Series, ...], unit: float, start: float, end: float) -> Buckets:
    try:
        found = counters.histogram(series, start, end)
    except ValueError as error:
        raise Fault(Reason.METRICS_ANSWER_INVALID, str(error)) from None
    return tuple((bound if math.isinf(bound) else bound * unit, count) for bound, count in found)
