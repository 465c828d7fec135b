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


class Office:
    """A desk before the fake server, and whom it has woken."""

    def __init__(self, server: FakeServer, **options: Any) -> None:
        self.server, self.clock = server, FakeClock(SINCE + timedelta(seconds=60))
        self.woken: asyncio.Queue[Key] = asyncio.Queue()
        entries = [
            {"name": "default", "type": "Prometheus", "url": server.url},
            {"name": "json", "type": "HTTP", "url": server.url},
        ]
        self.desk = MeasurementScheduler(
            parse_connections({"connections": entries}, "test"), self.woken.put_nowait, clock=self.clock, **options
        )

    async def look(self, asked: MeasurementRequest) -> tuple[Measurement, ...]:
        """The measurements, once the look has ended."""
        assert self.desk.get_measurements(asked) is None
        assert await self.woken.get() == asked.notify_key
        found = self.desk.get_measurements(asked)
        assert found is not None
        return found

    async def pass_by(self, seconds: float) -> None:
        """Let time pass, and what is started then get to its requests."""
        self.clock.advance(seconds)
        for _ in range(20):
            await asyncio.sleep(0)

    @property
    def asked(self) -> int:
        return len(self.server.requests)
