"""The observer of a Model: what counts requests and answers, beside the reference sample of the version that serves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.api import names
from modelwright.api.common import Reference, seconds
from modelwright.api.v1alpha1.model import Monitoring
from modelwright.api.v1alpha1.version import Artifact, ReferenceSample
from modelwright.core.revision import Revision
from modelwright.serving import fetching
from modelwright.serving.copies import Taker, service_url
from modelwright.serving.images import Images

Json = dict[str, Any]

REFERENCE_DIR = "/mnt/modelwright/reference"
REFERENCE_BYTES = 16 << 20
ANNOTATION_OBSERVES = f"{names.GROUP}/observes"
"""On the pods: a hash of all that they are made of; another one makes another pod."""
_OBSERVER = Taker(
    names.ROLE_OBSERVER,
    "modelwright.observe",
    names.observer_name("{model}"),
    ANNOTATION_OBSERVES,
    # The limit is what the largest reference takes while it is parsed.
    {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "768Mi"}},
)


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
    environment = {
        "MODEL_NAMESPACE": model["metadata"]["namespace"],
        "MODEL_NAME": model["metadata"]["name"],
        "MODEL_VERSION": serving.version,
        "SERVING_URL": service_url(model, serving),
        "REFERENCE": REFERENCE_DIR,
        "REFERENCE_BYTES": str(REFERENCE_BYTES),
        "WINDOW_SECONDS": f"{seconds(monitoring.window):g}",
        "MIN_SAMPLES": str(monitoring.min_samples),
    }
    brought = fetching.bring({"reference": (wanted, wanted.digest, REFERENCE_DIR)}, images)
    for fetch in brought.containers:
        fetch["env"] = [*fetch["env"], {"name": "MODELWRIGHT_FETCH_MAX_BYTES", "value": str(REFERENCE_BYTES)}]
    made_for = names.content_hash(
        [
            serving.hash,
            environment,
            brought.containers,
            brought.volumes,
            images.operator,
            service_account,
            request_seconds,
        ]
    )
    return _OBSERVER.deployment(
        model, made_for, environment, images, service_account=service_account, request_seconds=request_seconds,
        container={"volumeMounts": brought.mounts},
        pod={"initContainers": brought.containers, "volumes": brought.volumes},
    )  # fmt: skip


def service(model: Json) -> Json:
    """Where the gateway sends the copies: port 80."""
    return _OBSERVER.service(model)


def ready(live: Mapping[str, Any] | None, wanted: Json) -> bool:
    """Whether the live Deployment has a pod, and it is made as `wanted` says."""
    return _OBSERVER.ready(live, _OBSERVER.made_for(wanted) or "")


def same(live: Mapping[str, Any], wanted: Json) -> bool:
    """Whether the pods of the live Deployment are to be as `wanted` says."""
    return _OBSERVER.made_for(live) == _OBSERVER.made_for(wanted)
