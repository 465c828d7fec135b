"""Diagnosis of a failing revision from its pods and its Deployment.

Which of them count against a candidate: `rollout.rows.rollback_causes.CANDIDATE_FAULTS`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from modelwright import untrusted_json
from modelwright.api.reasons import FETCH_REASONS, Reason

_IMAGE_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
"""The kubelet's image reasons: pkg/kubelet/images/types.go of Kubernetes 1.34."""
_FETCH_CONTAINER = "fetch"
_FORBIDDEN_MARK = " is forbidden: "
_LIMIT_RANGE_PATTERN = re.compile(r"(maximum|minimum) \S+ usage per |max limit to request ratio per ")
"""Matches the refusals of the admission plug-in LimitRanger."""
SERVING_RESOURCES_HINT = (
    "spec.serving.resources has those of the model, and spec.serving.podTemplate those of other containers"
)
HELPER_RESOURCES_HINT = (
    "spec.helperPods.resources of the Model, or helperPods.resources of the chart, sets those of Modelwright's "
    "containers; those of a template are in it"
)
_CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})

_MESSAGE_BYTES, _MESSAGES_BYTES = 4096, 12 * 1024
_REPORT = untrusted_json.JsonLimits(64 << 10)


@dataclass(frozen=True, slots=True)
class PodFailure:
    """The cause for which pods don't become ready, as status.failure shows it."""

    reason: str
    message: str
    pod: str | None = None
    exit_code: int | None = None


