"""Times of a schedule trigger: those that are due, the next one, and errors in the schedule.

Daylight saving follows Debian's cron, as cronsim implements it: a schedule with a fixed minute and hour fires once for
each of its times, at the end of the gap if the clock skips it, and at the first of two equal times. One whose minute or
hour starts with * follows elapsed hours.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from modelwright.api.v1alpha1.retraining import ScheduleTrigger

MISSED_AFTER = timedelta(minutes=2)
"""A time that passed longer ago than this was missed; the trigger's catchUp decides whether it is caught up."""
MAX_CATCH_UP = 100
"""Maximum number of times that are caught up, the newest ones."""

_TIME_ZONE_ERRORS = (ZoneInfoNotFoundError, ValueError, OSError)
"""Exceptions of ZoneInfo for a name that is no time zone, or that is a folder of them."""


def list_due_times(trigger: ScheduleTrigger, since: datetime, now: datetime) -> tuple[datetime, ...]:
    """List the times in (since, now] for which the trigger fires, in UTC, ascending.

    catchUp None drops missed times, Latest keeps only the last time, All keeps each. An invalid trigger, which
    `find_schedule_problem` reports, has none.
    """
    if trigger.catch_up == "None":
        since = max(since, now - MISSED_AFTER)
    return _newest_times(trigger, since, now, 1 if trigger.catch_up == "Latest" else MAX_CATCH_UP)


def next_time(trigger: ScheduleTrigger, after: datetime) -> datetime | None:
    """Find the first time after `after`, in UTC; None if there is none."""
    try:
        return next((time for time in _iterate_times(trigger, after) if time > after), None)
    except (CronSimError, *_TIME_ZONE_ERRORS):
        return None


def find_schedule_problem(trigger: ScheduleTrigger, now: datetime) -> str | None:
    """Explain why the trigger never fires, naming the field below the trigger; None if it does."""
    try:
        if next(_iterate_times(trigger, now), None) is not None:
            return None
        error: Exception | str = "in the next 50 years"
    except _TIME_ZONE_ERRORS:
        return f"schedule.timeZone: there is no time zone {trigger.time_zone}"
    except CronSimError as invalid:
        error = invalid
    return f"schedule.cron: {trigger.cron} is no cron schedule that ever comes: {error}"


def _iterate_times(trigger: ScheduleTrigger, after: datetime) -> Iterator[datetime]:
    local = after.astimezone(ZoneInfo(trigger.time_zone))
    return (time.astimezone(UTC) for time in CronSim(trigger.cron, local))


def _newest_times(trigger: ScheduleTrigger, since: datetime, now: datetime, most: int) -> tuple[datetime, ...]:
    """List the newest `most` times in (since, now]. The examined span grows from its end, so that years of minutes are
    not enumerated."""
    span = timedelta(hours=2)
    while True:
        start = max(since, now - span)
        try:
            times = [
                time for time in takewhile(lambda time: time <= now, _iterate_times(trigger, start)) if time > start
            ]
        except (CronSimError, *_TIME_ZONE_ERRORS):
            return ()
        if len(times) >= most or start == since:
            return tuple(times[-most:])
        span *= 8
