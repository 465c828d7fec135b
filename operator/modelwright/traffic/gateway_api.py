"""Traffic through a gateway: one HTTPRoute or GRPCRoute of the Model's own, beside its Service for callers inside."""

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
from modelwright.render import routes
from modelwright.traffic.port import Json, ObservedSplit, RouteStatus, RoutingObjects, TrafficRequirements
from modelwright.traffic.service import ServiceRouter

if TYPE_CHECKING:
    # The plugin asks what a gateway can do, and has no HTTP client.
    from modelwright.traffic.gateway_probe import GatewayProbe, ProbeResponse

MARK_FEATURE = "HTTPRouteResponseHeaderModification"
MIRROR_FEATURE = "HTTPRouteRequestMirror"
MIRROR_PERCENT_FEATURE = "HTTPRouteRequestPercentageMirror"
TIMEOUT_FEATURE = "HTTPRouteRequestTimeout"
CORS_FEATURE = "HTTPRouteCORS"
FILTER_FEATURES = {"ResponseHeaderModifier": MARK_FEATURE, "CORS": CORS_FEATURE}
"""Features that filters of the endpoint need, by type. Others are core, or the gateway's own."""


class GatewayRouter:
    """`features` are the gateway class's supportedFeatures; `probe` None trusts the route's status alone."""

    def __init__(self, probe: GatewayProbe | None, features: frozenset[str]) -> None:
        self._probe = probe
        self._service_router = ServiceRouter()
        self._can_mark = MARK_FEATURE in features
        self._features = features

    def observe_split(self, scene: RoutingObjects) -> ObservedSplit:
        """The route's rules; callers inside count in `named`."""
        inside = self._service_router.observe_split(scene).targets
        if scene.route is None:
            return ObservedSplit(targets=inside)
        view = routes.read_route(scene.route, scene.model["metadata"]["name"])
        return ObservedSplit(
            weights=view.weights,
            matched=next(iter(view.matched), None),
            mirror_percent=view.mirror_percent,
            observe_percent=view.observe_percent,
            copy_token=view.copy_token,
            targets=inside | view.weights.keys() | view.matched.keys() | view.fallback.keys(),
        )

    def list_unsupported_needs(self, scene: RoutingObjects, needs: TrafficRequirements) -> tuple[str, ...]:
        """Copies that the gateway doesn't say it can make, and sticky callers, which the Gateway API doesn't know."""
        found = []
        if needs.mirror and is_grpc(scene):
            found.append(NO_GRPC_MIRROR)
        elif needs.mirror and MIRROR_FEATURE not in self._features:
            found.append(f"spec.strategy.steps.mirror: {_missing_feature(MIRROR_FEATURE)}")
        elif needs.mirror_percent_below_100 and MIRROR_PERCENT_FEATURE not in self._features:
            text = f"{_missing_feature(MIRROR_PERCENT_FEATURE)}; only 100 can be had"
            found.append(f"spec.strategy.steps.mirror.percent: {text}")
        if needs.observe_percent and is_grpc(scene):
            found.append(NO_GRPC_OBSERVER)
        elif needs.observe_percent and MIRROR_FEATURE not in self._features:
            found.append(f"spec.monitoring: {_missing_feature(MIRROR_FEATURE)}")
        elif 0 < needs.observe_percent < 100 and MIRROR_PERCENT_FEATURE not in self._features:
            text = f"{_missing_feature(MIRROR_PERCENT_FEATURE)}; only 100 can be had"
            found.append(f"spec.monitoring.mirrorPercent: {text}")
        if needs.sticky:
            text = "the Gateway API has no sticky cookie; of the gateways known here, only Traefik's can keep a caller"
            found.append(f"{sticky_field(needs)}: {text}")
        return tuple(found)

    def list_unsupported_settings(self, scene: RoutingObjects) -> tuple[str, ...]:
        """requestTimeout and filters that the gateway's class does not list. Some gateways refuse a route with them."""
        endpoint, found = scene.endpoint, []
        if endpoint is not None and endpoint.request_timeout is not None and TIMEOUT_FEATURE not in self._features:
            found.append(f"spec.endpoint.requestTimeout: {_missing_feature(TIMEOUT_FEATURE)}")
        for index, entry in enumerate(endpoint.filters if endpoint is not None else ()):
            needed = FILTER_FEATURES.get(entry.type)
            if needed is not None and needed not in self._features:
                found.append(f"spec.endpoint.filters[{index}]: {_missing_feature(needed)}")
        return tuple(found)

    def _supported_endpoint(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint without what the gateway's class does not list."""
        needed = ((entry, FILTER_FEATURES.get(entry.type)) for entry in endpoint.filters)
        filters = tuple(entry for entry, feature in needed if feature is None or feature in self._features)
        timeout = endpoint.request_timeout if TIMEOUT_FEATURE in self._features else None
        return endpoint.model_copy(update={"filters": filters, "request_timeout": timeout})

    def render_revision_objects(self, model: Json, revision: Revision, ports: Mapping[str, int]) -> list[Json]:
        """The Service that the route names as its backend."""
        return [routes.revision_service(model, revision, ports)]

    def render_manifests(
        self, scene: RoutingObjects, routing: TrafficSplit, ports: Mapping[str, Mapping[str, int]]
    ) -> list[Json]:
        """The Service and the route; no route while an older Model has the place, or a revision can't speak gRPC."""
        service = self._service_router.render_manifests(scene, routing, ports)
        speechless = is_grpc(scene) and any("grpc" not in ports[key] for key in routing.revision_hashes)
        if scene.endpoint is None or scene.problem is not None or speechless:
            return service
        return [*service, *self._render_backends(scene, routing), self._render_route(scene, routing)]

    def _render_route(self, scene: RoutingObjects, routing: TrafficSplit) -> Json:
        assert scene.endpoint is not None  # noqa: S101
        marked = self._can_mark and not is_grpc(scene)
        through = self._traefik_backend(scene, routing)
        copied = routing.mirror_percent or routing.observed_percent
        if through is None and copied and not self._can_mirror(scene, copied):
            # A gateway that doesn't know the filter answers callers with 500.
            routing = replace(routing, mirror_percent=0, observe_percent=0)
        endpoint = self._supported_endpoint(scene.endpoint)
        wanted = routes.render_route(scene.model, endpoint, routing, marked=marked, through=through)
        return routes.without_timeouts(wanted, scene.route) if endpoint.request_timeout is None else wanted

    def _can_mirror(self, scene: RoutingObjects, percent: int) -> bool:
        needed = {MIRROR_FEATURE} if percent == 100 else {MIRROR_FEATURE, MIRROR_PERCENT_FEATURE}
        return needed <= self._features and not is_grpc(scene)

    def _traefik_backend(self, scene: RoutingObjects, routing: TrafficSplit) -> str | None:
        """The TraefikService that the route's main rule is to name."""
        return None

    def _render_backends(self, scene: RoutingObjects, routing: TrafficSplit) -> list[Json]:
        """What the route names beside Services, in the order of applying."""
        return []

    def list_obsolete(self, scene: RoutingObjects, routing: TrafficSplit) -> list[tuple[Kind, str]]:
        """TraefikServices that the route has no use for."""
        wanted = {manifest["metadata"]["name"] for manifest in self._render_backends(scene, routing)}
        return [(kinds.TRAEFIK_SERVICE, name) for name in sorted(scene.traefik) if name not in wanted]

    async def check_routing(self, scene: RoutingObjects, readiness_path: str | None) -> RouteStatus:
        """Accepted and resolved at the current generation, and requests through the gateway answered by this route's
        latest rules: the main one, and the match on headers when these can be sent.

        A gateway that this operator may not look at (a namespaced install) has accepted the route, so it is there; its
        word is then all there is.
        """
        if scene.problem is not None:
            return RouteStatus(False, scene.problem)
        if scene.endpoint is None or scene.route is None:
            return RouteStatus(False)
        problem = attachment.route_problem(scene.route)
        if problem is not None:
            return RouteStatus(False, problem)
        unasked = is_grpc(scene) or scene.endpoint.proof == "Status"
        if self._probe is None or unasked or not scene.gateways:
            return RouteStatus(True)
        address = self._find_address(scene)
        if address is None:
            text = (
                "none of the gateways in spec.endpoint.parentRefs has an address, and a listener for its hostnames yet"
            )
            return RouteStatus(False, Problem(Reason.WAITING_FOR_ROUTE, text))
        view = routes.read_route(scene.route, scene.model["metadata"]["name"])
        questions: list[tuple[str, Mapping[str, str]]] = [("", {})]
        if view.headers and not any(header.regex for header in view.headers):
            questions.append((routes.MATCH_MARK, {header.name: header.value for header in view.headers}))
        for suffix, headers in questions:
            problem = await self._probe_route(self._probe, scene, address, readiness_path, suffix, headers)
            if problem is not None:
                return RouteStatus(False, problem)
        return RouteStatus(True)

    async def _probe_route(
        self,
        probe: GatewayProbe,
        scene: RoutingObjects,
        address: attachment.ListenerAddress,
        readiness_path: str | None,
        suffix: str,
        headers: Mapping[str, str],
    ) -> Problem | None:
        assert scene.endpoint is not None  # noqa: S101
        assert scene.route is not None  # noqa: S101
        answer = await probe.send_probe(address, path=_public_path(scene, readiness_path), headers=headers)
        mark, marked = routes.route_mark(scene.route), answer.headers.get(routes.HEADER_ROUTE_MARK.lower())
        seen = marked == mark + suffix if mark is not None else answer.status not in (404, 502, 503, 504)
        if seen and mark is not None and answer.status in _REFUSED_STATUSES:
            # The route sets the mark, so it is in force, whoever asks for credentials then.
            return None
        wrong = ""
        if answer.status == 0 or not seen or (readiness_path is not None and answer.status != 200):
            wrong = answer.error or f"status {answer.status}"
            wrong += _suggest_fix(answer.status)
        if mark is not None and marked == mark + routes.FALLBACK_MARK:
            wrong = TRAEFIK_SERVICE_NOT_BUILT
        elif not seen:
            wrong += ", not from the latest route"
        if not wrong and not suffix:
            wrong = self._explain_mismatch(scene, answer)
        if not wrong:
            return None
        text = f"a request through the gateway ({address.origin}) got: {wrong}"
        return Problem(Reason.ROUTE_NOT_PROGRAMMED, text)

    def _explain_mismatch(self, scene: RoutingObjects, answer: ProbeResponse) -> str:
        """Why an answer that follows the route isn't from what the route names; empty when it is."""
        return ""

    def resolve_url(self, scene: RoutingObjects) -> str | None:
        """The route's hostname or the gateway's address, with the path prefix."""
        return attachment.endpoint_url(scene.endpoint, self._find_address(scene)) if scene.endpoint else None

    def _find_address(self, scene: RoutingObjects) -> attachment.ListenerAddress | None:
        assert scene.endpoint is not None  # noqa: S101
        for ref in scene.endpoint.parent_refs:
            namespace = scene.model["metadata"]["namespace"]
            gateway = scene.gateways.get((ref.namespace or namespace, ref.name))
            address = attachment.find_listener_address(gateway, namespace, scene.endpoint) if gateway else None
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
    """What to do when a gateway answers by itself; empty for other answers."""
    cause = (_REFUSED_STATUSES | _REDIRECT_STATUSES).get(status)
    if cause is None:
        return ""
    cure = "let the user agent modelwright-probe through, or trust the route's status with spec.endpoint.proof: Status"
    return f" ({cause}: {cure})"


TRAEFIK_SERVICE_NOT_BUILT = (
    "an answer of the fallback rule, so Traefik has not built the TraefikService that the route names; it must run "
    "with --providers.kubernetescrd, and every Service named must have a ready pod"
)


def sticky_field(needs: TrafficRequirements) -> str:
    """The field of a policy that asks for sticky callers."""
    return "spec.strategy.abTest.sticky" if needs.ab_test else "spec.strategy.sticky"


NO_GRPC_MIRROR = "spec.strategy.steps.mirror: copies are compared by HTTP, and spec.endpoint.protocol is GRPC"
NO_GRPC_OBSERVER = "spec.monitoring: requests are read as JSON over HTTP, and spec.endpoint.protocol is GRPC"


def _missing_feature(feature: str) -> str:
    return f"the gateway class does not list {feature} in its status.supportedFeatures"


def is_grpc(scene: RoutingObjects) -> bool:
    """Whether the Model is reached by gRPC."""
    return scene.endpoint is not None and scene.endpoint.protocol == "GRPC"


def _public_path(scene: RoutingObjects, readiness_path: str | None) -> str:
    """The path a caller uses for the runtime's readiness path."""
    assert scene.endpoint is not None  # noqa: S101
    prefix, inner = scene.endpoint.path_prefix.rstrip("/"), readiness_path or "/"
    if scene.endpoint.strip_path_prefix:
        return prefix + inner
    return inner if inner.startswith(prefix) else prefix + "/"