def sort_newest_first(pods: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Sort pods by creation, the newest first."""
    return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)


def diagnose_pods(pods: Iterable[Mapping[str, Any]]) -> PodFailure | None:
    """Return the failure of the newest failing pod of `pods` (core/v1), or None while all may still become ready.

    The newest pod comes first: the cause that an older one shows may have been fixed since.
    """
    for pod in sort_newest_first(pods):
        if pod["metadata"].get("deletionTimestamp"):
            continue
        failure = _pod_failure(pod)
        if failure is not None:
            return failure
    return None


def explain_quota_refusal(refusal: str, sizes: str) -> str | None:
    """Explain an API server's refusal by a ResourceQuota or LimitRange; None for any other refusal.

    `sizes` says where the resources of the containers are set.
    """
    if "failed quota: " in refusal:
        return f"the namespace's ResourceQuota requires resources that containers don't set: {refusal}; {sizes}"
    if "exceeded quota: " in refusal:
        return (
            f"the namespace's ResourceQuota has no room: {refusal}; free some of it, raise it, or ask for less: {sizes}"
        )
    if _LIMIT_RANGE_PATTERN.search(refusal):
        return f"the namespace's LimitRange refuses the resources of a container: {refusal}; {sizes}"
    return None


def find_creation_refusal(deployment: Mapping[str, Any], sizes: str = SERVING_RESOURCES_HINT) -> PodFailure | None:
    """Find the refusal of a Deployment's pods (Pod Security, quota, a missing ServiceAccount), if there is one.

    `sizes` says where the resources of its containers are set.
    """
    for condition in deployment.get("status", {}).get("conditions", []):
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            # Each attempt names another pod: without the name, the message of a lasting refusal stays the same.
            message = str(condition.get("message", ""))
            message = message.partition(_FORBIDDEN_MARK)[2] or message
            quota = explain_quota_refusal(message, sizes)
            if quota is not None:
                return PodFailure(Reason.QUOTA_EXCEEDED, f"pods can't be created: {quota}")
            return PodFailure(Reason.PODS_FORBIDDEN, f"pods can't be created: {message}")
    return None


def read_fetch_failure(status: Mapping[str, Any] | None) -> tuple[str, str] | None:
    """Read the reason and message that the fetch program left in a container status, from this run or the one before.

    None for any other message, such as a model server's own.
    """
    for state in (status or {}).get("state", {}), (status or {}).get("lastState", {}):
        terminated = state.get("terminated")
        if not terminated or terminated.get("exitCode") == 0:
            continue
        report = parse_termination_report(terminated.get("message", ""))
        reason = report.get("reason") if report else None
        if report and isinstance(reason, str) and reason in FETCH_REASONS:
            return reason, str(report.get("message", ""))
    return None


def parse_termination_report(message: str) -> dict[str, Any] | None:
    """Parse the JSON object that one of our containers wrote as its termination message; None for anything else."""
    try:
        report = untrusted_json.parse_json(message, _REPORT)
    except untrusted_json.DocumentError:
        return None
    return report if isinstance(report, dict) else None


def termination_message_limit(pod: Mapping[str, Any]) -> int:
    """Return the bytes that the kubelet keeps of a termination message: 4,096, and 12 KiB for all containers of a pod.

    See https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/.
    """
    status = pod.get("status", {})
    names = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
    containers = sum(len(status.get(name) or []) for name in names)
    return min(_MESSAGE_BYTES, _MESSAGES_BYTES // max(containers, 1))


def is_truncated(pod: Mapping[str, Any], message: str) -> bool:
    """Return whether a termination message that is no JSON object has the kubelet's full length: a truncated report.

    The kubelet keeps the end of a file that is too long for any container, and the start of one that is too long for
    this pod. A character of several bytes may be lost where the text is cut.
    """
    return len(message.encode()) > termination_message_limit(pod) - 4


def _pod_failure(pod: Mapping[str, Any]) -> PodFailure | None:
    name = pod["metadata"]["name"]
    status = pod.get("status", {})
    for condition in status.get("conditions", []):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return PodFailure(Reason.UNSCHEDULABLE, f"pod {name} fits no node: {condition.get('message', '')}", name)
    statuses = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    for container in statuses:
        failure = _container_failure(name, container)
        if failure is not None and failure.reason == Reason.MODEL_LOAD_FAILED:
            return replace(failure, message=f"{failure.message}{_fetch_hint(status)}")
        if failure is not None:
            return failure
    return None


def _fetch_hint(status: Mapping[str, Any]) -> str:
    """Return the fetch program's hint on the files, which may explain why no model is found in them."""
    for container in status.get("initContainerStatuses", []):
        done = container.get("state", {}).get("terminated") or {}
        if container.get("name") == _FETCH_CONTAINER and done.get("exitCode") == 0:
            hint = (parse_termination_report(done.get("message", "")) or {}).get("hint")
            return f". {hint[:500]}" if isinstance(hint, str) and hint else ""
    return ""


def _container_failure(pod: str, container: Mapping[str, Any]) -> PodFailure | None:
    waiting = container.get("state", {}).get("waiting", {})
    if waiting.get("reason") in _IMAGE_REASONS:
        text = f"image {container.get('image')} can't be pulled: {waiting.get('message', waiting['reason'])}"
        return PodFailure(Reason.IMAGE_PULL_FAILED, text, pod)
    if waiting.get("reason") in _CONFIG_REASONS:
        text = f"container {container['name']} can't be started: {waiting.get('message', waiting['reason'])}"
        return PodFailure(Reason.CONTAINER_CONFIG_ERROR, text, pod)
    if container.get("ready"):
        return None
    report = read_fetch_failure(container)
    if report is not None:
        return PodFailure(report[0], report[1], pod)
    for state in container.get("state", {}), container.get("lastState", {}):
        terminated = state.get("terminated")
        if not terminated or (terminated.get("exitCode") == 0 and terminated.get("reason") != "OOMKilled"):
            continue
        code = terminated.get("exitCode")
        if terminated.get("reason") == "OOMKilled":
            text = f"container {container['name']} needed more memory than resources.limits.memory and was killed"
            return PodFailure(Reason.CONTAINER_OOM_KILLED, text, pod, code)
        last = _last_line(terminated.get("message", ""))
        text = f"container {container['name']} ended with exit code {code}" + (f": {last}" if last else "")
        return PodFailure(Reason.MODEL_LOAD_FAILED, text, pod, code)
    return None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else ""


def has_left_report(pod: Mapping[str, Any]) -> bool:
    """Return whether a container of the pod succeeded and left a termination message."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    ended = ((entry.get("state") or {}).get("terminated") or {} for entry in statuses)
    return any(one.get("exitCode") == 0 and str(one.get("message", "")).strip() for one in ended)
