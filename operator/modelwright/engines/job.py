"""Stages that a Job (batch/v1) does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.retraining import Work
from modelwright.api.v1alpha1.training import StageState
from modelwright.core import gate_results
from modelwright.core.evaluation_gate import GateResult
from modelwright.core.retraining.stage_reading import StageReading
from modelwright.engines.pod_reports import find_report
from modelwright.engines.profiles import list_entries
from modelwright.render import training_stages
from modelwright.render.training_stages import StageInputs

Json = dict[str, Any]

LABEL_QUEUE = "kueue.x-k8s.io/queue-name"


class JobEngine:
    """Reads what the Job's controller and the kubelet say; `SuccessCriteriaMet` and `FailureTarget` end nothing yet."""

    def resolve_kind(self, work: Work) -> tuple[str, str]:
        """batch/v1 and Job, whatever the work."""
        del work
        return "batch/v1", "Job"

    def render_manifest(self, run: Json, stage: str, work: Work, inputs: StageInputs) -> Json:
        """See `serving.training.job`."""
        return training_stages.stage_job(run, stage, work, inputs)

    def pod_selector(self, live: Json, work: Work) -> str | None:
        """Its own pods, and none of an earlier Job of the same name."""
        del work
        return f"batch.kubernetes.io/controller-uid={live['metadata']['uid']}"

    def read_stage(self, live: Json, pods: Sequence[Json], work: Work, now: datetime) -> StageReading:
        """A pod that has succeeded is the end, also before the Job says so: it may be deleted in between. `pods`: those
        that are believed. A Job that has failed is overruled by none."""
        done = [pod for pod in pods if pod.get("status", {}).get("phase") == "Succeeded"]
        left = find_report(done, work)
        if left.report is not None and not gate_results.has_failed(live):
            return StageReading(StageState.SUCCEEDED, report=left.report, image=left.image)
        found = gate_results.read_job_outcome(live, pods)
        name = live["metadata"]["name"]
        if isinstance(found, GateResult):
            if found.reason in (Reason.REPORT_MISSING, Reason.REPORT_TOO_LARGE):
                return StageReading(
                    StageState.SUCCEEDED, left.reason, problem=f"Job {name} ended well, but {left.problem}"
                )
            reason = Reason.STAGE_FAILED if found.reason == Reason.JOB_FAILED else found.reason
            return StageReading(StageState.FAILED, reason, found.message)
        if is_suspended(live):
            return read_suspended(live, "Job")
        failure = gate_results.find_start_failure(pods, now)
        if failure is not None:
            return StageReading(StageState.FAILED, failure.reason, f"Job {name}: {failure.message}")
        running = any(pod.get("status", {}).get("phase") == "Running" for pod in pods)
        state = StageState.RUNNING if running else StageState.PENDING
        return StageReading(state, message=found.message if isinstance(found, gate_results.GateRunning) else "")

    def validate_work(self, work: Work) -> str | None:
        """A Job's template is looked at when it is made."""
        del work
        return None


def is_suspended(live: Mapping[str, Any]) -> bool:
    """Whether an object is, or is about to be, suspended: by spec.suspend or its condition Suspended."""
    status = live.get("status")
    told = isinstance(status, Mapping) and any(
        condition.get("type") == "Suspended" and condition.get("status") == "True"
        for condition in list_entries(status, "conditions")
    )
    return told or (live.get("spec") or {}).get("suspend") is True


def read_suspended(live: Mapping[str, Any], kind: str) -> StageReading:
    """A suspended object: queued when it has a queue, which then decides when it goes on."""
    metadata = live["metadata"]
    queue = (metadata.get("labels") or {}).get(LABEL_QUEUE)
    if queue:
        return StageReading(
            StageState.QUEUED, Reason.STAGE_QUEUED, f"{kind} {metadata['name']} waits for quota in LocalQueue {queue}"
        )
    return StageReading(StageState.SUSPENDED, Reason.STAGE_QUEUED, f"{kind} {metadata['name']} is suspended")
