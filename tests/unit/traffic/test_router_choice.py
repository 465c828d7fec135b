"""Which way of moving traffic a Model gets, and what each refuses of a policy."""

from pathlib import Path
from typing import Any

import pytest

from modelwright.api.v1alpha1.model import Endpoint
from modelwright.core.revision import Revision
from modelwright.core.rollout.capacity import achieved_weight, replica_pods
from modelwright.core.rollout.traffic_split import TrafficSplit
from modelwright.kube import kinds
from modelwright.traffic import envoy
from modelwright.traffic.gateway_api import (
    MARK_FEATURE,
    MIRROR_FEATURE,
    MIRROR_PERCENT_FEATURE,
    TIMEOUT_FEATURE,
    GatewayRouter,
)
from modelwright.traffic.port import RoutingObjects, TrafficRequirements, TrafficRouter
from modelwright.traffic.providers import choose_router
from modelwright.traffic.service import ServiceRouter
from modelwright.traffic.traefik import CONTROLLER, TraefikRouter
from tests.unit.render.builders import raw_model

HTTP = Endpoint.model_validate({"parentRefs": [{"name": "g"}]})
GRPC = Endpoint.model_validate({"parentRefs": [{"name": "g"}], "protocol": "GRPC"})
WITHOUT_TRAEFIK = frozenset(kinds.ALL_KINDS) - {kinds.TRAEFIK_SERVICE}


def gateway_class(controller: str = "example.com/any", *features: str) -> dict[str, Any]:
    listed = [{"name": name} for name in features]
    return {"spec": {"controllerName": controller}, "status": {"supportedFeatures": listed}}


TRAEFIK, ANY = gateway_class(CONTROLLER), gateway_class("example.com/any")
CHOICES = [
    ("no endpoint", None, [], kinds.ALL_KINDS, ServiceRouter),
    ("any gateway", HTTP, [ANY], kinds.ALL_KINDS, GatewayRouter),
    ("Traefik", HTTP, [TRAEFIK], kinds.ALL_KINDS, TraefikRouter),
    ("Traefik twice", HTTP, [TRAEFIK, TRAEFIK], kinds.ALL_KINDS, TraefikRouter),
    ("Traefik without its own kinds", HTTP, [TRAEFIK], WITHOUT_TRAEFIK, GatewayRouter),
    ("Traefik and another: what both can do", HTTP, [TRAEFIK, ANY], kinds.ALL_KINDS, GatewayRouter),
    ("a class that can't be read", HTTP, [None], kinds.ALL_KINDS, GatewayRouter),
    ("Traefik and one that can't be read", HTTP, [TRAEFIK, None], kinds.ALL_KINDS, GatewayRouter),
    ("no gateway there yet", HTTP, [], kinds.ALL_KINDS, GatewayRouter),
]


@pytest.mark.parametrize(
    ("endpoint", "classes", "served", "expected"), [c[1:] for c in CHOICES], ids=[c[0] for c in CHOICES]
)
def test_the_way_follows_from_the_endpoint_and_the_gateways(
    endpoint: Endpoint | None, classes: Any, served: Any, expected: type
) -> None:
    assert type(choose_router(endpoint, classes, served, None)) is expected


def refused(traffic: TrafficRouter, needs: TrafficRequirements, endpoint: Endpoint | None = HTTP) -> tuple[str, ...]:
    return traffic.list_unsupported_needs(RoutingObjects(raw_model(), endpoint, None, None, {}), needs)


def gateway(*listed: tuple[str, ...]) -> TrafficRouter:
    return choose_router(
        HTTP, [gateway_class("example.com/any", *features) for features in listed], kinds.ALL_KINDS, None
    )


def test_what_several_gateways_can_do_is_what_all_of_them_can() -> None:
    needs = TrafficRequirements(mirror=True)
    assert not refused(gateway((MIRROR_FEATURE,), (MIRROR_FEATURE, "x")), needs)
    assert refused(gateway((MIRROR_FEATURE,), ("x",)), needs)
    assert refused(choose_router(HTTP, [gateway_class("x", MIRROR_FEATURE), None], kinds.ALL_KINDS, None), needs)


