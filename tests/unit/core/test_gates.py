"""What a gate's Job and its report come to."""

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelwright.api.v1alpha1.policy import EvaluationMetric, Gates
from modelwright.core import gates
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.gates import GateResult, Report, Running

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy host is no finding."""


def accuracy(**limits: Any) -> EvaluationMetric:
    return EvaluationMetric.model_validate({"name": "accuracy", **limits})


def entry(candidate: Any = 0.9, serving: Any = 0.9, **more: Any) -> dict[str, Any]:
    return {"name": "accuracy", "candidate": candidate, "serving": serving, **more}


def judged(metric: EvaluationMetric, *entries: dict[str, Any], first: bool = False) -> GateResult:
    return gates.evaluate([metric], {"metrics": list(entries)}, first=first)


@pytest.mark.parametrize(
    ("limits", "figures", "outcome"),
    [
        ({"min": "0.9"}, entry(0.9), "Pass"),
        ({"min": "0.9"}, entry(0.8999), "Fail"),
        ({"max": "0.1"}, entry(0.1), "Pass"),
        ({"max": "0.1"}, entry(0.11), "Fail"),
        # As decimals 0.915 - 0.92 is -0.005 exactly; as binary fractions it is a little less.
        ({"minDelta": "-0.005"}, entry(0.915, 0.92), "Pass"),
        ({"minDelta": "-0.005"}, entry(0.914, 0.92), "Fail"),
        ({"minDelta": "0"}, entry(0.92, 0.92), "Pass"),
        ({"maxDelta": "0.3"}, entry(0.4, 0.1), "Pass"),
        ({"maxDelta": "0.3"}, entry(0.41, 0.1), "Fail"),
        ({"min": "0.5", "minDelta": "-0.01"}, entry(0.6, 0.9), "Fail"),
        ({"min": "0.5"}, entry("0.61", None), "Pass"),
        ({"min": "0.5"}, entry(0.61, math.nan), "Pass"),
        ({"min": "0.5", "max": "0.9", "minDelta": "-1", "maxDelta": "1"}, entry(0.7, 0.6, n=120), "Pass"),
    ],
)
def test_every_limit_must_hold(limits: dict[str, str], figures: dict[str, Any], outcome: str) -> None:
    found = judged(accuracy(**limits), figures)
    assert found.outcome == outcome
    assert found.reason == ("GatePassed" if outcome == "Pass" else "MetricOutOfLimits")


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([], "accuracy is not in the report"),
        ([{"name": "recall", "candidate": 1}], "accuracy is not in the report"),
        ([entry(slice="night")], "accuracy is not in the report"),
        ([entry(), entry()], "2 times"),
        ([entry(None)], "no finite number"),
        ([entry(math.nan)], "no finite number"),
        ([entry(math.inf)], "no finite number"),
        ([entry("much")], "no finite number"),
        ([entry(True)], "no finite number"),
        ([entry([0.9])], "no finite number"),
        ([entry(n=0)], "from 0 examples"),
        ([entry(n="many")], "from 'many' examples"),
        ([entry(0.9, None)], "no finite figure for the serving version"),
        ([entry(0.9, math.nan)], "no finite figure for the serving version"),
    ],
)
def test_a_figure_that_is_missing_or_no_number_fails(entries: list[dict[str, Any]], said: str) -> None:
    found = judged(accuracy(minDelta="-1"), *entries)
    assert (found.outcome, found.reason) == (Outcome.FAIL, "MetricMissing")
    assert said in found.message


@pytest.mark.parametrize("report", [{}, {"metrics": {"accuracy": 1}}, {"metrics": [0.9]}, {"metrics": None}])
def test_a_report_without_a_list_of_metrics_fails(report: dict[str, Any]) -> None:
    found = gates.evaluate([accuracy(min="0")], report, first=False)
    assert (found.outcome, found.reason) == (Outcome.FAIL, "ReportMissing")


def test_every_slice_that_is_named_must_be_there_and_within_the_limits() -> None:
    metric = accuracy(min="0.8", slices=["day", "night"])
    both = [entry(0.9), entry(0.85, slice="day"), entry(0.7, slice="night")]
    found = judged(metric, *both)
    assert (found.outcome, found.message) == (Outcome.FAIL, "accuracy of slice night is 0.7, below min 0.8")
    assert "accuracy of slice night is not in the report" in judged(metric, *both[:2]).message
    assert judged(metric, *both[:2], entry(0.8, slice="night"), entry(0.1, slice="dusk")).outcome is Outcome.PASS


def test_without_limits_nothing_is_blessed() -> None:
    found = gates.evaluate([], {"metrics": [entry()]}, first=False)
    assert (found.outcome, found.reason) == (Outcome.INCONCLUSIVE, "NoLimits")


@pytest.mark.parametrize(
    ("limits", "candidate", "outcome", "reason"),
    [
        ({"min": "0.8", "minDelta": "0.1"}, 0.85, "Pass", "GatePassed"),
        ({"min": "0.8", "minDelta": "0.1"}, 0.7, "Fail", "MetricOutOfLimits"),
        ({"minDelta": "0.1"}, 0.85, "Pass", "NoBaseline"),
        ({"minDelta": "0.1"}, math.nan, "Fail", "MetricMissing"),
    ],
)
def test_of_a_first_revision_limits_versus_serving_are_skipped_and_that_is_said(
    limits: dict[str, str], candidate: float, outcome: str, reason: str
) -> None:
    found = judged(accuracy(**limits), entry(candidate, None), first=True)
    assert (found.outcome, found.reason) == (outcome, reason)
    assert "limits versus the serving version were skipped" in found.message


def test_the_message_has_the_numbers() -> None:
    found = judged(accuracy(minDelta="-0.01", min="0.9"), entry(0.85, 0.9))
    assert found.message == (
        "accuracy is 0.85, below min 0.9; "
        "accuracy is 0.85, -0.05 versus the serving version's 0.9, below minDelta -0.01"
    )
    assert judged(accuracy(min="0.5"), entry(0.91, 0.9)).message == "accuracy 0.91 (serving 0.9)"


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "candidate", "n"]), inner),
    max_leaves=6,
)


@UNTIMED
@given(report=st.fixed_dictionaries({"metrics": _ANY}), first=st.booleans())
def test_no_report_passes_without_a_figure_within_the_limits(report: dict[str, Any], first: bool) -> None:
    found = gates.evaluate([accuracy(min="0.5")], report, first=first)
    assert found.outcome is Outcome.FAIL or found.figures[0].candidate >= 0.5


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
    found = gates.infra(report)
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
        (job(), [pod("Failed", ended(1, "boom"))], "goes on trying: container scorer ended with exit code 1: boom"),
        (job("FailureTarget", "DeadlineExceeded"), [pod("Running", {"running": {}})], "is running"),
    ],
)
def test_a_job_that_has_not_ended_says_what_it_waits_for(found: Any, pods: Any, said: str) -> None:
    state = gates.read_job(found, pods)
    assert isinstance(state, Running)
    assert said in state.message


def test_the_report_of_the_newest_pod_that_ended_well_counts() -> None:
    older = pod("Succeeded", ended(0, '{"metrics": [1]}'))
    newer = pod("Succeeded", ended(0, REPORT), second=5)
    failed = pod("Failed", ended(1, '{"metrics": [2]}'), second=9)
    assert gates.read_job(job("Complete"), [older, newer, failed]) == Report({"metrics": []})
    assert gates.read_job(job(), [newer]) == Report({"metrics": []})


def test_any_container_of_the_pod_may_report() -> None:
    found = pod("Succeeded", ended(0, "bye"), name="sidecar")
    found["status"]["containerStatuses"] += pod("Succeeded", ended(0, REPORT))["status"]["containerStatuses"]
    assert gates.read_job(job("Complete"), [found]) == Report({"metrics": []})


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
    state = gates.read_job(found, pods)
    assert isinstance(state, GateResult)
    assert (state.outcome, state.reason) == (Outcome.ERROR, reason)
    assert said in state.message


BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
GATES = Gates.model_validate(
    {
        "infra": {},
        "evaluation": {"template": {"spec": {}}, "metrics": [{"name": "accuracy", "min": "0.9", "minDelta": "-0.01"}]},
    }
)
REPORTED = [pod("Succeeded", ended(0, json.dumps({"metrics": [entry(0.95, None)]})))]
PROBED = [pod("Succeeded", ended(0, json.dumps({"outcome": "Pass", "reason": "GatePassed", "message": "ok"})))]
STUCK = [pod("Pending", waiting("ImagePullBackOff"))]


@pytest.mark.parametrize(
    ("found", "pods", "gate", "first", "minutes", "wanted"),
    [
        (job("Complete"), REPORTED, "evaluation", True, 1, ("Pass", "GatePassed")),
        (job("Complete"), REPORTED, "evaluation", False, 1, ("Fail", "MetricMissing")),
        (job("Complete"), PROBED, "infra", False, 1, ("Pass", "GatePassed")),
        (job("Complete"), REPORTED, "infra", False, 1, ("Error", "ReportMissing")),
        (job("Complete"), PROBED, "evaluation", False, 1, ("Fail", "ReportMissing")),
        (job("Failed", "DeadlineExceeded"), [], "infra", False, 1, ("Error", "JobTimeout")),
        (job(), [], "infra", False, 60, None),
        (job(), [pod("Running", {"running": {}})], "infra", False, 60, None),
        (job(), STUCK, "infra", False, 1, None),
        (job(), STUCK, "infra", False, 3, ("Error", "ImagePullFailed")),
        (job(), [pod("Pending", waiting("CreateContainerConfigError"))], "infra", False, 3,
         ("Error", "ContainerConfigError")),
        # Another try may end better, and another node may come.
        (job(), [pod("Failed", ended(1))], "evaluation", False, 60, None),
    ],
)  # fmt: skip
def test_a_gate_comes_to_a_result_once_its_job_can_say_no_more(
    found: Any, pods: Any, gate: str, first: bool, minutes: int, wanted: tuple[str, str] | None
) -> None:
    result = gates.of_job(found, pods, gate, GATES, first=first, now=BEGAN + timedelta(minutes=minutes))
    assert (result and (result.outcome, result.reason)) == wanted


@pytest.mark.parametrize(
    ("condition", "over"),
    [(None, False), ("Suspended", False), ("SuccessCriteriaMet", False), ("Complete", True), ("Failed", True)],
)
def test_a_job_has_ended_when_its_controller_says_so(condition: str | None, over: bool) -> None:
    assert gates.has_ended(job(condition)) is over
    assert not gates.has_ended({"metadata": {}, "status": {"conditions": [{"type": "Failed", "status": "False"}]}})


@pytest.mark.parametrize(
    ("ready", "seconds", "stuck"), [(1, 60, False), (0, 60, True), (None, 60, True), (0, 5, False)]
)
def test_pods_are_looked_at_when_none_is_ready_for_a_while(ready: int | None, seconds: int, stuck: bool) -> None:
    found = {"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "status": {"ready": ready}}
    assert gates.is_stuck(found, BEGAN + timedelta(seconds=seconds), timedelta(seconds=10)) is stuck
