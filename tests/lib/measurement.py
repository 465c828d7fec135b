"""A fake metrics server, and requests for measurements."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from modelwright.api.v1alpha1.policy import Metric
from modelwright.api.v1alpha1.runtime import RuntimeMetrics
from modelwright.core.analysis.evidence import Measurement
from modelwright.core.revision import Revision
from modelwright.kube.queue import Key
from modelwright.measurement.connections import Connection, parse_connections
from modelwright.measurement.json_client import JsonClient
from modelwright.measurement.measurer import Measurer
from modelwright.measurement.request import Gateway, MeasurementRequest, RevisionTarget
from modelwright.measurement.rounds import MeasurementRound, MeasurementState

SINCE = datetime(2026, 11, 21, 12, tzinfo=UTC)


START = SINCE.timestamp()


RUNTIME = RuntimeMetrics(
    requests="v2_requests_total", errors='v2_requests_total{code=~"5.."}', latency="v2_request_seconds_bucket"
)


CANDIDATE = RevisionTarget.for_revision("digits", Revision("digits-v2", "bbbbbbbbbb"), RUNTIME)


SERVING = RevisionTarget.for_revision("digits", Revision("digits-v1", "aaaaaaaaaa"), RUNTIME)


TRAEFIK = Gateway("traefik.io/gateway-controller")


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def metric(**fields: Any) -> Metric:
    """A metric of a policy as it stands on the wire; a limit is added when there is none."""
    limit = {} if fields.keys() & {"margin", "max", "min"} else {"max": "1"}
    return Metric.model_validate({"name": "m", **limit, **fields})


def make_request(*metrics: Metric, **changes: Any) -> MeasurementRequest:
    """A request for the metrics of digits-v2 beside digits-v1, behind Traefik."""
    fields: dict[str, Any] = {
        "key": "uid/1",
        "notify_key": Key("Model", "vision", "digits"),
        "namespace": "vision",
        "model": "digits",
        "candidate": CANDIDATE,
        "serving": SERVING,
        "since": SINCE,
        "interval": timedelta(seconds=30),
        "metrics": metrics,
        "gateway": TRAEFIK,
    }
    return MeasurementRequest(**fields | changes)


class FakeServer:
    """Answers every request by `handler`; keeps (path with query, form, headers) of each."""

    def __init__(self) -> None:
        self.handler: Handler = self.reply({"status": "success", "data": {"resultType": "vector", "result": []}})
        self.requests: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self.url = ""
        self.at_once = self.most_at_once = 0

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[FakeServer]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()

    @staticmethod
    def reply(document: Any, status: int = 200, **headers: str) -> Handler:
        """A handler that gives a JSON document."""

        async def handle(_: web.Request) -> web.StreamResponse:
            return web.Response(
                status=status, text=json.dumps(document), content_type="application/json", headers=headers
            )

        return handle

    @staticmethod
    def text(body: str, status: int = 200) -> Handler:
        """A handler that gives a text."""

        async def handle(_: web.Request) -> web.StreamResponse:
            return web.Response(status=status, text=body)

        return handle

    @staticmethod
    def vector(*values: str) -> Handler:
        """A handler that gives an instant vector."""
        result = [{"metric": {"n": str(index)}, "value": [1.0, value]} for index, value in enumerate(values)]
        return FakeServer.reply({"status": "success", "data": {"resultType": "vector", "result": result}})

    @staticmethod
    async def hang(_: web.Request) -> web.StreamResponse:
        """Never answers."""
        await asyncio.Event().wait()
        raise AssertionError

    @staticmethod
    async def cut_off(request: web.Request) -> web.StreamResponse:
        """Breaks off in the middle of the answer."""
        response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b'{"status": "succ')
        assert request.transport is not None
        request.transport.abort()
        return response

    @staticmethod
    async def endless(request: web.Request) -> web.StreamResponse:
        """Sends a body without end."""
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b" " * 65536)
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        form = {key: str(value) for key, value in (await request.post()).items()}
        self.requests.append((request.raw_path, form, dict(request.headers)))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self.handler(request)
        finally:
            self.at_once -= 1


class Bench:
    """Measures against the fake server."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.web = JsonClient()
        self.options: dict[str, Any] = {"timeout": "5s"}
        self.memory: MeasurementState | None = None
        self.jobs: Any = None

    def connections(self) -> dict[str, Connection]:
        entries = [{"name": "default", "type": "Prometheus", "url": self.server.url, **self.options}]
        plain = {key: value for key, value in self.options.items() if key != "enforcedLabel"}
        entries.append({"name": "json", "type": "HTTP", "url": f"{self.server.url}/api", **plain})
        return parse_connections({"connections": entries}, "test")

    def measurer(self) -> Measurer:
        return Measurer(self.connections(), self.web, jobs=self.jobs, comparer_url=lambda *_: self.server.url)

    def start_round(self, measurement_request: MeasurementRequest, seconds: float = 60) -> MeasurementRound:
        self.memory = self.memory or MeasurementState.for_request(measurement_request)
        return MeasurementRound(
            measurement_request, self.memory, measurement_request.since + timedelta(seconds=seconds)
        )

    async def measure(self, measurement_request: MeasurementRequest, seconds: float = 60) -> Measurement:
        """Measure the first metric of the request, `seconds` after the step began."""
        return await self.measurer().measure_metric(
            self.start_round(measurement_request, seconds), measurement_request.metrics[0]
        )
