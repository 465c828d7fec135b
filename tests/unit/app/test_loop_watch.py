"""How long the event loop stood still, as the metric and /livez have it."""

from __future__ import annotations

import asyncio

import pytest

from modelwright.app.health import LoopMonitor
from modelwright.app.tasks import cancel_task
from modelwright.obs import metrics
from modelwright.obs.clock import FakeClock
from tests.lib.loops import none_holds_the_loop


def longest(clock: str) -> float:
    return metrics.REGISTRY.get_sample_value("modelwright_event_loop_longest_block_seconds", {"clock": clock}) or 0.0


async def test_a_stand_is_kept_for_a_minute_or_two_by_wall_and_cpu() -> None:
    clock, cpu = FakeClock(), [0.0]
    run = asyncio.ensure_future(LoopMonitor(clock, lambda: cpu[0]).run())
    await asyncio.sleep(0)

    async def after(seconds: float, cpu_seconds: float) -> None:
        clock.advance(seconds)
        cpu[0] += cpu_seconds
        for _ in range(3):
            await asyncio.sleep(0)

    await after(2.1, 0.7)
    assert (longest("wall"), longest("cpu")) == (pytest.approx(2.0), pytest.approx(0.7))
    await after(0.1, 0.1)
    assert longest("wall") == pytest.approx(2.0), "a busy loop that comes in time doesn't stand"
    await after(60.1, 0.2)
    assert (longest("wall"), longest("cpu")) == (pytest.approx(60), pytest.approx(0.7))
    for _ in range(2):
        for _ in range(601):
            await after(0.1, 0.0)
    assert longest("wall") == pytest.approx(0, abs=1e-6)
    assert longest("cpu") == 0.0
    await cancel_task(run)


def test_a_loop_that_is_late_asks_for_a_restart() -> None:
    clock = FakeClock()
    watch = LoopMonitor(clock)
    clock.advance(5)
    assert watch.check_liveness() is None
    clock.advance(1)
    assert watch.check_liveness() == "the event loop is 5.9 s late"


def test_a_callback_that_blocks_the_loop_fails_a_watching_test() -> None:
    async def computes() -> None:
        await asyncio.sleep(0)
        sum(range(20_000_000))

    with pytest.raises(AssertionError, match="of CPU time in <Handle"), none_holds_the_loop():
        asyncio.run(computes())
    with none_holds_the_loop():
        asyncio.run(asyncio.sleep(0.2))
