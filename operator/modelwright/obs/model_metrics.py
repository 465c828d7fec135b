"""Metrics of Models and their rollouts. Series of a Model go with it, and those of a rollout when it ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from modelwright.obs.metrics import REGISTRY

ENDED = Counter(
    "modelwright_rollouts_ended_total",
    "Rollouts that have ended, by outcome (the state they ended in) and reason.",
    ["outcome", "reason"],
    registry=REGISTRY,
)
PROMOTE_SECONDS = Histogram(
    "modelwright_rollout_promote_seconds",
    "Time from the begin of a rollout until its candidate serves, waiting for people included.",
    buckets=(30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400, 259200, 604800),
    registry=REGISTRY,
)
ROLLBACK_SECONDS = Histogram(
    "modelwright_rollout_rollback_seconds",
    "Time from turning back until what served before has all requests, as written: whole seconds.",
    buckets=(1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600),
    registry=REGISTRY,
)


@dataclass(frozen=True, slots=True)
class VerdictMetrics:
    """What a metric says at present. `values`: candidate, serving, low, high and limit, those that are known."""

    outcome: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RolloutMetrics:
    """A rollout that goes on. `verdicts`: by the metric's name."""

    state: str
    verdicts: Mapping[str, VerdictMetrics]


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """How a Model stands. `state`: Ready, Reconciling or Stalled. `weights`: percent by (version, revision)."""

    state: str
    weights: Mapping[tuple[str, str], int]
    rollout: RolloutMetrics | None = None


class ModelCollector(Collector):
    """Every Model, with its live rollout; it has one at most."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], ModelMetrics] = {}

    def set_model(self, namespace: str, model: str, standing: ModelMetrics) -> None:
        """How a Model stands now."""
        self._models[namespace, model] = standing

    def remove_model(self, namespace: str, model: str) -> None:
        """A Model that is gone."""
        self._models.pop((namespace, model), None)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """All series; Prometheus' client asks from a thread of its own."""
        place = ["namespace", "model"]
        model = GaugeMetricFamily(
            "modelwright_model_info",
            "1 for the state of each Model: Ready, Reconciling or Stalled.",
            labels=[*place, "state"],
        )
        weight = GaugeMetricFamily(
            "modelwright_model_weight",
            "Percent of the callers' requests that a revision gets, as configured.",
            labels=[*place, "version", "revision"],
        )
        info = GaugeMetricFamily(
            "modelwright_rollout_info", "1 for the state of each live rollout.", labels=[*place, "state"]
        )
        verdict = GaugeMetricFamily(
            "modelwright_rollout_verdict",
            "Numbers of the last look at a metric of a live rollout: candidate and serving (estimates), low and high "
            "(interval of what is judged) and limit.",
            labels=[*place, "metric", "value"],
        )
        outcome = GaugeMetricFamily(
            "modelwright_rollout_outcome",
            "1 for the outcome of the last look at a metric of a live rollout.",
            labels=[*place, "metric", "outcome"],
        )
        for where, standing in list(self._models.items()):
            model.add_metric([*where, standing.state], 1)
            for revision, percent in standing.weights.items():
                weight.add_metric([*where, *revision], percent)
            if standing.rollout is None:
                continue
            info.add_metric([*where, standing.rollout.state], 1)
            for name, judged in standing.rollout.verdicts.items():
                outcome.add_metric([*where, name, judged.outcome], 1)
                for what, number in judged.values.items():
                    verdict.add_metric([*where, name, what], number)
        return model, weight, info, verdict, outcome


MODELS = ModelCollector()
REGISTRY.register(MODELS)
