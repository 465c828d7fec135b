"""Traffic through a gateway: one HTTPRoute or GRPCRoute per Model; confirms by status and probe that it is followed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Endpoint
from modelwright.core import attachment
from modelwright.core.problem import Problem
from modelwright.core.revision import Revision
from modelwright.core.rollout.traffic_split import TrafficSplit
from modelwright.kube import kinds
from modelwright.kube.kinds import Kind
from modelwright.render import routes, services
from modelwright.traffic.port import Json, ObservedSplit, RouteStatus, RoutingObjects, TrafficRequirements
from modelwright.traffic.service import ServiceRouter

if TYPE_CHECKING:
    # The plugin reads the features of a gateway, and has no HTTP client.
    from modelwright.traffic.gateway_probe import GatewayProbe, ProbeResponse

MARK_FEATURE = "HTTPRouteResponseHeaderModification"
MIRROR_FEATURE = "HTTPRouteRequestMirror"
MIRROR_PERCENT_FEATURE = "HTTPRouteRequestPercentageMirror"
TIMEOUT_FEATURE = "HTTPRouteRequestTimeout"
CORS_FEATURE = "HTTPRouteCORS"
FILTER_FEATURES = {"ResponseHeaderModifier": MARK_FEATURE, "CORS": CORS_FEATURE}
"""Features that filters of the endpoint need, by type. Others are core, or the gateway's own."""


