"""Checks that pods can be created, pulled and started: quotas, Pod Security, sidecars, images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelwright.api.reasons import Reason
from modelwright.api.remedies import REMEDIES
from modelwright.cli.doctor.facts import Facts, Json, describe_object
from modelwright.cli.doctor.registry import DoctorFinding, fault_finding, namespace_check, warning_finding
from modelwright.core.diff import parse_quantity
from modelwright.core.pod_failures import (
    HELPER_RESOURCES_HINT,
    PodFailure,
    diagnose_pods,
    explain_quota_refusal,
    find_creation_refusal,
)


@namespace_check("helper pods", "admission lets the pods pass that find out digests, as they are (a dry run)")
def check_helper_pods(facts: Facts, namespace: str) -> Iterator[DoctorFinding]:
    """Check pods of a dry run: refused by a quota, a Pod Security level or a policy, or changed."""
    about = f"Namespace {namespace}"
    for pod in facts.list_all(f"dry-run/{namespace}"):
        if "refused" in pod:
            message = pod["refused"].splitlines()[0]
            quota = explain_quota_refusal(message, HELPER_RESOURCES_HINT)
            reason = Reason.QUOTA_EXCEEDED if quota else Reason.PODS_FORBIDDEN
            yield fault_finding(about, f"refuses pods that find out digests: {quota or message}", REMEDIES[reason])
            continue
        added = _container_names(pod) - _container_names(pod["given"])
        if added:
            text = f"admission adds {', '.join(sorted(added))} to pods: they take more, and may start without a network"
            cure = 'opt out by helperPods.labels of the chart, such as {sidecar.istio.io/inject: "false"}'
            yield warning_finding(about, text, cure)


def _container_names(pod: Json) -> set[str]:
    return {entry["name"] for kind in ("containers", "initContainers") for entry in pod["spec"].get(kind) or ()}


@namespace_check("quotas", "no ResourceQuota is used up")
def check_quotas(facts: Facts, namespace: str) -> Iterator[DoctorFinding]:
    """Check for exhausted quotas, which leave no pods for the next revision or training."""
    for quota in facts.in_namespace("resourcequotas", namespace):
        status = quota.get("status") or {}
        full = [name for name, hard in (status.get("hard") or {}).items() if _is_used_up(status, name, hard)]
        if full:
            text = f"is used up: {', '.join(sorted(full))}; a candidate or a training gets no pods"
            yield warning_finding(
                describe_object(quota), text, "raise spec.hard of the quota, or remove what is not needed"
            )


def _is_used_up(status: Json, name: str, hard: Any) -> bool:
    used, limit = parse_quantity((status.get("used") or {}).get(name, "0")), parse_quantity(hard)
    return used is not None and limit is not None and used >= limit > 0


@namespace_check("refused pods", "no pods of Models are refused")
def check_refused_pods(facts: Facts, namespace: str) -> Iterator[DoctorFinding]:
    """Check Deployments whose pods are refused, and Jobs by their Events."""
    for deployment in facts.in_namespace("deployments", namespace):
        failure = find_creation_refusal(deployment)
        if failure is not None:
            yield _failure_finding(describe_object(deployment), failure)
    for event in facts.in_namespace("events", namespace):
        on = event.get("involvedObject") or event.get("regarding") or {}
        if on.get("kind") in ("Job", "CronJob"):
            message = str(event.get("message") or event.get("note"))
            quota = explain_quota_refusal(message, HELPER_RESOURCES_HINT)
            reason = Reason.QUOTA_EXCEEDED if quota else Reason.PODS_FORBIDDEN
            about = f"{on['kind']} {namespace}/{on.get('name')}"
            yield warning_finding(about, f"had pods refused: {quota or message}", REMEDIES[reason])


@namespace_check("pods", "all pods of Models start")
def check_failing_pods(facts: Facts, namespace: str) -> Iterator[DoctorFinding]:
    """Check failures in the status of pods: images that can't be pulled, missing Secrets, models that don't load."""
    for pod in facts.in_namespace("pods", namespace):
        failure = diagnose_pods([pod])
        if failure is not None:
            yield _failure_finding(describe_object(pod), failure)


def _failure_finding(about: str, failure: PodFailure) -> DoctorFinding:
    return fault_finding(about, f"{failure.reason}: {failure.message}", REMEDIES[Reason(failure.reason)])
