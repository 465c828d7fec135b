"""Entry point for commands, demo and tests: brings a cluster up, from any backend, and describes how to reach it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from devcluster import addons, envoy, images, network, parts, paths
from devcluster.controlplane import ControlPlane
from devcluster.embedded import NODES, Embedded
from devcluster.errors import ClusterError
from devcluster.kind import Kind, KindNames
from devcluster.node import REGISTRY_PORT
from devcluster.processes import end_all, parent
from devcluster.progress import NoProgress, Progress
from devcluster.state import State

Profile = Literal["full", "controlplane", "kwok"]
Backend = Literal["existing", "kind", "embedded"]


@dataclass(frozen=True)
class S3Store:
    """The S3 server. In the embedded cluster a bucket is a folder below `root`."""

    endpoint: str = ""
    access_key: str = ""
    secret_key: str = ""
    region: str = "us-east-1"
    root: Path | None = None


@dataclass(frozen=True)
class Cluster:
    """A running cluster. Every address is valid on this host and in pods; empty for missing parts."""

    name: str
    backend: Backend
    profile: Profile
    folder: Path
    kubeconfig: Path
    registry: str = ""
    push_registry: str = ""
    s3: S3Store = field(default_factory=S3Store)
    gateway_address: str = ""
    prometheus_url: str = ""
    node_names: tuple[str, ...] = ()

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def audit_log(self) -> Path:
        """The API server's audit log, one JSON line for each request (not on an existing cluster)."""
        return self.folder / "audit.log"

    @property
    def kubectl(self) -> Path:
        return _tool_path("kubectl")

    @property
    def helm(self) -> Path:
        return _tool_path("helm")

    @classmethod
    def up(
        cls,
        profile: Profile = "full",
        name: str = "dev",
        kwok_nodes: int | None = None,
        progress: Progress | None = None,
    ) -> Cluster:
        """Bring a cluster up, or find it running; `kwok_nodes` simulated nodes are added to the real ones."""
        if profile not in get_args(Profile):
            raise ClusterError(f"unknown profile {profile!r}: it is one of {', '.join(get_args(Profile))}")
        shown = progress or NoProgress()
        chosen = backend()
        count = kwok_nodes if kwok_nodes is not None else (10 if profile == "kwok" else 0)
        if chosen == "existing":
            return _existing(name)
        folder = _cluster_folder(name)
        with paths.locked(paths.cache() / "locks" / f"cluster-{name}.lock"):
            before = State.load(folder)
            if before.profile not in ("", "kind" if chosen == "kind" and profile == "full" else profile):
                raise ClusterError(f"cluster {name!r} runs with profile {before.profile!r}: take it down first")
            if chosen == "kind" and profile == "full":
                Kind(name, folder, shown).up()
            elif profile != "full":
                _control_plane(folder, count, shown)
            else:
                Embedded(name, folder, shown).up(count)
        return cls.attach(name)

    @classmethod
    def attach(cls, name: str = "dev") -> Cluster:
        """Return a running cluster without repairing it."""
        if backend() == "existing":
            return _existing(name)
        folder = _cluster_folder(name)
        state = State.load(folder)
        if not state.ready:
            raise ClusterError(f"cluster {name!r} is not up: python -m devcluster up --name {name}")
        if state.profile == "kind":
            return _kind(name, folder, state)
        fake = tuple(state.facts.get("simulated", ()))
        if state.profile != "full":
            profile: Profile = "kwok" if state.profile == "kwok" else "controlplane"
            return cls(name, "embedded", profile, folder, folder / "kubeconfig", node_names=fake)
        net = network.Network(state.facts["slot"])
        registry = f"{net.address}:{REGISTRY_PORT}"
        return cls(
            name=name,
            backend="embedded",
            profile="full",
            folder=folder,
            kubeconfig=folder / "kubeconfig",
            registry=registry,
            push_registry=registry,
            s3=S3Store(
                f"http://{net.address}:{addons.S3_PORT}",
                addons.S3_ACCESS_KEY,
                addons.S3_SECRET_KEY,
                root=folder / "s3",
            ),
            gateway_address=f"{net.address}:{addons.GATEWAY_PORT}",
            prometheus_url=f"http://{net.address}:{addons.PROMETHEUS_PORT}",
            node_names=(*NODES, *fake),
        )

    def down(self) -> None:
        down(self.name)

    def push_image(self, tag: str, progress: Progress | None = None) -> str:
        """Push a local image; return the reference by digest for pods."""
        if not self.push_registry:
            raise ClusterError("this cluster has no registry: set MODELWRIGHT_REGISTRY to one its nodes can pull from")
        pushed = images.push_image(tag, self.push_registry, progress)
        return self.registry + pushed.removeprefix(self.push_registry)

    def engines(self, progress: Progress | None = None) -> bool:
        """Install JobSet and Kueue; False where the cluster is not ours to install them in."""
        if self.backend != "embedded" or self.profile != "full":
            return False
        with paths.locked(paths.cache() / "locks" / f"cluster-{self.name}.lock"):
            Embedded(self.name, self.folder, progress or NoProgress()).engines()
        return True

    def envoy(self, progress: Progress | None = None) -> bool:
        """Install Envoy Gateway, with Gateway gateways/envoy; False where the cluster is not ours to install it in."""
        if self.backend != "embedded" or self.profile != "full":
            return False
        shown = progress or NoProgress()
        parts.build(["envoy-gateway", "helm"], shown)
        with paths.locked(paths.cache() / "locks" / f"cluster-{self.name}.lock"):
            image = self.push_image(envoy.build(shown), shown)
            Embedded(self.name, self.folder, shown).envoy(image)
        return True

    def without_node(self, name: str) -> AbstractContextManager[None]:
        """Cut a node of the embedded cluster off, as if it had lost its network; its pods keep running."""
        return self._silent(f"kubelet-{name}")

    @contextlib.contextmanager
    def without_api_server(self) -> Iterator[None]:
        """Suspend the API server of the embedded cluster: it answers no request and closes no connection."""
        # Elsewhere the controller-manager loses its Lease and restarts. One that keeps running would treat nodes as
        # lost, because no kubelet could renew its Lease.
        with (
            Embedded(self.name, self.folder, NoProgress()).stopped_daemon("kube-controller-manager"),
            self._silent("kube-apiserver"),
        ):
            yield

    def network_policies(self, node: str) -> AbstractContextManager[None]:
        """Enforce NetworkPolicies on the pods of one node of the embedded cluster; without this they are not
        enforced."""
        return Embedded(self.name, self.folder, NoProgress()).network_policies(node)

    @contextlib.contextmanager
    def _silent(self, daemon: str) -> Iterator[None]:
        process = State.load(self.folder).daemons[daemon]
        process.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.signal(signal.SIGCONT)
            # nsenter, which waits for it in some cases, has stopped with it, so no process would reap it.
            os.kill(parent(process.pid), signal.SIGCONT)

    def volumes(self, count: int) -> list[str]:
        """Ensure that `count` volumes of class `local` (ReadWriteMany) are free; return their names."""
        if self.backend != "embedded" or self.profile != "full":
            raise ClusterError("volumes of class `local` are only made in the full embedded cluster")
        client = Embedded(self.name, self.folder, NoProgress()).client()
        root = "/api/v1/persistentvolumes"
        existing: dict[str, Any] = {each["metadata"]["name"]: each for each in client.request_ok("GET", root)["items"]}
        for name, volume in existing.items():
            if volume["status"].get("phase") == "Released" and volume["spec"].get("storageClassName") == "local":
                client.request_ok("DELETE", f"{root}/{name}")
                shutil.rmtree(self.folder / "volumes" / name, ignore_errors=True)
        # A new one is Pending for a moment. The name of a deleted one isn't free at once, so it isn't used again.
        free = [
            name
            for name, each in existing.items()
            if each["status"].get("phase", "Pending") in ("Available", "Pending")
        ]
        number = 0
        while len(free) < count:
            name = f"local-{number:03}"
            number += 1
            if name in existing:
                continue
            folder = self.folder / "volumes" / name
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)
            client.request_ok("POST", root, addons.volume(name, folder))
            free.append(name)
        client.close()
        return free

    def environment(self) -> dict[str, str]:
        """The cluster's addresses as environment variables for other commands."""
        variables = {
            "KUBECONFIG": str(self.kubeconfig),
            "MODELWRIGHT_CLUSTER": self.name,
            "MODELWRIGHT_REGISTRY": self.registry,
            "MODELWRIGHT_PUSH_REGISTRY": self.push_registry,
            "MODELWRIGHT_S3_ENDPOINT": self.s3.endpoint,
            "MODELWRIGHT_S3_ACCESS_KEY": self.s3.access_key,
            "MODELWRIGHT_S3_SECRET_KEY": self.s3.secret_key,
            "MODELWRIGHT_S3_ROOT": str(self.s3.root or ""),
            "MODELWRIGHT_GATEWAY": self.gateway_address,
            "MODELWRIGHT_PROMETHEUS": self.prometheus_url,
        }
        return {key: value for key, value in variables.items() if value}


