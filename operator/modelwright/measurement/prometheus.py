"""Prometheus' query API: one number, its values over a range, and raw samples of counters since a step began."""

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
"""Seconds of samples in one request; halved while the answer is too large."""
MIN_PIECE_SECONDS = 60.0
SERIES_LIMIT = 2
"""Series to request where one is wanted: two show that there are several. A server without `limit` returns all."""
PROCESS_START_METRIC = "process_start_time_seconds"
"""Name that client libraries of Prometheus give to the start of their process (in unix seconds)."""


class PrometheusClient:
    """Client of one server, by its connection. All methods raise MeasurementError when they can't read an answer."""

    def __init__(self, client: JsonClient, connection: Connection) -> None:
        self._client = client
        self.connection = connection

    async def query_number(self, query: str, at: float) -> tuple[float | None, str]:
        """Read the one number that `query` gives at `at` (unix seconds); or None, and why there is none."""
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
        """Read the numbers that `query` gave from `start` to `end` (unix seconds), one each `step` seconds.

        Returns them by time, oldest first, without times at which it gave nothing; or none, and why.
        """
        form = {"query": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        form["limit"] = str(SERIES_LIMIT)
        kind, result = await self._send_query("/api/v1/query_range", form, SAMPLES_LIMITS)
        if kind != "matrix":
            message = f"connection {self.connection.name}: a range was requested, and a {kind} was returned"
            raise MeasurementError(Reason.METRICS_ANSWER_INVALID, message)
        if any("histograms" in one for one in result):
            raise MeasurementError(
                Reason.QUERY_REFUSED, "the query gives a native histogram, not a number", permanent=True
            )
        if len(result) > 1:
            return {}, f"the query gives {_format_series_count(result)} series, and must give one: sum them"
        values = dict(_parse_point(point) for one in result for point in self._parse_values(one))
        return values, "" if values else "the query gives no data"

    async def query_samples(self, selector: str, start: float, end: float) -> tuple[Series, ...]:
        """Read the raw samples of a plain selector between two times (unix seconds)."""
        kind, result = await self._query_instant(
            f"{selector}[{max(1, math.ceil(end - start))}s]", end, SAMPLES_LIMITS, {}
        )
        if kind != "matrix":
            raise MeasurementError(
                Reason.METRICS_ANSWER_INVALID,
                f"connection {self.connection.name}: samples were requested, and a {kind} was returned",
            )
        series = []
        for one in result:
            labels = one.get("metric")
            if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
                raise self._malformed_answer()
            series.append(Series(labels, tuple(_parse_point(point) for point in self._parse_values(one))))
        return tuple(series)

    async def _query_instant(
        self, query: str, at: float, limits: JsonLimits, more: Mapping[str, str]
    ) -> tuple[str, Any]:
        return await self._send_query("/api/v1/query", {"query": query, "time": f"{at:.3f}", **more}, limits)

    async def _send_query(self, path: str, form: dict[str, str], limits: JsonLimits) -> tuple[str, Any]:
        form = {**form, "timeout": f"{self.connection.timeout_seconds:g}s"}
        answer = await self._client.request_json(self.connection, path, form=form, limits=limits)
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
        # The client masks credentials only in answers with an error status, so no other answer is quoted.
        error = answer.document.get("error") if answer.status >= 400 else None
        message = f"connection {self.connection.name}: {error or f'answered {answer.status}'}"
        if answer.status == 400 and answer.document.get("errorType") == "bad_data":
            return MeasurementError(Reason.QUERY_REFUSED, message, permanent=True)
        if answer.status == 422:
            return MeasurementError(Reason.QUERY_FAILED, message)
        return MeasurementError(Reason.METRICS_SERVER_ERROR, f"{message} ({answer.status})")

    def _malformed_answer(self) -> MeasurementError:
        return MeasurementError(
            Reason.METRICS_ANSWER_INVALID,
            f"connection {self.connection.name}: the answer is none of Prometheus' query API",
        )


class CounterReader:
    """Reads counters since a step began, from one server or several; keeps the samples from round to round."""

    def __init__(self, start: float) -> None:
        self._start = start
        self._windows: dict[tuple[str, tuple[str, ...]], SampleWindow] = {}
        self._locks: dict[tuple[str, tuple[str, ...]], asyncio.Lock] = {}

    async def read_counts(self, server: PrometheusClient, selectors: Sequence[str], now: float) -> CounterGrowth:
        """Read the growth of the counters of plain selectors from the step's start to `now` (unix seconds).

        The selectors are read together, because a restart shows in all counters of a process. Raises
        MeasurementError, also when the last selector's counters aren't scraped any more (those before may count errors
        of pods that are gone). A selector without any series is no error.
        """
        distinct = tuple(dict.fromkeys(selectors))
        key = (server.connection.name, distinct)
        async with self._locks.setdefault(key, asyncio.Lock()):
            window = self._windows.setdefault(key, SampleWindow(self._start, distinct))
            if window.read_to is None or window.read_to < now:
                await self._read_window(server, window, now)
            if (last := window.stale_since(now, selectors[-1])) is not None:
                message = f"connection {server.connection.name}: no sample of {selectors[-1]} in the last"
                raise MeasurementError(Reason.METRICS_STALE, f"{message} {now - last:.0f} s: is it still scraped?")
            growth = window.compute_counts()
        groups = dict(zip(distinct, growth.groups, strict=True))
        return CounterGrowth(tuple(groups[selector] for selector in selectors), growth.doubled)

    async def _read_window(self, server: PrometheusClient, window: SampleWindow, now: float) -> None:
        """Read the samples that `window` lacks, piece by piece, and the baselines of its new targets."""
        piece = MAX_PIECE_SECONDS
        while window.read_to is None or window.read_to < now:
            start = window.next_start()
            end = min(now, (start if window.read_to is None else window.read_to) + piece)
            try:
                series = {selector: await server.query_samples(selector, start, end) for selector in window.selectors}
            except MeasurementError as error:
                too_large = error.failure.reason in (Reason.METRICS_ANSWER_TOO_LARGE, Reason.QUERY_FAILED)
                if not too_large or piece <= MIN_PIECE_SECONDS:
                    raise
                piece /= 2
                continue
            window.add_series(series, end)
        unknown = dict(sorted(window.list_unknown_targets().items(), key=lambda item: item[1]))
        while unknown:
            first = next(iter(unknown.values()))
            together = {target: at for target, at in unknown.items() if at <= first + MAX_PIECE_SECONDS}
            window.baselines |= await self._find_baselines(server, together)
            unknown = {target: at for target, at in unknown.items() if target not in together}

    async def _find_baselines(
        self, server: PrometheusClient, first: Mapping[ScrapeTarget, float]
    ) -> dict[ScrapeTarget, float | None]:
        """Find the time from which on a new series of each target counts from 0.

        That is an earlier successful scrape, or the start of the process when it lies in the step. `first`: time of
        the first sample of each target.
        """
        instances = "|".join(queries.escape_pattern(instance) for _, instance in sorted(first))
        matchers = [LabelMatcher("instance", instances, "=~")]
        start, end = min(first.values()) - LOOKBACK_SECONDS, max(first.values())
        baselines: dict[ScrapeTarget, list[float]] = {target: [] for target in first}
        for name in ("up", PROCESS_START_METRIC):
            for one in await server.query_samples(queries.build_selector(name, matchers), start, end):
                if (target := scrape_target(one.labels)) in baselines:
                    times = [at for at, value in one.samples if value == 1]
                    if name == PROCESS_START_METRIC:
                        times = [value for _, value in one.samples if value >= self._start]
                    baselines[target] += [time for time in times if time < first[target]]
        return {target: min(times, default=None) for target, times in baselines.items()}


def _format_series_count(series: Sequence[Any]) -> str:
    return f"{SERIES_LIMIT} or more" if len(series) == SERIES_LIMIT else str(len(series))


def _parse_point(point: Any) -> tuple[float, float]:
    if isinstance(point, Sequence) and len(point) == 2 and isinstance(point[1], str):
        try:
            return float(point[0]), float(point[1])
        except (TypeError, ValueError, OverflowError):
            pass
    raise MeasurementError(
        Reason.METRICS_ANSWER_INVALID, "the answer has a sample that is no pair of a time and a number in quotes"
    )
