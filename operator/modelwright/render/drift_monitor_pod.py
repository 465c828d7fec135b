"""The observer of a Model: what counts requests and answers, beside the reference sample of the version that serves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.api import names
from modelwright.api.common import LocalObjectReference, parse_duration
from modelwright.api.v1alpha1.model import Monitoring
from modelwright.api.v1alpha1.version import Artifact, ReferenceSample
from modelwright.core.revision import Revision
from modelwright.render import fetch_container, helper_pod_placement
from modelwright.render.images import Images
from modelwright.render.mirror_target import MirrorTarget, service_url

Json = dict[str, Any]

REFERENCE_DIR = "/mnt/modelwright/reference"
REFERENCE_BYTES = 16 << 20
ANNOTATION_OBSERVES = f"{names.GROUP}/observes"
"""On the pods: a hash of all that they are made of; another one makes another pod."""
_MONITOR = MirrorTarget(
    names.ROLE_OBSERVER,
    "modelwright.agents.drift_monitor",
    names.observer_name("{model}"),
    ANNOTATION_OBSERVES,
    # The limit is what the largest reference takes while it is parsed.
    {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "768Mi"}},
)


@dataclass(frozen=True, slots=True)
class ReferenceSource:
    """The reference of a version, fetched as its artifact is."""

    uri: str
    digest: str | None
    service_account_name: str | None
    credentials_secret_ref: LocalObjectReference | None


def reference_source(reference: ReferenceSample, artifact: Artifact) -> ReferenceSource:
    """The reference with the credentials of the artifact."""
    return ReferenceSource(
        reference.uri, reference.digest, artifact.service_account_name, artifact.credentials_secret_ref
    )


def monitor_deployment(
    model: Json,
    serving: Revision,
    wanted: ReferenceSource,
    monitoring: Monitoring,
    images: Images,
    *,
    token: str = "",
    request_seconds: int = 30,
    service_account: str | None = None,
) -> Json:
    """One pod that observes what the revision `serving` is asked. `token`: of the copies that count; empty for all.
    `request_seconds`: how long an answer is waited for.
    `service_account`: whose image pull secrets, and identity at the store, the pod needs; it has no rights."""
    environment = {
        "MODEL_NAMESPACE": model["metadata"]["namespace"],
        "MODEL_NAME": model["metadata"]["name"],
        "MODEL_VERSION": serving.version,
        "SERVING_URL": service_url(model, serving),
        "REFERENCE": REFERENCE_DIR,
        "REFERENCE_BYTES": str(REFERENCE_BYTES),
        "WINDOW": _format_window(parse_duration(monitoring.window)),
        "LONG_WINDOW": _format_window(parse_duration(monitoring.long_window))
        if parse_duration(monitoring.long_window) > parse_duration(monitoring.window)
        else "0s",
        "MIN_SAMPLES": str(monitoring.min_samples),
        "ROWS_PER_REQUEST": str(monitoring.rows_per_request),
        "NUMBERS_METHOD": monitoring.numbers.method,
        "CATEGORIES_METHOD": monitoring.categories.method,
        "SHARE_FLOOR": monitoring.share_floor,
        "CORRECTION": monitoring.correction,
    }
    if monitoring.numbers.floor is not None:
        environment["NUMBERS_FLOOR"] = monitoring.numbers.floor
    if monitoring.categories.floor is not None:
        environment["CATEGORIES_FLOOR"] = monitoring.categories.floor
    brought = fetch_container.fetch_contents(
        {"reference": (wanted, wanted.digest, REFERENCE_DIR)}, images, names.ROLE_OBSERVER
    )
    for fetch in brought.containers:
        fetch_container.set_variables(fetch, {"MODELWRIGHT_FETCH_MAX_BYTES": str(REFERENCE_BYTES)})
    made_for = names.content_hash(
        [
            serving.hash,
            environment,
            brought.containers,
            brought.volumes,
            images.operator,
            token,
            service_account,
            request_seconds,
            *helper_pod_placement.placement_annotation(images, names.ROLE_OBSERVER).values(),
        ]
    )
    return _MONITOR.render_deployment(
        model,
        made_for,
        environment,
        images,
        token=token,
        service_account=service_account,
        request_seconds=request_seconds,
        container={"volumeMounts": brought.mounts},
        pod={"initContainers": brought.containers, "volumes": brought.volumes},
    )


def _format_window(whole: float) -> str:
    """As the observer names its windows: 1h30m, 90s."""
    if whole < 120:
        return f"{max(round(whole), 1)}s"
    hours, rest = divmod(round(whole), 3600)
    minutes, left = divmod(rest, 60)
    return "".join(f"{number}{unit}" for number, unit in ((hours, "h"), (minutes, "m"), (left, "s")) if number)


def monitor_service(model: Json) -> Json:
    """Where the gateway sends the copies: port 80."""
    return _MONITOR.render_service(model)


def is_monitor_ready(live: Mapping[str, Any] | None, wanted: Json) -> bool:
    """Whether the live Deployment has a pod, and it is made as `wanted` says."""
    return _MONITOR.is_ready(live, _MONITOR.fingerprint_of(wanted) or "")


def is_same_monitor(live: Mapping[str, Any], wanted: Json) -> bool:
    """Whether the pods of the live Deployment are to be as `wanted` says."""
    return _MONITOR.fingerprint_of(live) == _MONITOR.fingerprint_of(wanted)
