"""A real Prometheus that scrapes a real target, whose text the test sets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
from aiohttp import web

from devcluster import parts
from devcluster.addons import prometheus_flags

SCRAPE_SECONDS = 0.2


class Exporter:
    """What Prometheus scrapes: `text` is what it is told; None refuses the scrape."""

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
def running(folder: Path, targets: dict[str, str]) -> Iterator[str]:
    """A Prometheus that scrapes `targets` (job name: host:port); gives its URL."""
    parts.build(["prometheus"])
    jobs = "\n".join(
        f'- job_name: {name}\n  static_configs: [{{targets: ["{where}"]}}]' for name, where in targets.items()
    )
    config = folder / "prometheus.yml"
    interval = f"{SCRAPE_SECONDS * 1000:.0f}ms"
    config.write_text(f"global: {{scrape_interval: {interval}, scrape_timeout: {interval}}}\nscrape_configs:\n{jobs}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    with (folder / "prometheus.log").open("wb") as log:
        flags = prometheus_flags(listen, config, folder / "data")
        process = subprocess.Popen([str(parts.path("prometheus")), *flags], stdout=log, stderr=log)
    try:
        yield f"http://{listen}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def ready(url: str) -> None:
    """Wait until Prometheus answers queries."""
    deadline = time.monotonic() + 30
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{url}/-/ready") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.1)
    raise TimeoutError(f"Prometheus at {url} is not ready")
