"""The network policies of docs/how-to/network-policies.md, by kube-router's rules, on pods as they are really rendered:
what the page says gets through, and nothing else. `make test-peers PEER=kube-router` tries it in a kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from modelwright.core.revision import Revision
from modelwright.render import comparer_pod
from modelwright.render.mirror_target import MirrorSettings
from tests.lib.network_policies import Pod, allowed, selects
from tests.packaging.render import NAMESPACE, ROOT, Object, only, template
from tests.unit.render.builders import IMAGES, raw_model

PAGE = ROOT / "docs/how-to/network-policies.md"
EXAMPLE = ROOT / "examples/network-policies/models.yaml"
OPERATOR = yaml.safe_load((ROOT / "manifests/install/base/deployment.yaml").read_text())
VISION = "vision"
OTHERS = {
    "gateway": Pod("gateways"),
    "Prometheus": Pod("monitoring"),
    "store": Pod("store"),
    "DNS": Pod("kube-system"),
    "operator": Pod.of(NAMESPACE, OPERATOR),
    "stranger": Pod("elsewhere"),
    "unlabelled": Pod(VISION),
    "API server": Pod("", address="10.0.0.10"),
}
"""Who else there is."""


def _rendered() -> Iterator[tuple[str, Pod]]:
    """Every pod of tests/golden, and the comparer's, by role."""
    old, new = Revision("digits-v1", "aaa"), Revision("digits-v2", "bbb")
    found = [comparer_pod.comparer_deployment(raw_model(), old, new, IMAGES, MirrorSettings())]
    for file in sorted((ROOT / "tests/golden").glob("*.yaml")):
        found += [obj for obj in yaml.safe_load_all(file.read_text()) if obj]
    for obj in found:
        if obj["kind"] in ("Pod", "Deployment", "Job"):
            pod = Pod.of(VISION, obj)
            yield pod.labels["modelwright.dev/role"], pod


RENDERED = list(_rendered())
PODS = {**OTHERS, **dict(RENDERED)}
SERVERS = ("serving", "comparer", "observer")
OURS = ("serving", "comparer", "observer", "resolve", "gate", "training")


def around_models() -> list[Object]:
    policies = [policy for policy in yaml.safe_load_all(EXAMPLE.read_text()) if policy]
    for policy in policies:
        policy["metadata"]["namespace"] = VISION
    return policies


def of_the_chart() -> list[Object]:
    return [obj for obj in template(**of_the_page("modelNetworkPolicies")) if obj["kind"] == "NetworkPolicy"]


def test_every_role_on_the_page_has_a_rendered_pod() -> None:
    listed = set(re.findall(r"`([a-z]+)`", " ".join(re.findall(r"^\| (`.*?) \|", PAGE.read_text(), re.MULTILINE))))
    # A look is a resolve pod's twin; the Job of a metric is the user's own.
    assert listed - {"look", "metric"} == {role for role, _ in RENDERED} == set(OURS)


THROUGH = [
    *((caller, server, 8080) for caller in ("gateway", "Prometheus") for server in SERVERS),
    *((asker, "serving", 8080) for asker in ("comparer", "observer", "gate")),
    *(("operator", ours, 8080) for ours in ("comparer", "observer")),
    *((ours, "store", 9000) for ours in OURS),
    *((ours, "DNS", 53) for ours in OURS),
]
HELD_BACK = [
    *(("stranger", ours, 8080) for ours in OURS),
    *((ours, "stranger", 8080) for ours in OURS),
    *(("unlabelled", ours, 8080) for ours in OURS),
    *((ours, "unlabelled", 8080) for ours in OURS),
    *((ours, "API server", 6443) for ours in OURS),
    *((ours, "store", 22) for ours in OURS),
    ("operator", "comparer", 9000),
    *(("operator", ours, 8080) for ours in OURS if ours not in ("comparer", "observer")),
    *(("gateway", ours, 8080) for ours in OURS if ours not in SERVERS),
]


@pytest.mark.parametrize(("source", "destination", "port"), THROUGH)
def test_around_models_what_is_needed_gets_through(source: str, destination: str, port: int) -> None:
    _each(around_models(), source, destination, port, wanted=True)


