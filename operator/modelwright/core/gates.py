"""The result of a gate, from its Job, the pods of it and the report that they left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from modelwright.api.reasons import FETCH_REASONS, Reason
from modelwright.api.v1alpha1.policy import EvaluationMetric, Gates
from modelwright.core import pods as pod_states
from modelwright.core.analysis import figures
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.scoring import GateResult, evaluate
from modelwright.core.speakers import KEPT_RUNNING

Object = Mapping[str, Any]

IN_JOBS = ("scan", "evaluation", "infra")
"""Gates that a Job looks at, in the order in which they are looked at."""
START_PATIENCE = timedelta(minutes=2)
"""How long a pod may fail to pull its image or to be created before its gate ends: registries have hiccups."""

_NEVER_STARTS = (Reason.IMAGE_PULL_FAILED, Reason.CONTAINER_CONFIG_ERROR)
_JUDGED = (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE)


@dataclass(frozen=True, slots=True)
class Running:
    """The Job has not ended; `message` says what it waits for."""

    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """What the Job's container left as its termination message."""

    content: Object


def has_ended(job: Object) -> bool:
    """Whether a Job (batch/v1) is complete or has failed."""
    return not _conditions(job).keys().isdisjoint(("Complete", "Failed"))


def has_failed(job: Object) -> bool:
    """Whether a Job (batch/v1) has failed."""
    return "Failed" in _conditions(job)


def is_stuck(job: Object, now: datetime, patience: timedelta) -> bool:
    """Whether a Job that runs for longer than `patience` has no ready pod: its pods tell why."""
    status = job.get("status", {})
    return not status.get("ready") and now - _time(job["metadata"]["creationTimestamp"]) > patience


def of_job(
    job: Object, pods: Sequence[Object], gate: str, gates: Gates, *, first: bool, now: datetime, unheard: str = ""
) -> GateResult | None:
    """What a gate of the policy's `gates` comes to by its Job and the pods of that; None while it runs.

    `first`: nothing serves yet. `unheard`: which pods are not believed, for people. A pod that can't start ends the
    gate with an Error before the Job's own time is up: by then the Job's controller has taken away the pod that tells
    why.
    """
    metrics = gates.evaluation.metrics if gate == "evaluation" and gates.evaluation is not None else ()
    found = read_job(job, pods, metrics)
    if isinstance(found, GateResult):
        return replace(found, message=f"{found.message}; {unheard}") if unheard else found
    if isinstance(found, Running):
        failure = never_started(pods, now)
        if failure is None:
            return None
        return GateResult(Outcome.ERROR, failure.reason, f"Job {job['metadata']['name']}: {failure.message}")
    if gate in ("scan", "infra"):
        return judged(gate, found.content)
    return evaluate(metrics, found.content, first=first)


def never_started(pods: Sequence[Object], now: datetime) -> pod_states.Failure | None:
    """Why no pod can start, once the newest has been failing to for START_PATIENCE; None while one runs or may yet."""
    if any(pod.get("status", {}).get("phase") in ("Running", "Succeeded") for pod in pods):
        return None
    failure = pod_states.diagnose(pods)
    if failure is None or failure.reason not in _NEVER_STARTS or _youngest(pods, now) < START_PATIENCE:
        return None
    return failure


