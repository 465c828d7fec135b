"""Stages that a Job does: when they have ended, what they wait for, and why there is no result."""

from typing import Any

import pytest

from modelwright.api.v1alpha1.retraining import Evaluate
from modelwright.engines.providers import choose_engine
from tests.unit.engines.builders import DIGEST, NOW, condition, container, ended, live, pod, succeeded, work

Json = dict[str, Any]
JOB = work()
ENGINE = choose_engine(JOB)
QUEUE = {"kueue.x-k8s.io/queue-name": "gpus"}
PULL = container(waiting={"reason": "ImagePullBackOff", "message": "not found"})


def conditions(*entries: Json) -> Json:
    return {"conditions": list(entries)}


CASES = [
    ("that has no pod yet", {}, [], "Pending", "", "has no pod yet"),
    ("whose pod is starting", {}, [pod("Pending")], "Pending", "", "is starting"),
    ("whose pod runs", {}, [pod("Running")], "Running", "", "is running"),
    (
        "that goes on trying",
        {},
        [pod("Failed", container(**ended(3, "a\nbad data"))), pod("Running", seconds=9)],
        "Running",
        "",
        "is retrying",
    ),
    (
        "whose success is not counted yet",
        conditions(condition("SuccessCriteriaMet")),
        [pod("Running")],
        "Running",
        "",
        "",
    ),
    (
        "whose failure is not counted yet",
        conditions(condition("FailureTarget", "PodFailurePolicy")),
        [pod("Running")],
        "Running",
        "",
        "",
    ),
    ("that is complete", conditions(condition("Complete")), [succeeded()], "Succeeded", "", ""),
    ("that isn't complete yet, and whose pod is done", {}, [succeeded()], "Succeeded", "", ""),
    (
        "that failed on every try",
        conditions(condition("Failed", "BackoffLimitExceeded")),
        [pod("Failed", container(**ended(3, "reading\nValueError: no label")))],
        "Failed",
        "StageFailed",
        "ended with exit code 3: ValueError: no label",
    ),
    (
        "that failed by its pod failure policy",
        conditions(condition("Failed", "PodFailurePolicy", "exit code 42")),
        [],
        "Failed",
        "StageFailed",
        "exit code 42",
    ),
    ("that ran into a deadline", conditions(condition("Failed", "DeadlineExceeded")), [], "Failed", "JobTimeout", ""),
    (
        "that ran out of memory",
        conditions(condition("Failed", "BackoffLimitExceeded")),
        [pod("Failed", container(**ended(137, reason="OOMKilled")))],
        "Failed",
        "ContainerOOMKilled",
        "memory",
    ),
    (
        "whose dataset is another one",
        conditions(condition("Failed", "BackoffLimitExceeded")),
        [
            pod(
                "Failed",
                container("fetch-dataset", **ended(1, '{"reason": "DigestMismatch", "message": "got sha256:a"}')),
            )
        ],
        "Failed",
        "DigestMismatch",
        "got sha256:a",
    ),
    ("whose image can't be pulled, so far", {}, [pod("Pending", PULL, seconds=60)], "Pending", "", "can't be pulled"),
    ("whose image can't be pulled", {}, [pod("Pending", PULL, seconds=121)], "Failed", "ImagePullFailed", "not found"),
    (
        "whose image can't be pulled and that is suspended",
        conditions(condition("Suspended")),
        [pod("Pending", PULL, seconds=121)],
        "Suspended",
        "StageQueued",
        "is suspended",
    ),
    ("that is suspended", conditions(condition("Suspended")), [], "Suspended", "StageQueued", "is suspended"),
    ("that was resumed", conditions(condition("Suspended", status="False")), [pod("Running")], "Running", "", ""),
]


@pytest.mark.parametrize(
    ("status", "pods", "state", "reason", "expected"),
    [case[1:] for case in CASES],
    ids=[f"a Job {c[0]}" for c in CASES],
)
def test_a_job_is_read_as(status: Json, pods: list[Json], state: str, reason: str, expected: str) -> None:
    reading = ENGINE.read_stage(live("Job", status), pods, JOB, NOW)
    assert (reading.state, reading.reason) == (state, reason)
    assert expected in reading.message
    assert (reading.report is not None) == (state == "Succeeded")


