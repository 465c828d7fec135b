"""What the manifests of a way of moving traffic do to a real gateway: shares, matches, copies, sticky callers, and no
request lost between them. The objects are written as the operator writes them, without the operator."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest

from demo import figures, platform
from devcluster import envoy
from devcluster.cluster import Cluster
from devcluster.load import BackgroundLoad, Target
from modelwright.api import names
from modelwright.api.v1alpha1.model import Endpoint
from modelwright.core.revision import Revision
from modelwright.core.rollout.traffic_split import HeaderCondition, TrafficShare, TrafficSplit
from modelwright.kube import kinds
from modelwright.render import services
from modelwright.traffic.gateway_probe import GatewayProbe
from modelwright.traffic.port import RouteStatus, RoutingObjects, TrafficRequirements, TrafficRouter
from modelwright.traffic.providers import choose_router
from modelwright.traffic.service import ServiceRouter
from tests.e2e.conftest import BOTH_GATEWAYS, has_gateway
from tests.e2e.lib.reader import reader
from tests.e2e.lib.space import ANSWER, BODY, ModelwrightCluster, Space, eventually

Json = dict[str, Any]
ONE, TWO = Revision("v1", "aaaaaaaaaa"), Revision("v2", "bbbbbbbbbb")
PORTS = {revision.hash: {"http": 8080} for revision in (ONE, TWO)}
READY = "/v2/models/digits/ready"
COPIES = "comparer"
UNREADY = "/tmp/unready"
"""A pod with this file is not ready, and goes on answering."""


def to(candidate: int, **more: Any) -> TrafficSplit:
    """Shares of revision one and two."""
    return TrafficSplit(
        (TrafficShare(ONE, 100 - candidate), TrafficShare(TWO, candidate)), service_revision=ONE, **more
    )


PLAIN = TrafficSplit.all_to(ONE)


@dataclass
class Stage:
    """A Model of two revisions and a comparer in a namespace, and its traffic."""

    space: Space
    image: str
    gateway_class: str
    figures: list[Json] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.host = f"digits.{self.space.name}.example.com"
        self.gateway = ("gateways", self.space.gateway)
        self.endpoint = Endpoint.model_validate(
            {"parentRefs": [{"name": self.gateway[1], "namespace": self.gateway[0]}], "hostnames": [self.host]}
        )
        self.model: Json = {
            "apiVersion": names.API_VERSION,
            "kind": "Model",
            "metadata": {"name": "digits", "namespace": self.space.name, "uid": "none"},
        }
        self.probe = GatewayProbe()

    @property
    def counts_off(self) -> bool:
        """Whether the gateway gives each its share in turn. Others draw lots: tests then allow five deviations."""
        return self.gateway_class == "traefik"

    def note(self, name: str, value: float, unit: str, bound: str | None = None, holds: bool | None = None) -> None:
        """A figure for docs/figures/traffic.json."""
        self.figures.append(figures.build_figure(name, value, unit, bound, holds))

    # What runs

    def run(self, name: str, labels: dict[str, str], version: str, replicas: int = 1) -> None:
        """Pods that answer as `version`."""
        content = json.dumps({"version": version, "behaviour": {}})
        files = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": self._metadata(name),
            "data": {"model.json": content},
        }
        container = {
            "name": "model",
            "image": self.image,
            "env": [
                {"name": key, "value": value}
                for key, value in {"MODEL_NAME": "digits", "MODEL_VERSION": version, "MODEL_DIR": "/mnt/models"}.items()
            ],
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"exec": {"command": ["test", "!", "-e", UNREADY]}, "periodSeconds": 1},
            "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
            "resources": {"requests": {"cpu": "250m", "memory": "32Mi"}},
            "volumeMounts": [{"name": "model", "mountPath": "/mnt/models"}],
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        pod = {
            "containers": [container],
            "volumes": [{"name": "model", "configMap": {"name": name}}],
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        }
        template = {"metadata": {"labels": labels}, "spec": pod}
        spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
        self.space.apply(
            files, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": self._metadata(name), "spec": spec}
        )

    def scale(self, name: str, replicas: int) -> None:
        self.space.kubectl.patch("deployments", name, self.space.name, {"spec": {"replicas": replicas}})
        eventually(lambda: self.ready(name) == replicas, f"{name} has {replicas} pods", every=0.2)

    def set_ready(self, name: str, ready: bool) -> None:
        command = ["rm", UNREADY] if ready else ["touch", UNREADY]
        for pod in self.space.items("pods", f"run={name}"):
            if "deletionTimestamp" not in pod["metadata"]:
                self.space.kubectl.run("exec", pod["metadata"]["name"], "-n", self.space.name, "--", *command)
        eventually(lambda: self.ready(name) == int(ready), f"{name} is ready: {ready}", every=0.2)

    def ready(self, name: str) -> int:
        return (self.space.get("deployments", name) or {}).get("status", {}).get("readyReplicas", 0)

    def asked(self, deployment: str) -> int:
        """Inference requests that the pods of a Deployment have answered."""
        counted = 0
        for pod in self.space.items("pods", f"run={deployment}"):
            path = f"/api/v1/namespaces/{self.space.name}/pods/{pod['metadata']['name']}:8080/proxy/metrics"
            text = self.space.kubectl.run("get", "--raw", path)
            counted += sum(int(found) for found in re.findall(r"^v2_requests_total\{.*\} (\d+)$", text, re.MULTILINE))
        return counted

    # Traffic

    def traffic(self) -> TrafficRouter:
        gateway_class = self.space.kubectl.get("gatewayclasses", self.gateway_class)
        return choose_router(self.endpoint, [gateway_class], kinds.ALL_KINDS, self.probe)

    def scene(self) -> RoutingObjects:
        gateway = self.space.kubectl.get("gateways", self.gateway[1], self.gateway[0])
        assert gateway is not None
        route, service = self.space.get("httproutes", "digits"), self.space.get("services", "digits")
        own = self.space.items("traefikservices", f"{names.LABEL_MODEL}=digits")
        return RoutingObjects(
            self.model,
            self.endpoint,
            service,
            route,
            {self.gateway: gateway},
            None,
            {obj["metadata"]["name"]: obj for obj in own},
        )

    def send(self, routing: TrafficSplit) -> None:
        """Write what leads there, and take away what is not wanted any more, at once: the worst case."""
        for manifest in self.traffic().render_manifests(self.scene(), routing, PORTS):
            self.put(manifest)
        for kind, name in self.traffic().list_obsolete(self.scene(), routing):
            self.space.delete(kind.plural, name)

    def moved(self, routing: TrafficSplit, timeout: float = 60) -> None:
        """Send, and wait until the gateway is seen to follow."""
        self.send(routing)
        eventually(self.confirmed, f"the gateway follows {routing}", timeout=timeout, every=0.2)
        routed = self.traffic().observe_split(self.scene())
        assert (routed.weights, routed.mirror_percent) == (routing.weights, routing.mirror_percent)

    def refuses(self, needs: TrafficRequirements) -> bool:
        return bool(self.traffic().list_unsupported_needs(self.scene(), needs))

    def confirmed(self) -> bool:
        evidence = self.evidence()
        assert evidence.confirmed, evidence
        return True

    def evidence(self) -> RouteStatus:
        return asyncio.run(self.traffic().check_routing(self.scene(), READY))

    def put(self, manifest: Json) -> None:
        metadata = manifest["metadata"]
        # There is no Model, and a child of an owner that isn't there would be collected.
        manifest = {**manifest, "metadata": {**metadata, "ownerReferences": None}}
        kind = kinds.kind_of(manifest).plural
        if self.space.get(kind, metadata["name"]) is None:
            self.space.kubectl.run("create", "-f", "-", stdin=json.dumps(_without_nulls(manifest)))
        else:
            self.space.kubectl.patch(kind, metadata["name"], self.space.name, _without_nulls_in_lists(manifest))

    def _metadata(self, name: str) -> Json:
        return {"name": name, "namespace": self.space.name}

    # Callers

    def client(self) -> httpx.Client:
        host, port = self.space.address()
        base = f"http://{host}:{port}/v2/models/digits"
        return httpx.Client(base_url=base, headers={"Host": self.host}, trust_env=False, timeout=10)

    def ask(self, client: httpx.Client, **headers: str) -> str:
        response = client.post("/infer", content=BODY, headers=headers)
        response.raise_for_status()
        body = response.json()
        assert body["outputs"][0]["data"] == [ANSWER]
        version: str = body["model_version"]
        return version

    def count(self, requests: int, **headers: str) -> Counter[str]:
        with self.client() as client:
            found: Counter[str] = Counter()
            for _ in range(requests):
                found[self.ask(client, **headers)] += 1
                client.cookies.clear()
            return found

    def count_inside(self, requests: int) -> Counter[str]:
        """Versions that answer a caller inside the cluster, who asks the Model's Service."""
        comparer = names.comparer_name("digits")
        code = (
            "import json, sys, urllib.request as u\n"
            f"for _ in range({requests}):\n"
            f"  r = u.Request('http://digits.{self.space.name}.svc/v2/models/digits/infer', {BODY!r})\n"
            "  print(json.load(u.urlopen(r, timeout=10))['model_version'])"
        )
        where = (f"deployment/{comparer}", "-n", self.space.name)
        return Counter(self.space.kubectl.run("exec", *where, "--", "python3", "-c", code).split())

    def target(self) -> Target:
        return Target(f"http://{self.host}/v2/models/digits/infer", BODY, self.space.address())


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(member) for key, member in value.items() if member is not None}
    return [_without_nulls(member) for member in value] if isinstance(value, list) else value


