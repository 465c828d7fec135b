"""Who may have a place on a gateway, whether a route is in force, and the URL it gives."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Endpoint
from modelwright.core.endpoints import Address, Claim, conflict, listener_address, route_problem, url


def endpoint(*refs: dict[str, Any], **more: Any) -> Endpoint:
    return Endpoint.model_validate({"parentRefs": list(refs) or [{"name": "g"}], **more})


def claim(name: str, created: int = 1, namespace: str = "vision", **more: Any) -> Claim:
    refs = more.pop("refs", [{"name": "g"}])
    return Claim(namespace, name, f"2026-11-21T{created:02}:00:00Z", endpoint(*refs, **more))


CLASHES = [
    ("the same place: the younger yields", claim("me", 2), claim("it", 1), True),
    ("the same place: the older keeps it", claim("me", 1), claim("it", 2), False),
    ("as old: the earlier name keeps it", claim("b", 1), claim("a", 1), True),
    ("as old: the later name yields", claim("a", 1), claim("b", 1), False),
    ("another path", claim("me", 2, pathPrefix="/a"), claim("it", 1), False),
    ("a longer path is another path", claim("me", 2, pathPrefix="/a/b"), claim("it", 1, pathPrefix="/a"), False),
    ("another hostname", claim("me", 2, hostnames=["a.x"]), claim("it", 1, hostnames=["b.x"]), False),
    ("one hostname of several", claim("me", 2, hostnames=["a.x", "b.x"]), claim("it", 1, hostnames=["b.x"]), True),
    ("any hostname is not a named one", claim("me", 2), claim("it", 1, hostnames=["b.x"]), False),
    ("another gateway", claim("me", 2, refs=[{"name": "h"}]), claim("it", 1), False),
    ("a gateway of that name in another namespace", claim("me", 2), claim("it", 1, namespace="other"), False),
    ("the same gateway from two namespaces", claim("me", 2, refs=[{"name": "g", "namespace": "gw"}]),
     claim("it", 1, namespace="other", refs=[{"name": "g", "namespace": "gw"}]), True),
    ("another listener", claim("me", 2, refs=[{"name": "g", "sectionName": "a"}]),
     claim("it", 1, refs=[{"name": "g", "sectionName": "b"}]), False),
    ("all listeners hold each", claim("me", 2), claim("it", 1, refs=[{"name": "g", "sectionName": "b"}]), True),
    ("another port", claim("me", 2, refs=[{"name": "g", "port": 80}]), claim("it", 1, refs=[{"name": "g", "port": 81}]),
     False),
    ("itself", claim("me", 2), claim("me", 1), False),
]  # fmt: skip


@pytest.mark.parametrize(("mine", "other", "expected"), [c[1:] for c in CLASHES], ids=[c[0] for c in CLASHES])
def test_conflicts(mine: Claim, other: Claim, expected: bool) -> None:
    found = conflict(mine, [other])
    assert (found is not None) is expected
    if found is not None:
        assert (found.reason, found.stalled) == (Reason.ROUTE_CONFLICT, True)
        assert f"{other.namespace}/{other.name}" in found.message


def test_of_several_rivals_the_oldest_is_named() -> None:
    found = conflict(claim("me", 9), [claim("second", 2), claim("first", 1), claim("third", 3)])
    assert found is not None
    assert "vision/first" in found.message


CLAIMS = st.builds(
    claim,
    st.sampled_from("abc"),
    st.integers(1, 3),
    st.sampled_from(["vision", "other"]),
    hostnames=st.sampled_from([[], ["a.x"], ["a.x", "b.x"]]),
    refs=st.sampled_from([[{"name": "g", "namespace": "gw"}], [{"name": "g"}]]),
)


@given(CLAIMS, CLAIMS)
def test_of_two_exactly_one_yields_or_none(a: Claim, b: Claim) -> None:
    if (a.namespace, a.name) == (b.namespace, b.name):
        return
    assert not (conflict(a, [b]) and conflict(b, [a]))
    if a.endpoint == b.endpoint and a.namespace == b.namespace:
        assert conflict(a, [b]) or conflict(b, [a])


def route(*parents: dict[str, Any], refs: int = 1, generation: int = 3) -> dict[str, Any]:
    return {
        "metadata": {"generation": generation},
        "spec": {"parentRefs": [{"name": f"g{n}"} for n in range(refs)]},
        "status": {"parents": list(parents)},
    }


def parent(name: str = "g0", generation: int = 3, **conditions: str) -> dict[str, Any]:
    told = {"Accepted": "True", "ResolvedRefs": "True", **conditions}
    return {
        "parentRef": {"name": name},
        "conditions": [
            {"type": t, "status": s, "reason": "Why", "message": "because", "observedGeneration": generation}
            for t, s in told.items()
            if s
        ],
    }


ROUTES = [
    ("accepted and resolved", route(parent()), None, False),
    ("no answer yet", route(), Reason.WAITING_FOR_ROUTE, False),
    ("no status at all", {"metadata": {"generation": 1}, "spec": {"parentRefs": [{"name": "g"}]}},
     Reason.WAITING_FOR_ROUTE, False),
    ("one of two has answered", route(parent(), refs=2), Reason.WAITING_FOR_ROUTE, False),
    ("both have", route(parent(), parent("g1"), refs=2), None, False),
    ("an answer to an older route", route(parent(generation=2)), Reason.WAITING_FOR_ROUTE, False),
    ("half an answer", route(parent(ResolvedRefs="")), Reason.WAITING_FOR_ROUTE, False),
    ("refused", route(parent(Accepted="False")), Reason.ROUTE_NOT_ACCEPTED, True),
    ("its Service isn't found", route(parent(ResolvedRefs="False")), Reason.ROUTE_NOT_ACCEPTED, True),
    ("accepted by one, refused by the other", route(parent(), parent("g1", Accepted="False"), refs=2),
     Reason.ROUTE_NOT_ACCEPTED, True),
]  # fmt: skip


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


def gateway(*listeners: dict[str, Any], address: str | None = "192.0.2.1") -> dict[str, Any]:
    status = {"addresses": [{"value": address}]} if address else {}
    return {"metadata": {"name": "g"}, "spec": {"listeners": list(listeners)}, "status": status}


HTTP = {"name": "http", "port": 80, "protocol": "HTTP"}
HTTPS = {"name": "https", "port": 443, "protocol": "HTTPS"}
TCP = {"name": "tcp", "port": 9, "protocol": "TCP"}

ADDRESSES = [
    ("the first that fits", gateway(TCP, HTTP, HTTPS), endpoint(), Address("http", "192.0.2.1", 80)),
    ("the named one", gateway(HTTP, HTTPS), endpoint({"name": "g", "sectionName": "https"}),
     Address("https", "192.0.2.1", 443)),
    ("by port", gateway(HTTP, HTTPS), endpoint({"name": "g", "port": 443}), Address("https", "192.0.2.1", 443)),
    ("no listener of that name", gateway(HTTP), endpoint({"name": "g", "sectionName": "x"}), None),
    ("no address yet", gateway(HTTP, address=None), endpoint(), None),
    ("another gateway", gateway(HTTP), endpoint({"name": "h"}), None),
    ("no status yet", {"metadata": {"name": "g"}, "spec": {"listeners": [HTTP]}}, endpoint(), None),
]  # fmt: skip


@pytest.mark.parametrize(("found", "wanted", "expected"), [c[1:] for c in ADDRESSES], ids=[c[0] for c in ADDRESSES])
def test_where_a_listener_answers(found: dict[str, Any], wanted: Endpoint, expected: Address | None) -> None:
    assert listener_address(found, wanted) == expected


URLS = [
    ("a hostname", endpoint(hostnames=["a.x", "b.x"]), Address("http", "192.0.2.1", 80), "http://a.x"),
    ("the address", endpoint(), Address("http", "192.0.2.1", 80), "http://192.0.2.1"),
    ("another port", endpoint(), Address("http", "192.0.2.1", 8080), "http://192.0.2.1:8080"),
    ("TLS", endpoint(hostnames=["a.x"]), Address("https", "192.0.2.1", 443), "https://a.x"),
    ("a path", endpoint(pathPrefix="/a/b"), Address("http", "192.0.2.1", 80), "http://192.0.2.1/a/b"),
    ("not known yet", endpoint(), None, None),
]


@pytest.mark.parametrize(("wanted", "address", "expected"), [c[1:] for c in URLS], ids=[c[0] for c in URLS])
def test_urls(wanted: Endpoint, address: Address | None, expected: str | None) -> None:
    assert url(wanted, address) == expected
