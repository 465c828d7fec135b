"""Two operators and one Lease on a real API server: one works, the other takes over, and never both."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster import ControlPlane
from modelwright.app.settings import Settings
from tests.lib.control_plane import ROOT, Server
from tests.scale.operator_process import OperatorProcess

pytestmark = [pytest.mark.controlplane, pytest.mark.timeout(300)]

# Long enough that a busy host leaves a leader time to renew it.
QUICK = {"lease_seconds": 6, "lease_renew_seconds": 4, "lease_retry_seconds": 0.5}
LONG = {"lease_seconds": 300, "lease_renew_seconds": 200}
SHUTDOWN_SECONDS = Settings().shutdown_seconds
PATIENCE = 120
"""Seconds within which whatever is awaited comes, on a busy host; far less than LONG."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with ControlPlane() as plane:
        server = Server(plane)
        server.ok("apply", "-k", str(ROOT / "crds"))
        server.ok("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
        yield server


@pytest.fixture(autouse=True)
def _no_lease(server: Server) -> None:
    server.ok("delete", "lease", "--ignore-not-found", "modelwright-operator")


def until(condition: Callable[[], Any]) -> None:
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < PATIENCE, f"not within {PATIENCE} s"
        time.sleep(0.05)


def holder(server: Server) -> str:
    found = server.run("get", "lease", "modelwright-operator", "-o", "jsonpath={.spec.holderIdentity}")
    return found.stdout


def pair(server: Server, tmp_path: Path, **settings: object) -> tuple[OperatorProcess, OperatorProcess]:
    """A leader and a standby, ready both."""
    kubeconfig = server.plane.kubeconfig
    first = OperatorProcess(kubeconfig, tmp_path / "first", instance="first", **settings).start()
    until(lambda: first.leads())
    second = OperatorProcess(kubeconfig, tmp_path / "second", instance="second", **settings).start()
    second.wait_ready()
    return first, second


@pytest.fixture
def started() -> Iterator[list[OperatorProcess]]:
    operators: list[OperatorProcess] = []
    yield operators
    for operator in operators:
        if operator.process is not None and operator.process.poll() is None:
            operator.process.send_signal(signal.SIGCONT)
            operator.kill()


def test_a_standby_serves_its_probes_and_waits(server: Server, tmp_path: Path, started: list[OperatorProcess]) -> None:
    first, second = pair(server, tmp_path)
    started += [first, second]
    time.sleep(5)
    assert first.leads()
    assert not second.leads()
    assert holder(server).startswith("first_")
    assert "standing by" in (tmp_path / "second").read_text()
    assert second.stop() == 0
    assert holder(server).startswith("first_")


def test_a_stopped_leader_releases_its_lease_to_the_standby(
    server: Server, tmp_path: Path, started: list[OperatorProcess]
) -> None:
    first, second = pair(server, tmp_path, **LONG)
    started += [first, second]
    assert first.stop() == 0
    until(lambda: second.leads())
    assert holder(server).startswith("second_")


def test_a_killed_leader_is_replaced_when_its_lease_expires(
    server: Server, tmp_path: Path, started: list[OperatorProcess]
) -> None:
    first, second = pair(server, tmp_path)
    started += [first, second]
    begin = time.monotonic()
    first.kill()
    until(lambda: second.leads())
    second.wait_ready()
    took = time.monotonic() - begin
    # How soon is measured by `make scale`, which kills a leader too.
    print(f"standby works {took:.1f} s after kill -9 of the leader")
    assert took > 10


def test_a_warm_standby_is_complete_and_writes_nothing_before(
    server: Server, tmp_path: Path, started: list[OperatorProcess]
) -> None:
    first, second = pair(server, tmp_path, **QUICK, warm_standby=True)
    started += [first, second]
    until(lambda: "the store is complete" in (tmp_path / "second").read_text())
    runtime = {
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "ClusterModelRuntime",
        "metadata": {"name": "warm"},
        "spec": {
            "formats": [{"name": "sklearn"}],
            "protocol": "V2",
            "ports": {"http": 8080},
            "container": {"image": "x"},
        },
    }
    server.ok("apply", "-f", "-", objects=runtime)
    until(lambda: 'modelwright_store_objects{kind="ClusterModelRuntime"} 1.0' in second.metrics())
    assert not second.leads()
    assert 'verb="update"' not in second.metrics()
    assert "work begins" not in (tmp_path / "second").read_text()
    first.kill()
    until(lambda: "work begins" in (tmp_path / "second").read_text())
    assert second.stop() == 0
    assert not holder(server)


def test_told_to_stop_before_it_leads_it_ends_at_once(
    server: Server, tmp_path: Path, started: list[OperatorProcess]
) -> None:
    for warm in (False, True):
        first, second = pair(server, tmp_path, warm_standby=warm)
        started += [first, second]
        begin = time.monotonic()
        assert second.stop() == 0
        assert time.monotonic() - begin < SHUTDOWN_SECONDS
        assert holder(server).startswith("first_")
        assert first.stop() == 0


def test_a_leader_paused_beyond_its_lease_ends_when_resumed(
    server: Server, tmp_path: Path, started: list[OperatorProcess]
) -> None:
    first, second = pair(server, tmp_path, **QUICK)
    started += [first, second]
    assert first.process is not None
    os.kill(first.process.pid, signal.SIGSTOP)
    until(lambda: second.leads())
    os.kill(first.process.pid, signal.SIGCONT)
    assert first.process.wait(PATIENCE) == 1
    assert "the Lease is lost" in (tmp_path / "first").read_text()
    assert second.leads()


def test_a_leader_whose_lease_is_deleted_ends(server: Server, tmp_path: Path, started: list[OperatorProcess]) -> None:
    first, second = pair(server, tmp_path, **QUICK)
    started += [first, second]
    server.ok("delete", "lease", "modelwright-operator")
    assert first.process is not None
    assert first.process.wait(PATIENCE) == 1
    until(lambda: second.leads())


def test_no_access_to_the_lease_is_said_and_waited_out(
    server: Server, tmp_path: Path, started: list[OperatorProcess]
) -> None:
    operator = OperatorProcess(server.plane.kubeconfig, tmp_path / "log", **QUICK, namespace="not-there").start()
    started.append(operator)
    log = tmp_path / "log"
    until(lambda: "not-there" in log.read_text())
    server.ok("create", "namespace", "not-there")
    until(lambda: operator.leads())
