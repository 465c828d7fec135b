"""The observer of a Model: what counts requests and answers, beside the reference sample of the version that serves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.api import names
from modelwright.api.common import Reference, seconds
from modelwright.api.v1alpha1.model import Monitoring
from modelwright.api.v1alpha1.version import Artifact, ReferenceSample
from modelwright.core.revision import Revision
from modelwright.serving import fetching, helpers
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
    token: str = "", request_seconds: int = 30, service_account: str | None = None,
) -> Json:  # fmt: skip
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
        "WINDOW": _time(seconds(monitoring.window)),
        "LONG_WINDOW": _time(seconds(monitoring.long_window))
        if seconds(monitoring.long_window) > seconds(monitoring.window)
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
    brought = fetching.bring({"reference": (wanted, wanted.digest, REFERENCE_DIR)}, images, names.ROLE_OBSERVER)
    for fetch in brought.containers:
        fetching.enforce(fetch, {"MODELWRIGHT_FETCH_MAX_BYTES": str(REFERENCE_BYTES)})
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
            *helpers.mark(images, names.ROLE_OBSERVER).values(),
        ]
    )
    return _OBSERVER.deployment(
        model, made_for, environment, images, token=token, service_account=service_account,
        request_seconds=request_seconds,
        container={"volumeMounts": brought.mounts},
        pod={"initContainers": brought.containers, "volumes": brought.volumes},
    )  # fmt: skip


def _time(whole: float) -> str:
    """As the observer names its windows: 1h30m, 90s."""
    if whole < 120:
        return f"{max(round(whole), 1)}s"
    hours, rest = divmod(round(whole), 3600)
    minutes, left = divmod(rest, 60)
    return "".join(f"{number}{unit}" for number, unit in ((hours, "h"), (minutes, "m"), (left, "s")) if number)


def service(model: Json) -> Json:
    """Where the gateway sends the copies: port 80."""
    return _OBSERVER.service(model)


def ready(live: Mapping[str, Any] | None, wanted: Json) -> bool:
    """Whether the live Deployment has a pod, and it is made as `wanted` says."""
    return _OBSERVER.ready(live, _OBSERVER.made_for(wanted) or "")


def same(live: Mapping[str, Any], wanted: Json) -> bool:
    """Whether the pods of the live Deployment are to be as `wanted` says."""
    return _OBSERVER.made_for(live) == _OBSERVER.made_for(wanted)
