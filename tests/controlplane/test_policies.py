"""What the operator says of a RolloutPolicy by itself, on a real API server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import ControlPlane
from tests.lib.app_requests import requests
from tests.lib.audit import is_write
from tests.lib.control_plane import ROOT, Server
from tests.scale.operator_process import OperatorProcess

pytestmark = [pytest.mark.controlplane, pytest.mark.timeout(300)]

NAME, NAMESPACE = "rp/shadow-then-canary", "vision"


@pytest.fixture(scope="module")
def plane() -> Iterator[Server]:
    with ControlPlane(audit=True) as plane:
        server = Server(plane)
        server.ok("apply", "-k", str(ROOT / "crds"))
        server.ok("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
        server.ok("create", "namespace", NAMESPACE)
        server.ok("apply", "-f", str(ROOT / "manifests/samples/rollout-policy.yaml"))
        yield server


def written(plane: ControlPlane, since: int = 0) -> list[tuple[str, str]]:
    """Verb and subresource of the operator's writes of policies."""
    found = [e["objectRef"] | {"verb": e["verb"]} for e in requests(plane, since) if is_write(e)]
    return [(o["verb"], o.get("subresource", "")) for o in found if o["resource"] == "rolloutpolicies"]


def test_each_edit_is_told_once_and_a_restart_tells_nothing(plane: Server, tmp_path: Path) -> None:
    def edit(patch: str, *conditions: str) -> None:
        plane.ok("patch", NAME, "-n", NAMESPACE, "--type=merge", "-p", patch)
        for condition in conditions:
            plane.ok("wait", f"--for=condition={condition}", NAME, "-n", NAMESPACE, "--timeout=60s")

    with OperatorProcess(plane.plane.kubeconfig, tmp_path / "one", settle_seconds=0) as operator:
        operator.wait_ready()
        edit("{}", "Ready", "Decidable")
        shown = plane.ok("get", NAME, "-n", NAMESPACE, "-o", "wide").splitlines()
        assert shown[0].split() == ["NAME", "PRESET", "DEADLINE", "ONFAILURE", "REQUESTS", "DECIDABLE", "READY", "AGE"]
        assert shown[1].split()[1:-1] == ["1h", "Rollback", "3", "True", "True"]
        edit('{"spec": {"deadline": "8m"}}', "Decidable=False")
        told = plane.get("rolloutpolicy", "shadow-then-canary", NAMESPACE)["status"]
        decidable = next(c for c in told["conditions"] if c["type"] == "Decidable")
        assert decidable["reason"] == "NeedsMoreRequests"
        assert f"it takes {told['requestsPerSecond']} requests per second" in decidable["message"]
        edit('{"spec": {"freeze": [{"schedule": "0 18 31 2 *", "duration": "1h"}]}}', "Stalled", "Ready=False")
        edit('{"spec": {"freeze": null, "deadline": "1h"}}', "Stalled=False", "Ready", "Decidable")
        assert operator.stop() == 0
    assert written(plane.plane) == [("patch", "status")] * 4
    mark = plane.plane.audit_log.stat().st_size
    with OperatorProcess(plane.plane.kubeconfig, tmp_path / "two", settle_seconds=0) as operator:
        operator.wait_ready()
        # A policy that is made later comes after the others in the queue.
        other = plane.get("rolloutpolicy", "shadow-then-canary", NAMESPACE)
        plane.ok(
            "apply", "-f", "-", objects=[{**other, "metadata": {"name": "zz", "namespace": NAMESPACE}, "status": {}}]
        )
        plane.ok("wait", "--for=condition=Ready", "rp/zz", "-n", NAMESPACE, "--timeout=60s")
        assert operator.stop() == 0
    assert written(plane.plane, mark) == [("patch", "status")]
