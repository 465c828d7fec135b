"""The container that brings an artifact into a pod, and the pod that finds out an artifact's digest."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from modelwright.api import names
from modelwright.api.common import Reference
from modelwright.api.v1alpha1.version import Artifact
from modelwright.serving.images import VERIFY_CACHE, Images
from modelwright.serving.metadata import owner_reference

Json = dict[str, Any]

CREDENTIALS_PATH = "/var/run/modelwright/credentials"
CACHE_PATH = "/var/cache/modelwright"
MODEL_VOLUME = "modelwright-model"
CACHE_VOLUME = "modelwright-cache"
FETCH_CONTAINER = "fetch"
"""The container of a pod that does nothing but report what the fetch program says."""
NON_ROOT_USER = 65532


class Source(Protocol):
    """What is fetched, and as whom: an artifact of a version, or data of a run."""

    @property
    def uri(self) -> str:
        """Address of the content."""
        ...

    @property
    def service_account_name(self) -> str | None:
        """ServiceAccount of a pod of its own; None is `default`."""
        ...

    @property
    def credentials_secret_ref(self) -> Reference | None:
        """Secret with the credentials of the store; None is the pod's identity."""
        ...


@dataclass(frozen=True, slots=True)
class Proof:
    """How what is in a shared cache is proven: `size` or `full`, and the digest of the files, where it is known and
    isn't the artifact's own."""

    verify: str = "size"
    tree: str | None = None

    def wire(self) -> Json:
        """As a stored revision keeps it."""
        return {"verify": self.verify, **({"tree": self.tree} if self.tree else {})}


def fetch_container(
    artifact: Source, digest: str | None, images: Images, *, cached: Proof | None
) -> tuple[Json, list[Json]]:
    """The init container that puts the verified artifact into the model volume or, `cached`, the shared cache, and its
    volumes.

    `digest` None: whatever is there is taken; never for what serves or is trained on.
    """
    arguments = ["get", *_address(artifact), *(["--digest", digest] if digest is not None else [])]
    arguments += ["--cache", CACHE_PATH] if cached else ["--dest", "/mnt/artifact"]
    if cached and cached.tree and cached.verify == "full":
        arguments += ["--tree", cached.tree]
    target = (
        {"name": CACHE_VOLUME, "mountPath": CACHE_PATH}
        if cached
        else {"name": MODEL_VOLUME, "mountPath": "/mnt/artifact"}
    )
    container, volumes = _container(artifact, images, arguments, [target])
    if cached and cached.verify == "full":
        enforce(container, {VERIFY_CACHE: "full"})
    return container, volumes


def enforce(container: Json, environment: Mapping[str, str]) -> None:
    """Gives the container these variables, whatever it had under their names."""
    kept = [entry for entry in container.get("env") or () if entry.get("name") not in environment]
    container["env"] = [*kept, *({"name": key, "value": literal(value)} for key, value in environment.items())]


def literal(text: str) -> str:
    """`text` as an argument or variable of a container: Kubernetes makes one dollar of two, and expands $(NAME)."""
    return text.replace("$", "$$")


@dataclass(frozen=True, slots=True)
class Brought:
    """What brings contents into the pod of a Job: init containers, their volumes, and the mounts of who reads them."""

    containers: list[Json]
    volumes: list[Json]
    mounts: list[Json]


