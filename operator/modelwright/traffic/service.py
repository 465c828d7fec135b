"""Traffic without a gateway: the Model's Service selects one revision, or all of them, weighted by their pods."""

from collections.abc import Mapping

from modelwright.core.revision import Revision
from modelwright.core.rollout.capacity import achieved_shares, nearest_replica_weight
from modelwright.core.rollout.traffic_split import TrafficSplit
from modelwright.kube import kinds
from modelwright.kube.kinds import Kind
from modelwright.render import routes
from modelwright.traffic.port import Json, ObservedSplit, RouteStatus, RoutingObjects, TrafficRequirements

NEEDS_GATEWAY = "needs a gateway, and the Model has no spec.endpoint"


class ServiceRouter:
    """The Service's selector decides. It is in force once written; kube-proxy's delay is covered by the settle time."""

    def observe_split(self, scene: RoutingObjects) -> ObservedSplit:
        """Everything to the one revision selected; else each revision's share of the ready pods."""
        if scene.service is None:
            return ObservedSplit()
        selected = routes.selected_revision(scene.service)
        if selected is not None:
            return ObservedSplit({selected: 100}, targets=frozenset({selected}))
        if not routes.selects_all(scene.service):
            return ObservedSplit()
        return ObservedSplit(achieved_shares(scene.ready_pods), targets=frozenset(scene.ready_pods))

    def list_unsupported_needs(self, scene: RoutingObjects, needs: TrafficRequirements) -> tuple[str, ...]:
        """All that looks at requests; and weights that so many pods can't make."""
        fields = {
            "spec.strategy.steps.mirror": needs.mirror,
            "spec.strategy.steps.match": needs.match,
            "spec.strategy.sticky": needs.sticky and not needs.ab_test,
            "spec.strategy.abTest": needs.ab_test,
            "spec.monitoring": needs.observe_percent > 0,
        }
        found = [f"{field} {NEEDS_GATEWAY}" for field, wanted in fields.items() if wanted]
        parts = [weight for weight in needs.weights if 0 < weight < 100]
        if parts and needs.autoscaling:
            text = "without a gateway the numbers of pods make the weights, and spec.serving.autoscaling changes them"
            found.append(f"spec.strategy.steps.weight: {text}; use replicas, or give the Model an endpoint")
        elif parts:
            found += [refusal for weight in parts if (refusal := _explain_weight(weight, needs.replicas))]
        return tuple(found)

    def list_unsupported_settings(self, scene: RoutingObjects) -> tuple[str, ...]:
        """Nothing: there is no endpoint."""
        return ()

    def render_revision_objects(self, model: Json, revision: Revision, ports: Mapping[str, int]) -> list[Json]:
        """Nothing."""
        return []

    def render_manifests(
        self, scene: RoutingObjects, routing: TrafficSplit, ports: Mapping[str, Mapping[str, int]]
    ) -> list[Json]:
        """The Service."""
        return [routes.model_service(scene.model, routing, ports, scene.service)]

    def list_obsolete(self, scene: RoutingObjects, routing: TrafficSplit) -> list[tuple[Kind, str]]:
        """TraefikServices of an endpoint that is no more."""
        return [(kinds.TRAEFIK_SERVICE, name) for name in sorted(scene.traefik)]

    async def check_routing(self, scene: RoutingObjects, readiness_path: str | None) -> RouteStatus:
        """Confirmed when the Service is there."""
        return RouteStatus(scene.service is not None)

    def resolve_url(self, scene: RoutingObjects) -> str | None:
        """The Service's name in the cluster's DNS."""
        metadata = scene.model["metadata"]
        return f"http://{metadata['name']}.{metadata['namespace']}.svc"


def _explain_weight(weight: int, replicas: int) -> str | None:
    achieved = nearest_replica_weight(replicas, weight)
    if achieved is None:
        return None
    return (
        f"spec.strategy.steps.weight: {weight} % can't be made by pods alone: with {replicas} replicas the nearest is "
        f"{achieved:.1f} %; use more replicas, another weight, or give the Model an endpoint"
    )
