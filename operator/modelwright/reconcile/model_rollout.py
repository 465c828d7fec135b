"""ModelRollout: deleted once its Model has been gone for the policy's historyTTL."""

from datetime import datetime, timedelta

from pydantic import ValidationError

from modelwright.api.common import InvalidObject, parse_duration
from modelwright.api.v1alpha1.policy import RolloutPolicySpec
from modelwright.api.v1alpha1.rollout import ModelRollout
from modelwright.kube import kinds
from modelwright.kube.queue import Key
from modelwright.kube.store import Store
from modelwright.kube.workers import ReconcileResult
from modelwright.reconcile import policy_snapshots
from modelwright.reconcile.children import remove
from modelwright.reconcile.context import Context

DEFAULT_HISTORY_TTL = timedelta(hours=168)


def list_orphans(store: Store) -> list[Key]:
    """The ModelRollouts whose Model is gone, or is another one of that name."""
    orphans = []
    for namespace, name in store.list_names(kinds.MODEL_ROLLOUT):
        raw = store.get(kinds.MODEL_ROLLOUT, namespace, name) or {}
        spec = raw.get("spec") or {}
        if not isinstance(spec, dict) or not isinstance(spec.get("modelRef"), dict):
            # Its schema should have rejected it: its Model is unknown, and so it stays.
            continue
        model = store.get(kinds.MODEL, namespace, str(spec["modelRef"].get("name")))
        if model is None or spec.get("modelUid") not in (None, model["metadata"]["uid"]):
            orphans.append(Key(kinds.MODEL_ROLLOUT.kind, namespace, name))
    return orphans


class OrphanedRolloutReconciler:
    """Deletes ModelRollouts that have outlived their Model."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self, key: Key) -> ReconcileResult:
        """Delete an orphan that has expired; one that has a Model again is left alone."""
        raw = self._context.store.get(kinds.MODEL_ROLLOUT, key.namespace, key.name)
        if raw is None or raw["metadata"].get("deletionTimestamp") or key not in list_orphans(self._context.store):
            return ReconcileResult()
        try:
            rollout = ModelRollout.parse(raw)
        except InvalidObject:
            return ReconcileResult()
        remaining = _finished_at(rollout) + await self._read_ttl(rollout) - self._context.clock.now()
        if remaining > timedelta(0):
            # The next resync enqueues it again.
            return ReconcileResult()
        await remove(self._context, raw)
        return ReconcileResult()

    async def _read_ttl(self, rollout: ModelRollout) -> timedelta:
        snapshot = await policy_snapshots.restore_spec(
            self._context, rollout.namespace, kinds.ROLLOUT_POLICY, rollout.status.policy
        )
        if snapshot is None:
            return DEFAULT_HISTORY_TTL
        try:
            policy = RolloutPolicySpec.model_validate(snapshot.spec, by_alias=True, by_name=False)
        except ValidationError:
            return DEFAULT_HISTORY_TTL
        return timedelta(seconds=parse_duration(policy.history_ttl))


def _finished_at(rollout: ModelRollout) -> datetime:
    created = rollout.metadata.creation_timestamp
    assert created is not None  # noqa: S101 - the API server sets it
    return rollout.status.finished_at or rollout.status.since or created
