"""Defines the Kubernetes kinds that the operator reads and writes, with their place in the API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote


@dataclass(frozen=True)
class Kind:
    """One resource type. `optional` kinds may be missing from a cluster (their CRDs are not ours)."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    optional: bool = False

    @property
    def api_version(self) -> str:
        """The `apiVersion` of its objects, e.g. `apps/v1`; `v1` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_path(self) -> str:
        """The URL path of its group and version, which is also the discovery endpoint."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Build the URL path of one object, or of the collection when `name` is None (all namespaces without
        `namespace`)."""
        parts = [self.group_path]
        if namespace and self.namespaced:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)

    def __str__(self) -> str:
        return self.kind


MODEL = Kind("modelwright.dev", "v1alpha1", "models", "Model")
MODEL_VERSION = Kind("modelwright.dev", "v1alpha1", "modelversions", "ModelVersion")
ROLLOUT_POLICY = Kind("modelwright.dev", "v1alpha1", "rolloutpolicies", "RolloutPolicy")
MODEL_ROLLOUT = Kind("modelwright.dev", "v1alpha1", "modelrollouts", "ModelRollout")
RETRAINING_POLICY = Kind("modelwright.dev", "v1alpha1", "retrainingpolicies", "RetrainingPolicy")
TRAINING_RUN = Kind("modelwright.dev", "v1alpha1", "trainingruns", "TrainingRun")
APPROVAL = Kind("modelwright.dev", "v1alpha1", "approvals", "Approval")
MODEL_RUNTIME = Kind("modelwright.dev", "v1alpha1", "modelruntimes", "ModelRuntime")
CLUSTER_MODEL_RUNTIME = Kind(
    "modelwright.dev", "v1alpha1", "clustermodelruntimes", "ClusterModelRuntime", namespaced=False
)
DEPLOYMENT = Kind("apps", "v1", "deployments", "Deployment")
CONTROLLER_REVISION = Kind("apps", "v1", "controllerrevisions", "ControllerRevision")
SERVICE = Kind("", "v1", "services", "Service")
JOB = Kind("batch", "v1", "jobs", "Job")
CRON_JOB = Kind("batch", "v1", "cronjobs", "CronJob")
POD = Kind("", "v1", "pods", "Pod")
POD_DISRUPTION_BUDGET = Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
HORIZONTAL_POD_AUTOSCALER = Kind("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
HTTP_ROUTE = Kind("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute", optional=True)
GRPC_ROUTE = Kind("gateway.networking.k8s.io", "v1", "grpcroutes", "GRPCRoute", optional=True)
GATEWAY = Kind("gateway.networking.k8s.io", "v1", "gateways", "Gateway", optional=True)
GATEWAY_CLASS = Kind(
    "gateway.networking.k8s.io", "v1", "gatewayclasses", "GatewayClass", namespaced=False, optional=True
)
TRAEFIK_SERVICE = Kind("traefik.io", "v1alpha1", "traefikservices", "TraefikService", optional=True)
ENDPOINT = Kind("modelwright.dev", "v1alpha1", "models", "Endpoint")
"""In the store of a shard: the part kept of another shard's Model. In the API it is a Model."""
NAMESPACE = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
"""Watched by shards only."""
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease")
EVENT = Kind("events.k8s.io", "v1", "events", "Event")
WORKLOAD = Kind("kueue.x-k8s.io", "v1beta1", "workloads", "Workload", optional=True)
"""Read only while a Job is queued; never watched."""

OWN_KINDS = (
    MODEL,
    MODEL_VERSION,
    ROLLOUT_POLICY,
    MODEL_ROLLOUT,
    RETRAINING_POLICY,
    TRAINING_RUN,
    APPROVAL,
    MODEL_RUNTIME,
    CLUSTER_MODEL_RUNTIME,
)
OPTIONAL_KINDS = (HTTP_ROUTE, GRPC_ROUTE, GATEWAY, GATEWAY_CLASS, TRAEFIK_SERVICE)
ALL_KINDS = (
    *OWN_KINDS,
    DEPLOYMENT,
    CONTROLLER_REVISION,
    SERVICE,
    JOB,
    CRON_JOB,
    POD,
    POD_DISRUPTION_BUDGET,
    HORIZONTAL_POD_AUTOSCALER,
    *OPTIONAL_KINDS,
    LEASE,
    EVENT,
)

_BY_GROUP_AND_KIND = {(k.group, k.kind): k for k in ALL_KINDS}


def register_kinds(more: Iterable[Kind]) -> None:
    """Register more kinds for `kind_of`: those that the configuration lets training create. Called once at start."""
    _BY_GROUP_AND_KIND.update({(kind.group, kind.kind): kind for kind in more})


def kind_of(obj: Mapping[str, Any]) -> Kind:
    """Return the Kind of a raw object, by the group of its `apiVersion` and its `kind`.

    Raises ValueError for a kind unknown to the operator.
    """
    api_version = str(obj.get("apiVersion", ""))
    kind = str(obj.get("kind", ""))
    group = api_version.rpartition("/")[0]
    try:
        return _BY_GROUP_AND_KIND[group, kind]
    except KeyError:
        raise ValueError(
            f"the operator knows no kind {kind!r} of apiVersion {api_version!r}: add it to modelwright.kube.kinds"
        ) from None
