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

GRACE = timedelta(minutes=2)
"""A time that passed longer ago than this was missed, and is caught up or not as the trigger says."""
MOST = 100
"""Times that are caught up at most, the newest ones."""

_NO_ZONE = (ZoneInfoNotFoundError, ValueError, OSError)
"""What ZoneInfo raises for a name that is none, or that is a folder of zones."""


def due(trigger: ScheduleTrigger, since: datetime, now: datetime) -> tuple[datetime, ...]:
    """The times in (since, now] for which the trigger fires, UTC, in their order, by its catchUp: None lets those go
    that were missed, Latest keeps the last of all, All keeps each. Empty for a trigger that `problem` tells of.
    """
    if trigger.catch_up == "None":
        since = max(since, now - GRACE)
    found = _between(trigger, since, now, 1 if trigger.catch_up == "Latest" else MOST)
    return found[-1:] if trigger.catch_up == "Latest" else found


def following(trigger: ScheduleTrigger, after: datetime) -> datetime | None:
    """The first time after `after`, UTC; None when there is none."""
    try:
        return next((time for time in _times(trigger, after) if time > after), None)
    except (CronSimError, *_NO_ZONE):
        return None


def problem(trigger: ScheduleTrigger, now: datetime) -> str | None:
    """Why the trigger never fires, naming the field below the trigger; None when it does."""
    try:
        if next(_times(trigger, now), None) is not None:
            return None
        error: Exception | str = "in the next 50 years"
    except _NO_ZONE:
        return f"schedule.timeZone: there is no time zone {trigger.time_zone}"
    except CronSimError as found:
        error = found
    return f"schedule.cron: {trigger.cron} is no cron schedule that ever comes: {error}"


def _times(trigger: ScheduleTrigger, after: datetime) -> Iterator[datetime]:
    local = after.astimezone(ZoneInfo(trigger.time_zone))
    return (time.astimezone(UTC) for time in CronSim(trigger.cron, local))


def _between(trigger: ScheduleTrigger, since: datetime, now: datetime, most: int) -> tuple[datetime, ...]:
    """The newest `most` times in (since, now]. Years of minutes aren't counted: the span that is looked at grows from
    the end."""
    span = timedelta(hours=2)
    while True:
        start = max(since, now - span)
        try:
            found = [time for time in takewhile(lambda time: time <= now, _times(trigger, start)) if time > start]
        except (CronSimError, *_NO_ZONE):
            return ()
        if len(found) >= most or start == since:
            return tuple(found[-most:])
        span *= 8
