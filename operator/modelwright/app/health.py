"""Serves /livez, /readyz and /metrics on a separate port."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from modelwright.app.authentication import PageReaders, RequestRefused
from modelwright.kube.access_review import AccessUndetermined
from modelwright.net.listener import ConnectionLimits, Listener
from modelwright.obs import metrics
from modelwright.obs.clock import Clock

log = logging.getLogger(__name__)

MAX_LOOP_DELAY_SECONDS = 5.0
BEAT_SECONDS = 0.1
WINDOW_SECONDS = 60.0
LISTENER_LIMITS = ConnectionLimits(head_bytes=16 << 10, max_headers=32)
RETRY_SECONDS = 5

Check = Callable[[], str | None]
"""Returns a description of the failure; None when the check passes."""


class HealthChecks:
    """Named checks; a probe returns 200 when all of its kind pass, else 503 with one line for each failure."""

    def __init__(self) -> None:
        self._live: dict[str, Check] = {}
        self._ready: dict[str, Check] = {}

    def add_liveness_check(self, name: str, check: Check) -> None:
        """Add a check whose failure means that only a restart helps."""
        self._live[name] = check

    def add_readiness_check(self, name: str, check: Check) -> None:
        """Add a check whose failure means that the process cannot work at the moment."""
        self._ready[name] = check

    def failing_liveness(self) -> list[str]:
        """Return the failing liveness checks; empty when all pass."""
        return _run_checks(self._live)

    def failing_readiness(self) -> list[str]:
        """Return the failing readiness checks; empty when all pass."""
        return _run_checks(self._ready)


def _run_checks(checks: dict[str, Check]) -> list[str]:
    return [f"{name}: {wrong}" for name, check in checks.items() if (wrong := check()) is not None]


class LoopMonitor:
    """Measures how long the event loop is blocked: a beat ten times a second (`run`) is late by as much.

    Blocks shorter than the time between two beats may remain undetected.
    """

    def __init__(self, clock: Clock, cpu_seconds: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._cpu_seconds = cpu_seconds
        self._last_beat = self._window_start = clock.monotonic()
        self._longest = [(0.0, 0.0), (0.0, 0.0)]
        """(wall, CPU) seconds of the minute before this one, and of this one."""

    async def run(self) -> None:
        """Measure until cancelled. Must run in the loop's own thread."""
        while True:
            self._last_beat, cpu = self._clock.monotonic(), self._cpu_seconds()
            await self._clock.sleep(BEAT_SECONDS)
            self._record_delay(self._seconds_late(), self._cpu_seconds() - cpu)

    def check_liveness(self) -> str | None:
        """Check for /livez: fails when the loop is, or just was, 5 s late."""
        late = self._seconds_late()
        return f"the event loop is {late:.1f} s late" if late > MAX_LOOP_DELAY_SECONDS else None

    def _seconds_late(self) -> float:
        return max(0.0, self._clock.monotonic() - self._last_beat - BEAT_SECONDS)

    def _record_delay(self, wall: float, cpu: float) -> None:
        now = self._clock.monotonic()
        if now - self._window_start >= WINDOW_SECONDS:
            self._window_start = now
            self._longest = [self._longest[1], (0.0, 0.0)]
        before, this = self._longest
        # Other callbacks between the beats used CPU time too: the block itself cannot have used more than its duration.
        self._longest[1] = this = (max(this[0], wall), max(this[1], min(wall, cpu)))
        metrics.LOOP_STAND.labels("wall").set(max(before[0], this[0]))
        metrics.LOOP_STAND.labels("cpu").set(max(before[1], this[1]))


async def start_server(
    health: HealthChecks,
    host: str,
    port: int,
    *,
    readers: PageReaders | None = None,
    tls: Callable[[], ssl.SSLContext] | None = None,
) -> Listener:
    """Start the server. Without `readers` /metrics is public; the probes always are. Raises OSError when the port is
    taken."""

    async def livez(_: web.Request) -> web.Response:
        return _build_response(health.failing_liveness())

    async def readyz(_: web.Request) -> web.Response:
        return _build_response(health.failing_readiness())

    async def show_metrics(request: web.Request) -> web.Response:
        if readers is not None and (no := await _refuse_reader(readers, request)) is not None:
            return no
        return web.Response(body=generate_latest(metrics.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def moved(_: web.Request) -> web.Response:
        # A standby of the previous version sends webhooks here during an upgrade: their senders retry.
        text = "webhooks are accepted on another port"
        return web.Response(status=503, text=text, headers={"Retry-After": str(RETRY_SECONDS)})

    app = web.Application(client_max_size=1)
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", show_metrics)
    app.router.add_post("/triggers/{path:.*}", moved)
    listener = await Listener.start(app, host, port, LISTENER_LIMITS, tls=tls)
    log.info("serving /livez, /readyz and /metrics", extra={"port": listener.port})
    return listener


async def _refuse_reader(readers: PageReaders, request: web.Request) -> web.Response | None:
    try:
        await readers.check_allowed(request.headers.get("Authorization", ""), request.remote or "")
    except RequestRefused as refused:
        headers = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else {}
        if refused.retry:
            headers["Retry-After"] = str(refused.retry)
        return web.Response(status=refused.status, text=str(refused), headers=headers)
    except AccessUndetermined as error:
        log.warning("a reader of /metrics could not be authenticated", extra={"error": str(error)})
        headers = {"Retry-After": str(RETRY_SECONDS)}
        return web.Response(status=503, text=f"the caller could not be authenticated: {error}", headers=headers)
    return None


def _build_response(failing: list[str]) -> web.Response:
    return web.Response(status=503 if failing else 200, text="\n".join(failing) if failing else "ok")
