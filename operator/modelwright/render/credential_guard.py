"""Protects the credentials of an artifact from an author's pod template: the author of a Model may lack the right to
read the Secret that its version names. Plain variables and mounts need no right, and would suffice to read it."""

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
"""Members of the fetch container that an author may change. For its image and command, admission requires the right to
create Deployments, which allows mounting any Secret."""


def check_credentials_kept(spec: Json, fetch: Json, volumes: list[Json], path: str) -> None:
    """Raise MergeError, naming the field below `path`, if `spec`, the rendered pod merged with the author's template,
    gives the credentials to another container, or changes inputs of the container `fetch` beside them. `volumes`: those
    of the pod before the merge."""
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
            container_path = f"{path}.{key}[{entry['name']}]"
            if key == "initContainers" and entry["name"] == fetch["name"]:
                _check_fetch_container(entry, fetch, container_path)
            elif any(
                mount.get("name") == fetch_container.CREDENTIALS_VOLUME
                for mount in user_pod_template.typed_member(entry, "volumeMounts", list, container_path)
                if isinstance(mount, dict)
            ):
                raise MergeError(
                    f"{container_path}.volumeMounts: {fetch_container.CREDENTIALS_VOLUME} is for the container "
                    f"{fetch['name']} alone: "
                    "mount the Secret by a volume of your own"
                )


def _check_fetch_container(entry: Json, fetch: Json, path: str) -> None:
    for key in sorted(entry.keys() | fetch.keys()):
        if key not in _CHANGEABLE_MEMBERS and key != "env" and entry.get(key) != fetch.get(key):
            raise MergeError(f"{path}.{key}: can't be changed where the artifact has a credentialsSecretRef")
    rendered = user_pod_template.typed_member(fetch, "env", list, path)
    for variable in user_pod_template.typed_member(entry, "env", list, path):
        if variable not in rendered and (
            not isinstance(variable, dict) or variable.get("name") not in _CHANGEABLE_VARIABLES
        ):
            name = variable.get("name") if isinstance(variable, dict) else variable
            raise MergeError(
                f"{path}.env[{name}]: where the artifact has a credentialsSecretRef, this container takes "
                f"{', '.join(sorted(_CHANGEABLE_VARIABLES))}; settings of the store belong into the Secret"
            )