def read_job(
    job: Object, pods: Sequence[Object], metrics: Sequence[EvaluationMetric] = ()
) -> Running | Report | GateResult:
    """What a Job (batch/v1) and its `pods` (core/v1) say. Every end without a report is an Error, never a pass. `pods`:
    those that are believed, see `core.speakers`.

    `metrics`: what the report is asked for. Of one that was cut off, the message names the first figure that it lacks.
    """
    name = job["metadata"]["name"]
    conditions = _conditions(job)
    done = [pod for pod in _newest_first(pods) if pod.get("status", {}).get("phase") == "Succeeded"]
    failure = pod_states.diagnose(pods)
    if "Failed" in conditions:
        # No pod overrules what the Job's controller says.
        return _failed(name, conditions["Failed"], failure)
    for pod in done:
        found = _report(pod)
        if found is not None:
            return found
    left = ((pod, message) for pod in done for message in _messages(pod))
    cut = next(((pod, message) for pod, message in left if pod_states.is_cut_off(pod, message)), None)
    if cut is not None:
        return GateResult(Outcome.ERROR, Reason.REPORT_TOO_LARGE, f"Job {name}: {cut_off(*cut, metrics)}")
    if done or "Complete" in conditions:
        said = f", but {_said(done[0])!r}" if done and _said(done[0]) else ""
        text = f"Job {name} ended well, but no container left a report in its termination message (JSON){said}"
        return GateResult(Outcome.ERROR, Reason.REPORT_MISSING, text)
    if "Suspended" in conditions or job.get("spec", {}).get("suspend"):
        return Running(f"Job {name} is suspended, such as by a queue")
    newest = next(iter(_newest_first(pods)), None)
    if failure is not None and newest is not None and newest.get("status", {}).get("reason") == KEPT_RUNNING:
        text = f"{failure.message}; it is not tried again, since a container that was added to the pod keeps it running"
        return _failed(name, {}, replace(failure, message=text))
    if failure is not None:
        return Running(f"Job {name} goes on trying: {failure.message}")
    if not pods:
        return Running(f"Job {name} has no pod yet")
    running = any(pod.get("status", {}).get("phase") == "Running" for pod in pods)
    return Running(f"Job {name} is running" if running else f"the pod of Job {name} is starting")


def cut_off(pod: Object, message: str, metrics: Sequence[EvaluationMetric]) -> str:
    """What to say of a report that the kubelet has cut off."""
    lacking = figures.first_cut_off(message, metrics)
    first = f": {lacking} is the first figure that did not fit" if lacking is not None else ""
    return (
        f"the report is larger than the {pod_states.kept_bytes(pod)} bytes that Kubernetes keeps of a termination "
        f"message in this pod{first}; report what the gates ask for (GATED_FIGURES), and put the rest elsewhere, "
        'with "fullReport": {"uri", "digest"}'
    )


def judged(gate: str, report: Object) -> GateResult:
    """The Job of a gate of ours has judged already; what it says is taken only when it is understood."""
    try:
        outcome = Outcome(str(report.get("outcome")))
    except ValueError:
        outcome = Outcome.ERROR
    reason, message = report.get("reason"), report.get("message")
    if outcome not in _JUDGED or not isinstance(reason, str) or not reason or not isinstance(message, str):
        text = f"the {gate} gate's Job ended with a report that can't be understood"
        return GateResult(Outcome.ERROR, Reason.REPORT_MISSING, text)
    return GateResult(outcome, reason, message)


def _failed(name: str, condition: Object, failure: pod_states.Failure | None) -> GateResult:
    if condition.get("reason") == "DeadlineExceeded":
        why = failure.message if failure else "see its Events for what it waited for"
        return GateResult(Outcome.ERROR, Reason.JOB_TIMEOUT, f"Job {name} did not end within its timeout: {why}")
    if failure is None:
        said = condition.get("message") or condition.get("reason") or "no pod is left to tell why"
        return GateResult(Outcome.ERROR, Reason.JOB_FAILED, f"Job {name} failed: {said}")
    # That a model doesn't load is no finding here: any container that fails is told so.
    own = failure.reason in FETCH_REASONS or failure.reason != Reason.MODEL_LOAD_FAILED
    reason = failure.reason if own else Reason.JOB_FAILED
    return GateResult(Outcome.ERROR, reason, f"Job {name} failed: {failure.message}")


def _conditions(job: Object) -> dict[str, Object]:
    """Those that hold, by type."""
    told = job.get("status", {}).get("conditions", [])
    return {entry["type"]: entry for entry in told if entry.get("status") == "True"}


def _youngest(pods: Sequence[Object], now: datetime) -> timedelta:
    """How old the newest pod is."""
    return now - max(_time(pod["metadata"]["creationTimestamp"]) for pod in pods)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _newest_first(pods: Iterable[Object]) -> list[Object]:
    return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)


def _messages(pod: Object) -> list[str]:
    states = [entry.get("state", {}).get("terminated") or {} for entry in pod["status"].get("containerStatuses", [])]
    return [str(state.get("message", "")) for state in states if state.get("exitCode") == 0]


def _report(pod: Object) -> Report | None:
    for message in _messages(pod):
        content = pod_states.parse_report(message)
        if content is not None:
            return Report(content)
    return None


def _said(pod: Object) -> str:
    return next((message.strip()[:200] for message in _messages(pod) if message.strip()), "")
