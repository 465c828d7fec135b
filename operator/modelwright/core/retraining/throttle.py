"""What holds triggers back: which firings start a run, which are let go, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from modelwright.api import names
from modelwright.api.common import parse_duration
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.retraining import Backoff, Guard
from modelwright.api.v1alpha1.training import RunState
from modelwright.core.retraining.run_observation import RUN_TERMINAL_STATES
from modelwright.core.retraining.triggers import Firing

RUN_NAME_MAX = 52

_MAX_DOUBLINGS = 40
"""From a second that is longer than any bound."""


@dataclass(frozen=True, slots=True)
class PolicyRun:
    """A run of the policy. `failed`: it failed, or its version was refused or rolled back. Skipped and Cancelled are
    neither failure nor success. `failed_at`: when its version was, if that was after the run's end."""

    name: str
    trigger: str
    identity: str
    manual: bool
    created: datetime
    ended: datetime | None
    state: RunState | None
    failed: bool
    failed_at: datetime | None = None

    @property
    def is_active(self) -> bool:
        """Whether it goes on, or waits to."""
        return self.ended is None and self.state not in RUN_TERMINAL_STATES


@dataclass(frozen=True, slots=True)
class StartRun:
    """A run of this name is to be made, when those that it replaces have been told to end."""

    firing: Firing
    run: str
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SuppressFiring:
    """The firing is let go; `message` says why, for people."""

    firing: Firing
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class AlreadyStarted:
    """The firing has its run already."""

    firing: Firing
    run: str


FiringDecision = StartRun | SuppressFiring | AlreadyStarted


def build_run_name(policy: str, policy_uid: str, trigger: str, identity: str) -> str:
    """Name of the one run for this identity of a trigger; at most 52 characters."""
    return names.cut_with_hash(f"{policy}-{trigger}", RUN_NAME_MAX, policy, policy_uid, trigger, identity)


def count_failures(
    runs: Sequence[PolicyRun], kept: int = 0, last_run: str | None = None
) -> tuple[int, datetime | None]:
    """Runs in a row that came to nothing, from the newest end until a success, and when the last of them did.

    `kept`: what the policy's status says, as of the end of `last_run`. It counts when no success is among `runs`: older
    failures may have been cleared away since.
    """
    ended = sorted((run for run in runs if run.ended is not None), key=lambda run: (run.ended, run.name), reverse=True)
    count, since_kept, last = 0, 0, None
    seen_kept = False
    for run in ended:
        seen_kept = seen_kept or run.name == last_run
        if run.state is RunState.SUCCEEDED and not run.failed:
            return count, last
        if run.failed:
            count += 1
            since_kept += not seen_kept
            at = run.failed_at or run.ended
            last = at if last is None or (at is not None and at > last) else last
    return max(count, kept + (since_kept if seen_kept else 0)), last


def compute_retry_time(backoff: Backoff, failures: int, last: datetime | None) -> datetime | None:
    """Until when triggers wait after so many failures in a row, the last one at `last`: `initial`, then twice as long
    after each further one, at most `max`. None without failures."""
    if failures < 1 or last is None:
        return None
    wait = parse_duration(backoff.initial) * 2 ** min(failures - 1, _MAX_DOUBLINGS)
    return last + timedelta(seconds=min(wait, parse_duration(backoff.max)))


def judge_firings(
    firings: Sequence[Firing],
    guard: Guard,
    runs: Sequence[PolicyRun],
    *,
    policy: str,
    policy_uid: str,
    suspended: bool,
    now: datetime,
    retry_at: datetime | None = None,
) -> tuple[FiringDecision, ...]:
    """What becomes of each firing, in the order of their times; each decision counts for those after it. One that waits
    for a place in the queue is left out: it is not dealt with, and comes again.

    Looked at in this order: whether its run exists, suspend, back-off, cooldown, runs in the span, other runs. All runs
    count, those that people asked for too: cooldown and maxRuns are about what training costs. But a trigger never
    replaces a run that a person asked for; it is let go while one goes on or waits.
    """
    known = list(runs)
    found: list[FiringDecision] = []
    for firing in sorted(firings, key=lambda firing: (firing.at, firing.trigger, firing.identity)):
        name = build_run_name(policy, policy_uid, firing.trigger, firing.identity)
        if any(run.name == name for run in known):
            found.append(AlreadyStarted(firing, name))
            continue
        why = _suppression_reason(guard, known, suspended=suspended, now=now, retry_at=retry_at)
        if why is not None:
            if why[0] != Reason.QUEUE_FULL or not firing.waits:
                found.append(SuppressFiring(firing, *why))
            continue
        replaced = tuple(run.name for run in known if run.is_active) if guard.concurrency == "Replace" else ()
        known = [run for run in known if run.name not in replaced] + [
            _cancel_run(run, now) for run in known if run.name in replaced
        ]
        known.append(PolicyRun(name, firing.trigger, firing.identity, False, now, None, None, False))
        found.append(StartRun(firing, name, replaced))
    return tuple(found)


def list_counted_runs(guard: Guard, runs: Sequence[PolicyRun], now: datetime) -> frozenset[str]:
    """Names of the runs that cooldown or maxRuns still count: they must not be cleared away, whatever the history."""
    spans = [guard.cooldown, *([guard.max_runs.per] if guard.max_runs is not None else [])]
    longest = timedelta(seconds=max(map(parse_duration, spans)))
    return frozenset(run.name for run in runs if now - run.created < longest)


def _suppression_reason(
    guard: Guard, runs: Sequence[PolicyRun], *, suspended: bool, now: datetime, retry_at: datetime | None
) -> tuple[str, str] | None:
    if suspended:
        return Reason.SUSPENDED, "spec.suspend is true"
    if retry_at is not None and now < retry_at:
        return Reason.BACKING_OFF, f"runs in a row came to nothing: triggers wait until {_format_time(retry_at)}"
    newest = max(runs, key=lambda run: (run.created, run.name), default=None)
    if newest is not None and now - newest.created < timedelta(seconds=parse_duration(guard.cooldown)):
        return Reason.COOLDOWN, f"{newest.name} began at {_format_time(newest.created)}, less than {guard.cooldown} ago"
    if guard.max_runs is not None:
        span = timedelta(seconds=parse_duration(guard.max_runs.per))
        count = sum(now - run.created < span for run in runs)
        if count >= guard.max_runs.count:
            return Reason.MAX_RUNS, f"{count} runs began within {guard.max_runs.per}; maxRuns is {guard.max_runs.count}"
    active = [run for run in runs if run.is_active]
    if guard.concurrency == "Queue":
        text = "one run goes on, and another one waits for its end"
        return (Reason.QUEUE_FULL, f"{text}: {_format_names(active)}") if len(active) > 1 else None
    in_the_way = active if guard.concurrency == "Forbid" else [run for run in active if run.manual]
    return (Reason.RUN_ACTIVE, f"{_format_names(in_the_way)} has not ended") if in_the_way else None


def _cancel_run(run: PolicyRun, now: datetime) -> PolicyRun:
    return PolicyRun(
        run.name, run.trigger, run.identity, run.manual, run.created, now, RunState.CANCELLED, run.failed, run.failed_at
    )


def _format_names(runs: Sequence[PolicyRun]) -> str:
    return ", ".join(run.name for run in runs[:3]) + (f" and {len(runs) - 3} more" if len(runs) > 3 else "")


def _format_time(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