def backend(environment: Mapping[str, str] | None = None) -> Backend:
    """Choose the backend: as set by CLUSTER, else kind where a Docker engine responds, else embedded."""
    configured = (os.environ if environment is None else environment).get("CLUSTER", "")
    if configured == "existing":
        return "existing"
    if configured in ("kind", "embedded"):
        return "kind" if configured == "kind" else "embedded"
    if configured:
        raise ClusterError(f"CLUSTER={configured} is not known: it is one of {', '.join(get_args(Backend))}")
    return "kind" if images.docker_answers() else "embedded"


def down(name: str) -> None:
    """Take a cluster down, if there is one. An existing cluster is left alone."""
    if backend() == "existing":
        return
    folder = _cluster_folder(name)
    with paths.locked(paths.cache() / "locks" / f"cluster-{name}.lock"):
        state = State.load(folder)
        if state.profile == "kind":
            Kind(name, folder, NoProgress()).down()
        elif state.profile in ("controlplane", "kwok"):
            end_all(state.daemons.values(), grace=1)
            paths.remove(folder)
        else:
            Embedded(name, folder, NoProgress()).down()


def status(name: str) -> list[tuple[str, str, str]]:
    """List each part with its pid, if it has one, and whether it runs."""
    if backend() == "existing":
        return [(node, "", "running") for node in _existing(name).node_names]
    folder = _cluster_folder(name)
    state = State.load(folder)
    if state.profile == "kind":
        return [(KindNames(name).kind, "", "running" if Kind(name, folder, NoProgress()).answers() else "dead")]
    return [
        (daemon.name, str(daemon.pid), "running" if daemon.alive() else "dead") for daemon in state.daemons.values()
    ]


