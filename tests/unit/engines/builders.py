"""Objects, pods and works for the tests of the engines."""

from datetime import UTC, datetime, timedelta
from typing import Any

from modelwright.api.v1alpha1.retraining import Work

Json = dict[str, Any]
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
DIGEST = "sha256:" + "e" * 64


def live(kind: str, status: Json | None = None, spec: Json | None = None, **metadata: Any) -> Json:
    """An object of this kind as the API server gives it."""
    actual: Json = {"kind": kind, "metadata": {"name": "train-digits", "uid": "child-uid", **metadata}}
    return actual | ({"spec": spec} if spec is not None else {}) | ({"status": status} if status is not None else {})


def condition(type_: str, reason: str = "", message: str = "", status: str = "True") -> Json:
    return {"type": type_, "status": status, "reason": reason, "message": message}


def pod(phase: str, *statuses: Json, seconds: int = 600, name: str = "p") -> Json:
    """A pod that is `seconds` old."""
    created = (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "metadata": {"name": name, "creationTimestamp": created},
        "status": {"phase": phase, "containerStatuses": list(statuses)},
    }


def container(name: str = "train", image_id: str = "", **state: Any) -> Json:
    return {"name": name, "image": "example.com/t:1", "imageID": image_id, "ready": False, "state": state}


def ended(code: int, message: str = "", reason: str = "") -> Json:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


def succeeded(message: str = '{"artifact": {}}', seconds: int = 600, image_id: str = "") -> Json:
    return pod("Succeeded", container(image_id=image_id, **ended(0, message)), seconds=seconds)


def work(**resource: Any) -> Work:
    """A resource, or without members a Job."""
    if not resource:
        return Work.model_validate({"job": {"template": {}}})
    return Work.model_validate({"resource": {"manifest": {"apiVersion": "x/v1", "kind": "Thing"}, **resource}})