def test_envoy_gateway_has_features_that_it_does_not_list() -> None:
    part = TrafficRequirements(mirror=True, mirror_percent_below_100=True, match=True, observe_percent=10)
    assert not refused(choose_router(HTTP, [gateway_class(envoy.CONTROLLER)], kinds.ALL_KINDS, None), part)
    # A class that lists features has only those.
    listing = [gateway_class(envoy.CONTROLLER, MIRROR_FEATURE)]
    refusals = refused(
        choose_router(HTTP, listing, kinds.ALL_KINDS, None),
        TrafficRequirements(mirror=True, mirror_percent_below_100=True),
    )
    assert MIRROR_PERCENT_FEATURE in str(refusals)


def test_envoy_beside_an_unlisted_class_has_common_features_only() -> None:
    both = [gateway_class(envoy.CONTROLLER), ANY]
    assert refused(choose_router(HTTP, both, kinds.ALL_KINDS, None), TrafficRequirements(mirror=True))


def test_features_of_an_older_gateway_api_are_plain_texts() -> None:
    old = {"spec": {}, "status": {"supportedFeatures": [MIRROR_FEATURE]}}
    assert not refused(choose_router(HTTP, [old], kinds.ALL_KINDS, None), TrafficRequirements(mirror=True))


PLAIN, COPIES = GatewayRouter(None, frozenset()), GatewayRouter(None, frozenset({MIRROR_FEATURE}))
PERCENT = GatewayRouter(None, frozenset({MIRROR_FEATURE, MIRROR_PERCENT_FEATURE}))
OWN = TraefikRouter(None, frozenset())
INSIDE = ServiceRouter()
PART = TrafficRequirements(mirror=True, mirror_percent_below_100=True)
REFUSALS = [
    ("no gateway: a mirror", INSIDE, None, TrafficRequirements(mirror=True), ["spec.strategy.steps.mirror"]),
    ("no gateway: a match", INSIDE, None, TrafficRequirements(match=True), ["spec.strategy.steps.match"]),
    ("no gateway: sticky", INSIDE, None, TrafficRequirements(sticky=True), ["spec.strategy.sticky"]),
    ("no gateway: abTest", INSIDE, None, TrafficRequirements(ab_test=True, sticky=True), ["spec.strategy.abTest"]),
    (
        "no gateway: each is reported",
        INSIDE,
        None,
        TrafficRequirements(mirror=True, match=True),
        ["steps.mirror", "steps.match"],
    ),
    ("no gateway: coarse weights", INSIDE, None, TrafficRequirements(weights=(25, 50, 100), replicas=4), []),
    (
        "no gateway: weights too fine",
        INSIDE,
        None,
        TrafficRequirements(weights=(1, 50, 100), replicas=4),
        ["1 % can't be made"],
    ),
    (
        "no gateway: weights too fine near the end",
        INSIDE,
        None,
        TrafficRequirements(weights=(99,), replicas=4),
        ["99 % can't"],
    ),
    (
        "no gateway: one pod has only halves",
        INSIDE,
        None,
        TrafficRequirements(weights=(10,), replicas=1),
        ["nearest is 50.0 %"],
    ),
    (
        "no gateway: autoscaling",
        INSIDE,
        None,
        TrafficRequirements(weights=(25,), replicas=4, autoscaling=True),
        ["spec.serving.autos"],
    ),
    (
        "no gateway: autoscaling and all at once",
        INSIDE,
        None,
        TrafficRequirements(weights=(100,), autoscaling=True),
        [],
    ),
    (
        "a gateway: any weight",
        PLAIN,
        HTTP,
        TrafficRequirements(weights=(1, 99), replicas=1, autoscaling=True, match=True),
        [],
    ),
    ("a gateway that doesn't copy", PLAIN, HTTP, TrafficRequirements(mirror=True), [f"does not list {MIRROR_FEATURE}"]),
    ("a gateway that copies", COPIES, HTTP, TrafficRequirements(mirror=True), []),
    ("a gateway that copies all or nothing", COPIES, HTTP, PART, ["spec.strategy.steps.mirror.percent"]),
    ("a gateway that copies a part", PERCENT, HTTP, PART, []),
    (
        "a gateway: sticky",
        PERCENT,
        HTTP,
        TrafficRequirements(sticky=True),
        ["spec.strategy.sticky: the Gateway API has no"],
    ),
    (
        "a gateway: sticky abTest",
        PERCENT,
        HTTP,
        TrafficRequirements(sticky=True, ab_test=True),
        ["spec.strategy.abTest.sticky: "],
    ),
    ("a gateway: abTest", PERCENT, HTTP, TrafficRequirements(ab_test=True), []),
    ("a gateway: copies of gRPC", PERCENT, GRPC, TrafficRequirements(mirror=True), ["spec.endpoint.protocol is GRPC"]),
    (
        "no gateway: monitoring",
        INSIDE,
        None,
        TrafficRequirements(observe_percent=10),
        ["spec.monitoring needs a gateway"],
    ),
    (
        "a gateway that doesn't copy: monitoring",
        PLAIN,
        HTTP,
        TrafficRequirements(observe_percent=100),
        ["spec.monitoring: the gateway"],
    ),
    (
        "a gateway that copies all or nothing: monitoring",
        COPIES,
        HTTP,
        TrafficRequirements(observe_percent=99),
        ["spec.monitoring.mirrorP"],
    ),
    (
        "a gateway that copies all or nothing: monitoring all",
        COPIES,
        HTTP,
        TrafficRequirements(observe_percent=100),
        [],
    ),
    ("a gateway that copies a part: monitoring", PERCENT, HTTP, TrafficRequirements(observe_percent=1), []),
    (
        "a gateway: monitoring of gRPC",
        PERCENT,
        GRPC,
        TrafficRequirements(observe_percent=1),
        ["spec.endpoint.protocol is GRPC"],
    ),
    ("Traefik: monitoring", OWN, HTTP, TrafficRequirements(observe_percent=1), []),
    (
        "Traefik: monitoring of gRPC",
        OWN,
        GRPC,
        TrafficRequirements(observe_percent=1),
        ["spec.endpoint.protocol is GRPC"],
    ),
    (
        "Traefik: all of it",
        OWN,
        HTTP,
        TrafficRequirements(weights=(1,), mirror=True, match=True, sticky=True, ab_test=True),
        [],
    ),
    ("Traefik: copies of a part", OWN, HTTP, PART, []),
    (
        "Traefik: gRPC",
        OWN,
        GRPC,
        TrafficRequirements(mirror=True, sticky=True),
        ["steps.mirror: ", "spec.strategy.sticky: "],
    ),
    ("Traefik: gRPC by weights and headers", OWN, GRPC, TrafficRequirements(weights=(10,), match=True), []),
]


