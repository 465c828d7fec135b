"""The states of known kinds, each that their controllers write: unknown is never success."""

from typing import Any

import pytest

from modelwright.api.v1alpha1.retraining import PROFILES as NAMES
from modelwright.api.v1alpha1.training import StageState
from modelwright.engines.profiles import PROFILES
from modelwright.engines.providers import choose_engine
from tests.unit.engines.builders import NOW, condition, live, work

Json = dict[str, Any]
SUSPEND: Json = {"suspend": True}


def conditions(*entries: Json, **more: Any) -> Json:
    return {"conditions": list(entries), **more}


def ray(deployment: str, job: str = "", **more: Any) -> Json:
    return {"jobDeploymentStatus": deployment, "jobStatus": job, **more}


def spark(state: str) -> Json:
    return {"applicationState": {"state": state, "errorMessage": "driver said no"}}


CASES = [
    ("TrainJob", "that is new", None, None, "Pending"),
    ("TrainJob", "that was resumed", conditions(condition("Suspended", "Resumed", status="False")), None, "Pending"),
    ("TrainJob", "whose jobs run", {"jobsStatus": [{"name": "node", "active": 1}]}, None, "Running"),
    ("TrainJob", "that is suspended", conditions(condition("Suspended", "Suspended")), None, "Suspended"),
    ("TrainJob", "that is to be suspended", {"jobsStatus": [{"name": "node"}]}, SUSPEND, "Suspended"),
    ("TrainJob", "that is complete", conditions(condition("Complete", "JobsCompleted")), None, "Succeeded"),
    ("TrainJob", "whose Complete is False", conditions(condition("Complete", status="False")), None, "Pending"),
    ("TrainJob", "whose Complete is Unknown", conditions(condition("Complete", status="Unknown")), None, "Pending"),
    ("TrainJob", "that failed", conditions(condition("Failed", "JobsFailed")), None, "Failed"),
    (
        "TrainJob",
        "of a runtime that isn't there",
        conditions(condition("Failed", "TrainingRuntimeNotSupported")),
        None,
        "Failed",
    ),
    ("TrainJob", "that ran out of time", conditions(condition("Failed", "DeadlineExceeded")), None, "Failed"),
    (
        "TrainJob",
        "that says both ends",
        conditions(condition("Complete"), condition("Failed")),
        None,
        "Failed",
    ),
    ("TrainJob", "that ended while suspended", conditions(condition("Complete")), SUSPEND, "Succeeded"),
    ("JobSet", "that is new", None, None, "Pending"),
    ("JobSet", "whose jobs run", {"replicatedJobsStatus": [{"name": "a", "active": 1}]}, None, "Running"),
    ("JobSet", "that restarts", {"restarts": 1, "replicatedJobsStatus": [{"name": "a"}]}, None, "Running"),
    ("JobSet", "that is suspended", conditions(condition("Suspended", "SuspendedJobs")), None, "Suspended"),
    ("JobSet", "that is completed", conditions(condition("Completed", "AllJobsCompleted")), None, "Succeeded"),
    ("JobSet", "whose terminal state is Completed", {"terminalState": "Completed"}, None, "Succeeded"),
    ("JobSet", "that failed", conditions(condition("Failed", "ReachedMaxRestarts")), None, "Failed"),
    ("JobSet", "whose terminal state is Failed", {"terminalState": "Failed"}, None, "Failed"),
    ("JobSet", "of a terminal state we don't know", {"terminalState": "Lost"}, None, "Pending"),
    ("JobSet", "that says Complete, as others do", conditions(condition("Complete")), None, "Pending"),
    ("RayJob", "that is new", None, None, "Pending"),
    ("RayJob", "that is new, with a status", ray(""), None, "Pending"),
    ("RayJob", "that initializes", ray("Initializing"), None, "Pending"),
    ("RayJob", "that waits for its submission", ray("Waiting"), None, "Pending"),
    ("RayJob", "that runs", ray("Running", "PENDING"), None, "Running"),
    ("RayJob", "that runs and whose job has succeeded", ray("Running", "SUCCEEDED"), None, "Running"),
    ("RayJob", "that tries again", ray("Retrying", "FAILED"), None, "Running"),
    ("RayJob", "that is being suspended", ray("Suspending", "RUNNING"), None, "Suspended"),
    ("RayJob", "that is suspended", ray("Suspended"), SUSPEND, "Suspended"),
    ("RayJob", "that is to be suspended", ray("Running", "RUNNING"), SUSPEND, "Suspended"),
    ("RayJob", "that is complete and has succeeded", ray("Complete", "SUCCEEDED"), None, "Succeeded"),
    ("RayJob", "that is complete and has failed", ray("Complete", "FAILED", reason="AppFailed"), None, "Failed"),
    ("RayJob", "that is complete and was stopped", ray("Complete", "STOPPED"), None, "Failed"),
    ("RayJob", "that is complete and says nothing", ray("Complete"), None, "Unknown"),
    ("RayJob", "that is complete and still runs", ray("Complete", "RUNNING"), None, "Unknown"),
    ("RayJob", "that is complete and waits", ray("Complete", "PENDING"), None, "Unknown"),
    ("RayJob", "that failed to be submitted", ray("Failed", reason="SubmissionFailed"), None, "Failed"),
    ("RayJob", "that ran out of time", ray("Failed", "RUNNING", reason="DeadlineExceeded"), None, "Failed"),
    ("RayJob", "that failed though its job succeeded", ray("Failed", "SUCCEEDED"), None, "Failed"),
    ("RayJob", "that is not valid", ray("ValidationFailed"), None, "Failed"),
    ("RayJob", "of a state we don't know", ray("Resting", "SUCCEEDED"), None, "Unknown"),
    ("Workflow", "that is new", None, None, "Pending"),
    ("Workflow", "of no phase", {"phase": ""}, None, "Pending"),
    ("Workflow", "that is pending", {"phase": "Pending"}, None, "Pending"),
    ("Workflow", "that runs", {"phase": "Running"}, None, "Running"),
    ("Workflow", "that is suspended", {"phase": "Running"}, SUSPEND, "Suspended"),
    ("Workflow", "that has succeeded", {"phase": "Succeeded"}, None, "Succeeded"),
    ("Workflow", "that failed", {"phase": "Failed"}, None, "Failed"),
    ("Workflow", "that has an error", {"phase": "Error"}, None, "Failed"),
    ("Workflow", "of a phase we don't know", {"phase": "Omitted"}, None, "Unknown"),
    ("SparkApplication", "that is new", None, None, "Pending"),
    ("SparkApplication", "of no state", spark(""), None, "Pending"),
    ("SparkApplication", "that is submitted", spark("SUBMITTED"), None, "Pending"),
    ("SparkApplication", "that could not be submitted, and may be again", spark("SUBMISSION_FAILED"), None, "Pending"),
    ("SparkApplication", "that is to run again", spark("PENDING_RERUN"), None, "Pending"),
    ("SparkApplication", "that runs", spark("RUNNING"), None, "Running"),
    ("SparkApplication", "that is about to succeed", spark("SUCCEEDING"), None, "Running"),
    ("SparkApplication", "that is about to fail or try again", spark("FAILING"), None, "Running"),
    ("SparkApplication", "that was edited", spark("INVALIDATING"), None, "Running"),
    ("SparkApplication", "that is being suspended", spark("SUSPENDING"), None, "Suspended"),
    ("SparkApplication", "that is suspended", spark("SUSPENDED"), SUSPEND, "Suspended"),
    ("SparkApplication", "that is resumed", spark("RESUMING"), None, "Pending"),
    ("SparkApplication", "that is completed", spark("COMPLETED"), None, "Succeeded"),
    ("SparkApplication", "that failed", spark("FAILED"), None, "Failed"),
    ("SparkApplication", "whose controller doesn't know", spark("UNKNOWN"), None, "Unknown"),
    ("SparkApplication", "of a state we don't know", spark("RESTING"), None, "Unknown"),
]


