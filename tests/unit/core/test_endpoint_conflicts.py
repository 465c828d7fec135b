"""Conflicts over places on a gateway."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Endpoint
from modelwright.core.endpoint_conflicts import (
    GROUPING_DEPTH,
    EndpointClaim,
    age_key,
    find_conflict,
    hostname_problem,
    list_index_places,
    list_rival_places,
)


def endpoint(*refs: dict[str, Any], **more: Any) -> Endpoint:
    return Endpoint.model_validate({"parentRefs": list(refs) or [{"name": "g"}], **more})


def claim(name: str, created: int = 1, namespace: str = "vision", **more: Any) -> EndpointClaim:
    refs = more.pop("refs", [{"name": "g"}])
    return EndpointClaim(namespace, name, f"2026-11-21T{created:02}:00:00Z", endpoint(*refs, **more))


SHARED = [{"name": "g", "namespace": "gw"}]


def rival(created: int = 2, **more: Any) -> EndpointClaim:
    return claim("me", created, "other", refs=SHARED, **more)


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
    (
        "the same gateway from two namespaces",
        claim("me", 2, refs=[{"name": "g", "namespace": "gw"}]),
        claim("it", 1, namespace="other", refs=[{"name": "g", "namespace": "gw"}]),
        True,
    ),
    (
        "another listener",
        claim("me", 2, refs=[{"name": "g", "sectionName": "a"}]),
        claim("it", 1, refs=[{"name": "g", "sectionName": "b"}]),
        False,
    ),
    ("all listeners hold each", claim("me", 2), claim("it", 1, refs=[{"name": "g", "sectionName": "b"}]), True),
    (
        "another port",
        claim("me", 2, refs=[{"name": "g", "port": 80}]),
        claim("it", 1, refs=[{"name": "g", "port": 81}]),
        False,
    ),
    ("itself", claim("me", 2), claim("me", 1), False),
    (
        "of another namespace: a longer path takes callers",
        rival(pathPrefix="/a/b"),
        claim("it", 1, refs=SHARED, pathPrefix="/a"),
        True,
    ),
    ("of another namespace: a longer path below /", rival(pathPrefix="/a"), claim("it", 1, refs=SHARED), True),
    ("of another namespace: a shorter path takes none", rival(), claim("it", 1, refs=SHARED, pathPrefix="/a"), False),
    (
        "of another namespace: a path beside it",
        rival(pathPrefix="/ab"),
        claim("it", 1, refs=SHARED, pathPrefix="/a"),
        False,
    ),
    (
        "of another namespace: a longer path of the older one",
        rival(1, pathPrefix="/a/b"),
        claim("it", 2, refs=SHARED, pathPrefix="/a"),
        False,
    ),
    (
        "of another namespace: a wildcard over an exact name",
        rival(hostnames=["*.x"]),
        claim("it", 1, refs=SHARED, hostnames=["a.x"]),
        True,
    ),
    (
        "of another namespace: a wildcard over an exact name with a longer path",
        rival(hostnames=["*.x"]),
        claim("it", 1, refs=SHARED, hostnames=["a.x"], pathPrefix="/a"),
        False,
    ),
    (
        "of another namespace: an exact name below a wildcard",
        rival(hostnames=["a.b.x"]),
        claim("it", 1, refs=SHARED, hostnames=["*.x"]),
        True,
    ),
    (
        "of another namespace: an exact name and a shorter path below a wildcard",
        rival(hostnames=["a.x"]),
        claim("it", 1, refs=SHARED, hostnames=["*.x"], pathPrefix="/a"),
        True,
    ),
    (
        "of another namespace: a wildcard below a wildcard",
        rival(hostnames=["*.b.x"]),
        claim("it", 1, refs=SHARED, hostnames=["*.x"]),
        True,
    ),
    (
        "of another namespace: the name of a wildcard itself",
        rival(hostnames=["x"]),
        claim("it", 1, refs=SHARED, hostnames=["*.x"]),
        False,
    ),
    (
        "of another namespace: no hostname is in no conflict",
        rival(),
        claim("it", 1, refs=SHARED, hostnames=["a.x"]),
        False,
    ),
    ("of another namespace: nor is it taken from", rival(hostnames=["a.x"]), claim("it", 1, refs=SHARED), False),
    ("of the same namespace: a longer path", claim("me", 2, pathPrefix="/a/b"), claim("it", 1), False),
    ("of the same namespace: a wildcard", claim("me", 2, hostnames=["*.x"]), claim("it", 1, hostnames=["a.x"]), False),
]


@pytest.mark.parametrize(("mine", "other", "expected"), [c[1:] for c in CLASHES], ids=[c[0] for c in CLASHES])
def test_conflicts(mine: EndpointClaim, other: EndpointClaim, expected: bool) -> None:
    found = find_conflict(mine, [other])
    assert (found is not None) is expected
    if found is not None:
        assert (found.reason, found.stalled) == (Reason.ROUTE_CONFLICT, True)
        assert f"{other.namespace}/{other.name}" in found.message


def test_of_several_rivals_the_oldest_is_named() -> None:
    found = find_conflict(claim("me", 9), [claim("second", 2), claim("first", 1), claim("third", 3)])
    assert found is not None
    assert "vision/first" in found.message


CLAIMS = st.builds(
    claim,
    st.sampled_from("abc"),
    st.integers(1, 3),
    st.sampled_from(["vision", "other"]),
    hostnames=st.sampled_from(
        [[], ["a.x"], ["a.x", "b.x"], ["*.x"], ["*.a.x", "b.x"], ["c.b.a.x"], ["*.e.d.c.b.a.x"], ["f.e.d.c.b.a.x"]]
    ),
    refs=st.sampled_from([[{"name": "g", "namespace": "gw"}], [{"name": "g"}]]),
    pathPrefix=st.sampled_from(["/", "/a", "/a/b", "/a/b/c/d/e/f", "/a/b/c/d/e/f/g", "/ab"]),
)


@given(CLAIMS, CLAIMS)
def test_rivals_are_found_by_the_places_of_both(a: EndpointClaim, b: EndpointClaim) -> None:
    mine, other = sorted((a, b), key=age_key, reverse=True)
    if find_conflict(mine, [other]) is None:
        return
    wires = [(c.namespace, c.endpoint.wire()) for c in (mine, other)]
    assert set(list_rival_places(*wires[0], younger=False)) & set(list_index_places(*wires[1]))
    assert set(list_rival_places(*wires[1], younger=True)) & set(list_index_places(*wires[0]))


def test_places_are_bounded_for_any_endpoint() -> None:
    hosts = [f"{'a.' * 117}h{number}.example.com" for number in range(16)]
    refs = [{"name": "g", "port": number + 1} for number in range(8)]
    wire = endpoint(*refs, hostnames=hosts, pathPrefix="/a" * 128).wire()
    assert len(list(list_index_places("vision", wire))) <= 16 * 8 * (2 * GROUPING_DEPTH + 3)
    assert len(set(list_rival_places("vision", wire, younger=False))) <= 16 * (128 + 130)


ALLOWED = [
    ("without patterns any", ["evil.example.com"], [], None),
    ("the namespace's own", ["vision.example.com"], ["{namespace}.example.com"], None),
    ("one of several patterns", ["a.vision.example.com"], ["x.y", "*.{namespace}.example.com"], None),
    ("a wildcard below a pattern", ["*.vision.example.com"], ["*.{namespace}.example.com"], None),
    ("* is any, and none", [], ["*"], None),
    ("another namespace's", ["other.example.com"], ["{namespace}.example.com"], "other.example.com is not for"),
    ("a wildcard over the pattern", ["*.example.com"], ["*.{namespace}.example.com"], "*.example.com is not for"),
    ("an ending that only resembles it", ["evilvision.example.com"], ["*.vision.example.com"], "evilvision"),
    ("one of two", ["vision.example.com", "b.x"], ["{namespace}.example.com"], "hostnames: b.x is not for"),
    ("none at all", [], ["{namespace}.example.com"], "none (all hostnames of the listener) is not for"),
]


@pytest.mark.parametrize(
    ("hosts", "patterns", "expected"), [row[1:] for row in ALLOWED], ids=[row[0] for row in ALLOWED]
)
def test_hostnames_by_namespace(hosts: list[str], patterns: list[str], expected: str | None) -> None:
    found = hostname_problem("vision", endpoint(hostnames=hosts), patterns)
    assert (found is None) is (expected is None)
    if found is not None and expected is not None:
        assert (found.reason, found.stalled) == (Reason.HOSTNAME_NOT_ALLOWED, True)
        assert expected in found.message


@given(CLAIMS, CLAIMS)
def test_of_two_exactly_one_yields_or_none(a: EndpointClaim, b: EndpointClaim) -> None:
    if (a.namespace, a.name) == (b.namespace, b.name):
        return
    assert not (find_conflict(a, [b]) and find_conflict(b, [a]))
    if a.endpoint == b.endpoint and a.namespace == b.namespace:
        assert find_conflict(a, [b]) or find_conflict(b, [a])
