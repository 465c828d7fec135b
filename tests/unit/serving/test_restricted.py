"""Every pod that the operator makes meets the `restricted` Pod Security Standard, and none runs a shell.

A real API server says the same of some of them (tests/controlplane); here it is all of them, by the rules as they are
written (kubernetes.io/docs/concepts/security/pod-security-standards).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from modelwright.api import names
from modelwright.api.v1alpha1.policy import JobMetric
from modelwright.core.revision import Revision
from modelwright.serving import comparer, measuring
from tests.unit.serving.builders import IMAGES, raw_model, rollout
from tests.unit.serving.test_golden import CASES

Json = dict[str, Any]

VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
WITHOUT_PODS = {names.ROLE_CLAIM, names.ROLE_POLICY}
ROLES = {value for name, value in vars(names).items() if name.startswith("ROLE_")} - WITHOUT_PODS | {measuring.ROLE}


def comparer_of_a_model() -> list[Json]:
    return [comparer.deployment(raw_model(), Revision("digits-v1", "aaa"), Revision("digits-v2", "bbb"), IMAGES)]


def job_of_a_metric() -> list[Json]:
    work = {"template": {"spec": {"containers": [{"name": "score", "image": "example.com/score:1"}]}}, "value": "score"}
    asked = JobMetric.model_validate(work)
    return [
        measuring.metric_job(
            rollout(), "score", asked, key="u/1", version="digits-v2", attempt="1", environment={}, images=IMAGES
        )
    ]


def pods(node: Any, where: str) -> Iterator[tuple[str, Json, Json]]:
    """(place, metadata, spec) of each pod and pod template in a manifest."""
    if isinstance(node, dict):
        if isinstance(node.get("spec"), dict) and "containers" in node["spec"]:
            yield where, node.get("metadata", {}), node["spec"]
        for key, value in node.items():
            yield from pods(value, f"{where}.{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from pods(value, f"{where}[{number}]")


EVERY = [
    found
    for case in (*CASES, comparer_of_a_model, job_of_a_metric)
    for manifest in case()
    # An object of another engine is its author's: it is made as it is written.
    if manifest["kind"] != "Workflow"
    for found in pods(manifest, f"{case.__name__}.{manifest['kind']}")
]


def test_pods_of_every_role_are_looked_at() -> None:
    assert {metadata["labels"][names.LABEL_ROLE] for _, metadata, _ in EVERY} == ROLES


def violations(spec: Json) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield field
    for volume in spec.get("volumes", []):
        if not volume.keys() - {"name"} <= VOLUMES:
            yield f"volume {volume}"
    of_pod = spec.get("securityContext", {})
    if of_pod.get("sysctls") or "seLinuxOptions" in of_pod or "windowsOptions" in of_pod:
        yield "options of the kernel"
    for container in [*spec["containers"], *spec.get("initContainers", []), *spec.get("ephemeralContainers", [])]:
        yield from (f"{container['name']}: {text}" for text in _of_container(container, of_pod))


def _of_container(container: Json, of_pod: Json) -> Iterator[str]:
    own = container.get("securityContext", {})
    merged = {**of_pod, **own}
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"capabilities {capabilities}"
    if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
        yield "privileges"
    if merged.get("runAsNonRoot") is not True or merged.get("runAsUser") == 0:
        yield "root"
    if merged.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile"
    if own.get("procMount", "Default") != "Default" or {"seLinuxOptions", "windowsOptions"} & own.keys():
        yield "options of the kernel"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "hostPort"


@pytest.mark.parametrize(("where", "spec"), [(where, spec) for where, _, spec in EVERY], ids=lambda x: str(x)[:60])
def test_it_meets_the_restricted_standard(where: str, spec: Json) -> None:
    assert not list(violations(spec)), where


@pytest.mark.parametrize(("where", "spec"), [(where, spec) for where, _, spec in EVERY], ids=lambda x: str(x)[:60])
def test_it_has_no_token_of_the_cluster_unless_its_author_says_so(where: str, spec: Json) -> None:
    assert spec.get("automountServiceAccountToken") is False, where


@pytest.mark.parametrize(("where", "spec"), [(where, spec) for where, _, spec in EVERY], ids=lambda x: str(x)[:60])
def test_it_runs_no_shell(where: str, spec: Json) -> None:
    """User strings reach a container as an argument of their own, or as a variable."""
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        words = [*container.get("command", []), *container.get("args", [])]
        assert not {"sh", "/bin/sh", "bash", "/bin/bash", "-c"} & set(words), where


@pytest.mark.parametrize(
    ("spec", "violation"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}, "volume"),
        ({"container": {"securityContext": {"privileged": True}}}, "privileges"),
        ({"container": {"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}}}, "capabilities"),
        ({"container": {"ports": [{"hostPort": 80}]}}, "hostPort"),
        ({"securityContext": {"runAsUser": 0, "runAsNonRoot": True}}, "root"),
        ({}, "seccompProfile"),
    ],
)
def test_the_rules_find_what_breaks_them(spec: Json, violation: str) -> None:
    container = {"name": "c", **spec.pop("container", {})}
    assert any(violation in text for text in violations({"containers": [container], **spec}))
