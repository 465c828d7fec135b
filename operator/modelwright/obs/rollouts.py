"""Metrics of rollouts. Series of a rollout are there while it goes on, and go with it or with its Model."""

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
class Judged:
    """What a metric says at present. `values`: candidate, serving, low, high and limit, those that are known."""

    outcome: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class LiveRollout:
    """A rollout that goes on. `weights`: percent by (version, revision). `verdicts`: by the metric's name."""

    state: str
    weights: Mapping[tuple[str, str], int]
    verdicts: Mapping[str, Judged]


class LiveRollouts(Collector):
    """The live rollout of each Model; a Model has one at most."""

    def __init__(self) -> None:
        self._live: dict[tuple[str, str], LiveRollout] = {}

    def tell(self, namespace: str, model: str, rollout: LiveRollout | None) -> None:
        """What goes on for a Model; None when nothing does, or it is gone."""
        if rollout is None:
            self._live.pop((namespace, model), None)
        else:
            self._live[namespace, model] = rollout

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """All series; Prometheus' client asks from a thread of its own."""
        place = ["namespace", "model"]
        info = GaugeMetricFamily(
            "modelwright_rollout_info", "1 for the state of each live rollout.", labels=[*place, "state"]
        )
        weight = GaugeMetricFamily(
            "modelwright_rollout_weight",
            "Percent of the callers' requests that a revision gets in a live rollout, as configured.",
            labels=[*place, "version", "revision"],
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
        for where, rollout in list(self._live.items()):
            info.add_metric([*where, rollout.state], 1)
            for revision, percent in rollout.weights.items():
                weight.add_metric([*where, *revision], percent)
            for name, judged in rollout.verdicts.items():
                outcome.add_metric([*where, name, judged.outcome], 1)
                for what, number in judged.values.items():
                    verdict.add_metric([*where, name, what], number)
        return info, weight, verdict, outcome


LIVE = LiveRollouts()
REGISTRY.register(LIVE)
