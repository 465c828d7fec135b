"""A route is attached to listeners of gateways: which they are, whether it is in force there, and what its URL is."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Endpoint
from modelwright.core.attachment import (
    ListenerAddress,
    endpoint_url,
    find_listener_address,
    list_listener_refusals,
    matches_selector,
    route_problem,
)


def endpoint(*refs: Mapping[str, Any], **more: Any) -> Endpoint:
    return Endpoint.model_validate({"parentRefs": list(refs) or [{"name": "g"}], **more})


def route(*parents: dict[str, Any], refs: int = 1, generation: int = 3) -> dict[str, Any]:
    return {
        "metadata": {"generation": generation, "namespace": "vision"},
        "spec": {"parentRefs": [{"name": f"g{n}"} for n in range(refs)]},
        "status": {"parents": list(parents)},
    }


def parent(name: str = "g0", generation: int = 3, *, ref: Mapping[str, Any] = {}, **conditions: str) -> dict[str, Any]:
    statuses = {"Accepted": "True", "ResolvedRefs": "True", **conditions}
    return {
        "parentRef": {"name": name, **ref},
        "conditions": [
            {"type": t, "status": s, "reason": "Why", "message": "because", "observedGeneration": generation}
            for t, s in statuses.items()
            if s
        ],
    }


ROUTES = [
    ("accepted and resolved", route(parent()), None, False),
    ("no answer yet", route(), Reason.WAITING_FOR_ROUTE, False),
    (
        "no status at all",
        {"metadata": {"generation": 1}, "spec": {"parentRefs": [{"name": "g"}]}},
        Reason.WAITING_FOR_ROUTE,
        False,
    ),
    ("one of two has answered", route(parent(), refs=2), Reason.WAITING_FOR_ROUTE, False),
    ("both have", route(parent(), parent("g1"), refs=2), None, False),
    ("an answer to an older route", route(parent(generation=2)), Reason.WAITING_FOR_ROUTE, False),
    ("half an answer", route(parent(ResolvedRefs="")), Reason.WAITING_FOR_ROUTE, False),
    ("refused", route(parent(Accepted="False")), Reason.ROUTE_NOT_ACCEPTED, True),
    ("its Service isn't found", route(parent(ResolvedRefs="False")), Reason.ROUTE_NOT_ACCEPTED, True),
    (
        "accepted by one, refused by the other",
        route(parent(), parent("g1", Accepted="False"), refs=2),
        Reason.ROUTE_NOT_ACCEPTED,
        True,
    ),
    ("a gateway that the route no longer names is left in its status", route(parent(), parent("old", 1)), None, False),
    ("one that it no longer names had refused it", route(parent("old", Accepted="False"), parent()), None, False),
    (
        "one that it no longer names is no answer of its own",
        route(parent(), parent("old"), refs=2),
        Reason.WAITING_FOR_ROUTE,
        False,
    ),
    (
        "a gateway of that name in another namespace",
        route(parent(ref={"namespace": "gw"})),
        Reason.WAITING_FOR_ROUTE,
        False,
    ),
    (
        "with the defaults of the Gateway API written out",
        route(parent(ref={"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "vision"})),
        None,
        False,
    ),
    ("a Service of that name", route(parent(ref={"group": "", "kind": "Service"})), Reason.WAITING_FOR_ROUTE, False),
    ("an answer that names the listener", route(parent(ref={"sectionName": "https"})), None, False),
    ("the answer of an implementation that was replaced", route(parent(generation=2), parent()), None, False),
    (
        "only answers to older routes",
        route(parent(generation=1), parent(generation=2)),
        Reason.WAITING_FOR_ROUTE,
        False,
    ),
    (
        "a refusal beside one that waits",
        route(parent(generation=2), parent("g1", Accepted="False"), refs=2),
        Reason.ROUTE_NOT_ACCEPTED,
        True,
    ),
]


@pytest.mark.parametrize(("found", "reason", "stalled"), [c[1:] for c in ROUTES], ids=[c[0] for c in ROUTES])
def test_whether_a_route_is_in_force(found: dict[str, Any], reason: Reason | None, stalled: bool) -> None:
    problem = route_problem(found)
    if reason is None:
        assert problem is None
    else:
        assert problem is not None
        assert (problem.reason, problem.stalled) == (reason, stalled)
        if stalled:
            assert "Why: because" in problem.message


def gateway(
    *listeners: dict[str, Any], address: str | None = "192.0.2.1", namespace: str = "vision", **statuses: dict[str, Any]
) -> dict[str, Any]:
    """`statuses`: by name of the listener."""
    status: dict[str, Any] = {"addresses": [{"value": it} for it in address.split()]} if address else {}
    status["listeners"] = [{"name": name, **found} for name, found in statuses.items()]
    return {"metadata": {"name": "g", "namespace": namespace}, "spec": {"listeners": list(listeners)}, "status": status}


HTTP = {"name": "http", "port": 80, "protocol": "HTTP"}
HTTPS = {"name": "https", "port": 443, "protocol": "HTTPS"}
TCP = {"name": "tcp", "port": 9, "protocol": "TCP"}
ELSEWHERE = {"name": "g", "namespace": "gateways"}


def listener(base: dict[str, Any], *, allowed: str = "Same", kinds: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    routes = {"namespaces": {"from": allowed}} | ({"kinds": [{"kind": kind} for kind in kinds]} if kinds else {})
    return base | {"allowedRoutes": routes} | more


def shared(*listeners: dict[str, Any], **statuses: dict[str, Any]) -> dict[str, Any]:
    return gateway(*listeners, namespace="gateways", **statuses)


def answers(scheme: str, port: int, hostname: str | None = None) -> ListenerAddress:
    return ListenerAddress(scheme, ("192.0.2.1",), port, hostname)


BROKEN = {"conditions": [{"type": "Programmed", "status": "False"}]}
X, Y = listener(HTTP, hostname="a.x"), listener(HTTPS, hostname="*.y")

ADDRESSES = [
    ("the only one for HTTP", gateway(TCP, HTTP), endpoint(), answers("http", 80)),
    ("HTTPS before HTTP, which often only redirects", gateway(HTTP, HTTPS), endpoint(), answers("https", 443)),
    (
        "HTTP while the one for HTTPS has no certificate",
        gateway(HTTP, HTTPS, https=BROKEN),
        endpoint(),
        answers("http", 80),
    ),
    (
        "one that has routes before one that has none",
        gateway(HTTP, HTTPS, http={"attachedRoutes": 2}, https={"attachedRoutes": 0}),
        endpoint(),
        answers("http", 80),
    ),
    (
        "routes of its own namespace only",
        shared(listener(HTTP), listener(HTTPS, allowed="All")),
        endpoint(ELSEWHERE),
        answers("https", 443),
    ),
    ("no namespace's routes", shared(listener(HTTP, allowed="None")), endpoint(ELSEWHERE), None),
    ("Same is the default", shared(HTTP), endpoint(ELSEWHERE), None),
    ("a selector may match", shared(listener(HTTP, allowed="Selector")), endpoint(ELSEWHERE), answers("http", 80)),
    ("a gateway of that name in another namespace", shared(listener(HTTP, allowed="All")), endpoint(), None),
    ("only routes of another kind", gateway(listener(HTTP, kinds=["GRPCRoute"])), endpoint(), None),
    (
        "routes of several kinds",
        gateway(listener(HTTP, kinds=["GRPCRoute", "HTTPRoute"])),
        endpoint(),
        answers("http", 80),
    ),
    ("a listener for another hostname", gateway(X), endpoint(hostnames=["b.x"]), None),
    (
        "the first hostname that has a listener",
        gateway(X, Y),
        endpoint(hostnames=["b.x", "m.y"]),
        answers("https", 443, "m.y"),
    ),
    (
        "a wildcard of the endpoint, a name of the listener",
        gateway(X),
        endpoint(hostnames=["*.x"]),
        answers("http", 80, "a.x"),
    ),
    ("the listener's hostname when the endpoint has none", gateway(X), endpoint(), answers("http", 80, "a.x")),
    (
        "the endpoint's when the listener has none",
        gateway(HTTP),
        endpoint(hostnames=["a.x", "b.x"]),
        answers("http", 80, "a.x"),
    ),
    (
        "two families of addresses",
        gateway(HTTP, address="fd00::7 192.0.2.1"),
        endpoint(),
        ListenerAddress("http", ("fd00::7", "192.0.2.1"), 80),
    ),
    (
        "the named one",
        gateway(HTTP, HTTPS),
        endpoint({"name": "g", "sectionName": "https"}),
        ListenerAddress("https", ("192.0.2.1",), 443),
    ),
    (
        "by port",
        gateway(HTTP, HTTPS),
        endpoint({"name": "g", "port": 443}),
        ListenerAddress("https", ("192.0.2.1",), 443),
    ),
    ("no listener of that name", gateway(HTTP), endpoint({"name": "g", "sectionName": "x"}), None),
    ("no address yet", gateway(HTTP, address=None), endpoint(), None),
    ("another gateway", gateway(HTTP), endpoint({"name": "h"}), None),
    ("no status yet", {k: v for k, v in gateway(HTTP).items() if k != "status"}, endpoint(), None),
]


@pytest.mark.parametrize(("found", "wanted", "expected"), [c[1:] for c in ADDRESSES], ids=[c[0] for c in ADDRESSES])
def test_where_a_listener_answers(found: dict[str, Any], wanted: Endpoint, expected: ListenerAddress | None) -> None:
    assert find_listener_address(found, "vision", wanted) == expected


SELECTED = shared(listener(HTTP, allowed="Selector"))
SELECTED["spec"]["listeners"][0]["allowedRoutes"]["namespaces"]["selector"] = {"matchLabels": {"team": "vision"}}

REFUSALS = [
    ("one takes it", gateway(X, Y), endpoint(hostnames=["m.y"]), None, []),
    (
        "other hostnames",
        gateway(X),
        endpoint(hostnames=["b.x"]),
        None,
        ["listener http has the hostname a.x, which covers none of spec.endpoint.hostnames"],
    ),
    (
        "another kind",
        gateway(TCP),
        endpoint(),
        None,
        ["listener tcp takes no HTTPRoute (protocol, allowedRoutes.kinds)"],
    ),
    (
        "another namespace",
        shared(HTTP),
        endpoint(ELSEWHERE),
        None,
        ["listener http takes no routes of this namespace (allowedRoutes.namespaces)"],
    ),
    (
        "another sectionName",
        gateway(HTTP),
        endpoint({"name": "g", "sectionName": "x"}),
        None,
        ["listener http is not the one that spec.endpoint.parentRefs names by sectionName or port"],
    ),
    (
        "a broken listener",
        gateway(HTTPS, https=BROKEN),
        endpoint(),
        None,
        ["listener https is not accepted or not programmed, by the gateway's status"],
    ),
    ("labels that aren't known", SELECTED, endpoint(ELSEWHERE), None, []),
    ("labels that match", SELECTED, endpoint(ELSEWHERE), {"team": "vision"}, []),
    (
        "labels that don't",
        SELECTED,
        endpoint(ELSEWHERE),
        {},
        ["listener http takes routes of namespaces with other labels only (allowedRoutes.namespaces.selector)"],
    ),
    ("no listeners", gateway(), endpoint(), None, ["it has no listeners"]),
]


@pytest.mark.parametrize(
    ("found", "wanted", "labels", "expected"), [c[1:] for c in REFUSALS], ids=[c[0] for c in REFUSALS]
)
def test_why_no_listener_takes_a_route(
    found: dict[str, Any], wanted: Endpoint, labels: Mapping[str, str] | None, expected: list[str]
) -> None:
    assert list_listener_refusals(found, "vision", wanted, labels) == expected


@pytest.mark.parametrize(
    ("operator", "values", "matches"),
    [
        ("In", ["a", "b"], True),
        ("In", ["c"], False),
        ("NotIn", ["a"], False),
        ("NotIn", ["c"], True),
        ("Exists", None, True),
        ("DoesNotExist", None, False),
    ],
)
def test_expressions_of_a_selector(operator: str, values: list[str] | None, matches: bool) -> None:
    entry = {"key": "team", "operator": operator, **({"values": values} if values else {})}
    assert matches_selector({"matchExpressions": [entry]}, {"team": "a"}) is matches


URLS = [
    ("a hostname", endpoint(), ListenerAddress("http", ("192.0.2.1",), 80, "a.x"), "http://a.x"),
    ("the address", endpoint(), ListenerAddress("http", ("192.0.2.1",), 80), "http://192.0.2.1"),
    ("another port", endpoint(), ListenerAddress("http", ("192.0.2.1",), 8080), "http://192.0.2.1:8080"),
    ("TLS", endpoint(), ListenerAddress("https", ("192.0.2.1",), 443, "a.x"), "https://a.x"),
    ("an IPv6 address in brackets", endpoint(), ListenerAddress("http", ("fd00::7",), 8080), "http://[fd00::7]:8080"),
    ("a path", endpoint(pathPrefix="/a/b"), ListenerAddress("http", ("192.0.2.1",), 80), "http://192.0.2.1/a/b"),
    ("not known yet", endpoint(), None, None),
]


@pytest.mark.parametrize(("wanted", "address", "expected"), [c[1:] for c in URLS], ids=[c[0] for c in URLS])
def test_urls(wanted: Endpoint, address: ListenerAddress | None, expected: str | None) -> None:
    assert endpoint_url(wanted, address) == expected
