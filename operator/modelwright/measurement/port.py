"""What a look needs to know, and what measures at the pace of Jobs is asked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from modelwright.api import names
from modelwright.api.v1alpha1.policy import Metric
from modelwright.api.v1alpha1.runtime import RuntimeMetrics
from modelwright.core.analysis.evidence import MeasurementFailure, MetricValue
from modelwright.core.analysis.report_figures import Figure
from modelwright.core.revision import Revision
from modelwright.kube.queue import Key

POD_NAME_BASE = 58
"""Characters that the API server leaves of a generated pod name before it adds five of its own."""


@dataclass(frozen=True, slots=True)
class RevisionTarget:
    """A revision as its requests are counted.

    `pods`: regular expression (RE2) that matches the whole names of its pods. `service`: name of its own Service, which
    a gateway sends to. `metrics`: its runtime's own counters, when the runtime names any.
    """

    version: str
    revision: str
    pod_pattern: str
    service: str
    metrics: RuntimeMetrics | None = None

    @classmethod
    def for_revision(cls, model: str, revision: Revision, metrics: RuntimeMetrics | None = None) -> RevisionTarget:
        """The target for a revision of `model`, by the names that its children have."""
        name = names.revision_name(model, revision.hash)
        # Names are DNS labels, so there is nothing to escape; long ones are cut by the API server.
        pods = f"{f'{name}-'[:POD_NAME_BASE]}[a-z0-9-]+"
        return cls(revision.version, revision.hash, pods, name, metrics)


@dataclass(frozen=True, slots=True)
class Gateway:
    """The gateway in front of a Model: `controller` is its GatewayClass's spec.controllerName."""

    controller: str
    grpc: bool = False


@dataclass(frozen=True, slots=True)
class MeasurementRequest:
    """All that a look needs. `key` names the rollout (its uid) and the step.

    `wake`: whose pass is to be woken when there is news. `since`: evidence counts from here. `began`: when the step's
    pods were first asked for; by default `since`. `mirror`: a mirror step, in which builtin metrics come from the
    comparer. `gateway`: None when requests come without one.
    """

    key: str
    notify_key: Key
    namespace: str
    model: str
    candidate: RevisionTarget
    serving: RevisionTarget | None
    since: datetime
    interval: timedelta
    metrics: tuple[Metric, ...]
    mirror: bool = False
    gateway: Gateway | None = None
    pods_requested_at: datetime | None = None


class JobRunner(Protocol):
    """What runs the Jobs of metrics."""

    async def run_metric_job(
        self, ask: MeasurementRequest, metric: Metric
    ) -> Figure | MetricValue | MeasurementFailure:
        """Run the Job of `metric` (its `job` is set) to its end, or take up the one that an earlier operator has
        started. Never raises for what a Job does; ends within the metric's own timeout."""
        ...
