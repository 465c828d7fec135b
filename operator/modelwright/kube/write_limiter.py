"""A token bucket that limits the rate of the operator's writes to the API server."""

from __future__ import annotations

import asyncio

from modelwright.obs.clock import Clock, SystemClock


class RateLimiter:
    """A bucket of `qps` tokens a second, up to `burst` saved; callers are served in order of arrival."""

    def __init__(self, qps: float, burst: int, clock: Clock | None = None) -> None:
        if qps <= 0 or burst < 1:
            raise ValueError(f"qps must be above 0 and burst at least 1, not {qps} and {burst}")
        self._clock: Clock = clock or SystemClock()
        self._qps = qps
        self._burst = float(burst)
        self._tokens = float(burst)
        self._refilled_at = self._clock.monotonic()
        self._paused_until = 0.0
        self._order = asyncio.Lock()

    async def acquire(self) -> float:
        """Take a token, waiting while there is none. Returns the seconds waited."""
        start = self._clock.monotonic()
        # The lock is held while waiting, which keeps the order.
        async with self._order:
            while (wait := self._seconds_to_wait()) > 0:
                await self._clock.sleep(wait)
            self._tokens -= 1
        return self._clock.monotonic() - start

    def pause(self, seconds: float) -> None:
        """Give out no token for `seconds`, as requested by the server."""
        self._paused_until = max(self._paused_until, self._clock.monotonic() + seconds)

    def _seconds_to_wait(self) -> float:
        now = self._clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._refilled_at) * self._qps)
        self._refilled_at = now
        missing = 0.0 if self._tokens >= 1 else (1 - self._tokens) / self._qps
        # Rounding must not leave a wait of almost nothing, which would be a busy loop.
        return max(missing, self._paused_until - now) if max(missing, self._paused_until - now) > 1e-9 else 0.0
