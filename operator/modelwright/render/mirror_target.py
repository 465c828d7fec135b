"""Renders the common parts of the comparer and the drift monitor: one pod of ours that receives mirrored requests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelwright.api import names
from modelwright.core.revision import Revision
from modelwright.render import fetch_container, helper_pod_placement
from modelwright.render.child_metadata import child_metadata
from modelwright.render.images import Images

Json = dict[str, Any]

PORT = 8080
_SHUTDOWN_SECONDS = 5
_TOKEN_CHARACTERS = 52


@dataclass(frozen=True, slots=True)
class MirrorSettings:
    """Settings of a pod that receives mirrored requests."""

    token: str = ""
    """Token of the requests that count; empty counts all."""
    request_seconds: int = 30
    """How long it waits for a response."""
    service_account: str | None = None
    """ServiceAccount whose image pull secrets, and identity at a store, the pod uses; it has no rights."""


@dataclass(frozen=True)
class MirrorTarget:
    """A program that receives mirrored requests. `role` is also the name of its container, `module` its Python module,
    `name` the name of Deployment and Service. `annotation`: set on the pods to a fingerprint of their configuration;
    another fingerprint replaces the pod."""

    role: str
    module: str
    name: str
    annotation: str
    resources: Json = field(default_factory=dict)

    def render_deployment(
        self,
        model: Json,
        fingerprint: str,
        environment: Mapping[str, str],
        images: Images,
        settings: MirrorSettings,
        *,
        container: Json | None = None,
        pod: Json | None = None,
    ) -> Json:
        """Render the Deployment of one pod. `container`, `pod`: further members of their specs."""
        labels = self._selector_labels(model)
        env = {
            **environment,
            "REQUEST_TIMEOUT_SECONDS": str(settings.request_seconds),
            "STOP_SECONDS": str(_SHUTDOWN_SECONDS),
            **({"COPY_TOKEN": settings.token} if settings.token else {"COPIES_WITHOUT_TOKEN": "Count"}),
            "PORT": str(PORT),
        }
        own_container = {
            "name": self.role,
            "image": images.operator,
            **({"imagePullPolicy": images.pull_policy} if images.pull_policy else {}),
            "command": ["python", "-m", self.module],
            "env": [{"name": key, "value": value} for key, value in env.items()],
            "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 1, "timeoutSeconds": 2},
            "livenessProbe": {
                "httpGet": {"path": "/healthz", "port": "http"},
                "periodSeconds": 10,
                "timeoutSeconds": 5,
            },
            "resources": helper_pod_placement.container_resources(self.resources, images, self.role),
            "securityContext": fetch_container.restricted_container_security(),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            **(container or {}),
        }
        spec = {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            **({"serviceAccountName": settings.service_account} if settings.service_account else {}),
            "securityContext": fetch_container.restricted_pod_security(images),
            "terminationGracePeriodSeconds": 2 * _SHUTDOWN_SECONDS,
            **(pod or {}),
            "containers": [own_container],
        }
        annotations = {
            self.annotation: fingerprint,
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(PORT),
            "prometheus.io/path": "/metrics",
        }
        metadata = {"labels": {**names.model_labels(model["metadata"]["name"]), **labels}, "annotations": annotations}
        mark = helper_pod_placement.placement_annotation(images, self.role)
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": self._render_metadata(model) | ({"annotations": mark} if mark else {}),
            "spec": {
                "replicas": 1,
                "revisionHistoryLimit": 0,
                # It counts in memory: each of two pods would have half of the counts.
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": labels},
                "template": helper_pod_placement.place_template(metadata, spec, images, self.role),
            },
        }

    def render_service(self, model: Json) -> Json:
        """Render the Service that receives mirrored requests and serves the summary, on port 80."""
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self._render_metadata(model),
            "spec": {
                "selector": self._selector_labels(model),
                "ports": [{"name": "http", "port": 80, "targetPort": PORT, "protocol": "TCP"}],
            },
        }

    def fingerprint_of(self, deployment: Mapping[str, Any]) -> str | None:
        """Return the fingerprint of the pods of a Deployment; None when they have none."""
        fingerprint = (deployment["spec"]["template"]["metadata"].get("annotations") or {}).get(self.annotation)
        return str(fingerprint) if fingerprint is not None else None

    def is_ready(self, live: Mapping[str, Any] | None, fingerprint: str) -> bool:
        """Return whether the live Deployment has a ready pod of this fingerprint."""
        if live is None or live["metadata"].get("deletionTimestamp"):
            return False
        status = live.get("status", {})
        current = status.get("observedGeneration", 0) >= live["metadata"].get("generation", 0)
        available = min(status.get("updatedReplicas", 0), status.get("availableReplicas", 0))
        return bool(current and available >= 1 and self.fingerprint_of(live) == fingerprint)

    def _selector_labels(self, model: Json) -> dict[str, str]:
        """Return the labels of its pods, which no Service of the Model or of a revision selects."""
        return {names.LABEL_MODEL: names.label_value(model["metadata"]["name"]), names.LABEL_ROLE: self.role}

    def _render_metadata(self, model: Json) -> Json:
        metadata = child_metadata(model, None, self.name.format(model=model["metadata"]["name"]))
        return metadata | {"labels": {**metadata["labels"], names.LABEL_ROLE: self.role}}


def mirror_token(model: Json, role: str, templates: Sequence[Json]) -> str:
    """Derive the token that the route of `model` sets on mirrored requests and the pod of this role requires.

    It is derived from uids: random values of the API server, stable over reconciles, and different for other revisions.
    `templates`: the ControllerRevisions of the compared revisions, whose uids appear in no Event, log or metric."""
    uids = [obj["metadata"].get("uid", "") for obj in (model, *templates)]
    return names.content_hash([role, *uids], _TOKEN_CHARACTERS)


def service_url(model: Json, revision: Revision) -> str:
    """Return the in-cluster URL of one revision, apart from callers' traffic."""
    metadata = model["metadata"]
    return f"http://{names.revision_name(metadata['name'], revision.hash)}.{metadata['namespace']}.svc"
