"""Result of a gate, read from its Job, the Job's pods and their report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from modelwright.api.reasons import FETCH_REASONS, Reason
from modelwright.api.v1alpha1.policy import EvaluationMetric, Gates
from modelwright.core import pod_failures
from modelwright.core.analysis import report_figures
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.evaluation_gate import GateResult, evaluate_report
from modelwright.core.pod_trust import KEPT_RUNNING

Object = Mapping[str, Any]

JOB_GATES = ("scan", "evaluation", "infra")
"""Gates that run as Jobs, in the order in which they run."""
START_TIMEOUT = timedelta(minutes=2)
"""Time for which a pod may fail to pull its image or to be created before its gate ends, as registries recover."""

_START_FAILURES = (Reason.IMAGE_PULL_FAILED, Reason.CONTAINER_CONFIG_ERROR)
_DECIDED_OUTCOMES = (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE)


@dataclass(frozen=True, slots=True)
class GateRunning:
    """A Job that has not ended; `message` says what it waits for."""

    message: str


@dataclass(frozen=True, slots=True)
class GateReport:
    """The report that the Job's container left as its termination message."""

    content: Object


def has_ended(job: Object) -> bool:
    """Return whether a Job (batch/v1) is complete or has failed."""
    return not _true_conditions(job).keys().isdisjoint(("Complete", "Failed"))


def has_failed(job: Object) -> bool:
    """Return whether a Job (batch/v1) has failed."""
    return "Failed" in _true_conditions(job)


def is_stuck(job: Object, now: datetime, min_age: timedelta) -> bool:
    """Return whether a Job that is older than `min_age` has no ready pod: its pods show why."""
    status = job.get("status", {})
    return not status.get("ready") and now - _parse_timestamp(job["metadata"]["creationTimestamp"]) > min_age


def read_gate_result(
    job: Object, pods: Sequence[Object], gate: str, gates: Gates, *, first: bool, now: datetime, unheard: str = ""
) -> GateResult | None:
    """Read the result of one of the policy's `gates` from its Job and the Job's pods; None while it runs.

    `first`: nothing serves yet. `unheard` names the pods that are not trusted, for the message. A pod that can't start
    ends the gate with an Error before the Job's deadline: by then the Job's controller would have removed the pod that
    shows the cause.
    """
    metrics = gates.evaluation.metrics if gate == "evaluation" and gates.evaluation is not None else ()
    outcome = read_job_outcome(job, pods, metrics)
    if isinstance(outcome, GateResult):
        return replace(outcome, message=f"{outcome.message}; {unheard}") if unheard else outcome
    if isinstance(outcome, GateRunning):
        failure = find_start_failure(pods, now)
        if failure is None:
            return None
        return GateResult(Outcome.ERROR, failure.reason, f"Job {job['metadata']['name']}: {failure.message}")
    if gate in ("scan", "infra"):
        return parse_judged_report(gate, outcome.content)
    return evaluate_report(metrics, outcome.content, first=first)


def find_start_failure(pods: Sequence[Object], now: datetime) -> pod_failures.PodFailure | None:
    """Return why no pod can start, once the newest has failed to for START_TIMEOUT; None while one runs or may yet."""
    if any(pod.get("status", {}).get("phase") in ("Running", "Succeeded") for pod in pods):
        return None
    failure = pod_failures.diagnose_pods(pods)
    if failure is None or failure.reason not in _START_FAILURES or _newest_pod_age(pods, now) < START_TIMEOUT:
        return None
    return failure


