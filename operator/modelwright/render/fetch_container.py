"""Renders the container that fetches an artifact into a pod, and the pod that resolves an artifact's digest."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from modelwright.api import names
from modelwright.api.common import LocalObjectReference
from modelwright.api.v1alpha1.version import Artifact
from modelwright.render import helper_pod_placement
from modelwright.render.child_metadata import owner_reference
from modelwright.render.images import VERIFY_CACHE, Images

Json = dict[str, Any]

CREDENTIALS_PATH = "/var/run/modelwright/credentials"
CACHE_PATH = "/var/cache/modelwright"
MODEL_VOLUME = "modelwright-model"
CACHE_VOLUME = "modelwright-cache"
CREDENTIALS_VOLUME = "modelwright-credentials"
FETCH_CONTAINER = "fetch"
"""Name of the container that runs the fetch program."""
ONLY_CACHED_FLAG = "--only-cached"
NON_ROOT_USER = 65532
_DEFAULT_RESOURCES = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}


class FetchSource(Protocol):
    """Content to fetch, and the identity to fetch it with: an artifact of a version, or data of a run."""

    @property
    def uri(self) -> str:
        """Address of the content."""
        ...

    @property
    def service_account_name(self) -> str | None:
        """ServiceAccount of the pod that fetches it; None is `default`."""
        ...

    @property
    def credentials_secret_ref(self) -> LocalObjectReference | None:
        """Secret with the credentials of the store; None uses the pod's identity."""
        ...


@dataclass(frozen=True, slots=True)
class CacheProof:
    """How content of a shared cache is verified: `size` or `full`, and the digest of the files, where it is known and
    differs from the artifact's."""

    verify: str = "size"
    tree: str | None = None

    def wire(self) -> Json:
        """Return it as stored in a revision."""
        return {"verify": self.verify, **({"tree": self.tree} if self.tree else {})}


@dataclass(frozen=True, slots=True)
class CachedContent:
    """An artifact in a shared cache, for pods that may not fetch: the cache's claim, and how its content is
    verified."""

    claim: str
    proof: CacheProof


@dataclass(frozen=True, slots=True)
class _SourceWithoutCredentials:
    """A source without credentials, for pods that access no store."""

    uri: str
    service_account_name: None = None
    credentials_secret_ref: None = None


def fetch_container(
    artifact: FetchSource, digest: str | None, images: Images, *, cached: CacheProof | None, role: str | None = None
) -> tuple[Json, list[Json]]:
    """Render the init container that fetches and verifies the artifact into the model volume or, `cached`, into the
    shared cache; returns it with its volumes.

    `digest` None accepts any content; never for serving or training. `role`: role of a pod that does not serve.
    """
    if cached:
        arguments = _cache_arguments(_source_arguments(artifact), digest, cached)
        container, volumes = _render_container(artifact, images, arguments, [_cache_mount(read_only=False)], role)
        _require_full_proof(container, cached)
        return container, volumes
    arguments = ["get", *_source_arguments(artifact), *(["--digest", digest] if digest is not None else [])]
    arguments += ["--dest", "/mnt/artifact"]
    return _render_container(artifact, images, arguments, [{"name": MODEL_VOLUME, "mountPath": "/mnt/artifact"}], role)


def check_container(
    artifact: FetchSource, digest: str, images: Images, proof: CacheProof, *, role: str | None = None
) -> Json:
    """Render the init container that only verifies the content of the shared cache: it accesses no store and has no
    credentials, and the claim is mounted read-only."""
    # Only a file name is read from the URI: the claim that it may name is not mounted, and its signature is left out.
    uri = artifact.uri.partition("?")[0]
    arguments = [*_cache_arguments(_source_arguments(artifact, uri), digest, proof), ONLY_CACHED_FLAG]
    source, mount = _SourceWithoutCredentials(uri), _cache_mount(read_only=True)
    container, _ = _render_container(source, images, arguments, [mount], role, source_mounted=False)
    _require_full_proof(container, proof)
    return container


def is_only_cached(template: Mapping[str, Any]) -> bool:
    """Return whether the pods of this template read the artifact from the shared cache and never fetch it."""
    containers = template["spec"].get("initContainers") or ()
    return any(c.get("name") == FETCH_CONTAINER and ONLY_CACHED_FLAG in (c.get("args") or ()) for c in containers)


