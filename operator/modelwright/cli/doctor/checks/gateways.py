"""Whether gateways take the routes of Models, and can do what Models and policies ask of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from modelwright.api.common import InvalidObject
from modelwright.api.v1alpha1.model import Endpoint, Model
from modelwright.api.v1alpha1.policy import RolloutPolicy
from modelwright.cli.doctor.facts import Facts, Json, NotPermitted, place
from modelwright.cli.doctor.registry import Finding, check, each_namespace, fault, warning
from modelwright.core import attachment
from modelwright.core.rollout.steps import compiled
from modelwright.kube import kinds
from modelwright.kube.kinds import Kind
from modelwright.traffic import providers
from modelwright.traffic.port import Needs, Scene

INSTALL = "install the Gateway API's CRDs (v1) and a gateway, or remove spec.endpoint"
OTHER_CLASS = "remove it, or use a gateway whose class lists the feature"


@check("Gateway API", "it is there, or no Model has an endpoint")
def gateway_api(facts: Facts) -> Iterator[Finding]:
    """Whether the cluster serves the version and the route kinds that endpoints need."""
    served = _resources(facts, "gateway-resources")
    wanted = {f"{endpoint.protocol.lower()}routes" for _, endpoint in _with_endpoint(facts.all("models"))}
    if wanted and not served:
        versions = [entry["version"] for entry in (facts.one("gateway-group") or {}).get("versions", ())]
        text = f"is served in {', '.join(versions)} only, not v1" if versions else "is not installed"
        yield fault("gateway.networking.k8s.io", f"{text}, and Models have spec.endpoint", INSTALL)
        return
    for plural in sorted(wanted - served):
        yield fault(f"{plural}.gateway.networking.k8s.io", "v1 is not served, and Models need it", INSTALL)


@each_namespace("gateways", "a listener takes the route of every endpoint")
def listeners(facts: Facts, namespace: str) -> Iterator[Finding]:
    """Each gateway of an endpoint: whether it is there, works, and has a listener for the route."""
    labels = _labels(facts, namespace)
    for obj, endpoint in _with_endpoint(facts.within("models", namespace)):
        for ref in endpoint.parent_refs:
            home = ref.namespace or namespace
            about = f"{place(obj)}, Gateway {home}/{ref.name}"
            gateway = facts.named("gateways", home).get(ref.name)
            if gateway is None:
                yield fault(about, "the Gateway is not there", "correct spec.endpoint.parentRefs, or make the Gateway")
                continue
            yield from _programmed(about, gateway)
            refused = attachment.refusals(gateway, namespace, endpoint, labels)
            if refused:
                cure = "change the listener, or spec.endpoint.hostnames and parentRefs (sectionName) of the Model"
                yield fault(about, f"no listener takes its route: {'; '.join(refused)}", cure)


def _programmed(about: str, gateway: Json) -> Iterator[Finding]:
    reported = {entry["type"]: entry for entry in (gateway.get("status") or {}).get("conditions") or ()}
    cure = "see that the controller of its gatewayClassName runs, and its log"
    for kind in ("Accepted", "Programmed"):
        entry = reported.get(kind)
        if entry is not None and entry["status"] != "True":
            said = f"{entry.get('reason')}: {entry.get('message')}"
            yield fault(about, f"the Gateway is not {kind.lower()}: {said}", cure)
            return
    if not (gateway.get("status") or {}).get("addresses"):
        yield fault(about, "the Gateway has no address, so nobody reaches it", cure)


@each_namespace("features", "gateways can do all that Models and policies ask of them")
def features(facts: Facts, namespace: str) -> Iterator[Finding]:
    """What a class does not list, of rollouts, shadows, sticky sessions, header matches, time-outs and filters."""
    policies = {obj["metadata"]["name"]: obj for obj in facts.within_seen("rolloutpolicies", namespace)}
    for obj in facts.within("models", namespace):
        model = _parsed(obj)
        if model is None:
            continue
        classes = _classes(facts, namespace, model.spec.endpoint)
        way = providers.choose(model.spec.endpoint, classes, _served(facts), None)
        scene = Scene(obj, model.spec.endpoint, None, None, {})
        for text in way.lacking(scene):
            yield fault(place(obj), text, OTHER_CLASS)
        if model.spec.monitoring is not None:
            for text in way.refusals(scene, Needs(observe=model.spec.monitoring.mirror_percent)):
                yield fault(place(obj), text, OTHER_CLASS)
        ref = model.spec.rollout_policy_ref
        needs = _needs(model, policies[ref.name]) if ref is not None and ref.name in policies else None
        for text in way.refusals(scene, needs) if needs is not None else ():
            assert ref is not None  # noqa: S101
            about = f"RolloutPolicy {namespace}/{ref.name} of {place(obj)}"
            yield fault(about, text, "change the field, or give the Model a gateway that can")


def _needs(model: Model, obj: Json) -> Needs | None:
    try:
        strategy = RolloutPolicy.parse(obj).spec.strategy
    except InvalidObject:
        return None
    scaling = model.spec.serving.autoscaling
    replicas = model.spec.serving.replicas
    return Needs.of_steps(
        compiled(strategy),
        ab_test=strategy.ab_test is not None,
        replicas=1 if replicas is None else replicas,
        autoscaling=scaling is not None,
    )


def _classes(facts: Facts, namespace: str, endpoint: Endpoint | None) -> list[Json | None]:
    """The GatewayClass of each Gateway of an endpoint that is there. Raises NotPermitted."""
    known = {obj["metadata"]["name"]: obj for obj in facts.all("gatewayclasses")} if endpoint is not None else {}
    found: list[Json | None] = []
    for ref in endpoint.parent_refs if endpoint is not None else ():
        gateway = facts.named("gateways", ref.namespace or namespace).get(ref.name)
        if gateway is not None:
            found.append(known.get(gateway["spec"]["gatewayClassName"]))
    return found


@check("gateway classes", "each class says what it can do, or none is used")
def classes(facts: Facts) -> Iterator[Finding]:
    """Classes that are missing, are not accepted, or list no features."""
    used = {
        gateway["spec"]["gatewayClassName"]
        for name, found in facts.objects.items()
        if name.startswith("gateways/")
        for gateway in found
    }
    known = {obj["metadata"]["name"]: obj for obj in facts.all("gatewayclasses")} if used else {}
    for name in sorted(used):
        found, about = known.get(name), f"GatewayClass {name}"
        if found is None:
            yield fault(about, "is not there, and a Gateway names it", "install the gateway's controller")
            continue
        reported = {entry["type"]: entry["status"] for entry in (found.get("status") or {}).get("conditions") or ()}
        if reported.get("Accepted") != "True":
            yield fault(about, "no controller has accepted it", "install the controller that its controllerName names")
        elif not (found.get("status") or {}).get("supportedFeatures"):
            text = "lists no supportedFeatures, so only what every gateway can do is used"
            yield warning(about, text, "upgrade the gateway's controller")


def _labels(facts: Facts, namespace: str) -> dict[str, str] | None:
    try:
        found = next((o for o in facts.all("namespaces") if o["metadata"]["name"] == namespace), None)
    except NotPermitted:
        return None
    return found["metadata"].get("labels") or {} if found is not None else None


def _served(facts: Facts) -> set[Kind]:
    there = _resources(facts, "gateway-resources") | _resources(facts, "traefik-resources")
    return {kind for kind in kinds.OPTIONAL_KINDS if kind.plural in there}


def _resources(facts: Facts, name: str) -> set[str]:
    return {entry["name"] for entry in (facts.one(name) or {}).get("resources", ())}


def _with_endpoint(models: Iterable[Json]) -> Iterator[tuple[Json, Endpoint]]:
    for obj in models:
        model = _parsed(obj)
        if model is not None and model.spec.endpoint is not None:
            yield obj, model.spec.endpoint


def _parsed(obj: Json) -> Model | None:
    """None where this program can't read it; its status says why."""
    try:
        return Model.parse(obj)
    except InvalidObject:
        return None
