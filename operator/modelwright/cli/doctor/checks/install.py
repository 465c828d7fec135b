"""Checks what an administrator installs: CRDs, operator, admission policies."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Set
from datetime import datetime, timedelta
from typing import Any, Final

from modelwright.api.crd.definition import KINDS, build_schema
from modelwright.api.names import API_VERSION, GROUP, OPERATOR_LEASE
from modelwright.cli.doctor.facts import Facts, Json, NotPermitted, ReadFailed, describe_object
from modelwright.cli.doctor.registry import (
    DoctorFinding,
    cluster_check,
    fault_finding,
    namespace_check,
    ok_finding,
    warning_finding,
)
from modelwright.cli.doctor.trial_pods import container_environment
from modelwright.core.pod_failures import diagnose_pods

MINIMUM_KUBERNETES: Final = (1, 32)
"""The oldest supported Kubernetes: kubeVersion of the charts."""
ADMISSION_POLICIES: Final = (
    "modelwright-approval",
    "modelwright-author",
    "modelwright-children",
    "modelwright-makes",
    "modelwright-names",
    "modelwright-rollout",
    "modelwright-training-run",
)
LEASE_TIMEOUT = timedelta(seconds=60)
"""A leader renews its Lease every few seconds; an older Lease means a dead leader or a wrong clock."""
INSTALL_CRDS = "install the chart modelwright-crds of this version, or kubectl apply --server-side -k crds"
INSTALL_OPERATOR = "install the operator's chart: docs/how-to/install.md"
INSTALL_POLICIES = "install the chart modelwright-crds, or kubectl apply -k manifests/policies"


@cluster_check("Kubernetes", "the server's version was read")
def check_server(facts: Facts) -> Iterator[DoctorFinding]:
    """Compare the server's minor version with the supported ones."""
    reported = facts.find_one("server") or {}
    numbers = tuple(int(match[0]) for part in ("major", "minor") if (match := re.match(r"\d+", reported.get(part, ""))))
    name = str(reported.get("gitVersion", "its version is unknown"))
    if numbers and numbers < MINIMUM_KUBERNETES:
        yield warning_finding(
            name,
            f"is older than {MINIMUM_KUBERNETES[0]}.{MINIMUM_KUBERNETES[1]}, the oldest that is supported",
            "upgrade the cluster",
        )
    else:
        yield ok_finding(name)


@cluster_check("CRDs", f"all kinds of {API_VERSION} are served, with all fields that this program knows")
def check_crds(facts: Facts) -> Iterator[DoctorFinding]:
    """Check for missing kinds, and for fields that an older CRD would prune."""
    served = {entry["name"] for entry in (facts.find_one("resources") or {}).get("resources", ())}
    if not served:
        versions = [entry["version"] for entry in (facts.find_one("group") or {}).get("versions", ())]
        text = f"is not served; the cluster has {', '.join(versions)}" if versions else "is not served: no CRD is there"
        yield fault_finding(API_VERSION, text, INSTALL_CRDS)
        return
    document = facts.find_one("schema") or {}
    published = {_schema_kind(node): node for node in document.get("components", {}).get("schemas", {}).values()}
    for kind in KINDS:
        name = f"CustomResourceDefinition {kind.__crd__.plural}.{GROUP}"
        if kind.__crd__.plural not in served:
            yield fault_finding(name, "is not there", INSTALL_CRDS)
        elif kind.__name__ in published:
            known, there = _known_fields(kind), set(_field_paths(published[kind.__name__]))
            if lost := _topmost_paths(known - there):
                yield fault_finding(
                    name, f"is older than this program and drops {_shorten_list(lost)} when written", INSTALL_CRDS
                )
            if more := _topmost_paths(there - known):
                text = f"is newer than this program, which does not know {_shorten_list(more)}"
                yield warning_finding(name, text, "install the plugin of the same version")


@functools.cache
def _known_fields(kind: Any) -> frozenset[str]:
    """Return the fields of a kind that this program knows."""
    return frozenset(_field_paths(build_schema(kind)))


def _schema_kind(node: Mapping[str, Any]) -> str | None:
    reported = node.get("x-kubernetes-group-version-kind") or ()
    return next((str(entry["kind"]) for entry in reported if entry.get("group") == GROUP), None)


