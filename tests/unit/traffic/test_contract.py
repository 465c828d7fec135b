"""One contract for every way of moving traffic, held against each of them; and what a gateway may do to a probe."""

import json
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Endpoint
from modelwright.core.diff import differs
from modelwright.core.problem import Problem
from modelwright.core.rollout.traffic_split import HeaderCondition, TrafficSplit
from modelwright.render import routes
from modelwright.traffic import gateway_probe as probe_module
from modelwright.traffic.gateway_api import (
    MARK_FEATURE,
    GatewayRouter,
)
from modelwright.traffic.gateway_probe import GatewayProbe
from modelwright.traffic.port import ObservedSplit, RoutingObjects, TrafficRequirements, TrafficRouter
from modelwright.traffic.service import ServiceRouter
from tests.lib.traffic_contract import (
    ONE,
    PATH,
    PORTS,
    TWO,
    WAYS,
    Cluster,
    FakeGateway,
    Json,
    _endpoint,
    to,
    without_nulls,
)


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


@pytest.fixture(params=list(WAYS))
def cluster(request: pytest.FixtureRequest, gateway: FakeGateway) -> Cluster:
    return WAYS[request.param](gateway)


async def test_before_any_write_there_is_no_target_and_no_confirmation(cluster: Cluster) -> None:
    assert cluster.traffic.observe_split(cluster.scene).targets == frozenset()
    assert cluster.routed == ObservedSplit()
    assert not await cluster.confirmed()


async def test_a_split_names_its_revision_until_it_is_confirmed(cluster: Cluster) -> None:
    cluster.follow(ONE)
    assert cluster.traffic.observe_split(cluster.scene).targets == {ONE.hash}
    assert cluster.routed == ObservedSplit({ONE.hash: 100}, targets=frozenset({ONE.hash}))
    assert await cluster.confirmed()


async def test_traffic_moves_whole(cluster: Cluster) -> None:
    for revision in (ONE, TWO, ONE):
        cluster.follow(revision)
        assert cluster.traffic.observe_split(cluster.scene).targets == {revision.hash}
        assert await cluster.confirmed()


async def test_a_crash_between_writes_names_both_and_recovers(cluster: Cluster) -> None:
    cluster.follow(ONE)
    cluster.send(TWO, writes=1)
    named = cluster.traffic.observe_split(cluster.scene).targets
    assert TWO.hash in named
    assert named <= {ONE.hash, TWO.hash}
    cluster.follow(TWO)
    assert cluster.traffic.observe_split(cluster.scene).targets == {TWO.hash}
    assert await cluster.confirmed()


def routings(cluster: Cluster) -> list[TrafficSplit]:
    """What this way of moving traffic can do, in an order that a rollout might take."""
    everything = {
        TrafficRequirements(mirror=True, mirror_percent_below_100=True): replace(
            TrafficSplit.all_to(ONE), mirror_percent=50
        ),
        TrafficRequirements(observe_percent=10): replace(TrafficSplit.all_to(ONE), observe_percent=10),
        TrafficRequirements(observe_percent=100): replace(TrafficSplit.all_to(TWO), observe_percent=100),
        TrafficRequirements(match=True, observe_percent=10): replace(
            TrafficSplit.all_to(ONE), match=(HeaderCondition("x-group", "beta"),), matched=TWO, observe_percent=10
        ),
        TrafficRequirements(match=True): replace(
            TrafficSplit.all_to(ONE), match=(HeaderCondition("x-group", "beta"),), matched=TWO
        ),
        TrafficRequirements(weights=(10,), replicas=20): to(10),
        TrafficRequirements(weights=(10,), sticky=True, replicas=20): to(10, sticky=True),
        TrafficRequirements(weights=(50,), sticky=True, replicas=20): to(50, sticky=True),
        TrafficRequirements(weights=(50,), mirror=True, replicas=20): to(50, mirror_percent=100),
    }
    inside = {} if cluster.scene.endpoint else {"service_revision": None}
    can = [
        routing
        for needs, routing in everything.items()
        if not cluster.traffic.list_unsupported_needs(cluster.scene, needs)
    ]
    return [replace(routing, **inside) for routing in can] + [TrafficSplit.all_to(TWO)]


