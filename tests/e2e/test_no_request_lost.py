"""Through changes of version, a node drain and pods that go, no request is lost: open loop, counted by the client."""

import json
import os
import time
from collections.abc import Iterator

import pytest

from demo import figures, platform
from devcluster.load import BackgroundLoad, Report
from tests.e2e.conftest import BOTH_GATEWAYS
from tests.e2e.lib.space import MODELS, Space, eventually

pytestmark = pytest.mark.alone

RATE = 150
REQUESTS = 20_000


@pytest.fixture
def served(space: Space) -> Iterator[Space]:
    """A Model of two pods on two nodes, with the drain time that users get."""
    versions = [space.version(f"digits-{number}") for number in (1, 2, 3)]
    space.apply(*versions, space.model("digits-1", replicas=2, drainSeconds=None, maxRequestSeconds=None))
    space.wait_ready("digits-1")
    space.asks("digits-1")
    yield space
    for node in space.kubectl.items("nodes"):
        space.kubectl.run("uncordon", node["metadata"]["name"])


def nodes_of(space: Space) -> set[str]:
    return {pod["spec"]["nodeName"] for pod in space.pods()}


def ready_pods(space: Space) -> int:
    return space.get(MODELS, "digits")["status"].get("readyReplicas", 0)


def change_version(space: Space, version: str) -> None:
    space.set_version(version)
    space.wait_ready(version, timeout=180)


def drain_a_node(space: Space) -> None:
    node = sorted(nodes_of(space))[0]
    pods = "--pod-selector=modelwright.dev/model=digits"
    space.kubectl.run("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", pods, timeout=180)
    eventually(lambda: node not in nodes_of(space), f"no pod on {node}", timeout=60)
    eventually(lambda: ready_pods(space) == 2, "two ready pods beside the drained node", timeout=60)
    space.kubectl.run("uncordon", node)


def kill_a_pod(space: Space) -> None:
    # With grace 0 the API server forgets the pod at once, and the kubelet ends it as it finds it gone.
    space.kubectl.run(
        "delete", "pod", space.pods()[0]["metadata"]["name"], "-n", space.name, "--grace-period=0", "--force"
    )
    eventually(lambda: len(space.pods()) == 2 and ready_pods(space) == 2, "two ready pods again", timeout=60)


def delete_a_pod(space: Space) -> None:
    space.kubectl.run("delete", "pod", space.pods()[0]["metadata"]["name"], "-n", space.name, timeout=120)
    eventually(lambda: len(space.pods()) == 2 and ready_pods(space) == 2, "two ready pods again", timeout=60)


def _write_figures(report: Report, changes: int) -> None:
    found = [
        figures.build_figure("requests", report.total, "requests", f"at least {REQUESTS}", report.total >= REQUESTS),
        figures.build_figure("requests lost", len(report.lost), "requests", "0", not report.lost),
        figures.build_figure("on connections of their own", report.by_connection["fresh"], "requests"),
        figures.build_figure("changes of version, node drains and pods that went", changes, "disturbances"),
        figures.build_figure("latency p99", round(report.percentile(0.99) * 1000, 1), "ms"),
    ]
    command = "MODELWRIGHT_FIGURES=1 python -m pytest tests/e2e/test_no_request_lost.py"
    figures.write(figures.ROOT / "docs" / "figures" / "no-request-lost.json", command, found)


@pytest.mark.parametrize("space", BOTH_GATEWAYS, indirect=True)
@pytest.mark.timeout(900)
def test_no_request_is_lost(served: Space, record_property):
    space = served
    assert len(nodes_of(space)) == 2, "two pods spread over two nodes"
    marks = []

    def during(what: str, act, *arguments) -> None:
        begin = load.elapsed()
        act(space, *arguments)
        marks.append(f"{what}: from {begin:.1f} s to {load.elapsed():.1f} s")
        time.sleep(2)

    with BackgroundLoad(space.target(), rate=RATE, fresh_share=0.2) as load:
        time.sleep(2)
        during("change to version 2", change_version, "digits-2")
        during("node drain", drain_a_node)
        during("pod deleted", delete_a_pod)
        during("pod killed", kill_a_pod)
        during("change to version 3", change_version, "digits-3")
        load.run_until(REQUESTS)
    report = load.report
    print("\n".join([*marks, *report.lines()]))
    record_property("load", json.dumps(report.to_json()))
    if os.environ.get("MODELWRIGHT_FIGURES") and space.gateway == platform.GATEWAY:
        _write_figures(report, len(marks))
    assert report.lost == [], "\n".join([*marks, *report.lines(40)])
    assert report.total >= REQUESTS
    assert sum(report.versions.values()) == report.total
    assert set(report.versions) == {"digits-1", "digits-2", "digits-3"}
    assert report.by_connection["fresh"] >= REQUESTS // 5 - 1
