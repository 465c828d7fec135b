"""The objects that are measured: Models with their versions."""

from typing import Any

Object = dict[str, Any]
NAMESPACE = "default"
DIGEST = "sha256:" + "0" * 64


def runtime() -> Object:
    """A runtime whose pods only have to exist: the nodes are simulated."""
    return {
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "ClusterModelRuntime",
        "metadata": {"name": "scale"},
        "spec": {
            "formats": [{"name": "scale"}],
            "protocol": "V2",
            "ports": {"http": 8080, "metrics": 8082},
            "container": {"image": "example.com/scale:1", "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}}},
        },
    }


def artifact(model: str, number: int) -> Object:
    """With its digest, so that nothing has to be fetched."""
    return {"uri": f"s3://models/{model}/{number}", "digest": DIGEST, "format": {"name": "scale"}}


def version(model: str, number: int) -> Object:
    """One version of a Model."""
    return {
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "ModelVersion",
        "metadata": {"name": f"{model}-v{number}", "namespace": NAMESPACE},
        "spec": {"modelRef": {"name": model}, "artifact": artifact(model, number)},
    }


def model(name: str, number: int, **spec: Any) -> Object:
    """A Model pinned to one of its versions."""
    return {
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"version": {"name": f"{name}-v{number}"}, **spec},
    }
