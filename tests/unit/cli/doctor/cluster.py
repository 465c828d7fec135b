"""A cluster in which all is well, as `doctor` reads it: the shipped manifests, with their controllers' statuses."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from modelwright.api.crd.definition import KINDS, build_schema
from modelwright.cli.doctor.facts import Facts
from modelwright.cli.doctor.roles import build_reviews
from tests.lib import objects

Json = dict[str, Any]
ROOT = Path(__file__).parents[4]
NS, HOME, GATEWAYS = "vision", "modelwright-system", "gateways"
NOW = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)
JUST_NOW, BEFORE = "2026-12-01T11:59:58.000000Z", "2026-12-01T11:00:00Z"
FEATURES = (
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRequestTimeout",
    "HTTPRouteCORS",
)


def manifests(pattern: str) -> list[Json]:
    return copy.deepcopy(_manifests(pattern))


@functools.cache
def _manifests(pattern: str) -> list[Json]:
    return [obj for file in sorted(ROOT.glob(pattern)) for obj in yaml.safe_load_all(file.read_text())]


def condition(type_: str, status: str, reason: str, message: str = "", since: str = BEFORE) -> Json:
    reported = {"type": type_, "status": status, "reason": reason, "message": message}
    return {**reported, "lastTransitionTime": since, "observedGeneration": 1}


def meta(name: str, namespace: str | None = NS, **more: Any) -> Json:
    where = {"namespace": namespace} if namespace else {}
    return {"name": name, **where, "generation": 1, "creationTimestamp": BEFORE, **more}


def document(*names: str) -> list[Json]:
    return [{"kind": "APIResourceList", "resources": [{"name": name} for name in names]}]


@functools.cache
def published() -> Json:
    """/openapi/v3/apis/modelwright.dev/v1alpha1, as the API server makes it of the CRDs."""
    group = {"group": "modelwright.dev", "version": "v1alpha1"}
    return {
        "components": {
            "schemas": {
                f"dev.modelwright.v1alpha1.{kind.__name__}": {
                    **build_schema(kind),
                    "x-kubernetes-group-version-kind": [{**group, "kind": kind.__name__}],
                }
                for kind in KINDS
            }
        }
    }


def operator() -> Json:
    (found,) = manifests("manifests/install/base/deployment.yaml")
    found["metadata"] |= {"namespace": HOME}
    return found | {"status": {"replicas": 2, "readyReplicas": 2}}


def lease(namespace: str, name: str, renewed: str = JUST_NOW) -> Json:
    spec = {"holderIdentity": f"{name}-a_1", "renewTime": renewed}
    return {"kind": "Lease", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def gateway(**listener: Any) -> Json:
    given = {"name": "web", "protocol": "HTTP", "port": 80, "allowedRoutes": {"namespaces": {"from": "All"}}}
    programmed = [condition("Accepted", "True", "Accepted"), condition("Programmed", "True", "Programmed")]
    return {
        "kind": "Gateway",
        "metadata": meta("models", GATEWAYS),
        "spec": {"gatewayClassName": "any", "listeners": [{**given, **listener}]},
        "status": {"conditions": programmed, "addresses": [{"value": "192.0.2.1"}]},
    }


def gateway_class(*features: str) -> Json:
    reported = {
        "conditions": [condition("Accepted", "True", "Accepted")],
        "supportedFeatures": [{"name": name} for name in features],
    }
    spec = {"controllerName": "example.com/gateway"}
    return {"kind": "GatewayClass", "metadata": meta("any", None), "spec": spec, "status": reported}


def model(**spec: Any) -> Json:
    found = objects.model(NS, "digits", **spec)
    found["spec"] |= {
        "rolloutPolicyRef": {"name": "canary"},
        "endpoint": objects.endpoint(GATEWAYS, hostnames=["digits.example.com"]),
        **spec,
    }
    found["metadata"] = meta("digits")
    ready = [condition("Ready", "True", "Serving"), condition("Stalled", "False", "Serving")]
    return found | {"status": {"observedGeneration": 1, "conditions": ready}}


def version(**artifact: Any) -> Json:
    given = {"credentialsSecretRef": {"name": "store"}, "serviceAccountName": "reader", **artifact}
    found = objects.version(NS, "v1", **given)
    found["metadata"] = meta("v1")
    return found | {"status": {"artifact": {"digest": objects.DIGEST}}}


def policy(**spec: Any) -> Json:
    metric = {"name": "errors", "builtin": "error-rate", "margin": "0.02"}
    given = {"strategy": {"preset": "Canary"}, "analysis": {"metrics": [metric]}, **spec}
    decidable = [condition("Decidable", "True", "DecidableInTime"), condition("Stalled", "False", "PolicyAccepted")]
    return {
        "apiVersion": objects.API_VERSION,
        "kind": "RolloutPolicy",
        "metadata": meta("canary"),
        "spec": given,
        "status": {"observedGeneration": 1, "conditions": decidable},
    }


def tried(**more: Any) -> Json:
    pod = {"kind": "Pod", "metadata": meta("modelwright-doctor-x"), "spec": {"containers": [{"name": "fetch"}]}}
    return {**pod, "given": pod, **more}


def connections(*names: str) -> Json:
    text = yaml.safe_dump({"connections": [{"name": name, "type": "Prometheus"} for name in names]})
    return {
        "kind": "ConfigMap",
        "metadata": meta("modelwright-connections", HOME),
        "data": {"connections.yaml": text},
    }


def secret(*keys: str) -> Json:
    return {"kind": "Secret", "metadata": meta("store"), "keys": list(keys)}


def allowed() -> list[Json]:
    rights = (body["spec"]["resourceAttributes"] for body in build_reviews(None))
    return [{"group": r["group"], "resource": r["resource"], "verb": r["verb"], "allowed": "true"} for r in rights]


def healthy() -> Facts:
    policies = manifests("manifests/policies/*.yaml")
    kinds = [kind.__crd__.plural for kind in KINDS]
    runtime = objects.runtime() | {"metadata": meta("plain", None)}
    return Facts(
        NOW,
        "0.1.0",
        None,
        {
            "server": [{"major": "1", "minor": "34", "gitVersion": "v1.34.4"}],
            "group": [{"kind": "APIGroup", "versions": [{"version": "v1alpha1"}]}],
            "resources": document(*kinds, "models/status"),
            "schema": [published()],
            "gateway-group": [{"kind": "APIGroup", "versions": [{"version": "v1"}]}],
            "gateway-resources": document("gateways", "gatewayclasses", "httproutes", "grpcroutes"),
            "operator-deployments": [operator()],
            "operator-pods": [],
            "leases": [lease("kube-system", "kube-scheduler")],
            f"leases/{HOME}": [lease(HOME, "modelwright-operator")],
            f"configmaps/{HOME}": [connections("default")],
            "validatingadmissionpolicies": [o for o in policies if o["kind"] == "ValidatingAdmissionPolicy"],
            "validatingadmissionpolicybindings": [
                o for o in policies if o["kind"] == "ValidatingAdmissionPolicyBinding"
            ],
            "gatewayclasses": [gateway_class(*FEATURES)],
            f"gateways/{GATEWAYS}": [gateway()],
            "namespaces": [{"kind": "Namespace", "metadata": meta(NS, None)}],
            "models": [model()],
            "modelversions": [version()],
            "rolloutpolicies": [policy()],
            "clustermodelruntimes": [runtime],
            f"secrets/{NS}": [secret("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")],
            f"serviceaccounts/{NS}": [{"kind": "ServiceAccount", "metadata": meta("reader")}],
            f"dry-run/{NS}": [tried()],
            "reviews": allowed(),
        },
    )


def but(named: Mapping[str, list[Json]] | None = None, **instead: list[Json]) -> Facts:
    """The healthy cluster with other objects under these names; in keywords _ stands for -."""
    names = {name.replace("_", "-"): found for name, found in instead.items()} | dict(named or {})
    facts = healthy()
    return replace(facts, objects={**facts.objects, **names})


def without(name: str, *there: str) -> list[Json]:
    """The healthy objects under a name, but for those of these names."""
    return [obj for obj in healthy().objects[name] if obj["metadata"]["name"] not in there]
