"""Prometheus' query API: one number now, its course over a time, and raw samples of counters since a step began."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from typing import Any

from modelwright.analysis import promql
from modelwright.analysis.connections import Connection
from modelwright.analysis.promql import Match
from modelwright.analysis.web import Answer, Fault, Web
from modelwright.analysis.windows import LOOKBACK, Target, Window
from modelwright.api.reasons import Reason
from modelwright.core.analysis.evidence import Series

MAX_PIECE = 3600.0
"""Seconds of samples that are asked for at once; halved while the answer is too large."""
MIN_PIECE = 60.0


class Prometheus:
    """One server, by its connection. All methods raise Fault when nothing is to be had."""

    def __init__(self, web: Web, connection: Connection) -> None:
        self._web = web
        self.connection = connection

    async def number(self, query: str, at: float) -> tuple[float | None, str]:
        """The one number that `query` gives at `at` (unix seconds); or None, and why there is none."""
        kind, result = await self._query(query, at)
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
            return None, f"the query gives {len(values)} series, and must give one: sum them"
        value = values[0][1]
        return (value, "") if math.isfinite(value) else (None, f"the query gives {value}")

    async def course(self, query: str, start: float, end: float, step: float) -> tuple[tuple[float, ...], str]:
        """The numbers that `query` gave from `start` to `end` (unix seconds), one each `step` seconds, oldest first; or
        none, and why. Moments at which it gave nothing are left out."""
        form = {"query": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        kind, result = await self._ask("/api/v1/query_range", form)
        if kind != "matrix":
            message = f"connection {self.connection.name}: a range was asked for, and a {kind} was given"
            raise Fault(Reason.METRICS_ANSWER_INVALID, message)
        if any("histograms" in one for one in result):
            raise Fault(Reason.QUERY_REFUSED, "the query gives a native histogram, not a number", permanent=True)
        if len(result) > 1:
            return (), f"the query gives {len(result)} series, and must give one: sum them"
        found = tuple(_point(point)[1] for one in result for point in self._values(one))
        return found, "" if found else "the query gives no data"

    async def samples(self, selector: str, start: float, end: float) -> tuple[Series, ...]:
        """Raw samples of a plain selector between two times (unix seconds)."""
        kind, result = await self._query(f"{selector}[{max(1, math.ceil(end - start))}s]", end)
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

    async def _query(self, query: str, at: float) -> tuple[str, Any]:
        return await self._ask("/api/v1/query", {"query": query, "time": f"{at:.3f}"})

    async def _ask(self, path: str, form: dict[str, str]) -> tuple[str, Any]:
        form = {**form, "timeout": f"{self.connection.timeout_seconds:g}s"}
        answer = await self._web.ask(self.connection, path, form=form)
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
        self._windows: dict[tuple[str, str], Window] = {}
        self._turns: dict[tuple[str, str], asyncio.Lock] = {}

    async def read(self, server: Prometheus, selector: str, now: float, *, fresh: bool = True) -> tuple[Series, ...]:
        """The series of a plain selector, from the step's begin up to `now` (unix seconds).

        Raises Fault; when they must be `fresh`, also when they aren't scraped any more. (Errors needn't be: the pods
        that had any may be gone.) No series at all are an empty answer.
        """
        key = (server.connection.name, selector)
        async with self._turns.setdefault(key, asyncio.Lock()):
            window = self._windows.setdefault(key, Window(self._start))
            if window.read_to is None or window.read_to < now:
                await self._read_on(server, selector, window, now)
            if fresh and (last := window.stale(now)) is not None:
                message = f"connection {server.connection.name}: no sample of {selector} in the last"
                raise Fault(Reason.METRICS_STALE, f"{message} {now - last:.0f} s: is it still scraped?")
            return window.series()

    async def _read_on(self, server: Prometheus, selector: str, window: Window, now: float) -> None:
        piece = MAX_PIECE
        while window.read_to is None or window.read_to < now:
            begin = window.begin()
            end = min(now, (begin if window.read_to is None else window.read_to) + piece)
            try:
                found = await server.samples(selector, begin, end)
            except Fault as fault:
                if (
                    fault.failure.reason not in (Reason.METRICS_ANSWER_TOO_LARGE, Reason.QUERY_FAILED)
                    or piece <= MIN_PIECE
                ):
                    raise
                piece /= 2
                continue
            window.add(found, end)
        if unknown := window.unknown_targets():
            scraped = await self._scraped_before(server, unknown)
            window.scraped_before |= scraped
            window.not_scraped_before |= unknown - scraped

    async def _scraped_before(self, server: Prometheus, targets: Iterable[Target]) -> frozenset[Target]:
        wanted = frozenset(targets)
        instances = "|".join(promql.literal(instance) for _, instance in sorted(wanted))
        selector = promql.select("up", [Match("instance", instances, "=~")])
        found = await server.samples(selector, self._start - LOOKBACK, self._start)
        up = {(one.labels.get("job", ""), one.labels.get("instance", "")) for one in found if _was_up(one)}
        return wanted & up


def _was_up(series: Series) -> bool:
    return any(value == 1 for _, value in series.samples)


def _point(found: Any) -> tuple[float, float]:
    if isinstance(found, Sequence) and len(found) == 2 and isinstance(found[1], str):
        try:
            return float(found[0]), float(found[1])
        except (TypeError, ValueError, OverflowError):
            pass
    raise Fault(
        Reason.METRICS_ANSWER_INVALID, "the answer has a sample that is no pair of a time and a number in quotes"
    )
