"""Counters of model servers and of Traefik as Prometheus scrapes them."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from tests.lib.measurement import START, FakeServer


def data(kind: str, result: Any) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": kind, "result": result}}


def error(kind: str, text: str, status: int) -> Any:
    return FakeServer.reply({"status": "error", "errorType": kind, "error": text}, status=status)


class Counting:
    """Answers range selectors, and counts of selectors, from series of samples, as Prometheus would; `(selector, start,
    end)` of each range is kept, and each query of counts."""

    def __init__(self, *series: tuple[dict[str, str], list[tuple[float, float]]]) -> None:
        self.series = series
        self.queries: list[tuple[str, float, float]] = []
        self.counts: list[str] = []
        self.largest = 10**9

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        query, end = str(form["query"]), float(str(form["time"]))
        if "count(" in query:
            self.counts.append(query)
            return await FakeServer.vector(*(["1"] if self._has(query, end) else []))(request)
        actual = re.fullmatch(r"(\w*\{.*\})\[(\d+)s\]", query)
        assert actual is not None, query
        start = end - int(actual[2])
        self.queries.append((actual[1], start, end))
        if end - start > self.largest:
            return await error("execution", "query processing would load too many samples", 422)(request)
        result = []
        for labels, samples in self.series:
            values = [[START + at, str(value)] for at, value in samples if start <= START + at <= end]
            if values and self._matches(labels, actual[1]):
                result.append({"metric": labels, "values": values})
        return await FakeServer.reply(data("matrix", result))(request)

    def _has(self, query: str, now: float) -> bool:
        past = {"": 0, "1h": 3600, "1d": 86400}
        selectors = r'count\((?:last_over_time\()?(\w*(?:\{(?:[^"{}]|"[^"]*")*\})?)(?:\[\w+\])?(?: offset (\w+))?\)'
        for selector, offset in re.findall(selectors, query):
            end = now - past[offset]
            near = [
                labels for labels, samples in self.series if any(end - 300 < START + at <= end for at, _ in samples)
            ]
            if any(self._matches(labels, selector) for labels in near):
                return True
        return False

    @staticmethod
    def _matches(labels: dict[str, str], selector: str) -> bool:
        name, _, matchers = selector.partition("{")
        wanted = re.findall(r'(\w+)(=~|!~|!=|=)"((?:[^"\\]|\\.)*)"', matchers)
        return (not name or labels["__name__"] == name) and all(
            Counting._matches_value(value.replace("\\\\", "\\"), labels.get(label, "")) is (sign[0] != "!")
            for label, sign, value in wanted
        )

    @staticmethod
    def _matches_value(pattern: str, value: str) -> bool:
        if "[:" in pattern or r"\p" in pattern:
            return False  # of RE2; the tests have no value that these match
        return re.fullmatch(pattern, value) is not None


def traefik(revision: str, code: str, *samples: tuple[float, float], instance: str = "t") -> Any:
    labels = {"__name__": "traefik_service_requests_total", "job": "traefik", "instance": instance, "code": code}
    service = f"vision-digits-{revision * 10}-http-80@kubernetesgateway"
    return labels | {"service": service, "namespace": "gateways"}, list(samples)


def runtime(revision: str, code: str, *samples: tuple[float, float], **labels: str) -> Any:
    """Of the runtime's own counter, in the one pod that the revision has."""
    actual = {"__name__": "v2_requests_total", "job": "pods", "instance": revision, "code": code, "namespace": "vision"}
    return actual | {"pod": f"digits-{revision * 10}-x-y"} | labels, list(samples)
