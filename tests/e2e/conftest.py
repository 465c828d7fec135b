"""Fixtures of the end-to-end tests: one cluster with Modelwright in it for all, a namespace for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from demo import platform
from devcluster import paths
from devcluster.cluster import Cluster
from devcluster.envoy import GATEWAY as ENVOY_GATEWAY
from tests.e2e.lib.reader import reader
from tests.e2e.lib.space import ModelwrightCluster, Space

# Its definition comes to the cluster later than the operator, when the tests that need it begin.
JOB_SET = {"group": "jobset.x-k8s.io", "version": "v1alpha2", "kind": "JobSet", "plural": "jobsets"}
# The first needs a cluster without Modelwright, and leaves one. The others take longest: processes share the files.
# Pods of the story and of the engines ask for most CPU, and would wait for each other.
FIRST = (
    "test_quickstart.py",
    "test_story.py",
    "test_bad_input_pods.py",
    "test_retraining.py",
    "test_gates.py",
    "test_engines.py",
    "test_shadow.py",
    "test_traffic.py",
)
ENVOY = ENVOY_GATEWAY["name"]
RUNTIME = Path(__file__).parents[1] / "servers" / "v2" / "runtime.yaml"


def chart_values(cluster: Cluster) -> dict[str, object]:
    """What all tests share an install with."""
    # One connection leads nowhere: what becomes of rollouts whose metrics server is gone.
    away = {"name": "gone", "type": "Prometheus", "url": "http://127.0.0.1:9", "timeout": "1s", "enforcedLabel": ""}
    return {"connections": [*platform.connections(cluster), away], "training": {"kinds": [JOB_SET]}}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
    order = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """Found running or brought up; left running, since it is whoever ran the tests that takes it down."""
    return platform.bring_up()


@pytest.fixture(scope="session")
def world(cluster: Cluster, testrun_uid: str) -> ModelwrightCluster:
    """Modelwright as its chart installs it, from this checkout, and the runtime of the tests."""
    # Several processes of pytest ask for it at once; the first of a run installs it.
    installed = paths.cache() / "locks" / "e2e-installed"
    with paths.locked(paths.cache() / "locks" / "e2e-install.lock"):
        images = platform.images(cluster, ("operator", "fetch", "v2-test", "mlserver", "trainer", "datacheck"))
        if not installed.exists() or installed.read_text() != testrun_uid:
            for _ in platform.install(cluster, images, chart_values(cluster)):
                pass
            installed.write_text(testrun_uid)
    kubectl = reader(cluster)
    runtime = yaml.safe_load(RUNTIME.read_text())
    runtime["spec"]["container"]["image"] = images["v2-test"]
    kubectl.apply(runtime)
    return ModelwrightCluster(cluster, kubectl, images)


BOTH_GATEWAYS = (platform.GATEWAY, pytest.param(ENVOY, marks=pytest.mark.peer))
"""Gateways that a test is run with: `@pytest.mark.parametrize("space", BOTH_GATEWAYS, indirect=True)`."""


def has_gateway(cluster: Cluster, gateway: str) -> None:
    """Have this Gateway, or skip the test."""
    if gateway == ENVOY and not cluster.envoy():
        pytest.skip("Envoy Gateway is installed in the full embedded cluster only")


def _space(world: ModelwrightCluster, request: pytest.FixtureRequest, prefix: str) -> Iterator[Space]:
    gateway = getattr(request, "param", platform.GATEWAY)
    has_gateway(world.cluster, gateway)
    space = Space.create(world, prefix, gateway=gateway)
    failed = request.session.testsfailed
    yield space
    if request.session.testsfailed > failed:
        print(f"\n--- namespace {space.name} after a failure\n{space.report()}")
    space.remove()


@pytest.fixture
def space(world: ModelwrightCluster, request: pytest.FixtureRequest) -> Iterator[Space]:
    """A namespace of this test's own; when the test fails, all that is in it is shown."""
    name: str = request.function.__name__
    yield from _space(world, request, name.removeprefix("test_").replace("_", "-")[:30].rstrip("-"))


@pytest.fixture(scope="module")
def shared_space(world: ModelwrightCluster, request: pytest.FixtureRequest) -> Iterator[Space]:
    """A namespace that the tests of one file share."""
    yield from _space(world, request, Path(request.node.name).stem.removeprefix("test_").replace("_", "-")[:30])
