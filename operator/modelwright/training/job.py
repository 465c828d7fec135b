"""Stages that a Job (batch/v1) does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.retraining import Work
from modelwright.api.v1alpha1.training import StageState
from modelwright.core import gates
from modelwright.core.retraining.stage import Reading
from modelwright.core.scoring import GateResult
from modelwright.serving import training
from modelwright.serving.training import Inputs
from modelwright.training.pods import left_by
from modelwright.training.profiles import entries

Json = dict[str, Any]

LABEL_QUEUE = "kueue.x-k8s.io/queue-name"


class JobEngine:
    """Reads what the Job's controller and the kubelet say; `SuccessCriteriaMet` and `FailureTarget` end nothing yet."""

    def kind_of(self, work: Work) -> tuple[str, str]:
        """batch/v1 and Job, whatever the work."""
        del work
        return "batch/v1", "Job"

    def manifest(self, run: Json, stage: str, work: Work, inputs: Inputs) -> Json:
        """See `serving.training.job`."""
        return training.job(run, stage, work, inputs)

    def pod_selector(self, live: Json, work: Work) -> str | None:
        """Its own pods, and none of an earlier Job of the same name."""
        del work
        return f"batch.kubernetes.io/controller-uid={live['metadata']['uid']}"

    def read(self, live: Json, pods: Sequence[Json], work: Work, now: datetime) -> Reading:
        """A pod that has succeeded is the end, also before the Job says so: it may be deleted in between. `pods`: those
        that are believed. A Job that has failed is overruled by none."""
        done = [pod for pod in pods if pod.get("status", {}).get("phase") == "Succeeded"]
        left = left_by(done, work)
        if left.report is not None and not gates.has_failed(live):
            return Reading(StageState.SUCCEEDED, report=left.report, image=left.image)
        found = gates.read_job(live, pods)
        name = live["metadata"]["name"]
        if isinstance(found, GateResult):
            if found.reason in (Reason.REPORT_MISSING, Reason.REPORT_TOO_LARGE):
                return Reading(StageState.SUCCEEDED, left.reason, problem=f"Job {name} ended well, but {left.problem}")
            reason = Reason.STAGE_FAILED if found.reason == Reason.JOB_FAILED else found.reason
            return Reading(StageState.FAILED, reason, found.message)
        if is_suspended(live):
            return waiting(live, "Job")
        failure = gates.never_started(pods, now)
        if failure is not None:
            return Reading(StageState.FAILED, failure.reason, f"Job {name}: {failure.message}")
        running = any(pod.get("status", {}).get("phase") == "Running" for pod in pods)
        state = StageState.RUNNING if running else StageState.PENDING
        return Reading(state, message=found.message if isinstance(found, gates.Running) else "")

    def refusal(self, work: Work) -> str | None:
        """A Job's template is looked at when it is made."""
        del work
        return None


def is_suspended(live: Mapping[str, Any]) -> bool:
    """Whether an object is, or is about to be, suspended: by spec.suspend or its condition Suspended."""
    status = live.get("status")
    told = isinstance(status, Mapping) and any(
        condition.get("type") == "Suspended" and condition.get("status") == "True"
        for condition in entries(status, "conditions")
    )
    return told or (live.get("spec") or {}).get("suspend") is True


def waiting(live: Mapping[str, Any], kind: str) -> Reading:
    """A suspended object: queued when it has a queue, which then decides when it goes on."""
    metadata = live["metadata"]
    queue = (metadata.get("labels") or {}).get(LABEL_QUEUE)
    if queue:
        return Reading(
            StageState.QUEUED, Reason.STAGE_QUEUED, f"{kind} {metadata['name']} waits for quota in LocalQueue {queue}"
        )
    return Reading(StageState.SUSPENDED, Reason.STAGE_QUEUED, f"{kind} {metadata['name']} is suspended")