@pytest.mark.parametrize(
    ("traffic", "endpoint", "needs", "texts"), [c[1:] for c in REFUSALS], ids=[c[0] for c in REFUSALS]
)
def test_what_a_way_refuses_names_the_field(
    traffic: TrafficRouter, endpoint: Endpoint | None, needs: TrafficRequirements, texts: list[str]
) -> None:
    actual = refused(traffic, needs, endpoint)
    assert len(actual) == len(texts), actual
    for text, refusal in zip(texts, actual, strict=True):
        assert text in refusal
        assert refusal.startswith("spec.")


TIMED = Endpoint.model_validate({"parentRefs": [{"name": "g"}], "requestTimeout": "10m"})
FILTERED = Endpoint.model_validate(
    {
        "parentRefs": [{"name": "g"}],
        "filters": [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["X-Old"]}},
            {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["X-Old"]}},
            {"type": "CORS", "cors": {"allowOrigins": ["*"]}},
            {"type": "ExtensionRef", "extensionRef": {"group": "traefik.io", "kind": "Middleware", "name": "limit"}},
        ],
    }
)
TYPES = ["RequestHeaderModifier", "ResponseHeaderModifier", "CORS", "ExtensionRef"]
LACKING: list[tuple[str, Endpoint, tuple[str, ...], list[str], bool, list[str]]] = [
    ("a timeout that the class lists", TIMED, (TIMEOUT_FEATURE,), [], True, []),
    (
        "a timeout that it does not",
        TIMED,
        (),
        [f"requestTimeout: the gateway class does not list {TIMEOUT_FEATURE}"],
        False,
        [],
    ),
    ("filters that it lists", FILTERED, ("HTTPRouteCORS", MARK_FEATURE), [], False, TYPES),
    (
        "filters of which it lists one",
        FILTERED,
        (MARK_FEATURE,),
        ["filters[2]: the gateway class does not list HTTPRouteCORS"],
        False,
        [TYPES[0], TYPES[1], TYPES[3]],
    ),
    ("filters that need a feature", FILTERED, (), ["filters[1]: ", "filters[2]: "], False, [TYPES[0], TYPES[3]]),
]