@pytest.mark.parametrize("preempted", [True, False])
def test_a_queued_job_waits_for_quota_also_when_it_was_preempted(preempted: bool) -> None:
    pods = [pod("Failed", container(**ended(143)))] if preempted else []
    reading = ENGINE.read_stage(live("Job", {}, {"suspend": True}, labels=QUEUE), pods, JOB, NOW)
    assert (reading.state, reading.reason) == ("Queued", "StageQueued")
    assert reading.message == "Job train-digits waits for quota in LocalQueue gpus"


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("", "no container left a report"),
        ("accuracy 0.9", "'accuracy 0.9' as its termination message, which is no JSON object"),
        ("[1]", "no JSON object"),
        ('{"metrics": {' + "x" * 4083, "larger than the 4096 bytes that Kubernetes keeps"),
    ],
)
def test_a_job_that_succeeds_without_a_result_says_what_it_left(message: str, problem: str) -> None:
    for status in (conditions(condition("Complete")), {}):
        reading = ENGINE.read_stage(live("Job", status), [succeeded(message)], JOB, NOW)
        assert (reading.state, reading.report) == ("Succeeded", None)
        assert problem in str(reading.problem)


def test_a_cut_off_report_names_the_first_missing_figure() -> None:
    gated = [{"name": "accuracy", "min": "0.9", "slices": ["night"]}]
    stage_work = Evaluate.model_validate({"job": {"template": {}}, "gates": gated})
    message = '{"metrics": [{"name": "accuracy", "candidate": 1}, {"name": "f1", "candidate": ' + "1" * 5000
    reading = ENGINE.read_stage(
        live("Job", conditions(condition("Complete"))), [succeeded(message[:4096])], stage_work, NOW
    )
    assert (reading.state, reading.reason, reading.report) == ("Succeeded", "ReportTooLarge", None)
    assert "accuracy of slice night is the first figure that did not fit" in str(reading.problem)


def test_a_complete_job_without_pods_has_no_result() -> None:
    reading = ENGINE.read_stage(live("Job", conditions(condition("Complete"))), [], JOB, NOW)
    assert (reading.state, reading.report) == ("Succeeded", None)
    assert "no container left a report" in str(reading.problem)


def test_the_newest_report_of_a_successful_pod_counts() -> None:
    failed = pod("Failed", container(**ended(1, '{"artifact": 0}')), seconds=1)
    old, new = succeeded('{"artifact": 1}', 500), succeeded('{"artifact": 2}', 400)
    assert ENGINE.read_stage(live("Job"), [old, failed, new], JOB, NOW).report == {"artifact": 2}


def test_a_sidecar_does_not_hinder_the_training_container() -> None:
    two = pod("Succeeded", container("log", **ended(0, "bye")), container("train", **ended(0, '{"artifact": 1}')))
    assert ENGINE.read_stage(live("Job"), [two], JOB, NOW).report == {"artifact": 1}


@pytest.mark.parametrize(
    ("image_id", "image"),
    [
        (f"example.com/t@{DIGEST}", f"example.com/t@{DIGEST}"),
        (f"docker-pullable://example.com/t@{DIGEST}", f"example.com/t@{DIGEST}"),
        # Of an image that was loaded by hand the node tells the digest of its configuration.
        (DIGEST, "example.com/t:1"),
        ("", "example.com/t:1"),
    ],
)
def test_the_image_has_its_digest_where_the_node_knows_it(image_id: str, image: str) -> None:
    assert ENGINE.read_stage(live("Job"), [succeeded(image_id=image_id)], JOB, NOW).image == image


def test_the_pods_of_a_job_are_found_by_its_uid() -> None:
    assert ENGINE.pod_selector(live("Job"), JOB) == "batch.kubernetes.io/controller-uid=child-uid"
    assert ENGINE.resolve_kind(JOB) == ("batch/v1", "Job")
    assert ENGINE.validate_work(JOB) is None