async def test_all_that_is_not_refused_can_be_done_and_read_back(cluster: Cluster) -> None:
    cluster.follow(ONE)
    for routing in routings(cluster):
        cluster.follow(routing)
        matched = routing.matched.hash if routing.matched else None
        assert cluster.routed == ObservedSplit(
            routing.weights,
            matched,
            routing.mirror_percent,
            routing.sticky,
            frozenset(routing.revision_hashes),
            routing.observed_percent,
        )
        assert await cluster.confirmed()
        cluster.drop_unwanted(routing)
        assert cluster.routed.weights == routing.weights
        assert await cluster.confirmed()
    assert cluster.scene.traefik == {}


async def test_a_crash_after_any_write_never_loses_sight_of_a_revision(cluster: Cluster) -> None:
    cluster.follow(ONE)
    before = TrafficSplit.all_to(ONE)
    for routing in routings(cluster):
        for writes in range(1, len(cluster.traffic.render_manifests(cluster.scene, routing, PORTS))):
            cluster.send(routing, writes=writes)
            assert cluster.routed.targets <= before.revision_hashes | routing.revision_hashes
            assert cluster.routed.targets & (before.revision_hashes | routing.revision_hashes)
        cluster.follow(routing)
        assert cluster.routed.weights == routing.weights
        before = routing


def observing(cluster: Cluster) -> bool:
    """Whether this way of moving traffic can send copies to an observer."""
    return not cluster.traffic.list_unsupported_needs(cluster.scene, TrafficRequirements(observe_percent=10))


async def test_the_observer_rests_while_the_comparer_gets_copies(cluster: Cluster) -> None:
    if not observing(cluster):
        return
    both = replace(TrafficSplit.all_to(ONE), observe_percent=10, mirror_percent=50)
    for routing in (replace(both, mirror_percent=0), both):
        cluster.follow(routing)
        cluster.drop_unwanted(routing)
    assert (cluster.routed.mirror_percent, cluster.routed.observe_percent) == (50, 0)
    assert "digits-observe" not in json.dumps([cluster.scene.route, dict(cluster.scene.traefik)])


async def test_callers_see_no_difference_whether_they_are_observed(cluster: Cluster) -> None:
    seen = set()
    for percent in (0, 10, 100, 0):
        cluster.follow(replace(TrafficSplit.all_to(ONE), observe_percent=percent, copy_token=f"token-{percent}"))
        assert cluster.routed.weights == {ONE.hash: 100}
        assert await cluster.confirmed()
        if cluster.scene.route is not None:
            seen.add(routes.hash_for_callers(cluster.scene.route, "digits"))
            assert routes.read_route(cluster.scene.route, "digits").names_observer("digits") == (
                percent > 0 and observing(cluster)
            )
    cluster.follow(TWO)
    if cluster.scene.route is not None:
        assert len(seen) == 1
        assert routes.hash_for_callers(cluster.scene.route, "digits") not in seen


async def test_the_rule_that_copies_sets_the_token_and_no_other_does(cluster: Cluster) -> None:
    copied = replace(
        TrafficSplit.all_to(ONE), match=(HeaderCondition("x-group", "beta"),), matched=TWO, copy_token="sesame"
    )
    for routing in (replace(copied, observe_percent=10), replace(copied, mirror_percent=100), copied):
        cluster.follow(routing)
        if cluster.scene.route is None:
            continue
        copies = cluster.routed.mirror_percent or cluster.routed.observe_percent
        assert cluster.routed.copy_token == ("sesame" if copies else "")
        assert json.dumps(cluster.scene.route).count("sesame") == (1 if copies else 0)


async def test_where_copies_to_an_observer_are_refused_none_are_made(cluster: Cluster) -> None:
    cluster.follow(replace(TrafficSplit.all_to(ONE), observe_percent=10))
    assert (cluster.routed.observe_percent == 10) == observing(cluster)


async def test_the_same_split_gives_the_same_manifests(cluster: Cluster) -> None:
    first = {}
    for routing in [TrafficSplit.all_to(ONE), *routings(cluster)] * 2:
        rendered = without_nulls(cluster.traffic.render_manifests(cluster.scene, routing, PORTS))
        assert first.setdefault(routing, rendered) == rendered
        cluster.follow(routing)


