"""A Prometheus that tells what a test has scripted: its query API over counters that grow at set rates.

`requests_total{namespace,version,result}` (result good or bad) are counters, `score{namespace,version}` a number.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from aiohttp import web

_SELECTOR = re.compile(r"^(?P<name>\w+)\{(?P<matchers>[^}]*)\}(\[(?P<range>\d+)s\])?$")
_MATCHER = re.compile(r'(\w+)="([^"]*)"')
HISTORY = 600
"""Seconds for which counters have grown when a test begins."""

Series = list[tuple[float, float]]


@dataclass
class Version:
    """How one version of a namespace answers: (since, requests a second, share of bad ones), oldest first."""

    pieces: list[tuple[float, float, float]]

    def total(self, at: float, *, bad: bool) -> int:
        """Requests up to `at` (unix seconds) with that result."""
        count = 0.0
        ends = [*(since for since, _, _ in self.pieces[1:]), at]
        for (since, rate, share), end in zip(self.pieces, ends, strict=True):
            count += max(min(end, at) - since, 0) * rate * (share if bad else 1 - share)
        return int(count)


@dataclass
class FakePrometheus:
    """`async with FakePrometheus() as fake:` listens on loopback at `fake.url`.

    `faults`: namespace -> "unavailable" (503), "syntax" (400), "slow" (no answer for a minute). `scores`: what
    `score` gives for (namespace, version), one value for each series.
    """

    versions: dict[tuple[str, str], Version] = field(default_factory=dict)
    scores: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    scrape: int = 1
    """Seconds between two samples."""
    url: str = ""
    asked: list[float] = field(default_factory=list)
    """When each query came, in unix seconds."""

    def answers(self, namespace: str, version: str, *, rate: float = 2000, bad: float = 0.0) -> None:
        """From this second on this version answers so many requests a second, this share of them badly.

        Counters are sampled at whole seconds: a step that begins in this one has none of what was before."""
        key, now = (namespace, version), math.floor(time.time())
        if key in self.versions:
            self.versions[key].pieces.append((now, rate, bad))
        else:
            self.versions[key] = Version([(now - HISTORY, rate, 0.0), (now, rate, bad)])

    def connections(self, folder: Path) -> Path:
        """The operator's file of connections, with this server as `default`; written into `folder`."""
        file = folder / "connections.yaml"
        file.write_text(json.dumps({"connections": [{"name": "default", "type": "Prometheus", "url": self.url}]}))
        return file

    async def __aenter__(self) -> FakePrometheus:
        app = web.Application()
        app.router.add_post("/api/v1/query", self._query)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _query(self, request: web.Request) -> web.Response:
        form = await request.post()
        self.asked.append(time.time())
        found = _SELECTOR.match(str(form["query"]).replace(" ", ""))
        if found is None:
            return _refused("bad_data", f"the fake does not know the query {form['query']}", 400)
        labels = dict(_MATCHER.findall(found["matchers"]))
        fault = self.faults.get(labels.get("namespace", ""))
        if fault == "slow":
            await asyncio.sleep(60)
        if fault == "unavailable":
            return web.Response(status=503, text="no healthy upstream")
        if fault == "syntax":
            return _refused("bad_data", "parse error: unexpected end of input", 400)
        at = float(str(form["time"]))
        if found["range"] is not None:
            return _given("matrix", self._matrix(found["name"], labels, at - int(found["range"]), at))
        scores = self.scores.get((labels.get("namespace", ""), labels.get("version", "")), [])
        return _given(
            "vector", [{"metric": {"replica": str(n)}, "value": [at, _number(value)]} for n, value in enumerate(scores)]
        )

    def _matrix(self, name: str, labels: dict[str, str], start: float, end: float) -> list[dict[str, Any]]:
        version = self.versions.get((labels.get("namespace", ""), labels.get("version", "")))
        if name != "requests_total" or version is None:
            return []
        first = max(int(start) + 1, int(version.pieces[0][0]) + 1)
        first += -first % self.scrape
        return [
            {
                "metric": {"__name__": name, **labels, "result": result, "instance": "fake:1", "job": "fake"},
                "values": [
                    [at, str(version.total(at, bad=result == "bad"))] for at in range(first, int(end) + 1, self.scrape)
                ],
            }
            for result in ("good", "bad")
            if labels.get("result", result) == result
        ]


def _number(value: float) -> str:
    return "NaN" if math.isnan(value) else f"{value:g}"


def _given(kind: str, result: list[dict[str, Any]]) -> web.Response:
    return web.json_response({"status": "success", "data": {"resultType": kind, "result": result}})


def _refused(kind: str, text: str, status: int) -> web.Response:
    return web.json_response({"status": "error", "errorType": kind, "error": text}, status=status)
