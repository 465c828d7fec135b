"""Updates the operator's own metrics of Models and their rollouts."""

from __future__ import annotations

from collections.abc import Iterable

from modelwright.api.conditions import ConditionType, is_true
from modelwright.api.v1alpha1.model import ModelStatus
from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.core.analysis.evidence import Verdict
from modelwright.core.rollout.record import TERMINAL_STATES, RolloutRecord
from modelwright.obs import model_metrics
from modelwright.obs.model_metrics import ModelMetrics, RolloutMetrics, VerdictMetrics

EXPORTED_CONDITIONS = (ConditionType.READY, ConditionType.STALLED, ConditionType.RECONCILING)
VERDICT_VALUES = ("candidate", "serving", "low", "high", "limit")


def record_model(
    namespace: str, model: str, status: ModelStatus, record: RolloutRecord | None, verdicts: Iterable[Verdict]
) -> None:
    """Export the state of a Model and of its active rollout; `record` is None without one."""
    rollout = None
    if record is not None:
        rollout = RolloutMetrics(record.state, {verdict.metric: _verdict_metrics(verdict) for verdict in verdicts})
    weights = {(entry.version, entry.revision): entry.weight for entry in status.traffic}
    state = next((kind for kind in EXPORTED_CONDITIONS if is_true(status.conditions, kind)), ConditionType.RECONCILING)
    model_metrics.MODELS.set_model(namespace, model, ModelMetrics(state, weights, rollout))


def forget_model(namespace: str, model: str) -> None:
    """Remove the series of a Model that is gone."""
    model_metrics.MODELS.remove_model(namespace, model)


def count_finished(old: RolloutRecord, new: RolloutRecord) -> None:
    """Count a rollout that has ended. `new`: its record as it was just written; `old`: as it was before."""
    if new.state not in TERMINAL_STATES or not old.is_active:
        return
    model_metrics.ENDED.labels(new.state, new.status.reason or "").inc()
    started, since, ended = new.status.started_at, old.status.since, new.status.finished_at
    if ended is None:
        return
    is_known = old.status.state is not None
    if new.state is RolloutState.SUCCEEDED and started is not None and is_known and not new.is_manual:
        model_metrics.PROMOTE_SECONDS.observe((ended - started).total_seconds())
    elif old.state is RolloutState.ROLLING_BACK and since is not None:
        model_metrics.ROLLBACK_SECONDS.observe((ended - since).total_seconds())


def _verdict_metrics(verdict: Verdict) -> VerdictMetrics:
    known = {name: getattr(verdict, name) for name in VERDICT_VALUES}
    return VerdictMetrics(verdict.outcome, {name: value for name, value in known.items() if value is not None})