@pytest.mark.parametrize("controller", ["example.com/any", CONTROLLER])
@pytest.mark.parametrize(
    ("endpoint", "features", "texts", "timed", "types"), [c[1:] for c in LACKING], ids=[c[0] for c in LACKING]
)
def test_unlisted_settings_are_reported_and_left_out(
    endpoint: Endpoint, features: tuple[str, ...], texts: list[str], timed: bool, types: list[str], controller: str
) -> None:
    traffic = choose_router(endpoint, [gateway_class(controller, *features)], kinds.ALL_KINDS, None)
    scene = RoutingObjects(raw_model(), endpoint, None, None, {})
    actual = traffic.list_unsupported_settings(scene)
    assert len(actual) == len(texts), actual
    for text, problem in zip(texts, actual, strict=True):
        assert problem.startswith("spec.endpoint.")
        assert text in problem
    one = Revision("digits-v1", "aaaaaaaaaa")
    route = traffic.render_manifests(scene, TrafficSplit.all_to(one), {one.hash: {"http": 8080}})[-1]
    (rule,) = route["spec"]["rules"]
    assert ("timeouts" in rule) == timed
    own = [e for e in rule["filters"] if "Modelwright-Route" not in str(e) or "X-Old" in str(e)]
    assert [entry["type"] for entry in own] == types


def table(heading: str) -> list[list[str]]:
    """The rows of a table in the docs, below its header."""
    text = (Path(__file__).parents[3] / "docs" / "how-to" / "traffic.md").read_text()
    lines = text[text.index(heading) :].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_pods_in_the_docs_are_those_that_are_asked_for() -> None:
    for replicas, *cells in table("| replicas | weight 10 |"):
        for wish, cell in zip((10, 25, 50, 75), cells, strict=True):
            refusals = refused(INSIDE, TrafficRequirements(weights=(wish,), replicas=int(replicas)), None)
            candidate, serving = replica_pods(int(replicas), wish)
            percent = "" if wish == 50 else f": {achieved_weight(candidate, serving)} %"
            assert cell == ("refused" if refusals else f"{candidate} and {serving}{percent}")


def test_what_the_docs_say_of_each_way_is_what_it_refuses() -> None:
    requirements_by_feature = {
        "`weight`": TrafficRequirements(weights=(50,)),
        "`match` on headers": TrafficRequirements(match=True),
        "`mirror`": TrafficRequirements(mirror=True),
        "`mirror.percent` below 100": TrafficRequirements(mirror=True, mirror_percent_below_100=True),
        "`sticky`": TrafficRequirements(sticky=True),
        "`abTest`": TrafficRequirements(ab_test=True),
        "`spec.monitoring` (a Model does)": TrafficRequirements(observe_percent=10),
    }
    rows = {row[0]: row[1:] for row in table("| feature of a policy | no gateway |")}
    for what, needs in requirements_by_feature.items():
        for traffic, endpoint, cell in zip((INSIDE, PERCENT, OWN), (None, HTTP, HTTP), rows[what], strict=True):
            assert bool(refused(traffic, needs, endpoint)) == cell.startswith("refused"), (what, cell)
