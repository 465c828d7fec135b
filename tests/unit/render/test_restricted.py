"""Every pod that the operator makes meets the `restricted` Pod Security Standard, and none runs a shell.

A real API server says the same of some of them (tests/controlplane); here it is all of them, by the rules as they are
written (kubernetes.io/docs/concepts/security/pod-security-standards).
"""

from __future__ import annotations

import pytest

from modelwright.api import names
from modelwright.api.v1alpha1.policy import JobMetric
from modelwright.core.revision import Revision
from modelwright.render import comparer_pod, metric_job
from modelwright.render.mirror_target import MirrorSettings
from tests.lib.golden_cases import CASES
from tests.lib.restricted_pods import Json, pods, violations
from tests.unit.render.builders import IMAGES, raw_model, rollout

WITHOUT_PODS = {names.ROLE_CLAIM, names.ROLE_POLICY}
ROLES = {value for name, value in vars(names).items() if name.startswith("ROLE_")} - WITHOUT_PODS | {
    metric_job.ROLE_METRIC
}


def comparer_of_a_model() -> list[Json]:
    return [
        comparer_pod.comparer_deployment(
            raw_model(), Revision("digits-v1", "aaa"), Revision("digits-v2", "bbb"), IMAGES, MirrorSettings()
        )
    ]


def job_of_a_metric() -> list[Json]:
    work = {"template": {"spec": {"containers": [{"name": "score", "image": "example.com/score:1"}]}}, "value": "score"}
    asked = JobMetric.model_validate(work)
    return [
        metric_job.render_metric_job(
            rollout(), metric_job.JobMeasurement("score", asked, "u/1", "digits-v2", "1"), {}, IMAGES
        )
    ]


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
