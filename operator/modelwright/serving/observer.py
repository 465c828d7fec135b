"""The observer of a Model: what counts requests and answers, beside the reference sample of the version that serves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.api import names
from modelwright.api.common import Reference, seconds
from modelwright.api.v1alpha1.model import Monitoring
from modelwright.api.v1alpha1.version import Artifact, ReferenceSample
from modelwright.core.rollout.observed import Revision
from modelwright.serving import fetching
from modelwright.serving.images import Images
from modelwright.serving.metadata import child_metadata

Json = dict[str, Any]

PORT = 8080
REFERENCE_DIR = "/mnt/modelwright/reference"
REFERENCE_BYTES = 16 << 20
ANNOTATION_OBSERVES = f"{names.GROUP}/observes"
"""On the pods: a hash of all that they are made of; another one makes another pod."""
_STOP_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Sample:
    """The reference of a version, fetched as its artifact is."""

    uri: str
    digest: str | None
    service_account_name: str | None
    credentials_secret_ref: Reference | None


def sample(reference: ReferenceSample, artifact: Artifact) -> Sample:
    """The reference with the credentials of the artifact."""
    return Sample(reference.uri, reference.digest, artifact.service_account_name, artifact.credentials_secret_ref)


def deployment(
    model: Json, serving: Revision, wanted: Sample, monitoring: Monitoring, images: Images, *,
    request_seconds: int = 30, service_account: str | None = None,
) -> Json:  # fmt: skip
    """One pod that observes what the revision `serving` is asked. `request_seconds`: how long an answer is waited for.
    `service_account`: whose image pull secrets, and identity at the store, the pod needs; it has no rights."""
    name, namespace = model["metadata"]["name"], model["metadata"]["namespace"]
    labels = _labels(name)
    environment = {
        "MODEL_NAMESPACE": namespace,
        "MODEL_NAME": name,
        "MODEL_VERSION": serving.version,
        "SERVING_URL": f"http://{names.revision_name(name, serving.hash)}.{namespace}.svc",
        "REFERENCE": REFERENCE_DIR,
        "REFERENCE_BYTES": str(REFERENCE_BYTES),
        "WINDOW_SECONDS": f"{seconds(monitoring.window):g}",
        "MIN_SAMPLES": str(monitoring.min_samples),
        "REQUEST_TIMEOUT_SECONDS": str(request_seconds),
        "STOP_SECONDS": str(_STOP_SECONDS),
        "PORT": str(PORT),
    }
    brought = fetching.bring({"reference": (wanted, wanted.digest, REFERENCE_DIR)}, images)
    for fetch in brought.containers:
        fetch["env"] = [*fetch["env"], {"name": "MODELWRIGHT_FETCH_MAX_BYTES", "value": str(REFERENCE_BYTES)}]
    container = {
        "name": "observer",
        "image": images.operator,
        **({"imagePullPolicy": images.pull_policy} if images.pull_policy else {}),
        "command": ["python", "-m", "modelwright.observe"],
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 1, "timeoutSeconds": 2},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10, "timeoutSeconds": 5},
        # The limit is what the largest reference takes while it is parsed.
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "768Mi"}},
        "securityContext": fetching.container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": brought.mounts,
    }
    spec = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        **({"serviceAccountName": service_account} if service_account else {}),
        "securityContext": fetching.pod_security(),
        "terminationGracePeriodSeconds": 2 * _STOP_SECONDS,
        "initContainers": brought.containers,
        "containers": [container],
        "volumes": brought.volumes,
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
                        ANNOTATION_OBSERVES: names.content_hash([serving.hash, spec]),
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": str(PORT),
                        "prometheus.io/path": "/metrics",
                    },
                },
                "spec": spec,
            },
        },
    }


def service(model: Json) -> Json:
    """Where the gateway sends the copies: port 80."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(model),
        "spec": {
            "selector": _labels(model["metadata"]["name"]),
            "ports": [{"name": "http", "port": 80, "targetPort": PORT, "protocol": "TCP"}],
        },
    }


def ready(live: Mapping[str, Any] | None, wanted: Json) -> bool:
    """Whether the live Deployment has a pod, and it is made as `wanted` says."""
    if live is None or live["metadata"].get("deletionTimestamp"):
        return False
    status = live.get("status", {})
    current = status.get("observedGeneration", 0) >= live["metadata"].get("generation", 0)
    available = min(status.get("updatedReplicas", 0), status.get("availableReplicas", 0))
    return bool(current and available >= 1 and same(live, wanted))


def same(live: Mapping[str, Any], wanted: Json) -> bool:
    """Whether the pods of the live Deployment are to be as `wanted` says."""
    one, other = (found["spec"]["template"]["metadata"].get("annotations") or {} for found in (live, wanted))
    return bool(one.get(ANNOTATION_OBSERVES) == other[ANNOTATION_OBSERVES])


def _labels(model: str) -> dict[str, str]:
    """Labels that select the observer, and that no Service of the Model or of a revision selects."""
    return {names.LABEL_MODEL: names.label_value(model), names.LABEL_ROLE: names.ROLE_OBSERVER}


def _metadata(model: Json) -> Json:
    metadata = child_metadata(model, None, names.observer_name(model["metadata"]["name"]))
    return metadata | {"labels": {**metadata["labels"], names.LABEL_ROLE: names.ROLE_OBSERVER}}
