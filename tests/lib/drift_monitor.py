"""A running drift monitor, and requests that resemble the reference."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from modelwright.agents.drift_monitor.monitor import DriftMonitor
from modelwright.agents.drift_monitor.settings import DriftMonitorSettings
from modelwright.api.names import COPY_TOKEN_HEADER
from modelwright.core.drift.reference_sample import parse_reference

INFER = "/v2/models/digits/infer"


SAMPLE = {"inputs": [[number % 10, number % 3] for number in range(600)], "predictions": [n % 2 for n in range(600)]}


TOKEN = "sesame"


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


Series = Mapping[tuple[str, ...], float]


def body(*rows: Sequence[float]) -> dict[str, Any]:
    data = [value for row in rows for value in row]
    return {"inputs": [{"name": "x", "datatype": "FP64", "shape": [len(rows), len(rows[0])], "data": data}]}


def alike(count: int = 60) -> dict[str, Any]:
    return body(*([number % 10, number % 3] for number in range(count)))


async def parity(request: web.Request) -> web.StreamResponse:
    """A model that answers whether the first feature is odd."""
    (tensor,) = (await request.json())["inputs"]
    result = [int(value) % 2 for value in tensor["data"][:: tensor["shape"][1]]]
    output = {"name": "y", "datatype": "INT64", "shape": [len(result)], "data": result}
    return web.json_response({"outputs": [output]})


class DriftMonitorHarness:
    """A drift monitor before a handler, and a session to speak to it."""

    def __init__(self, monitor: DriftMonitor, session: aiohttp.ClientSession) -> None:
        self.monitor, self.session = monitor, session
        self.url = f"http://127.0.0.1:{monitor.port}"

    async def copy(self, data: Any, path: str = INFER, method: str = "POST", **options: Any) -> None:
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        options["headers"] = {COPY_TOKEN_HEADER: TOKEN, **options.get("headers", {})}
        async with self.session.request(method, self.url + path, data=data, **options) as response:
            assert response.status == 202

    async def metrics(self) -> dict[str, Series]:
        """Of each metric the values, by its labels beside those of the Model, when all copies are through."""
        while self.monitor.stats.pending:  # noqa: ASYNC110 - what counts has no event for a test
            await asyncio.sleep(0.005)
        async with self.session.get(f"{self.url}/metrics") as response:
            return parse_metrics(await response.text())

    async def results(self) -> dict[str, float]:
        return {key[0]: value for key, value in (await self.metrics())["modelwright_observed_requests_total"].items()}


def parse_metrics(text: str) -> dict[str, Series]:
    result: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert (labels.pop("namespace"), labels.pop("model"), labels.pop("version")) == ("vision", "digits", "v1")
            result.setdefault(sample.name, {})[tuple(labels[key] for key in sorted(labels))] = sample.value
    return result


@contextlib.asynccontextmanager
async def monitoring(
    handler: Handler = parity, sample: Any = SAMPLE, **settings: Any
) -> AsyncIterator[DriftMonitorHarness]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    values = DriftMonitorSettings(
        "vision",
        "digits",
        "v1",
        url,
        "",
        min_samples=50,
        host="127.0.0.1",
        port=0,
        stop_seconds=0.1,
        long_window="0s",
        rows_per_request=1000,
        copy_token=TOKEN,
    )
    monitor = DriftMonitor(replace(values, **settings), parse_reference(sample))
    await monitor.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield DriftMonitorHarness(monitor, session)
    finally:
        await monitor.stop()
        await runner.cleanup()
