"""Traffic through Traefik: routed as any gateway, with TraefikServices for mirroring and sticky callers.

Traefik does not build a TraefikService that it has not read yet, or that names a Service without ready endpoints, and
drops every router that needs it. So a route that names one has a second rule with the same match, which sends all
requests to the serving revision. It answers in any order of writes, and when the candidate or the comparer loses its
pods.
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
    """Routes through gateways whose class has the controllerName CONTROLLER, where TraefikServices are served."""

    def observe_split(self, objects: RoutingObjects) -> ObservedSplit:
        """Read the route's rules, and the TraefikServices that it names."""
        observed = super().observe_split(objects)
        route = routes.read_route(objects.route, _model_name(objects)) if objects.route is not None else None
        if route is None or route.through is None:
            return observed
        view = routes.read_traefik(objects.traefik, route.through, _model_name(objects))
        if view is None:
            return replace(observed, weights=route.fallback)
        return ObservedSplit(
            weights=view.weights,
            matched=observed.matched,
            mirror_percent=view.mirror_percent,
            observe_percent=view.observe_percent,
            copy_token=observed.copy_token,
            sticky=view.cookie is not None,
            targets=observed.targets | view.weights.keys(),
        )

    def list_unsupported_needs(self, objects: RoutingObjects, requirements: TrafficRequirements) -> tuple[str, ...]:
        """List mirroring and sticky callers of an endpoint whose protocol is gRPC."""
        unsupported = []
        if is_grpc(objects) and requirements.mirror:
            unsupported.append(NO_GRPC_MIRROR)
        if is_grpc(objects) and requirements.sticky:
            unsupported.append(
                f"{sticky_field(requirements)}: TraefikServices serve HTTP, and spec.endpoint.protocol is GRPC"
            )
        if is_grpc(objects) and requirements.observe_percent:
            unsupported.append(NO_GRPC_OBSERVER)
        return tuple(unsupported)

    def _traefik_backend(self, objects: RoutingObjects, split: TrafficSplit) -> str | None:
        if is_grpc(objects):
            return None
        if split.mirror_percent:
            return routes.mirror_name(_model_name(objects))
        if _mirrors_to_monitor(split):
            return routes.observe_name(_model_name(objects))
        return routes.weighted_name(_model_name(objects)) if _needs_weighted_service(split) else None

    def _render_backends(self, objects: RoutingObjects, split: TrafficSplit) -> list[Json]:
        if objects.endpoint is None or is_grpc(objects):
            return []
        backends = []
        if _needs_weighted_service(split):
            backends.append(routes.weighted_service(objects.model, objects.endpoint, split))
        if split.mirror_percent or _mirrors_to_monitor(split):
            backends.append(routes.mirroring_service(objects.model, split))
        return backends

    def _explain_mismatch(self, objects: RoutingObjects, response: ProbeResponse) -> str:
        """Explain that a sticky TraefikService is not in force: the lifetime of its cookie identifies its weights."""
        assert objects.route is not None  # noqa: S101
        traefik_service = routes.read_route(objects.route, _model_name(objects)).through
        view = (
            routes.read_traefik(objects.traefik, traefik_service, _model_name(objects))
            if traefik_service is not None
            else None
        )
        if view is None or view.cookie is None:
            return ""
        name, seconds = view.cookie
        for cookie in response.cookies:
            parts = [part.strip().lower() for part in cookie.split(";")]
            if parts[0].startswith(f"{name.lower()}=") and f"max-age={seconds}" in parts:
                return ""
        return (
            f"no cookie {name} of the latest weights, so Traefik does not follow TraefikService {traefik_service} yet"
        )


def _model_name(objects: RoutingObjects) -> str:
    name: str = objects.model["metadata"]["name"]
    return name


def _mirrors_to_monitor(split: TrafficSplit) -> bool:
    """Whether the drift monitor gets copies.

    It gets none while requests are split: the route's own weights prove that they are in force, those of a
    TraefikService don't, and no share of the requests may depend on the drift monitor's pod.
    """
    return split.observed_percent > 0 and len(split.weights) == 1


def _needs_weighted_service(split: TrafficSplit) -> bool:
    """Whether the split needs a TraefikService: the route itself supports weights only."""
    return len(split.weights) > 1 and (split.sticky or split.mirror_percent > 0)