class GatewayRouter:
    """Routes through any gateway. `features`: the gateway class's supportedFeatures. `probe`: None trusts the route's
    status alone."""

    def __init__(self, probe: GatewayProbe | None, features: frozenset[str]) -> None:
        self._probe = probe
        self._service_router = ServiceRouter()
        self._can_mark = MARK_FEATURE in features
        self._features = features

    def observe_split(self, objects: RoutingObjects) -> ObservedSplit:
        """Read the route's rules; revisions for callers inside the cluster are in `targets` only."""
        inside = self._service_router.observe_split(objects).targets
        if objects.route is None:
            return ObservedSplit(targets=inside)
        view = routes.read_route(objects.route, objects.model["metadata"]["name"])
        return ObservedSplit(
            weights=view.weights,
            matched=next(iter(view.matched), None),
            mirror_percent=view.mirror_percent,
            observe_percent=view.observe_percent,
            copy_token=view.copy_token,
            targets=inside | view.weights.keys() | view.matched.keys() | view.fallback.keys(),
        )

    def list_unsupported_needs(self, objects: RoutingObjects, requirements: TrafficRequirements) -> tuple[str, ...]:
        """List mirroring that the gateway class does not list, and sticky callers, which the Gateway API lacks."""
        unsupported = []
        if requirements.mirror and is_grpc(objects):
            unsupported.append(NO_GRPC_MIRROR)
        elif requirements.mirror and MIRROR_FEATURE not in self._features:
            unsupported.append(f"spec.strategy.steps.mirror: {_missing_feature(MIRROR_FEATURE)}")
        elif requirements.mirror_percent_below_100 and MIRROR_PERCENT_FEATURE not in self._features:
            text = f"{_missing_feature(MIRROR_PERCENT_FEATURE)}; only 100 is possible"
            unsupported.append(f"spec.strategy.steps.mirror.percent: {text}")
        if requirements.observe_percent and is_grpc(objects):
            unsupported.append(NO_GRPC_OBSERVER)
        elif requirements.observe_percent and MIRROR_FEATURE not in self._features:
            unsupported.append(f"spec.monitoring: {_missing_feature(MIRROR_FEATURE)}")
        elif 0 < requirements.observe_percent < 100 and MIRROR_PERCENT_FEATURE not in self._features:
            text = f"{_missing_feature(MIRROR_PERCENT_FEATURE)}; only 100 is possible"
            unsupported.append(f"spec.monitoring.mirrorPercent: {text}")
        if requirements.sticky:
            text = "the Gateway API has no sticky cookie; of the gateways known here, only Traefik's can keep a caller"
            unsupported.append(f"{sticky_field(requirements)}: {text}")
        return tuple(unsupported)

    def list_unsupported_settings(self, objects: RoutingObjects) -> tuple[str, ...]:
        """List requestTimeout and filters that the class does not list; some gateways refuse a route with them."""
        endpoint, unsupported = objects.endpoint, []
        if endpoint is not None and endpoint.request_timeout is not None and TIMEOUT_FEATURE not in self._features:
            unsupported.append(f"spec.endpoint.requestTimeout: {_missing_feature(TIMEOUT_FEATURE)}")
        for index, entry in enumerate(endpoint.filters if endpoint is not None else ()):
            needed = FILTER_FEATURES.get(entry.type)
            if needed is not None and needed not in self._features:
                unsupported.append(f"spec.endpoint.filters[{index}]: {_missing_feature(needed)}")
        return tuple(unsupported)

    def _supported_endpoint(self, endpoint: Endpoint) -> Endpoint:
        """Copy the endpoint without the settings that the gateway class does not list."""
        needed = ((entry, FILTER_FEATURES.get(entry.type)) for entry in endpoint.filters)
        filters = tuple(entry for entry, feature in needed if feature is None or feature in self._features)
        timeout = endpoint.request_timeout if TIMEOUT_FEATURE in self._features else None
        return endpoint.model_copy(update={"filters": filters, "request_timeout": timeout})

    def render_revision_objects(self, model: Json, revision: Revision, ports: Mapping[str, int]) -> list[Json]:
        """Render the Service that the route names as its backend."""
        return [services.revision_service(model, revision, ports)]

    def render_manifests(
        self, objects: RoutingObjects, split: TrafficSplit, ports: Mapping[str, Mapping[str, int]]
    ) -> list[Json]:
        """Render the Service and the route; no route in a conflict with an older Model, or if a revision lacks gRPC."""
        service = self._service_router.render_manifests(objects, split, ports)
        lacks_grpc = is_grpc(objects) and any("grpc" not in ports[key] for key in split.revision_hashes)
        if objects.endpoint is None or objects.problem is not None or lacks_grpc:
            return service
        return [*service, *self._render_backends(objects, split), self._render_route(objects, split)]

    def _render_route(self, objects: RoutingObjects, split: TrafficSplit) -> Json:
        assert objects.endpoint is not None  # noqa: S101
        marked = self._can_mark and not is_grpc(objects)
        traefik_service = self._traefik_backend(objects, split)
        copied = split.mirror_percent or split.observed_percent
        if traefik_service is None and copied and not self._can_mirror(objects, copied):
            # A gateway without the filter answers callers with 500.
            split = replace(split, mirror_percent=0, observe_percent=0)
        endpoint = self._supported_endpoint(objects.endpoint)
        route = routes.render_route(objects.model, endpoint, split, marked=marked, through=traefik_service)
        return routes.without_timeouts(route, objects.route) if endpoint.request_timeout is None else route

    def _can_mirror(self, objects: RoutingObjects, percent: int) -> bool:
        needed = {MIRROR_FEATURE} if percent == 100 else {MIRROR_FEATURE, MIRROR_PERCENT_FEATURE}
        return needed <= self._features and not is_grpc(objects)

    def _traefik_backend(self, objects: RoutingObjects, split: TrafficSplit) -> str | None:
        """Name the TraefikService that the route's main rule uses as its backend."""
        return None

    def _render_backends(self, objects: RoutingObjects, split: TrafficSplit) -> list[Json]:
        """Render the backends of the route beside Services, in the order to apply them."""
        return []

    def list_obsolete(self, objects: RoutingObjects, split: TrafficSplit) -> list[tuple[Kind, str]]:
        """List the TraefikServices that the route does not use."""
        used = {manifest["metadata"]["name"] for manifest in self._render_backends(objects, split)}
        return [(kinds.TRAEFIK_SERVICE, name) for name in sorted(objects.traefik) if name not in used]

    async def check_routing(self, objects: RoutingObjects, readiness_path: str | None) -> RouteStatus:
        """Check that the route is accepted and resolved at its current generation, and that its latest rules answer
        requests through the gateway: the main rule, and the header match when its headers can be sent.

        A gateway that this operator may not read (a namespaced install) has accepted the route, so it exists; the
        route's status is the only evidence then.
        """
        if objects.problem is not None:
            return RouteStatus(False, objects.problem)
        if objects.endpoint is None or objects.route is None:
            return RouteStatus(False)
        problem = attachment.route_problem(objects.route)
        if problem is not None:
            return RouteStatus(False, problem)
        trusts_status = is_grpc(objects) or objects.endpoint.proof == "Status"
        if self._probe is None or trusts_status or not objects.gateways:
            return RouteStatus(True)
        address = self._find_address(objects)
        if address is None:
            text = (
                "none of the gateways in spec.endpoint.parentRefs has an address, and a listener for its hostnames yet"
            )
            return RouteStatus(False, Problem(Reason.WAITING_FOR_ROUTE, text))
        view = routes.read_route(objects.route, objects.model["metadata"]["name"])
        probes: list[tuple[str, Mapping[str, str]]] = [("", {})]
        if view.headers and not any(header.regex for header in view.headers):
            probes.append((routes.MATCH_MARK, {header.name: header.value for header in view.headers}))
        for suffix, headers in probes:
            problem = await self._probe_route(self._probe, objects, address, readiness_path, suffix, headers)
            if problem is not None:
                return RouteStatus(False, problem)
        return RouteStatus(True)

    async def _probe_route(
        self,
        probe: GatewayProbe,
        objects: RoutingObjects,
        address: attachment.ListenerAddress,
        readiness_path: str | None,
        suffix: str,
        headers: Mapping[str, str],
    ) -> Problem | None:
        """Send one request through the gateway; return why its answer does not confirm the latest route.

        `suffix`: the end of the mark that the probed rule sets; empty for the main rule.
        """
        assert objects.endpoint is not None  # noqa: S101
        assert objects.route is not None  # noqa: S101
        response = await probe.send_probe(address, path=_public_path(objects, readiness_path), headers=headers)
        latest_mark, mark = routes.route_mark(objects.route), response.headers.get(routes.HEADER_ROUTE_MARK.lower())
        if latest_mark is not None:
            is_latest = mark == latest_mark + suffix
        else:
            is_latest = response.status not in (404, 502, 503, 504)
        if is_latest and latest_mark is not None and response.status in _REFUSED_STATUSES:
            # The route sets the mark, so it is in force, even though a filter or the model requires credentials.
            return None
        why = ""
        if response.status == 0 or not is_latest or (readiness_path is not None and response.status != 200):
            why = response.error or f"status {response.status}"
            why += _suggest_fix(response.status)
        if latest_mark is not None and mark == latest_mark + routes.FALLBACK_MARK:
            why = TRAEFIK_SERVICE_NOT_BUILT
        elif not is_latest:
            why += ", not from the latest route"
        if not why and not suffix:
            why = self._explain_mismatch(objects, response)
        if not why:
            return None
        text = f"a request through the gateway ({address.origin}) got: {why}"
        return Problem(Reason.ROUTE_NOT_PROGRAMMED, text)

    def _explain_mismatch(self, objects: RoutingObjects, response: ProbeResponse) -> str:
        """Explain why a response of the latest route is not from the route's backends; empty when it is."""
        return ""

    def resolve_url(self, objects: RoutingObjects) -> str | None:
        """Return the route's hostname or the gateway's address, with the path prefix."""
        return attachment.endpoint_url(objects.endpoint, self._find_address(objects)) if objects.endpoint else None

    def _find_address(self, objects: RoutingObjects) -> attachment.ListenerAddress | None:
        assert objects.endpoint is not None  # noqa: S101
        for ref in objects.endpoint.parent_refs:
            namespace = objects.model["metadata"]["namespace"]
            gateway = objects.gateways.get((ref.namespace or namespace, ref.name))
            address = attachment.find_listener_address(gateway, namespace, objects.endpoint) if gateway else None
            if address is not None:
                return address
        return None