def cache_claim(template: Mapping[str, Any]) -> str | None:
    """Return the claim of the shared cache that pods of this template mount; None without one."""
    for volume in template["spec"].get("volumes") or ():
        if volume.get("name") == CACHE_VOLUME:
            claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            return str(claim) if claim else None
    return None


def cache_volume(claim: str) -> Json:
    """Render the volume of the shared cache."""
    return {"name": CACHE_VOLUME, "persistentVolumeClaim": {"claimName": claim}}


def cached_content_mount(digest: str, artifact: FetchSource, directory: str, volume: str = CACHE_VOLUME) -> Json:
    """Render the read-only mount of one artifact of the shared cache."""
    return {"name": volume, "mountPath": directory, "subPath": cache_directory(digest, artifact), "readOnly": True}


def _cache_arguments(address: list[str], digest: str | None, proof: CacheProof) -> list[str]:
    arguments = ["get", *address, *(["--digest", digest] if digest is not None else [])]
    arguments += ["--cache", CACHE_PATH]
    return arguments + (["--tree", proof.tree] if proof.tree and proof.verify == "full" else [])


def _cache_mount(*, read_only: bool) -> Json:
    return {"name": CACHE_VOLUME, "mountPath": CACHE_PATH, **({"readOnly": True} if read_only else {})}


def _require_full_proof(container: Json, proof: CacheProof) -> None:
    if proof.verify == "full":
        set_variables(container, {VERIFY_CACHE: "full"})


def set_variables(container: Json, environment: Mapping[str, str]) -> None:
    """Set these variables of the container, replacing any of the same names."""
    others = [entry for entry in container.get("env") or () if entry.get("name") not in environment]
    container["env"] = [*others, *({"name": key, "value": escape_dollars(value)} for key, value in environment.items())]


def escape_dollars(text: str) -> str:
    """Escape `text` as an argument or variable of a container: Kubernetes expands $(NAME), and reads $$ as $."""
    return text.replace("$", "$$")


@dataclass(frozen=True, slots=True)
class FetchedContents:
    """Contents fetched into the pod of a Job: init containers, their volumes, and the mounts of their readers."""

    containers: list[Json]
    volumes: list[Json]
    mounts: list[Json]


