"""Throttles triggers: decides which firings start a run, and which are suppressed for which reason."""

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
"""Maximum number of doublings of a back-off: from one second on, more than any maximum."""


@dataclass(frozen=True, slots=True)
class PolicyRun:
    """A run of the policy.

    `failed`: it failed, or its version was rejected or rolled back; Skipped and Cancelled are neither failure nor
    success. `failed_at`: time of the latter, if after the end of the run.
    """

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
        """Whether it is running or waiting."""
        return self.ended is None and self.state not in RUN_TERMINAL_STATES


@dataclass(frozen=True, slots=True)
class StartRun:
    """A run of this name is to be created, once the runs that it replaces are cancelled."""

    firing: Firing
    run: str
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SuppressFiring:
    """The firing is suppressed, for this reason."""

    firing: Firing
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class AlreadyStarted:
    """The firing has already started its run."""

    firing: Firing
    run: str


FiringDecision = StartRun | SuppressFiring | AlreadyStarted


def build_run_name(policy: str, policy_uid: str, trigger: str, identity: str) -> str:
    """Build the name of the only run for this identity of a trigger; at most 52 characters."""
    return names.cut_with_hash(f"{policy}-{trigger}", RUN_NAME_MAX, policy, policy_uid, trigger, identity)


def count_failures(
    runs: Sequence[PolicyRun], kept: int = 0, last_run: str | None = None
) -> tuple[int, datetime | None]:
    """Count the consecutive failed runs, from the latest end back to a success, and return the time of the last one.

    `kept`: the count in the policy's status, as of the end of `last_run`. It is used if no success is among `runs`,
    because older failures may have been deleted since.
    """
    ended = sorted((run for run in runs if run.ended is not None), key=lambda run: (run.ended, run.name), reverse=True)
    count, since_kept, last_failure = 0, 0, None
    reached_kept = False
    for run in ended:
        reached_kept = reached_kept or run.name == last_run
        if run.state is RunState.SUCCEEDED and not run.failed:
            return count, last_failure
        if run.failed:
            count += 1
            since_kept += not reached_kept
            at = run.failed_at or run.ended
            last_failure = at if last_failure is None or (at is not None and at > last_failure) else last_failure
    return max(count, kept + (since_kept if reached_kept else 0)), last_failure


def compute_retry_time(backoff: Backoff, failures: int, last: datetime | None) -> datetime | None:
    """Compute the time until which triggers wait after consecutive failures, the last one at `last`.

    They wait `initial`, then twice as long after each further failure, at most `max`. None without failures.
    """
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
    """Decide about each firing, in the order of their times; each decision counts for the following ones. A firing that
    waits for a place in the queue is left out: it is not handled, and comes again.

    The checks, in this order: whether its run exists, suspend, back-off, cooldown, maxRuns, other runs. All runs count,
    manual ones too, since cooldown and maxRuns limit the cost of training. But a trigger never replaces a manual run:
    it is suppressed while one is running or waiting.
    """
    all_runs = list(runs)
    decisions: list[FiringDecision] = []
    for firing in sorted(firings, key=lambda firing: (firing.at, firing.trigger, firing.identity)):
        name = build_run_name(policy, policy_uid, firing.trigger, firing.identity)
        if any(run.name == name for run in all_runs):
            decisions.append(AlreadyStarted(firing, name))
            continue
        reason = _suppression_reason(guard, all_runs, suspended=suspended, now=now, retry_at=retry_at)
        if reason is not None:
            if reason[0] != Reason.QUEUE_FULL or not firing.waits:
                decisions.append(SuppressFiring(firing, *reason))
            continue
        replaced = tuple(run.name for run in all_runs if run.is_active) if guard.concurrency == "Replace" else ()
        all_runs = [run for run in all_runs if run.name not in replaced] + [
            _cancel_run(run, now) for run in all_runs if run.name in replaced
        ]
        all_runs.append(PolicyRun(name, firing.trigger, firing.identity, False, now, None, None, False))
        decisions.append(StartRun(firing, name, replaced))
    return tuple(decisions)


def list_counted_runs(guard: Guard, runs: Sequence[PolicyRun], now: datetime) -> frozenset[str]:
    """List the names of the runs that cooldown or maxRuns still count: they must not be deleted, regardless of the
    history limits."""
    spans = [guard.cooldown, *([guard.max_runs.per] if guard.max_runs is not None else [])]
    longest = timedelta(seconds=max(map(parse_duration, spans)))
    return frozenset(run.name for run in runs if now - run.created < longest)


def _suppression_reason(
    guard: Guard, runs: Sequence[PolicyRun], *, suspended: bool, now: datetime, retry_at: datetime | None
) -> tuple[str, str] | None:
    if suspended:
        return Reason.SUSPENDED, "spec.suspend is true"
    if retry_at is not None and now < retry_at:
        return Reason.BACKING_OFF, f"consecutive runs failed: triggers wait until {_format_time(retry_at)}"
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
        text = "one run is active, and another one waits for its end"
        return (Reason.QUEUE_FULL, f"{text}: {_format_names(active)}") if len(active) > 1 else None
    blocking = active if guard.concurrency == "Forbid" else [run for run in active if run.manual]
    return (Reason.RUN_ACTIVE, f"{_format_names(blocking)} has not ended") if blocking else None


def _cancel_run(run: PolicyRun, now: datetime) -> PolicyRun:
    return PolicyRun(
        run.name, run.trigger, run.identity, run.manual, run.created, now, RunState.CANCELLED, run.failed, run.failed_at
    )


def _format_names(runs: Sequence[PolicyRun]) -> str:
    return ", ".join(run.name for run in runs[:3]) + (f" and {len(runs) - 3} more" if len(runs) > 3 else "")


def _format_time(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
