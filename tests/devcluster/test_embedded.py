"""The real cluster: comes up, stays when asked again, survives a kill -9 of everything, leaves nothing behind."""

import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster, ensure_base_image, processes
from devcluster.cluster import backend
from devcluster.network import Network
from devcluster.state import State

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0 or backend() != "embedded", reason="only root can bring one up, on Linux"),
]

NAME = f"test-{os.getpid()}"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    up = Cluster.up(name=NAME)
    yield up
    up.down()


def kubectl(cluster: Cluster, *arguments: str, text: str | None = None) -> str:
    command = [str(cluster.kubectl), f"--kubeconfig={cluster.kubeconfig}", *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def get(url: str, host: str = "") -> str:
    request = urllib.request.Request(url, headers={"Host": host} if host else {})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.read().decode()


def eventually(check: Any, seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while True:
        try:
            found = check()
            if found:
                return found
        except OSError:
            pass
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.3)


SERVER = """
import http.server, os, socket, ssl, urllib.request
account = "/var/run/secrets/kubernetes.io/serviceaccount/"
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/api":
            request = urllib.request.Request("https://kubernetes.default.svc/version",
                headers={"Authorization": "Bearer " + open(account + "token").read()})
            text = urllib.request.urlopen(request, context=ssl.create_default_context(cafile=account + "ca.crt")).read()
        elif self.path == "/metrics":
            text = b"devcluster_test_metric 42\\n"
        else:
            text = os.environ["NODE"].encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(text)
open("/data/" + os.environ["NODE"], "w").close()
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""


def workload(image: str) -> list[dict[str, Any]]:
    labels = {"app": "web"}
    container = {
        "name": "web",
        "image": image,
        "command": ["python3", "-c", SERVER],
        "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "readinessProbe": {"httpGet": {"port": 8000, "path": "/"}, "periodSeconds": 1},
        "resources": {"limits": {"memory": "128Mi"}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "securityContext": {
            "runAsUser": 65532,
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    template = {
        "metadata": {
            "labels": labels,
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8000"},
        },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": {"matchLabels": labels},
                }
            ],
        },
    }
    deployment = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    claim = {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "local",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    route = {
        "parentRefs": [{"name": "models", "namespace": "gateways"}],
        "hostnames": ["web.example.com"],
        "rules": [{"backendRefs": [{"name": "web", "port": 80}]}],
    }
    name = {"name": "web"}
    return [
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": claim},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": name, "spec": deployment},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": name,
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8000}]},
        },
        {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": name, "spec": route},
    ]


def apply_workload(cluster: Cluster) -> None:
    image = cluster.push_image(ensure_base_image())
    items = {"apiVersion": "v1", "kind": "List", "items": workload(image)}
    kubectl(cluster, "apply", "--server-side", "--filename=-", text=json.dumps(items))
    kubectl(cluster, "rollout", "status", "deployment/web", "--timeout=120s")


def test_gateway_service_and_prometheus_reach_pods_on_both_nodes(cluster: Cluster) -> None:
    apply_workload(cluster)
    placed = kubectl(cluster, "get", "pods", "--selector=app=web", "--output=jsonpath={.items[*].spec.nodeName}")
    assert set(placed.split()) == {"node-a", "node-b"}
    through_gateway: set[str] = set()

    def both_nodes() -> bool:
        through_gateway.add(get(f"http://{cluster.gateway_address}/", "web.example.com"))
        return through_gateway == {"node-a", "node-b"}

    eventually(both_nodes)
    address = kubectl(cluster, "get", "service", "web", "--output=jsonpath={.spec.clusterIP}")
    assert get(f"http://{address}/") in ("node-a", "node-b"), "the host reaches Services"
    assert '"major": "1"' in get(f"http://{address}/api"), "a pod resolves and reaches the API server"
    query = f"{cluster.prometheus_url}/api/v1/query?query="
    found = eventually(lambda: json.loads(get(query + "devcluster_test_metric"))["data"]["result"], 30)
    assert found[0]["metric"]["namespace"] == "default"
    assert eventually(lambda: json.loads(get(query + "traefik_service_requests_total"))["data"]["result"], 30)
    gateway = json.loads(kubectl(cluster, "get", "gateway", "models", "--namespace=gateways", "--output=json"))
    assert gateway["status"]["addresses"] == [{"type": "IPAddress", "value": cluster.gateway_address.split(":")[0]}]


def test_a_drained_node_gives_its_pods_to_the_other(cluster: Cluster) -> None:
    kubectl(
        cluster,
        "create",
        "deployment",
        "one",
        f"--image={cluster.push_image(ensure_base_image())}",
        "--",
        "sleep",
        "600",
    )
    kubectl(cluster, "rollout", "status", "deployment/one", "--timeout=60s")
    where = ["get", "pods", "--selector=app=one", "--field-selector=status.phase=Running"]
    before = kubectl(cluster, *where, "--output=jsonpath={.items[*].spec.nodeName}").split()
    drain = ["--ignore-daemonsets", "--delete-emptydir-data", "--force", "--pod-selector=app=one", "--grace-period=1"]
    kubectl(cluster, "drain", *before, *drain, "--timeout=60s")
    kubectl(cluster, "rollout", "status", "deployment/one", "--timeout=60s")
    after = kubectl(cluster, *where, "--output=jsonpath={.items[*].spec.nodeName}").split()
    kubectl(cluster, "uncordon", *before)
    kubectl(cluster, "delete", "deployment", "one")
    assert len(after) == 1
    assert after != before


def test_the_store_is_a_folder(cluster: Cluster) -> None:
    assert cluster.s3.root is not None
    (cluster.s3.root / "bucket").mkdir()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        get(f"{cluster.s3.endpoint}/bucket")


def test_volumes_are_made_and_made_anew(cluster: Cluster) -> None:
    assert len(cluster.volumes(20)) >= 20
    assert len(cluster.volumes(3)) >= 20
    claim = {**workload("")[0], "metadata": {"name": "short-lived"}}
    kubectl(cluster, "apply", "--filename=-", text=json.dumps(claim))
    find = ["get", "pvc", "short-lived", "--output=jsonpath={.spec.volumeName}"]
    volume = eventually(lambda: kubectl(cluster, *find))
    left_behind = cluster.folder / "volumes" / volume / "file"
    left_behind.write_text("old")
    kubectl(cluster, "delete", "pvc", "short-lived")
    phase = ["get", "pv", volume, "--output=jsonpath={.status.phase}"]
    eventually(lambda: kubectl(cluster, *phase) == "Released")
    assert volume not in cluster.volumes(20)
    assert not left_behind.exists()


def test_up_again_changes_nothing(cluster: Cluster) -> None:
    before = (cluster.folder / "state.json").read_text()
    begun = time.monotonic()
    again = Cluster.up(name=NAME)
    assert time.monotonic() - begun < 3
    assert again == cluster
    assert (cluster.folder / "state.json").read_text() == before


def test_what_died_alone_is_started_again(cluster: Cluster) -> None:
    victims = {"etcd", "kube-apiserver", "kubelet-node-a", "containerd-node-b", "traefik"}
    for name in victims:
        State.load(cluster.folder).daemons[name].signal(signal.SIGKILL)
    eventually(lambda: set(State.load(cluster.folder).dead()) == victims)
    assert Cluster.up(name=NAME) == cluster
    assert State.load(cluster.folder).dead() == []
    assert "web" in kubectl(cluster, "get", "deployments"), "the API server kept its state"
    eventually(lambda: get(f"http://{cluster.gateway_address}/", "web.example.com"))


def inside(cluster: Cluster) -> list[int]:
    """All processes in the cluster's pid namespace and below it: daemons, shims, and what runs in pods."""
    world = os.readlink(f"/proc/{State.load(cluster.folder).daemons['sandbox'].pid}/ns/pid")
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(process / "ns" / "pid") == world:
                found.append(int(process.name))
    for pid in found:
        # Any of them may end while we look.
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split() if int(child) not in found]
    return found


