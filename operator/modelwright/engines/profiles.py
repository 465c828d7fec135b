"""Reads the states of known kinds: Trainer's TrainJob, JobSet, RayJob, Argo's Workflow, SparkApplication.

States are those of trainer v2.0, jobset v0.10, ray-operator v1.5, argo-workflows v3.7 and spark-operator v2.3, and of
newer ones where they are known. A state that is not listed here is Unknown: it neither ends a stage nor is success.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from modelwright.api.v1alpha1.retraining import Profile
from modelwright.api.v1alpha1.training import StageState

Object = Mapping[str, Any]
Outputs = Mapping[str, Any] | str


@dataclass(frozen=True, slots=True)
class EngineState:
    """State of an object by its own status. `reason` and `message` are its controller's. `outputs`: its result, when
    the kind has a field for one."""

    state: StageState
    reason: str = ""
    message: str = ""
    outputs: Outputs | None = None


@dataclass(frozen=True, slots=True)
class KindProfile:
    """A known kind: the reader of its states, and the label that its pods carry with its name.

    `intermediate_kinds`: kinds that may own its pods, beside Jobs, and that the operator may have no right to read.
    """

    read_state: Callable[[Object], EngineState]
    pod_label: str
    intermediate_kinds: frozenset[str] = frozenset()


def _condition_reader(success: str, failure: str, terminal: str = "") -> Callable[[Object], EngineState]:
    """Build the reader of kinds that end with a True condition; `terminal` is a status member that repeats it."""

    def read_state(live: Object) -> EngineState:
        status = _get_mapping(live, "status")
        conditions = list_entries(status, "conditions")
        true_conditions = {str(entry.get("type")): entry for entry in conditions if entry.get("status") == "True"}
        ended = {str(status.get(terminal))} if terminal else set()
        for type_, state in ((failure, StageState.FAILED), (success, StageState.SUCCEEDED)):
            if type_ in true_conditions or type_ in ended:
                condition = true_conditions.get(type_, {})
                return EngineState(state, str(condition.get("reason", "")), str(condition.get("message", "")))
        has_started = bool(status.get("jobsStatus") or status.get("replicatedJobsStatus"))
        return EngineState(StageState.RUNNING if has_started else StageState.PENDING)

    return read_state


_RAY_DEPLOYMENT = {
    "": StageState.PENDING,
    "Initializing": StageState.PENDING,
    "Waiting": StageState.PENDING,
    "Running": StageState.RUNNING,
    "Retrying": StageState.RUNNING,
    "Suspending": StageState.SUSPENDED,
    "Suspended": StageState.SUSPENDED,
    "Failed": StageState.FAILED,
    # KubeRay does not count this as an end, but does nothing more.
    "ValidationFailed": StageState.FAILED,
}
_RAY_ENDS = {"SUCCEEDED": StageState.SUCCEEDED, "FAILED": StageState.FAILED, "STOPPED": StageState.FAILED}


def _read_ray_job(live: Object) -> EngineState:
    """Read a RayJob. Complete only says that Ray's own job has ended, and not how."""
    status = _get_mapping(live, "status")
    deployment, job = str(status.get("jobDeploymentStatus") or ""), str(status.get("jobStatus") or "")
    if deployment == "Complete":
        state = _RAY_ENDS.get(job, StageState.UNKNOWN)
    else:
        state = _RAY_DEPLOYMENT.get(deployment, StageState.UNKNOWN)
    unknown_state = (
        "" if state is not StageState.UNKNOWN else f"jobDeploymentStatus {deployment!r} with jobStatus {job!r}"
    )
    return EngineState(state, str(status.get("reason") or ""), str(status.get("message") or unknown_state))


_WORKFLOW_PHASES = {
    "": StageState.PENDING,
    "Pending": StageState.PENDING,
    # Also while a suspend node waits.
    "Running": StageState.RUNNING,
    "Succeeded": StageState.SUCCEEDED,
    "Failed": StageState.FAILED,
    "Error": StageState.FAILED,
}
RESULT_PARAMETER = "result"
"""Name of the global output parameter of a Workflow that holds the result, as JSON."""


def _read_workflow(live: Object) -> EngineState:
    """Read a Workflow, without `status.nodes`, which may be compressed or stored elsewhere."""
    status = _get_mapping(live, "status")
    phase = str(status.get("phase") or "")
    state = _WORKFLOW_PHASES.get(phase, StageState.UNKNOWN)
    outputs = None
    for parameter in list_entries(_get_mapping(status, "outputs"), "parameters"):
        if parameter.get("name") == RESULT_PARAMETER and parameter.get("value") is not None:
            value = parameter["value"]
            outputs = value if isinstance(value, str) else json.dumps(value)
    unknown_state = "" if state is not StageState.UNKNOWN else f"phase {phase!r}"
    reason = phase if state is StageState.FAILED else ""
    return EngineState(state, reason, str(status.get("message") or unknown_state), outputs)


_SPARK_STATES = {
    "": StageState.PENDING,
    "SUBMITTED": StageState.PENDING,
    "PENDING_RERUN": StageState.PENDING,
    "RESUMING": StageState.PENDING,
    # Both lead to a new attempt, or to FAILED once restartPolicy is exhausted.
    "SUBMISSION_FAILED": StageState.PENDING,
    "FAILING": StageState.RUNNING,
    "RUNNING": StageState.RUNNING,
    "SUCCEEDING": StageState.RUNNING,
    "INVALIDATING": StageState.RUNNING,
    "SUSPENDING": StageState.SUSPENDED,
    "SUSPENDED": StageState.SUSPENDED,
    "COMPLETED": StageState.SUCCEEDED,
    "FAILED": StageState.FAILED,
    "UNKNOWN": StageState.UNKNOWN,
}


def _read_spark(live: Object) -> EngineState:
    application = _get_mapping(_get_mapping(live, "status"), "applicationState")
    phase = str(application.get("state") or "")
    state = _SPARK_STATES.get(phase, StageState.UNKNOWN)
    unknown_state = "" if state is not StageState.UNKNOWN else f"applicationState {phase!r}"
    reason = phase if state is StageState.FAILED else ""
    return EngineState(state, reason, str(application.get("errorMessage") or unknown_state))


def list_entries(of: Object, key: str) -> list[Object]:
    """List the objects of the list at `key`; none where it is no list."""
    value = of.get(key)
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def _get_mapping(of: Object, key: str) -> Object:
    value = of.get(key)
    return value if isinstance(value, Mapping) else {}


_JOB_SET_LABEL = "jobset.sigs.k8s.io/jobset-name"

PROFILES: Mapping[Profile, KindProfile] = MappingProxyType(
    {
        # The JobSet has the name of the TrainJob.
        "TrainJob": KindProfile(_condition_reader("Complete", "Failed"), _JOB_SET_LABEL, frozenset({"JobSet"})),
        "JobSet": KindProfile(_condition_reader("Completed", "Failed", "terminalState"), _JOB_SET_LABEL),
        # Selects the pod that submits; its Job has the name of the RayJob.
        "RayJob": KindProfile(_read_ray_job, "job-name"),
        "Workflow": KindProfile(_read_workflow, "workflows.argoproj.io/workflow"),
        "SparkApplication": KindProfile(_read_spark, "sparkoperator.k8s.io/app-name"),
    }
)
