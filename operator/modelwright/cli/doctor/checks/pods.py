"""Whether pods can be made, pulled and started: quotas, Pod Security, sidecars, images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelwright.api.cures import CURES
from modelwright.api.reasons import Reason
from modelwright.cli.doctor.facts import Facts, Json, place
from modelwright.cli.doctor.registry import Finding, each_namespace, fault, warning
from modelwright.core.drift import quantity
from modelwright.core.pods import SIZES_OF_HELPERS, Failure, diagnose, forbidden, over_quota


@each_namespace("helper pods", "admission lets the pods pass that find out digests, as they are (a dry run)")
def helper_pods(facts: Facts, namespace: str) -> Iterator[Finding]:
    """Pods that were tried as a dry run: refused by a quota, a Pod Security level or a policy, or changed."""
    about = f"Namespace {namespace}"
    for tried in facts.all(f"dry-run/{namespace}"):
        if "refused" in tried:
            said = tried["refused"].splitlines()[0]
            quota = over_quota(said, SIZES_OF_HELPERS)
            reason = Reason.QUOTA_EXCEEDED if quota else Reason.PODS_FORBIDDEN
            yield fault(about, f"refuses pods that find out digests: {quota or said}", CURES[reason])
            continue
        added = _containers(tried) - _containers(tried["given"])
        if added:
            text = f"admission adds {', '.join(sorted(added))} to pods: they take more, and may start without a network"
            cure = 'opt out by helperPods.labels of the chart, such as {sidecar.istio.io/inject: "false"}'
            yield warning(about, text, cure)


def _containers(pod: Json) -> set[str]:
    return {entry["name"] for kind in ("containers", "initContainers") for entry in pod["spec"].get(kind) or ()}


@each_namespace("quotas", "no ResourceQuota is used up")
def quotas(facts: Facts, namespace: str) -> Iterator[Finding]:
    """Quotas without room: the next revision or training gets no pods."""
    for quota in facts.within("resourcequotas", namespace):
        status = quota.get("status") or {}
        full = [name for name, hard in (status.get("hard") or {}).items() if _full(status, name, hard)]
        if full:
            text = f"is used up: {', '.join(sorted(full))}; a candidate or a training gets no pods"
            yield warning(place(quota), text, "raise spec.hard of the quota, or remove what is not needed")


def _full(status: Json, name: str, hard: Any) -> bool:
    used, limit = quantity((status.get("used") or {}).get(name, "0")), quantity(hard)
    return used is not None and limit is not None and used >= limit > 0


@each_namespace("refused pods", "no pods of Models are refused")
def refused(facts: Facts, namespace: str) -> Iterator[Finding]:
    """Deployments whose pods are refused, and Jobs, by their Events."""
    for deployment in facts.within("deployments", namespace):
        failure = forbidden(deployment)
        if failure is not None:
            yield _fault(place(deployment), failure)
    for event in facts.within("events", namespace):
        on = event.get("involvedObject") or event.get("regarding") or {}
        if on.get("kind") in ("Job", "CronJob"):
            said = str(event.get("message") or event.get("note"))
            quota = over_quota(said, SIZES_OF_HELPERS)
            reason = Reason.QUOTA_EXCEEDED if quota else Reason.PODS_FORBIDDEN
            about = f"{on['kind']} {namespace}/{on.get('name')}"
            yield warning(about, f"had pods refused: {quota or said}", CURES[reason])


@each_namespace("pods", "all pods of Models start")
def failing(facts: Facts, namespace: str) -> Iterator[Finding]:
    """What pods say of themselves: images that can't be pulled, Secrets that are missing, models that don't load."""
    for pod in facts.within("pods", namespace):
        failure = diagnose([pod])
        if failure is not None:
            yield _fault(place(pod), failure)


def _fault(about: str, failure: Failure) -> Finding:
    return fault(about, f"{failure.reason}: {failure.message}", CURES[Reason(failure.reason)])
