"""Reads the objects that route a Model's requests, and has the router check that requests follow them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from modelwright.api.common import InvalidObject
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Endpoint, Model
from modelwright.core import attachment, endpoint_conflicts
from modelwright.core.problem import Problem
from modelwright.core.rollout.observation import RevisionView, ServingRevision
from modelwright.kube import api_errors, kinds
from modelwright.obs.read_child import record_bug
from modelwright.reconcile.children import is_controlled_by
from modelwright.reconcile.context import Context
from modelwright.traffic.gateway_api import GatewayRouter
from modelwright.traffic.port import ObservedSplit, RouteStatus, RoutingObjects, TrafficRouter
from modelwright.traffic.providers import choose_router

Object = dict[str, Any]


@dataclass(frozen=True)
class ModelRouting:
    """The live objects that route a Model's requests, and the router that writes them."""

    router: TrafficRouter
    objects: RoutingObjects

    @property
    def split(self) -> ObservedSplit:
        """Where the live objects send requests."""
        return self.router.observe_split(self.objects)

    @property
    def targets(self) -> frozenset[str]:
        """Hashes of the revisions that the live objects send requests to."""
        return self.split.targets


def observe_routing(context: Context, raw: Object, model: Model, ready_pods: Mapping[str, int]) -> ModelRouting:
    """Read the Model's Service, route and gateways. `ready_pods`: by revision hash."""
    endpoint, namespace, name = model.spec.endpoint, model.namespace, model.name
    store = context.store
    service = store.get(kinds.SERVICE, namespace, name)
    if service is not None and not is_controlled_by(service, model.uid):
        service = None
    own = [obj for obj in store.by_model(kinds.TRAEFIK_SERVICE, namespace, name) if is_controlled_by(obj, model.uid)]
    traefik = {obj["metadata"]["name"]: obj for obj in own}
    if endpoint is None:
        router = choose_router(None, (), context.served_kinds, context.probe)
        return ModelRouting(
            router, RoutingObjects(raw, None, service, None, {}, traefik=traefik, ready_pods=ready_pods)
        )
    kind = kinds.GRPC_ROUTE if endpoint.protocol == "GRPC" else kinds.HTTP_ROUTE
    if kind not in context.served_kinds:
        text = f"spec.endpoint needs the Gateway API ({kind}), which this cluster does not have"
        problem = Problem(Reason.GATEWAY_API_MISSING, text, stalled=True)
        objects = RoutingObjects(raw, endpoint, service, None, {}, problem, ready_pods=ready_pods)
        return ModelRouting(GatewayRouter(None, frozenset()), objects)
    route = store.get(kind, namespace, name)
    if route is not None and not is_controlled_by(route, model.uid):
        route = None
    gateways, classes = {}, []
    for ref in endpoint.parent_refs:
        place = (ref.namespace or namespace, ref.name)
        gateway = store.get(kinds.GATEWAY, *place)
        if gateway is not None:
            gateways[place] = gateway
            classes.append(store.get(kinds.GATEWAY_CLASS, None, gateway["spec"].get("gatewayClassName", "")))
    conflict = find_hostname_conflict(context, raw, endpoint)
    objects = RoutingObjects(raw, endpoint, service, route, gateways, conflict, traefik, ready_pods)
    return ModelRouting(choose_router(endpoint, classes, context.served_kinds, context.probe), objects)


def find_hostname_conflict(context: Context, raw: Object, endpoint: Endpoint) -> Problem | None:
    """Why the endpoint's hostnames and paths can't be had: not allowed here, or an older Model's."""
    namespace = raw["metadata"]["namespace"]
    not_allowed = endpoint_conflicts.hostname_problem(namespace, endpoint, context.hostnames)
    if not_allowed is not None:
        return not_allowed
    own_claim = _build_claim(raw, endpoint)
    rivals: dict[str, tuple[Any, Object]] = {}
    # Models of other shards are kept as ENDPOINT; there are none without shards.
    for kind in (kinds.MODEL, kinds.ENDPOINT) if context.store.count(kinds.ENDPOINT) else (kinds.MODEL,):
        places = endpoint_conflicts.list_rival_places(namespace, raw["spec"]["endpoint"], younger=False)
        for place in dict.fromkeys(places):
            for other in context.store.by_index("place", kind, place):
                rivals[other["metadata"]["uid"]] = (kind, other)
    # The oldest first, and only until one is in the way: a wildcard may have thousands below it.
    for kind, other in sorted(rivals.values(), key=lambda rival: _creation_order(rival[1])):
        claim = _older_claim(other, own_claim, context.hostnames)
        conflict = endpoint_conflicts.find_conflict(own_claim, [claim]) if claim is not None else None
        if conflict is not None and (kind == kinds.ENDPOINT or _is_readable(other)):
            return conflict
    return None