def bring(contents: Mapping[str, tuple[Source, str | None, str]], images: Images) -> Brought:
    """Fetch each of `contents`, by name: (source, digest, directory). Volumes are named apart from each other's and
    from the author's."""
    brought = Brought([], [], [])
    for name, (source, digest, directory) in contents.items():
        container, volumes = fetch_container(source, digest, images, cached=None)
        volumes = [*volumes, {"name": MODEL_VOLUME, "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
        kept = f"modelwright-{name}"
        renamed = {volume["name"]: f"{kept}-{volume['name'].removeprefix('modelwright-')}" for volume in volumes}
        renamed[MODEL_VOLUME] = kept
        mounts = [{**mount, "name": renamed[mount["name"]]} for mount in container["volumeMounts"]]
        brought.containers.append({**container, "name": f"fetch-{name}", "volumeMounts": mounts})
        brought.volumes.extend({**volume, "name": renamed[volume["name"]]} for volume in volumes)
        brought.mounts.append({"name": kept, "mountPath": directory, "readOnly": True})
    return brought


def cache_directory(digest: str, artifact: Artifact) -> str:
    """Where the cache keeps an artifact, relative to its root. Of a part of it the name says which, as the digest may
    be that of the whole; fetch makes the same name."""
    name = digest.replace(":", "-")
    if not (artifact.path or artifact.include or artifact.exclude):
        return name
    part = json.dumps([artifact.path or "", artifact.include or (), artifact.exclude or ()], separators=(",", ":"))
    return f"{name}.{hashlib.sha256(part.encode()).hexdigest()[:32]}"


def _address(source: Source) -> list[str]:
    """The arguments that say where the content is, and which part of an artifact is meant."""
    arguments = ["--uri", literal(source.uri)]
    if not isinstance(source, Artifact):
        return arguments
    # With "=", so that a value may begin with a dash.
    arguments += [f"--path={literal(source.path)}"] if source.path else []
    arguments += [f"--include={literal(pattern)}" for pattern in source.include or ()]
    return arguments + [f"--exclude={literal(pattern)}" for pattern in source.exclude or ()]


def resolve_pod(
    version: Json, model: str, artifact: Artifact, images: Images, *, digest: str | None = None,
    keys: Mapping[str, str] | None = None, tree: bool = False,
) -> Json:  # fmt: skip
    """The pod that hashes the artifact of a version of `model` and reports the digest as its termination message; with
    `keys` (PEM, by name), also whether one of them has signed it, and with `tree` the digest of its unpacked files.
    `digest`: what it must be, where that is known."""
    metadata = version["metadata"]
    arguments = ["--digest", digest] if digest else []
    for name, pem in (keys or {}).items():
        arguments += ["--trusted-key", f"{name}={pem}"]
    arguments += ["--tree"] if tree else []
    return digest_pod(
        {
            "name": names.resolve_pod_name(metadata["name"], metadata["uid"]),
            "namespace": metadata["namespace"],
            "labels": names.child_labels(role=names.ROLE_RESOLVE, model=model, version=metadata["name"]),
            "annotations": {names.ANNOTATION_VERSION_NAME: metadata["name"]},
            "ownerReferences": [owner_reference(version)],
        },
        artifact,
        images,
        arguments,
    )


def digest_pod(metadata: Json, source: Source, images: Images, arguments: Sequence[str] = ()) -> Json:
    """The pod of this `metadata` that hashes the content of `source` and reports its digest."""
    spec = pod_spec(source, ["resolve", *_address(source), *arguments], images)
    metadata = {**metadata, "labels": {**metadata["labels"], **identity_labels(source)}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"restartPolicy": "OnFailure", **spec}}


def identity_labels(source: Source) -> dict[str, str]:
    """Labels by which the cloud gives a pod the identity of its ServiceAccount. Azure's webhook acts on pods that carry
    its label only; EKS and GKE go by the ServiceAccount."""
    named = source.service_account_name and source.credentials_secret_ref is None
    return {"azure.workload.identity/use": "true"} if named and source.uri.startswith("az://") else {}


def pod_spec(source: Source, arguments: list[str], images: Images) -> Json:
    """A pod, but for its restartPolicy, in which the fetch program does nothing but report."""
    container, volumes = _container(source, images, arguments, [])
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        **({"serviceAccountName": source.service_account_name} if source.service_account_name else {}),
        "securityContext": pod_security(),
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}, *volumes],
    }


def pod_security() -> Json:
    """What the `restricted` Pod Security Standard asks of a pod, and a group that lets pods share a cache."""
    return {
        "runAsNonRoot": True,
        "runAsUser": NON_ROOT_USER,
        "runAsGroup": NON_ROOT_USER,
        "fsGroup": NON_ROOT_USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Json:
    """What the `restricted` Pod Security Standard asks of a container."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def authored_security() -> Json:
    """The same of a container of an author's own, and no more: it may write into its image's directories."""
    return {key: value for key, value in container_security().items() if key != "readOnlyRootFilesystem"}


def _container(artifact: Source, images: Images, arguments: list[str], mounts: list[Json]) -> tuple[Json, list[Json]]:
    volumes: list[Json] = []
    environment = [
        {"name": "MODELWRIGHT_CREDENTIALS", "value": CREDENTIALS_PATH},
        {"name": "HOME", "value": "/tmp"},  # noqa: S108 - a path in the pod
        # Tells pods that share a cache apart.
        {"name": "MODELWRIGHT_POD_UID", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.uid"}}},
    ]
    mounts = [*mounts, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - a path in the pod
    if artifact.credentials_secret_ref is not None:
        secret = artifact.credentials_secret_ref.name
        # Optional, so that the container starts without it and says what is missing; a pod that waits for a volume
        # says so only in an Event.
        volumes.append({"name": "modelwright-credentials", "secret": {"secretName": secret, "optional": True}})
        environment.append({"name": "MODELWRIGHT_CREDENTIALS_SECRET", "value": secret})
        mounts.append({"name": "modelwright-credentials", "mountPath": CREDENTIALS_PATH, "readOnly": True})
    if artifact.uri.startswith("pvc://"):
        claim = artifact.uri.removeprefix("pvc://").split("/", 1)[0]
        volumes.append({"name": "modelwright-source", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
        mounts.append({"name": "modelwright-source", "mountPath": f"/mnt/source/{claim}", "readOnly": True})
    container = {
        "name": FETCH_CONTAINER,
        "image": images.fetch,
        **({"imagePullPolicy": images.pull_policy} if images.pull_policy else {}),
        "args": arguments,
        "env": environment,
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": container_security(),
        "volumeMounts": mounts,
    }
    enforce(container, images.fetch_env)
    return container, volumes
