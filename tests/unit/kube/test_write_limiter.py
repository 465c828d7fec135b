"""The token bucket: a burst, then an even rate, in the order of arrival; a pause when the server asks for one."""

import asyncio

import pytest

from modelwright.kube.write_limiter import RateLimiter
from modelwright.obs.clock import FakeClock


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_burst_passes_at_once_and_then_the_rate_holds() -> None:
    clock = FakeClock()
    limiter = RateLimiter(10, 5, clock)
    passed: list[int] = []

    async def one(n: int) -> None:
        await limiter.acquire()
        passed.append(n)

    tasks = [asyncio.create_task(one(n)) for n in range(8)]
    await settle()
    assert passed == [0, 1, 2, 3, 4]
    for expected in (6, 7, 8):
        clock.advance(0.1)
        await settle()
        assert passed == list(range(expected)), "in order, one each tenth of a second"
    await asyncio.gather(*tasks)


async def test_an_idle_limiter_saves_no_more_than_its_burst() -> None:
    clock = FakeClock()
    limiter = RateLimiter(10, 2, clock)
    clock.advance(1000)
    assert await limiter.acquire() == 0
    assert await limiter.acquire() == 0
    third = asyncio.create_task(limiter.acquire())
    await settle()
    assert not third.done()
    clock.advance(0.1)
    assert await third == pytest.approx(0.1)


async def test_hold_stops_everybody_until_the_time_is_over() -> None:
    clock = FakeClock()
    limiter = RateLimiter(10, 5, clock)
    limiter.pause(3)
    limiter.pause(1)
    waiting = asyncio.create_task(limiter.acquire())
    await settle()
    clock.advance(2.9)
    await settle()
    assert not waiting.done()
    clock.advance(0.2)
    await settle()
    assert waiting.done()


async def test_a_cancelled_wait_lets_the_next_one_pass() -> None:
    clock = FakeClock()
    limiter = RateLimiter(1, 1, clock)
    await limiter.acquire()
    first, second = (asyncio.create_task(limiter.acquire()) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    clock.advance(1)
    await settle()
    assert second.done()


@pytest.mark.parametrize(("qps", "burst"), [(0, 1), (-1, 1), (1, 0)])
def test_limits_that_let_nothing_pass_are_refused(qps: float, burst: int) -> None:
    with pytest.raises(ValueError, match="qps must be above 0"):
        RateLimiter(qps, burst)
