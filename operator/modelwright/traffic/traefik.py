"""Traffic through Traefik: as by any gateway, and copies of requests and sticky callers by TraefikServices.

A TraefikService that names a Service without ready endpoints isn't built, nor one that Traefik hasn't read yet, and
every router that needs it is then dropped. So a route that names one has a second rule with the same match behind it,
which sends everything to the serving revision: that answers in any order of writes, and when the candidate or the
comparer loses its pods.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from modelwright.core.rollout.traffic_split import TrafficSplit
from modelwright.render import routes
from modelwright.traffic.gateway_api import NO_GRPC_MIRROR, NO_GRPC_OBSERVER, GatewayRouter, is_grpc, sticky_field
from modelwright.traffic.port import Json, ObservedSplit, RoutingObjects, TrafficRequirements

if TYPE_CHECKING:
    from modelwright.traffic.gateway_probe import ProbeResponse

CONTROLLER = "traefik.io/gateway-controller"


class TraefikRouter(GatewayRouter):
    """For gateways whose classes' controllerName is CONTROLLER, where TraefikServices can be had."""

    def observe_split(self, scene: RoutingObjects) -> ObservedSplit:
        """The route's rules, and what the TraefikServices that it names do."""
        told = super().observe_split(scene)
        route = routes.read_route(scene.route, _model_name(scene)) if scene.route is not None else None
        if route is None or route.through is None:
            return told
        view = routes.read_traefik(scene.traefik, route.through, _model_name(scene))
        if view is None:
            return replace(told, weights=route.fallback)
        return ObservedSplit(
            weights=view.weights,
            matched=told.matched,
            mirror_percent=view.mirror_percent,
            observe_percent=view.observe_percent,
            copy_token=told.copy_token,
            sticky=view.cookie is not None,
            targets=told.targets | view.weights.keys(),
        )

    def list_unsupported_needs(self, scene: RoutingObjects, needs: TrafficRequirements) -> tuple[str, ...]:
        """Copies and sticky callers of a Model that is reached by gRPC."""
        found = []
        if is_grpc(scene) and needs.mirror:
            found.append(NO_GRPC_MIRROR)
        if is_grpc(scene) and needs.sticky:
            found.append(f"{sticky_field(needs)}: TraefikServices serve HTTP, and spec.endpoint.protocol is GRPC")
        if is_grpc(scene) and needs.observe_percent:
            found.append(NO_GRPC_OBSERVER)
        return tuple(found)

    def _traefik_backend(self, scene: RoutingObjects, routing: TrafficSplit) -> str | None:
        if is_grpc(scene):
            return None
        if routing.mirror_percent:
            return routes.mirror_name(_model_name(scene))
        if _mirrors_to_monitor(routing):
            return routes.observe_name(_model_name(scene))
        return routes.weighted_name(_model_name(scene)) if _needs_weighted_service(routing) else None

    def _render_backends(self, scene: RoutingObjects, routing: TrafficSplit) -> list[Json]:
        if scene.endpoint is None or is_grpc(scene):
            return []
        found = []
        if _needs_weighted_service(routing):
            found.append(routes.weighted_service(scene.model, scene.endpoint, routing))
        if routing.mirror_percent or _mirrors_to_monitor(routing):
            found.append(routes.mirroring_service(scene.model, routing))
        return found

    def _explain_mismatch(self, scene: RoutingObjects, answer: ProbeResponse) -> str:
        """The mark shows the route; the cookie's lifetime, which weights of a sticky TraefikService are in force."""
        assert scene.route is not None  # noqa: S101
        through = routes.read_route(scene.route, _model_name(scene)).through
        view = routes.read_traefik(scene.traefik, through, _model_name(scene)) if through is not None else None
        if view is None or view.cookie is None:
            return ""
        name, seconds = view.cookie
        for cookie in answer.cookies:
            parts = [part.strip().lower() for part in cookie.split(";")]
            if parts[0].startswith(f"{name.lower()}=") and f"max-age={seconds}" in parts:
                return ""
        return f"no cookie {name} of the latest weights, so Traefik does not follow TraefikService {through} yet"


def _model_name(scene: RoutingObjects) -> str:
    name: str = scene.model["metadata"]["name"]
    return name


def _mirrors_to_monitor(routing: TrafficSplit) -> bool:
    """Whether the observer gets copies. It rests while requests are divided: the route's own weights prove that they
    are in force, those of a TraefikService don't, and no share may hang on the observer's pod."""
    return routing.observed_percent > 0 and len(routing.weights) == 1


def _needs_weighted_service(routing: TrafficSplit) -> bool:
    """Whether the shares need a TraefikService: the route itself can only weigh."""
    return len(routing.weights) > 1 and (routing.sticky or routing.mirror_percent > 0)
