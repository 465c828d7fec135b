"""A stopwatch kept in a status: the time an object has spent in some of its states, without the time between."""

from __future__ import annotations

from datetime import datetime, timedelta

from modelwright.api.v1alpha1.rollout import ClockStatus


def elapsed_time(clock: ClockStatus | None, now: datetime) -> timedelta:
    """Return the time that the stopwatch has counted; a clock that was set back counts nothing."""
    clock = clock or ClockStatus()
    running = now - clock.running_since if clock.running_since is not None else timedelta(0)
    return timedelta(seconds=clock.elapsed_seconds) + max(running, timedelta(0))


def set_running(clock: ClockStatus | None, *, running: bool, now: datetime) -> ClockStatus:
    """Start or stop the stopwatch. Whole seconds are kept when it stops."""
    clock = clock or ClockStatus()
    if running and clock.running_since is None:
        return ClockStatus(elapsed_seconds=clock.elapsed_seconds, running_since=now)
    if not running and clock.running_since is not None:
        return ClockStatus(elapsed_seconds=int(elapsed_time(clock, now).total_seconds()))
    return clock
