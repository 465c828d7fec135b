"""How the states of known kinds are read: Trainer's TrainJob, JobSet, RayJob, Argo's Workflow, SparkApplication.

States are those of trainer v2.0, jobset v0.10, ray-operator v1.5, argo-workflows v3.7 and spark-operator v2.3, and of
newer ones where they are known. A state that is not listed here is Unknown: it ends nothing, and is never success.
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
    """What an object's own status says. `reason` and `message` are its controller's. `outputs`: its result, when the
    kind has a place for one."""

    state: StageState
    reason: str = ""
    message: str = ""
    outputs: Outputs | None = None


@dataclass(frozen=True, slots=True)
class KindProfile:
    """A known kind: how its states are read, and which label its pods carry with its name. `between`: kinds that may
    stand between it and its pods, beside Jobs, which the operator may have no right to read."""

    read_state: Callable[[Object], EngineState]
    pod_label: str
    intermediate_kinds: frozenset[str] = frozenset()


def _condition_reader(success: str, failure: str, terminal: str = "") -> Callable[[Object], EngineState]:
    """Kinds that end by a condition that is True; `terminal` is a member of the status that says it once more."""

    def read(live: Object) -> EngineState:
        status = _get_mapping(live, "status")
        told = list_entries(status, "conditions")
        held = {str(entry.get("type")): entry for entry in told if entry.get("status") == "True"}
        ended = {str(status.get(terminal))} if terminal else set()
        for type_, state in ((failure, StageState.FAILED), (success, StageState.SUCCEEDED)):
            if type_ in held or type_ in ended:
                by = held.get(type_, {})
                return EngineState(state, str(by.get("reason", "")), str(by.get("message", "")))
        begun = bool(status.get("jobsStatus") or status.get("replicatedJobsStatus"))
        return EngineState(StageState.RUNNING if begun else StageState.PENDING)

    return read


_RAY_DEPLOYMENT = {
    "": StageState.PENDING,
    "Initializing": StageState.PENDING,
    "Waiting": StageState.PENDING,
    "Running": StageState.RUNNING,
    "Retrying": StageState.RUNNING,
    "Suspending": StageState.SUSPENDED,
    "Suspended": StageState.SUSPENDED,
    "Failed": StageState.FAILED,
    # KubeRay itself doesn't count it as an end, and does nothing more.
    "ValidationFailed": StageState.FAILED,
}
_RAY_ENDS = {"SUCCEEDED": StageState.SUCCEEDED, "FAILED": StageState.FAILED, "STOPPED": StageState.FAILED}


def _read_ray_job(live: Object) -> EngineState:
    """Complete says that Ray's own job has ended, and nothing of how."""
    status = _get_mapping(live, "status")
    deployment, job = str(status.get("jobDeploymentStatus") or ""), str(status.get("jobStatus") or "")
    if deployment == "Complete":
        state = _RAY_ENDS.get(job, StageState.UNKNOWN)
    else:
        state = _RAY_DEPLOYMENT.get(deployment, StageState.UNKNOWN)
    said = "" if state is not StageState.UNKNOWN else f"jobDeploymentStatus {deployment!r} with jobStatus {job!r}"
    return EngineState(state, str(status.get("reason") or ""), str(status.get("message") or said))


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
    """`status.nodes` is not looked at: it may be compressed, or kept elsewhere."""
    status = _get_mapping(live, "status")
    phase = str(status.get("phase") or "")
    state = _WORKFLOW_PHASES.get(phase, StageState.UNKNOWN)
    outputs = None
    for parameter in list_entries(_get_mapping(status, "outputs"), "parameters"):
        if parameter.get("name") == RESULT_PARAMETER and parameter.get("value") is not None:
            value = parameter["value"]
            outputs = value if isinstance(value, str) else json.dumps(value)
    said = "" if state is not StageState.UNKNOWN else f"phase {phase!r}"
    reason = phase if state is StageState.FAILED else ""
    return EngineState(state, reason, str(status.get("message") or said), outputs)


_SPARK_STATES = {
    "": StageState.PENDING,
    "SUBMITTED": StageState.PENDING,
    "PENDING_RERUN": StageState.PENDING,
    "RESUMING": StageState.PENDING,
    # Both go on to a new try, or to FAILED once restartPolicy is spent.
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
    told = str(application.get("state") or "")
    state = _SPARK_STATES.get(told, StageState.UNKNOWN)
    said = "" if state is not StageState.UNKNOWN else f"applicationState {told!r}"
    reason = told if state is StageState.FAILED else ""
    return EngineState(state, reason, str(application.get("errorMessage") or said))


def list_entries(of: Object, key: str) -> list[Object]:
    """The objects of a list; none where something else is."""
    value = of.get(key)
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def _get_mapping(of: Object, key: str) -> Object:
    value = of.get(key)
    return value if isinstance(value, Mapping) else {}


_JOB_SET_LABEL = "jobset.sigs.k8s.io/jobset-name"

PROFILES: Mapping[Profile, KindProfile] = MappingProxyType(
    {
        # Its JobSet has its name.
        "TrainJob": KindProfile(_condition_reader("Complete", "Failed"), _JOB_SET_LABEL, frozenset({"JobSet"})),
        "JobSet": KindProfile(_condition_reader("Completed", "Failed", "terminalState"), _JOB_SET_LABEL),
        # The pod that submits: its Job has the RayJob's name.
        "RayJob": KindProfile(_read_ray_job, "job-name"),
        "Workflow": KindProfile(_read_workflow, "workflows.argoproj.io/workflow"),
        "SparkApplication": KindProfile(_read_spark, "sparkoperator.k8s.io/app-name"),
    }
)
