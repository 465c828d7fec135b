"""Traffic providers beside a fake gateway that follows their objects."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from modelwright.api.v1alpha1.model import Endpoint
from modelwright.core.revision import Revision
from modelwright.core.rollout.traffic_split import TrafficShare, TrafficSplit
from modelwright.kube import kinds
from modelwright.traffic import envoy
from modelwright.traffic.gateway_api import (
    MARK_FEATURE,
    MIRROR_FEATURE,
    MIRROR_PERCENT_FEATURE,
    GatewayRouter,
)
from modelwright.traffic.gateway_probe import GatewayProbe
from modelwright.traffic.port import ObservedSplit, RoutingObjects, TrafficRouter
from modelwright.traffic.providers import choose_router
from modelwright.traffic.service import ServiceRouter
from modelwright.traffic.traefik import TraefikRouter
from tests.unit.render.builders import raw_model

Json = dict[str, Any]


ONE, TWO = Revision("v1", "aaaaaaaaaa"), Revision("v2", "bbbbbbbbbb")


PORTS = {revision.hash: {"http": 8080} for revision in (ONE, TWO)}


PATH = "/v2/models/digits/ready"


def to(candidate: int, **more: Any) -> TrafficSplit:
    """Shares of revision one and two."""
    return TrafficSplit(
        (TrafficShare(ONE, 100 - candidate), TrafficShare(TWO, candidate)), service_revision=ONE, **more
    )


@dataclass
class FakeGateway:
    """An HTTP server on loopback that answers as a gateway does: by the first rule of `route` that matches, whose
    TraefikService is built when it is in `traefik`."""

    port: int = 0
    route: Json | None = None
    traefik: Mapping[str, Json] = field(default_factory=dict)
    status: int = 200
    hangs: bool = False
    breaks: bool = False
    requests: list[tuple[str, str]] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.headers["Host"], request.path))
        if self.hangs:
            await self.released.wait()
        if self.breaks:
            assert request.transport is not None
            request.transport.close()
        response = web.Response(status=self.status)
        rules = self.route["spec"]["rules"] if self.route is not None else []
        rule = next((rule for rule in rules if self._takes(rule, request)), None)
        for entry in rule["filters"] if rule else []:
            for header in entry.get("responseHeaderModifier", {}).get("set", []):
                response.headers[header["name"]] = header["value"]
        for backend in rule["backendRefs"] if rule else []:
            for name, built in self.traefik.items():
                cookie = ((built["spec"].get("weighted") or {}).get("sticky") or {}).get("cookie")
                if cookie and name == backend["name"]:
                    response.set_cookie(cookie["name"], "x", max_age=cookie["maxAge"], path=cookie["path"])
        return response

    def _takes(self, rule: Json, request: web.Request) -> bool:
        (backend, *_) = rule["backendRefs"]
        headers = [header for match in rule.get("matches", []) for header in match.get("headers", [])]
        return (backend.get("kind") != "TraefikService" or backend["name"] in self.traefik) and all(
            request.headers.get(header["name"]) == header["value"] for header in headers
        )


class Cluster:
    """Applies manifests as an API server would, plays the gateway's controller, and shows it as a Scene."""

    def __init__(self, traffic: TrafficRouter, endpoint: Endpoint | None, gateway: FakeGateway) -> None:
        self.traffic, self.gateway = traffic, gateway
        self.model = raw_model(**({"endpoint": endpoint.wire()} if endpoint else {}))
        listener = {"name": "http", "port": gateway.port, "protocol": "HTTP"}
        self.scene = RoutingObjects(
            self.model,
            endpoint,
            None,
            None,
            {
                ("vision", "g"): {
                    "metadata": {"name": "g", "namespace": "vision"},
                    "spec": {"listeners": [listener]},
                    "status": {"addresses": [{"value": "127.0.0.1"}]},
                }
            },
        )

    def send(self, routing: Revision | TrafficSplit, *, writes: int = 9) -> None:
        """Apply the first `writes` manifests that lead there (a revision stands for everything to it)."""
        routing = TrafficSplit.all_to(routing) if isinstance(routing, Revision) else routing
        for manifest in self.traffic.render_manifests(self.scene, routing, PORTS)[:writes]:
            self._apply(manifest)
        # Without a gateway the pods are the weights.
        self.scene = replace(self.scene, ready_pods={key: weight // 5 for key, weight in routing.weights.items()})

    def _apply(self, manifest: Json) -> None:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if kind == "TraefikService":
            before = self.scene.traefik.get(name)
        else:
            before = self.scene.service if kind == "Service" else self.scene.route
        spec = merged((before or {}).get("spec"), manifest["spec"])
        generation = before["metadata"]["generation"] + (before["spec"] != spec) if before else 1
        live = manifest | {"metadata": manifest["metadata"] | {"generation": generation, "uid": kind}, "spec": spec}
        if kind == "TraefikService":
            self.scene = replace(self.scene, traefik={**self.scene.traefik, name: live})
        else:
            self.scene = replace(self.scene, **{"service" if kind == "Service" else "route": live})

    def drop_unwanted(self, routing: TrafficSplit) -> None:
        unwanted = self.traffic.list_obsolete(self.scene, routing)
        assert all(kind == kinds.TRAEFIK_SERVICE for kind, _ in unwanted)
        left = {name: obj for name, obj in self.scene.traefik.items() if (kinds.TRAEFIK_SERVICE, name) not in unwanted}
        self.scene = replace(self.scene, traefik=left)

    def controller(self, accepted: str = "True", *, lag: int = 0) -> None:
        """Let the gateway's controller accept the route (or its state `lag` generations before)."""
        route = self.scene.route
        if route is None:
            return
        seen = route["metadata"]["generation"] - lag
        conditions = [
            {"type": t, "status": accepted, "reason": "R", "message": "m", "observedGeneration": seen}
            for t in ("Accepted", "ResolvedRefs")
        ]
        status = {"parents": [{"parentRef": {"name": "g"}, "conditions": conditions}]}
        self.scene = replace(self.scene, route=route | {"status": status})

    def proxy_follows(self) -> None:
        """The gateway's proxies have the newest route and TraefikServices."""
        self.gateway.route, self.gateway.traefik = self.scene.route, self.scene.traefik

    def follow(self, routing: Revision | TrafficSplit) -> None:
        """Send, and the gateway does all of its work."""
        self.send(routing)
        self.controller()
        self.proxy_follows()

    @property
    def routed(self) -> ObservedSplit:
        return self.traffic.observe_split(self.scene)

    async def confirmed(self) -> bool:
        return (await self.traffic.check_routing(self.scene, PATH)).confirmed


def merged(live: Any, change: Any) -> Any:
    """What a JSON merge patch makes of `live`; a null in a list was never sent."""
    if not isinstance(change, dict):
        return without_nulls(change)
    live = dict(live) if isinstance(live, dict) else {}
    for key, value in change.items():
        if value is None:
            live.pop(key, None)
        else:
            live[key] = merged(live.get(key), value)
    return live


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(member) for key, member in value.items() if member is not None}
    return [without_nulls(member) for member in value] if isinstance(value, list) else value


def _endpoint(**more: Any) -> Endpoint:
    return Endpoint.model_validate({"parentRefs": [{"name": "g"}], **more})


COPYING = frozenset({MARK_FEATURE, MIRROR_FEATURE, MIRROR_PERCENT_FEATURE})


WAYS: dict[str, Callable[[FakeGateway], Cluster]] = {
    "Service": lambda gateway: Cluster(ServiceRouter(), None, gateway),
    "gateway that marks answers": lambda gateway: Cluster(
        GatewayRouter(GatewayProbe(), frozenset({MARK_FEATURE})), _endpoint(), gateway
    ),
    "gateway that can't mark": lambda gateway: Cluster(
        GatewayRouter(GatewayProbe(), frozenset()), _endpoint(), gateway
    ),
    "gateway without a probe": lambda gateway: Cluster(GatewayRouter(None, frozenset()), _endpoint(), gateway),
    "gateway that copies": lambda gateway: Cluster(GatewayRouter(GatewayProbe(), COPYING), _endpoint(), gateway),
    "Envoy Gateway": lambda gateway: Cluster(
        choose_router(_endpoint(), [{"spec": {"controllerName": envoy.CONTROLLER}}], kinds.ALL_KINDS, GatewayProbe()),
        _endpoint(),
        gateway,
    ),
    "Traefik": lambda gateway: Cluster(TraefikRouter(GatewayProbe(), frozenset({MARK_FEATURE})), _endpoint(), gateway),
}
