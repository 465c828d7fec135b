"""Times of a schedule trigger: which are due, which is next, and what is wrong with one that never comes.

Daylight saving as Debian's cron has it, by cronsim: a schedule with a fixed minute and hour fires once for each of its
times, at the end of the gap when the clock skips it, and at the first of both when it comes twice. One whose minute or
hour begins with * goes by hours that really pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from modelwright.api.v1alpha1.retraining import ScheduleTrigger

MISSED_AFTER = timedelta(minutes=2)
"""A time that passed longer ago than this was missed, and is caught up or not as the trigger says."""
MAX_CATCH_UP = 100
"""Times that are caught up at most, the newest ones."""

_TIME_ZONE_ERRORS = (ZoneInfoNotFoundError, ValueError, OSError)
"""What ZoneInfo raises for a name that is none, or that is a folder of zones."""


def list_due_times(trigger: ScheduleTrigger, since: datetime, now: datetime) -> tuple[datetime, ...]:
    """The times in (since, now] for which the trigger fires, UTC, in their order, by its catchUp: None lets those go
    that were missed, Latest keeps the last of all, All keeps each. Empty for a trigger that `problem` tells of.
    """
    if trigger.catch_up == "None":
        since = max(since, now - MISSED_AFTER)
    found = _newest_times(trigger, since, now, 1 if trigger.catch_up == "Latest" else MAX_CATCH_UP)
    return found[-1:] if trigger.catch_up == "Latest" else found


def next_time(trigger: ScheduleTrigger, after: datetime) -> datetime | None:
    """The first time after `after`, UTC; None when there is none."""
    try:
        return next((time for time in _iterate_times(trigger, after) if time > after), None)
    except (CronSimError, *_TIME_ZONE_ERRORS):
        return None


def find_schedule_problem(trigger: ScheduleTrigger, now: datetime) -> str | None:
    """Why the trigger never fires, naming the field below the trigger; None when it does."""
    try:
        if next(_iterate_times(trigger, now), None) is not None:
            return None
        error: Exception | str = "in the next 50 years"
    except _TIME_ZONE_ERRORS:
        return f"schedule.timeZone: there is no time zone {trigger.time_zone}"
    except CronSimError as found:
        error = found
    return f"schedule.cron: {trigger.cron} is no cron schedule that ever comes: {error}"


def _iterate_times(trigger: ScheduleTrigger, after: datetime) -> Iterator[datetime]:
    local = after.astimezone(ZoneInfo(trigger.time_zone))
    return (time.astimezone(UTC) for time in CronSim(trigger.cron, local))


def _newest_times(trigger: ScheduleTrigger, since: datetime, now: datetime, most: int) -> tuple[datetime, ...]:
    """The newest `most` times in (since, now]. Years of minutes aren't counted: the span that is looked at grows from
    the end."""
    span = timedelta(hours=2)
    while True:
        start = max(since, now - span)
        try:
            found = [
                time for time in takewhile(lambda time: time <= now, _iterate_times(trigger, start)) if time > start
            ]
        except (CronSimError, *_TIME_ZONE_ERRORS):
            return ()
        if len(found) >= most or start == since:
            return tuple(found[-most:])
        span *= 8
