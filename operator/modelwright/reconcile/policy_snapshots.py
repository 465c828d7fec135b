"""Long policies of records, stored in ControllerRevisions: one for each content, deleted once no record names it.

See docs/adr/0035.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from modelwright.api.common import InvalidObject
from modelwright.api.v1alpha1.policy import RolloutPolicy
from modelwright.api.v1alpha1.retraining import RetrainingPolicy
from modelwright.api.v1alpha1.rollout import PolicySnapshot
from modelwright.core import policy_objects
from modelwright.kube import api_errors, codec, kinds
from modelwright.kube.kinds import Kind
from modelwright.kube.queue import Key
from modelwright.kube.store import Store
from modelwright.kube.workers import ReconcileResult
from modelwright.reconcile.children import remove
from modelwright.reconcile.context import Context

log = logging.getLogger(__name__)

Object = dict[str, Any]

UNUSED_GRACE = timedelta(hours=1)
"""How long a stored policy must have been unused before it is deleted."""
_POLICIES: Mapping[Kind, type[RolloutPolicy | RetrainingPolicy]] = {
    kinds.ROLLOUT_POLICY: RolloutPolicy,
    kinds.RETRAINING_POLICY: RetrainingPolicy,
}


async def restore_spec(
    context: Context, namespace: str, kind: Kind, policy: PolicySnapshot | None, *, ask: bool = True
) -> PolicySnapshot | None:
    """A record's policy with its spec: from its ControllerRevision, or from the policy itself while that is unchanged.

    It stays `is_lost` when neither has it. `kind`: RolloutPolicy or RetrainingPolicy. `ask`: read it from the API
    server when the store lacks it, as it does for an object that has lost its labels.
    """
    if policy is None or not policy.is_lost:
        return policy
    name = policy.stored_in or ""
    spec = policy_objects.read_policy_spec(context.store.get(kinds.CONTROLLER_REVISION, namespace, name), name)
    if spec is None:
        spec = _unchanged_spec(context.store, namespace, kind, policy)
    if spec is None and ask:
        spec = policy_objects.read_policy_spec(
            await context.client.get(kinds.CONTROLLER_REVISION, namespace, name), name
        )
    return policy if spec is None else policy.model_copy(update={"spec": spec})


def _unchanged_spec(store: Store, namespace: str, kind: Kind, policy: PolicySnapshot) -> Object | None:
    raw = store.get(kind, namespace, policy.name)
    try:
        spec = _POLICIES[kind].parse(raw).spec.wire() if raw is not None else None
    except InvalidObject:
        return None
    return (
        spec if spec is not None and policy_objects.policy_object_name(policy.name, spec) == policy.stored_in else None
    )


async def offload_spec(
    context: Context, namespace: str, policy: PolicySnapshot | None, before: PolicySnapshot | None
) -> PolicySnapshot | None:
    """A record's policy as it is to be written: a long spec is stored in a ControllerRevision first.

    `before`: the policy as the record has it. A spec that can't be stored stays in the record: a rollout doesn't wait
    for what only saves space.
    """
    if policy is None or policy.is_lost or (before is not None and policy.stored_in is None):
        return policy
    if len(codec.dumps(policy.spec)) <= policy_objects.INLINE_LIMIT_BYTES:
        return policy
    name = policy_objects.policy_object_name(policy.name, policy.spec)
    if not await _store_spec(context, namespace, name, policy.spec):
        return policy.model_copy(update={"stored_in": None})
    return policy.model_copy(update={"spec": {}, "stored_in": name})


async def _store_spec(context: Context, namespace: str, name: str, spec: Object) -> bool:
    """Store the spec; return whether the operator's store has it under this name now."""

    def is_stored() -> bool:
        return (
            policy_objects.read_policy_spec(context.store.get(kinds.CONTROLLER_REVISION, namespace, name), name)
            is not None
        )

    if is_stored():
        return True
    wanted = policy_objects.build_policy_object(namespace, name, spec)
    try:
        context.store.put(await context.client.create(wanted), quiet=True)
    except api_errors.AlreadyExists:
        # Another reconciliation has created it meanwhile, or it is a foreign one.
        live = await context.client.get(kinds.CONTROLLER_REVISION, namespace, name)
        if live is not None and (live["metadata"].get("labels") or {}).items() >= wanted["metadata"]["labels"].items():
            context.store.put({**wanted, **live}, quiet=True)
    except (api_errors.Invalid, api_errors.Denied) as error:
        log.warning(
            "a policy can't be stored in a ControllerRevision",
            extra={"object": f"{namespace}/{name}", "error": str(error)},
        )
    return is_stored()


def list_unused(store: Store) -> list[Key]:
    """The stored policies that no record names."""
    return [
        Key(kinds.CONTROLLER_REVISION.kind, *place)
        for place in store.list_places("snapshot", kinds.CONTROLLER_REVISION, "")
        if not _is_referenced(store, *place)
    ]


def _is_referenced(store: Store, namespace: str, name: str) -> bool:
    records = (kinds.MODEL_ROLLOUT, kinds.TRAINING_RUN)
    return any(store.list_places("snapshot", kind, f"{namespace}/{name}") for kind in records)


class PolicySnapshotReconciler:
    """Deletes a stored policy once no record has named it for an hour; a record that will may not be written yet."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._unused_since: dict[Key, datetime] = {}

    async def reconcile(self, key: Key) -> ReconcileResult:
        """Delete a stored policy that has been unused for long enough."""
        store, now = self._context.store, self._context.clock.now()
        if key not in list_unused(store):
            self._unused_since.pop(key, None)
            return ReconcileResult()
        remaining = self._unused_since.setdefault(key, now) + UNUSED_GRACE - now
        if remaining > timedelta(0):
            return ReconcileResult(remaining.total_seconds())
        raw = store.get(kinds.CONTROLLER_REVISION, key.namespace, key.name)
        if raw is not None:
            await remove(self._context, raw)
        self._unused_since.pop(key, None)
        return ReconcileResult()
