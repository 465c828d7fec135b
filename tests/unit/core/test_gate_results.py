"""Results of gates, read from Jobs and their reports."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modelwright.api.v1alpha1.policy import Gates
from modelwright.core import gate_results
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.evaluation_gate import GateResult
from modelwright.core.gate_results import GateReport, GateRunning
from modelwright.core.pod_trust import KEPT_RUNNING


@pytest.mark.parametrize(
    ("report", "outcome", "reason"),
    [
        ({"outcome": "Pass", "reason": "GatePassed", "message": "ok"}, "Pass", "GatePassed"),
        ({"outcome": "Fail", "reason": "SampleFailed", "message": "500"}, "Fail", "SampleFailed"),
        (
            {"outcome": "Inconclusive", "reason": "MemoryNotMeasured", "message": ""},
            "Inconclusive",
            "MemoryNotMeasured",
        ),
        ({"outcome": "Good", "reason": "x", "message": ""}, "Error", "ReportMissing"),
        ({"outcome": "NotApplicable", "reason": "x", "message": ""}, "Error", "ReportMissing"),
        ({"outcome": "Pass", "message": "ok"}, "Error", "ReportMissing"),
        ({}, "Error", "ReportMissing"),
    ],
)
def test_the_probers_word_is_taken_when_it_is_understood(report: Any, outcome: str, reason: str) -> None:
    found = gate_results.parse_judged_report("infra", report)
    assert (found.outcome, found.reason) == (outcome, reason)


def job(condition: str | None = None, reason: str = "", **spec: Any) -> dict[str, Any]:
    conditions = [{"type": condition, "status": "True", "reason": reason}] if condition else []
    return {"metadata": {"name": "gate"}, "spec": spec, "status": {"conditions": conditions}}


def pod(phase: str, state: dict[str, Any] | None = None, *, second: int = 0, name: str = "scorer") -> dict[str, Any]:
    statuses = [] if state is None else [{"name": name, "image": "example.com/s:1", "state": state}]
    return {
        "metadata": {"name": "gate-1", "creationTimestamp": f"2026-01-01T00:00:{second:02}Z"},
        "status": {"phase": phase, "containerStatuses": statuses},
    }


def ended(code: int, message: str = "", reason: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


def waiting(reason: str) -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": "no such tag"}}


REPORT = json.dumps({"metrics": []})


@pytest.mark.parametrize(
    ("found", "pods", "said"),
    [
        (job(), [], "has no pod yet"),
        (job(), [pod("Pending")], "is starting"),
        (job(), [pod("Running", {"running": {}})], "is running"),
        (job("Suspended"), [], "is suspended"),
        (job(suspend=True), [], "is suspended"),
        (job(), [pod("Pending", waiting("ImagePullBackOff"))], "can't be pulled: no such tag"),
        (job(), [pod("Failed", ended(1, "boom"))], "is retrying: container scorer ended with exit code 1: boom"),
        (job("FailureTarget", "DeadlineExceeded"), [pod("Running", {"running": {}})], "is running"),
    ],
)
def test_a_running_job_reports_the_cause_of_waiting(found: Any, pods: Any, said: str) -> None:
    state = gate_results.read_job_outcome(found, pods)
    assert isinstance(state, GateRunning)
    assert said in state.message


def test_a_failed_pod_kept_running_by_a_sidecar_ends_the_job() -> None:
    kept = pod("Failed", ended(3, "no such file"))
    kept["status"]["reason"] = KEPT_RUNNING
    found = gate_results.read_job_outcome(job(), [kept])
    assert isinstance(found, GateResult)
    assert (found.outcome, found.reason) == (Outcome.ERROR, "JobFailed")
    assert "no such file" in found.message
    assert "keeps it running" in found.message
    del kept["status"]["reason"]
    assert isinstance(gate_results.read_job_outcome(job(), [kept]), gate_results.GateRunning), (
        "the Job's controller makes another one"
    )


def test_the_report_of_the_newest_pod_that_ended_well_counts() -> None:
    older = pod("Succeeded", ended(0, '{"metrics": [1]}'))
    newer = pod("Succeeded", ended(0, REPORT), second=5)
    failed = pod("Failed", ended(1, '{"metrics": [2]}'), second=9)
    assert gate_results.read_job_outcome(job("Complete"), [older, newer, failed]) == GateReport({"metrics": []})
    assert gate_results.read_job_outcome(job(), [newer]) == GateReport({"metrics": []})


def test_any_container_of_the_pod_may_report() -> None:
    found = pod("Succeeded", ended(0, "bye"), name="sidecar")
    found["status"]["containerStatuses"] += pod("Succeeded", ended(0, REPORT))["status"]["containerStatuses"]
    assert gate_results.read_job_outcome(job("Complete"), [found]) == GateReport({"metrics": []})


@pytest.mark.parametrize(
    ("found", "pods", "reason", "said"),
    [
        (job("Complete"), [pod("Succeeded", ended(0))], "ReportMissing", "no container left a report"),
        (job("Complete"), [pod("Succeeded", ended(0, "accuracy: 1"))], "ReportMissing", "'accuracy: 1'"),
        (job("Complete"), [pod("Succeeded", ended(0, "[1]"))], "ReportMissing", "no container left a report"),
        (job("Complete"), [], "ReportMissing", "no container left a report"),
        (job("Failed", "DeadlineExceeded"), [], "JobTimeout", "see its Events"),
        (job("Failed", "DeadlineExceeded"), [pod("Pending", waiting("ErrImagePull"))], "JobTimeout", "be pulled"),
        (job("Failed", "BackoffLimitExceeded"), [], "JobFailed", "BackoffLimitExceeded"),
        (job("Failed"), [pod("Failed", ended(1, "Traceback\nKeyError: 'x'"))], "JobFailed", "KeyError: 'x'"),
        (job("Failed"), [pod("Failed", ended(137, reason="OOMKilled"))], "ContainerOOMKilled", "limits.memory"),
        (
            job("Failed"),
            [pod("Failed", ended(1, '{"reason": "ArtifactNotFound", "message": "nothing at s3://x"}'))],
            "ArtifactNotFound",
            "nothing at s3://x",
        ),
    ],
)
def test_an_end_without_a_report_is_an_error_that_says_why(found: Any, pods: Any, reason: str, said: str) -> None:
    state = gate_results.read_job_outcome(found, pods)
    assert isinstance(state, GateResult)
    assert (state.outcome, state.reason) == (Outcome.ERROR, reason)
    assert said in state.message


BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
GATES = Gates.model_validate(
    {
        "scan": {},
        "infra": {},
        "evaluation": {"template": {"spec": {}}, "metrics": [{"name": "accuracy", "min": "0.9", "minDelta": "-0.01"}]},
    }
)
SCORED = {"metrics": [{"name": "accuracy", "candidate": 0.95, "n": 2000}]}
REPORTED = [pod("Succeeded", ended(0, json.dumps(SCORED)))]
LARGE = {"metrics": [{"name": "accuracy", "candidate": 0.95, "n": 2000, "slice": name} for name in ("x" * 4000, None)]}
CUT_OFF = [pod("Succeeded", ended(0, json.dumps(LARGE)[:4096]))]
PROBED = [pod("Succeeded", ended(0, json.dumps({"outcome": "Pass", "reason": "GatePassed", "message": "ok"})))]
STUCK = [pod("Pending", waiting("ImagePullBackOff"))]


@pytest.mark.parametrize(
    ("found", "pods", "gate", "first", "minutes", "wanted"),
    [
        (job("Complete"), REPORTED, "evaluation", True, 1, ("Pass", "GatePassed")),
        (job("Complete"), REPORTED, "evaluation", False, 1, ("Error", "MetricMissing")),
        (job("Complete"), CUT_OFF, "evaluation", True, 1, ("Error", "ReportTooLarge")),
        (job("Complete"), PROBED, "infra", False, 1, ("Pass", "GatePassed")),
        (job("Complete"), PROBED, "scan", False, 1, ("Pass", "GatePassed")),
        (job("Complete"), REPORTED, "scan", False, 1, ("Error", "ReportMissing")),
        (job("Complete"), REPORTED, "infra", False, 1, ("Error", "ReportMissing")),
        (job("Complete"), PROBED, "evaluation", False, 1, ("Error", "ReportMissing")),
        (job("Failed", "DeadlineExceeded"), [], "infra", False, 1, ("Error", "JobTimeout")),
        (job(), [], "infra", False, 60, None),
        (job(), [pod("Running", {"running": {}})], "infra", False, 60, None),
        (job(), STUCK, "infra", False, 1, None),
        (job(), STUCK, "infra", False, 3, ("Error", "ImagePullFailed")),
        (
            job(),
            [pod("Pending", waiting("CreateContainerConfigError"))],
            "infra",
            False,
            3,
            ("Error", "ContainerConfigError"),
        ),
        # Another try may end better, and another node may come.
        (job(), [pod("Failed", ended(1))], "evaluation", False, 60, None),
    ],
)
def test_a_gate_comes_to_a_result_once_its_job_can_say_no_more(
    found: Any, pods: Any, gate: str, first: bool, minutes: int, wanted: tuple[str, str] | None
) -> None:
    result = gate_results.read_gate_result(
        found, pods, gate, GATES, first=first, now=BEGAN + timedelta(minutes=minutes)
    )
    assert (result and (result.outcome, result.reason)) == wanted


@pytest.mark.parametrize(
    ("containers", "kept", "notes", "first"),
    [
        (1, 4096, (10, 10, 4100), "accuracy"),
        (3, 4096, (4100, 10, 10), "accuracy"),
        (5, 2457, (1000, 10, 2000), "accuracy of slice night"),
        (5, 2457, (2500, 10, 10), "accuracy"),
        (5, 2457, (10, 10, 5000), "accuracy"),
    ],
    ids=[
        "the end is kept",
        "the end is kept, with most figures",
        "the beginning is kept",
        "the beginning of the first",
        "the middle is kept",
    ],
)
def test_a_truncated_report_names_its_first_missing_figure(
    containers: int, kept: int, notes: tuple[int, int, int], first: str
) -> None:
    overall, day, night = ("x" * size for size in notes)
    entries = [
        {"name": "accuracy", "candidate": 0.9, "note": overall},
        {"name": "accuracy", "candidate": 0.9, "slice": "day", "note": day},
        {"name": "accuracy", "candidate": 0.9, "slice": "night", "note": night},
    ]
    # As the kubelet does: the end of the file, then what the pod has room for.
    message = json.dumps({"metrics": entries})[-4096:][:kept]
    found = pod("Succeeded", ended(0, message))
    found["status"]["initContainerStatuses"] = [{"name": f"fetch-{n}", "state": {}} for n in range(containers - 1)]
    metric = {"name": "accuracy", "min": "0.5", "slices": ["day", "night"]}
    policy = Gates.model_validate({"evaluation": {"template": {}, "metrics": [metric]}})
    result = gate_results.read_gate_result(job("Complete"), [found], "evaluation", policy, first=True, now=BEGAN)
    assert result is not None
    assert (result.outcome, result.reason) == ("Error", "ReportTooLarge")
    assert f"larger than the {kept} bytes" in result.message
    assert f": {first} is the first figure that did not fit" in result.message


@pytest.mark.parametrize(
    ("condition", "over"),
    [(None, False), ("Suspended", False), ("SuccessCriteriaMet", False), ("Complete", True), ("Failed", True)],
)
def test_a_job_has_ended_when_its_controller_says_so(condition: str | None, over: bool) -> None:
    assert gate_results.has_ended(job(condition)) is over
    assert not gate_results.has_ended(
        {"metadata": {}, "status": {"conditions": [{"type": "Failed", "status": "False"}]}}
    )


@pytest.mark.parametrize(
    ("ready", "seconds", "stuck"), [(1, 60, False), (0, 60, True), (None, 60, True), (0, 5, False)]
)
def test_a_job_without_ready_pods_is_stuck_after_a_while(ready: int | None, seconds: int, stuck: bool) -> None:
    found = {"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "status": {"ready": ready}}
    assert gate_results.is_stuck(found, BEGAN + timedelta(seconds=seconds), timedelta(seconds=10)) is stuck
