"""The Job of a metric, from as little as its author must write, is accepted where the `restricted` standard holds."""

from __future__ import annotations

from typing import Any

import pytest

from modelwright.measurement.job_report import build_environment
from modelwright.render.images import Images
from modelwright.render.metric_job import JobMeasurement, render_metric_job
from tests.lib.measurement import make_request, metric

pytestmark = pytest.mark.controlplane

NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {
        "name": "measured",
        "labels": {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")},
    },
}
ROLLOUT = {
    "apiVersion": "modelwright.dev/v1alpha1",
    "kind": "ModelRollout",
    "metadata": {"name": "digits-1", "namespace": "measured", "uid": "0b7e5d3c-0000-0000-0000-000000000000"},
    "spec": {"modelRef": {"name": "digits"}},
}


def test_the_least_template_makes_a_job_that_is_accepted(crd_server: Any) -> None:
    crd_server.ok("apply", "-f", "-", objects=NAMESPACE)
    template = {"spec": {"containers": [{"name": "score", "image": "example.com/score:1"}]}}
    asked = metric(name="score", job={"template": template, "value": "accuracy"}).job
    assert asked is not None
    job = render_metric_job(
        ROLLOUT,
        JobMeasurement("score", asked, "u/1", "digits-v2", "1"),
        build_environment(make_request()),
        Images("example.com/fetch:1"),
    )
    answer = crd_server.run("create", "--dry-run=server", "--validate=strict", "-f", "-", objects=job)
    assert answer.returncode == 0, answer.stderr
    assert "warning" not in answer.stderr.lower()
