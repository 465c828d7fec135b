"""Services and routes: what they select, how requests are weighed, and how a live one is read."""

from typing import Any

import pytest

from modelwright.api.v1alpha1.model import Endpoint
from modelwright.core.revision import Revision
from modelwright.core.rollout.traffic_split import TrafficShare, TrafficSplit
from modelwright.render import routes, services
from tests.unit.render.builders import raw_model

ONE = Revision("digits-v1", "aaaaaaaaaa")


def endpoint(**more: Any) -> Endpoint:
    return Endpoint.model_validate({"parentRefs": [{"name": "models", "namespace": "gateways"}], **more})


def split(weights: dict[str, int]) -> TrafficSplit:
    shares = tuple(TrafficShare(Revision(f"digits-{key}", key), weight) for key, weight in weights.items())
    return TrafficSplit(shares, service_revision=shares[0].revision)


def route(marked: bool = False, weights: dict[str, int] | None = None, **more: Any) -> dict[str, Any]:
    return routes.render_route(raw_model(), endpoint(**more), split(weights or {ONE.hash: 100}), marked=marked)


def filters(found: dict[str, Any]) -> list[str]:
    return (
        [entry["type"] for entry in found["spec"]["rules"][0]["filters"]]
        if "filters" in found["spec"]["rules"][0]
        else []
    )


def test_the_models_service_selects_one_revision_readably() -> None:
    service = services.model_service(raw_model(), TrafficSplit.all_to(ONE), {ONE.hash: {"http": 8080}}, None)
    assert service["metadata"]["name"] == "digits"
    assert services.selected_revision(service) == ONE.hash
    assert [(p["port"], p["targetPort"]) for p in service["spec"]["ports"]] == [(80, 8080)]


PORTS = [
    ("numbers that agree", {"http": 8080}, {"http": 8080}, {80: 8080}),
    ("numbers that differ: each pod's own, by name", {"http": 8080}, {"http": 8000}, {80: "http"}),
    ("gRPC where both have it", {"http": 1, "grpc": 2}, {"http": 1, "grpc": 3}, {80: 1, 81: "grpc"}),
    ("and not where one has not", {"http": 1, "grpc": 2}, {"http": 1, "metrics": 3}, {80: 1}),
]


@pytest.mark.parametrize(("one", "two", "expected"), [c[1:] for c in PORTS], ids=[c[0] for c in PORTS])
def test_a_service_of_all_revisions_sends_to_the_ports_of_each(
    one: dict[str, int], two: dict[str, int], expected: dict[int, Any]
) -> None:
    shares = TrafficSplit((TrafficShare(ONE, 50), TrafficShare(Revision("digits-v2", "bbbbbbbbbb"), 50)))
    service = services.model_service(raw_model(), shares, {"aaaaaaaaaa": one, "bbbbbbbbbb": two}, None)
    assert {port["port"]: port["targetPort"] for port in service["spec"]["ports"]} == expected
    assert service["spec"]["selector"] == {"modelwright.dev/model": "digits", "modelwright.dev/role": "serving"}
    assert services.selects_all(service)


def test_grpc_has_a_port_of_its_own_that_says_what_it_speaks() -> None:
    service = services.revision_service(raw_model(), ONE, {"http": 8080, "grpc": 9000})
    assert service["metadata"]["name"] == "digits-aaaaaaaaaa"
    grpc = service["spec"]["ports"][1]
    assert (grpc["port"], grpc["targetPort"], grpc["appProtocol"]) == (81, 9000, "kubernetes.io/h2c")


def test_a_service_that_selects_no_revision_names_none() -> None:
    assert services.selected_revision({"spec": {"selector": {"app": "x"}}}) is None
    assert services.selected_revision({"spec": {}}) is None


PATHS = [
    ("the root is taken as it is", {}, "/", []),
    ("a prefix is taken off", {"pathPrefix": "/a/b"}, "/a/b", ["URLRewrite"]),
    ("a prefix is left on when asked to", {"pathPrefix": "/a", "stripPathPrefix": False}, "/a", []),
]


@pytest.mark.parametrize(("spec", "path", "expected"), [c[1:] for c in PATHS], ids=[c[0] for c in PATHS])
def test_paths(spec: dict[str, Any], path: str, expected: list[str]) -> None:
    found = route(**spec)
    assert found["spec"]["rules"][0]["matches"] == [{"path": {"type": "PathPrefix", "value": path}}]
    assert filters(found) == expected


def test_a_grpc_route_has_no_path_and_the_grpc_port() -> None:
    found = route(protocol="GRPC")
    (rule,) = found["spec"]["rules"]
    assert found["kind"] == "GRPCRoute"
    assert "matches" not in rule
    assert rule["backendRefs"] == [{"name": "digits-aaaaaaaaaa", "port": 81, "weight": 100}]


