"""Traefik's own ways: what is known when a TraefikService is not built, or not read yet; and what is never asked of
gateways that can't."""

from dataclasses import replace
from typing import Any

import pytest

from modelwright.api.reasons import Reason
from modelwright.core.rollout.traffic_split import HeaderCondition, TrafficSplit
from modelwright.render import routes
from modelwright.traffic.gateway_api import MARK_FEATURE, MIRROR_FEATURE, GatewayRouter
from modelwright.traffic.gateway_probe import GatewayProbe
from modelwright.traffic.port import ObservedSplit
from modelwright.traffic.traefik import TraefikRouter
from tests.lib.traffic_contract import ONE, PATH, PORTS, TWO, WAYS, Cluster, FakeGateway, _endpoint, to
from tests.unit.traffic.test_contract import gateway

__all__ = ["gateway"]
PLAIN = TrafficSplit.all_to(ONE)
COPIED = replace(PLAIN, mirror_percent=50)


@pytest.fixture
def traefik(gateway: FakeGateway) -> Cluster:
    cluster = WAYS["Traefik"](gateway)
    cluster.follow(PLAIN)
    return cluster


async def problem(cluster: Cluster) -> str:
    evidence = await cluster.traffic.check_routing(cluster.scene, PATH)
    assert not evidence.confirmed
    assert evidence.problem is not None
    assert evidence.problem.reason == Reason.ROUTE_NOT_PROGRAMMED
    return evidence.problem.message


OBSERVED = replace(PLAIN, observe_percent=10)


@pytest.mark.parametrize("routing", [COPIED, OBSERVED, to(10, sticky=True)], ids=["mirror", "observe", "sticky"])
async def test_an_unbuilt_traefik_service_falls_back_and_is_reported(traefik: Cluster, routing: TrafficSplit) -> None:
    traefik.follow(routing)
    built, traefik.gateway.traefik = traefik.gateway.traefik, {}
    expected = await problem(traefik)
    assert "fallback rule" in expected
    assert "--providers.kubernetescrd" in expected
    traefik.gateway.traefik = built
    assert await traefik.confirmed()


async def test_new_sticky_weights_are_confirmed_by_the_cookie(traefik: Cluster) -> None:
    traefik.follow(to(10, sticky=True))
    assert await traefik.confirmed()
    traefik.send(to(50, sticky=True))
    traefik.controller()
    assert "does not follow TraefikService digits-weighted yet" in await problem(traefik)
    traefik.proxy_follows()
    assert await traefik.confirmed()


async def test_a_missing_traefik_service_leads_to_the_fallback(traefik: Cluster) -> None:
    traefik.follow(to(50, sticky=True))
    traefik.scene = replace(traefik.scene, traefik={})
    assert traefik.routed == ObservedSplit({ONE.hash: 100}, targets=frozenset({ONE.hash}))


@pytest.mark.parametrize("observe", [0, 10])
def test_weights_alone_stay_in_the_route_and_are_not_observed(traefik: Cluster, observe: int) -> None:
    routing = to(10, observe_percent=observe)
    kinds = [manifest["kind"] for manifest in traefik.traffic.render_manifests(traefik.scene, routing, PORTS)]
    assert kinds == ["Service", "HTTPRoute"]
    traefik.follow(routing)
    assert traefik.routed.observe_percent == 0


def test_sticky_weights_are_not_observed(traefik: Cluster) -> None:
    traefik.follow(OBSERVED)
    traefik.follow(to(10, sticky=True, observe_percent=10))
    traefik.drop_unwanted(to(10, sticky=True, observe_percent=10))
    assert set(traefik.scene.traefik) == {"digits-weighted"}
    assert (traefik.routed.observe_percent, traefik.routed.sticky) == (0, True)


async def test_the_comparer_in_place_of_the_observer_is_another_route(traefik: Cluster) -> None:
    traefik.follow(OBSERVED)
    traefik.send(COPIED)
    traefik.controller()
    assert "not from the latest route" in await problem(traefik)
    traefik.proxy_follows()
    assert await traefik.confirmed()


async def test_a_gateway_of_any_kind_observes_in_a_step_with_weights(gateway: FakeGateway) -> None:
    cluster = WAYS["gateway that copies"](gateway)
    cluster.follow(to(10, observe_percent=10))
    assert (cluster.routed.weights, cluster.routed.observe_percent) == ({ONE.hash: 90, TWO.hash: 10}, 10)
    assert await cluster.confirmed()


@pytest.mark.parametrize("way", ["Service", "gateway that marks answers"])
def test_what_another_way_has_left_is_unwanted(traefik: Cluster, way: str) -> None:
    traefik.follow(to(50, mirror_percent=10))
    names = [name for _, name in WAYS[way](traefik.gateway).traffic.list_obsolete(traefik.scene, PLAIN)]
    assert names == ["digits-mirror", "digits-weighted"]


