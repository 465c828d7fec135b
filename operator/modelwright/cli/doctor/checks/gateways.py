"""Checks that gateways accept the routes of Models, and support the features that Models and policies need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from modelwright.api.common import InvalidObject
from modelwright.api.v1alpha1.model import Endpoint, Model
from modelwright.api.v1alpha1.policy import RolloutPolicy
from modelwright.cli.doctor.facts import Facts, Json, NotPermitted, describe_object
from modelwright.cli.doctor.registry import DoctorFinding, cluster_check, fault_finding, namespace_check
from modelwright.core import attachment
from modelwright.core.rollout.steps import compile_steps
from modelwright.kube import kinds
from modelwright.kube.kinds import Kind
from modelwright.traffic import providers
from modelwright.traffic.port import RoutingObjects, TrafficRequirements

INSTALL_GATEWAY = "install the Gateway API's CRDs (v1) and a gateway, or remove spec.endpoint"
OTHER_CLASS_CURE = "remove it, or use a gateway whose class lists the feature"


@cluster_check("Gateway API", "it is there, or no Model has an endpoint")
def check_gateway_api(facts: Facts) -> Iterator[DoctorFinding]:
    """Check that the cluster serves the version and the route kinds that endpoints need."""
    served = _resource_names(facts, "gateway-resources")
    wanted = {f"{endpoint.protocol.lower()}routes" for _, endpoint in _models_with_endpoint(facts.list_all("models"))}
    if wanted and not served:
        versions = [entry["version"] for entry in (facts.find_one("gateway-group") or {}).get("versions", ())]
        text = f"is served in {', '.join(versions)} only, not v1" if versions else "is not installed"
        yield fault_finding("gateway.networking.k8s.io", f"{text}, and Models have spec.endpoint", INSTALL_GATEWAY)
        return
    for plural in sorted(wanted - served):
        yield fault_finding(
            f"{plural}.gateway.networking.k8s.io", "v1 is not served, and Models need it", INSTALL_GATEWAY
        )


@namespace_check("gateways", "a listener takes the route of every endpoint")
def check_listeners(facts: Facts, namespace: str) -> Iterator[DoctorFinding]:
    """Check that each gateway of an endpoint exists, works, and has a listener for the route."""
    labels = _namespace_labels(facts, namespace)
    for obj, endpoint in _models_with_endpoint(facts.in_namespace("models", namespace)):
        for ref in endpoint.parent_refs:
            home = ref.namespace or namespace
            about = f"{describe_object(obj)}, Gateway {home}/{ref.name}"
            gateway = facts.by_name("gateways", home).get(ref.name)
            if gateway is None:
                yield fault_finding(
                    about, "the Gateway is not there", "correct spec.endpoint.parentRefs, or make the Gateway"
                )
                continue
            yield from _check_programmed(about, gateway)
            refused = attachment.list_listener_refusals(gateway, namespace, endpoint, labels)
            if refused:
                cure = "change the listener, or spec.endpoint.hostnames and parentRefs (sectionName) of the Model"
                yield fault_finding(about, f"no listener takes its route: {'; '.join(refused)}", cure)


def _check_programmed(about: str, gateway: Json) -> Iterator[DoctorFinding]:
    reported = {entry["type"]: entry for entry in (gateway.get("status") or {}).get("conditions") or ()}
    cure = "see that the controller of its gatewayClassName runs, and its log"
    for kind in ("Accepted", "Programmed"):
        entry = reported.get(kind)
        if entry is not None and entry["status"] != "True":
            reason = f"{entry.get('reason')}: {entry.get('message')}"
            yield fault_finding(about, f"the Gateway is not {kind.lower()}: {reason}", cure)
            return
    if not (gateway.get("status") or {}).get("addresses"):
        yield fault_finding(about, "the Gateway has no address, so it cannot be reached", cure)


@namespace_check("features", "gateways can do all that Models and policies ask of them")
def check_features(facts: Facts, namespace: str) -> Iterator[DoctorFinding]:
    """Check features missing from a class: rollouts, shadows, sticky sessions, header matches, timeouts and filters."""
    policies = {obj["metadata"]["name"]: obj for obj in facts.readable_in_namespace("rolloutpolicies", namespace)}
    for obj in facts.in_namespace("models", namespace):
        model = _parse_model(obj)
        if model is None:
            continue
        classes = _endpoint_classes(facts, namespace, model.spec.endpoint)
        way = providers.choose_router(model.spec.endpoint, classes, _served_kinds(facts), None)
        scene = RoutingObjects(obj, model.spec.endpoint, None, None, {})
        for text in way.list_unsupported_settings(scene):
            yield fault_finding(describe_object(obj), text, OTHER_CLASS_CURE)
        if model.spec.monitoring is not None:
            for text in way.list_unsupported_needs(
                scene, TrafficRequirements(observe_percent=model.spec.monitoring.mirror_percent)
            ):
                yield fault_finding(describe_object(obj), text, OTHER_CLASS_CURE)
        ref = model.spec.rollout_policy_ref
        needs = _policy_needs(model, policies[ref.name]) if ref is not None and ref.name in policies else None
        for text in way.list_unsupported_needs(scene, needs) if needs is not None else ():
            assert ref is not None  # noqa: S101
            about = f"RolloutPolicy {namespace}/{ref.name} of {describe_object(obj)}"
            yield fault_finding(about, text, "change the field, or give the Model a gateway that can")


def _policy_needs(model: Model, obj: Json) -> TrafficRequirements | None:
    try:
        strategy = RolloutPolicy.parse(obj).spec.strategy
    except InvalidObject:
        return None
    scaling = model.spec.serving.autoscaling
    replicas = model.spec.serving.replicas
    return TrafficRequirements.from_steps(
        compile_steps(strategy),
        ab_test=strategy.ab_test is not None,
        replicas=1 if replicas is None else replicas,
        autoscaling=scaling is not None,
    )


def _endpoint_classes(facts: Facts, namespace: str, endpoint: Endpoint | None) -> list[Json | None]:
    """Return the GatewayClass of each existing Gateway of an endpoint. Raises NotPermitted."""
    known = {obj["metadata"]["name"]: obj for obj in facts.list_all("gatewayclasses")} if endpoint is not None else {}
    classes: list[Json | None] = []
    for ref in endpoint.parent_refs if endpoint is not None else ():
        gateway = facts.by_name("gateways", ref.namespace or namespace).get(ref.name)
        if gateway is not None:
            classes.append(known.get(gateway["spec"]["gatewayClassName"]))
    return classes


@cluster_check("gateway classes", "a controller has accepted each class, or none is used")
def check_classes(facts: Facts) -> Iterator[DoctorFinding]:
    """Check that used classes exist and a controller has accepted them."""
    used = {
        gateway["spec"]["gatewayClassName"]
        for name, gateways in facts.objects.items()
        if name.startswith("gateways/")
        for gateway in gateways
    }
    known = {obj["metadata"]["name"]: obj for obj in facts.list_all("gatewayclasses")} if used else {}
    for name in sorted(used):
        gateway_class, about = known.get(name), f"GatewayClass {name}"
        if gateway_class is None:
            yield fault_finding(about, "is not there, and a Gateway names it", "install the gateway's controller")
            continue
        reported = {
            entry["type"]: entry["status"] for entry in (gateway_class.get("status") or {}).get("conditions") or ()
        }
        if reported.get("Accepted") != "True":
            yield fault_finding(
                about, "no controller has accepted it", "install the controller that its controllerName names"
            )


def _namespace_labels(facts: Facts, namespace: str) -> dict[str, str] | None:
    try:
        obj = next((o for o in facts.list_all("namespaces") if o["metadata"]["name"] == namespace), None)
    except NotPermitted:
        return None
    return obj["metadata"].get("labels") or {} if obj is not None else None


def _served_kinds(facts: Facts) -> set[Kind]:
    there = _resource_names(facts, "gateway-resources") | _resource_names(facts, "traefik-resources")
    return {kind for kind in kinds.OPTIONAL_KINDS if kind.plural in there}


def _resource_names(facts: Facts, name: str) -> set[str]:
    return {entry["name"] for entry in (facts.find_one(name) or {}).get("resources", ())}


def _models_with_endpoint(models: Iterable[Json]) -> Iterator[tuple[Json, Endpoint]]:
    for obj in models:
        model = _parse_model(obj)
        if model is not None and model.spec.endpoint is not None:
            yield obj, model.spec.endpoint


def _parse_model(obj: Json) -> Model | None:
    """Parse a Model; None when this program cannot read it, which the Model's status explains."""
    try:
        return Model.parse(obj)
    except InvalidObject:
        return None
