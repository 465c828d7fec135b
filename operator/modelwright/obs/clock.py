"""The clock injected into all code that waits or measures, so that tests need not wait."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from modelwright.obs import metrics

log = logging.getLogger(__name__)

MAX_SLEW = 0.05
"""Fraction of the passing time by which the time of day is corrected at most."""
SKEW_SECONDS = 30.0
"""A node's clock that differs from the API server's by more is considered wrong."""
LOGGED_JUMP_SECONDS = 5.0


class Timer(Protocol):
    """A scheduled callback."""

    def cancel(self) -> None:
        """Cancel the callback; harmless when it has run."""


class Clock(Protocol):
    """Time of day for recorded times, monotonic seconds for measured durations."""

    def now(self) -> datetime:
        """Return the time of day: aware, in UTC."""

    def monotonic(self) -> float:
        """Return the seconds since some fixed moment; never decreases."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` from the event loop once `seconds` have passed."""

    async def sleep(self, seconds: float) -> None:
        """Return once `seconds` have passed."""


class SystemClock:
    """The real clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(max(0.0, seconds), callback)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


class SteadyClock:
    """A clock whose time of day never jumps and never decreases, even when the node's clock does.

    Holds, deadlines and schedules compare the time of day with recorded times, possibly of another process. So a
    node's clock that is set an hour forward must not end a step, nor one set back fire a schedule twice. The time of
    day follows the monotonic clock, and approaches the node's by at most 5 % of the passing time. When the API server,
    which dates all objects, reports a time more than 30 s away (`observe_server_time`), the API server's counts.
    """

    def __init__(self, base: Clock | None = None) -> None:
        self._base: Clock = base or SystemClock()
        self._updated_at = self._base.monotonic()
        self._now = self._base.now()
        self._correction = timedelta()
        self._has_jumped = False
        self._has_server_time = False

    def now(self) -> datetime:
        moment = self._base.monotonic()
        passed = timedelta(seconds=max(0.0, moment - self._updated_at))
        self._updated_at = moment
        behind = self._base.now() + self._correction - (self._now + passed)
        most = MAX_SLEW * passed
        self._now += passed + max(-most, min(most, behind))
        self._log_jump(behind.total_seconds())
        return self._now

    def observe_server_time(self, moment: datetime) -> None:
        """Take the API server's time of day from a response just received."""
        skew = moment - self._base.now()
        metrics.CLOCK_SKEW.set(round(skew.total_seconds()))
        wrong = abs(skew.total_seconds()) > SKEW_SECONDS
        if wrong != bool(self._correction):
            text = "the clock of this node and that of the API server " + ("differ" if wrong else "agree again")
            log.log(logging.WARNING if wrong else logging.INFO, text, extra={"seconds": round(skew.total_seconds())})
        self._correction = skew if wrong else timedelta()
        if not self._has_server_time and wrong:
            # No decision has used the node's time yet.
            self._now, self._updated_at = moment, self._base.monotonic()
        self._has_server_time = True

    def monotonic(self) -> float:
        return self._base.monotonic()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return self._base.call_later(seconds, callback)

    async def sleep(self, seconds: float) -> None:
        await self._base.sleep(seconds)

    def _log_jump(self, behind: float) -> None:
        off = abs(behind) > LOGGED_JUMP_SECONDS
        if off and not self._has_jumped:
            text = "the time of day has jumped: holds, deadlines and schedules follow the time that has really passed"
            log.warning(text, extra={"seconds": round(behind)})
        self._has_jumped = off


class _FakeTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    """A clock that stands still until `advance` moves it, for tests."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._monotonic = 1000.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, _FakeTimer]] = []

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = _FakeTimer(callback)
        heapq.heappush(self._timers, (self._monotonic + max(0.0, seconds), next(self._order), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        done = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not done.done():
                done.set_result(None)

        timer = self.call_later(seconds, wake)
        try:
            await done
        finally:
            timer.cancel()

    def advance(self, seconds: float) -> None:
        """Advance by `seconds`, calling due callbacks, each at its own time."""
        end = self._monotonic + seconds
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            self._move_to(max(due, self._monotonic))
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
        self._move_to(end)

    @property
    def pending_timers(self) -> int:
        """Number of pending timers and sleeps."""
        return sum(timer.callback is not None for _, _, timer in self._timers)

    def jump_wall_clock(self, seconds: float) -> None:
        """Change the time of day without time passing, as an administrator or NTP would."""
        self._now += timedelta(seconds=seconds)

    def _move_to(self, moment: float) -> None:
        self._now += timedelta(seconds=moment - self._monotonic)
        self._monotonic = moment
