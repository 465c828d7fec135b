"""The comparer of a Model: what asks both revisions of a rollout, while requests are mirrored to it."""

from collections.abc import Mapping
from typing import Any

from modelwright.api import names
from modelwright.core.revision import Revision
from modelwright.render.images import Images
from modelwright.render.mirror_target import MirrorTarget, service_url

Json = dict[str, Any]

ANNOTATION_PAIR = f"{names.GROUP}/compares"
"""On the pods: "<hash of the serving revision> <hash of the candidate>"; another pair makes another pod."""
_COMPARER = MirrorTarget(
    names.ROLE_COMPARER,
    "modelwright.agents.comparer",
    names.comparer_name("{model}"),
    ANNOTATION_PAIR,
    # As much as the bodies and answers that it holds at most, and one pair of them parsed.
    {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "768Mi"}},
)


def comparer_deployment(
    model: Json,
    serving: Revision,
    candidate: Revision,
    images: Images,
    *,
    token: str = "",
    request_seconds: int = 30,
    service_account: str | None = None,
) -> Json:
    """One pod that compares this pair. `token`: of the copies that count; empty for all. `request_seconds`: how long an
    answer is waited for (drain and longest request of the Model). `service_account`: whose image pull secrets the pod
    needs; it has no rights."""
    environment = {
        "SERVING_URL": service_url(model, serving),
        "CANDIDATE_URL": service_url(model, candidate),
        "SERVING_REVISION": serving.hash,
        "CANDIDATE_REVISION": candidate.hash,
    }
    return _COMPARER.render_deployment(
        model,
        _pair_key(serving, candidate),
        environment,
        images,
        token=token,
        service_account=service_account,
        request_seconds=request_seconds,
    )


def comparer_service(model: Json) -> Json:
    """Where the gateway sends the copies, and where the summary is read: port 80."""
    return _COMPARER.render_service(model)


def is_comparer_ready(live: Mapping[str, Any] | None, serving: Revision, candidate: Revision) -> bool:
    """Whether the live Deployment has a pod that compares this pair."""
    return _COMPARER.is_ready(live, _pair_key(serving, candidate))


def _pair_key(serving: Revision, candidate: Revision) -> str:
    return f"{serving.hash} {candidate.hash}"
