"""Flux itself, from its released modules: source-controller and kustomize-controller as processes of this host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml

from demo.kubectl import Json, Kubectl
from devcluster import parts, ports
from devcluster.cluster import Cluster
from tests.servers.processes import Processes

SOURCES = "gitrepositories.source.toolkit.fluxcd.io"
KUSTOMIZATIONS = "kustomizations.kustomize.toolkit.fluxcd.io"
CONTROLLERS = ("source-controller", "kustomize-controller")


@dataclass(frozen=True)
class Flux:
    """What runs in the block of `running`."""

    kubectl: Kubectl

    def look_again(self, namespace: str, name: str) -> None:
        """As `flux reconcile kustomization --with-source` does."""
        for kind in (SOURCES, KUSTOMIZATIONS):
            asked = {"reconcile.fluxcd.io/requestedAt": datetime.now(UTC).isoformat()}
            self.kubectl.patch(kind, name, namespace, {"metadata": {"annotations": asked}})


@contextmanager
def running(cluster: Cluster, folder: Path) -> Iterator[Flux]:
    """Applies Flux's CRDs, starts its controllers in `folder`, and ends both again.

    They have the admin's rights: kustomize-controller has them in Flux's own install too, and writes with those of the
    ServiceAccount that a Kustomization names.
    """
    parts.build(CONTROLLERS)
    kubectl = Kubectl(cluster.kubectl, cluster.kubeconfig)
    crds = _crds()
    kubectl.apply(*crds)
    environment = {"KUBECONFIG": str(cluster.kubeconfig), "RUNTIME_NAMESPACE": "default", "HOME": str(folder)}
    store, *others = (f"127.0.0.1:{port}" for port in ports.free_ports(5))
    stored = ["--storage-path", str(folder), "--storage-addr", store, "--storage-adv-addr", store]
    with Processes(folder) as processes:
        for name, more in zip(CONTROLLERS, (stored, []), strict=True):
            metrics, health = others.pop(), others.pop()
            command = [str(parts.binary_path(name)), "--metrics-addr", metrics, "--health-addr", health, *more]
            processes.start(name, command, environment)
            processes.wait(f"http://{health}/readyz")
        yield Flux(kubectl)
        # Their objects have finalizers, which only the controllers take away.
        for crd in crds:
            kubectl.delete("crd", crd["metadata"]["name"], wait=True)


def _crds() -> list[Json]:
    folders = [parts.module_files(name, "config/crd/bases") for name in CONTROLLERS]
    return [yaml.safe_load(file.read_text()) for folder in folders for file in sorted(folder.glob("*.yaml"))]