def test_what_weights_a_live_route_has() -> None:
    found = route(weights={"aaaaaaaaaa": 95, "bbbbbbbbbb": 5, "cccccccccc": 0})
    assert routes.read_route(found, "digits").weights == {"aaaaaaaaaa": 95, "bbbbbbbbbb": 5}
    assert routes.read_route({"spec": {}}, "digits").weights == {}


def test_a_weight_that_is_not_written_counts_as_one() -> None:
    live = {"spec": {"rules": [{"backendRefs": [{"name": "digits-x"}, {"name": "digits-x"}]}]}}
    assert routes.read_route(live, "digits").weights == {"x": 2}


def test_the_mark_changes_with_rules_and_hostnames_only() -> None:
    base = routes.route_mark(route(True))
    assert base is not None
    assert routes.route_mark(route(True)) == base
    assert routes.route_mark(route(True, hostnames=["a.example.com"])) != base
    assert routes.route_mark(route(True, weights={"bbbbbbbbbb": 100})) != base
    assert routes.route_mark(route(True, pathPrefix="/a")) != base
    assert routes.route_mark(route(False)) is None


def test_a_marked_route_still_takes_its_prefix_off() -> None:
    assert filters(route(True, pathPrefix="/a")) == ["URLRewrite", "ResponseHeaderModifier"]


def test_what_is_taken_back_is_said_so() -> None:
    """An apply only changes the members that it names, and a comparison only covers these."""
    found = route()
    assert found["spec"]["hostnames"] == []
    assert found["spec"]["rules"][0]["filters"] == []
    assert found["spec"]["parentRefs"] == [
        {"name": "models", "namespace": "gateways", "sectionName": None, "port": None}
    ]


CHANGES = {
    "set": [{"name": "X-Team", "value": "vision"}],
    "add": [{"name": "X-Via", "value": "us"}],
    "remove": ["X-Old"],
}
EXTENSION = {"type": "ExtensionRef", "extensionRef": {"group": "traefik.io", "kind": "Middleware", "name": "limit"}}
CORS = {"type": "CORS", "cors": {"allowOrigins": ["https://app.example.com"], "allowMethods": ["POST"]}}
OWN_FILTERS = [
    {"type": "RequestHeaderModifier", "requestHeaderModifier": CHANGES},
    {"type": "ResponseHeaderModifier", "responseHeaderModifier": CHANGES},
    CORS,
    EXTENSION,
]


def test_a_request_timeout_is_on_every_rule_when_set() -> None:
    rule = route(requestTimeout="10m")["spec"]["rules"][0]
    assert rule["timeouts"] == {"request": "10m"}
    assert "timeouts" not in route()["spec"]["rules"][0]
    live = route(requestTimeout="10m")
    assert routes.without_timeouts(route(), live)["spec"]["rules"][0]["timeouts"] is None
    assert "timeouts" not in routes.without_timeouts(route(), route())["spec"]["rules"][0]


def test_endpoint_filters_are_merged_with_mark_and_token_by_kind() -> None:
    shares = (TrafficShare(ONE, 100),)
    observed = TrafficSplit(shares, service_revision=ONE, observe_percent=100, copy_token="a-token")
    found = routes.render_route(raw_model(), endpoint(filters=OWN_FILTERS, pathPrefix="/a"), observed, marked=True)
    (rule,) = found["spec"]["rules"]
    kinds = [entry["type"] for entry in rule["filters"]]
    assert kinds == [entry["type"] for entry in OWN_FILTERS] + ["URLRewrite", "RequestMirror"]
    request, response = rule["filters"][0]["requestHeaderModifier"], rule["filters"][1]["responseHeaderModifier"]
    assert [header["name"] for header in request["set"]] == ["X-Team", "Modelwright-Copy-Token"]
    assert [header["name"] for header in response["set"]] == ["X-Team", "Modelwright-Route"]
    assert (request["add"], response["remove"]) == (CHANGES["add"], CHANGES["remove"])
    assert rule["filters"][3] == EXTENSION
    view = routes.read_route(found, "digits")
    assert (view.copy_token, view.observe_percent) == ("a-token", 100)
    assert routes.route_mark(found) is not None


def test_mark_and_hash_for_callers_change_with_the_filters() -> None:
    def made(filters: list[dict[str, Any]], token: str = "") -> dict[str, Any]:
        observed = TrafficSplit(
            (TrafficShare(ONE, 100),), service_revision=ONE, observe_percent=100 if token else 0, copy_token=token
        )
        return routes.render_route(raw_model(), endpoint(filters=filters), observed, marked=True)

    plain, filtered = made([]), made(OWN_FILTERS)
    assert routes.route_mark(plain) != routes.route_mark(filtered)
    assert routes.route_mark(filtered) != routes.route_mark(made([CORS]))
    assert routes.hash_for_callers(plain, "digits") == routes.hash_for_callers(made([], "a"), "digits")
    assert routes.hash_for_callers(filtered, "digits") != routes.hash_for_callers(plain, "digits")
    assert routes.hash_for_callers(made(OWN_FILTERS, "a"), "digits") == routes.hash_for_callers(filtered, "digits")
