"""Renders the comparer of a Model: the pod that sends mirrored requests to both revisions of a rollout."""

from collections.abc import Mapping
from typing import Any

from modelwright.api import names
from modelwright.core.revision import Revision
from modelwright.render.images import Images
from modelwright.render.mirror_target import MirrorSettings, MirrorTarget, service_url

Json = dict[str, Any]

ANNOTATION_PAIR = f"{names.GROUP}/compares"
"""On the pods: "<hash of the serving revision> <hash of the candidate>"; another pair replaces the pod."""
_COMPARER = MirrorTarget(
    names.ROLE_COMPARER,
    "modelwright.agents.comparer",
    names.comparer_name("{model}"),
    ANNOTATION_PAIR,
    # The most request and response bodies that it holds, and one pair of them parsed.
    {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "768Mi"}},
)


def comparer_deployment(
    model: Json,
    serving: Revision,
    candidate: Revision,
    images: Images,
    settings: MirrorSettings,
) -> Json:
    """Render the Deployment whose one pod compares this pair of revisions. It waits for a response as long as the
    Model's longest request and drain take together."""
    environment = {
        "SERVING_URL": service_url(model, serving),
        "CANDIDATE_URL": service_url(model, candidate),
        "SERVING_REVISION": serving.hash,
        "CANDIDATE_REVISION": candidate.hash,
    }
    return _COMPARER.render_deployment(model, _pair_key(serving, candidate), environment, images, settings)


def comparer_service(model: Json) -> Json:
    """Render the Service that receives mirrored requests and serves the summary, on port 80."""
    return _COMPARER.render_service(model)


def is_comparer_ready(live: Mapping[str, Any] | None, serving: Revision, candidate: Revision) -> bool:
    """Return whether the live Deployment has a ready pod that compares this pair."""
    return _COMPARER.is_ready(live, _pair_key(serving, candidate))


def _pair_key(serving: Revision, candidate: Revision) -> str:
    return f"{serving.hash} {candidate.hash}"