def kill_9(pids: list[int]) -> None:
    for pid in reversed(pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def leftovers(slot: int) -> list[str]:
    """What a cluster could leave on the host: rules, links, routes, mounts, network namespaces, control groups."""
    net = Network(slot)

    def run(*command: str) -> list[str]:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    lines = run("iptables-save") + run("ip", "-o", "link") + run("ip", "-o", "addr") + run("ip", "route")
    lines += run("ip", "netns") + Path("/proc/mounts").read_text().splitlines()
    lines += [str(found) for found in Path("/sys/fs/cgroup").glob("*/modelwright-*")]
    lines += [line for line in run("ps", "-eo", "args") if "ps -eo" not in line]
    return [
        line
        for line in lines
        if f"{net.base}." in line or net.host_link in line or f"/{NAME}" in line or f"-{NAME}" in line
    ]


def test_pods_have_a_cpu_weight_beside_the_hosts_processes(cluster: Cluster) -> None:
    root = Path("/sys/fs/cgroup")
    one = (root / "cgroup.controllers").exists()
    top = root / ("" if one else "cpu") / f"modelwright-{NAME}"
    name, default = ("cpu.weight", 100) if one else ("cpu.shares", 1024)
    weights = [int((folder / name).read_text()) / default for folder in (top, *(top / n for n in cluster.node_names))]
    assert set(weights) == {10}


def test_kill_9_of_everything_then_up_then_down(cluster: Cluster) -> None:
    slot = State.load(cluster.folder).facts["slot"]
    everything = inside(cluster)
    programs = {Path(processes.program(pid) or "").name for pid in everything}
    assert {"containerd-shim-runc-v2", "kubelet", "etcd", "python3.11"} <= programs
    kill_9(everything)
    again = Cluster.up(name=NAME)
    assert again == cluster
    apply_workload(again)
    eventually(lambda: get(f"http://{again.gateway_address}/", "web.example.com"))
    second = inside(again)
    assert leftovers(slot), "while it is up there is something to find"
    again.down()
    assert [pid for pid in second if Path(f"/proc/{pid}").exists()] == []
    assert leftovers(slot) == []
    assert not again.folder.exists()
    again.down()


def test_down_after_kill_9_leaves_nothing() -> None:
    cluster = Cluster.up(name=NAME)
    slot = State.load(cluster.folder).facts["slot"]
    kill_9(inside(cluster))
    cluster.down()
    assert leftovers(slot) == []
