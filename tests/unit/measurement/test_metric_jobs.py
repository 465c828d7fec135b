"""Jobs of metrics: rendered from the author's template, run one at a time, taken up again, and read."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest

from modelwright.api import names
from modelwright.core.analysis.evidence import MeasurementFailure, MetricValue
from modelwright.core.analysis.report_figures import Figure
from modelwright.kube import api_errors, kinds
from modelwright.kube.store import Store
from modelwright.measurement import job_report as jobs
from modelwright.measurement.request import MeasurementRequest
from modelwright.obs.clock import FakeClock
from modelwright.reconcile.metric_jobs import POLL_SECONDS, MetricJobRunner
from modelwright.render.images import Images
from modelwright.render.metric_job import JobMeasurement, render_metric_job
from modelwright.render.strategic_merge import MergeError
from tests.lib import objects
from tests.lib.measurement import SINCE, make_request, metric
from tests.lib.simulated import SimulatedApi

Object = dict[str, Any]
IMAGES = Images("example.com/fetch:1")
CONTAINER = {"name": "score", "image": "example.com/score:1"}
ROLLOUT: Object = {
    "apiVersion": "modelwright.dev/v1alpha1",
    "kind": "ModelRollout",
    "metadata": {"name": "digits-1", "namespace": "vision"},
    "spec": {"modelRef": {"name": "digits"}},
}


def score(container: Object = CONTAINER, **spec: Any) -> Any:
    template = {"metadata": {"labels": {"team": "x"}}, "spec": {"containers": [container], **spec}}
    return metric(name="score", job={"template": template, "value": "accuracy", "timeout": "90s"})


class Cluster:
    """The simulated API server, with the operator's store kept up to date by hand."""

    def __init__(self) -> None:
        self.api, self.store, self.clock = SimulatedApi(), Store(), FakeClock(SINCE)
        self.rollout = self.api.user_create(ROLLOUT)
        self.follow()

    def follow(self) -> None:
        """The watch tells what has happened."""
        for kind in (kinds.MODEL_ROLLOUT, kinds.JOB):
            seen = set()
            for (of, namespace, name), obj in self.api.objects.items():
                if of == kind:
                    seen.add((namespace, name))
                    self.store.apply(kind, "MODIFIED", obj)
            for namespace, name in set(self.store.list_names(kind)) - seen:
                gone = self.store.get(kind, namespace, name)
                assert gone is not None
                self.store.apply(kind, "DELETED", gone)

    @property
    def make_request(self) -> MeasurementRequest:
        return make_request(score(), key=f"{self.rollout['metadata']['uid']}/2")

    @property
    def jobs(self) -> list[Object]:
        return [obj for (kind, _, _), obj in self.api.objects.items() if kind == kinds.JOB]

    def measure(self) -> asyncio.Task[Figure | MetricValue | MeasurementFailure]:
        measurement_request = self.make_request
        measurer = MetricJobRunner(self.api, self.store, self.clock, IMAGES)  # type: ignore[arg-type]
        return asyncio.create_task(measurer.run_metric_job(measurement_request, measurement_request.metrics[0]))

    async def pass_by(self, seconds: float = POLL_SECONDS) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        self.follow()
        self.clock.advance(seconds)
        for _ in range(5):
            await asyncio.sleep(0)

    def end(self, condition: str, report: Any = None) -> None:
        (job,) = self.jobs
        if report is not None:
            state = {"terminated": {"exitCode": 0, "message": json.dumps(report)}}
            self.api.set_status(
                self.api.user_create(objects.pod_of(job, "p")),
                {"phase": "Succeeded", "containerStatuses": [{"name": "score", "image": "i", "state": state}]},
            )
        self.api.set_status(job, {"conditions": [{"type": condition, "status": "True", "reason": "x"}]})


