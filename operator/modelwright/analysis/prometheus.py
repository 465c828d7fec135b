"""Prometheus' query API: one number now, its course over a time, and raw samples of counters since a step began."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

from modelwright.analysis import promql
from modelwright.analysis.connections import Connection
from modelwright.analysis.promql import Match
from modelwright.analysis.web import ONE, SAMPLES, Answer, Fault, Web
from modelwright.analysis.windows import LOOKBACK, Window
from modelwright.api.reasons import Reason
from modelwright.core.analysis.evidence import Series
from modelwright.core.analysis.scrapes import Counts, Target, target
from modelwright.documents import Bounds

MAX_PIECE = 3600.0
"""Seconds of samples that are asked for at once; halved while the answer is too large."""
MIN_PIECE = 60.0
ENOUGH_SERIES = 2
"""Where one is wanted: more than one is refused, however many they are. A server without `limit` gives them all."""
PROCESS_START = "process_start_time_seconds"
"""What client libraries of Prometheus call the start of their process, in unix seconds."""


class Prometheus:
    """One server, by its connection. All methods raise Fault when nothing is to be had."""

    def __init__(self, web: Web, connection: Connection) -> None:
        self._web = web
        self.connection = connection

    async def number(self, query: str, at: float) -> tuple[float | None, str]:
        """The one number that `query` gives at `at` (unix seconds); or None, and why there is none."""
        kind, result = await self._query(query, at, ONE, {"limit": str(ENOUGH_SERIES)})
        if kind == "scalar":
            values = [_point(result)]
        elif kind == "vector":
            if any("histogram" in one for one in result):
                raise Fault(Reason.QUERY_REFUSED, "the query gives a native histogram, not a number", permanent=True)
            values = [_point(one.get("value")) for one in result]
        else:
            message = f"the query gives a {kind}, and must give one number"
            raise Fault(Reason.QUERY_REFUSED, message, permanent=True)
        if not values:
            return None, "the query gives no data"
        if len(values) > 1:
            return None, f"the query gives {_several(values)} series, and must give one: sum them"
        value = values[0][1]
        return (value, "") if math.isfinite(value) else (None, f"the query gives {value}")

    async def course(self, query: str, start: float, end: float, step: float) -> tuple[dict[float, float], str]:
        """The numbers that `query` gave from `start` to `end` by moment (unix seconds), one each `step` seconds, oldest
        first; or none, and why. Moments at which it gave nothing are left out."""
        form = {"query": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        form["limit"] = str(ENOUGH_SERIES)
        kind, result = await self._ask("/api/v1/query_range", form, SAMPLES)
        if kind != "matrix":
            message = f"connection {self.connection.name}: a range was asked for, and a {kind} was given"
            raise Fault(Reason.METRICS_ANSWER_INVALID, message)
        if any("histograms" in one for one in result):
            raise Fault(Reason.QUERY_REFUSED, "the query gives a native histogram, not a number", permanent=True)
        if len(result) > 1:
            return {}, f"the query gives {_several(result)} series, and must give one: sum them"
        found = dict(_point(point) for one in result for point in self._values(one))
        return found, "" if found else "the query gives no data"

    async def samples(self, selector: str, start: float, end: float) -> tuple[Series, ...]:
        """Raw samples of a plain selector between two times (unix seconds)."""
        kind, result = await self._query(f"{selector}[{max(1, math.ceil(end - start))}s]", end, SAMPLES, {})
        if kind != "matrix":
            raise Fault(
                Reason.METRICS_ANSWER_INVALID,
                f"connection {self.connection.name}: samples were asked for, and a {kind} was given",
            )
        found = []
        for one in result:
            labels = one.get("metric")
            if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
                raise self._shape()
            found.append(Series(labels, tuple(_point(point) for point in self._values(one))))
        return tuple(found)

    async def _query(self, query: str, at: float, bounds: Bounds, more: Mapping[str, str]) -> tuple[str, Any]:
        return await self._ask("/api/v1/query", {"query": query, "time": f"{at:.3f}", **more}, bounds)

    async def _ask(self, path: str, form: dict[str, str], bounds: Bounds) -> tuple[str, Any]:
        form = {**form, "timeout": f"{self.connection.timeout_seconds:g}s"}
        answer = await self._web.ask(self.connection, path, form=form, bounds=bounds)
        document = answer.document
        if not isinstance(document, dict) or document.get("status") not in ("success", "error"):
            if answer.status >= 400:
                raise Fault(Reason.METRICS_SERVER_ERROR, f"connection {self.connection.name}: answered {answer.status}")
            raise self._shape()
        if document["status"] == "error" or answer.status >= 400:
            raise self._refusal(answer)
        data = document.get("data")
        if not isinstance(data, dict) or not isinstance(data.get("result"), list):
            raise self._shape()
        kind, result = str(data.get("resultType")), data["result"]
        if kind not in ("scalar", "vector", "matrix", "string"):
            raise self._shape()
        if kind in ("vector", "matrix") and not all(isinstance(one, dict) for one in result):
            raise self._shape()
        return kind, result

    def _values(self, series: dict[str, Any]) -> list[Any]:
        values = series.get("values", [])
        if not isinstance(values, list):
            raise self._shape()
        return values

    def _refusal(self, answer: Answer) -> Fault:
        # Credentials were taken out of answers that are errors by their status only.
        error = answer.document.get("error") if answer.status >= 400 else None
        told = f"connection {self.connection.name}: {error or f'answered {answer.status}'}"
        if answer.status == 400 and answer.document.get("errorType") == "bad_data":
            return Fault(Reason.QUERY_REFUSED, told, permanent=True)
        if answer.status == 422:
            return Fault(Reason.QUERY_FAILED, told)
        return Fault(Reason.METRICS_SERVER_ERROR, f"{told} ({answer.status})")

    def _shape(self) -> Fault:
        return Fault(
            Reason.METRICS_ANSWER_INVALID,
            f"connection {self.connection.name}: the answer is none of Prometheus' query API",
        )


class Counters:
    """Counters since a step began, read from one server or several; kept from look to look."""

    def __init__(self, start: float) -> None:
        self._start = start
        self._windows: dict[tuple[str, tuple[str, ...]], Window] = {}
        self._turns: dict[tuple[str, tuple[str, ...]], asyncio.Lock] = {}

    async def read(self, server: Prometheus, selectors: Sequence[str], now: float) -> Counts:
        """What the counters of some plain selectors counted from the step's begin up to `now` (unix seconds), for each
        selector. They are read together, because a restart shows in all counters of a process.

        Raises Fault, also when the last selector's counters aren't scraped any more. (Those before may be errors of
        pods that are gone.) No series at all are no fault.
        """
        wanted = tuple(dict.fromkeys(selectors))
        key = (server.connection.name, wanted)
        async with self._turns.setdefault(key, asyncio.Lock()):
            window = self._windows.setdefault(key, Window(self._start, wanted))
            if window.read_to is None or window.read_to < now:
                await self._read_on(server, window, now)
            if (last := window.stale(now, selectors[-1])) is not None:
                message = f"connection {server.connection.name}: no sample of {selectors[-1]} in the last"
                raise Fault(Reason.METRICS_STALE, f"{message} {now - last:.0f} s: is it still scraped?")
            found = window.counts()
        groups = dict(zip(wanted, found.groups, strict=True))
        return Counts(tuple(groups[selector] for selector in selectors), found.doubled)

    async def _read_on(self, server: Prometheus, window: Window, now: float) -> None:
        piece = MAX_PIECE
        while window.read_to is None or window.read_to < now:
            begin = window.begin()
            end = min(now, (begin if window.read_to is None else window.read_to) + piece)
            try:
                found = {selector: await server.samples(selector, begin, end) for selector in window.selectors}
            except Fault as fault:
                if (
                    fault.failure.reason not in (Reason.METRICS_ANSWER_TOO_LARGE, Reason.QUERY_FAILED)
                    or piece <= MIN_PIECE
                ):
                    raise
                piece /= 2
                continue
            window.add(found, end)
        left = dict(sorted(window.unknown_targets().items(), key=lambda item: item[1]))
        while left:
            first = next(iter(left.values()))
            together = {found: at for found, at in left.items() if at <= first + MAX_PIECE}
            window.watched |= await self._watched(server, together)
            left = {found: at for found, at in left.items() if found not in together}

    async def _watched(self, server: Prometheus, first: Mapping[Target, float]) -> dict[Target, float | None]:
        """For targets with the time of their first sample, the moment from which on a new series counts from 0 there:
        an earlier scrape that went well, or the start of the process when it lies in the step."""
        instances = "|".join(promql.literal(instance) for _, instance in sorted(first))
        matches = [Match("instance", instances, "=~")]
        begin, end = min(first.values()) - LOOKBACK, max(first.values())
        known: dict[Target, list[float]] = {found: [] for found in first}
        for name in ("up", PROCESS_START):
            for one in await server.samples(promql.select(name, matches), begin, end):
                if (scraped := target(one.labels)) in known:
                    moments = [at for at, value in one.samples if value == 1]
                    if name == PROCESS_START:
                        moments = [value for _, value in one.samples if value >= self._start]
                    known[scraped] += [moment for moment in moments if moment < first[scraped]]
        return {scraped: min(moments, default=None) for scraped, moments in known.items()}


def _several(found: Sequence[Any]) -> str:
    return f"{ENOUGH_SERIES} or more" if len(found) == ENOUGH_SERIES else str(len(found))


def _point(found: Any) -> tuple[float, float]:
    if isinstance(found, Sequence) and len(found) == 2 and isinstance(found[1], str):
        try:
            return float(found[0]), float(found[1])
        except (TypeError, ValueError, OverflowError):
            pass
    raise Fault(
        Reason.METRICS_ANSWER_INVALID, "the answer has a sample that is no pair of a time and a number in quotes"
    )
