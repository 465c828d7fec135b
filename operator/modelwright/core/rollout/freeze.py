"""Freeze windows: times in which no rollout starts or goes on."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from modelwright.api.common import parse_duration
from modelwright.api.v1alpha1.policy import Freeze


def find_freeze_end(windows: Iterable[Freeze], now: datetime) -> datetime | None:
    """When the window that `now` lies in ends, UTC; the latest of several; None outside of all windows.

    A window that can't be understood freezes nothing: `problem` tells of it.
    """
    ends = [end for window in windows if (end := _window_end(window, now)) is not None]
    return max(ends, default=None)


def _window_end(window: Freeze, now: datetime) -> datetime | None:
    try:
        local = now.astimezone(ZoneInfo(window.time_zone))
        # The last beginning before the next full minute, so that one at this very minute counts.
        minute = local.replace(second=0, microsecond=0) + timedelta(minutes=1)
        began = next(CronSim(window.schedule, minute, reverse=True))
    except (CronSimError, ZoneInfoNotFoundError, ValueError, StopIteration):
        return None
    end = began.astimezone(UTC) + timedelta(seconds=parse_duration(window.duration))
    return end if began.astimezone(UTC) <= now < end else None


def find_window_problem(windows: Iterable[Freeze], now: datetime) -> str | None:
    """What is wrong with the first window that can't be understood, naming the field."""
    for index, window in enumerate(windows):
        try:
            next(CronSim(window.schedule, now.astimezone(ZoneInfo(window.time_zone))))
        except (ZoneInfoNotFoundError, ValueError):
            return f"spec.freeze[{index}].timeZone: there is no time zone {window.time_zone}"
        except (CronSimError, StopIteration) as error:
            return f"spec.freeze[{index}].schedule: {window.schedule} is no cron schedule that ever comes: {error}"
    return None
