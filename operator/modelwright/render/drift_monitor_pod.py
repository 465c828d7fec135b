"""Renders the drift monitor of a Model, which compares requests and responses with the serving version's reference
sample."""

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
from modelwright.render.mirror_target import MirrorSettings, MirrorTarget, service_url

Json = dict[str, Any]

REFERENCE_DIR = "/mnt/modelwright/reference"
REFERENCE_BYTES = 16 << 20
ANNOTATION_OBSERVES = f"{names.GROUP}/observes"
"""On the pods: a hash of their configuration; another hash replaces the pod."""
_MONITOR = MirrorTarget(
    names.ROLE_OBSERVER,
    "modelwright.agents.drift_monitor",
    names.observer_name("{model}"),
    ANNOTATION_OBSERVES,
    # The limit is the memory that parsing the largest reference takes.
    {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "768Mi"}},
)


@dataclass(frozen=True, slots=True)
class ReferenceSource:
    """The reference sample of a version, fetched like its artifact."""

    uri: str
    digest: str | None
    service_account_name: str | None
    credentials_secret_ref: LocalObjectReference | None


def reference_source(reference: ReferenceSample, artifact: Artifact) -> ReferenceSource:
    """Return the reference sample with the credentials of the artifact."""
    return ReferenceSource(
        reference.uri, reference.digest, artifact.service_account_name, artifact.credentials_secret_ref
    )


def monitor_deployment(
    model: Json,
    serving: Revision,
    reference: ReferenceSource,
    monitoring: Monitoring,
    images: Images,
    settings: MirrorSettings,
) -> Json:
    """Render the Deployment whose one pod monitors the requests of the revision `serving`."""
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
    fetched = fetch_container.fetch_contents(
        {"reference": (reference, reference.digest, REFERENCE_DIR)}, images, names.ROLE_OBSERVER
    )
    for fetch in fetched.containers:
        fetch_container.set_variables(fetch, {"MODELWRIGHT_FETCH_MAX_BYTES": str(REFERENCE_BYTES)})
    fingerprint = names.content_hash(
        [
            serving.hash,
            environment,
            fetched.containers,
            fetched.volumes,
            images.operator,
            settings.token,
            settings.service_account,
            settings.request_seconds,
            *helper_pod_placement.placement_annotation(images, names.ROLE_OBSERVER).values(),
        ]
    )
    return _MONITOR.render_deployment(
        model,
        fingerprint,
        environment,
        images,
        settings,
        container={"volumeMounts": fetched.mounts},
        pod={"initContainers": fetched.containers, "volumes": fetched.volumes},
    )


def _format_window(seconds_in_all: float) -> str:
    """Format a duration as the drift monitor names its windows: 1h30m, 90s."""
    if seconds_in_all < 120:
        return f"{max(round(seconds_in_all), 1)}s"
    hours, seconds_of_hour = divmod(round(seconds_in_all), 3600)
    minutes, seconds_of_minute = divmod(seconds_of_hour, 60)
    return "".join(
        f"{number}{unit}" for number, unit in ((hours, "h"), (minutes, "m"), (seconds_of_minute, "s")) if number
    )


def monitor_service(model: Json) -> Json:
    """Render the Service that receives mirrored requests, on port 80."""
    return _MONITOR.render_service(model)


def is_monitor_ready(live: Mapping[str, Any] | None, rendered: Json) -> bool:
    """Return whether the live Deployment has a ready pod configured as in `rendered`."""
    return _MONITOR.is_ready(live, _MONITOR.fingerprint_of(rendered) or "")


def is_same_monitor(live: Mapping[str, Any], rendered: Json) -> bool:
    """Return whether the pods of the live Deployment are configured as in `rendered`."""
    return _MONITOR.fingerprint_of(live) == _MONITOR.fingerprint_of(rendered)