def test_callers_who_all_go_to_one_revision_need_no_cookie(traefik: Cluster) -> None:
    for candidate, revision in ((0, ONE), (100, TWO)):
        manifests = traefik.traffic.render_manifests(traefik.scene, to(candidate, sticky=True), PORTS)
        (rule,) = manifests[-1]["spec"]["rules"]
        assert [(b["name"], b["weight"]) for b in rule["backendRefs"]] == [(f"digits-{revision.hash}", 100)]


def test_every_rule_has_its_own_mark_and_all_change_with_any(traefik: Cluster) -> None:
    match = {"match": (HeaderCondition("x", "y"),), "matched": TWO}
    seen = set()
    for routing in (replace(COPIED, **match), replace(PLAIN, **match), COPIED, PLAIN, to(10, sticky=True, **match)):
        route = traefik.traffic.render_manifests(traefik.scene, routing, PORTS)[-1]
        marks = [
            entry["responseHeaderModifier"]["set"][0]["value"]
            for rule in route["spec"]["rules"]
            for entry in rule["filters"]
        ]
        base = routes.route_mark(route)
        assert len(marks) == len(route["spec"]["rules"]) == len(set(marks))
        assert {mark.partition(".")[0] for mark in marks} == {base}
        seen.add(base)
    assert len(seen) == 5


MATCHED = replace(PLAIN, match=(HeaderCondition("x-group", "beta"),), matched=TWO)


@pytest.mark.parametrize("way", ["Traefik", "gateway that marks answers"])
async def test_a_match_is_confirmed_by_a_request_that_matches(gateway: FakeGateway, way: str) -> None:
    cluster = WAYS[way](gateway)
    cluster.follow(MATCHED)
    assert await cluster.confirmed()
    assert len(gateway.requests) == 2
    assert gateway.route is not None
    broken: dict[str, Any] = {**gateway.route["spec"], "rules": gateway.route["spec"]["rules"][1:]}
    gateway.route = gateway.route | {"spec": broken}
    assert "not from the latest route" in await problem(cluster)


async def test_a_match_by_expression_is_confirmed_with_the_main_rule(gateway: FakeGateway) -> None:
    cluster = WAYS["gateway that marks answers"](gateway)
    cluster.follow(replace(MATCHED, match=(HeaderCondition("x-group", "b.*", regex=True),)))
    assert await cluster.confirmed()
    assert len(gateway.requests) == 1


@pytest.mark.parametrize("features", [[MARK_FEATURE], [MARK_FEATURE, MIRROR_FEATURE]], ids=["no copies", "no percent"])
def test_a_route_never_mirrors_without_the_feature(gateway: FakeGateway, features: list[str]) -> None:
    """It would answer callers with 500."""
    cluster = Cluster(GatewayRouter(GatewayProbe(), frozenset(features)), _endpoint(), gateway)
    cluster.send(COPIED)
    assert "requestMirror" not in str(cluster.scene.route)
    assert cluster.routed.mirror_percent == 0


def test_all_is_copied_by_a_gateway_that_knows_no_percentages(gateway: FakeGateway) -> None:
    cluster = Cluster(GatewayRouter(GatewayProbe(), frozenset({MIRROR_FEATURE})), _endpoint(), gateway)
    cluster.send(replace(PLAIN, mirror_percent=100))
    assert cluster.scene.route is not None
    copies = [entry["requestMirror"] for entry in cluster.scene.route["spec"]["rules"][0]["filters"]]
    assert copies == [{"backendRef": {"name": "digits-comparer", "port": 80}}]
    assert cluster.routed.mirror_percent == 100


def test_the_fallback_has_weight_and_counts_as_target(traefik: Cluster) -> None:
    traefik.follow(replace(to(100, mirror_percent=10), service_revision=TWO))
    assert traefik.routed == ObservedSplit({TWO.hash: 100}, mirror_percent=10, targets=frozenset({TWO.hash}))
    traefik.scene = replace(traefik.scene, service=None, traefik={})
    assert traefik.routed.targets == {TWO.hash}


async def test_a_route_by_grpc_names_services_only(gateway: FakeGateway) -> None:
    cluster = Cluster(TraefikRouter(GatewayProbe(), frozenset({MARK_FEATURE})), _endpoint(protocol="GRPC"), gateway)
    ports = {key: {"http": 8080, "grpc": 9000} for key in PORTS}
    service, route = cluster.traffic.render_manifests(cluster.scene, to(10, sticky=True), ports)
    assert route["kind"] == "GRPCRoute"
    assert [(b["port"], b["weight"]) for b in route["spec"]["rules"][0]["backendRefs"]] == [(81, 90), (81, 10)]
    assert [port["name"] for port in service["spec"]["ports"]] == ["http", "grpc"]
    # What serves was made for another endpoint: callers inside are kept.
    half = {ONE.hash: {"http": 8080, "grpc": 9000}, TWO.hash: {"http": 8080}}
    assert [m["kind"] for m in cluster.traffic.render_manifests(cluster.scene, to(10), half)] == ["Service"]