def _field_paths(node: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield the paths of all fields of spec and status."""
    for name, child in (node.get("properties") or {}).items():
        if path or name in ("spec", "status"):
            here = f"{path}.{name}".removeprefix(".")
            yield here
            yield from _field_paths(child, here)
    for member in ("items", "additionalProperties"):
        if isinstance(node.get(member), dict):
            yield from _field_paths(node[member], f"{path}[]")


def _topmost_paths(paths: Set[str]) -> list[str]:
    """Return the paths that no other path contains."""
    return sorted(path for path in paths if path.rpartition(".")[0].removesuffix("[]") not in paths)


def _shorten_list(paths: list[str]) -> str:
    return ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


@cluster_check("operator", "it is there and ready")
def check_operator(facts: Facts) -> Iterator[DoctorFinding]:
    """Check that Deployments of the operator are ready, and of this program's version."""
    deployments = facts.list_all("operator-deployments")
    if not deployments:
        yield fault_finding("operator", "no Deployment of it is in the cluster", INSTALL_OPERATOR)
    for deployment in deployments:
        name, status = describe_object(deployment), deployment.get("status") or {}
        wanted, ready = deployment["spec"].get("replicas", 1), status.get("readyReplicas", 0)
        cause = _pod_failure(facts, deployment["metadata"]["namespace"]) if ready < wanted else ""
        cure = f"kubectl -n {deployment['metadata']['namespace']} describe pods, and their logs"
        if not wanted:
            yield fault_finding(name, "spec.replicas is 0, so nothing is decided", "set replicas of the chart to 2")
        elif not ready:
            yield fault_finding(name, f"none of its {wanted} pods is ready{cause}", cure)
        elif ready < wanted:
            yield warning_finding(name, f"only {ready} of its {wanted} pods are ready{cause}", cure)
        version = _deployment_version(deployment)
        if facts.client and version and version != facts.client:
            text = f"is version {version}, and this program is {facts.client}"
            yield warning_finding(name, text, "install both in the same version")
        elif ready >= wanted > 0:
            yield ok_finding(f"version {version or 'unknown'}, {ready} of {wanted} pods ready", name)


def _pod_failure(facts: Facts, namespace: str) -> str:
    try:
        failure = diagnose_pods(facts.in_namespace("operator-pods", namespace))
    except (NotPermitted, ReadFailed):
        return ""
    return f": {failure.message}" if failure else ""


def _deployment_version(deployment: Json) -> str:
    labels = deployment["metadata"].get("labels") or {}
    image = deployment["spec"]["template"]["spec"]["containers"][0].get("image", "")
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    return str(labels.get("app.kubernetes.io/version") or tag)


@cluster_check("leader", "one replica of the operator leads")
def check_leader(facts: Facts) -> Iterator[DoctorFinding]:
    """Check that the Lease of each installation is held and renewed."""
    for deployment in facts.list_all("operator-deployments"):
        home = deployment["metadata"]["namespace"]
        lease_name = container_environment(deployment).get("MODELWRIGHT_LEASE_NAME", OPERATOR_LEASE)
        lease = facts.by_name("leases", home).get(lease_name) or {}
        name, spec = f"Lease {home}/{lease_name}", lease.get("spec") or {}
        cure = f"kubectl -n {home} logs deploy/{deployment['metadata']['name']}"
        if not spec.get("holderIdentity"):
            yield fault_finding(name, "it has no holder, so no replica of the operator acts", cure)
            continue
        renewed = _parse_time(spec.get("renewTime"))
        if renewed is None or _cluster_time(facts) - renewed > LEASE_TIMEOUT:
            yield fault_finding(name, f"{spec['holderIdentity']} holds it and has not renewed it since {renewed}", cure)
        else:
            yield ok_finding(f"{spec['holderIdentity']} leads", name)


def _cluster_time(facts: Facts) -> datetime:
    """Return the cluster's time by its newest Lease, because this computer's clock may be wrong."""
    reported = [_parse_time((lease.get("spec") or {}).get("renewTime")) for lease in facts.objects.get("leases", ())]
    return max((time for time in reported if time is not None), default=facts.now)


def _parse_time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


@namespace_check("watched", "an operator has taken up every Model")
def check_watched(facts: Facts, namespace: str) -> Iterator[DoctorFinding]:
    """Check for namespaces that no installation watches, and objects that no operator has observed."""
    installs = facts.objects.get("operator-deployments", ())
    watches = [container_environment(deployment).get("MODELWRIGHT_WATCH_NAMESPACES", "") for deployment in installs]
    if installs and all(watches) and not any(namespace in text.split(",") for text in watches):
        text = f"has Models, and the operator watches {', '.join(watches)} only"
        yield fault_finding(f"Namespace {namespace}", text, "add it to watchNamespaces of the operator's chart")
        return
    for model in facts.in_namespace("models", namespace):
        metadata, status = model["metadata"], model.get("status") or {}
        created = _parse_time(metadata.get("creationTimestamp"))
        if "observedGeneration" not in status:
            if created is None or _cluster_time(facts) - created > LEASE_TIMEOUT:
                text = "no operator has seen it"
                yield fault_finding(
                    describe_object(model), text, "see that the operator runs, and watches this namespace or its shard"
                )
        elif status["observedGeneration"] != metadata.get("generation"):
            text = f"its latest edit (generation {metadata.get('generation')}) is not taken up yet"
            yield warning_finding(
                describe_object(model), text, "where it stays so for a minute, see that the operator runs"
            )


@cluster_check("admission", "all admission policies are there and bound")
def check_admission(facts: Facts) -> Iterator[DoctorFinding]:
    """Check policies and bindings, without which commands and approvals have no effect."""
    there = {obj["metadata"]["name"] for obj in facts.list_all("validatingadmissionpolicies")}
    bindings = facts.list_all("validatingadmissionpolicybindings")
    for name in ADMISSION_POLICIES:
        about = f"ValidatingAdmissionPolicy {name}"
        bound = [obj["spec"] for obj in bindings if obj["spec"].get("policyName") == name]
        denying = [spec for spec in bound if "Deny" in (spec.get("validationActions") or ())]
        if name not in there:
            yield fault_finding(
                about, "is not there, so commands, approvals and reports of Jobs don't count", INSTALL_POLICIES
            )
        elif not bound:
            yield fault_finding(
                about, "no ValidatingAdmissionPolicyBinding binds it, so it has no effect", INSTALL_POLICIES
            )
        elif not denying:
            yield fault_finding(about, "its binding does not deny (validationActions)", "set validationActions: [Deny]")
        elif all(_is_limited(spec.get("matchResources") or {}) for spec in denying):
            text = "its binding holds in some namespaces or for some objects only (matchResources)"
            yield warning_finding(about, text, "remove matchResources, or see that no Model is outside of it")


def _is_limited(match: Mapping[str, Any]) -> bool:
    return any(match.get(member) for member in ("namespaceSelector", "objectSelector", "resourceRules"))