def test_a_job_is_the_authors_template_told_of_the_revisions() -> None:
    job_metric = score({**CONTAINER, "env": [{"name": "MODEL_NAME", "value": "forged"}, {"name": "OWN", "value": "1"}]})
    assert job_metric.job is not None
    rollout = {**ROLLOUT, "metadata": {**ROLLOUT["metadata"], "uid": "u"}}
    made = render_metric_job(
        rollout,
        JobMeasurement("score", job_metric.job, "u/1", "digits-v2", "1"),
        jobs.build_environment(make_request()),
        IMAGES,
    )
    assert made["spec"]["backoffLimit"] == 0
    assert made["spec"]["activeDeadlineSeconds"] == 90
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u"
    assert len(made["metadata"]["name"]) <= 63
    pod = made["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert {one["name"]: one["value"] for one in container["env"]} == {
        "MODEL_NAME": "digits",
        "MODEL_NAMESPACE": "vision",
        "MEASURED_SINCE": "2026-11-21T12:00:00Z",
        "CANDIDATE_VERSION": "digits-v2",
        "CANDIDATE_REVISION": "bbbbbbbbbb",
        "CANDIDATE_URL": "http://digits-bbbbbbbbbb.vision.svc",
        "SERVING_VERSION": "digits-v1",
        "SERVING_REVISION": "aaaaaaaaaa",
        "SERVING_URL": "http://digits-aaaaaaaaaa.vision.svc",
        "OWN": "1",
    }
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert labels["team"] == "x"
    # Services of the Model select by role and revision.
    assert labels[names.LABEL_ROLE] == "metric"
    assert names.LABEL_REVISION not in labels


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ({}, "job.template.spec.containers: at least one container is needed"),
        ({"spec": []}, "job.template.spec: must be an object"),
        ({"spec": {"containers": []}}, "job.template.spec.containers: at least one"),
        ({"spec": {"containers": ["x"]}}, "job.template.spec.containers[0]: "),
        ({"spec": {"containers": [{**CONTAINER, "env": "x"}]}}, "spec.containers[0].env: must be a list"),
        ({"spec": {"containers": [CONTAINER]}, "metadata": "x"}, "job.template.metadata: must be an object"),
    ],
)
def test_what_is_no_pod_template_is_told_with_its_field(template: Object, expected: str) -> None:
    job_metric = metric(name="score", job={"template": {}, "value": "accuracy"}).job
    assert job_metric is not None
    job_metric = job_metric.model_copy(update={"template": template})
    rollout = {**ROLLOUT, "metadata": {**ROLLOUT["metadata"], "uid": "u"}}
    with pytest.raises(MergeError) as refused:
        render_metric_job(rollout, JobMeasurement("score", job_metric, "u/1", "v", "1"), {}, IMAGES)
    assert expected in str(refused.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"candidate": 0.9, "serving": "0.8"}, Figure("accuracy", Decimal("0.9"), Decimal("0.8"))),
        ({"candidate": "0.9"}, Figure("accuracy", Decimal("0.9"))),
        (
            {"candidate": 0.9, "serving": 0.8, "n": 400, "better": 60, "worse": 20},
            Figure("accuracy", Decimal("0.9"), Decimal("0.8"), n=400, better=60, worse=20),
        ),
        (
            {"candidate": 3, "n": 50, "candidateStandardError": 0.5},
            Figure("accuracy", Decimal(3), n=50, candidate_standard_error=Decimal("0.5")),
        ),
        ({"candidate": 3, "exact": True}, Figure("accuracy", Decimal(3), exact=True)),
        (
            {"candidate": "NaN"},
            MetricValue(None, None, "accuracy is 'NaN' for the candidate, which is no finite number"),
        ),
        ({"candidate": True}, MetricValue(None, None, "accuracy is True for the candidate, which is no finite number")),
        ({}, MetricValue(None, None, "accuracy is None for the candidate, which is no finite number")),
    ],
)
async def test_a_job_is_run_read_and_taken_away(content: Object, expected: Figure | MetricValue) -> None:
    cluster = Cluster()
    task = cluster.measure()
    await cluster.pass_by()
    assert len(cluster.jobs) == 1
    assert not task.done()
    cluster.end("Complete", {"metrics": [{"name": "accuracy", **content}, {"name": "other", "candidate": 1}]})
    await cluster.pass_by()
    assert await task == expected
    assert cluster.jobs == []


