"""The fake clock does what waiting would do."""

import asyncio
from datetime import UTC, timedelta

from modelwright.obs.clock import FakeClock, SystemClock


def test_time_stands_still_until_it_is_moved() -> None:
    clock = FakeClock()
    now, monotonic = clock.now(), clock.monotonic()
    clock.advance(90)
    assert clock.now() - now == timedelta(seconds=90)
    assert clock.monotonic() - monotonic == 90
    clock.jump_wall_clock(-3600)
    assert clock.monotonic() - monotonic == 90


def test_callbacks_run_at_their_moment_in_order_and_may_ask_for_more() -> None:
    clock = FakeClock()
    seen: list[tuple[str, float]] = []
    start = clock.monotonic()

    def again() -> None:
        seen.append(("again", clock.monotonic() - start))
        if len(seen) < 4:
            clock.call_later(1, again)

    clock.call_later(2.5, lambda: seen.append(("late", clock.monotonic() - start)))
    clock.call_later(1, again)
    clock.call_later(1, lambda: seen.append(("never", 0))).cancel()
    clock.advance(10)
    assert seen == [("again", 1), ("again", 2), ("late", 2.5), ("again", 3)]


async def test_sleep_ends_when_the_time_has_come_and_can_be_cancelled() -> None:
    clock = FakeClock()
    sleeping, cancelled = asyncio.create_task(clock.sleep(5)), asyncio.create_task(clock.sleep(5))
    await asyncio.sleep(0)
    cancelled.cancel()
    clock.advance(4)
    await asyncio.sleep(0)
    assert not sleeping.done()
    clock.advance(1)
    await asyncio.sleep(0)
    await sleeping


async def test_the_system_clock_knows_the_time_in_utc() -> None:
    clock = SystemClock()
    assert clock.now().tzinfo is UTC
    called = asyncio.Event()
    clock.call_later(0, called.set)
    await asyncio.wait_for(called.wait(), 1)
    before = clock.monotonic()
    await clock.sleep(0.01)
    assert clock.monotonic() - before >= 0.01
