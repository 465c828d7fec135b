"""A real Prometheus that scrapes what the test serves, and a real Traefik in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

from devcluster import parts, ports
from devcluster.addons import prometheus_flags

SCRAPE_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """What is scraped: host:port, the labels that its series get, and `renamed`: (label, what in it, by what).

    `honor`: labels that its series have already stay as they are.
    """

    name: str
    where: str
    labels: Mapping[str, str] = field(default_factory=dict)
    renamed: tuple[str, str, str] | None = None
    honor: bool = False


class Exporter:
    """A target whose `text` the test sets; None refuses the scrape."""

    def __init__(self) -> None:
        self.text: str | None = ""
        self._scrape = asyncio.Event()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve it; gives host:port."""
        app = web.Application()
        app.router.add_get("/metrics", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            yield f"127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def scraped(self) -> None:
        """Wait until what is said now was scraped and stored."""
        # One may be under way; when the one after next begins, the next is stored.
        for _ in range(3):
            self._scrape.clear()
            await self._scrape.wait()

    async def _answer(self, _: web.Request) -> web.Response:
        self._scrape.set()
        if self.text is None:
            return web.Response(status=503)
        return web.Response(text=self.text + "\n", content_type="text/plain")


@contextlib.contextmanager
def process(command: Sequence[str], log: Path) -> Iterator[None]:
    """Runs a program, whose output goes to `log`."""
    with log.open("wb") as output:
        running = subprocess.Popen(list(command), stdout=output, stderr=output)
    try:
        yield
    finally:
        # Nothing it keeps is looked at again.
        running.kill()
        running.wait()


@contextlib.contextmanager
def prometheus(folder: Path, jobs: Sequence[Job]) -> Iterator[str]:
    """A Prometheus that scrapes `jobs`; gives its URL."""
    parts.build(["prometheus"])
    interval = f"{SCRAPE_SECONDS * 1000:.0f}ms"
    config = folder / "prometheus.yml"
    timing = {"scrape_interval": interval, "scrape_timeout": interval}
    config.write_text(yaml.safe_dump({"global": timing, "scrape_configs": [_scrape(job) for job in jobs]}))
    listen = f"127.0.0.1:{ports.free_ports(1)[0]}"
    flags = prometheus_flags(listen, config, folder / "data")
    with process([str(parts.binary_path("prometheus")), *flags], folder / "prometheus.log"):
        yield f"http://{listen}"


@contextlib.contextmanager
def traefik(folder: Path, services: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """A Traefik with a path for each service (name: URL); gives its URL, and where its metrics are (host:port)."""
    parts.build(["traefik"])
    listen, metrics = (f"127.0.0.1:{port}" for port in ports.free_ports(2))
    strip = {"stripPrefixRegex": {"regex": ["/[a-z0-9-]+"]}}
    routers = {
        name: {"rule": f"PathPrefix(`/{name}`)", "service": name, "entryPoints": ["web"], "middlewares": ["strip"]}
        for name in services
    }
    backends = {name: {"loadBalancer": {"servers": [{"url": url}]}} for name, url in services.items()}
    file = folder / "traefik.yml"
    file.write_text(
        yaml.safe_dump({"http": {"routers": routers, "services": backends, "middlewares": {"strip": strip}}})
    )
    flags = [
        f"--entrypoints.web.address={listen}",
        f"--entrypoints.metrics.address={metrics}",
        "--ping.entrypoint=metrics",
        "--metrics.prometheus.entrypoint=metrics",
        "--metrics.prometheus.addserviceslabels=true",
        "--metrics.prometheus.buckets=0.1,0.25,1",
        f"--providers.file.filename={file}",
        "--global.checknewversion=false",
        "--global.sendanonymoususage=false",
    ]
    with process([str(parts.binary_path("traefik")), *flags], folder / "traefik.log"):
        yield f"http://{listen}", metrics


async def answers(url: str) -> None:
    """Wait until `url` is answered with 200."""
    deadline = time.monotonic() + 30
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.1)
    raise TimeoutError(f"{url} is not answered")


def _scrape(job: Job) -> dict[str, object]:
    scrape: dict[str, object] = {
        "job_name": job.name,
        "honor_labels": job.honor,
        "static_configs": [{"targets": [job.where], "labels": dict(job.labels)}],
    }
    if job.renamed is not None:
        label, what, by = job.renamed
        rule = {"source_labels": [label], "target_label": label, "regex": what, "replacement": by}
        scrape["metric_relabel_configs"] = [rule]
    return scrape
