"""The ModelRollouts of a Model: loaded from the store, created, written and pruned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from modelwright.api import names
from modelwright.api.common import InvalidObject
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.rollout import ModelRollout
from modelwright.api.v1alpha1.version import Stage
from modelwright.core import commands
from modelwright.core.revision import Revision
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.rollout.record_lifecycle import (
    creation_order,
    find_failed_stage,
    reject_rollback,
    supersede_record,
)
from modelwright.core.status.rollout_conditions import build_rollout_conditions
from modelwright.kube import api_errors, kinds
from modelwright.kube.queue import Key
from modelwright.reconcile import policy_snapshots
from modelwright.reconcile.context import Context
from modelwright.reconcile.model import metric_updates
from modelwright.reconcile.status_writer import write_status

Object = dict[str, Any]


@dataclass(frozen=True)
class RolloutHistory:
    """The ModelRollouts of one Model. `newest` is the one in force; `raw` are all, by name."""

    newest: RolloutRecord | None
    raw: Mapping[str, Object]
    superseded: tuple[RolloutRecord, ...]
    """Older records that have not ended: a newer one has taken their place."""
    ended: tuple[RolloutRecord, ...]
    """Older records that have ended, oldest first."""
    next_number: int
    """Number of the next record that the operator creates."""
    invalid_rollbacks: tuple[tuple[RolloutRecord, str], ...] = ()
    """Manual rollbacks that can't be carried out, with the reason; they have no other effect."""

    @property
    def manual_rollback(self) -> RolloutRecord | None:
        """The manual rollback that decides where the Model goes, if one does."""
        return self.newest if self.newest is not None and self.newest.pins_model else None

    @property
    def last_finished(self) -> RolloutRecord | None:
        """The newest record that has finished, which decides what serves; the newest of all before any has."""
        if self.newest is not None and self.newest.status.finished_at is None and self.ended:
            return self.ended[-1]
        return self.newest

    @property
    def counted(self) -> tuple[RolloutRecord, ...]:
        """The ended records and the newest one, oldest first."""
        return (*self.ended, *([self.newest] if self.newest is not None else []))


async def load_history(context: Context, model: Model) -> RolloutHistory:
    """Load the ModelRollouts of this very Model; the newest one with its whole policy."""
    history = _read_history(context, model)
    newest = history.newest
    if newest is None:
        return history
    snapshot = newest.status.policy
    policy = await policy_snapshots.restore_spec(
        context, model.namespace, kinds.ROLLOUT_POLICY, snapshot, ask=newest.is_active
    )
    return history if policy is snapshot else replace(history, newest=newest.with_status(policy=policy))


def _read_history(context: Context, model: Model) -> RolloutHistory:
    records, raw_by_name, numbers, invalid = [], {}, [0], []
    served = [(entry.version, entry.revision) for entry in (model.status.serving, *model.status.history) if entry]
    for raw in context.store.by_model(kinds.MODEL_ROLLOUT, model.namespace, model.name):
        rollout = _parse_rollout(raw, model)
        if rollout is None:
            continue
        is_new = rollout.status.state is None
        if rollout.spec.rollback is not None and is_new and not _has_proven_author(context, rollout):
            continue
        if rollout.spec.rollback is not None and rollout.status.started_at is None:
            problem = commands.rollback_target_problem(rollout.spec.target, served)
            if problem is not None or not is_new:
                raw_by_name[rollout.name] = raw
                if is_new and problem is not None:
                    invalid.append((RolloutRecord.from_rollout(rollout), problem))
                continue
        numbers.append(rollout.spec.number or 0)
        if rollout.metadata.deletion_timestamp is None:
            records.append(RolloutRecord.from_rollout(rollout))
            raw_by_name[rollout.name] = raw
    records.sort(key=creation_order)
    older = records[:-1]
    return RolloutHistory(
        newest=records[-1] if records else None,
        raw=raw_by_name,
        superseded=tuple(record for record in older if record.is_active),
        ended=tuple(record for record in older if not record.is_active),
        next_number=max(numbers) + 1,
        invalid_rollbacks=tuple(invalid),
    )


def _parse_rollout(raw: Object, model: Model) -> ModelRollout | None:
    """The ModelRollout, if it is one of this very Model; those of a former Model of the same name are left alone."""
    try:
        rollout = ModelRollout.parse(raw)
    except InvalidObject:
        return None
    created, model_created = rollout.metadata.creation_timestamp, model.metadata.creation_timestamp
    if rollout.spec.model_uid not in (None, model.uid) or created is None:
        return None
    if rollout.spec.model_uid is None and model_created is not None and created < model_created:
        return None
    return rollout