def _creation_order(raw: Object) -> tuple[str, str, str]:
    metadata = raw["metadata"]
    return str(metadata.get("creationTimestamp", "")), metadata["namespace"], metadata["name"]


def _older_claim(
    raw: Object, own_claim: endpoint_conflicts.EndpointClaim, patterns: Sequence[str]
) -> endpoint_conflicts.EndpointClaim | None:
    """The claim of an older Model; None for one that is younger, being deleted, or not allowed its own hostnames."""
    if raw["metadata"].get("deletionTimestamp") or _creation_order(raw) >= endpoint_conflicts.age_key(own_claim):
        return None
    try:
        endpoint = Endpoint.model_validate(raw["spec"]["endpoint"], by_alias=True, by_name=False)
    except ValidationError:
        return None
    claim = _build_claim(raw, endpoint)
    return claim if endpoint_conflicts.hostname_problem(claim.namespace, endpoint, patterns) is None else None


def _is_readable(raw: Object) -> bool:
    """Whether this operator can parse a Model: one that it can't parse is never routed, so it takes no place."""
    try:
        Model.parse(raw)
    except InvalidObject:
        return False
    return True


def _build_claim(raw: Object, endpoint: Endpoint) -> endpoint_conflicts.EndpointClaim:
    metadata = raw["metadata"]
    return endpoint_conflicts.EndpointClaim(
        metadata["namespace"], metadata["name"], str(metadata.get("creationTimestamp", "")), endpoint
    )


async def check_routing(
    routing: ModelRouting,
    views: Mapping[str, RevisionView],
    serving: ServingRevision | None,
    templates: Mapping[str, Object],
    confirmed_before: str | None,
) -> RouteStatus:
    """Whether requests go where the live objects send them. A bug met on the way is the status' problem.

    `templates`: ControllerRevisions by revision hash. `confirmed_before`: the route state confirmed earlier.
    """
    try:
        return await _check_routing(routing, views, serving, templates, confirmed_before)
    except api_errors.ApiError:
        raise
    except Exception as error:
        objects = routing.objects
        text = record_bug(objects.route or objects.service or objects.model, error)
        return RouteStatus(False, Problem(Reason.INTERNAL_ERROR, text))


async def _check_routing(
    routing: ModelRouting,
    views: Mapping[str, RevisionView],
    serving: ServingRevision | None,
    templates: Mapping[str, Object],
    confirmed_before: str | None,
) -> RouteStatus:
    """Known for the serving revision on a confirmed route; else probed, once a pod could answer."""
    router, objects, targets = routing.router, routing.objects, routing.targets
    if objects.problem is not None:
        return RouteStatus(False, objects.problem)
    is_confirmed = objects.route is not None and confirmed_before == route_state(objects.route)
    if (objects.endpoint is None or is_confirmed) and serving is not None and targets == {serving.revision.hash}:
        refusal = attachment.route_problem(objects.route) if objects.route is not None else None
        return RouteStatus(False, refusal) if refusal is not None and refusal.stalled else RouteStatus(True)
    if not targets or _any_unready(targets, views):
        return RouteStatus(False)
    if objects.endpoint is not None and all(_is_scaled_to_zero(views[key]) for key in targets):
        # No pod could answer a probe: only the conditions of the route can say something.
        router = GatewayRouter(None, frozenset())
    return await router.check_routing(objects, _readiness_path(targets, templates))


def _readiness_path(targets: frozenset[str], templates: Mapping[str, Object]) -> str | None:
    for key in sorted(targets):
        template = templates.get(key)
        if template is not None:
            path = template["data"].get("readinessPath")
            return path if isinstance(path, str) else None
    return None


def _any_unready(targets: frozenset[str], views: Mapping[str, RevisionView]) -> bool:
    return any(key not in views or (views[key].available < 1 and not _is_scaled_to_zero(views[key])) for key in targets)


def _is_scaled_to_zero(view: RevisionView) -> bool:
    """No pods are requested, so none will answer."""
    return view.replicas == 0 and view.current


def route_state(route: Object) -> str:
    """Name one state of one route: its uid and generation."""
    return f"{route['metadata']['uid']}/{route['metadata'].get('generation', 0)}"
