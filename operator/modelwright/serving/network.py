"""How callers reach a Model: its Service, its revisions' Services, and the route of a gateway."""

from collections.abc import Mapping
from typing import Any

from modelwright.api import names
from modelwright.api.v1alpha1.model import Endpoint
from modelwright.core.rollout.observed import Revision
from modelwright.serving.metadata import child_metadata

Json = dict[str, Any]

ROUTE_HEADER = "Modelwright-Route"
"""Response header with the hash of the route's rules: a probe that sees it knows that the gateway follows."""


def model_service(model: Json, revision: Revision, ports: Mapping[str, int]) -> Json:
    """The stable Service of a Model, which sends everything to one revision."""
    return _service(model, None, model["metadata"]["name"], revision, ports)


def revision_service(model: Json, revision: Revision, ports: Mapping[str, int]) -> Json:
    """The Service that a gateway's route names for one revision."""
    return _service(model, revision, names.revision_name(model["metadata"]["name"], revision.hash), revision, ports)


def selected_revision(service: Mapping[str, Any]) -> str | None:
    """The revision hash that a Model's Service selects."""
    chosen = service["spec"].get("selector", {}).get(names.LABEL_REVISION)
    return chosen if isinstance(chosen, str) else None


def _service(model: Json, owner: Revision | None, name: str, selected: Revision, ports: Mapping[str, int]) -> Json:
    entries = [{"name": "http", "port": 80, "targetPort": ports["http"], "protocol": "TCP"}]
    if "grpc" in ports:
        grpc = {"name": "grpc", "port": 81, "targetPort": ports["grpc"], "protocol": "TCP"}
        entries.append({**grpc, "appProtocol": "kubernetes.io/h2c"})
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(model, owner, name),
        "spec": {
            "selector": names.revision_selector(model["metadata"]["name"], selected.hash),
            "ports": entries,
        },
    }


def route(model: Json, endpoint: Endpoint, weights: Mapping[str, int], *, marked: bool) -> Json:
    """The HTTPRoute or GRPCRoute of a Model; `weights` maps revision hashes to 0..100.

    `marked`: the gateway can add response headers, so the route carries the hash of its own rules (ROUTE_HEADER).
    """
    grpc = endpoint.protocol == "GRPC"
    name = model["metadata"]["name"]
    backends = [
        {"name": names.revision_name(name, key), "port": 81 if grpc else 80, "weight": weight}
        for key, weight in sorted(weights.items())
    ]
    # Never left out: an explicit empty list is how a filter or a hostname is taken back.
    rule: Json = {"backendRefs": backends, "filters": []}
    if not grpc:
        rule["matches"] = [{"path": {"type": "PathPrefix", "value": endpoint.path_prefix}}]
        if endpoint.strip_path_prefix and endpoint.path_prefix != "/":
            rewrite = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}
            rule["filters"].append({"type": "URLRewrite", "urlRewrite": {"path": rewrite}})
    if marked:
        mark = names.content_hash([rule, list(endpoint.hostnames)])
        header = {"set": [{"name": ROUTE_HEADER, "value": mark}]}
        rule["filters"].append({"type": "ResponseHeaderModifier", "responseHeaderModifier": header})
    parents = [ref.model_dump(mode="json", by_alias=True) for ref in endpoint.parent_refs]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GRPCRoute" if grpc else "HTTPRoute",
        "metadata": child_metadata(model, None, name),
        "spec": {
            "parentRefs": parents,
            "hostnames": list(endpoint.hostnames),
            "rules": [rule],
        },
    }


def route_mark(route_object: Mapping[str, Any]) -> str | None:
    """The value of ROUTE_HEADER that this route makes the gateway add; None when it isn't marked."""
    for rule in route_object["spec"].get("rules", []):
        for entry in rule.get("filters", []):
            for header in entry.get("responseHeaderModifier", {}).get("set", []):
                if header["name"] == ROUTE_HEADER:
                    return str(header["value"])
    return None


def routed_weights(route_object: Mapping[str, Any], model: str) -> dict[str, int]:
    """Revision hash -> weight, as a live route of `model` has them."""
    weights: dict[str, int] = {}
    for rule in route_object["spec"].get("rules", []):
        for backend in rule.get("backendRefs", []):
            key = backend["name"].removeprefix(f"{model}-")
            weights[key] = weights.get(key, 0) + backend.get("weight", 1)
    return {key: weight for key, weight in weights.items() if weight}