@pytest.mark.parametrize(("source", "destination", "port"), HELD_BACK)
def test_around_models_all_else_is_held_back(source: str, destination: str, port: int) -> None:
    _each(around_models(), source, destination, port, wanted=False)


@pytest.mark.chart
@pytest.mark.parametrize(("source", "destination", "port"), THROUGH)
def test_the_charts_policies_allow_what_models_need(source: str, destination: str, port: int) -> None:
    _each(of_the_chart(), source, destination, port, wanted=True)


@pytest.mark.chart
@pytest.mark.parametrize(("source", "destination", "port"), HELD_BACK)
def test_the_charts_policies_around_models_hold_back_all_else(source: str, destination: str, port: int) -> None:
    _each(of_the_chart(), source, destination, port, wanted=False)


@pytest.mark.chart
def test_the_charts_policies_do_not_select_other_pods() -> None:
    policies = of_the_chart()
    assert {policy["metadata"]["namespace"] for policy in policies} == {VISION}
    assert allowed(policies, PODS["stranger"], PODS["unlabelled"], 8080)
    assert allowed(policies, PODS["unlabelled"], PODS["stranger"], 8080)
    assert not [obj for obj in template() if obj["kind"] == "NetworkPolicy"]


def _each(policies: list[Object], source: str, destination: str, port: int, *, wanted: bool) -> None:
    """For all pods that were rendered with these roles."""
    pods: dict[str, list[Pod]] = {name: [pod] for name, pod in OTHERS.items()}
    for role, pod in RENDERED:
        pods.setdefault(role, []).append(pod)
    for sender in pods[source]:
        for receiver in pods[destination]:
            assert allowed(policies, sender, receiver, port) is wanted, (sender, receiver)


def test_names_are_looked_up_by_udp_too() -> None:
    assert allowed(around_models(), PODS["serving"], PODS["DNS"], 53, "UDP")
    assert not allowed(around_models(), PODS["serving"], PODS["store"], 9000, "UDP")


def test_without_policies_everything_gets_through() -> None:
    assert allowed([], PODS["stranger"], PODS["serving"], 8080)


def of_the_page(key: str = "networkPolicy") -> dict[str, Any]:
    (text,) = re.findall(rf"```yaml\n({key}:.*?)```", PAGE.read_text(), re.DOTALL)
    values: dict[str, Any] = yaml.safe_load(text)
    return values


@pytest.mark.chart
def test_only_what_the_page_allows_reaches_the_operator() -> None:
    rendered = template(**of_the_page())
    policies = [obj for obj in rendered if obj["kind"] == "NetworkPolicy"]
    replica, tester = (Pod.of(NAMESPACE, only(rendered, kind)) for kind in ("Deployment", "Pod"))
    pods = {**PODS, "operator": replica, "other replica": replica, "helm test": tester}

    def lets(source: str, destination: str, port: int) -> bool:
        return allowed(policies, pods[source], pods[destination], port)

    for source in ("Prometheus", "other replica", "helm test"):
        assert lets(source, "operator", 8080), source
        assert lets(source, "operator", 8090), source
        assert not lets(source, "operator", 8081), source
    for destination, port in (
        ("DNS", 53),
        ("API server", 6443),
        ("comparer", 8080),
        ("observer", 8080),
        ("gateway", 80),
        ("Prometheus", 9090),
    ):
        assert lets("operator", destination, port), destination
    for other in ("stranger", "gateway", "serving"):
        assert not lets(other, "operator", 8080), other
        assert not lets(other, "operator", 8090), other
    for destination, port in (("stranger", 8080), ("serving", 8080), ("store", 9000), ("API server", 443)):
        assert not lets("operator", destination, port), destination


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        ({"operator": "In", "values": ["a"]}, [True, False, False]),
        ({"operator": "NotIn", "values": ["a"]}, [False, True, True]),
        ({"operator": "Exists"}, [True, True, False]),
        ({"operator": "DoesNotExist"}, [False, False, True]),
    ],
    ids=lambda value: value["operator"] if isinstance(value, dict) else "",
)
def test_selectors(expression: Object, matches: list[bool]) -> None:
    selector = {"matchExpressions": [{"key": "k", **expression}]}
    assert [selects(selector, labels) for labels in ({"k": "a"}, {"k": "b"}, {})] == matches
