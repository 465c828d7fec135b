"""The fake clock does what waiting would do."""

import asyncio
from datetime import UTC, timedelta

import pytest

from modelwright.obs import metrics
from modelwright.obs.clock import FakeClock, SteadyClock, SystemClock


def test_time_stands_still_until_it_is_moved() -> None:
    clock = FakeClock()
    now, monotonic = clock.now(), clock.monotonic()
    clock.advance(90)
    assert clock.now() - now == timedelta(seconds=90)
    assert clock.monotonic() - monotonic == 90
    clock.jump_wall_clock(-3600)
    assert clock.monotonic() - monotonic == 90


def test_callbacks_run_in_order_and_may_schedule_more() -> None:
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


@pytest.mark.parametrize("jump", [3600.0, -3600.0], ids=["forward", "back"])
def test_a_steady_clock_ignores_a_jump_and_is_corrected_slowly(jump: float, caplog: pytest.LogCaptureFixture) -> None:
    base = FakeClock()
    clock = SteadyClock(base)
    start = clock.now()
    base.jump_wall_clock(jump)
    for minute in range(1, 61):
        base.advance(60)
        passed = clock.now() - start
        assert abs(passed - timedelta(minutes=minute)) <= timedelta(minutes=minute) * 0.05
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    for _ in range(24):
        base.advance(3600)
        clock.now()
    assert clock.now() == base.now()


def test_a_steady_clock_follows_a_steady_time_of_day() -> None:
    base = FakeClock()
    clock = SteadyClock(base)
    for _ in range(100):
        base.jump_wall_clock(0.0001)
        base.advance(1)
        assert clock.now() == base.now()


def test_a_node_that_starts_with_a_wrong_clock_takes_the_apis() -> None:
    base = FakeClock()
    right = base.now()
    base.jump_wall_clock(3600)
    clock = SteadyClock(base)
    clock.observe_server_time(right)
    assert clock.now() == right
    assert metrics.CLOCK_SKEW._value.get() == -3600
    base.advance(10)
    clock.observe_server_time(right + timedelta(seconds=10))
    assert clock.now() == right + timedelta(seconds=10)


def test_a_second_of_difference_to_the_api_server_is_nothing() -> None:
    base = FakeClock()
    clock = SteadyClock(base)
    clock.observe_server_time(base.now() + timedelta(seconds=29))
    base.advance(60)
    assert clock.now() == base.now()


def test_a_jump_of_the_node_only_ends_at_the_next_response() -> None:
    base = FakeClock()
    clock = SteadyClock(base)
    right = base.now()
    clock.observe_server_time(right)
    base.jump_wall_clock(-3600)
    base.advance(2)
    clock.observe_server_time(right + timedelta(seconds=2))
    for _ in range(100):
        base.advance(60)
        clock.now()
    assert clock.now() == right + timedelta(seconds=6002)
