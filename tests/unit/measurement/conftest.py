"""A fake metrics server, and measurements from it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.lib.measurement import Bench, FakeServer


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer().serving() as running:
        yield running


@pytest.fixture
async def bench(server: FakeServer) -> AsyncIterator[Bench]:
    bench = Bench(server)
    yield bench
    await bench.web.close()
