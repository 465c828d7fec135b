"""What a gate comes to: its Job is read, and its report judged by the policy's limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from modelwright.api.reasons import FETCH_REASONS, Reason
from modelwright.api.v1alpha1.policy import EvaluationMetric, Gates
from modelwright.core import pods as pod_states
from modelwright.core.analysis.evidence import Outcome

Object = Mapping[str, Any]

IN_JOBS = ("evaluation", "infra")
"""Gates that a Job looks at, in the order in which they are looked at."""
START_PATIENCE = timedelta(minutes=2)
"""How long a pod may fail to pull its image or to be created before its gate ends: registries have hiccups."""

_NEVER_STARTS = (Reason.IMAGE_PULL_FAILED, Reason.CONTAINER_CONFIG_ERROR)
_JUDGED = (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE)


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the evaluation, for the whole of the data or for one slice of it."""

    name: str
    candidate: Decimal
    serving: Decimal | None = None
    slice: str | None = None
    n: int | None = None


@dataclass(frozen=True, slots=True)
class GateResult:
    """How a gate ended. Error: it came to no judgement. `message` is for people and has the numbers."""

    outcome: Outcome
    reason: str
    message: str
    figures: tuple[Figure, ...] = ()


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


def is_stuck(job: Object, now: datetime, patience: timedelta) -> bool:
    """Whether a Job that runs for longer than `patience` has no ready pod: its pods tell why."""
    status = job.get("status", {})
    return not status.get("ready") and now - _time(job["metadata"]["creationTimestamp"]) > patience


def of_job(
    job: Object, pods: Sequence[Object], gate: str, gates: Gates, *, first: bool, now: datetime
) -> GateResult | None:
    """What a gate of the policy's `gates` comes to by its Job and the pods of that; None while it runs.

    `first`: nothing serves yet. A pod that can't start ends the gate with an Error before the Job's own time is up: by
    then the Job's controller has taken away the pod that tells why.
    """
    found = read_job(job, pods)
    if isinstance(found, GateResult):
        return found
    if isinstance(found, Running):
        failure = never_started(pods, now)
        if failure is None:
            return None
        return GateResult(Outcome.ERROR, failure.reason, f"Job {job['metadata']['name']}: {failure.message}")
    if gate == "infra":
        return infra(found.content)
    metrics = gates.evaluation.metrics if gates.evaluation is not None else ()
    return evaluate(metrics, found.content, first=first)


def never_started(pods: Sequence[Object], now: datetime) -> pod_states.Failure | None:
    """Why no pod can start, once the newest has been failing to for START_PATIENCE; None while one runs or may yet."""
    if any(pod.get("status", {}).get("phase") in ("Running", "Succeeded") for pod in pods):
        return None
    failure = pod_states.diagnose(pods)
    if failure is None or failure.reason not in _NEVER_STARTS or _youngest(pods, now) < START_PATIENCE:
        return None
    return failure


def read_job(job: Object, pods: Sequence[Object]) -> Running | Report | GateResult:
    """What a Job (batch/v1) and its `pods` (core/v1) say. Every end without a report is an Error, never a pass."""
    name = job["metadata"]["name"]
    conditions = _conditions(job)
    done = [pod for pod in _newest_first(pods) if pod.get("status", {}).get("phase") == "Succeeded"]
    for pod in done:
        found = _report(pod)
        if found is not None:
            return found
    if done or "Complete" in conditions:
        said = f", but {_said(done[0])!r}" if done and _said(done[0]) else ""
        text = f"Job {name} ended well, but no container left a report in its termination message (JSON){said}"
        return GateResult(Outcome.ERROR, Reason.REPORT_MISSING, text)
    failure = pod_states.diagnose(pods)
    if "Failed" in conditions:
        return _failed(name, conditions["Failed"], failure)
    if "Suspended" in conditions or job.get("spec", {}).get("suspend"):
        return Running(f"Job {name} is suspended, such as by a queue")
    if failure is not None:
        return Running(f"Job {name} goes on trying: {failure.message}")
    if not pods:
        return Running(f"Job {name} has no pod yet")
    running = any(pod.get("status", {}).get("phase") == "Running" for pod in pods)
    return Running(f"Job {name} is running" if running else f"the pod of Job {name} is starting")


def infra(report: Object) -> GateResult:
    """The infra gate's prober has judged already; what it says is taken only when it is understood."""
    try:
        outcome = Outcome(str(report.get("outcome")))
    except ValueError:
        outcome = Outcome.ERROR
    reason, message = report.get("reason"), report.get("message")
    if outcome not in _JUDGED or not isinstance(reason, str) or not reason or not isinstance(message, str):
        text = "the infra gate's Job ended with a report that can't be understood"
        return GateResult(Outcome.ERROR, Reason.REPORT_MISSING, text)
    return GateResult(outcome, reason, message)


