"""When schedules fire: catch-up, and both changes of the clock."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.api.v1alpha1.retraining import ScheduleTrigger
from modelwright.core.retraining import schedule

DAY = timedelta(days=1)


def trigger(cron: str, zone: str = "UTC", **more: Any) -> ScheduleTrigger:
    return ScheduleTrigger.model_validate({"cron": cron, "timeZone": zone, **more})


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def listed(times: tuple[datetime, ...]) -> list[str]:
    assert all(time.utcoffset() == timedelta(0) for time in times)
    return [time.strftime("%d %H:%M") for time in times]


@pytest.mark.parametrize(
    ("catch_up", "fires"),
    [("None", []), ("Latest", ["04 03:00"]), ("All", ["02 03:00", "03 03:00", "04 03:00"])],
)
def test_after_three_missed_times_none_one_or_three_fire(catch_up: str, fires: list[str]) -> None:
    daily = trigger("0 3 * * *", catchUp=catch_up)
    assert listed(schedule.list_due_times(daily, at("2026-11-01T03:00"), at("2026-11-04T09:00"))) == fires


@pytest.mark.parametrize("catch_up", ["None", "Latest", "All"])
def test_a_time_that_has_just_come_fires_whatever_is_caught_up(catch_up: str) -> None:
    daily = trigger("0 3 * * *", catchUp=catch_up)
    now = at("2026-11-04T03:00")
    assert schedule.list_due_times(daily, now - DAY, now) == (now,)
    assert schedule.list_due_times(daily, now - DAY, now - timedelta(seconds=1)) == ()
    assert schedule.list_due_times(daily, now, now + timedelta(seconds=30)) == ()
    assert schedule.list_due_times(daily, now - DAY, now + schedule.MISSED_AFTER - timedelta(seconds=1)) == (now,)


def test_none_lets_go_what_came_before_the_grace() -> None:
    minutes = trigger("* * * * *", catchUp="None")
    assert listed(schedule.list_due_times(minutes, at("2026-11-01T00:00"), at("2026-11-01T05:00"))) == [
        "01 04:59",
        "01 05:00",
    ]


def test_years_of_minutes_are_caught_up_by_the_newest_hundred() -> None:
    minutes = trigger("* * * * *", catchUp="All")
    now = at("2026-11-01T00:00")
    result = schedule.list_due_times(minutes, at("2016-11-01T00:00"), now)
    assert result == tuple(now - timedelta(minutes=99 - n) for n in range(100))


def test_a_clock_that_went_back_fires_nothing() -> None:
    assert schedule.list_due_times(trigger("* * * * *"), at("2026-11-02T00:00"), at("2026-11-01T00:00")) == ()


@pytest.mark.parametrize(
    ("zone", "cron", "begin", "end", "fires"),
    [
        # Spring: 02:00 to 03:00 is skipped in Berlin on 29 March, in New York on 8 March.
        ("Europe/Berlin", "30 2 * * *", "2026-03-27T12:00", "2026-03-30T12:00", ["28 01:30", "29 01:00", "30 00:30"]),
        ("Europe/Berlin", "0 3 * * *", "2026-03-27T12:00", "2026-03-30T12:00", ["28 02:00", "29 01:00", "30 01:00"]),
        ("Europe/Berlin", "0 2,3 * * *", "2026-03-28T12:00", "2026-03-29T12:00", ["29 01:00"]),
        ("Europe/Berlin", "0 1 * * *", "2026-03-27T12:00", "2026-03-30T12:00", ["28 00:00", "29 00:00", "29 23:00"]),
        ("America/New_York", "30 2 * * *", "2026-03-07T12:00", "2026-03-09T12:00", ["08 07:00", "09 06:30"]),
        # Autumn: 02:00 to 03:00 comes twice in Berlin on 25 October, 01:00 to 02:00 in New York on 1 November.
        ("Europe/Berlin", "30 2 * * *", "2026-10-23T12:00", "2026-10-26T12:00", ["24 00:30", "25 00:30", "26 01:30"]),
        ("Europe/Berlin", "0 3 * * *", "2026-10-23T12:00", "2026-10-26T12:00", ["24 01:00", "25 02:00", "26 02:00"]),
        ("America/New_York", "30 1 * * *", "2026-10-31T12:00", "2026-11-02T12:00", ["01 05:30", "02 06:30"]),
        # By hours that pass, whatever they are called.
        ("Europe/Berlin", "0 * * * *", "2026-10-24T23:30", "2026-10-25T02:30", ["25 00:00", "25 01:00", "25 02:00"]),
        ("Europe/Berlin", "0 * * * *", "2026-03-28T23:30", "2026-03-29T02:30", ["29 00:00", "29 01:00", "29 02:00"]),
    ],
)
def test_a_time_that_is_skipped_or_comes_twice_fires_once(
    zone: str, cron: str, begin: str, end: str, fires: list[str]
) -> None:
    result = schedule.list_due_times(trigger(cron, zone, catchUp="All"), at(begin), at(end))
    assert listed(result) == fires


@pytest.mark.parametrize(("zone", "change"), [("Europe/Berlin", "2026-10-25"), ("Europe/Berlin", "2026-03-29")])
@pytest.mark.parametrize("cron", ["30 2 * * *", "0 2,3 * * *", "*/20 2 * * *", "0 */2 * * *", "15 1-4 * * *"])
def test_looking_often_fires_what_looking_once_fires(zone: str, change: str, cron: str) -> None:
    often, now, end = trigger(cron, zone, catchUp="All"), at(change) - DAY, at(change) + DAY
    once, result = schedule.list_due_times(often, now, end), []
    while now < end:
        result += schedule.list_due_times(often, now, now + timedelta(minutes=7))
        now += timedelta(minutes=7)
    assert tuple(time for time in result if time <= end) == once
    assert len(set(result)) == len(result)


@given(
    cron=st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 3 * * 1", "0 0 29 2 *", "15 1-4 * * 0"]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
    begin=st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1)),
    days=st.integers(0, 40),
)
@settings(max_examples=100, deadline=None)
def test_what_is_due_is_what_follows_step_by_step(cron: str, zone: str, begin: datetime, days: int) -> None:
    chosen = trigger(cron, zone, catchUp="All")
    since = begin.replace(tzinfo=UTC)
    now, expected = since + days * DAY, []
    following = schedule.next_time(chosen, since)
    while following is not None and following <= now:
        expected.append(following)
        following = schedule.next_time(chosen, following)
    assert schedule.list_due_times(chosen, since, now) == tuple(expected[-schedule.MAX_CATCH_UP :])


@pytest.mark.parametrize(
    ("cron", "zone", "said"),
    [
        ("0 0 30 2 *", "UTC", "schedule.cron: 0 0 30 2 * is no cron schedule that ever comes"),
        ("99 0 1 1 *", "UTC", "schedule.cron: 99 0 1 1 *"),
        ("0 3 * * 1", "Europe/Atlantis", "schedule.timeZone: there is no time zone Europe/Atlantis"),
        ("0 3 * * 1", "Europe", "schedule.timeZone: there is no time zone Europe"),
    ],
)
def test_a_schedule_that_never_comes_is_told_and_fires_nothing(cron: str, zone: str, said: str) -> None:
    now = at("2026-11-01T00:00")
    result = schedule.find_schedule_problem(trigger(cron, zone), now)
    assert result is not None
    assert result.startswith(said)
    assert schedule.list_due_times(trigger(cron, zone), now - DAY, now) == ()
    assert schedule.next_time(trigger(cron, zone), now) is None


@pytest.mark.parametrize("cron", ["0 3 * * 1", "0 0 29 2 *", "0 0 LW * *", "0 0 * * 5#3"])
def test_a_schedule_that_comes_has_no_problem(cron: str) -> None:
    assert schedule.find_schedule_problem(trigger(cron, "Europe/Berlin"), at("2026-11-01T00:00")) is None