def _control_plane(folder: Path, kwok_nodes: int, progress: Progress) -> None:
    state = State.load(folder)
    if state.ready and not state.dead():
        return
    end_all(state.daemons.values(), grace=0)
    paths.remove(folder)
    started = ControlPlane(folder=folder, kwok_nodes=kwok_nodes, audit=True, progress=progress).start()
    started.state.facts["simulated"] = started.node_names
    started.state.save()


def _kind(name: str, folder: Path, state: State) -> Cluster:
    names, address = KindNames(name), state.facts["address"]
    return Cluster(
        name=name,
        backend="kind",
        profile="full",
        folder=folder,
        kubeconfig=folder / "kubeconfig",
        registry=names.registry,
        push_registry=state.facts["push_registry"],
        s3=S3Store(f"http://{address}:{addons.S3_PORT}", addons.S3_ACCESS_KEY, addons.S3_SECRET_KEY),
        gateway_address=f"{address}:{addons.GATEWAY_PORT}",
        prometheus_url=f"http://{address}:{addons.PROMETHEUS_PORT}",
        node_names=names.nodes,
    )


def _existing(name: str) -> Cluster:
    """Describe the cluster of KUBECONFIG; environment variables describe its further parts."""
    kubeconfig = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    if not kubeconfig.exists():
        raise ClusterError(f"CLUSTER=existing, but there is no kubeconfig at {kubeconfig}: set KUBECONFIG")
    done = subprocess.run(
        [str(_tool_path("kubectl")), f"--kubeconfig={kubeconfig}", "get", "nodes", "--output=json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ClusterError(f"the cluster of {kubeconfig} does not answer: {done.stderr.strip()}")
    variable = os.environ.get
    registry = variable("MODELWRIGHT_REGISTRY", "")
    return Cluster(
        name=name,
        backend="existing",
        profile="full",
        folder=paths.runs() / name,
        kubeconfig=kubeconfig,
        registry=registry,
        push_registry=variable("MODELWRIGHT_PUSH_REGISTRY", registry),
        s3=S3Store(
            variable("MODELWRIGHT_S3_ENDPOINT", ""),
            variable("MODELWRIGHT_S3_ACCESS_KEY", ""),
            variable("MODELWRIGHT_S3_SECRET_KEY", ""),
        ),
        gateway_address=variable("MODELWRIGHT_GATEWAY", ""),
        prometheus_url=variable("MODELWRIGHT_PROMETHEUS", ""),
        node_names=tuple(each["metadata"]["name"] for each in json.loads(done.stdout)["items"]),
    )


def _cluster_folder(name: str) -> Path:
    """Return a cluster's folder. Its name is part of socket paths, which the kernel limits to 107 characters."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,19}", name):
        raise ClusterError(f"{name!r} is no name for a cluster: up to 20 lower-case letters, digits and dashes")
    return paths.runs() / name


def _tool_path(name: str) -> Path:
    """Return our own build of a tool, so that versions agree; else the one on the PATH."""
    built = parts.binary_path(name)
    if built.exists():
        return built
    on_path = shutil.which(name)
    if on_path:
        return Path(on_path)
    raise ClusterError(f"{name} is neither built nor installed: python -m devcluster build")
