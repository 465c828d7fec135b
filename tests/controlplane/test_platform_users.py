"""A platform that gives each namespace its own users, as OpenShift does: what is rendered for it is let in."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelwright.render import fetch_container
from tests.lib.control_plane import Server
from tests.lib.documents import read_all
from tests.unit.render import builders

pytestmark = pytest.mark.controlplane

POLICY = Path(__file__).parents[1] / "lib" / "like_restricted_v2.yaml"
NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {
        "name": "openshift",
        "labels": {"like-openshift": "true", "pod-security.kubernetes.io/enforce": "restricted"},
    },
}


def pod(*, platform_ids: bool) -> dict[str, Any]:
    images = replace(builders.IMAGES, platform_ids=platform_ids)
    spec = fetch_container.pod_spec(builders.version().spec.artifact, ["resolve"], images, "resolve")
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "digits", "namespace": "openshift"}, "spec": spec}


def test_only_pods_that_leave_users_to_the_platform_are_admitted(crd_server: Server) -> None:
    crd_server.ok("apply", "-f", "-", objects=[NAMESPACE, *read_all(POLICY.read_text())])
    end = time.monotonic() + 30
    # A policy is in force a moment after it was written.
    while "runAsUser" not in (said := refusal(crd_server, pod(platform_ids=False))):
        assert time.monotonic() < end, said
        time.sleep(0.2)
    assert refusal(crd_server, pod(platform_ids=True)) == ""


def refusal(server: Server, obj: dict[str, Any]) -> str:
    answer = server.run("create", "--dry-run=server", "--validate=strict", "-f", "-", objects=obj)
    return answer.stderr if answer.returncode else ""