@pytest.mark.parametrize("code", [0, 1])
async def test_a_job_with_a_running_sidecar_is_read_and_removed(code: int) -> None:
    cluster = Cluster()
    task = cluster.measure()
    await cluster.pass_by()
    (job,) = cluster.jobs
    report = json.dumps({"metrics": [{"name": "accuracy", "candidate": 0.9}]})
    state = {"terminated": {"exitCode": code, "message": report if code == 0 else "no such file"}}
    statuses = [
        {"name": "istio-proxy", "image": "p", "state": {"running": {}}},
        {"name": "score", "image": "i", "state": state},
    ]
    pod = cluster.api.user_create(objects.pod_of(job, "p"))
    cluster.api.set_status(pod, {"phase": "Running", "containerStatuses": statuses})
    while not task.done():
        await cluster.pass_by(5)
    actual = await task
    if code == 0:
        assert actual == Figure("accuracy", Decimal("0.9"))
    else:
        assert isinstance(actual, MeasurementFailure)
        assert "no such file" in actual.message
    assert cluster.jobs == [], "its pod would run on, and the next measurement would wait for it"


@pytest.mark.parametrize(
    ("condition", "report", "expected"),
    [
        ("Failed", None, "failed"),
        ("Complete", None, "no container left a report"),
        ("Complete", {"metrics": 1}, 'the report needs "metrics"'),
        ("Complete", {"metrics": []}, "accuracy is in the report 0 times"),
        ("Complete", {"metrics": [{"name": "accuracy", "candidate": 1}] * 2}, "accuracy is in the report 2 times"),
    ],
)
async def test_a_job_without_a_figure_is_a_failure_and_is_kept(condition: str, report: Any, expected: str) -> None:
    cluster = Cluster()
    task = cluster.measure()
    await cluster.pass_by()
    cluster.end(condition, report)
    await cluster.pass_by()
    actual = await task
    assert isinstance(actual, MeasurementFailure)
    assert (actual.reason, actual.permanent) == ("MetricJobFailed", False)
    assert expected in actual.message
    assert len(cluster.jobs) == 1
    assert cluster.jobs[0]["spec"]["ttlSecondsAfterFinished"] == 600


async def test_a_job_of_an_earlier_operator_is_waited_for() -> None:
    cluster = Cluster()
    first = cluster.measure()
    await cluster.pass_by()
    first.cancel()
    cluster.follow()
    cluster.clock.advance(5)
    task = cluster.measure()
    await cluster.pass_by()
    assert len(cluster.jobs) == 1
    cluster.end("Complete", {"metrics": [{"name": "accuracy", "candidate": 1, "serving": 1}]})
    await cluster.pass_by()
    assert await task == Figure("accuracy", Decimal(1), Decimal(1))


async def test_a_job_that_is_deleted_is_a_failure() -> None:
    cluster = Cluster()
    task = cluster.measure()
    await cluster.pass_by()
    cluster.api.user_delete(kinds.JOB, "vision", cluster.jobs[0]["metadata"]["name"])
    await cluster.pass_by()
    actual = await task
    assert isinstance(actual, MeasurementFailure)
    assert "was deleted before it ended" in actual.message


async def test_a_job_that_never_ends_is_given_up() -> None:
    cluster = Cluster()
    task = cluster.measure()
    for _ in range(160):
        await cluster.pass_by()
    actual = await task
    assert isinstance(actual, MeasurementFailure)
    assert "has not ended by its deadline" in actual.message


@pytest.mark.parametrize(
    ("error", "permanent", "expected"),
    [
        (
            api_errors.Invalid(422, "Invalid", "spec.template.spec.containers[0].image: Required value"),
            True,
            "Required value",
        ),
        (api_errors.Denied(403, "Forbidden", "violates PodSecurity"), False, "violates PodSecurity"),
        (api_errors.Transient(503, "ServiceUnavailable", "busy"), False, "busy"),
    ],
)
async def test_a_job_that_cannot_be_made_is_a_failure(
    error: api_errors.ApiError, permanent: bool, expected: str
) -> None:
    cluster = Cluster()

    def refuse(*_: Any) -> None:
        raise error

    cluster.api.before_write = refuse
    actual = await cluster.measure()
    assert isinstance(actual, MeasurementFailure)
    assert actual.permanent is permanent
    assert expected in actual.message


async def test_without_its_rollout_no_job_is_made() -> None:
    cluster = Cluster()
    cluster.api.user_delete(kinds.MODEL_ROLLOUT, "vision", "digits-1")
    cluster.follow()
    actual = await cluster.measure()
    assert actual == MeasurementFailure("MetricJobFailed", "the ModelRollout is gone")
