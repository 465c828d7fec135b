"""Places and sizes the pods beside the serving ones, by the settings of the administrator and a Model's author."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from modelwright.api import names
from modelwright.api.v1alpha1.helper_pods import PLAINTEXT_PROXIES, ModelHelperPods
from modelwright.core.diff import parse_quantity
from modelwright.render.images import Images

Json = dict[str, Any]

_PLACEMENT_MEMBERS = ("nodeSelector", "tolerations", "affinity", "priorityClassName")


def with_model_placement(images: Images, model: Mapping[str, Any] | None) -> Images:
    """Return the images and settings for helper pods of `model`, by its spec.helperPods. Invalid values are ignored:
    the Model is refused for them."""
    placement = ((model or {}).get("spec") or {}).get("helperPods")
    if not placement:
        return images
    try:
        parsed = ModelHelperPods.model_validate(placement, by_alias=True, by_name=False)
    except ValidationError:
        return images
    return replace(images, helper_pods=images.helper_pods.with_placement(parsed), administrators=images.helper_pods)


def fetch_environment(images: Images, role: str, *, proven: bool) -> dict[str, str]:
    """Return the configured environment of a fetch container. `proven`: the digest of the content is known, and it
    needs no Secret. Otherwise only the administrator may set proxies for plain HTTP: an author's proxy could
    impersonate the store and read the credentials."""
    configured = images.helper_pods.for_role(role).env
    if proven or images.administrators is None:
        return configured
    administrators = images.administrators.for_role(role).env
    without_proxies = {name: value for name, value in configured.items() if name not in PLAINTEXT_PROXIES}
    return without_proxies | {name: value for name, value in administrators.items() if name in PLAINTEXT_PROXIES}


def place_template(
    metadata: Json, spec: Json, images: Images, role: str, authored_spec: Mapping[str, Any] | None = None
) -> Json:
    """Add the labels, annotations, placement and pull secrets of `role` to the metadata and spec of a pod.

    Members that are already set take precedence, and so does any member of `authored_spec`, the PodSpec written by its
    author.
    """
    settings, written = images.helper_pods.for_role(role).to_pod_members(), {**spec, **(authored_spec or {})}
    placed = {key: settings[key] for key in _PLACEMENT_MEMBERS if settings.get(key) and key not in written}
    own_secrets = list(spec.get("imagePullSecrets") or ())
    secrets = [*own_secrets, *(entry for entry in settings.get("imagePullSecrets", []) if entry not in own_secrets)]
    return {
        "metadata": {
            **metadata,
            **{
                key: {**settings[key], **(metadata.get(key) or {})}
                for key in ("labels", "annotations")
                if key in settings
            },
        },
        "spec": {**spec, **placed, **({"imagePullSecrets": secrets} if secrets else {})},
    }


def container_resources(default: Json, images: Images, role: str) -> Json:
    """Return the resources of a container of ours in a pod of `role`. Default requests are capped at configured limits:
    the API server would refuse the pod."""
    configured = images.helper_pods.for_role(role).resources
    if configured is None:
        return default
    overrides = configured.wire()
    limits = {**default.get("limits", {}), **overrides["limits"]}
    requests = {
        name: limits[name] if name in limits and _exceeds_limit(value, limits[name]) else value
        for name, value in default.get("requests", {}).items()
    }
    return {"requests": {**requests, **overrides["requests"]}, "limits": limits}


def placement_annotation(images: Images, role: str) -> dict[str, str]:
    """Return an annotation with a hash of the settings, for long-lived objects: they are created again when it changes,
    since a patch would keep settings that were removed. Empty without settings."""
    settings = images.helper_pods.for_role(role).to_pod_members() | (
        {"podSecurity": "Platform"} if images.platform_ids else {}
    )
    return {names.ANNOTATION_HELPER_PODS: names.content_hash(settings)} if settings else {}


def _exceeds_limit(value: Any, limit: Any) -> bool:
    return (parse_quantity(value) or 0) > (parse_quantity(limit) or 0)