def _has_proven_author(context: Context, rollout: ModelRollout) -> bool:
    """Whether admission was in force when the rollout was created, and so has checked the name of its author."""
    admission, created = context.admission(rollout.namespace), rollout.metadata.creation_timestamp
    return bool(admission.in_force) and (
        admission.since is None or (created is not None and created >= admission.since)
    )


def failed_stage(context: Context, namespace: str, model: str, version: str) -> Stage | None:
    """The stage in which the last rollout to a version left it, by `find_failed_stage`."""
    records = []
    for raw in context.store.by_model(kinds.MODEL_ROLLOUT, namespace, model):
        try:
            records.append(RolloutRecord.from_rollout(ModelRollout.parse(raw)))
        except InvalidObject:
            continue
    return find_failed_stage(records, version)


async def create_record(context: Context, model: Model, target: Revision, number: int) -> bool:
    """Create the record of the move to `target`; an existing one of that name is used as it is."""
    body = {
        "apiVersion": names.API_VERSION,
        "kind": "ModelRollout",
        "metadata": {
            "name": f"{model.name}-{number}",
            "namespace": model.namespace,
            "labels": names.model_labels(model.name),
        },
        "spec": {
            "modelRef": {"name": model.name},
            "modelUid": model.uid,
            "number": number,
            "target": {"version": target.version, "revision": target.hash},
        },
    }
    try:
        live = await context.client.create(body)
    except api_errors.AlreadyExists:
        existing = await context.client.get(kinds.MODEL_ROLLOUT, model.namespace, f"{model.name}-{number}")
        if existing is None:
            raise
        live = {**existing, "apiVersion": names.API_VERSION, "kind": "ModelRollout"}
    context.store.put(live, quiet=True)
    context.enqueue(Key("Model", model.namespace, model.name))
    return True


async def write_record(
    context: Context,
    raw: Object,
    old: RolloutRecord,
    new: RolloutRecord,
    now: datetime,
    *,
    stalled: bool = False,
    evidence: tuple[bool, Reason, str] | None = None,
) -> bool:
    """Write the record's status when it has changed: the one status write of this object in a reconciliation.

    `stalled`: it continues only after a user has changed something. `evidence`: the condition of its policy's evidence.
    """
    status = new.status.model_copy(update={"observed_generation": new.generation})
    conditions = build_rollout_conditions(replace(new, status=status), now, is_stuck=stalled, evidence=evidence)
    status = status.model_copy(update={"conditions": conditions})
    if status == old.status:
        return False
    policy = await policy_snapshots.offload_spec(
        context, raw["metadata"]["namespace"], status.policy, old.status.policy
    )
    status = status.model_copy(update={"policy": policy})
    written = await write_status(context, raw, status, old.status)
    if written:
        metric_updates.count_finished(old, new)
        # The TrainingRun that made the version has its name, and reports the version's outcome.
        run = (raw["metadata"]["namespace"], new.spec.target.version)
        if new.state != old.state and context.store.get(kinds.TRAINING_RUN, *run) is not None:
            context.enqueue(Key(kinds.TRAINING_RUN.kind, *run))
    return written


async def finish_superseded(context: Context, history: RolloutHistory, now: datetime) -> bool:
    """End the records that a newer one has superseded, and the manual rollbacks that can't be carried out."""
    changed = False
    for record, why in history.invalid_rollbacks:
        ended = reject_rollback(record, why, now)
        changed |= await write_record(context, history.raw[record.name], record, ended, now)
    newest = history.newest.name if history.newest is not None else ""
    for record in history.superseded:
        ended = supersede_record(record, newest, now)
        changed |= await write_record(context, history.raw[record.name], record, ended, now)
    return changed


async def prune_history(context: Context, history: RolloutHistory, limit: int) -> None:
    """Delete ended records beyond the policy's historyLimit, the oldest first."""
    kept = limit - (1 if history.newest is not None and not history.newest.is_active else 0)
    for record in history.ended[: max(0, len(history.ended) - max(kept, 0))]:
        raw = history.raw[record.name]
        metadata = raw["metadata"]
        await context.client.delete(
            kinds.MODEL_ROLLOUT, metadata["namespace"], metadata["name"], uid=metadata["uid"], resource_version=None
        )
        context.store.forget(kinds.MODEL_ROLLOUT, metadata["namespace"], metadata["name"], metadata["uid"], quiet=True)
