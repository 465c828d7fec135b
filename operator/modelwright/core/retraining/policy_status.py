"""The status of a RetrainingPolicy. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from modelwright.api.v1alpha1.retraining import (
    RetrainingPolicy,
    RetrainingPolicyStatus,
    SuppressedStatus,
    TriggerStatus,
)
from modelwright.api.v1alpha1.training import TrainingRun
from modelwright.core.retraining import triggers
from modelwright.core.retraining.run_machine import RUN_TERMINAL_STATES
from modelwright.core.retraining.throttle import AlreadyStarted, StartRun, SuppressFiring
from modelwright.core.status.readiness import ConditionSummary, build_conditions

MAX_COUNT = 2**31 - 1
"""Largest count that the API's integers hold."""
MAX_SUPPRESSED = 128

TriggerDecision = StartRun | SuppressFiring | AlreadyStarted


@dataclass(frozen=True, slots=True)
class BackoffState:
    """Consecutive failed runs, and until when no further run starts."""

    failures: int
    retry_at: datetime | None


def build_policy_status(
    policy: RetrainingPolicy,
    summary: ConditionSummary,
    decisions: Sequence[TriggerDecision],
    baselines: Mapping[str, str],
    runs: Sequence[TrainingRun],
    backoff: BackoffState,
    now: datetime,
) -> RetrainingPolicyStatus:
    """Build the status. `baselines`: the first fingerprints of data triggers, by name. `runs`: those of the policy."""
    old = policy.status
    ended = sorted(
        (run for run in runs if run.status.state in RUN_TERMINAL_STATES),
        key=lambda run: run.status.finished_at or now,
    )
    active = [run.name for run in runs if run.status.state not in RUN_TERMINAL_STATES]
    made_versions = [run.status.version for run in ended if run.status.version]
    is_backing_off = backoff.retry_at is not None and backoff.retry_at > now
    return RetrainingPolicyStatus(
        observed_generation=policy.generation,
        triggers=_list_triggers(policy, decisions, baselines, now),
        suppressed=_count_suppressed(policy, decisions, now),
        active_run=active[0] if active else None,
        last_run=ended[-1].name if ended else old.last_run,
        last_version=made_versions[-1] if made_versions else old.last_version,
        failures=backoff.failures or None,
        retry_at=backoff.retry_at if is_backing_off else None,
        conditions=build_conditions(old.conditions, summary, None, generation=policy.generation, now=now),
    )


def anchor_status(policy: RetrainingPolicy, now: datetime) -> RetrainingPolicyStatus:
    """The policy's status with a starting time for each schedule: without status, ticks before it are not caught up."""
    created = policy.metadata.creation_timestamp
    since = created if policy.status.observed_generation is None and created is not None else now
    return triggers.anchor_schedules(policy.spec, policy.status, since, now)


def _list_triggers(
    policy: RetrainingPolicy, decisions: Sequence[TriggerDecision], baselines: Mapping[str, str], now: datetime
) -> tuple[TriggerStatus, ...]:
    known = {trigger.name for trigger in policy.spec.triggers}
    by_name = {entry.name: entry for entry in anchor_status(policy, now).triggers if entry.name in known}
    for name, fingerprint in baselines.items():
        by_name[name] = TriggerStatus(name=name, identity=fingerprint)
    for decision in decisions:
        firing = decision.firing
        outcome, run = _decision_outcome(decision)
        entry = by_name.get(firing.trigger)
        by_name[firing.trigger] = TriggerStatus(
            name=firing.trigger,
            identity=firing.fingerprint or firing.identity,
            at=firing.at,
            outcome=outcome,
            run=run,
            schedule=entry.schedule if entry is not None else None,
            since=entry.since if entry is not None else None,
        )
    return tuple(by_name[name] for name in sorted(by_name))


def _count_suppressed(
    policy: RetrainingPolicy, decisions: Sequence[TriggerDecision], now: datetime
) -> tuple[SuppressedStatus, ...]:
    known = {trigger.name for trigger in policy.spec.triggers}
    counts = {(entry.trigger, entry.reason): entry for entry in policy.status.suppressed if entry.trigger in known}
    for decision in decisions:
        if isinstance(decision, SuppressFiring):
            key = (decision.firing.trigger, decision.reason)
            before = counts[key].count if key in counts else 0
            counts[key] = SuppressedStatus(
                trigger=decision.firing.trigger,
                reason=decision.reason,
                count=min(before + 1, MAX_COUNT),
                last_at=now,
                message=decision.message,
            )
    return tuple(counts[key] for key in sorted(counts))[:MAX_SUPPRESSED]


def _decision_outcome(decision: TriggerDecision) -> tuple[str, str | None]:
    """The outcome of a firing, and the run that it started."""
    if isinstance(decision, StartRun):
        return ("Replaced" if decision.replaces else "Started"), decision.run
    if isinstance(decision, AlreadyStarted):
        return "Started", decision.run
    return decision.reason, None
