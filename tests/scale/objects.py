"""The objects that are measured: Models with a version each, and what nobody's operator makes of the same pods."""

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


def version(model: str, number: int) -> Object:
    """A pinned version, so that nothing has to be fetched."""
    return {
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "ModelVersion",
        "metadata": {"name": f"{model}-v{number}", "namespace": "default"},
        "spec": {
            "modelRef": {"name": model},
            "artifact": {"uri": f"s3://models/{model}/{number}", "digest": DIGEST, "format": {"name": "scale"}},
        },
    }


def model(name: str, number: int, **spec: Any) -> Object:
    """A Model pinned to one of its versions."""
    return {
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"version": {"name": f"{name}-v{number}"}, **spec},
    }


def bare(name: str, replicas: int = 1) -> list[Object]:
    """A Deployment and a Service as a Model has them, and nobody's."""
    labels = {"app": name}
    container = {"name": "model", **runtime()["spec"]["container"]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    metadata = {"name": name, "namespace": "default"}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"port": 80}]},
        },
    ]
