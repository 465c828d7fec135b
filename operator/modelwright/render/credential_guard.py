"""Keeps the credentials of an artifact from an author's pod template: who writes a Model may not be who may read the
Secret that its version names. Plain variables and mounts ask for no right, and would be enough to read it."""

from typing import Any

from modelwright.api.v1alpha1.helper_pods import FETCH_VARIABLES, PLAINTEXT_PROXIES, PROXY_VARIABLES
from modelwright.render import fetch_container, user_pod_template
from modelwright.render.strategic_merge import MergeError

Json = dict[str, Any]

_CHANGEABLE_VARIABLES = FETCH_VARIABLES | (PROXY_VARIABLES - PLAINTEXT_PROXIES) | {"AWS_REGION", "AWS_DEFAULT_REGION"}
_CHANGEABLE_MEMBERS = frozenset(
    {
        "resources",
        "image",
        "imagePullPolicy",
        "command",
        "args",
        "securityContext",
        "terminationMessagePath",
        "terminationMessagePolicy",
    }
)
"""Of the container that fetches. For what runs in it, admission asks for the right to create Deployments, and who has
that may mount any Secret."""


def check_credentials_kept(spec: Json, fetch: Json, volumes: list[Json], path: str) -> None:
    """Raises MergeError, naming the field below `path`, where `spec`, merged from what is rendered and the author's,
    gives the credentials to another container, or changes what the container `fetch` is given or reads beside them.
    `volumes`: those of the pod before the merge."""
    if not any(volume["name"] == fetch_container.CREDENTIALS_VOLUME for volume in volumes):
        return
    rendered = {volume["name"]: volume for volume in volumes}
    for volume in user_pod_template.typed_member(spec, "volumes", list, path):
        name = volume.get("name")
        changed = name in rendered and volume != rendered[name]
        if changed and (
            name == fetch_container.CREDENTIALS_VOLUME or (name == "tmp" and set(volume) != {"name", "emptyDir"})
        ):
            raise MergeError(f"{path}.volumes[{name}]: is of the container {fetch['name']}, which has credentials")
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for entry in user_pod_template.typed_member(spec, key, list, path):
            where = f"{path}.{key}[{entry['name']}]"
            if key == "initContainers" and entry["name"] == fetch["name"]:
                _check_fetch_container(entry, fetch, where)
            elif any(
                mount.get("name") == fetch_container.CREDENTIALS_VOLUME
                for mount in user_pod_template.typed_member(entry, "volumeMounts", list, where)
                if isinstance(mount, dict)
            ):
                raise MergeError(
                    f"{where}.volumeMounts: {fetch_container.CREDENTIALS_VOLUME} is for the container "
                    f"{fetch['name']} alone: "
                    "mount the Secret by a volume of your own"
                )


def _check_fetch_container(entry: Json, fetch: Json, where: str) -> None:
    for key in sorted(entry.keys() | fetch.keys()):
        if key not in _CHANGEABLE_MEMBERS and key != "env" and entry.get(key) != fetch.get(key):
            raise MergeError(f"{where}.{key}: can't be changed where the artifact has a credentialsSecretRef")
    known = user_pod_template.typed_member(fetch, "env", list, where)
    for variable in user_pod_template.typed_member(entry, "env", list, where):
        if variable not in known and (
            not isinstance(variable, dict) or variable.get("name") not in _CHANGEABLE_VARIABLES
        ):
            name = variable.get("name") if isinstance(variable, dict) else variable
            raise MergeError(
                f"{where}.env[{name}]: where the artifact has a credentialsSecretRef, this container takes "
                f"{', '.join(sorted(_CHANGEABLE_VARIABLES))}; what the store needs belongs into the Secret"
            )