def _without_nulls_in_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls_in_lists(member) for key, member in value.items()}
    return _without_nulls(value)


@pytest.fixture(scope="module", params=BOTH_GATEWAYS)
def stage(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Stage]:
    has_gateway(cluster, request.param)
    images = platform.images(cluster, ("v2-test",))
    space = Space.create(ModelwrightCluster(cluster, reader(cluster), images), "traffic", gateway=request.param)
    stage = Stage(space, images["v2-test"], "traefik" if request.param == platform.GATEWAY else envoy.CLASS)
    for revision in (ONE, TWO):
        name = names.revision_name("digits", revision.hash)
        labels = names.revision_selector("digits", revision.hash) | {"run": name}
        stage.run(name, labels | {names.LABEL_ROLE: names.ROLE_SERVING}, revision.version)
        stage.put(services.revision_service(stage.model, revision, PORTS[revision.hash]))
    comparer = names.comparer_name("digits")
    stage.run(comparer, {"run": comparer}, COPIES)
    port = {"name": "http", "port": 80, "targetPort": 8080}
    # The observer's copies go to the same pods.
    for service in (comparer, names.observer_name("digits")):
        space.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": service, "namespace": space.name},
                "spec": {"selector": {"run": comparer}, "ports": [port]},
            }
        )
    for name in (*(names.revision_name("digits", revision.hash) for revision in (ONE, TWO)), comparer):
        eventually(lambda name=name: stage.ready(name) == 1, f"{name} is ready")
    yield stage
    space.remove()
    figured = os.environ.get("MODELWRIGHT_FIGURES") and request.param == platform.GATEWAY
    if figured and not request.session.testsfailed:
        command = "MODELWRIGHT_FIGURES=1 python -m pytest tests/e2e/test_traffic.py"
        figures.write(figures.ROOT / "docs" / "figures" / "traffic.json", command, stage.figures)


