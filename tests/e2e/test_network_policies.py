"""The network policies of docs/how-to/network-policies.md, where they are enforced: all that is needed gets through."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from demo import platform
from demo.console import DemoError
from demo.kubectl import Json
from devcluster.cluster import Cluster
from tests.e2e.conftest import chart_values
from tests.e2e.lib.rollouts import CANARY, ERRORS, Story
from tests.e2e.lib.space import ANSWER, BODY, ModelwrightCluster, Space, eventually

pytestmark = [pytest.mark.peer, pytest.mark.alone, pytest.mark.timeout(900)]

EXAMPLE = Path(__file__).parents[2] / "examples/network-policies/models.yaml"
AGREEMENT = {"name": "same-answers", "builtin": "agreement", "min": "0.9", "minSamples": 100}
STEPS = [{"mirror": {"percent": 100, "hold": "5s"}}, *CANARY]


def host_of(cluster: Cluster) -> Json:
    """Gateway, Prometheus, DNS, store and API server are processes of one address here, not pods of namespaces."""
    return {"ipBlock": {"cidr": f"{platform.gateway(cluster)[0]}/32"}}


def of_the_example(space: Space) -> list[Json]:
    """The example's policies for this namespace and this cluster."""
    policies = [policy for policy in yaml.safe_load_all(EXAMPLE.read_text()) if policy]
    for policy in policies:
        policy["metadata"]["namespace"] = space.name
        for key, peers in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(key, []):
                # But for the operator, which is in pods here too.
                if any("namespaceSelector" in peer and "podSelector" not in peer for peer in rule[peers]):
                    rule[peers] = [host_of(space.world.cluster)]
                    rule.pop("ports", None)
    return policies


def around_the_operator(cluster: Cluster) -> Json:
    """The chart's values as the page has them."""
    others = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "modelwright"}}}
    asked = {"key": "modelwright.dev/role", "operator": "In", "values": ["comparer", "observer"]}
    comparers = {"namespaceSelector": {}, "podSelector": {"matchExpressions": [asked]}}
    egress = [
        {"to": [host_of(cluster)]},
        {"to": [others, comparers], "ports": [{"port": 8080, "protocol": "TCP"}]},
        {"to": [others], "ports": [{"port": 8090, "protocol": "TCP"}]},
    ]
    return {"networkPolicy": {"enabled": True, "from": [host_of(cluster)], "egress": egress}}


class Outsider:
    """A pod that Modelwright knows nothing of: it answers, and asks."""

    def __init__(self, space: Space) -> None:
        self._space = space
        container = {
            "name": "main",
            "image": space.world.images["v2-test"],
            "command": ["python3", "-m", "http.server", "8000", "--directory", "/tmp"],
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        spec = {"containers": [container], "securityContext": security}
        metadata = {"name": "outsider", "namespace": space.name}
        space.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        eventually(lambda: self._status()["phase"] == "Running", "the pod runs")
        self.url = f"http://{self._status()['podIP']}:8000/"

    def reaches(self, url: str) -> bool:
        """Whether a request from here is answered."""
        ask = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=3).read()"
        try:
            self._space.kubectl.run("exec", "-n", self._space.name, "outsider", "--", "python3", "-c", ask, url)
        except DemoError:
            return False
        return True

    def _status(self) -> Json:
        pod = self._space.get("pods", "outsider")
        assert pod is not None
        status: Json = pod["status"]
        return status


@pytest.fixture
def one_node(world: ModelwrightCluster) -> Iterator[str]:
    """All pods come to one node, and are held to policies there: our nodes share a network."""
    cluster = world.cluster
    if cluster.backend != "embedded":
        pytest.skip("the embedded cluster's network is the one that policies are enforced in")
    here, *others = cluster.node_names
    with ExitStack() as stack:
        for node in others:
            world.kubectl.run("cordon", node)
            stack.callback(world.kubectl.run, "uncordon", node)
        values = chart_values(cluster)
        stack.callback(_install, world, values)
        _install(world, {**values, **around_the_operator(cluster)})
        world.kubectl.run("delete", "pods", "-n", platform.SYSTEM, "-l", "app.kubernetes.io/component=operator")
        eventually(lambda: len(world.operators()) == 2, "both replicas are ready on that node")
        stack.enter_context(cluster.network_policies(here))
        yield here


def _install(world: ModelwrightCluster, values: dict[str, object]) -> None:
    for _ in platform.install(world.cluster, world.images, values):
        pass


@pytest.fixture
def stranger(world: ModelwrightCluster) -> Iterator[Outsider]:
    space = Space.create(world, "stranger")
    yield Outsider(space)
    space.remove()


def test_all_that_is_needed_gets_through_and_nothing_else(one_node: str, space: Space, stranger: Outsider) -> None:
    story, inside = Story(space, "digits"), Outsider(space)
    story.prepare({"steps": STEPS}, metrics=[ERRORS, AGREEMENT], gates={"infra": {}})
    assert {pod["spec"]["nodeName"] for pod in space.pods()} == {one_node}
    version = space.version(story.version(2), behaviour={})
    version["spec"]["samples"] = [{"request": json.loads(BODY), "expect": {"outputs": [{"data": [ANSWER]}]}}]
    service = f"http://digits.{space.name}.svc/v2/health/ready"
    assert stranger.reaches(service), "nobody has closed the namespace yet"
    assert inside.reaches(stranger.url)

    space.apply(*of_the_example(space))
    eventually(lambda: not stranger.reaches(service), "nothing comes in", timeout=120)
    eventually(lambda: not inside.reaches(stranger.url), "nothing goes out", timeout=120)
    operator = space.world.operators()[0]["status"]["podIP"]
    assert not stranger.reaches(f"http://{operator}:8080/metrics")
    said = platform.helm(space.world.cluster, "test", "modelwright", "-n", platform.SYSTEM, "--timeout", "2m")
    assert "Succeeded" in said

    space.apply(version)
    with story.load(40) as load:
        story.wants(2)
        record = story.until(2, "Succeeded", "RolledBack")
    assert record["status"]["reason"] == "Promoted", record["status"]
    assert load.report.lost == []
