"""Every panel of the dashboards, asked by a real Prometheus over series that the real code has made, finds data.

The operator's series come from its reconcilers, queue, store, sweep, client, Lease and desk; those of requests from a
real Traefik, and from MLServer 1.7.1 as recorded (`recorded/`: 6 requests, then 22 more, of which 1 and 2 failed).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import generate_latest

from modelwright.app.health import LoopMonitor
from modelwright.kube import api_errors, kinds
from modelwright.kube.client import KubeClient
from modelwright.obs.clock import FakeClock
from modelwright.obs.metrics import REGISTRY
from tests.lib.dashboards import BOARDS, Query, filled, queries, variables
from tests.lib.drift_monitor import alike, monitoring
from tests.lib.model_metrics import held_at_ten
from tests.lib.prometheus import Exporter, Job, answers, prometheus, traefik
from tests.lib.real_prometheus import PrometheusHarness, infer, stored, v2_server
from tests.unit.kube import test_events, test_lease, test_resync, test_workers
from tests.unit.kube.fakes import model
from tests.unit.reconcile import test_retraining, test_rollouts
from tests.wire.apiserver import FakeApiServer, answer

pytestmark = pytest.mark.metrics

RECORDED = Path(__file__).parent / "recorded"
VALUES = {"namespace": "vision", "model": "digits", "__rate_interval": "5m"}
ALL = VALUES | {"namespace": ".*"}
Series = list[tuple[dict[str, str], float]]


def rollouts() -> dict[str, str]:
    """One is promoted, one rolled back, one is held and goes on; gives its revisions by version."""
    world = test_rollouts.RolloutHarness(test_rollouts.JUDGED)
    world.scheduler.results["errors"] = test_rollouts.good()
    world.want("v2")
    world.go_to("Succeeded", "Promoted")
    world.scheduler.results["errors"] = test_rollouts.bad()
    world.want("v3")
    world.go_to("RolledBack")
    return {entry["version"]: entry["revision"] for entry in held_at_ten().model["status"]["traffic"]}


def training() -> None:
    """One run on a schedule succeeds."""
    world = test_retraining.RetrainingHarness(test_retraining.HOURLY)
    world.to_the_hour()
    world.go(lambda: world.states == ["Succeeded"])


async def passes() -> None:
    """One through the queue that ends well, and one that ends in an exception."""
    world = test_workers.WorkerHarness()
    world.plan = [test_workers.ReconcileResult(), RuntimeError("a bug")]
    world.runner.start()
    for key in (test_workers.A, test_workers.B):
        world.queue.add(key)
    await world.settle()
    await world.runner.stop(1)


async def sweeps() -> None:
    """A watch has lost a change, and a deletion."""
    world = test_resync.ResyncHarness()
    world.client.save(model(uid="u1"))
    world.store.apply(kinds.MODEL, "ADDED", model(uid="u1", resourceVersion="5"))
    world.store.put(model(name="gone", uid="gone", resourceVersion="5"))
    running = await world.let_run(world.resync.run(), 1500, step=5)
    running.cancel()


async def events() -> None:
    world = test_events.EventHarness()
    running = asyncio.create_task(world.recorder.run())
    world.recorder.record(test_events.SUBJECT, "Normal", "Serving", "digits-v1 serves")
    await world.recorder.drain(1)
    running.cancel()


async def requests() -> None:
    """Reads and writes of the real client, one of them refused."""
    server = FakeApiServer()
    await server.start()
    client = KubeClient(server.configuration(), request_seconds=5, qps=1000, burst=1000)
    try:
        server.save(model())
        await client.list(kinds.MODEL)
        server.fault("PATCH", "/models", answer(403, '{"kind":"Status","reason":"Forbidden","message":"may not"}'))
        with pytest.raises(api_errors.Denied):
            await client.apply(model())
    finally:
        await client.close()
        await server.stop()


async def loop() -> None:
    """The event loop is watched for a beat."""
    clock = FakeClock()
    running = asyncio.create_task(LoopMonitor(clock).run())
    await asyncio.sleep(0)
    clock.advance(1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    running.cancel()


async def work() -> dict[str, str]:
    """All that the operator counts, once; gives the live rollout's revisions by version."""
    training()
    revisions = rollouts()
    await passes()
    await sweeps()
    await events()
    await requests()
    await loop()
    return revisions


@dataclass
class Place:
    """Where the recorded and the real series are asked for."""

    url: str
    behind_a_service_monitor: str
    session: aiohttp.ClientSession

    async def get(self, path: str, *, url: str = "", **parameters: str) -> Any:
        async with self.session.get(f"{url or self.url}/api/v1/{path}", params=parameters) as response:
            body = await response.json()
            assert response.status == 200, body
            return body["data"]

    async def ask(self, query: Query, *, url: str = "") -> Series:
        values = ALL if query.board == "operator" else VALUES
        found = await self.get("query", url=url, query=filled(query.text, values))
        return [(series["metric"], float(series["value"][1])) for series in found["result"]]


