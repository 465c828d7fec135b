"""The operator process on a real API server: starts, waits for its CRDs, stays quiet, and ends in order."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster import ControlPlane
from tests.lib.app_requests import requests
from tests.lib.audit import is_write
from tests.lib.control_plane import ROOT, Server
from tests.scale.operator_process import OperatorProcess

pytestmark = [pytest.mark.controlplane, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def plane() -> Iterator[Server]:
    with ControlPlane(audit=True) as plane:
        server = Server(plane)
        server.ok("apply", "-k", str(ROOT / "crds"))
        server.ok("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
        yield server


def log_lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def wait_for_line(log: Path, text: str, seconds: float = 30) -> dict[str, Any]:
    """The first log line whose message holds `text`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if log.exists():
            for line in log.read_text().splitlines():
                if text in line:
                    return dict(json.loads(line))
        time.sleep(0.05)
    pytest.fail(f"{text!r} is not in the log:\n{log.read_text()}")


def test_it_becomes_ready_and_writes_nothing_but_its_lease(plane: Server, tmp_path: Path) -> None:
    log = tmp_path / "log"
    mark = plane.plane.audit_log.stat().st_size
    with OperatorProcess(plane.plane.kubeconfig, log, sweep_seconds=3, sweep_grace_seconds=0.1) as operator:
        operator.wait_ready()
        time.sleep(9)
        metrics = operator.metrics()
        assert operator.stop() == 0
    asked = requests(plane.plane, mark)
    writes = {(e["verb"], e["objectRef"]["resource"]) for e in asked if is_write(e)}
    assert writes == {("create", "leases"), ("update", "leases")}
    assert not [e for e in asked if e["userAgent"].startswith("kopf") and e["verb"] not in ("get", "list", "watch")]
    assert 'modelwright_resyncs_total{result="ok"}' in metrics
    assert "modelwright_leader 1.0" in metrics
    lines = log_lines(log)
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines), "every line is JSON"
    assert not [line for line in lines if line["level"] in ("error", "critical") and "initializing" not in str(line)]
    lease = plane.get("lease", "modelwright-operator")
    assert not lease["spec"].get("holderIdentity"), "the Lease was given back"


def test_it_waits_for_its_crds_and_says_which(tmp_path: Path) -> None:
    with ControlPlane() as bare:
        server = Server(bare)
        log = tmp_path / "log"
        with OperatorProcess(bare.kubeconfig, log) as operator:
            line = wait_for_line(log, "waiting for our CRDs")
            assert "models.modelwright.dev" in line["missing"]
            assert "modelversions.modelwright.dev" in line["missing"]
            server.ok("apply", "-k", str(ROOT / "crds"))
            operator.wait_ready()
            assert operator.stop() == 0


def test_it_gives_up_on_its_crds_after_its_patience(tmp_path: Path) -> None:
    with ControlPlane() as bare, OperatorProcess(bare.kubeconfig, tmp_path / "log", crd_wait_seconds=3) as operator:
        assert operator.process is not None
        assert operator.process.wait(30) == 1
        line = wait_for_line(tmp_path / "log", "our CRDs are not installed")
        assert "apply crds/" in line["message"]


def test_without_a_cluster_it_says_what_to_do(tmp_path: Path) -> None:
    with OperatorProcess(tmp_path / "missing", tmp_path / "log") as operator:
        assert operator.process is not None
        assert operator.process.wait(30) == 1
    line = wait_for_line(tmp_path / "log", "no way to reach an API server")
    assert "Set KUBECONFIG" in line["message"]
    assert "exception" not in line


def test_it_waits_for_an_api_server_that_is_away(tmp_path: Path) -> None:
    nobody = {"server": "https://127.0.0.1:1"}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "clusters": [{"name": "c", "cluster": nobody}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    with OperatorProcess(kubeconfig, tmp_path / "log") as operator:
        wait_for_line(tmp_path / "log", "the API server could not be reached")
        assert operator.stop() == 0


def test_a_wrong_setting_is_named_and_nothing_is_started(plane: Server, tmp_path: Path) -> None:
    with OperatorProcess(plane.plane.kubeconfig, tmp_path / "log", qps="many") as operator:
        assert operator.process is not None
        assert operator.process.wait(30) == 2
    assert "MODELWRIGHT_QPS" in (tmp_path / "log").read_text()


def test_an_optional_kind_that_appears_makes_it_start_anew(plane: Server, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with OperatorProcess(plane.plane.kubeconfig, log, discovery_seconds=1) as operator:
        operator.wait_ready()
        plane.ok("apply", "-f", "-", objects=route_crd())
        assert operator.process is not None
        try:
            assert operator.process.wait(30) == 0
        except subprocess.TimeoutExpired:
            pytest.fail(log.read_text())
    assert "HTTPRoute appeared" in wait_for_line(log, "HTTPRoute appeared")["why"]
    assert not plane.get("lease", "modelwright-operator")["spec"].get("holderIdentity")
    with OperatorProcess(plane.plane.kubeconfig, log) as operator:
        operator.wait_ready()
        assert operator.stop() == 0
    asked = [e for e in requests(plane.plane) if e.get("objectRef", {}).get("resource") == "httproutes"]
    assert any(e["userAgent"].startswith("kopf") and e["verb"] == "list" for e in asked)


def route_crd() -> dict[str, Any]:
    """As much of the HTTPRoute CRD as discovery needs."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "httproutes.gateway.networking.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/4000"},
        },
        "spec": {
            "group": "gateway.networking.k8s.io",
            "scope": "Namespaced",
            "names": {"kind": "HTTPRoute", "plural": "httproutes", "singular": "httproute"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
