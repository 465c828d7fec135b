"""Inputs of a measurement: the metrics, the two revisions, and the gateway in front of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from modelwright.api import names
from modelwright.api.v1alpha1.policy import Metric
from modelwright.api.v1alpha1.runtime import RuntimeMetrics
from modelwright.core.revision import Revision
from modelwright.kube.queue import Key

POD_NAME_BASE = 58
"""Characters that the API server leaves of a generated pod name before it adds five of its own."""


@dataclass(frozen=True, slots=True)
class RevisionTarget:
    """A revision by the names under which its requests are counted.

    `pod_pattern`: regular expression (RE2) of the full names of its pods. `service`: name of its own Service, the
    backend of a gateway. `metrics`: counters of its runtime, when the runtime names any.
    """

    version: str
    revision: str
    pod_pattern: str
    service: str
    metrics: RuntimeMetrics | None = None

    @classmethod
    def for_revision(cls, model: str, revision: Revision, metrics: RuntimeMetrics | None = None) -> RevisionTarget:
        """Build the target of a revision of `model` from the names of its child objects."""
        name = names.revision_name(model, revision.hash)
        # Names are DNS labels, so there is nothing to escape; long ones are cut by the API server.
        pod_pattern = f"{f'{name}-'[:POD_NAME_BASE]}[a-z0-9-]+"
        return cls(revision.version, revision.hash, pod_pattern, name, metrics)


@dataclass(frozen=True, slots=True)
class Gateway:
    """The gateway in front of a Model: `controller` is its GatewayClass's spec.controllerName."""

    controller: str
    grpc: bool = False


@dataclass(frozen=True, slots=True)
class MeasurementRequest:
    """Metrics to measure for a step of a rollout. `key` names the rollout (its uid) and the step.

    `notify_key`: the object to reconcile when there are new results. `since`: start of the evidence.
    `pods_requested_at`: when the step's pods were first requested; by default `since`. `mirror`: a mirror step, in
    which builtin metrics come from the comparer. `gateway`: None when requests come without one.
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