async def test_what_was_edited_by_hand_is_seen_and_mended(cluster: Cluster) -> None:
    for routing in routings(cluster):
        cluster.follow(routing)
        wanted = cluster.traffic.render_manifests(cluster.scene, routing, PORTS)
        assert not any(drifted(manifest, cluster.scene) for manifest in wanted)
        text = json.dumps([cluster.scene.service, cluster.scene.route, dict(cluster.scene.traefik)])
        edited = re.sub(r'"(weight|percent|modelwright.dev/revision)": ("?)\w+', r'"\1": \g<2>7', text)
        service, route, traefik = json.loads(edited)
        cluster.scene = replace(cluster.scene, service=service, route=route, traefik=traefik)
        assert edited == text or any(drifted(manifest, cluster.scene) for manifest in wanted)
        cluster.follow(routing)
        assert cluster.routed.weights == routing.weights


def drifted(manifest: Json, scene: RoutingObjects) -> bool:
    live = {"Service": scene.service, "TraefikService": scene.traefik.get(manifest["metadata"]["name"])}
    return differs(manifest["spec"], (live.get(manifest["kind"], scene.route) or {}).get("spec"))


def test_a_key_added_to_the_selector_of_the_service_is_taken_out(cluster: Cluster) -> None:
    cluster.send(ONE)
    assert cluster.scene.service is not None
    cluster.scene.service["spec"]["selector"]["app"] = "x"
    (service, *_) = cluster.traffic.render_manifests(cluster.scene, TrafficSplit.all_to(ONE), PORTS)
    assert drifted(service, cluster.scene)
    cluster.send(ONE)
    assert cluster.scene.service["spec"]["selector"].keys() == {"modelwright.dev/model", "modelwright.dev/revision"}


async def test_sending_twice_changes_nothing(cluster: Cluster) -> None:
    cluster.send(ONE)
    cluster.controller()
    before = cluster.scene
    cluster.send(ONE)
    cluster.controller()
    assert cluster.scene == before
    one = TrafficSplit.all_to(ONE)
    assert cluster.traffic.render_manifests(before, one, PORTS) == cluster.traffic.render_manifests(before, one, PORTS)


async def test_the_manifests_name_only_what_the_port_promises(cluster: Cluster) -> None:
    """All are the Model's own, owned and labelled, and a revision's own backends come with the revision."""
    backends = {"digits-comparer"}
    for revision in (ONE, TWO):
        own = cluster.traffic.render_revision_objects(cluster.model, revision, PORTS[revision.hash])
        backends |= {manifest["metadata"]["name"] for manifest in own}
        for manifest in own:
            assert_owned(manifest)
    for routing in routings(cluster):
        for manifest in cluster.traffic.render_manifests(cluster.scene, routing, PORTS):
            assert_owned(manifest)
            for rule in manifest["spec"].get("rules", []):
                assert {backend["name"] for backend in rule["backendRefs"]} <= backends
            backends |= {manifest["metadata"]["name"]} if manifest["kind"] == "TraefikService" else set()


def assert_owned(manifest: Json) -> None:
    metadata = manifest["metadata"]
    assert metadata["ownerReferences"][0]["uid"] == "model-uid"
    assert metadata["labels"]["modelwright.dev/model"] == "digits"
    assert "app.kubernetes.io/instance" not in metadata["labels"]


async def test_a_route_in_conflict_is_never_confirmed_nor_written(cluster: Cluster) -> None:
    if cluster.scene.endpoint is None:
        return
    problem = Problem(Reason.ROUTE_CONFLICT, "taken", stalled=True)
    cluster.scene = replace(cluster.scene, problem=problem)
    cluster.send(ONE)
    assert cluster.scene.route is None
    assert cluster.scene.service is not None
    evidence = await cluster.traffic.check_routing(cluster.scene, PATH)
    assert (evidence.confirmed, evidence.problem) == (False, problem)


MARKING = "gateway that marks answers"
PLAIN = "gateway that can't mark"
SILENT = "gateway without a probe"


def served(gateway: FakeGateway, way: str) -> Cluster:
    cluster = WAYS[way](gateway)
    cluster.follow(ONE)
    return cluster


