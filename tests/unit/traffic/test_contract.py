"""One contract for every way of moving traffic, held against each of them; and what a gateway may do to a probe."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import web

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Endpoint
from modelwright.core.rollout.observed import Problem, Revision
from modelwright.core.rollout.routing import Routing
from modelwright.serving import network
from modelwright.traffic import probe as probe_module
from modelwright.traffic.gateway_api import MARK_FEATURE, GatewayTraffic
from modelwright.traffic.port import Scene, Traffic
from modelwright.traffic.probe import Probe
from modelwright.traffic.service import ServiceTraffic
from tests.unit.serving.builders import raw_model

Json = dict[str, Any]
ONE, TWO = Revision("v1", "aaaaaaaaaa"), Revision("v2", "bbbbbbbbbb")
PORTS = {revision.hash: {"http": 8080} for revision in (ONE, TWO)}
PATH = "/v2/models/digits/ready"


@dataclass
class FakeGateway:
    """An HTTP server on loopback that answers as a gateway does; `mark` is the route it follows now."""

    port: int = 0
    mark: str | None = None
    status: int = 200
    hangs: bool = False
    breaks: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.headers["Host"], request.path))
        if self.hangs:
            await self.released.wait()
        if self.breaks:
            assert request.transport is not None
            request.transport.close()
        headers = {network.ROUTE_HEADER: self.mark} if self.mark else {}
        return web.Response(status=self.status, headers=headers)


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    fake = FakeGateway()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", fake.answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.port = runner.addresses[0][1]
    yield fake
    fake.released.set()
    await runner.cleanup()


class Cluster:
    """Applies manifests as an API server would, plays the gateway's controller, and shows it as a Scene."""

    def __init__(self, traffic: Traffic, endpoint: Endpoint | None, gateway: FakeGateway) -> None:
        self.traffic, self.gateway = traffic, gateway
        self.model = raw_model(**({"endpoint": endpoint.wire()} if endpoint else {}))
        listener = {"name": "http", "port": gateway.port, "protocol": "HTTP"}
        self.scene = Scene(
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

    def send(self, revision: Revision, *, writes: int = 9) -> None:
        """Apply the first `writes` manifests that send everything to a revision."""
        for manifest in self.traffic.manifests(self.scene, Routing.to(revision), PORTS)[:writes]:
            slot = "service" if manifest["kind"] == "Service" else "route"
            before = getattr(self.scene, slot)
            generation = before["metadata"]["generation"] + (before["spec"] != manifest["spec"]) if before else 1
            live = manifest | {"metadata": manifest["metadata"] | {"generation": generation, "uid": slot}}
            self.scene = replace(self.scene, **{slot: live})

    def controller(self, accepted: str = "True", *, lag: int = 0) -> None:
        """The gateway's controller looks at the route (or at the one `lag` generations before)."""
        route = self.scene.route
        if route is None:
            return
        seen = route["metadata"]["generation"] - lag
        told = [
            {"type": t, "status": accepted, "reason": "R", "message": "m", "observedGeneration": seen}
            for t in ("Accepted", "ResolvedRefs")
        ]
        status = {"parents": [{"parentRef": {"name": "g"}, "conditions": told}]}
        self.scene = replace(self.scene, route=route | {"status": status})

    def proxy_follows(self) -> None:
        """The gateway's proxies have the newest route."""
        if self.scene.route is not None:
            self.gateway.mark = network.route_mark(self.scene.route)

    async def confirmed(self) -> bool:
        return (await self.traffic.evidence(self.scene, PATH)).confirmed


def _endpoint(**more: Any) -> Endpoint:
    return Endpoint.model_validate({"parentRefs": [{"name": "g"}], **more})


WAYS: dict[str, Callable[[FakeGateway], Cluster]] = {
    "Service": lambda gateway: Cluster(ServiceTraffic(), None, gateway),
    "gateway that marks answers": lambda gateway: Cluster(
        GatewayTraffic(Probe(), frozenset({MARK_FEATURE})), _endpoint(), gateway
    ),
    "gateway that can't mark": lambda gateway: Cluster(GatewayTraffic(Probe(), frozenset()), _endpoint(), gateway),
    "gateway that isn't asked": lambda gateway: Cluster(GatewayTraffic(None, frozenset()), _endpoint(), gateway),
}


@pytest.fixture(params=list(WAYS))
def cluster(request: pytest.FixtureRequest, gateway: FakeGateway) -> Cluster:
    return WAYS[request.param](gateway)


async def test_before_anything_is_written_nothing_is_named_and_nothing_confirmed(cluster: Cluster) -> None:
    assert cluster.traffic.named(cluster.scene) == frozenset()
    assert not await cluster.confirmed()


async def test_what_is_sent_to_a_revision_names_it_alone_and_is_confirmed_once_followed(cluster: Cluster) -> None:
    cluster.send(ONE)
    cluster.controller()
    cluster.proxy_follows()
    assert cluster.traffic.named(cluster.scene) == {ONE.hash}
    assert await cluster.confirmed()


async def test_traffic_moves_whole(cluster: Cluster) -> None:
    for revision in (ONE, TWO, ONE):
        cluster.send(revision)
        cluster.controller()
        cluster.proxy_follows()
        assert cluster.traffic.named(cluster.scene) == {revision.hash}
        assert await cluster.confirmed()


async def test_a_crash_between_two_writes_names_both_and_the_rest_follows(cluster: Cluster) -> None:
    cluster.send(ONE)
    cluster.controller()
    cluster.proxy_follows()
    cluster.send(TWO, writes=1)
    named = cluster.traffic.named(cluster.scene)
    assert TWO.hash in named
    assert named <= {ONE.hash, TWO.hash}
    cluster.send(TWO)
    cluster.controller()
    cluster.proxy_follows()
    assert cluster.traffic.named(cluster.scene) == {TWO.hash}
    assert await cluster.confirmed()


async def test_sending_twice_changes_nothing(cluster: Cluster) -> None:
    cluster.send(ONE)
    cluster.controller()
    before = cluster.scene
    cluster.send(ONE)
    cluster.controller()
    assert cluster.scene == before
    one = Routing.to(ONE)
    assert cluster.traffic.manifests(before, one, PORTS) == cluster.traffic.manifests(before, one, PORTS)


async def test_the_manifests_name_only_what_the_port_promises(cluster: Cluster) -> None:
    """All are the Model's own, owned and labelled, and a revision's own backends come with the revision."""
    own = cluster.traffic.per_revision(cluster.model, ONE, PORTS[ONE.hash])
    for manifest in (*own, *cluster.traffic.manifests(cluster.scene, Routing.to(ONE), PORTS)):
        metadata = manifest["metadata"]
        assert metadata["ownerReferences"][0]["uid"] == "model-uid"
        assert metadata["labels"]["modelwright.dev/model"] == "digits"
        assert "app.kubernetes.io/instance" not in metadata["labels"]
    backends = {manifest["metadata"]["name"] for manifest in own}
    cluster.send(ONE)
    if cluster.scene.route is not None:
        assert {b["name"] for b in cluster.scene.route["spec"]["rules"][0]["backendRefs"]} == backends


async def test_a_place_that_another_model_has_is_never_confirmed_and_gets_no_route(cluster: Cluster) -> None:
    if cluster.scene.endpoint is None:
        return
    problem = Problem(Reason.ROUTE_CONFLICT, "taken", stalled=True)
    cluster.scene = replace(cluster.scene, problem=problem)
    cluster.send(ONE)
    assert cluster.scene.route is None
    assert cluster.scene.service is not None
    evidence = await cluster.traffic.evidence(cluster.scene, PATH)
    assert (evidence.confirmed, evidence.problem) == (False, problem)


MARKING = "gateway that marks answers"
PLAIN = "gateway that can't mark"
SILENT = "gateway that isn't asked"


def served(gateway: FakeGateway, way: str) -> Cluster:
    cluster = WAYS[way](gateway)
    cluster.send(ONE)
    cluster.controller()
    cluster.proxy_follows()
    return cluster


@pytest.mark.parametrize("way", [MARKING, PLAIN, SILENT])
async def test_a_controller_that_lags_or_refuses_is_believed(gateway: FakeGateway, way: str) -> None:
    cluster = served(gateway, way)
    cluster.send(TWO)
    evidence = await cluster.traffic.evidence(cluster.scene, PATH)
    assert evidence.problem is not None
    assert (evidence.confirmed, evidence.problem.reason) == (False, Reason.WAITING_FOR_ROUTE)
    cluster.controller("False")
    evidence = await cluster.traffic.evidence(cluster.scene, PATH)
    assert evidence.problem is not None
    assert (evidence.problem.reason, evidence.problem.stalled) == (Reason.ROUTE_NOT_ACCEPTED, True)
    assert gateway.asked == []


async def test_a_proxy_that_lags_behind_its_controller_is_noticed(gateway: FakeGateway) -> None:
    cluster = served(gateway, MARKING)
    cluster.send(TWO)
    cluster.controller()
    evidence = await cluster.traffic.evidence(cluster.scene, PATH)
    assert evidence.problem is not None
    assert evidence.problem.reason == Reason.ROUTE_NOT_PROGRAMMED
    assert "not from the latest route" in evidence.problem.message
    cluster.proxy_follows()
    assert await cluster.confirmed()


ANSWERS = [
    ("the model isn't ready behind it", {"status": 503}, False),
    ("no route for it", {"status": 404}, False),
    ("a backend that fails", {"status": 500}, False),
    ("a redirect is no answer of a model", {"status": 301}, False),
    ("the connection breaks", {"breaks": True}, False),
    ("all is well", {"status": 200}, True),
]


@pytest.mark.parametrize("way", [MARKING, PLAIN])
@pytest.mark.parametrize(("behaves", "expected"), [c[1:] for c in ANSWERS], ids=[c[0] for c in ANSWERS])
async def test_what_the_probe_makes_of_an_answer(
    gateway: FakeGateway, way: str, behaves: dict[str, Any], expected: bool
) -> None:
    cluster = served(gateway, way)
    for name, value in behaves.items():
        setattr(gateway, name, value)
    evidence = await cluster.traffic.evidence(cluster.scene, PATH)
    assert evidence.confirmed is expected
    if not expected:
        assert evidence.problem is not None
        assert evidence.problem.reason == Reason.ROUTE_NOT_PROGRAMMED
        assert f"http://127.0.0.1:{gateway.port}" in evidence.problem.message


async def test_a_gateway_that_is_down_is_said_so(gateway: FakeGateway) -> None:
    cluster = served(gateway, MARKING)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = cluster.scene.gateways["vision", "g"]
        place["spec"]["listeners"][0]["port"] = free.getsockname()[1]
        evidence = await cluster.traffic.evidence(cluster.scene, PATH)
    assert evidence.problem is not None
    assert (evidence.confirmed, evidence.problem.reason) == (False, Reason.ROUTE_NOT_PROGRAMMED)


async def test_a_gateway_that_hangs_is_not_waited_for_long(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_module, "TIMEOUT", probe_module.aiohttp.ClientTimeout(total=0.2))
    cluster = served(gateway, MARKING)
    gateway.hangs = True
    assert not await cluster.confirmed()


async def test_a_gateway_without_an_address_is_waited_for(gateway: FakeGateway) -> None:
    cluster = served(gateway, MARKING)
    cluster.scene.gateways["vision", "g"]["status"] = {}
    evidence = await cluster.traffic.evidence(cluster.scene, PATH)
    assert evidence.problem is not None
    assert (evidence.problem.reason, evidence.problem.stalled) == (Reason.WAITING_FOR_ROUTE, False)


async def test_a_gateway_that_may_not_be_looked_at_is_taken_at_its_word(gateway: FakeGateway) -> None:
    cluster = served(gateway, MARKING)
    cluster.scene = replace(cluster.scene, gateways={})
    assert await cluster.confirmed()
    cluster.controller("False")
    assert not await cluster.confirmed()
    assert gateway.asked == []


async def test_a_model_without_a_path_to_ask_is_confirmed_by_the_mark_alone(gateway: FakeGateway) -> None:
    cluster = served(gateway, MARKING)
    gateway.status = 404
    assert (await cluster.traffic.evidence(cluster.scene, None)).confirmed
    plain = served(gateway, PLAIN)
    assert not (await plain.traffic.evidence(plain.scene, None)).confirmed


QUESTIONS = [
    ("the hostname and the model's own path", {"hostnames": ["a.example.com"]}, "a.example.com", PATH),
    ("a wildcard stands for a name", {"hostnames": ["*.example.com"]}, "modelwright-probe.example.com", PATH),
    ("without a hostname the address", {}, "127.0.0.1", PATH),
    ("a prefix that is taken off stands before", {"pathPrefix": "/a/b"}, "127.0.0.1", f"/a/b{PATH}"),
    ("a prefix that stays and is part of the path", {"pathPrefix": "/v2", "stripPathPrefix": False}, "127.0.0.1", PATH),
]


@pytest.mark.parametrize(("spec", "host", "path"), [c[1:] for c in QUESTIONS], ids=[c[0] for c in QUESTIONS])
async def test_the_probe_asks_as_a_caller_would(
    gateway: FakeGateway, spec: dict[str, Any], host: str, path: str
) -> None:
    cluster = Cluster(GatewayTraffic(Probe(), frozenset({MARK_FEATURE})), _endpoint(**spec), gateway)
    cluster.send(ONE)
    cluster.controller()
    cluster.proxy_follows()
    assert await cluster.confirmed()
    assert gateway.asked == [(host, path)]


URLS = [
    ("inside the cluster", ServiceTraffic(), None, "http://digits.vision.svc"),
    ("by hostname", GatewayTraffic(None, frozenset()), _endpoint(hostnames=["a.x"]), "http://a.x:"),
]


@pytest.mark.parametrize(("traffic", "endpoint", "begins"), [c[1:] for c in URLS], ids=[c[0] for c in URLS])
def test_where_callers_go(traffic: Traffic, endpoint: Endpoint | None, begins: str) -> None:
    found = Cluster(traffic, endpoint, FakeGateway(port=8000))
    assert (traffic.url(found.scene) or "").startswith(begins)
