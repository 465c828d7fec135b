"""Enqueues objects that no event has affected: after a change of settings or ownership, and at each resync."""

from __future__ import annotations

import random
from collections.abc import Collection

from modelwright.kube import kinds
from modelwright.kube.queue import Key, WorkQueue
from modelwright.kube.store import Store
from modelwright.reconcile import watches
from modelwright.reconcile.model_rollout import list_orphans
from modelwright.reconcile.policy_snapshots import list_unused

RESYNC_SPREAD_SECONDS = 30.0


def enqueue_models(store: Store, queue: WorkQueue, namespace: str | None) -> None:
    """Enqueue every Model at once, or only those of one namespace."""
    for place, name in store.list_names(kinds.MODEL):
        if namespace in (None, place):
            queue.add(Key(kinds.MODEL.kind, place, name))


def enqueue_namespaces(store: Store, queue: WorkQueue, namespaces: Collection[str]) -> None:
    """Enqueue all keys of these namespaces at once."""
    if not namespaces:
        return
    selected = frozenset(namespaces)
    keys = [Key(kind.kind, *place) for kind in watches.RECONCILED_KINDS for place in store.list_names(kind)]
    for key in (*keys, *list_orphans(store)):
        if key.namespace in selected:
            queue.add(key)


def enqueue_spread(store: Store, queue: WorkQueue, interval: float) -> None:
    """Enqueue every Model, version, policy and run, rollouts without a Model, and stored policies that no record names,
    spread over some time so that changes need not wait behind them. `interval`: seconds between two resyncs."""
    spread = min(RESYNC_SPREAD_SECONDS, interval / 10)
    for kind in watches.RECONCILED_KINDS:
        for namespace, name in store.list_names(kind):
            queue.add_after(Key(kind.kind, namespace, name), random.uniform(0, spread))  # noqa: S311
    for key in (*list_orphans(store), *list_unused(store)):
        queue.add_after(key, random.uniform(0, spread))  # noqa: S311