def read_job_outcome(
    job: Object, pods: Sequence[Object], metrics: Sequence[EvaluationMetric] = ()
) -> GateRunning | GateReport | GateResult:
    """Read the outcome of a Job (batch/v1) from it and its `pods` (core/v1).

    Every end without a report is an Error, never a pass. `pods` are the trusted ones, see `core.pod_trust`. `metrics`
    are those that the report must have: the message on a truncated report names the first figure that is missing.
    """
    name = job["metadata"]["name"]
    conditions = _true_conditions(job)
    done = [pod for pod in pod_failures.sort_newest_first(pods) if pod.get("status", {}).get("phase") == "Succeeded"]
    failure = pod_failures.diagnose_pods(pods)
    if "Failed" in conditions:
        # No pod overrules the Job's controller.
        return _failed_result(name, conditions["Failed"], failure)
    for pod in done:
        report = _read_pod_report(pod)
        if report is not None:
            return report
    left = ((pod, message) for pod in done for message in _termination_messages(pod))
    cut = next(((pod, message) for pod, message in left if pod_failures.is_truncated(pod, message)), None)
    if cut is not None:
        return GateResult(Outcome.ERROR, Reason.REPORT_TOO_LARGE, f"Job {name}: {describe_truncation(*cut, metrics)}")
    if done or "Complete" in conditions:
        excerpt = f", but {_first_message(done[0])!r}" if done and _first_message(done[0]) else ""
        text = f"Job {name} ended well, but no container left a report in its termination message (JSON){excerpt}"
        return GateResult(Outcome.ERROR, Reason.REPORT_MISSING, text)
    if "Suspended" in conditions or job.get("spec", {}).get("suspend"):
        return GateRunning(f"Job {name} is suspended, for example by a queue")
    newest = next(iter(pod_failures.sort_newest_first(pods)), None)
    if failure is not None and newest is not None and newest.get("status", {}).get("reason") == KEPT_RUNNING:
        text = f"{failure.message}; it is not tried again, since a container that was added to the pod keeps it running"
        return _failed_result(name, {}, replace(failure, message=text))
    if failure is not None:
        return GateRunning(f"Job {name} is retrying: {failure.message}")
    if not pods:
        return GateRunning(f"Job {name} has no pod yet")
    running = any(pod.get("status", {}).get("phase") == "Running" for pod in pods)
    return GateRunning(f"Job {name} is running" if running else f"the pod of Job {name} is starting")


def describe_truncation(pod: Object, message: str, metrics: Sequence[EvaluationMetric]) -> str:
    """Describe a report that the kubelet has truncated."""
    lacking = report_figures.find_first_missing(message, metrics)
    first = f": {lacking} is the first figure that did not fit" if lacking is not None else ""
    return (
        f"the report is larger than the {pod_failures.termination_message_limit(pod)} bytes that Kubernetes "
        f"keeps of a termination message in this pod{first}; report the figures that the gates need (GATED_FIGURES), "
        'and put the rest elsewhere, with "fullReport": {"uri", "digest"}'
    )


def parse_judged_report(gate: str, report: Object) -> GateResult:
    """Parse the verdict of a gate that our own program judged; anything malformed is an Error."""
    try:
        outcome = Outcome(str(report.get("outcome")))
    except ValueError:
        outcome = Outcome.ERROR
    reason, message = report.get("reason"), report.get("message")
    if outcome not in _DECIDED_OUTCOMES or not isinstance(reason, str) or not reason or not isinstance(message, str):
        text = f"the {gate} gate's Job ended with a report that can't be understood"
        return GateResult(Outcome.ERROR, Reason.REPORT_MISSING, text)
    return GateResult(outcome, reason, message)


def _failed_result(name: str, condition: Object, failure: pod_failures.PodFailure | None) -> GateResult:
    if condition.get("reason") == "DeadlineExceeded":
        why = failure.message if failure else "see its Events for what it waited for"
        return GateResult(Outcome.ERROR, Reason.JOB_TIMEOUT, f"Job {name} did not end within its timeout: {why}")
    if failure is None:
        cause = condition.get("message") or condition.get("reason") or "no pod is left that shows why"
        return GateResult(Outcome.ERROR, Reason.JOB_FAILED, f"Job {name} failed: {cause}")
    # MODEL_LOAD_FAILED is no finding here: `diagnose_pods` gives it for any container that fails.
    own = failure.reason in FETCH_REASONS or failure.reason != Reason.MODEL_LOAD_FAILED
    reason = failure.reason if own else Reason.JOB_FAILED
    return GateResult(Outcome.ERROR, reason, f"Job {name} failed: {failure.message}")


def _true_conditions(job: Object) -> dict[str, Object]:
    """Return the conditions that are True, by type."""
    conditions = job.get("status", {}).get("conditions", [])
    return {entry["type"]: entry for entry in conditions if entry.get("status") == "True"}


def _newest_pod_age(pods: Sequence[Object], now: datetime) -> timedelta:
    """Return the age of the newest pod."""
    return now - max(_parse_timestamp(pod["metadata"]["creationTimestamp"]) for pod in pods)


def _parse_timestamp(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _termination_messages(pod: Object) -> list[str]:
    states = [entry.get("state", {}).get("terminated") or {} for entry in pod["status"].get("containerStatuses", [])]
    return [str(state.get("message", "")) for state in states if state.get("exitCode") == 0]


def _read_pod_report(pod: Object) -> GateReport | None:
    for message in _termination_messages(pod):
        content = pod_failures.parse_termination_report(message)
        if content is not None:
            return GateReport(content)
    return None


def _first_message(pod: Object) -> str:
    return next((message.strip()[:200] for message in _termination_messages(pod) if message.strip()), "")
