"""Checks of `doctor`: a healthy cluster has no faults, and each seeded misconfiguration is found with its cure."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from modelwright.api.crd.definition import KINDS
from modelwright.cli.doctor import checks
from modelwright.cli.doctor.facts import Facts
from modelwright.cli.doctor.registry import CHECKS, DoctorFinding, Severity, run_checks
from tests.lib import objects
from tests.unit.cli.doctor import cluster
from tests.unit.cli.doctor.cluster import BEFORE, FEATURES, GATEWAYS, HOME, NOW, NS, but, condition, meta, without

Json = dict[str, Any]
FAULT, WARNING = Severity.FAULT, Severity.WARNING


def found(facts: Facts) -> list[tuple[str, DoctorFinding]]:
    return [entry for entry in run_checks(facts, checks.SECTIONS) if entry[1].level is not Severity.OK]


def pruned() -> Facts:
    """CRDs of a release that did not know spec.endpoint.requestTimeout."""
    document = copy.deepcopy(cluster.published())
    model = document["components"]["schemas"]["dev.modelwright.v1alpha1.Model"]
    del model["properties"]["spec"]["properties"]["endpoint"]["properties"]["requestTimeout"]
    return but(schema=[document])


def newer() -> Facts:
    document = copy.deepcopy(cluster.published())
    model = document["components"]["schemas"]["dev.modelwright.v1alpha1.Model"]
    model["properties"]["spec"]["properties"]["tomorrow"] = {"type": "object", "properties": {"more": {}}}
    return but(schema=[document])


def deployed(**status: Any) -> Json:
    found = cluster.operator()
    return found | {"status": status}


def watching(namespaces: str) -> Json:
    found = cluster.operator()
    env = found["spec"]["template"]["spec"]["containers"][0]["env"]
    env.append({"name": "MODELWRIGHT_WATCH_NAMESPACES", "value": namespaces})
    return found


def mounting(secret: str) -> Json:
    found = cluster.operator()
    found["spec"]["template"]["spec"]["volumes"].append({"name": "x", "secret": {"secretName": secret}})
    return found


def binding(name: str, **spec: Any) -> list[Json]:
    others = without("validatingadmissionpolicybindings", name)
    given = {"policyName": name, "validationActions": ["Deny"], **spec}
    return [*others, {"kind": "ValidatingAdmissionPolicyBinding", "metadata": meta(name, None), "spec": given}]


def stalled(obj: Json, reason: str, message: str = "m", type_: str = "Stalled", status: str = "True") -> Json:
    reported = {**obj.get("status", {}), "conditions": [condition(type_, status, reason, message)]}
    return obj | {"status": reported}


def endpoint(**more: Any) -> Json:
    return objects.endpoint(GATEWAYS, hostnames=["digits.example.com"], **more)


def rollout(reason: str, state: str = "Progressing") -> Json:
    verdict = {"step": 0, "metric": "errors", "outcome": "Error", "reason": reason, "message": "no route to host"}
    return {
        "kind": "ModelRollout",
        "metadata": meta("digits-1"),
        "spec": {"modelRef": {"name": "digits"}},
        "status": {"state": state, "step": 0, "verdicts": [verdict]},
    }


def pod(waiting: str, message: str) -> Json:
    reported = {
        "name": "model",
        "image": "example.com/server:1",
        "state": {"waiting": {"reason": waiting, "message": message}},
    }
    labels = {"modelwright.dev/model": "digits", "modelwright.dev/role": "serving"}
    return {
        "kind": "Pod",
        "metadata": meta("digits-r1-x", labels=labels),
        "spec": {"containers": [{"name": "model"}]},
        "status": {"containerStatuses": [reported]},
    }


def event(kind: str, message: str) -> Json:
    return {
        "kind": "Event",
        "metadata": meta("e"),
        "involvedObject": {"kind": kind, "name": "digits-train"},
        "message": message,
        "reason": "FailedCreate",
    }


QUOTA = 'pods "x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=4, limited: pods=4'
SECURITY = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'
KEPT = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

Row = tuple[Callable[[], Facts], str, Severity, str, str, str]
SEEDED: dict[str, Row] = {
    "an old Kubernetes": (
        lambda: but(server=[{"major": "1", "minor": "31+", "gitVersion": "v1.31.2"}]),
        "Kubernetes",
        WARNING,
        "v1.31.2",
        "older than 1.32",
        "upgrade the cluster",
    ),
    "no CRD": (
        lambda: but(resources=[], group=[], schema=[]),
        "CRDs",
        FAULT,
        "modelwright.dev/v1alpha1",
        "no CRD is there",
        "modelwright-crds",
    ),
    "CRDs of another version": (
        lambda: but(resources=[], group=[{"versions": [{"version": "v2"}]}]),
        "CRDs",
        FAULT,
        "modelwright.dev/v1alpha1",
        "the cluster has v2",
        "modelwright-crds",
    ),
    "one CRD is missing": (
        lambda: but(resources=cluster.document(*(kind.__crd__.plural for kind in KINDS[1:]))),
        "CRDs",
        FAULT,
        "models.modelwright.dev",
        "is not there",
        "kubectl apply --server-side -k crds",
    ),
    "a CRD that prunes a field": (
        pruned,
        "CRDs",
        FAULT,
        "models.modelwright.dev",
        "drops spec.endpoint.requestTimeout",
        "modelwright-crds",
    ),
    "a CRD that is newer than the plugin": (
        newer,
        "CRDs",
        WARNING,
        "models.modelwright.dev",
        "does not know spec.tomorrow",
        "install the plugin",
    ),
    "no operator": (
        lambda: but(operator_deployments=[]),
        "operator",
        FAULT,
        "operator",
        "no Deployment of it",
        "install the operator's chart",
    ),
    "an operator whose image can't be pulled": (
        lambda: but(
            operator_deployments=[deployed(replicas=2)],
            operator_pods=[pod("ErrImagePull", "not found") | {"metadata": meta("modelwright-a", HOME)}],
        ),
        "operator",
        FAULT,
        f"Deployment {HOME}/modelwright",
        "can't be pulled: not found",
        "describe pods",
    ),
    "one of two replicas": (
        lambda: but(operator_deployments=[deployed(replicas=2, readyReplicas=1)]),
        "operator",
        WARNING,
        f"{HOME}/modelwright",
        "only 1 of its 2 pods",
        "describe pods",
    ),
    "an operator of another version": (
        lambda: replace(cluster.healthy(), client="0.2.0"),
        "operator",
        WARNING,
        f"{HOME}/modelwright",
        "is version 0.1.0, and this program is 0.2.0",
        "same version",
    ),
    "nobody leads": (
        lambda: but({f"leases/{HOME}": []}),
        "leader",
        FAULT,
        f"Lease {HOME}/modelwright-operator",
        "it has no holder",
        "logs deploy/modelwright",
    ),
    "a leader that does not renew its Lease": (
        lambda: but({f"leases/{HOME}": [cluster.lease(HOME, "modelwright-operator", BEFORE)]}),
        "leader",
        FAULT,
        f"Lease {HOME}/modelwright-operator",
        "has not renewed it",
        "logs deploy/modelwright",
    ),
    "a namespace that is not watched": (
        lambda: but(operator_deployments=[watching("other,more")]),
        "watched",
        FAULT,
        f"Namespace {NS}",
        "watches other,more only",
        "watchNamespaces",
    ),
    "a Model that no operator has seen": (
        lambda: but(models=[cluster.model() | {"status": {}}]),
        "watched",
        FAULT,
        f"Model {NS}/digits",
        "no operator has seen it",
        "see that the operator runs",
    ),
    "an edit that is not taken up": (
        lambda: but(models=[cluster.model() | {"metadata": meta("digits", generation=2)}]),
        "watched",
        WARNING,
        f"Model {NS}/digits",
        "generation 2",
        "see that the operator runs",
    ),
    "an admission policy is missing": (
        lambda: but(validatingadmissionpolicies=without("validatingadmissionpolicies", "modelwright-approval")),
        "admission",
        FAULT,
        "modelwright-approval",
        "is not there",
        "kubectl apply -k manifests/policies",
    ),
    "an admission policy is not bound": (
        lambda: but(
            validatingadmissionpolicybindings=without("validatingadmissionpolicybindings", "modelwright-rollout")
        ),
        "admission",
        FAULT,
        "modelwright-rollout",
        "no ValidatingAdmissionPolicyBinding",
        "kubectl apply -k",
    ),
    "a binding that only audits": (
        lambda: but(validatingadmissionpolicybindings=binding("modelwright-children", validationActions=["Audit"])),
        "admission",
        FAULT,
        "modelwright-children",
        "does not deny",
        "validationActions: [Deny]",
    ),
    "a binding for some namespaces": (
        lambda: but(
            validatingadmissionpolicybindings=binding(
                "modelwright-author", matchResources={"namespaceSelector": {"matchLabels": {"a": "b"}}}
            )
        ),
        "admission",
        WARNING,
        "modelwright-author",
        "matchResources",
        "remove matchResources",
    ),
    "a part of a role": (
        lambda: but(reviews=[{**r, "allowed": "false"} if r["verb"] == "approve" else r for r in cluster.allowed()]),
        "rights",
        WARNING,
        "",
        "a part of modelwright-approve in all namespaces only, without approve models",
        "ask",
    ),
    "no Gateway API": (
        lambda: but(gateway_group=[], gateway_resources=[]),
        "Gateway API",
        FAULT,
        "gateway.networking.k8s.io",
        "is not installed",
        "install the Gateway API's CRDs",
    ),
    "an old Gateway API": (
        lambda: but(gateway_group=[{"versions": [{"version": "v1beta1"}]}], gateway_resources=[]),
        "Gateway API",
        FAULT,
        "gateway.networking.k8s.io",
        "v1beta1 only",
        "install the Gateway API's CRDs",
    ),
    "no GRPCRoutes": (
        lambda: but(
            gateway_resources=cluster.document("httproutes"), models=[cluster.model(endpoint=endpoint(protocol="GRPC"))]
        ),
        "Gateway API",
        FAULT,
        "grpcroutes",
        "not served",
        "install the Gateway API's CRDs",
    ),
    "a gateway that is not there": (
        lambda: but({f"gateways/{GATEWAYS}": []}),
        "gateways",
        FAULT,
        f"Gateway {GATEWAYS}/models",
        "the Gateway is not there",
        "spec.endpoint.parentRefs",
    ),
    "a gateway that is not programmed": (
        lambda: but(
            {
                f"gateways/{GATEWAYS}": [
                    cluster.gateway()
                    | {"status": {"conditions": [condition("Programmed", "False", "Invalid", "port in use")]}}
                ]
            }
        ),
        "gateways",
        FAULT,
        f"Gateway {GATEWAYS}/models",
        "not programmed: Invalid: port in use",
        "controller",
    ),
    "a gateway without an address": (
        lambda: but({f"gateways/{GATEWAYS}": [cluster.gateway() | {"status": {}}]}),
        "gateways",
        FAULT,
        f"Gateway {GATEWAYS}/models",
        "has no address",
        "controller",
    ),
    "a listener for another hostname": (
        lambda: but({f"gateways/{GATEWAYS}": [cluster.gateway(hostname="*.other.com")]}),
        "gateways",
        FAULT,
        f"Model {NS}/digits",
        "web has the hostname *.other.com",
        "spec.endpoint.hostnames",
    ),
    "a listener for its own namespace": (
        lambda: but({f"gateways/{GATEWAYS}": [cluster.gateway(allowedRoutes={})]}),
        "gateways",
        FAULT,
        f"Model {NS}/digits",
        "takes no routes of this namespace",
        "change the listener",
    ),
    "a listener for namespaces with a label": (
        lambda: but(
            {
                f"gateways/{GATEWAYS}": [
                    cluster.gateway(
                        allowedRoutes={
                            "namespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "vision"}}}
                        }
                    )
                ]
            }
        ),
        "gateways",
        FAULT,
        f"Model {NS}/digits",
        "namespaces with other labels only",
        "change the listener",
    ),
    "a sectionName that is not there": (
        lambda: but(
            models=[
                cluster.model(
                    endpoint={
                        **endpoint(),
                        "parentRefs": [{"name": "models", "namespace": GATEWAYS, "sectionName": "https"}],
                    }
                )
            ]
        ),
        "gateways",
        FAULT,
        f"Model {NS}/digits",
        "by sectionName or port",
        "parentRefs (sectionName)",
    ),
    "a shadow on a gateway without copies": (
        lambda: but(
            gatewayclasses=[cluster.gateway_class("HTTPRouteCORS")],
            rolloutpolicies=[
                cluster.policy(strategy={"steps": [{"mirror": {"percent": 100, "hold": "2m"}}, {"weight": 100}]})
            ],
        ),
        "features",
        FAULT,
        f"RolloutPolicy {NS}/canary",
        "HTTPRouteRequestMirror",
        "a gateway that can",
    ),
    "sticky callers on a gateway that is not Traefik": (
        lambda: but(rolloutpolicies=[cluster.policy(strategy={"preset": "Canary", "sticky": True})]),
        "features",
        FAULT,
        f"RolloutPolicy {NS}/canary",
        "spec.strategy.sticky",
        "a gateway that can",
    ),
    "a header match without a gateway": (
        lambda: but(
            models=[cluster.model(endpoint=None)],
            rolloutpolicies=[
                cluster.policy(
                    strategy={
                        "steps": [
                            {"match": {"headers": [{"name": "x-canary", "value": "1"}], "hold": "2m"}},
                            {"weight": 100},
                        ]
                    }
                )
            ],
        ),
        "features",
        FAULT,
        f"RolloutPolicy {NS}/canary",
        "steps.match needs a gateway",
        "change the field",
    ),
    "a time-out that the class does not list": (
        lambda: but(
            gatewayclasses=[cluster.gateway_class("HTTPRouteCORS")],
            models=[cluster.model(endpoint=endpoint(requestTimeout="2m"))],
        ),
        "features",
        FAULT,
        f"Model {NS}/digits",
        "spec.endpoint.requestTimeout",
        "whose class lists the feature",
    ),
    "a class that no controller has accepted": (
        lambda: but(gatewayclasses=[cluster.gateway_class(*FEATURES) | {"status": {}}]),
        "gateway classes",
        FAULT,
        "GatewayClass any",
        "no controller has accepted it",
        "controllerName",
    ),
    "a class that is not there": (
        lambda: but(gatewayclasses=[]),
        "gateway classes",
        FAULT,
        "GatewayClass any",
        "is not there",
        "install the gateway's controller",
    ),
    "a policy that names no connection of the operator's": (
        lambda: but({f"configmaps/{HOME}": [cluster.connections("cloud")]}),
        "connections",
        FAULT,
        f"RolloutPolicy {NS}/canary",
        "default; the operator has cloud",
        "connections",
    ),
    "a metrics server that does not answer": (
        lambda: but(modelrollouts=[rollout("MetricsServerUnreachable")]),
        "measurements",
        FAULT,
        "ModelRollout vision/digits-1, metric errors",
        "no route to host",
        "network policies",
    ),
    "pods that nobody scrapes": (
        lambda: but(modelrollouts=[rollout("NoData")]),
        "measurements",
        WARNING,
        "ModelRollout vision/digits-1",
        "NoData",
        "make Prometheus scrape",
    ),
    "a Secret that is not there": (
        lambda: but({f"secrets/{NS}": []}),
        "Secrets",
        FAULT,
        f"Secret {NS}/store",
        f"ModelVersion {NS}/v1 names it",
        "create secret generic store",
    ),
    "a Secret without its second key": (
        lambda: but({f"secrets/{NS}": [cluster.secret("AWS_ACCESS_KEY_ID")]}),
        "Secrets",
        FAULT,
        f"Secret {NS}/store",
        "without AWS_SECRET_ACCESS_KEY",
        "patch secret store",
    ),
    "a Secret with keys of another kind": (
        lambda: but({f"secrets/{NS}": [cluster.secret("accesskey", "secretkey")]}),
        "Secrets",
        FAULT,
        f"Secret {NS}/store",
        "has accesskey, secretkey, and none that s3:// reads",
        "rename",
    ),
    "a ServiceAccount that is not there": (
        lambda: but({f"serviceaccounts/{NS}": []}),
        "ServiceAccounts",
        FAULT,
        f"ServiceAccount {NS}/reader",
        "names it",
        "create serviceaccount reader",
    ),
    "a cache whose claim is not there": (
        lambda: but(models=[cluster.model(serving={"cache": {"persistentVolumeClaim": "models"}})]),
        "claims",
        FAULT,
        f"PersistentVolumeClaim {NS}/models",
        f"Model {NS}/digits names it",
        "make the claim",
    ),
    "a Secret of a connection that is not there": (
        lambda: but(operator_deployments=[mounting("prometheus")]),
        "operator's Secrets",
        FAULT,
        f"Secret {HOME}/prometheus",
        "Deployment",
        "connectionSecrets",
    ),
    "no runtime for the format": (
        lambda: but(modelversions=[cluster.version(format={"name": "onnx"})]),
        "runtimes",
        FAULT,
        f"Model {NS}/digits",
        "no runtime serves format onnx",
        "install a runtime",
    ),
    "a quota that refuses helper pods": (
        lambda: but({f"dry-run/{NS}": [cluster.tried(refused=QUOTA)]}),
        "helper pods",
        FAULT,
        f"Namespace {NS}",
        "exceeded quota",
        "helperPods.resources",
    ),
    "a policy that refuses helper pods": (
        lambda: but({f"dry-run/{NS}": [cluster.tried(refused=SECURITY)]}),
        "helper pods",
        FAULT,
        f"Namespace {NS}",
        "violates PodSecurity",
        "Pod Security level",
    ),
    "a sidecar in every pod": (
        lambda: but(
            {f"dry-run/{NS}": [cluster.tried(spec={"containers": [{"name": "fetch"}, {"name": "istio-proxy"}]})]}
        ),
        "helper pods",
        WARNING,
        f"Namespace {NS}",
        "adds istio-proxy",
        "helperPods.labels",
    ),
    "a quota that is used up": (
        lambda: but(
            resourcequotas=[
                {
                    "kind": "ResourceQuota",
                    "metadata": meta("small"),
                    "status": {
                        "hard": {"pods": "4", "requests.cpu": "2"},
                        "used": {"pods": "4", "requests.cpu": "1500m"},
                    },
                }
            ]
        ),
        "quotas",
        WARNING,
        f"ResourceQuota {NS}/small",
        "is used up: pods;",
        "raise spec.hard",
    ),
    "serving pods that are refused": (
        lambda: but(
            deployments=[
                {
                    "kind": "Deployment",
                    "metadata": meta("digits-r1"),
                    "status": {"conditions": [condition("ReplicaFailure", "True", "FailedCreate", SECURITY)]},
                }
            ]
        ),
        "refused pods",
        FAULT,
        f"Deployment {NS}/digits-r1",
        "violates PodSecurity",
        "Pod Security level",
    ),
    "a training whose pods are refused": (
        lambda: but(events=[event("Job", QUOTA)]),
        "refused pods",
        WARNING,
        f"Job {NS}/digits-train",
        "exceeded quota",
        "helperPods.resources",
    ),
    "an image that can't be pulled": (
        lambda: but(pods=[pod("ImagePullBackOff", "unauthorized")]),
        "pods",
        FAULT,
        f"Pod {NS}/digits-r1-x",
        "can't be pulled: unauthorized",
        "imagePullSecret",
    ),
    "a Model that is Stalled": (
        lambda: but(models=[stalled(cluster.model(), "RouteConflict", "path / is taken")]),
        "Models",
        FAULT,
        f"Model {NS}/digits",
        "RouteConflict: path / is taken",
        "hostname or pathPrefix",
    ),
    "a Model whose version was refused by evidence": (
        lambda: but(models=[stalled(cluster.model(), "AnalysisFailed", "errors")]),
        "Models",
        WARNING,
        f"Model {NS}/digits",
        "AnalysisFailed",
        "kubectl modelwright why digits -n vision",
    ),
    "a Model that waits for pods": (
        lambda: but(models=[stalled(cluster.model(), "WaitingForPods", type_="Reconciling")]),
        "Models",
        WARNING,
        f"Model {NS}/digits",
        "WaitingForPods",
        "role=serving",
    ),
    "a version whose artifact is not there": (
        lambda: but(modelversions=[stalled(cluster.version(), "ArtifactNotFound", "no such key")]),
        "versions",
        FAULT,
        f"ModelVersion {NS}/v1",
        "no such key",
        "spec.artifact.uri",
    ),
    "a policy that is never decided": (
        lambda: but(rolloutpolicies=[stalled(cluster.policy(), "NeverDecidable", "1h", "Decidable", "False")]),
        "policies",
        WARNING,
        f"RolloutPolicy {NS}/canary",
        "NeverDecidable",
        "kubectl modelwright lint",
    ),
    "a training that failed": (
        lambda: but(
            trainingruns=[
                {
                    "kind": "TrainingRun",
                    "metadata": meta("nightly"),
                    "spec": {"policyRef": {"name": "digits"}},
                    "status": {"state": "Failed", "reason": "DataRejected", "message": "nulls"},
                }
            ]
        ),
        "trainings",
        WARNING,
        f"TrainingRun {NS}/nightly",
        "DataRejected: nulls",
        "spec.run.dataCheck",
    ),
}
"""By what is wrong: the facts, and the check, the level, the object, the words and the cure that are expected."""


def test_a_healthy_cluster_has_nothing_but_ok() -> None:
    assert found(cluster.healthy()) == []


def test_every_check_says_something_of_a_healthy_cluster() -> None:
    assert {name for name, _ in run_checks(cluster.healthy(), checks.SECTIONS)} == CHECKS.keys()


@pytest.mark.parametrize("row", SEEDED.values(), ids=SEEDED)
def test_what_is_wrong_is_found_with_its_cure(row: Row) -> None:
    facts, check, level, about, text, cure = row
    everything = found(facts())
    reported = [finding for name, finding in everything if name == check]
    wanted = [one for one in reported if one.level is level and about in one.about and text in one.text]
    assert [one for one in wanted if cure in one.cure], reported
    assert all(one.cure for _, one in everything)


def test_every_check_has_a_seeded_fault() -> None:
    assert {row[1] for row in SEEDED.values()} == CHECKS.keys()


@pytest.mark.parametrize("name", sorted(cluster.healthy().objects))
def test_what_may_not_be_seen_is_no_fault(name: str) -> None:
    """And at least one check says that it could not look, where it needs what was hidden."""
    facts = cluster.healthy()
    kept = {key: objects for key, objects in facts.objects.items() if key != name}
    reported = found(replace(facts, objects=kept, not_permitted={name: f'User "vic" cannot list {name}'}))
    assert [one for _, one in reported if one.level in (FAULT, WARNING)] == []
    if name not in UNNEEDED:
        assert any(one.level is Severity.HIDDEN and f"cannot list {name}" in one.text for _, one in reported)


UNNEEDED = {"namespaces", "leases", "operator-pods", "schema", "gateway-group", "group"}
"""What makes an answer better, and is not needed for one in a healthy cluster."""


def test_what_could_not_be_read_is_a_warning() -> None:
    facts = replace(cluster.healthy(), failed_reads={"models": "kubectl did not end within 60 s"})
    reported = [one for name, one in found(facts) if name == "Models"]
    assert [(one.level, one.text) for one in reported] == [
        (WARNING, "could not be read: models: kubectl did not end within 60 s")
    ]


def test_a_version_that_nobody_uses_may_lose_its_secret() -> None:
    old = cluster.version(credentialsSecretRef={"name": "gone"}) | {"metadata": meta("v0")}
    assert found(but(modelversions=[cluster.version(), old])) == []


def test_a_model_with_a_runtime_needs_no_right_to_list_runtimes() -> None:
    chosen = cluster.model()
    chosen["status"]["runtime"] = {"kind": "ClusterModelRuntime", "name": "plain"}
    facts = replace(but(models=[chosen]), not_permitted={"clustermodelruntimes": "no"})
    assert found(facts) == []


def test_a_wait_of_less_than_five_minutes_is_no_finding() -> None:
    waiting = cluster.model()
    since = (NOW - timedelta(minutes=4)).isoformat()
    waiting["status"]["conditions"] = [condition("Reconciling", "True", "WaitingForPods", since=since)]
    assert found(but(models=[waiting])) == []


def test_the_clock_is_the_clusters() -> None:
    """A computer whose clock is an hour ahead finds no leader dead."""
    assert found(replace(cluster.healthy(), now=NOW + timedelta(hours=1))) == []


def test_a_rollout_that_has_ended_measures_nothing() -> None:
    assert found(but(modelrollouts=[rollout("MetricsServerUnreachable", "RolledBack")])) == []


def test_the_same_finding_is_reported_once() -> None:
    twice = [cluster.tried(refused=QUOTA), copy.deepcopy(cluster.tried(refused=QUOTA))]
    assert len(found(but({f"dry-run/{NS}": twice}))) == 1
