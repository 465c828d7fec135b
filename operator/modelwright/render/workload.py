"""Renders the objects that run a stored revision: Deployment, PodDisruptionBudget, HorizontalPodAutoscaler."""

from typing import Any

from modelwright.api import names
from modelwright.api.v1alpha1.model import Autoscaling
from modelwright.core.revision import Revision
from modelwright.render.child_metadata import child_metadata

Json = dict[str, Any]

DEFAULT_AUTOSCALING_METRICS = [
    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}
]

NO_PROGRESS_DEADLINE = 2**31 - 1
"""Kubernetes' value for "none": the Deployment controller then keeps no Progressing condition, which costs it two of
five status writes. The operator limits the start of pods by spec.serving.startTimeout."""


def revision_deployment(model: Json, revision: Revision, template: Json, replicas: int | None) -> Json:
    """Render the Deployment of a stored pod template. `replicas` None leaves the number to an autoscaler."""
    name = model["metadata"]["name"]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": child_metadata(model, revision, names.revision_name(name, revision.hash)),
        "spec": {
            **({} if replicas is None else {"replicas": replicas}),
            "revisionHistoryLimit": 0,
            "progressDeadlineSeconds": NO_PROGRESS_DEADLINE,
            "selector": {"matchLabels": names.revision_selector(name, revision.hash)},
            "template": template,
        },
    }


def revision_disruption_budget(model: Json, revision: Revision) -> Json:
    """Render a budget that allows one eviction at a time; pods that never became ready may always be evicted."""
    name = model["metadata"]["name"]
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": child_metadata(model, revision, names.revision_name(name, revision.hash)),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": names.revision_selector(name, revision.hash)},
        },
    }


def revision_autoscaler(model: Json, revision: Revision, autoscaling: Autoscaling, floor: int = 0) -> Json:
    """Render the HorizontalPodAutoscaler of a revision; by default it targets 80 % of the requested CPU.

    `floor`: the replicas that a rollout needs now, if more than minReplicas.
    """
    least = max(autoscaling.min_replicas, floor)
    child = names.revision_name(model["metadata"]["name"], revision.hash)
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": child_metadata(model, revision, child),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": child},
            "minReplicas": least,
            "maxReplicas": max(autoscaling.replica_limit, least),
            "metrics": [metric.wire() for metric in autoscaling.metrics] or DEFAULT_AUTOSCALING_METRICS,
            **({"behavior": autoscaling.behavior.wire()} if autoscaling.behavior else {}),
        },
    }