def fetch_contents(
    contents: Mapping[str, tuple[FetchSource, str | None, str]],
    images: Images,
    role: str,
    cached: Mapping[str, CachedContent] | None = None,
) -> FetchedContents:
    """Render what fetches each of `contents`, by name: (source, digest, directory), in a pod of `role`; those in
    `cached` are read from the shared cache. Volume names differ from each other and from the author's."""
    fetched = FetchedContents([], [], [])
    for name, (source, digest, directory) in contents.items():
        if cached and name in cached and digest is not None:
            container = check_container(source, digest, images, cached[name].proof, role=role)
            _add_cached_content(fetched, name, container, cached[name].claim)
            fetched.mounts.append(cached_content_mount(digest, source, directory, f"modelwright-{name}-cache"))
            continue
        container, volumes = fetch_container(source, digest, images, cached=None, role=role)
        volumes = [*volumes, {"name": MODEL_VOLUME, "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
        volume_name = f"modelwright-{name}"
        renamed = {volume["name"]: f"{volume_name}-{volume['name'].removeprefix('modelwright-')}" for volume in volumes}
        renamed[MODEL_VOLUME] = volume_name
        mounts = [{**mount, "name": renamed[mount["name"]]} for mount in container["volumeMounts"]]
        fetched.containers.append({**container, "name": f"fetch-{name}", "volumeMounts": mounts})
        fetched.volumes.extend({**volume, "name": renamed[volume["name"]]} for volume in volumes)
        fetched.mounts.append({"name": volume_name, "mountPath": directory, "readOnly": True})
    return fetched


def _add_cached_content(fetched: FetchedContents, name: str, container: Json, claim: str) -> None:
    """Add the container that verifies cached content, with its own volumes."""
    renamed = {CACHE_VOLUME: f"modelwright-{name}-cache", "tmp": f"modelwright-{name}-tmp"}
    mounts = [{**mount, "name": renamed[mount["name"]]} for mount in container["volumeMounts"]]
    fetched.containers.append({**container, "name": f"fetch-{name}", "volumeMounts": mounts})
    fetched.volumes.append({**cache_volume(claim), "name": renamed[CACHE_VOLUME]})
    fetched.volumes.append({"name": renamed["tmp"], "emptyDir": {}})


def cache_directory(digest: str, source: FetchSource) -> str:
    """Return the directory of an artifact, relative to the root of the cache. For a part of an artifact the name
    identifies the part, as the digest may be that of the whole; the fetch program derives the same name."""
    name = digest.replace(":", "-")
    if not isinstance(source, Artifact) or not (source.path or source.include or source.exclude):
        return name
    part = json.dumps([source.path or "", source.include or (), source.exclude or ()], separators=(",", ":"))
    return f"{name}.{hashlib.sha256(part.encode()).hexdigest()[:32]}"


def _source_arguments(source: FetchSource, uri: str | None = None) -> list[str]:
    """Return the arguments that locate the content (at `uri`, where that differs from the source's) and select the part
    of an artifact."""
    arguments = ["--uri", escape_dollars(source.uri if uri is None else uri)]
    if not isinstance(source, Artifact):
        return arguments
    # With "=", so that a value may begin with a dash.
    arguments += [f"--path={escape_dollars(source.path)}"] if source.path else []
    arguments += [f"--include={escape_dollars(pattern)}" for pattern in source.include or ()]
    return arguments + [f"--exclude={escape_dollars(pattern)}" for pattern in source.exclude or ()]


def resolve_pod(
    version: Json,
    model: str,
    artifact: Artifact,
    images: Images,
    *,
    digest: str | None = None,
    keys: Mapping[str, str] | None = None,
    tree: bool = False,
) -> Json:
    """Render the pod that hashes the artifact of a version of `model` and reports the digest as its termination
    message; with `keys` (PEM, by name), also whether one of them has signed it, and with `tree` the digest of its
    unpacked files. `digest`: the required one, where known."""
    arguments = ["--digest", digest] if digest else []
    for name, pem in (keys or {}).items():
        arguments += ["--trusted-key", f"{name}={pem}"]
    arguments += ["--tree"] if tree else []
    return digest_pod(_resolve_metadata(version, model), artifact, images, arguments)


def fill_pod(version: Json, model: str, artifact: Artifact, images: Images, digest: str, cached: CachedContent) -> Json:
    """Render the pod that fetches the artifact of a version of `model` into the shared cache, with the artifact's
    ServiceAccount and credentials. It runs only the fetch program."""
    container, volumes = fetch_container(artifact, digest, images, cached=cached.proof, role=names.ROLE_RESOLVE)
    spec = _render_pod_spec(artifact, container, [*volumes, cache_volume(cached.claim)], images)
    return _fetch_only(_resolve_metadata(version, model), artifact, spec, images)


def _resolve_metadata(version: Json, model: str) -> Json:
    metadata = version["metadata"]
    return {
        "name": names.resolve_pod_name(metadata["name"], metadata["uid"]),
        "namespace": metadata["namespace"],
        "labels": names.child_labels(role=names.ROLE_RESOLVE, model=model, version=metadata["name"]),
        "annotations": {names.ANNOTATION_VERSION_NAME: metadata["name"]},
        "ownerReferences": [owner_reference(version)],
    }


def digest_pod(metadata: Json, source: FetchSource, images: Images, arguments: Sequence[str] = ()) -> Json:
    """Render the pod with this `metadata` that hashes the content of `source` and reports its digest."""
    spec = pod_spec(source, ["resolve", *_source_arguments(source), *arguments], images, names.ROLE_RESOLVE)
    return _fetch_only(metadata, source, spec, images)


def _fetch_only(metadata: Json, source: FetchSource, spec: Json, images: Images) -> Json:
    role = names.ROLE_RESOLVE
    marked = (
        {"annotations": {**metadata.get("annotations", {}), **mark}}
        if (mark := helper_pod_placement.placement_annotation(images, role))
        else {}
    )
    metadata = {**metadata, "labels": {**metadata["labels"], **identity_labels(source)}, **marked}
    template = helper_pod_placement.place_template(metadata, {"restartPolicy": "OnFailure", **spec}, images, role)
    return {"apiVersion": "v1", "kind": "Pod", **template}


def identity_labels(source: FetchSource) -> dict[str, str]:
    """Return the labels by which a cloud assigns a pod the identity of its ServiceAccount. Azure's webhook acts only on
    pods with its label; EKS and GKE use the ServiceAccount."""
    uses_identity = source.service_account_name and source.credentials_secret_ref is None
    return {"azure.workload.identity/use": "true"} if uses_identity and source.uri.startswith("az://") else {}


def pod_spec(source: FetchSource, arguments: list[str], images: Images, role: str) -> Json:
    """Render the spec of a pod in which the fetch program only reports, without restartPolicy and placement."""
    return _render_pod_spec(source, *_render_container(source, images, arguments, [], role), images)


def _render_pod_spec(source: FetchSource, container: Json, volumes: list[Json], images: Images) -> Json:
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        **({"serviceAccountName": source.service_account_name} if source.service_account_name else {}),
        "securityContext": restricted_pod_security(images),
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}, *volumes],
    }