@pytest.mark.parametrize("way", [MARKING, PLAIN, SILENT])
async def test_a_controller_that_lags_or_refuses_is_believed(gateway: FakeGateway, way: str) -> None:
    cluster = served(gateway, way)
    cluster.send(TWO)
    evidence = await cluster.traffic.check_routing(cluster.scene, PATH)
    assert evidence.problem is not None
    assert (evidence.confirmed, evidence.problem.reason) == (False, Reason.WAITING_FOR_ROUTE)
    cluster.controller("False")
    evidence = await cluster.traffic.check_routing(cluster.scene, PATH)
    assert evidence.problem is not None
    assert (evidence.problem.reason, evidence.problem.stalled) == (Reason.ROUTE_NOT_ACCEPTED, True)
    assert gateway.requests == []


async def test_a_proxy_that_lags_behind_its_controller_is_noticed(gateway: FakeGateway) -> None:
    cluster = served(gateway, MARKING)
    cluster.send(TWO)
    cluster.controller()
    evidence = await cluster.traffic.check_routing(cluster.scene, PATH)
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
    evidence = await cluster.traffic.check_routing(cluster.scene, PATH)
    assert evidence.confirmed is expected
    if not expected:
        assert evidence.problem is not None
        assert evidence.problem.reason == Reason.ROUTE_NOT_PROGRAMMED
        assert f"http://127.0.0.1:{gateway.port}" in evidence.problem.message


@pytest.mark.parametrize("status", [401, 403, 429])
async def test_a_marked_request_for_credentials_confirms_the_route(gateway: FakeGateway, status: int) -> None:
    cluster = served(gateway, MARKING)
    gateway.status = status
    assert (await cluster.traffic.check_routing(cluster.scene, PATH)).confirmed
    gateway.route = None
    evidence = await cluster.traffic.check_routing(cluster.scene, PATH)
    assert evidence.problem is not None
    assert "spec.endpoint.proof: Status" in evidence.problem.message


async def test_a_gateway_that_lets_nobody_in_is_trusted_on_request(gateway: FakeGateway) -> None:
    cluster = served(gateway, MARKING)
    gateway.status, gateway.route = 401, None
    assert cluster.scene.endpoint is not None
    trusting = replace(cluster.scene, endpoint=cluster.scene.endpoint.model_copy(update={"proof": "Status"}))
    assert (await cluster.traffic.check_routing(trusting, PATH)).confirmed
    assert not gateway.requests


async def test_a_gateway_that_is_down_is_said_so(gateway: FakeGateway) -> None:
    cluster = served(gateway, MARKING)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = cluster.scene.gateways["vision", "g"]
        place["spec"]["listeners"][0]["port"] = free.getsockname()[1]
        evidence = await cluster.traffic.check_routing(cluster.scene, PATH)
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
    evidence = await cluster.traffic.check_routing(cluster.scene, PATH)
    assert evidence.problem is not None
    assert (evidence.problem.reason, evidence.problem.stalled) == (Reason.WAITING_FOR_ROUTE, False)


async def test_without_read_access_the_route_status_is_trusted(gateway: FakeGateway) -> None:
    cluster = served(gateway, MARKING)
    cluster.scene = replace(cluster.scene, gateways={})
    assert await cluster.confirmed()
    cluster.controller("False")
    assert not await cluster.confirmed()
    assert gateway.requests == []


async def test_a_model_without_a_path_is_confirmed_by_the_mark_alone(gateway: FakeGateway) -> None:
    cluster = served(gateway, MARKING)
    gateway.status = 404
    assert (await cluster.traffic.check_routing(cluster.scene, None)).confirmed
    plain = served(gateway, PLAIN)
    assert not (await plain.traffic.check_routing(plain.scene, None)).confirmed


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
    cluster = Cluster(GatewayRouter(GatewayProbe(), frozenset({MARK_FEATURE})), _endpoint(**spec), gateway)
    cluster.follow(ONE)
    assert await cluster.confirmed()
    assert gateway.requests == [(host, path)]


URLS = [
    ("inside the cluster", ServiceRouter(), None, "http://digits.vision.svc"),
    ("by hostname", GatewayRouter(None, frozenset()), _endpoint(hostnames=["a.x"]), "http://a.x:"),
]


@pytest.mark.parametrize(("traffic", "endpoint", "begins"), [c[1:] for c in URLS], ids=[c[0] for c in URLS])
def test_where_callers_go(traffic: TrafficRouter, endpoint: Endpoint | None, begins: str) -> None:
    actual = Cluster(traffic, endpoint, FakeGateway(port=8000))
    assert (traffic.resolve_url(actual.scene) or "").startswith(begins)