@pytest.fixture
def plain(stage: Stage) -> Stage:
    """The stage, with everything going to revision one."""
    stage.moved(PLAIN)
    return stage


def test_shares_are_kept(plain: Stage) -> None:
    plain.moved(to(10))
    counted = plain.count(1000)
    assert counted.total() == 1000
    share = counted["v2"] / 10
    plain.note("share at weight 10", share, "%", "7 to 13", abs(share - 10) <= 3)
    assert abs(share - 10) <= (3 if plain.counts_off else 5)


def test_only_requests_with_the_headers_go_to_the_candidate(plain: Stage) -> None:
    exact = (HeaderCondition("x-group", "beta"),)
    plain.moved(replace(PLAIN, match=exact, matched=TWO))
    assert plain.count(50, **{"x-group": "beta"}) == {"v2": 50}
    assert plain.count(50, **{"x-group": "alpha"}) == {"v1": 50}
    assert plain.count(50) == {"v1": 50}
    plain.moved(replace(PLAIN, match=(HeaderCondition("x-group", "^(beta|gamma)$", regex=True),), matched=TWO))
    assert plain.count(50, **{"x-group": "gamma"}) == {"v2": 50}
    assert plain.count(50, **{"x-group": "alpha"}) == {"v1": 50}


@pytest.mark.parametrize("taker", ["mirror_percent", "observe_percent"])
def test_half_of_the_requests_are_mirrored_unseen_by_callers(plain: Stage, taker: str) -> None:
    comparer = names.comparer_name("digits")
    plain.moved(replace(PLAIN, **{taker: 50}))
    before = plain.asked(comparer)
    assert plain.count(400) == {"v1": 400}
    slack = 5 if plain.counts_off else 50
    eventually(lambda: plain.asked(comparer) - before >= 200 - slack, "the copies have arrived", timeout=10)
    copies = plain.asked(comparer) - before
    if taker == "mirror_percent":
        plain.note("copies at 50 %", copies / 4, "% of the requests", "47 to 53", abs(copies - 200) <= 12)
    assert abs(copies - 200) <= slack


