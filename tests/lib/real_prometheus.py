"""A real Prometheus that scrapes model servers behind a real Traefik."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from devcluster import ports
from modelwright.api.v1alpha1.policy import Metric
from modelwright.core.analysis.evidence import Measurement, MetricValue, ValuePairs
from modelwright.core.revision import Revision
from modelwright.kube.queue import Key
from modelwright.measurement.connections import parse_connections
from modelwright.measurement.request import MeasurementRequest, RevisionTarget
from modelwright.measurement.scheduler import MeasurementScheduler
from tests.lib.prometheus import SCRAPE_SECONDS, process

ROOT = Path(__file__).parents[2]


CANDIDATE, SERVING = (
    RevisionTarget.for_revision("digits", Revision(version, key * 10))
    for version, key in (("digits-v2", "b"), ("digits-v1", "a"))
)


def metric(name: str = "m", **fields: Any) -> Metric:
    return Metric.model_validate({"name": name, "max": "1", **fields})


class PrometheusHarness:
    """Measures once by a new scheduler, from a real Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.since = datetime.now(UTC)

    def _build_scheduler(self) -> tuple[MeasurementScheduler, asyncio.Event]:
        """Build a scheduler of this server, and an event of its notifications."""
        woken = asyncio.Event()
        entries = [{"name": "default", "type": "Prometheus", "url": self.url}]
        return MeasurementScheduler(parse_connections({"connections": entries}, "test"), lambda _: woken.set()), woken

    def _make_request(self, *metrics: Metric) -> MeasurementRequest:
        return MeasurementRequest(
            key="k",
            notify_key=Key("Model", "vision", "digits"),
            namespace="vision",
            model="digits",
            candidate=CANDIDATE,
            serving=SERVING,
            since=self.since,
            interval=timedelta(seconds=30),
            metrics=metrics,
        )

    async def measure(self, *metrics: Metric, **changes: Any) -> tuple[Measurement, ...]:
        """Measure one round as an operator without former state."""
        scheduler, woken = self._build_scheduler()
        measurement_request = replace(self._make_request(*metrics), **changes)
        try:
            scheduler.get_measurements(measurement_request)
            await woken.wait()
            actual = scheduler.get_measurements(measurement_request)
            assert actual is not None
            return actual
        finally:
            await scheduler.close()

    async def series(self, wanted: Metric, end: datetime) -> ValuePairs:
        """The values of a query from `since` to `end`, at the pace of the scrapes."""
        scheduler, woken = self._build_scheduler()
        measurement_request = replace(self._make_request(), interval=timedelta(seconds=SCRAPE_SECONDS))
        try:
            scheduler.get_measurements(measurement_request)
            assert scheduler.get_range_points(measurement_request, wanted, end) is None
            await woken.wait()
            actual = scheduler.get_range_points(measurement_request, wanted, end)
            assert actual is not None
            return actual
        finally:
            await scheduler.close()

    async def result(self, wanted: Metric, **changes: Any) -> Any:
        (actual,) = await self.measure(wanted, **changes)
        return actual.result


@contextlib.contextmanager
def v2_server(folder: Path, version: str, behaviour: str) -> Any:
    """The tests' model server as a process; gives (its URL, where its metrics are)."""
    model = folder / version
    model.mkdir()
    (model / "model.json").write_text(f'{{"behaviour": {behaviour}}}')
    http, metrics = ports.free_ports(2)
    environment = {"MODEL_NAME": "digits", "MODEL_VERSION": version, "MODEL_DIR": str(model)}
    environment |= {"MODEL_HTTP_PORT": str(http), "MODEL_METRICS_PORT": str(metrics)}
    command = ["env", *(f"{key}={value}" for key, value in environment.items())]
    with process([*command, sys.executable, str(ROOT / "tests/servers/v2/server.py")], folder / f"{version}.log"):
        yield f"http://127.0.0.1:{http}", f"127.0.0.1:{metrics}"


BODY = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]}]}


async def infer(session: aiohttp.ClientSession, url: str, times: int) -> None:
    for _ in range(times):
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with session.post(f"{url}/v2/models/digits/infer", json=BODY) as response:
                await response.read()


async def stored(harness: PrometheusHarness, query: str, least: float) -> None:
    """Wait until Prometheus has it."""
    wanted = metric(prometheus={"query": query})
    while True:
        actual = await harness.result(wanted, serving=None)
        if isinstance(actual, MetricValue) and (actual.candidate or 0) >= least:
            return
        await asyncio.sleep(0.1)