_REFUSED_STATUSES = {
    401: "the gateway asks for authentication",
    403: "the gateway refuses the operator",
    407: "the gateway asks for authentication",
    429: "a rate limit",
}
_REDIRECT_STATUSES = dict.fromkeys((301, 302, 303, 307, 308), "the listener redirects, or asks for a sign-in")


def _suggest_fix(status: int) -> str:
    """Suggest what to change when the gateway answers instead of the model; empty for other answers."""
    cause = (_REFUSED_STATUSES | _REDIRECT_STATUSES).get(status)
    if cause is None:
        return ""
    fix = "let the user agent modelwright-probe through, or trust the route's status with spec.endpoint.proof: Status"
    return f" ({cause}: {fix})"


TRAEFIK_SERVICE_NOT_BUILT = (
    "an answer of the fallback rule, so Traefik has not built the TraefikService that the route names; it must run "
    "with --providers.kubernetescrd, and every Service named must have a ready pod"
)


def sticky_field(requirements: TrafficRequirements) -> str:
    """Name the field of a policy that requires sticky callers."""
    return "spec.strategy.abTest.sticky" if requirements.ab_test else "spec.strategy.sticky"


NO_GRPC_MIRROR = "spec.strategy.steps.mirror: copies are compared by HTTP, and spec.endpoint.protocol is GRPC"
NO_GRPC_OBSERVER = "spec.monitoring: requests are read as JSON over HTTP, and spec.endpoint.protocol is GRPC"


def _missing_feature(feature: str) -> str:
    return f"the gateway class does not list {feature} in its status.supportedFeatures"


def is_grpc(objects: RoutingObjects) -> bool:
    """Whether the endpoint's protocol is gRPC."""
    return objects.endpoint is not None and objects.endpoint.protocol == "GRPC"


def _public_path(objects: RoutingObjects, readiness_path: str | None) -> str:
    """Return the path by which a caller reaches the runtime's readiness path."""
    assert objects.endpoint is not None  # noqa: S101
    prefix, inner = objects.endpoint.path_prefix.rstrip("/"), readiness_path or "/"
    if objects.endpoint.strip_path_prefix:
        return prefix + inner
    return inner if inner.startswith(prefix) else prefix + "/"
