"""The TrainingRuns of a RetrainingPolicy, in order."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from modelwright.api.common import InvalidObject
from modelwright.api.v1alpha1.training import (
    RunState,
    TrainingRun,
)
from modelwright.core.retraining.run_machine import (
    RUN_TERMINAL_STATES,
)
from modelwright.kube import kinds
from modelwright.kube.store import Store
from modelwright.reconcile.context import Context

Object = dict[str, Any]


MAX_LIVE_RUNS, MAX_ENDED_RUNS = 100, 200
"""Runs of a policy that one reconciliation reads at most: the oldest active ones and the newest ended ones. Further
active runs wait; runs that ended earlier count for no limit."""


def list_runs(context: Context, policy: Object) -> list[TrainingRun]:
    """The runs of this very policy, oldest first, within the limits above; runs of a former policy of the same name are
    left alone."""
    metadata = policy["metadata"]
    runs = []
    for place in _list_names(context.store, f"{metadata['namespace']}/{metadata['name']}"):
        raw = context.store.get(kinds.TRAINING_RUN, *place)
        try:
            run = TrainingRun.parse(raw or {})
        except InvalidObject:
            continue
        created = run.metadata.creation_timestamp
        if created is None or run.metadata.deletion_timestamp is not None:
            continue
        if run.spec.policy_uid is None:
            if created.isoformat() < str(metadata.get("creationTimestamp", "")).replace("Z", "+00:00"):
                continue
        elif run.spec.policy_uid != metadata["uid"]:
            continue
        runs.append(run)
    return sorted(runs, key=creation_order)


def _list_names(store: Store, policy: str) -> list[tuple[str, str]]:
    live = store.sort_newest_first(
        kinds.TRAINING_RUN, store.list_places("retraining", kinds.TRAINING_RUN, f"{policy} live")
    )
    ended = store.sort_newest_first(
        kinds.TRAINING_RUN, store.list_places("retraining", kinds.TRAINING_RUN, f"{policy} ended")
    )
    return [*live[-MAX_LIVE_RUNS:], *ended[:MAX_ENDED_RUNS]]


def has_ended(run: TrainingRun) -> bool:
    """Whether the run has reached a final state."""
    return run.status.state in RUN_TERMINAL_STATES


def creation_order(run: TrainingRun) -> tuple[datetime, str]:
    """Sort key, oldest first."""
    created = run.metadata.creation_timestamp
    assert created is not None  # noqa: S101 - the API server sets it
    return created, run.name


def last_inputs_hash(others: list[TrainingRun], run: TrainingRun) -> str | None:
    """The inputsHash of the last other run that succeeded."""
    succeeded = [other for other in others if other.status.state == RunState.SUCCEEDED and other.uid != run.uid]
    succeeded.sort(key=lambda other: other.status.finished_at or creation_order(other)[0])
    return succeeded[-1].status.inputs_hash if succeeded else None
