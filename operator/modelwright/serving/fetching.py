"""The container that brings an artifact into a pod, and the pod that finds out an artifact's digest."""

from typing import Any

from modelwright.api import names
from modelwright.api.v1alpha1.version import Artifact
from modelwright.serving.images import Images
from modelwright.serving.metadata import owner_reference

Json = dict[str, Any]

CREDENTIALS_PATH = "/var/run/modelwright/credentials"
CACHE_PATH = "/var/cache/modelwright"
MODEL_VOLUME = "modelwright-model"
CACHE_VOLUME = "modelwright-cache"
NON_ROOT_USER = 65532


def fetch_container(artifact: Artifact, digest: str, images: Images, *, cached: bool) -> tuple[Json, list[Json]]:
    """The init container that puts the verified artifact into the model volume or the shared cache, and its volumes."""
    arguments = ["get", "--uri", artifact.uri, "--digest", digest]
    arguments += ["--cache", CACHE_PATH] if cached else ["--dest", "/mnt/artifact"]
    target = (
        {"name": CACHE_VOLUME, "mountPath": CACHE_PATH}
        if cached
        else {"name": MODEL_VOLUME, "mountPath": "/mnt/artifact"}
    )
    return _container(artifact, images, arguments, [target])


def cache_directory(digest: str) -> str:
    """Where the cache keeps an artifact, relative to its root."""
    return digest.replace(":", "-")


def resolve_pod(version: Json, model: str, artifact: Artifact, images: Images) -> Json:
    """The pod that hashes the artifact of a version of `model` and reports the digest as its termination message."""
    container, volumes = _container(artifact, images, ["resolve", "--uri", artifact.uri], [])
    metadata = version["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": names.resolve_pod_name(metadata["name"], metadata["uid"]),
            "namespace": metadata["namespace"],
            "labels": names.child_labels(role=names.ROLE_RESOLVE, model=model, version=metadata["name"]),
            "annotations": {names.ANNOTATION_VERSION_NAME: metadata["name"]},
            "ownerReferences": [owner_reference(version)],
        },
        "spec": {
            "restartPolicy": "OnFailure",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            **({"serviceAccountName": artifact.service_account_name} if artifact.service_account_name else {}),
            "securityContext": pod_security(),
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}, *volumes],
        },
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


def _container(artifact: Artifact, images: Images, arguments: list[str], mounts: list[Json]) -> tuple[Json, list[Json]]:
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
        "name": "fetch",
        "image": images.fetch,
        **({"imagePullPolicy": images.pull_policy} if images.pull_policy else {}),
        "args": arguments,
        "env": environment,
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": container_security(),
        "volumeMounts": mounts,
    }
    return container, volumes
