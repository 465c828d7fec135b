"""Pods of Jobs whose template a policy's author has written: ours are the defaults of the restricted standard."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelwright.api import names
from modelwright.render import fetch_container
from modelwright.render.images import Images
from modelwright.render.strategic_merge import MergeError, strategic_merge

Json = dict[str, Any]


def default_pod_spec(images: Images, service_account: str | None = None) -> Json:
    """The PodSpec that a Job's template is merged into."""
    return {
        # A try is a pod, whose last words are kept.
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        **({"serviceAccountName": service_account} if service_account else {}),
        "securityContext": fetch_container.restricted_pod_security(images),
    }


def merge_pod_spec(
    template: Mapping[str, Any],
    path: str,
    base: Json,
    environment: Mapping[str, str],
    brought: fetch_container.FetchedContents,
) -> Json:
    """The PodSpec of the author's pod `template`, which is kept as it is, merged into `base`: put before it is what
    brings contents, and in each of its containers `environment` and the directories.

    Raises MergeError, naming the field below `path`, for a template that has no containers.
    """
    where = f"{path}.spec"
    spec: Json = strategic_merge(base, typed_member(template, "spec", dict, path), where)
    own = {
        key: [
            merge_container(entry, environment, f"{where}.{key}[{index}]", brought.mounts)
            for index, entry in enumerate(found)
        ]
        for key in ("initContainers", "containers")
        if (found := typed_member(spec, key, list, where))
    }
    if "containers" not in own:
        raise MergeError(f"{where}.containers: at least one container is needed, which writes the report")
    spec |= own
    spec["initContainers"] = [*brought.containers, *own.get("initContainers", [])]
    spec["volumes"] = [*brought.volumes, *typed_member(spec, "volumes", list, where)]
    return spec


def merge_metadata(template: Mapping[str, Any], path: str, labels: Mapping[str, str]) -> Json:
    """The author's pod metadata with our `labels`, which win; labels of our group are ours alone."""
    given = typed_member(template, "metadata", dict, path)
    own = typed_member(given, "labels", dict, f"{path}.metadata")
    others = {key: value for key, value in own.items() if not key.startswith(f"{names.GROUP}/")}
    return {**given, "labels": {**others, **labels}}


def render_variables(environment: Mapping[str, str]) -> list[Json]:
    """`environment` as a container has it."""
    return [{"name": key, "value": fetch_container.escape_dollars(value)} for key, value in environment.items()]


def merge_container(given: Any, environment: Mapping[str, str], path: str, mounts: Sequence[Json] = ()) -> Json:
    """The author's container with our variables before its own, which they win over, and our mounts.

    `path` is where it stands, for MergeError when it is no container.
    """
    if not isinstance(given, dict):
        raise MergeError(f"{path}: must be an object")
    security = fetch_container.user_container_security()
    own = typed_member(given, "env", list, path)
    if not all(isinstance(entry, dict) for entry in own):
        raise MergeError(f"{path}.env: must be a list of objects")
    mounted = [*mounts, *typed_member(given, "volumeMounts", list, path)]
    return {
        # The last log lines of a script that fails become the message of its Job.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **given,
        "env": [*render_variables(environment), *(entry for entry in own if entry.get("name") not in environment)],
        **({"volumeMounts": mounted} if mounted else {}),
        "securityContext": strategic_merge(security, given.get("securityContext") or {}, f"{path}.securityContext"),
    }


def typed_member(of: Mapping[str, Any], key: str, type_: type, path: str) -> Any:
    """A member of the author's template, empty when it is absent; MergeError when it is of another type."""
    found = of.get(key)
    if found is None:
        return type_()
    if not isinstance(found, type_):
        raise MergeError(f"{path}.{key}: must be {'a list' if type_ is list else 'an object'}")
    return found
