"""What the operator's own metrics say of Models and their rollouts, as plain values."""

from __future__ import annotations

from collections.abc import Iterable

from modelwright.api.conditions import ConditionType, is_true
from modelwright.api.v1alpha1.model import ModelStatus
from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.core.analysis.evidence import Verdict
from modelwright.core.rollout.record import TERMINAL, Record
from modelwright.obs import rollouts
from modelwright.obs.rollouts import Judged, LiveRollout, Standing

STATES = (ConditionType.READY, ConditionType.STALLED, ConditionType.RECONCILING)
VALUES = ("candidate", "serving", "low", "high", "limit")


def tell(namespace: str, model: str, status: ModelStatus, record: Record | None, verdicts: Iterable[Verdict]) -> None:
    """Say how a Model stands, and its live rollout; `record` None when none goes on."""
    live = None
    if record is not None:
        live = LiveRollout(record.state, {verdict.metric: _judged(verdict) for verdict in verdicts})
    weights = {(entry.version, entry.revision): entry.weight for entry in status.traffic}
    state = next((kind for kind in STATES if is_true(status.conditions, kind)), ConditionType.RECONCILING)
    rollouts.MODELS.tell(namespace, model, Standing(state, weights, live))


def forget(namespace: str, model: str) -> None:
    """A Model is gone, and its series with it."""
    rollouts.MODELS.forget(namespace, model)


def count(old: Record, new: Record) -> None:
    """Count a rollout that has ended by going from `old` to `new`, which was written."""
    if new.state not in TERMINAL or not old.live:
        return
    rollouts.ENDED.labels(new.state, new.status.reason or "").inc()
    began, turned, ended = new.status.started_at, old.status.since, new.status.finished_at
    if ended is None:
        return
    seen = old.status.state is not None
    if new.state is RolloutState.SUCCEEDED and began is not None and seen and not new.by_hand:
        rollouts.PROMOTE_SECONDS.observe((ended - began).total_seconds())
    elif old.state is RolloutState.ROLLING_BACK and turned is not None:
        rollouts.ROLLBACK_SECONDS.observe((ended - turned).total_seconds())


def _judged(verdict: Verdict) -> Judged:
    known = {name: getattr(verdict, name) for name in VALUES}
    return Judged(verdict.outcome, {name: value for name, value in known.items() if value is not None})
