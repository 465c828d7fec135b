"""/livez, /readyz and /metrics on one port, and what else is given to it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from modelwright.obs import metrics
from modelwright.obs.clock import Clock

log = logging.getLogger(__name__)

MAX_LAG = 5.0
LAG_INTERVAL = 0.5
MAX_BODY = 1 << 20

Check = Callable[[], str | None]
"""Returns what is wrong, in words; None when all is well."""


class Health:
    """Named checks; a probe answers 200 when all of its kind pass, else 503 with what is wrong, one line each."""

    def __init__(self) -> None:
        self._live: dict[str, Check] = {}
        self._ready: dict[str, Check] = {}

    def add_live(self, name: str, check: Check) -> None:
        """A failing one means that only a restart helps."""
        self._live[name] = check

    def add_ready(self, name: str, check: Check) -> None:
        """A failing one means that the process can't do its work right now."""
        self._ready[name] = check

    def live(self) -> list[str]:
        """What speaks for a restart; empty when nothing does."""
        return _failing(self._live)

    def ready(self) -> list[str]:
        """What keeps the process from its work; empty when nothing does."""
        return _failing(self._ready)


def _failing(checks: dict[str, Check]) -> list[str]:
    return [f"{name}: {wrong}" for name, check in checks.items() if (wrong := check()) is not None]


class LoopLag:
    """How late the event loop is, looked at twice a second (`run`)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = clock.monotonic()

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            self._last = self._clock.monotonic()
            await self._clock.sleep(LAG_INTERVAL)
            metrics.LOOP_LAG.set(self._lag())

    def check(self) -> str | None:
        """For /livez: complains when the loop is, or just was, 5 s late."""
        lag = self._lag()
        return f"the event loop is {lag:.1f} s late" if lag > MAX_LAG else None

    def _lag(self) -> float:
        return max(0.0, self._clock.monotonic() - self._last - LAG_INTERVAL)


async def serve(
    health: Health, host: str, port: int, routes: Iterable[web.AbstractRouteDef] = ()
) -> tuple[web.AppRunner, int]:
    """Start the server, with `routes` besides its own; returns what to clean up, and the port (another one when `port`
    is 0). Bodies are given to handlers as they were sent, at most 1 MiB, compressed ones too.

    Raises OSError when the port is taken.
    """

    async def livez(_: web.Request) -> web.Response:
        return _answer(health.live())

    async def readyz(_: web.Request) -> web.Response:
        return _answer(health.ready())

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application(client_max_size=MAX_BODY)
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", show_metrics)
    app.router.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, auto_decompress=False)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    actual = next(iter(runner.addresses))[1]
    log.info("serving /livez, /readyz and /metrics", extra={"port": actual})
    return runner, actual


def _answer(failing: list[str]) -> web.Response:
    return web.Response(status=503 if failing else 200, text="\n".join(failing) if failing else "ok")
