"""Freeze windows: times in which no rollout starts or continues."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from modelwright.api.common import parse_duration
from modelwright.api.v1alpha1.policy import Freeze


def find_freeze_end(windows: Iterable[Freeze], now: datetime) -> datetime | None:
    """Find the end, in UTC, of the window that contains `now`; the latest of several; None outside of all windows.

    An invalid window freezes nothing; `find_window_problem` reports it.
    """
    ends = [end for window in windows if (end := _window_end(window, now)) is not None]
    return max(ends, default=None)


def _window_end(window: Freeze, now: datetime) -> datetime | None:
    try:
        local = now.astimezone(ZoneInfo(window.time_zone))
        # The last start before the next full minute, so that a window that starts in this minute counts.
        minute = local.replace(second=0, microsecond=0) + timedelta(minutes=1)
        start = next(CronSim(window.schedule, minute, reverse=True))
    except (CronSimError, ZoneInfoNotFoundError, ValueError, StopIteration):
        return None
    end = start.astimezone(UTC) + timedelta(seconds=parse_duration(window.duration))
    return end if start.astimezone(UTC) <= now < end else None


def find_window_problem(windows: Iterable[Freeze], now: datetime) -> str | None:
    """Describe what is wrong with the first invalid window, naming the field; None if all are valid."""
    for index, window in enumerate(windows):
        try:
            next(CronSim(window.schedule, now.astimezone(ZoneInfo(window.time_zone))))
        except (ZoneInfoNotFoundError, ValueError):
            return f"spec.freeze[{index}].timeZone: there is no time zone {window.time_zone}"
        except (CronSimError, StopIteration) as error:
            return f"spec.freeze[{index}].schedule: {window.schedule} is no cron schedule that ever comes: {error}"
    return None