@pytest.mark.parametrize(
    ("kind", "status", "spec", "state"),
    [(kind, status, spec, state) for kind, _, status, spec, state in CASES],
    ids=[f"a {kind} {what}" for kind, what, *_ in CASES],
)
def test_a_state_is_read_as(kind: str, status: Json | None, spec: Json | None, state: str) -> None:
    stage_work = work(profile=kind)
    reading = choose_engine(stage_work).read_stage(live(kind, status, spec), [], stage_work, NOW)
    assert reading.state == StageState(state)
    assert reading.report is None


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("spec", [None, SUSPEND])
def test_a_queued_object_waits_for_its_queue(kind: str, spec: Json | None) -> None:
    stage_work = work(profile=kind)
    queued = live(kind, None, spec, labels={"kueue.x-k8s.io/queue-name": "gpus"})
    reading = choose_engine(stage_work).read_stage(queued, [], stage_work, NOW)
    assert reading.state == (StageState.QUEUED if spec else StageState.PENDING)
    assert ("waits for quota in LocalQueue gpus" in reading.message) == bool(spec)


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        ("TrainJob", conditions(condition("Failed", "DeadlineExceeded", "took 2h")), "DeadlineExceeded; took 2h"),
        ("RayJob", ray("Complete", "FAILED", reason="AppFailed", message="exit 1"), "AppFailed; exit 1"),
        ("Workflow", {"phase": "Error", "message": "no such template"}, "Error; no such template"),
        ("SparkApplication", spark("FAILED"), "FAILED; driver said no"),
        ("RayJob", ray("Resting", "SUCCEEDED"), "jobDeploymentStatus 'Resting' with jobStatus 'SUCCEEDED'"),
        ("Workflow", {"phase": "Omitted"}, "phase 'Omitted'"),
    ],
)
def test_the_message_has_the_controllers_own_words(kind: str, status: Json, expected: str) -> None:
    stage_work = work(profile=kind)
    reading = choose_engine(stage_work).read_stage(live(kind, status), [], stage_work, NOW)
    assert expected in reading.message
    assert f"{kind} train-digits" in reading.message


@pytest.mark.parametrize(
    ("kind", "selector"),
    [
        ("TrainJob", "jobset.sigs.k8s.io/jobset-name=train-digits"),
        ("JobSet", "jobset.sigs.k8s.io/jobset-name=train-digits"),
        ("RayJob", "job-name=train-digits"),
        ("Workflow", "workflows.argoproj.io/workflow=train-digits"),
        ("SparkApplication", "sparkoperator.k8s.io/app-name=train-digits"),
    ],
)
def test_the_pods_of_a_kind_are_found_by_its_label(kind: str, selector: str) -> None:
    stage_work = work(profile=kind)
    assert choose_engine(stage_work).pod_selector(live(kind), stage_work) == selector


def test_every_profile_of_the_api_is_known() -> None:
    assert set(PROFILES) == set(NAMES)
