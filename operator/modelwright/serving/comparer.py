"""The comparer of a Model: what asks both revisions of a rollout, while requests are mirrored to it."""

from collections.abc import Mapping
from typing import Any

from modelwright.api import names
from modelwright.core.rollout.observed import Revision
from modelwright.serving import fetching
from modelwright.serving.images import Images
from modelwright.serving.metadata import child_metadata

Json = dict[str, Any]

PORT = 8080
ANNOTATION_PAIR = f"{names.GROUP}/compares"
"""On the pods: "<hash of the serving revision> <hash of the candidate>"; another pair makes another pod."""
_STOP_SECONDS = 5


def deployment(
    model: Json, serving: Revision, candidate: Revision, images: Images, *, request_seconds: int = 30,
    service_account: str | None = None,
) -> Json:  # fmt: skip
    """One pod that compares this pair. `request_seconds`: how long an answer is waited for (drain and longest request
    of the Model). `service_account`: whose image pull secrets the pod needs; it has no rights."""
    name, namespace = model["metadata"]["name"], model["metadata"]["namespace"]
    labels = _labels(name)
    environment = {
        "SERVING_URL": _url(name, namespace, serving),
        "CANDIDATE_URL": _url(name, namespace, candidate),
        "SERVING_REVISION": serving.hash,
        "CANDIDATE_REVISION": candidate.hash,
        "REQUEST_TIMEOUT_SECONDS": str(request_seconds),
        "STOP_SECONDS": str(_STOP_SECONDS),
        "PORT": str(PORT),
    }
    container = {
        "name": "comparer",
        "image": images.operator,
        **({"imagePullPolicy": images.pull_policy} if images.pull_policy else {}),
        "command": ["python", "-m", "modelwright.compare"],
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 1, "timeoutSeconds": 2},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10, "timeoutSeconds": 5},
        # As much as the bodies and answers that it holds at most, and one pair of them parsed.
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "768Mi"}},
        "securityContext": fetching.container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(model),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 0,
            # Its counts are in memory: two pods at a time would each have half of them.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {
                    "labels": {**names.model_labels(name), **labels},
                    "annotations": {
                        ANNOTATION_PAIR: _pair(serving, candidate),
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": str(PORT),
                        "prometheus.io/path": "/metrics",
                    },
                },
                "spec": {
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    **({"serviceAccountName": service_account} if service_account else {}),
                    "securityContext": fetching.pod_security(),
                    "terminationGracePeriodSeconds": 2 * _STOP_SECONDS,
                    "containers": [container],
                },
            },
        },
    }


def service(model: Json) -> Json:
    """Where the gateway sends the copies, and where the summary is read: port 80."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(model),
        "spec": {
            "selector": _labels(model["metadata"]["name"]),
            "ports": [{"name": "http", "port": 80, "targetPort": PORT, "protocol": "TCP"}],
        },
    }


def ready(live: Mapping[str, Any] | None, serving: Revision, candidate: Revision) -> bool:
    """Whether the live Deployment has a pod that compares this pair."""
    if live is None or live["metadata"].get("deletionTimestamp"):
        return False
    status, template = live.get("status", {}), live["spec"]["template"]["metadata"]
    current = status.get("observedGeneration", 0) >= live["metadata"].get("generation", 0)
    pair = (template.get("annotations") or {}).get(ANNOTATION_PAIR)
    available = min(status.get("updatedReplicas", 0), status.get("availableReplicas", 0))
    return bool(current and pair == _pair(serving, candidate) and available >= 1)


def _pair(serving: Revision, candidate: Revision) -> str:
    return f"{serving.hash} {candidate.hash}"


def _url(model: str, namespace: str, revision: Revision) -> str:
    return f"http://{names.revision_name(model, revision.hash)}.{namespace}.svc"


def _labels(model: str) -> dict[str, str]:
    """Labels that select the comparer, and that no Service of the Model or of a revision selects."""
    return {names.LABEL_MODEL: names.label_value(model), names.LABEL_ROLE: names.ROLE_COMPARER}


def _metadata(model: Json) -> Json:
    metadata = child_metadata(model, None, names.comparer_name(model["metadata"]["name"]))
    return metadata | {"labels": {**metadata["labels"], names.LABEL_ROLE: names.ROLE_COMPARER}}
