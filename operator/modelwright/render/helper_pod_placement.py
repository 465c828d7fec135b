"""Places and sizes the pods beside the serving ones, by what the administrator and a Model's author say of them."""

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
    """The images for pods beside the serving ones of `model`, as its spec.helperPods has it. What can't be read is left
    out: the Model is refused for it."""
    said = ((model or {}).get("spec") or {}).get("helperPods")
    if not said:
        return images
    try:
        place = ModelHelperPods.model_validate(said, by_alias=True, by_name=False)
    except ValidationError:
        return images
    return replace(images, helper_pods=images.helper_pods.with_placement(place), administrators=images.helper_pods)


def fetch_environment(images: Images, role: str, *, proven: bool) -> dict[str, str]:
    """What is said of the environment of a container that fetches. `proven`: the digest of what it fetches is known,
    and no Secret is needed for it. Else proxies for plain HTTP are the administrator's alone: an author's could answer
    in the store's place, and read the credentials."""
    said = images.helper_pods.for_role(role).env
    if proven or images.administrators is None:
        return said
    own = images.administrators.for_role(role).env
    kept = {name: value for name, value in said.items() if name not in PLAINTEXT_PROXIES}
    return kept | {name: value for name, value in own.items() if name in PLAINTEXT_PROXIES}


def place_template(
    metadata: Json, spec: Json, images: Images, role: str, given: Mapping[str, Any] | None = None
) -> Json:
    """Metadata and spec of a pod of `role` with its labels, annotations, place and pull secrets.

    What they say already wins, and so does any member of `given`, the PodSpec as its author has written it.
    """
    said, written = images.helper_pods.for_role(role).to_pod_members(), {**spec, **(given or {})}
    placed = {key: said[key] for key in _PLACEMENT_MEMBERS if said.get(key) and key not in written}
    kept = list(spec.get("imagePullSecrets") or ())
    secrets = [*kept, *(entry for entry in said.get("imagePullSecrets", []) if entry not in kept)]
    return {
        "metadata": {
            **metadata,
            **{key: {**said[key], **(metadata.get(key) or {})} for key in ("labels", "annotations") if key in said},
        },
        "spec": {**spec, **placed, **({"imagePullSecrets": secrets} if secrets else {})},
    }


def container_resources(default: Json, images: Images, role: str) -> Json:
    """The resources of a container of ours in a pod of `role`. A default request is never above a limit that was set:
    the API server would refuse the pod."""
    said = images.helper_pods.for_role(role).resources
    if said is None:
        return default
    wanted = said.wire()
    limits = {**default.get("limits", {}), **wanted["limits"]}
    requests = {
        name: limits[name] if name in limits and _exceeds_limit(value, limits[name]) else value
        for name, value in default.get("requests", {}).items()
    }
    return {"requests": {**requests, **wanted["requests"]}, "limits": limits}


def placement_annotation(images: Images, role: str) -> dict[str, str]:
    """An annotation for objects that live long: with another value, they are made again, since a patch of theirs would
    leave what is no longer said. Empty while nothing is said."""
    said = images.helper_pods.for_role(role).to_pod_members() | (
        {"podSecurity": "Platform"} if images.platform_ids else {}
    )
    return {names.ANNOTATION_HELPER_PODS: names.content_hash(said)} if said else {}


def _exceeds_limit(value: Any, limit: Any) -> bool:
    return (parse_quantity(value) or 0) > (parse_quantity(limit) or 0)
