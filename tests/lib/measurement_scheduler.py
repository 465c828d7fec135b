"""A measurement scheduler with a clock of the test's."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from modelwright.core.analysis.evidence import Measurement
from modelwright.kube.queue import Key
from modelwright.measurement.connections import parse_connections
from modelwright.measurement.request import MeasurementRequest
from modelwright.measurement.scheduler import MeasurementScheduler
from modelwright.obs.clock import FakeClock
from tests.lib.measurement import SINCE, FakeServer


class SchedulerHarness:
    """A scheduler of measurements from the fake server, and the keys that it has notified."""

    def __init__(self, server: FakeServer, **options: Any) -> None:
        self.server, self.clock = server, FakeClock(SINCE + timedelta(seconds=60))
        self.woken: asyncio.Queue[Key] = asyncio.Queue()
        entries = [
            {"name": "default", "type": "Prometheus", "url": server.url},
            {"name": "json", "type": "HTTP", "url": server.url},
        ]
        self.scheduler = MeasurementScheduler(
            parse_connections({"connections": entries}, "test"), self.woken.put_nowait, clock=self.clock, **options
        )

    async def measure_once(self, measurement_request: MeasurementRequest) -> tuple[Measurement, ...]:
        """Return the measurements once the round has ended."""
        assert self.scheduler.get_measurements(measurement_request) is None
        assert await self.woken.get() == measurement_request.notify_key
        actual = self.scheduler.get_measurements(measurement_request)
        assert actual is not None
        return actual

    async def pass_by(self, seconds: float) -> None:
        """Let time pass, and let started tasks reach their requests."""
        self.clock.advance(seconds)
        for _ in range(20):
            await asyncio.sleep(0)

    @property
    def request_count(self) -> int:
        return len(self.server.requests)
