"""The same cluster by kind, where a Docker engine responds. Pure functions decide the commands and objects.

Never run where this was written (there is no Docker engine): the functions are tested, the whole is not.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devcluster import addons, parts, paths
from devcluster.errors import log_failure
from devcluster.progress import Progress
from devcluster.state import State

REGISTRY_IMAGE = "docker.io/library/registry:3"
ADDONS = "modelwright-addons"
VOLUMES = 16


@dataclass(frozen=True)
class KindNames:
    """Names of a cluster's parts in the Docker engine."""

    cluster: str

    @property
    def kind(self) -> str:
        return f"modelwright-{self.cluster}"

    @property
    def registry_container(self) -> str:
        return f"{self.kind}-registry"

    @property
    def registry(self) -> str:
        """The name for nodes and pods: Docker's name server resolves the container."""
        return f"{self.registry_container}:5000"

    @property
    def control_plane(self) -> str:
        return f"{self.kind}-control-plane"

    @property
    def nodes(self) -> tuple[str, ...]:
        return (f"{self.kind}-worker", f"{self.kind}-worker2")


def config(volumes: Path) -> dict[str, Any]:
    """Configure a control plane and two workers that share a folder, so that its volumes may be ReadWriteMany."""
    mounts = [{"hostPath": str(volumes), "containerPath": "/volumes"}]
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "nodes": [
            {"role": "control-plane"},
            {"role": "worker", "extraMounts": mounts},
            {"role": "worker", "extraMounts": mounts},
        ],
    }


def create(kind: str, names: KindNames, file: Path, kubeconfig: Path, image: str = "") -> list[str]:
    command = [kind, "create", "cluster", "--name", names.kind, "--config", str(file)]
    command += ["--kubeconfig", str(kubeconfig), "--wait", "5m"]
    return command + (["--image", image] if image else [])


def delete(kind: str, names: KindNames, kubeconfig: Path) -> list[list[str]]:
    return [
        [kind, "delete", "cluster", "--name", names.kind, "--kubeconfig", str(kubeconfig)],
        ["docker", "rm", "--force", "--volumes", names.registry_container],
    ]


def start_registry(names: KindNames) -> list[str]:
    """Start the registry in kind's network, on a free port of this host's loopback for pushing."""
    command = ["docker", "run", "--detach", "--restart=unless-stopped", "--name", names.registry_container]
    return [*command, "--network", "kind", "--publish", "127.0.0.1::5000", REGISTRY_IMAGE]


def trust_registry(names: KindNames, node: str) -> list[str]:
    """Tell a node that the registry uses plain HTTP; nodes of kind 0.27 and newer read this folder."""
    folder = f"/etc/containerd/certs.d/{names.registry}"
    text = f'[host."http://{names.registry}"]'
    return ["docker", "exec", node, "sh", "-c", f"mkdir -p {folder} && echo '{text}' > {folder}/hosts.toml"]


def registry_port(names: KindNames) -> list[str]:
    return ["docker", "port", names.registry_container, "5000/tcp"]


def node_address(node: str) -> list[str]:
    return ["docker", "inspect", "--format={{.NetworkSettings.Networks.kind.IPAddress}}", node]


def addon_objects(names: KindNames, address: str) -> list[dict[str, Any]]:
    """Build Traefik, Prometheus and the S3 server in the control plane's host network: one address for host and
    pods."""
    traefik = f"docker.io/library/traefik:v{parts.tool_of('traefik').version()}"
    # Prometheus numbers its Go module 0.3xx.y where the release is 3.xx.y.
    minor = parts.tool_of("prometheus").version().split(".")[1].removeprefix("3")
    prometheus = f"docker.io/prom/prometheus:v3.{int(minor)}.0"
    versitygw = f"ghcr.io/versity/versitygw:v{parts.tool_of('versitygw').version()}"
    settings = Path("/etc/modelwright")
    scrape = addons.prometheus_config(f"{address}:{addons.TRAEFIK_METRICS_PORT}", None)
    store = [f"--access={addons.S3_ACCESS_KEY}", f"--secret={addons.S3_SECRET_KEY}", "--keep-alive"]
    store += [f"--port={address}:{addons.S3_PORT}", "posix", "/data"]
    flags = addons.prometheus_flags(f"{address}:{addons.PROMETHEUS_PORT}", settings / "prometheus.yml", Path("/data"))
    account = {"kind": "ServiceAccount", "name": "addons", "namespace": ADDONS}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ADDONS}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "addons", "namespace": ADDONS}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": ADDONS},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [account],
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "prometheus", "namespace": ADDONS},
            "data": {"prometheus.yml": scrape},
        },
        _deployment(names, "traefik", traefik, addons.traefik_flags(address, address)),
        _deployment(names, "prometheus", prometheus, flags, config_map="prometheus", mount=str(settings)),
        _deployment(names, "s3", versitygw, store),
    ]