def test_without_a_gateway_the_pods_are_the_weights(plain: Stage) -> None:
    inside = ServiceRouter()
    for manifest in inside.render_manifests(plain.scene(), replace(to(50), service_revision=None), PORTS):
        plain.put(manifest)
    pods = {revision.hash: plain.ready(names.revision_name("digits", revision.hash)) for revision in (ONE, TWO)}
    assert inside.observe_split(replace(plain.scene(), ready_pods=pods)).weights == {ONE.hash: 50, TWO.hash: 50}
    eventually(lambda: len(plain.count_inside(20)) == 2, "both revisions answer", timeout=30)
    counted = plain.count_inside(400)
    assert counted.total() == 400
    assert 140 <= counted["v2"] <= 260, counted
    for manifest in inside.render_manifests(plain.scene(), PLAIN, PORTS):
        plain.put(manifest)
    eventually(lambda: plain.count_inside(20) == {"v1": 20}, "the serving revision alone answers", timeout=30)


def test_callers_are_sticky_and_new_ones_follow_the_weights(plain: Stage) -> None:
    if plain.refuses(TrafficRequirements(sticky=True)):
        pytest.skip("this gateway keeps no caller")
    plain.moved(to(10, sticky=True))
    callers = [plain.client() for _ in range(100)]
    first = [plain.ask(caller) for caller in callers]
    assert 7 <= Counter(first)["v2"] <= 13
    plain.moved(to(50, sticky=True))
    for _ in range(3):
        assert [plain.ask(caller) for caller in callers] == first
    counted = plain.count(400)
    assert abs(counted["v2"] - 200) <= 12, counted
    plain.note("callers who changed revision while sticky weights went from 10 to 50", 0, "callers of 100", "0", True)
    plain.moved(PLAIN)
    assert {plain.ask(caller) for caller in callers} == {"v1"}
    for caller in callers:
        caller.close()


def test_no_request_is_lost_between_all_ways_and_when_pods_go(plain: Stage) -> None:
    candidate, comparer = names.revision_name("digits", TWO.hash), names.comparer_name("digits")
    sticky = not plain.refuses(TrafficRequirements(sticky=True))
    with BackgroundLoad(plain.target(), rate=50, fresh_share=0.2) as load:
        for _ in range(2):
            plain.moved(replace(PLAIN, mirror_percent=50))
            plain.moved(to(10))
            if sticky:
                plain.moved(to(10, sticky=True))
                plain.moved(to(50, sticky=True))
            plain.moved(to(50, mirror_percent=100))
            plain.moved(PLAIN)
        plain.moved(replace(PLAIN, mirror_percent=100))
        plain.scale(comparer, 0)
        load.run_until(load.report.total + 500)
        plain.scale(comparer, 1)
        if sticky:
            plain.moved(to(50, sticky=True))
            plain.set_ready(candidate, False)
            eventually(lambda: set(load.recent()) == {"v1"}, "the serving revision answers all", timeout=20)
            assert "fallback" in str(plain.evidence().problem)
            plain.set_ready(candidate, True)
            eventually(plain.confirmed, "the candidate answers again", timeout=20)
        plain.moved(PLAIN)
    report = load.report
    print("\n".join(report.lines(40)))
    plain.note("requests while the route went through all ways, and pods went", report.total, "requests")
    plain.note("of them lost", len(report.lost), "requests", "0", not report.lost)
    assert report.lost == []
    assert report.versions["v2"] > 0