def restricted_pod_security(images: Images) -> Json:
    """Return the pod security context of the `restricted` Pod Security Standard, with a group that lets pods share a
    cache."""
    ids = {"runAsUser": NON_ROOT_USER, "runAsGroup": NON_ROOT_USER, "fsGroup": NON_ROOT_USER}
    return {
        "runAsNonRoot": True,
        **({} if images.platform_ids else ids),
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def restricted_container_security() -> Json:
    """Return the container security context of the `restricted` Pod Security Standard."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def user_container_security() -> Json:
    """Return the same for an author's container, which may write into directories of its image."""
    return {key: value for key, value in restricted_container_security().items() if key != "readOnlyRootFilesystem"}


def _render_container(
    artifact: FetchSource,
    images: Images,
    arguments: list[str],
    mounts: list[Json],
    role: str | None,
    *,
    source_mounted: bool = True,
) -> tuple[Json, list[Json]]:
    volumes: list[Json] = []
    environment = [
        {"name": "MODELWRIGHT_CREDENTIALS", "value": CREDENTIALS_PATH},
        {"name": "HOME", "value": "/tmp"},  # noqa: S108 - a path in the pod
        # Distinguishes pods that share a cache.
        {"name": "MODELWRIGHT_POD_UID", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.uid"}}},
    ]
    mounts = [*mounts, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - a path in the pod
    if artifact.credentials_secret_ref is not None:
        secret = artifact.credentials_secret_ref.name
        # Optional, so that the container starts without it and reports what is missing; a pod that waits for a volume
        # reports it only in an Event.
        volumes.append({"name": CREDENTIALS_VOLUME, "secret": {"secretName": secret, "optional": True}})
        environment.append({"name": "MODELWRIGHT_CREDENTIALS_SECRET", "value": secret})
        mounts.append({"name": CREDENTIALS_VOLUME, "mountPath": CREDENTIALS_PATH, "readOnly": True})
    if source_mounted and artifact.uri.startswith("pvc://"):
        claim = artifact.uri.removeprefix("pvc://").split("/", 1)[0]
        volumes.append({"name": "modelwright-source", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
        mounts.append({"name": "modelwright-source", "mountPath": f"/mnt/source/{claim}", "readOnly": True})
    container = {
        "name": FETCH_CONTAINER,
        "image": images.fetch,
        **({"imagePullPolicy": images.pull_policy} if images.pull_policy else {}),
        "args": arguments,
        "env": environment,
        "resources": helper_pod_placement.container_resources(_DEFAULT_RESOURCES, images, role)
        if role is not None
        else _DEFAULT_RESOURCES,
        "securityContext": restricted_container_security(),
        "volumeMounts": mounts,
    }
    proven = "--digest" in arguments and artifact.credentials_secret_ref is None
    configured = helper_pod_placement.fetch_environment(images, role, proven=proven) if role is not None else {}
    set_variables(container, {**configured, **images.fetch_env})
    return container, volumes
