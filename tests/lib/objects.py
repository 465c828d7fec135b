"""Objects of our kinds as users would write them, for simulated nodes where nothing is fetched."""

from typing import Any

Object = dict[str, Any]
DIGEST = "sha256:" + "0" * 64
API_VERSION = "modelwright.dev/v1alpha1"


def runtime(name: str = "plain", fmt: str = "plain", *, namespace: str | None = None, **spec: Any) -> Object:
    """A runtime; a ModelRuntime when it has a namespace. `container` in `spec` is merged into a minimal one."""
    container = {"image": "example.com/server:1", "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}}}
    container.update(spec.pop("container", {}))
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelRuntime" if namespace else "ClusterModelRuntime",
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "spec": {
            "formats": [{"name": fmt}],
            "protocol": "V2",
            "ports": {"http": 8080},
            "container": container,
            **spec,
        },
    }


def version(namespace: str, name: str, model: str = "digits", fmt: str = "plain", **artifact: Any) -> Object:
    """A version pinned by digest; `artifact` members set to None are left out."""
    members = {"uri": f"s3://models/{name[:40]}", "digest": DIGEST, "format": {"name": fmt}, **artifact}
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelVersion",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"modelRef": {"name": model}, "artifact": {k: v for k, v in members.items() if v is not None}},
    }


def model(namespace: str, name: str = "digits", version: str | None = "v1", **spec: Any) -> Object:
    """A Model pinned to a version of that name, unless `spec` says another source."""
    source = {"version": {"name": version}} if version else {}
    return {
        "apiVersion": API_VERSION,
        "kind": "Model",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {**source, **spec},
    }


def endpoint(namespace: str, **more: Any) -> Object:
    """An endpoint on the played Gateway."""
    return {"parentRefs": [{"name": "models", "namespace": namespace}], **more}


def pod_of(job: Object, name: str) -> Object:
    """A pod as the Job's controller makes it from the template of a Job that is there."""
    metadata, template = job["metadata"], job["spec"]["template"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": {**template["metadata"].get("labels", {}), "batch.kubernetes.io/controller-uid": metadata["uid"]},
            "ownerReferences": [
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                }
            ],
        },
        "spec": template["spec"],
    }
