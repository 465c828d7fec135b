"""Traffic through a gateway: one HTTPRoute or GRPCRoute of the Model's own, beside its Service for callers inside."""

from collections.abc import Mapping

from modelwright.api.reasons import Reason
from modelwright.core import endpoints
from modelwright.core.rollout.observed import Problem, Revision
from modelwright.serving import network
from modelwright.traffic.port import Evidence, Json, Scene
from modelwright.traffic.probe import Probe
from modelwright.traffic.service import ServiceTraffic

MARK_FEATURE = "HTTPRouteResponseHeaderModification"


class GatewayTraffic:
    """`features` are the gateway class's supportedFeatures; `probe` None trusts the route's status alone."""

    def __init__(self, probe: Probe | None, features: frozenset[str]) -> None:
        self._probe = probe
        self._inside = ServiceTraffic()
        self._marked = MARK_FEATURE in features

    def named(self, scene: Scene) -> frozenset[str]:
        """Revisions with weight in the route, and the one that the Service selects."""
        weights = network.routed_weights(scene.route, scene.model["metadata"]["name"]) if scene.route else {}
        return self._inside.named(scene) | weights.keys()

    def per_revision(self, model: Json, revision: Revision, ports: Mapping[str, int]) -> list[Json]:
        """The Service that the route names as its backend."""
        return [network.revision_service(model, revision, ports)]

    def manifests(self, scene: Scene, revision: Revision, ports: Mapping[str, int]) -> list[Json]:
        """The Service and the route; no route while an older Model has the place."""
        service = self._inside.manifests(scene, revision, ports)
        if scene.endpoint is None or scene.problem is not None:
            return service
        marked = self._marked and scene.endpoint.protocol == "HTTP"
        return [*service, network.route(scene.model, scene.endpoint, {revision.hash: 100}, marked=marked)]

    async def evidence(self, scene: Scene, readiness_path: str | None) -> Evidence:
        """Accepted and resolved at the current generation, and a request through the gateway answered by this route.

        A gateway that this operator may not look at (a namespaced install) has accepted the route, so it is there; its
        word is then all there is.
        """
        if scene.problem is not None:
            return Evidence(False, scene.problem)
        if scene.endpoint is None or scene.route is None:
            return Evidence(False)
        problem = endpoints.route_problem(scene.route)
        if problem is not None:
            return Evidence(False, problem)
        if self._probe is None or scene.endpoint.protocol != "HTTP" or not scene.gateways:
            return Evidence(True)
        return await self._ask(scene, readiness_path)

    async def _ask(self, scene: Scene, readiness_path: str | None) -> Evidence:
        assert scene.endpoint is not None  # noqa: S101
        assert scene.route is not None  # noqa: S101
        assert self._probe is not None  # noqa: S101
        address = self._address(scene)
        if address is None:
            text = "none of the gateways in spec.endpoint.parentRefs has an address and a matching HTTP listener yet"
            return Evidence(False, Problem(Reason.WAITING_FOR_ROUTE, text))
        answer = await self._probe.ask(
            address,
            hostname=scene.endpoint.hostnames[0] if scene.endpoint.hostnames else None,
            path=_public_path(scene, readiness_path),
        )
        mark = network.route_mark(scene.route)
        if mark is not None:
            seen = answer.headers.get(network.ROUTE_HEADER.lower()) == mark
        else:
            seen = answer.status not in (404, 502, 503, 504)
        if answer.status == 0 or not seen or (readiness_path is not None and answer.status != 200):
            what = answer.error or f"status {answer.status}" + ("" if seen else ", not from the latest route")
            text = f"a request through the gateway ({address.scheme}://{address.host}:{address.port}) got: {what}"
            return Evidence(False, Problem(Reason.ROUTE_NOT_PROGRAMMED, text))
        return Evidence(True)

    def url(self, scene: Scene) -> str | None:
        """The route's hostname or the gateway's address, with the path prefix."""
        return endpoints.url(scene.endpoint, self._address(scene)) if scene.endpoint else None

    def _address(self, scene: Scene) -> endpoints.Address | None:
        assert scene.endpoint is not None  # noqa: S101
        for ref in scene.endpoint.parent_refs:
            gateway = scene.gateways.get((ref.namespace or scene.model["metadata"]["namespace"], ref.name))
            address = endpoints.listener_address(gateway, scene.endpoint) if gateway else None
            if address is not None:
                return address
        return None


def _public_path(scene: Scene, readiness_path: str | None) -> str:
    """The path a caller uses for the runtime's readiness path."""
    assert scene.endpoint is not None  # noqa: S101
    prefix, inner = scene.endpoint.path_prefix.rstrip("/"), readiness_path or "/"
    if scene.endpoint.strip_path_prefix:
        return prefix + inner
    return inner if inner.startswith(prefix) else prefix + "/"