@contextlib.asynccontextmanager
async def leading() -> AsyncIterator[None]:
    """While a candidate holds the Lease."""
    world = test_lease.LeaseHarness()
    world.candidate("a")
    await world.pass_time(0.25)
    try:
        yield
    finally:
        await world.close()


class Targets:
    """What is scraped: the operator, two pods of MLServer, an observer, and a Traefik before two model servers."""

    def __init__(self, revisions: dict[str, str]) -> None:
        self.revisions = revisions
        self.names = {version: f"vision-digits-{revision}-http-80" for version, revision in revisions.items()}
        self.operator, self.pods = Exporter(), {version: Exporter() for version in revisions}

    async def start(self, stack: contextlib.AsyncExitStack, folder: Path) -> list[Job]:
        """Start all of them; gives how they are scraped, but for Traefik (`counted`)."""
        self.observer = await stack.enter_async_context(monitoring())
        servers = {
            "v1": stack.enter_context(v2_server(folder, "v1", "{}"))[0],
            "v2": stack.enter_context(v2_server(folder, "v2", '{"errorShare": 0.5}'))[0],
        }
        behind = {self.names[version]: url for version, url in servers.items()}
        self.front, self.counted = stack.enter_context(traefik(folder, behind))
        for url in (f"http://{self.counted}/ping", *(f"{url}/v2/health/live" for url in servers.values())):
            await answers(url)
        home = {"namespace": "modelwright-system", "pod": "modelwright-x"}
        jobs = [
            Job("operator", await stack.enter_async_context(self.operator.serving()), home, honor=True),
            Job("observer", self.observer.url.removeprefix("http://")),
        ]
        for version, pod in self.pods.items():
            labels = {"namespace": "vision", "pod": f"digits-{self.revisions[version]}-5d4f-x7x2p"}
            jobs.append(Job(f"mlserver-{version}", await stack.enter_async_context(pod.serving()), labels))
        return jobs

    async def ask(self, session: aiohttp.ClientSession, times: int, recorded: str) -> None:
        """Requests to both revisions, and everything that is served anew is told."""
        for name in self.names.values():
            await infer(session, f"{self.front}/{name}", times)
        await self.observer.copy(alike())
        await self.observer.metrics()
        for pod in self.pods.values():
            pod.text = (RECORDED / recorded).read_text()
        self.operator.text = generate_latest(REGISTRY).decode()


@contextlib.asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[Place]:
    """Two Prometheuses over the same targets, where everything has happened twice, with scrapes between."""
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(leading())
        targets = Targets(await work())
        jobs = await targets.start(stack, folder)
        urls = []
        for label, more in (("service", {}), ("exported_service", {"service": "traefik"})):
            job = Job("traefik", targets.counted, more, renamed=(label, "(.*)@file", "$1@kubernetesgateway"))
            (folder / label).mkdir()
            urls.append(stack.enter_context(prometheus(folder / label, [*jobs, job])))
            await answers(f"{urls[-1]}/-/ready")
        harnesses = [PrometheusHarness(url) for url in urls]

        async def seen(query: str, least: float) -> None:
            for harness in harnesses:
                await stored(harness, query, least)

        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)))
        await seen("count(up == 1)", len(jobs) + 1)
        for number, (requests_in_all, answers_in_all) in enumerate(((40, 12), (120, 56)), start=1):
            if number == 2:
                await work()
            await targets.ask(session, 20 * number, f"mlserver-{number}.txt")
            looks = REGISTRY.get_sample_value("modelwright_measurement_duration_seconds_count") or 0
            await seen("sum(traefik_service_requests_total)", requests_in_all)
            await seen('sum(rest_server_requests_total{path=~".*/infer"})', answers_in_all)
            await seen('sum(modelwright_observed_requests_total{result="observed"})', number)
            await seen("sum(modelwright_measurement_duration_seconds_count)", looks)
        yield Place(urls[0], urls[1], session)


async def test_every_panel_finds_data(tmp_path: Path) -> None:
    async with watched(tmp_path) as place:
        found = {query: await place.ask(query) for query in queries()}
        assert [str(query) for query, series in found.items() if not series] == []
        assert [str(query) for query, series in found.items() if all(math.isnan(value) for _, value in series)] == []
        for query, series in found.items():
            if query.panel == "Weights":
                assert {labels["version"]: value for labels, value in series} == {"v1": 90, "v2": 10}
            # Requests, errors and latency are told by version, whoever counts them, and however Traefik is scraped.
            if query.legend.endswith("{{version}} {{revision}}"):
                assert {labels["version"] for labels, _ in series} == {"v1", "v2"}, query
            if "traefik" in query.text:
                other = await place.ask(query, url=place.behind_a_service_monitor)
                assert {labels["version"] for labels, _ in other} == {"v1", "v2"}, query
            if "traefik" in query.text and query.panel == "Errors":
                shares = {labels["version"]: value for labels, value in series}
                assert shares["v1"] == 0 < shares["v2"] < 1
        for board in BOARDS:
            for name, variable in variables(board).items():
                if variable["type"] != "query":
                    continue
                asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
                assert asked is not None
                values = await place.get(f"label/{asked[2]}/values", **{"match[]": filled(asked[1], VALUES)})
                assert values == [VALUES[name]]
