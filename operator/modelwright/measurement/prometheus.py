"""Prometheus' query API: one number now, its course over a time, and raw samples of counters since a step began."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

from modelwright.api.reasons import Reason
from modelwright.core.analysis.evidence import Series
from modelwright.core.analysis.scraped_counters import CounterGrowth, ScrapeTarget, scrape_target
from modelwright.measurement import queries
from modelwright.measurement.connections import Connection
from modelwright.measurement.json_client import (
    NUMBER_LIMITS,
    SAMPLES_LIMITS,
    JsonClient,
    JsonResponse,
    MeasurementError,
)
from modelwright.measurement.queries import LabelMatcher
from modelwright.measurement.sample_windows import LOOKBACK_SECONDS, SampleWindow
from modelwright.untrusted_json import JsonLimits

MAX_PIECE_SECONDS = 3600.0
"""Seconds of samples that are asked for at once; halved while the answer is too large."""
MIN_PIECE_SECONDS = 60.0
SERIES_LIMIT = 2
"""Where one is wanted: more than one is refused, however many they are. A server without `limit` gives them all."""
PROCESS_START_METRIC = "process_start_time_seconds"
"""What client libraries of Prometheus call the start of their process, in unix seconds."""


class PrometheusClient:
    """One server, by its connection. All methods raise Fault when nothing is to be had."""

    def __init__(self, web: JsonClient, connection: Connection) -> None:
        self._web = web
        self.connection = connection

    async def query_number(self, query: str, at: float) -> tuple[float | None, str]:
        """The one number that `query` gives at `at` (unix seconds); or None, and why there is none."""
        kind, result = await self._query_instant(query, at, NUMBER_LIMITS, {"limit": str(SERIES_LIMIT)})
        if kind == "scalar":
            values = [_parse_point(result)]
        elif kind == "vector":
            if any("histogram" in one for one in result):
                raise MeasurementError(
                    Reason.QUERY_REFUSED, "the query gives a native histogram, not a number", permanent=True
                )
            values = [_parse_point(one.get("value")) for one in result]
        else:
            message = f"the query gives a {kind}, and must give one number"
            raise MeasurementError(Reason.QUERY_REFUSED, message, permanent=True)
        if not values:
            return None, "the query gives no data"
        if len(values) > 1:
            return None, f"the query gives {_format_series_count(values)} series, and must give one: sum them"
        value = values[0][1]
        return (value, "") if math.isfinite(value) else (None, f"the query gives {value}")

    async def query_range(self, query: str, start: float, end: float, step: float) -> tuple[dict[float, float], str]:
        """The numbers that `query` gave from `start` to `end` by moment (unix seconds), one each `step` seconds, oldest
        first; or none, and why. Moments at which it gave nothing are left out."""
        form = {"query": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        form["limit"] = str(SERIES_LIMIT)
        kind, result = await self._send_query("/api/v1/query_range", form, SAMPLES_LIMITS)
        if kind != "matrix":
            message = f"connection {self.connection.name}: a range was asked for, and a {kind} was given"
            raise MeasurementError(Reason.METRICS_ANSWER_INVALID, message)
        if any("histograms" in one for one in result):
            raise MeasurementError(
                Reason.QUERY_REFUSED, "the query gives a native histogram, not a number", permanent=True
            )
        if len(result) > 1:
            return {}, f"the query gives {_format_series_count(result)} series, and must give one: sum them"
        found = dict(_parse_point(point) for one in result for point in self._parse_values(one))
        return found, "" if found else "the query gives no data"

    async def query_samples(self, selector: str, start: float, end: float) -> tuple[Series, ...]:
        """Raw samples of a plain selector between two times (unix seconds)."""
        kind, result = await self._query_instant(
            f"{selector}[{max(1, math.ceil(end - start))}s]", end, SAMPLES_LIMITS, {}
        )
        if kind != "matrix":
            raise MeasurementError(
                Reason.METRICS_ANSWER_INVALID,
                f"connection {self.connection.name}: samples were asked for, and a {kind} was given",
            )
        found = []
        for one in result:
            labels = one.get("metric")
            if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
                raise self._malformed_answer()
            found.append(Series(labels, tuple(_parse_point(point) for point in self._parse_values(one))))
        return tuple(found)

    async def _query_instant(
        self, query: str, at: float, bounds: JsonLimits, more: Mapping[str, str]
    ) -> tuple[str, Any]:
        return await self._send_query("/api/v1/query", {"query": query, "time": f"{at:.3f}", **more}, bounds)

    async def _send_query(self, path: str, form: dict[str, str], bounds: JsonLimits) -> tuple[str, Any]:
        form = {**form, "timeout": f"{self.connection.timeout_seconds:g}s"}
        answer = await self._web.request_json(self.connection, path, form=form, bounds=bounds)
        document = answer.document
        if not isinstance(document, dict) or document.get("status") not in ("success", "error"):
            if answer.status >= 400:
                raise MeasurementError(
                    Reason.METRICS_SERVER_ERROR, f"connection {self.connection.name}: answered {answer.status}"
                )
            raise self._malformed_answer()
        if document["status"] == "error" or answer.status >= 400:
            raise self._build_error(answer)
        data = document.get("data")
        if not isinstance(data, dict) or not isinstance(data.get("result"), list):
            raise self._malformed_answer()
        kind, result = str(data.get("resultType")), data["result"]
        if kind not in ("scalar", "vector", "matrix", "string"):
            raise self._malformed_answer()
        if kind in ("vector", "matrix") and not all(isinstance(one, dict) for one in result):
            raise self._malformed_answer()
        return kind, result

    def _parse_values(self, series: dict[str, Any]) -> list[Any]:
        values = series.get("values", [])
        if not isinstance(values, list):
            raise self._malformed_answer()
        return values

    def _build_error(self, answer: JsonResponse) -> MeasurementError:
        # Credentials were taken out of answers that are errors by their status only.
        error = answer.document.get("error") if answer.status >= 400 else None
        told = f"connection {self.connection.name}: {error or f'answered {answer.status}'}"
        if answer.status == 400 and answer.document.get("errorType") == "bad_data":
            return MeasurementError(Reason.QUERY_REFUSED, told, permanent=True)
        if answer.status == 422:
            return MeasurementError(Reason.QUERY_FAILED, told)
        return MeasurementError(Reason.METRICS_SERVER_ERROR, f"{told} ({answer.status})")

    def _malformed_answer(self) -> MeasurementError:
        return MeasurementError(
            Reason.METRICS_ANSWER_INVALID,
            f"connection {self.connection.name}: the answer is none of Prometheus' query API",
        )


class CounterReader:
    """Counters since a step began, read from one server or several; kept from look to look."""

    def __init__(self, start: float) -> None:
        self._start = start
        self._windows: dict[tuple[str, tuple[str, ...]], SampleWindow] = {}
        self._locks: dict[tuple[str, tuple[str, ...]], asyncio.Lock] = {}

    async def read_counts(self, server: PrometheusClient, selectors: Sequence[str], now: float) -> CounterGrowth:
        """What the counters of some plain selectors counted from the step's begin up to `now` (unix seconds), for each
        selector. They are read together, because a restart shows in all counters of a process.

        Raises Fault, also when the last selector's counters aren't scraped any more. (Those before may be errors of
        pods that are gone.) No series at all are no fault.
        """
        wanted = tuple(dict.fromkeys(selectors))
        key = (server.connection.name, wanted)
        async with self._locks.setdefault(key, asyncio.Lock()):
            window = self._windows.setdefault(key, SampleWindow(self._start, wanted))
            if window.read_to is None or window.read_to < now:
                await self._read_window(server, window, now)
            if (last := window.stale_since(now, selectors[-1])) is not None:
                message = f"connection {server.connection.name}: no sample of {selectors[-1]} in the last"
                raise MeasurementError(Reason.METRICS_STALE, f"{message} {now - last:.0f} s: is it still scraped?")
            found = window.compute_counts()
        groups = dict(zip(wanted, found.groups, strict=True))
        return CounterGrowth(tuple(groups[selector] for selector in selectors), found.doubled)

    async def _read_window(self, server: PrometheusClient, window: SampleWindow, now: float) -> None:
        piece = MAX_PIECE_SECONDS
        while window.read_to is None or window.read_to < now:
            begin = window.next_start()
            end = min(now, (begin if window.read_to is None else window.read_to) + piece)
            try:
                found = {selector: await server.query_samples(selector, begin, end) for selector in window.selectors}
            except MeasurementError as fault:
                if (
                    fault.failure.reason not in (Reason.METRICS_ANSWER_TOO_LARGE, Reason.QUERY_FAILED)
                    or piece <= MIN_PIECE_SECONDS
                ):
                    raise
                piece /= 2
                continue
            window.add_series(found, end)
        left = dict(sorted(window.list_unknown_targets().items(), key=lambda item: item[1]))
        while left:
            first = next(iter(left.values()))
            together = {found: at for found, at in left.items() if at <= first + MAX_PIECE_SECONDS}
            window.baselines |= await self._find_baselines(server, together)
            left = {found: at for found, at in left.items() if found not in together}

    async def _find_baselines(
        self, server: PrometheusClient, first: Mapping[ScrapeTarget, float]
    ) -> dict[ScrapeTarget, float | None]:
        """For targets with the time of their first sample, the moment from which on a new series counts from 0 there:
        an earlier scrape that went well, or the start of the process when it lies in the step."""
        instances = "|".join(queries.escape_pattern(instance) for _, instance in sorted(first))
        matches = [LabelMatcher("instance", instances, "=~")]
        begin, end = min(first.values()) - LOOKBACK_SECONDS, max(first.values())
        known: dict[ScrapeTarget, list[float]] = {found: [] for found in first}
        for name in ("up", PROCESS_START_METRIC):
            for one in await server.query_samples(queries.build_selector(name, matches), begin, end):
                if (scraped := scrape_target(one.labels)) in known:
                    moments = [at for at, value in one.samples if value == 1]
                    if name == PROCESS_START_METRIC:
                        moments = [value for _, value in one.samples if value >= self._start]
                    known[scraped] += [moment for moment in moments if moment < first[scraped]]
        return {scraped: min(moments, default=None) for scraped, moments in known.items()}


def _format_series_count(found: Sequence[Any]) -> str:
    return f"{SERIES_LIMIT} or more" if len(found) == SERIES_LIMIT else str(len(found))


def _parse_point(found: Any) -> tuple[float, float]:
    if isinstance(found, Sequence) and len(found) == 2 and isinstance(found[1], str):
        try:
            return float(found[0]), float(found[1])
        except (TypeError, ValueError, OverflowError):
            pass
    raise MeasurementError(
        Reason.METRICS_ANSWER_INVALID, "the answer has a sample that is no pair of a time and a number in quotes"
    )