def _deployment(
    names: KindNames, name: str, image: str, flags: Sequence[str], config_map: str = "", mount: str = ""
) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [{"name": "data", "emptyDir": {}}]
    mounts = [{"name": "data", "mountPath": "/data"}]
    if config_map:
        volumes.append({"name": "config", "configMap": {"name": config_map}})
        mounts.append({"name": "config", "mountPath": mount})
    labels = {"app": name}
    spec = {
        "serviceAccountName": "addons",
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "nodeName": names.control_plane,
        "tolerations": [{"operator": "Exists"}],
        "securityContext": {"runAsUser": 0},
        "containers": [{"name": name, "image": image, "args": list(flags), "volumeMounts": mounts}],
        "volumes": volumes,
    }
    template = {"metadata": {"labels": labels}, "spec": spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": ADDONS},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": template,
        },
    }


class Kind:
    """Runs the commands that the functions above build."""

    def __init__(self, name: str, folder: Path, progress: Progress) -> None:
        self.names = KindNames(name)
        self.folder = folder
        self.progress = progress
        self.state = State.load(folder)
        self.log = folder / "logs" / "kind.log"

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def up(self) -> None:
        if self.state.ready and self.answers():
            return
        parts.build(["kind", "kubectl", "helm"], self.progress)
        self.down()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        volumes = self.folder / "volumes"
        folders = [volumes / f"local-{number:03}" for number in range(VOLUMES)]
        for each in folders:
            each.mkdir(parents=True, exist_ok=True)
            each.chmod(0o777)
        self.state.profile = "kind"
        self.state.save()
        file = self.folder / "kind.json"
        file.write_text(json.dumps(config(volumes)))
        with self.progress.step("kind cluster"):
            image = os.environ.get("MODELWRIGHT_KIND_IMAGE", "")
            self._run(create(str(parts.binary_path("kind")), self.names, file, self.kubeconfig, image))
        with self.progress.step("registry"):
            self._run(start_registry(self.names))
            for node in (self.names.control_plane, *self.names.nodes):
                self._run(trust_registry(self.names, node))
        with self.progress.step("add-ons"):
            address = self._run(node_address(self.names.control_plane)).strip()
            crds = [f"--filename={folder}" for folder in (parts.gateway_api_crds(), parts.traefik_crds())]
            self._kubectl("apply", "--server-side", "--force-conflicts", *crds)
            self._kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
            prepared = [addons.volume(each.name, Path("/volumes") / each.name) for each in folders]
            wanted = [*addons.common_objects(), *addon_objects(self.names, address), *prepared]
            items = json.dumps({"apiVersion": "v1", "kind": "List", "items": wanted})
            self._kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", text=items)
            self._kubectl(
                "wait", "--for=condition=Available", "deployment", "--all", f"--namespace={ADDONS}", "--timeout=5m"
            )
        port = self._run(registry_port(self.names)).strip().rpartition(":")[2]
        self.state.facts |= {"address": address, "push_registry": f"localhost:{port}"}
        self.state.ready = True
        self.state.save()

    def down(self) -> None:
        if not self.state.profile:
            return
        for command in delete(str(parts.binary_path("kind")), self.names, self.kubeconfig):
            subprocess.run(command, capture_output=True, check=False)
        paths.remove(self.folder)
        self.state = State(self.folder)

    def answers(self) -> bool:
        command = [str(parts.binary_path("kubectl")), f"--kubeconfig={self.kubeconfig}", "get", "--raw=/readyz"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _kubectl(self, *arguments: str, text: str | None = None) -> str:
        return self._run([str(parts.binary_path("kubectl")), f"--kubeconfig={self.kubeconfig}", *arguments], text)

    def _run(self, command: Sequence[str], text: str | None = None) -> str:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        with self.log.open("a") as log:
            log.write(f"--- {' '.join(command)}\n{done.stdout}{done.stderr}")
        if done.returncode:
            raise log_failure(f"`{' '.join(command[:3])}` failed: {done.stderr.strip()}", self.log)
        return done.stdout
