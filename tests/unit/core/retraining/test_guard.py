"""Which firings start a run, and why the others don't."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modelwright.api.v1alpha1.retraining import Backoff, Guard
from modelwright.api.v1alpha1.training import RunState
from modelwright.core.retraining import throttle
from modelwright.core.retraining.throttle import (
    AlreadyStarted,
    FiringDecision,
    PolicyRun,
    StartRun,
    SuppressFiring,
    build_run_name,
)
from modelwright.core.retraining.triggers import Firing

NOW = datetime(2026, 11, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
OPEN = {"cooldown": "0s", "concurrency": "Queue"}


def firing(identity: str = "1", *, ago: timedelta = timedelta(0), trigger: str = "weekly") -> Firing:
    return Firing(trigger, "schedule", identity, NOW - ago, "it is time")


def run(name: str, state: RunState = RunState.SUCCEEDED, *, ago: float = 48, **more: Any) -> PolicyRun:
    created = NOW - ago * HOUR
    ended = (
        created + HOUR if state in (RunState.SUCCEEDED, RunState.FAILED, RunState.SKIPPED, RunState.CANCELLED) else None
    )
    known = {"trigger": "weekly", "identity": name, "manual": False, "failed": state is RunState.FAILED, **more}
    return PolicyRun(name=name, created=created, ended=ended, state=state, **known)


def active(name: str, **more: Any) -> PolicyRun:
    return run(name, RunState.TRAINING, **more)


def judged(
    firings: list[Firing], runs: list[PolicyRun], overrides: dict[str, Any] | None = None, **more: Any
) -> list[FiringDecision]:
    known = {"policy": "digits", "policy_uid": "u1", "suspended": False, "now": NOW, **more}
    return list(throttle.judge_firings(firings, Guard.model_validate({**OPEN, **(overrides or {})}), runs, **known))


def outcomes(result: list[FiringDecision]) -> list[str]:
    return [str(one.reason) if isinstance(one, SuppressFiring) else type(one).__name__ for one in result]


@pytest.mark.parametrize(
    ("guards", "runs", "more", "result"),
    [
        ({}, [], {}, "StartRun"),
        ({}, [], {"suspended": True}, "Suspended"),
        ({}, [], {"retry_at": NOW + HOUR}, "BackingOff"),
        ({}, [], {"retry_at": NOW}, "StartRun"),
        ({"cooldown": "24h"}, [run("a", ago=23.9)], {}, "Cooldown"),
        ({"cooldown": "24h"}, [run("a", ago=24)], {}, "StartRun"),
        ({"cooldown": "24h"}, [run("a", ago=1, manual=True)], {}, "Cooldown"),
        ({"maxRuns": {"count": 2, "per": "168h"}}, [run("a", ago=167), run("b")], {}, "MaxRuns"),
        ({"maxRuns": {"count": 2, "per": "168h"}}, [run("a", ago=168), run("b")], {}, "StartRun"),
        ({"concurrency": "Forbid"}, [active("a")], {}, "RunActive"),
        ({"concurrency": "Forbid"}, [run("a", RunState.PENDING)], {}, "RunActive"),
        (
            {"concurrency": "Forbid"},
            [run("a"), run("b", RunState.SKIPPED), run("c", RunState.CANCELLED)],
            {},
            "StartRun",
        ),
        ({"concurrency": "Queue"}, [active("a")], {}, "StartRun"),
        ({"concurrency": "Queue"}, [active("a"), run("b", RunState.QUEUED)], {}, "QueueFull"),
        ({"concurrency": "Replace"}, [active("a")], {}, "StartRun"),
        ({"concurrency": "Replace"}, [active("a", manual=True)], {}, "RunActive"),
        # What comes first in the order is the reported reason.
        ({"cooldown": "24h"}, [active("a", ago=1)], {"suspended": True, "retry_at": NOW + HOUR}, "Suspended"),
        ({"cooldown": "24h"}, [active("a", ago=1)], {"retry_at": NOW + HOUR}, "BackingOff"),
        ({"cooldown": "24h", "maxRuns": {"count": 1, "per": "24h"}}, [run("a", ago=1)], {}, "Cooldown"),
        ({"maxRuns": {"count": 1, "per": "24h"}, "concurrency": "Forbid"}, [active("a", ago=1)], {}, "MaxRuns"),
    ],
)
def test_a_firing_starts_a_run_unless_something_holds_it_back(
    guards: dict[str, Any], runs: list[PolicyRun], more: dict[str, Any], result: str
) -> None:
    assert outcomes(judged([firing()], runs, guards, **more)) == [result]


def test_a_firing_whose_run_exists_is_known_whatever_holds_back() -> None:
    name = build_run_name("digits", "u1", "weekly", "1")
    (result,) = judged([firing()], [run(name, ago=1)], {"cooldown": "24h"}, suspended=True)
    assert result == AlreadyStarted(firing(), name)
    assert outcomes(judged([firing(), firing()], [])) == ["StartRun", "AlreadyStarted"]


@pytest.mark.parametrize(
    ("guards", "results"),
    [
        ({"concurrency": "Forbid"}, ["StartRun", "RunActive", "RunActive"]),
        ({"concurrency": "Queue"}, ["StartRun", "StartRun", "QueueFull"]),
        ({"concurrency": "Replace"}, ["StartRun", "StartRun", "StartRun"]),
        ({"concurrency": "Queue", "cooldown": "1h"}, ["StartRun", "Cooldown", "Cooldown"]),
        ({"concurrency": "Replace", "maxRuns": {"count": 2, "per": "24h"}}, ["StartRun", "StartRun", "MaxRuns"]),
    ],
)
def test_simultaneous_firings_are_judged_in_order(guards: dict[str, Any], results: list[str]) -> None:
    three = [firing("c"), firing("a", ago=2 * HOUR), firing("b", ago=HOUR)]
    result = judged(three, [], guards)
    assert [one.firing.identity for one in result] == ["a", "b", "c"]
    assert outcomes(result) == results


def test_caught_up_time_waits_only_for_a_place_in_the_queue() -> None:
    times = [replace(firing(name, ago=ago * HOUR), waits=True) for name, ago in (("a", 3), ("b", 2), ("c", 1))]
    first, second = judged(times, [])
    assert [first.firing.identity, second.firing.identity] == ["a", "b"]
    assert judged(times[2:], [active("x"), run("y", RunState.QUEUED)]) == []
    assert outcomes(judged(times[2:], [active("x")])) == ["StartRun"]
    assert outcomes(judged(times, [active("x")], {"concurrency": "Forbid"})) == ["RunActive"] * 3
    assert outcomes(judged(times, [], {"cooldown": "1h"})) == ["StartRun", "Cooldown", "Cooldown"]


def test_replace_names_active_runs_of_the_same_pass_too() -> None:
    first, second = judged([firing("a", ago=HOUR), firing("b")], [active("x"), run("y")], {"concurrency": "Replace"})
    assert isinstance(first, StartRun)
    assert isinstance(second, StartRun)
    assert (first.replaces, second.replaces) == (("x",), (first.run,))


def test_the_message_says_what_holds_back() -> None:
    (result,) = judged([firing()], [run("digits-weekly-abc", ago=1)], {"cooldown": "24h"})
    assert isinstance(result, SuppressFiring)
    assert result.message == "digits-weekly-abc began at 2026-11-04T11:00:00Z, less than 24h ago"


@pytest.mark.parametrize(
    ("runs", "kept", "last_run", "count", "last"),
    [
        ([], 0, None, 0, None),
        ([run("a", RunState.FAILED)], 0, None, 1, NOW - 47 * HOUR),
        ([run("a", RunState.FAILED, ago=50), run("b", RunState.FAILED)], 0, None, 2, NOW - 47 * HOUR),
        ([run("a", RunState.FAILED, ago=50), run("b")], 0, None, 0, None),
        ([run("a", ago=50), run("b", RunState.FAILED)], 0, None, 1, NOW - 47 * HOUR),
        # Skipped and cancelled runs are neither, and a run that goes on is nothing yet.
        ([run("a", RunState.FAILED, ago=50), run("b", RunState.SKIPPED), active("c")], 0, None, 1, NOW - 49 * HOUR),
        ([run("a", RunState.FAILED, ago=50), run("b", RunState.CANCELLED)], 0, None, 1, NOW - 49 * HOUR),
        # Its version was rolled back.
        ([run("a", RunState.FAILED, ago=50), run("b", failed=True)], 0, None, 2, NOW - 47 * HOUR),
        ([run("b", failed=True, failed_at=NOW - HOUR)], 0, None, 1, NOW - HOUR),
        # Older ones were cleared away, as the status remembers.
        ([run("a", RunState.FAILED)], 4, "a", 4, NOW - 47 * HOUR),
        ([run("a", RunState.FAILED), run("b", RunState.FAILED, ago=2)], 4, "a", 5, NOW - HOUR),
        ([run("b", RunState.FAILED, ago=2)], 4, "gone", 4, NOW - HOUR),
        ([run("a", RunState.FAILED), run("b", ago=2)], 4, "a", 0, None),
    ],
)
def test_consecutive_failures_are_counted_back_to_a_success(
    runs: list[PolicyRun], kept: int, last_run: str | None, count: int, last: datetime | None
) -> None:
    assert throttle.count_failures(runs, kept, last_run) == (count, last)


@pytest.mark.parametrize(
    ("failures", "minutes"), [(0, None), (1, 10), (2, 20), (3, 40), (7, 640), (8, 1280), (9, 1440), (10**6, 1440)]
)
def test_backoff_doubles_after_each_failure_up_to_max(failures: int, minutes: int | None) -> None:
    backoff = Backoff.model_validate({"initial": "10m", "max": "24h"})
    expected = NOW + timedelta(minutes=minutes) if minutes is not None else None
    assert throttle.compute_retry_time(backoff, failures, NOW) == expected


def test_max_bounds_the_first_wait_too() -> None:
    assert throttle.compute_retry_time(Backoff.model_validate({"initial": "2h", "max": "1h"}), 1, NOW) == NOW + HOUR


def test_runs_that_a_guard_counts_are_needed() -> None:
    runs = [run("old", ago=200), run("week", ago=100), run("day", ago=3)]
    weekly = Guard.model_validate({"cooldown": "24h", "maxRuns": {"count": 3, "per": "168h"}})
    assert throttle.list_counted_runs(weekly, runs, NOW) == {"week", "day"}
    assert throttle.list_counted_runs(Guard.model_validate({"cooldown": "24h"}), runs, NOW) == {"day"}


def test_names_of_runs_fit_and_differ_whenever_the_cause_does() -> None:
    causes = [
        ("digits", "u1", "weekly", "1"),
        ("digits", "u2", "weekly", "1"),
        ("digits", "u1", "weekly", "2"),
        ("digits-weekly", "u1", "x", "1"),
        ("digits", "u1", "weekly-x", "1"),
        ("d" * 40, "u1", "w" * 63, "1" * 253),
        ("d" * 40, "u1", "w" * 63, "1" * 252),
        ("a.b", "u1", "weekly", "1"),
    ]
    result = [build_run_name(*cause) for cause in causes]
    assert len(set(result)) == len(causes)
    assert all(len(name) <= 52 and "." not in name for name in result)
    assert result[0].startswith("digits-weekly-")
