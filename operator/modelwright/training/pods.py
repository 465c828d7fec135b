"""What pods leave behind: the report, the image it is from, or why there is none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from modelwright.core import pods as pod_states

Json = dict[str, Any]

REPORT_BYTES = 4096
"""What the kubelet keeps of a termination message."""
NO_REPORT = "no container left a report (a JSON object) in its termination message"


@dataclass(frozen=True, slots=True)
class Left:
    """What containers that ended well have left. `problem` says why there is no report."""

    report: Json | None = None
    image: str | None = None
    problem: str | None = None


def left_by(pods: Iterable[Json]) -> Left:
    """The report in the newest pod that has one. Only containers with exit code 0 are looked at."""
    problem = None
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True):
        for status in pod.get("status", {}).get("containerStatuses", []):
            ended = status.get("state", {}).get("terminated") or {}
            message = str(ended.get("message", ""))
            if ended.get("exitCode") != 0 or not message.strip():
                continue
            report = pod_states.parse_report(message)
            if report is not None:
                return Left(report, _image(status))
            problem = problem or _unreadable(str(status.get("name", "")), message)
    return Left(problem=problem or NO_REPORT)


def _image(status: Json) -> str | None:
    """The image that ran, with its digest where the node has told one."""
    told = str(status.get("imageID", "")).removeprefix("docker-pullable://")
    return told if "@sha256:" in told else status.get("image") or None


def _unreadable(container: str, message: str) -> str:
    if len(message.encode()) >= REPORT_BYTES:
        return (
            f"container {container} left a report that was cut off at {REPORT_BYTES} bytes, which is all that "
            "Kubernetes keeps: put the larger one beside the artifact"
        )
    return f"container {container} left {message.strip()[:200]!r} as its termination message, which is no JSON object"
