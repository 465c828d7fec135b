"""A real control plane in seconds, several at once, and nothing left of it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from devcluster import ControlPlane, parts

REPOSITORY = Path(__file__).parents[2]


def kubectl(plane: ControlPlane, *arguments: str, text: str | None = None) -> Any:
    command = [str(plane.kubectl), f"--kubeconfig={plane.kubeconfig}", *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.controlplane
def test_two_at_once_are_two_worlds_and_leave_nothing() -> None:
    with ControlPlane(audit=True) as first, ControlPlane() as second:
        kubectl(first, "create", "namespace", "only-here")
        assert "only-here" in kubectl(first, "get", "namespaces")
        assert "only-here" not in kubectl(second, "get", "namespaces")
        version = json.loads(kubectl(first, "version", "--output=json"))["serverVersion"]
        assert version["gitVersion"] == f"v{parts.tool_of('kube-apiserver').version()}"
        assert first.audit_log is not None
        events = [json.loads(line) for line in first.audit_log.read_text().splitlines()]
        assert {event["stage"] for event in events} <= {"ResponseComplete", "ResponseStarted", "Panic"}
        named = [event["verb"] for event in events if event.get("objectRef", {}).get("name") == "only-here"]
        assert named == ["create"]
        daemons = [*first.state.daemons.values(), *second.state.daemons.values()]
        listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
        ours = [line for line in listening.splitlines() if any(f"pid={each.pid}," in line for each in daemons)]
        assert len(ours) >= 5
        assert all(line.split()[3].startswith("127.0.0.1:") for line in ours), "all on loopback only"
    assert not any(daemon.alive() for daemon in daemons)
    assert not first.folder.exists()
    assert not second.folder.exists()


@pytest.mark.controlplane
def test_an_orphaned_control_plane_is_swept_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Elsewhere the control planes of other tests sweep too.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    script = "from devcluster import ControlPlane; p = ControlPlane().start(); print(p.folder, flush=True); input()"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)}
    owner = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert owner.stdout is not None
    folder = Path(owner.stdout.readline().strip())
    pids = [each["pid"] for each in json.loads((folder / "state.json").read_text())["daemons"].values()]
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    with ControlPlane():
        assert not folder.exists()
        assert not any(Path(f"/proc/{pid}/exe").exists() and os.path.exists(f"/proc/{pid}/exe") for pid in pids)


@pytest.mark.controlplane
def test_an_api_server_that_can_not_start_says_why() -> None:
    from devcluster import ClusterError

    plane = ControlPlane(extra_flags=["--no-such-flag"])
    with pytest.raises(ClusterError, match="unknown flag: --no-such-flag"), plane:
        pass
    assert not any(daemon.alive() for daemon in plane.state.daemons.values())
    plane.stop()


@pytest.mark.kwok
def test_simulated_nodes_run_a_deployment() -> None:
    with ControlPlane(kwok_nodes=2) as plane:
        kubectl(plane, "create", "deployment", "many", "--image=none", "--replicas=30")
        end = time.monotonic() + 60
        while kubectl(plane, "get", "deployment", "many", "--output=jsonpath={.status.readyReplicas}") != "30":
            assert time.monotonic() < end
            time.sleep(0.2)
        assert set(kubectl(plane, "get", "pods", "--output=jsonpath={.items[*].spec.nodeName}").split()) == {
            "kwok-0",
            "kwok-1",
        }
