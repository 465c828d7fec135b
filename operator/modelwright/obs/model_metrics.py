"""Metrics of Models and their rollouts. A Model's series end with it, those of a rollout when it ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from modelwright.obs.metrics import REGISTRY

ENDED = Counter(
    "modelwright_rollouts_ended_total",
    "Rollouts that have ended, by outcome (their final state) and reason.",
    ["outcome", "reason"],
    registry=REGISTRY,
)
PROMOTE_SECONDS = Histogram(
    "modelwright_rollout_promotion_duration_seconds",
    "Time from the start of a rollout until its candidate serves, including the wait for approvals.",
    buckets=(30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400, 259200, 604800),
    registry=REGISTRY,
)
ROLLBACK_SECONDS = Histogram(
    "modelwright_rollout_rollback_duration_seconds",
    "Time from the start of a rollback until the serving revision has all requests, in whole seconds.",
    buckets=(1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600),
    registry=REGISTRY,
)


@dataclass(frozen=True, slots=True)
class VerdictMetrics:
    """The current verdict of one metric. `values`: candidate, serving, low, high and limit, as far as known."""

    outcome: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RolloutMetrics:
    """A rollout in progress. `verdicts`: by the metric's name."""

    state: str
    verdicts: Mapping[str, VerdictMetrics]


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """The exported state of a Model. `state`: Ready, Reconciling or Stalled. `weights`: percent by (version,
    revision)."""

    state: str
    weights: Mapping[tuple[str, str], int]
    rollout: RolloutMetrics | None = None


class ModelCollector(Collector):
    """Exports every Model with its live rollout, of which it has at most one."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], ModelMetrics] = {}

    def set_model(self, namespace: str, model: str, standing: ModelMetrics) -> None:
        """Set the state of a Model."""
        self._models[namespace, model] = standing

    def remove_model(self, namespace: str, model: str) -> None:
        """Remove the series of a deleted Model."""
        self._models.pop((namespace, model), None)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return all series; the Prometheus client calls this from its own thread."""
        place = ["namespace", "model"]
        model = GaugeMetricFamily(
            "modelwright_model_info",
            "1 for the state of each Model: Ready, Reconciling or Stalled.",
            labels=[*place, "state"],
        )
        weight = GaugeMetricFamily(
            "modelwright_model_weight",
            "Configured share of the callers' requests for a revision, in percent.",
            labels=[*place, "version", "revision"],
        )
        info = GaugeMetricFamily(
            "modelwright_rollout_info", "1 for the state of each live rollout.", labels=[*place, "state"]
        )
        verdict = GaugeMetricFamily(
            "modelwright_rollout_verdict",
            "Numbers of the last measurement of a metric of a live rollout: candidate and serving (estimates), low and "
            "high (interval of the judged value) and limit.",
            labels=[*place, "metric", "value"],
        )
        outcome = GaugeMetricFamily(
            "modelwright_rollout_outcome",
            "1 for the outcome of the last measurement of a metric of a live rollout.",
            labels=[*place, "metric", "outcome"],
        )
        for labels, metrics in list(self._models.items()):
            model.add_metric([*labels, metrics.state], 1)
            for revision, percent in metrics.weights.items():
                weight.add_metric([*labels, *revision], percent)
            if metrics.rollout is None:
                continue
            info.add_metric([*labels, metrics.rollout.state], 1)
            for name, judged in metrics.rollout.verdicts.items():
                outcome.add_metric([*labels, name, judged.outcome], 1)
                for key, number in judged.values.items():
                    verdict.add_metric([*labels, name, key], number)
        return model, weight, info, verdict, outcome


MODELS = ModelCollector()
REGISTRY.register(MODELS)
