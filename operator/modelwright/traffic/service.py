"""Traffic without a gateway: applies the split to the Model's Service, which selects one revision or all."""

from collections.abc import Mapping

from modelwright.core.revision import Revision
from modelwright.core.rollout.capacity import achieved_shares, nearest_replica_weight
from modelwright.core.rollout.traffic_split import TrafficSplit
from modelwright.kube import kinds
from modelwright.kube.kinds import Kind
from modelwright.render import services
from modelwright.traffic.port import Json, ObservedSplit, RouteStatus, RoutingObjects, TrafficRequirements

NEEDS_GATEWAY = "needs a gateway, and the Model has no spec.endpoint"


class ServiceRouter:
    """Routes by the Service's selector, which is in force once written; the settle time covers kube-proxy's delay."""

    def observe_split(self, objects: RoutingObjects) -> ObservedSplit:
        """Return 100 percent for the one selected revision; else each revision's share of the ready pods."""
        if objects.service is None:
            return ObservedSplit()
        selected = services.selected_revision(objects.service)
        if selected is not None:
            return ObservedSplit({selected: 100}, targets=frozenset({selected}))
        if not services.selects_all(objects.service):
            return ObservedSplit()
        return ObservedSplit(achieved_shares(objects.ready_pods), targets=frozenset(objects.ready_pods))

    def list_unsupported_needs(self, objects: RoutingObjects, requirements: TrafficRequirements) -> tuple[str, ...]:
        """List every feature that reads requests, and weights that this number of pods can't achieve."""
        fields = {
            "spec.strategy.steps.mirror": requirements.mirror,
            "spec.strategy.steps.match": requirements.match,
            "spec.strategy.sticky": requirements.sticky and not requirements.ab_test,
            "spec.strategy.abTest": requirements.ab_test,
            "spec.monitoring": requirements.observe_percent > 0,
        }
        unsupported = [f"{field} {NEEDS_GATEWAY}" for field, is_required in fields.items() if is_required]
        weights = [weight for weight in requirements.weights if 0 < weight < 100]
        if weights and requirements.autoscaling:
            text = "without a gateway the numbers of pods make the weights, and spec.serving.autoscaling changes them"
            unsupported.append(f"spec.strategy.steps.weight: {text}; use replicas, or give the Model an endpoint")
        elif weights:
            unsupported += [
                problem for weight in weights if (problem := _explain_weight(weight, requirements.replicas))
            ]
        return tuple(unsupported)

    def list_unsupported_settings(self, objects: RoutingObjects) -> tuple[str, ...]:
        """Return nothing: there is no endpoint."""
        return ()

    def render_revision_objects(self, model: Json, revision: Revision, ports: Mapping[str, int]) -> list[Json]:
        """Return nothing: the Service selects pods."""
        return []

    def render_manifests(
        self, objects: RoutingObjects, split: TrafficSplit, ports: Mapping[str, Mapping[str, int]]
    ) -> list[Json]:
        """Render the Service."""
        return [services.model_service(objects.model, split, ports, objects.service)]

    def list_obsolete(self, objects: RoutingObjects, split: TrafficSplit) -> list[tuple[Kind, str]]:
        """List the TraefikServices of a removed endpoint."""
        return [(kinds.TRAEFIK_SERVICE, name) for name in sorted(objects.traefik)]

    async def check_routing(self, objects: RoutingObjects, readiness_path: str | None) -> RouteStatus:
        """Confirm the split when the Service exists."""
        return RouteStatus(objects.service is not None)

    def resolve_url(self, objects: RoutingObjects) -> str | None:
        """Return the URL of the Service inside the cluster."""
        metadata = objects.model["metadata"]
        return f"http://{metadata['name']}.{metadata['namespace']}.svc"


def _explain_weight(weight: int, replicas: int) -> str | None:
    achieved = nearest_replica_weight(replicas, weight)
    if achieved is None:
        return None
    return (
        f"spec.strategy.steps.weight: {weight} % can't be made by pods alone: with {replicas} replicas the nearest is "
        f"{achieved:.1f} %; use more replicas, another weight, or give the Model an endpoint"
    )
