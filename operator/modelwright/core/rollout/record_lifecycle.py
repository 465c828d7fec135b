"""How a rollout record starts, how it ends without a decision of its own, and whether its version is quarantined."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from modelwright.api import names
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.policy import RolloutPolicy
from modelwright.api.v1alpha1.rollout import PolicySnapshot, RevisionRef, RolloutState
from modelwright.api.v1alpha1.version import Stage
from modelwright.core.revision import Revision
from modelwright.core.rollout.measured_step import STEP_STATES
from modelwright.core.rollout.observation import Observation, ServingRevision
from modelwright.core.rollout.record import REVERTED_STATES, RolloutRecord
from modelwright.core.rollout.steps import RolloutStep


def creation_order(record: RolloutRecord) -> tuple[datetime, datetime, int, str]:
    """Sort key, oldest first. Creation times have whole seconds: of two in the same second, the one that started later
    is younger."""
    started = record.status.started_at or datetime.max.replace(tzinfo=UTC)
    return record.created, started, record.spec.number or 0, record.name


def initialize_record(
    record: RolloutRecord | None, model: Model, base: Observation, policy: RolloutPolicy | None
) -> RolloutRecord | None:
    """Fill in what a record that has just been created must remember of this moment; others are returned as they are.

    `base`: the observation without its rollout. `policy`: the Model's policy as it is now.
    """
    if record is None or record.status.state is not None or base.target is None:
        return record
    serving = base.serving.revision if base.serving is not None else None
    requested = record.spec.target
    # A record whose operator died before it wrote the status moves to what was wanted then; the table sees the change.
    target = (
        Revision(requested.version, requested.revision) if requested.revision and not record.is_manual else base.target
    )
    snapshot = None
    if policy is not None:
        snapshot = PolicySnapshot(name=policy.name, generation=policy.generation, spec=policy.spec.wire())
    if serving == target and base.target_serves and not record.is_manual:
        # It had ended, and its status was lost since: steps from a revision to itself would take pods from callers.
        return record.with_status(
            state=RolloutState.SUCCEEDED,
            reason=str(Reason.SERVING),
            message=f"version {target.version} serves already",
            since=base.now,
            started_at=base.now,
            finished_at=base.now,
            to=RevisionRef(version=target.version, revision=target.hash),
            policy=snapshot,
        )
    return record.with_status(
        state=RolloutState.PENDING,
        reason=str(Reason.ROLLOUT_IN_PROGRESS),
        message=f"a rollout to version {target.version}",
        since=base.now,
        started_at=base.now,
        from_=RevisionRef(version=serving.version, revision=serving.hash) if serving is not None else None,
        to=RevisionRef(version=target.version, revision=target.hash),
        policy=snapshot,
        held_from=hash_target_spec(model) if record.is_manual else None,
        preview=f"http://{names.revision_name(model.name, target.hash)}.{model.namespace}.svc",
    )


def supersede_record(record: RolloutRecord, newest: str, now: datetime) -> RolloutRecord:
    """End a record whose place the ModelRollout called `newest` has taken."""
    return record.with_status(
        state=RolloutState.SUPERSEDED,
        reason=str(Reason.SUPERSEDED),
        message=f"ModelRollout {newest} has taken its place",
        since=now,
        # A record that never started, or lost its status, must not sort as the younger of two of the same second.
        started_at=record.status.started_at or record.created,
        finished_at=now,
    )


def reject_rollback(record: RolloutRecord, why: str, now: datetime) -> RolloutRecord:
    """End a manual rollback that can't be carried out."""
    return record.with_status(
        state=RolloutState.SUPERSEDED, reason=str(Reason.INVALID_SPEC), message=why, since=now, finished_at=now
    )


def find_failed_stage(records: Iterable[RolloutRecord], version: str) -> Stage | None:
    """The stage in which the last rollout to a version left it.

    Rejected by a gate or an approver, Quarantined after a rollback or abort; None when that rollout is active, ended
    well, may be tried again, or when a gate decided nothing.
    """
    of_version = (record for record in records if record.spec.target.version == version)
    last = max(of_version, key=creation_order, default=None)
    if last is None or last.state not in REVERTED_STATES or last.status.retried or last.ended_undecided:
        return None
    rejected = last.status.reason in (Reason.GATE_FAILED, Reason.APPROVAL_REJECTED)
    return Stage.REJECTED if rejected else Stage.QUARANTINED


def serving_after_promotion(
    record: RolloutRecord | None, serving: ServingRevision | None, targets: frozenset[str]
) -> ServingRevision | None:
    """The serving revision, also where the Model's status could not be written after a rollout succeeded.

    `record`: the rollout that ended last. `serving`: as the status has it. `targets`: hashes that requests go to.
    """
    ended = record.status.finished_at if record is not None else None
    if record is None or record.candidate is None or ended is None or record.state is not RolloutState.SUCCEEDED:
        return serving
    if targets != {record.candidate.hash}:
        return serving
    if serving is not None and (serving.revision == record.candidate or serving.since >= ended):
        return serving
    return ServingRevision(record.candidate, ended)


def hash_target_spec(model: Model) -> str:
    """Hash of spec.version, by which a change of it is noticed."""
    return names.content_hash(model.spec.version.wire())


def is_released_by_spec(record: RolloutRecord | None, model: Model) -> bool:
    """Whether spec.version was changed since the manual rollback started."""
    held_from = record.status.held_from if record is not None else None
    return held_from is not None and held_from != hash_target_spec(model)


def current_step(record: RolloutRecord | None, steps: tuple[RolloutStep, ...]) -> RolloutStep | None:
    """The step in progress; None once the record rolls back or promotes."""
    if record is None or record.state not in STEP_STATES or record.status.step is None:
        return None
    return steps[record.step_index] if record.step_index < len(steps) else None


def has_hold_ended(record: RolloutRecord | None, hold: timedelta, now: datetime) -> bool:
    """Whether the current step's traffic has been in force for `hold`."""
    entry = record.step_status if record is not None else None
    return entry is not None and entry.confirmed_at is not None and now - entry.confirmed_at >= hold
