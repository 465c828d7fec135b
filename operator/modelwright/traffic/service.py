"""Traffic without a gateway: the Model's Service selects the revision."""

from collections.abc import Mapping

from modelwright.core.rollout.observed import Revision
from modelwright.serving import network
from modelwright.traffic.port import Evidence, Json, Scene


class ServiceTraffic:
    """The Service's selector decides. It is in force once written; kube-proxy's delay is covered by the settle time."""

    def named(self, scene: Scene) -> frozenset[str]:
        """The revision that the Service selects."""
        selected = network.selected_revision(scene.service) if scene.service else None
        return frozenset({selected} if selected else ())

    def per_revision(self, model: Json, revision: Revision, ports: Mapping[str, int]) -> list[Json]:
        """Nothing."""
        return []

    def manifests(self, scene: Scene, revision: Revision, ports: Mapping[str, int]) -> list[Json]:
        """The Service."""
        return [network.model_service(scene.model, revision, ports)]

    async def evidence(self, scene: Scene, readiness_path: str | None) -> Evidence:
        """Confirmed when the Service is there."""
        return Evidence(scene.service is not None)

    def url(self, scene: Scene) -> str | None:
        """The Service's name in the cluster's DNS."""
        metadata = scene.model["metadata"]
        return f"http://{metadata['name']}.{metadata['namespace']}.svc"
