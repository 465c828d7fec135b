"""Runs stages as Jobs (batch/v1)."""

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
    """Reads the status of the Job and of its pods. `SuccessCriteriaMet` and `FailureTarget` are no end of a Job yet."""

    def resolve_kind(self, work: Work) -> tuple[str, str]:
        """Return batch/v1 and Job for any work."""
        del work
        return "batch/v1", "Job"

    def render_manifest(self, run: Json, stage: str, work: Work, inputs: StageInputs) -> Json:
        """Render the Job by `training_stages.stage_job`."""
        return training_stages.stage_job(run, stage, work, inputs)

    def pod_selector(self, live: Json, work: Work) -> str | None:
        """Select the Job's own pods, and none of an earlier Job of the same name."""
        del work
        return f"batch.kubernetes.io/controller-uid={live['metadata']['uid']}"

    def read_stage(self, live: Json, pods: Sequence[Json], work: Work, now: datetime) -> StageReading:
        """Read the state of the stage; `pods` are the trusted ones.

        A successful pod with a report ends the stage before the Job's status does, because the Job may be deleted in
        between. No pod overrules a failed Job.
        """
        succeeded = [pod for pod in pods if pod.get("status", {}).get("phase") == "Succeeded"]
        pod_report = find_report(succeeded, work)
        if pod_report.report is not None and not gate_results.has_failed(live):
            return StageReading(StageState.SUCCEEDED, report=pod_report.report, image=pod_report.image)
        outcome = gate_results.read_job_outcome(live, pods)
        name = live["metadata"]["name"]
        if isinstance(outcome, GateResult):
            if outcome.reason in (Reason.REPORT_MISSING, Reason.REPORT_TOO_LARGE):
                return StageReading(
                    StageState.SUCCEEDED, pod_report.reason, problem=f"Job {name} ended well, but {pod_report.problem}"
                )
            reason = Reason.STAGE_FAILED if outcome.reason == Reason.JOB_FAILED else outcome.reason
            return StageReading(StageState.FAILED, reason, outcome.message)
        if is_suspended(live):
            return read_suspended(live, "Job")
        failure = gate_results.find_start_failure(pods, now)
        if failure is not None:
            return StageReading(StageState.FAILED, failure.reason, f"Job {name}: {failure.message}")
        running = any(pod.get("status", {}).get("phase") == "Running" for pod in pods)
        state = StageState.RUNNING if running else StageState.PENDING
        return StageReading(state, message=outcome.message if isinstance(outcome, gate_results.GateRunning) else "")

    def validate_work(self, work: Work) -> str | None:
        """Return None: a Job's template is checked when the Job is created."""
        del work
        return None


def is_suspended(live: Mapping[str, Any]) -> bool:
    """Whether an object is suspended, or about to be, by spec.suspend or its condition Suspended."""
    status = live.get("status")
    is_reported = isinstance(status, Mapping) and any(
        condition.get("type") == "Suspended" and condition.get("status") == "True"
        for condition in list_entries(status, "conditions")
    )
    return is_reported or (live.get("spec") or {}).get("suspend") is True


def read_suspended(live: Mapping[str, Any], kind: str) -> StageReading:
    """Read a suspended object: queued when it has a queue, which then decides when it resumes."""
    metadata = live["metadata"]
    queue = (metadata.get("labels") or {}).get(LABEL_QUEUE)
    if queue:
        return StageReading(
            StageState.QUEUED, Reason.STAGE_QUEUED, f"{kind} {metadata['name']} waits for quota in LocalQueue {queue}"
        )
    return StageReading(StageState.SUSPENDED, Reason.STAGE_QUEUED, f"{kind} {metadata['name']} is suspended")
