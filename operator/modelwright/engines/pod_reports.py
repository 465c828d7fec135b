"""Reads the report that the pods of a stage leave in a termination message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import EvaluationMetric
from modelwright.api.v1alpha1.retraining import Evaluate, Work
from modelwright.core import gate_results, pod_failures

Json = dict[str, Any]

NO_REPORT = "no container left a report (a JSON object) in its termination message"


@dataclass(frozen=True, slots=True)
class PodReport:
    """The report of successful containers. `reason` and `problem` say why there is none."""

    report: Json | None = None
    image: str | None = None
    reason: str = ""
    problem: str | None = None


def find_report(pods: Iterable[Json], work: Work | None = None) -> PodReport:
    """Find the report of the newest pod that has one. Only containers with exit code 0 count.

    `work`: the stage, whose gates name the metrics of its report.
    """
    metrics = work.gates if isinstance(work, Evaluate) else ()
    unreadable: PodReport | None = None
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True):
        for status in pod.get("status", {}).get("containerStatuses", []):
            ended = status.get("state", {}).get("terminated") or {}
            message = str(ended.get("message", ""))
            if ended.get("exitCode") != 0 or not message.strip():
                continue
            report = pod_failures.parse_termination_report(message)
            if report is not None:
                return PodReport(report, _running_image(status))
            unreadable = unreadable or _describe_unreadable(pod, str(status.get("name", "")), message, metrics)
    return unreadable or PodReport(reason=Reason.REPORT_MISSING, problem=NO_REPORT)


def _running_image(status: Json) -> str | None:
    """Return the image that ran, with its digest where the node has reported one."""
    image_id = str(status.get("imageID", "")).removeprefix("docker-pullable://")
    return image_id if "@sha256:" in image_id else status.get("image") or None


def _describe_unreadable(pod: Json, container: str, message: str, metrics: Sequence[EvaluationMetric]) -> PodReport:
    if pod_failures.is_truncated(pod, message):
        text = f"of container {container} {gate_results.describe_truncation(pod, message, metrics)}"
        return PodReport(reason=Reason.REPORT_TOO_LARGE, problem=text)
    text = f"container {container} left {message.strip()[:200]!r} as its termination message, which is no JSON object"
    return PodReport(reason=Reason.REPORT_MISSING, problem=text)