def evaluate(metrics: Sequence[EvaluationMetric], report: Object, *, first: bool) -> GateResult:
    """Judges the evaluation's report: {"metrics": [{"name", "candidate", "serving", "slice"?, "n"?}]}.

    Every limit of every metric must hold, for the whole (no slice) and for each slice that the policy names. A figure
    that is missing, no finite number, there twice, or from no examples fails. `first`: nothing serves yet; limits
    versus serving are skipped then, and the message says so. No limits at all decide nothing. Compared as decimals, as
    they are written. After TFX' Evaluator, which blesses nothing by accident and treats a missing baseline in this way.
    """
    if not any(_limits(metric) for metric in metrics):
        return GateResult(Outcome.INCONCLUSIVE, Reason.NO_LIMITS, "the evaluation has no limits: nothing was judged")
    entries = report.get("metrics")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        text = 'the report needs "metrics", a list of {"name", "candidate", "serving", "slice", "n"}'
        return GateResult(Outcome.FAIL, Reason.REPORT_MISSING, text)
    figures: list[Figure] = []
    missing: list[str] = []
    wrong: list[str] = []
    for metric in metrics:
        for part in (None, *metric.slices):
            name = f"{metric.name} of slice {part}" if part is not None else metric.name
            figure = _figure(name, metric.name, part, entries)
            if isinstance(figure, str):
                missing.append(figure)
                continue
            figures.append(figure)
            if not first and figure.serving is None and _versus_serving(metric):
                missing.append(f"{name} has no finite figure for the serving version")
            wrong += _problems(name, metric, figure, first)
    skipped = first and any(_versus_serving(metric) for metric in metrics)
    note = "nothing serves yet, so limits versus the serving version were skipped" if skipped else ""
    if missing or wrong:
        reason = Reason.METRIC_MISSING if missing else Reason.METRIC_OUT_OF_LIMITS
        return GateResult(Outcome.FAIL, reason, "; ".join(filter(None, [*missing, *wrong, note])), tuple(figures))
    absolute = any(metric.min is not None or metric.max is not None for metric in metrics)
    reason = Reason.GATE_PASSED if absolute or not first else Reason.NO_BASELINE
    text = "; ".join(filter(None, [*map(_told, figures), note]))
    return GateResult(Outcome.PASS, reason, text, tuple(figures))


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


def _limits(metric: EvaluationMetric) -> bool:
    return metric.min is not None or metric.max is not None or _versus_serving(metric)


def _versus_serving(metric: EvaluationMetric) -> bool:
    return metric.min_delta is not None or metric.max_delta is not None


def _figure(name: str, metric: str, part: str | None, entries: list[Object]) -> Figure | str:
    """The figure, or what is wrong with it."""
    found = [entry for entry in entries if entry.get("name") == metric and entry.get("slice") == part]
    if not found:
        return f"{name} is not in the report"
    if len(found) > 1:
        return f"{name} is in the report {len(found)} times"
    candidate, count = _number(found[0].get("candidate")), found[0].get("n")
    if candidate is None:
        return f"{name} is {found[0].get('candidate')!r} for the candidate, which is no finite number"
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        return f"{name} is from {count!r} examples"
    return Figure(metric, candidate, _number(found[0].get("serving")), part, count)


def _number(value: Any) -> Decimal | None:
    """A finite number, also when it is written as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = Decimal(value if isinstance(value, str) else repr(value))
    except ArithmeticError:
        return None
    return number if number.is_finite() else None


def _problems(name: str, metric: EvaluationMetric, figure: Figure, first: bool) -> list[str]:
    found = []
    value = figure.candidate
    if metric.min is not None and value < Decimal(metric.min):
        found.append(f"{name} is {_text(value)}, below min {metric.min}")
    if metric.max is not None and value > Decimal(metric.max):
        found.append(f"{name} is {_text(value)}, above max {metric.max}")
    if first or figure.serving is None:
        return found
    delta = value - figure.serving
    apart = f"{name} is {_text(value)}, {_text(delta, '+')} versus the serving version's {_text(figure.serving)}"
    if metric.min_delta is not None and delta < Decimal(metric.min_delta):
        found.append(f"{apart}, below minDelta {metric.min_delta}")
    if metric.max_delta is not None and delta > Decimal(metric.max_delta):
        found.append(f"{apart}, above maxDelta {metric.max_delta}")
    return found


def _told(figure: Figure) -> str:
    of = f" of slice {figure.slice}" if figure.slice is not None else ""
    versus = f" (serving {_text(figure.serving)})" if figure.serving is not None else ""
    return f"{figure.name}{of} {_text(figure.candidate)}{versus}"


def _text(number: Decimal, sign: str = "") -> str:
    return f"{float(number):{sign}.6g}"
