"""Renders pods of Jobs from the template of a policy's author, with defaults of the restricted Pod Security
Standard."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelwright.api import names
from modelwright.render import fetch_container
from modelwright.render.images import Images
from modelwright.render.strategic_merge import MergeError, strategic_merge

Json = dict[str, Any]


def default_pod_spec(images: Images, service_account: str | None = None) -> Json:
    """Return the PodSpec that a Job's template is merged into."""
    return {
        # Each attempt is a pod, whose termination message is kept.
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
    fetched: fetch_container.FetchedContents,
) -> Json:
    """Merge the author's pod `template` into the PodSpec `base`. Init containers that fetch contents precede the
    author's; each container gets `environment` and the mounts; everything else of the template stays.

    Raises MergeError, naming the field below `path`, for a template without containers.
    """
    spec_path = f"{path}.spec"
    spec: Json = strategic_merge(base, typed_member(template, "spec", dict, path), spec_path)
    containers = {
        key: [
            merge_container(entry, environment, f"{spec_path}.{key}[{index}]", fetched.mounts)
            for index, entry in enumerate(entries)
        ]
        for key in ("initContainers", "containers")
        if (entries := typed_member(spec, key, list, spec_path))
    }
    if "containers" not in containers:
        raise MergeError(f"{spec_path}.containers: at least one container is needed, which writes the report")
    spec |= containers
    spec["initContainers"] = [*fetched.containers, *containers.get("initContainers", [])]
    spec["volumes"] = [*fetched.volumes, *typed_member(spec, "volumes", list, spec_path)]
    return spec


def merge_metadata(template: Mapping[str, Any], path: str, labels: Mapping[str, str]) -> Json:
    """Return the author's pod metadata with our `labels`, which take precedence; the author's labels of our group are
    dropped."""
    authored = typed_member(template, "metadata", dict, path)
    authored_labels = typed_member(authored, "labels", dict, f"{path}.metadata")
    allowed = {key: value for key, value in authored_labels.items() if not key.startswith(f"{names.GROUP}/")}
    return {**authored, "labels": {**allowed, **labels}}


def render_variables(environment: Mapping[str, str]) -> list[Json]:
    """Render `environment` as the `env` of a container."""
    return [{"name": key, "value": fetch_container.escape_dollars(value)} for key, value in environment.items()]


def merge_container(authored: Any, environment: Mapping[str, str], path: str, mounts: Sequence[Json] = ()) -> Json:
    """Return the author's container with our mounts and variables; ours precede its own and take precedence.

    `path`: its position in the template, for the MergeError of an invalid container.
    """
    if not isinstance(authored, dict):
        raise MergeError(f"{path}: must be an object")
    security = fetch_container.user_container_security()
    authored_env = typed_member(authored, "env", list, path)
    if not all(isinstance(entry, dict) for entry in authored_env):
        raise MergeError(f"{path}.env: must be a list of objects")
    mounted = [*mounts, *typed_member(authored, "volumeMounts", list, path)]
    return {
        # The last log lines of a failed script become the message of its Job.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **authored,
        "env": [
            *render_variables(environment),
            *(entry for entry in authored_env if entry.get("name") not in environment),
        ],
        **({"volumeMounts": mounted} if mounted else {}),
        "securityContext": strategic_merge(security, authored.get("securityContext") or {}, f"{path}.securityContext"),
    }


def typed_member(parent: Mapping[str, Any], key: str, type_: type, path: str) -> Any:
    """Return a member of the author's template, empty when it is absent; raises MergeError for another type."""
    member = parent.get(key)
    if member is None:
        return type_()
    if not isinstance(member, type_):
        raise MergeError(f"{path}.{key}: must be {'a list' if type_ is list else 'an object'}")
    return member
