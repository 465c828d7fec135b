"""A control plane without real nodes: a real API server in seconds, on loopback, many in parallel."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from devcluster import components, parts, pki, ports, simulation
from devcluster.api import ApiClient
from devcluster.errors import log_failure
from devcluster.processes import Daemon, boot_id, end_all, program, spawn, start_time
from devcluster.progress import NoProgress, Progress
from devcluster.state import State

_PREFIX = "modelwright-controlplane-"


class ControlPlane:
    """etcd and kube-apiserver; with `controllers` also controller-manager and scheduler; with `kwok_nodes` KWOK.

    Without controllers there are no ServiceAccounts, no garbage collection and no end of a namespace's deletion:
    only the API.
    """

    def __init__(
        self,
        *,
        controllers: bool = False,
        kwok_nodes: int = 0,
        audit: bool = False,
        admission_plugins: Sequence[str] = (),
        feature_gates: Mapping[str, bool] | None = None,
        extra_flags: Sequence[str] = (),
        folder: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.controllers = controllers or kwok_nodes > 0
        self.kwok_nodes = kwok_nodes
        self.audit = audit
        self.admission_plugins = tuple(admission_plugins)
        self.feature_gates = dict(feature_gates or {})
        self.extra_flags = tuple(extra_flags)
        self.owned = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix=_PREFIX))
        self.progress: Progress = progress or NoProgress()
        self.state = State.load(self.folder)
        self.url = str(self.state.facts.get("url", ""))
        self.etcd = ""
        self.node_names = [f"kwok-{number}" for number in range(kwok_nodes)]

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def kubectl(self) -> Path:
        return parts.binary_path("kubectl")

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def audit_log(self) -> Path | None:
        """One JSON line for each completed request; None without an audit log."""
        return self.folder / "audit.log" if self.audit else None

    def binaries(self) -> list[str]:
        wanted = list(parts.CONTROL_PLANE)
        wanted += parts.CONTROLLERS if self.controllers else []
        wanted += parts.SIMULATION if self.kwok_nodes else []
        return wanted

    def __enter__(self) -> ControlPlane:
        try:
            self.start()
        except BaseException:
            self.stop(keep=True)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> ControlPlane:
        sweep_orphans()
        parts.build(self.binaries(), self.progress)
        self.state.profile = "kwok" if self.kwok_nodes else "controlplane"
        if self.owned:
            me = os.getpid()
            self.state.facts["owner"] = {"pid": me, "start": start_time(me), "boot": boot_id(), "exe": program(me)}
        self.state.save()
        with self.progress.step("API server"):
            api, client, service_account = self._start_api()
        if self.controllers:
            with self.progress.step("controllers"):
                self._start_controllers(api, client, service_account)
        client.close()
        self.state.ready = True
        self.state.save()
        return self

    def _start_api(self) -> tuple[components.ApiServer, ApiClient, Path]:
        client_port, peer_port, port = ports.free_ports(3)
        self.etcd = f"http://127.0.0.1:{client_port}"
        authority = pki.Authority.create(self.folder / "pki")
        addresses = ["127.0.0.1", "10.96.0.1", "localhost", "kubernetes.default.svc"]
        server = authority.sign("server", "kube-apiserver", addresses=addresses)
        admin = authority.sign("admin", "admin", group="system:masters")
        service_account = pki.service_account_key(authority.folder)
        api = components.ApiServer(
            folder=self.folder,
            authority=authority,
            address="127.0.0.1",
            port=port,
            etcd=self.etcd,
            controllers=self.controllers,
            audit_log=self.audit_log,
            admission_plugins=self.admission_plugins,
            feature_gates=self.feature_gates,
            extra=self.extra_flags,
        )
        self._spawn("etcd", components.etcd(self.folder / "etcd", "127.0.0.1", client_port, peer_port))
        self._spawn("kube-apiserver", components.api_server(api, server, admin, service_account))
        self.url = api.url
        self.state.facts["url"] = api.url
        pki.kubeconfig(self.kubeconfig, api.url, authority, admin)
        client = ApiClient(api.url, authority, admin)
        client.wait("/readyz", "the API server", self.state.daemons.values())
        # The API server creates it shortly after it is ready; tests use it at once.
        client.wait("/api/v1/namespaces/default", "the default namespace", self.state.daemons.values())
        return api, client, service_account

    def _start_controllers(self, api: components.ApiServer, client: ApiClient, service_account: Path) -> None:
        manager_port, scheduler_port = ports.free_ports(2)
        simulated = self.kwok_nodes > 0
        manager = components.controller_manager(api, self.kubeconfig, service_account, manager_port, simulated)
        self._spawn("kube-controller-manager", manager)
        self._spawn("kube-scheduler", components.scheduler(api, self.kubeconfig, scheduler_port))
        if simulated:
            self._spawn("kwok", components.kwok(self.kubeconfig))
            simulation.create(client, self.kwok_nodes, tainted=False)
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        client.wait(account, "the default ServiceAccount", self.state.daemons.values())
        for name in self.node_names:
            self._wait_node(client, name)

    def _wait_node(self, client: ApiClient, name: str, timeout: float = 60) -> None:
        limit = time.monotonic() + timeout
        while time.monotonic() < limit:
            _, node = client.request("GET", f"/api/v1/nodes/{name}")
            conditions = (node or {}).get("status", {}).get("conditions", [])
            if any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions):
                return
            time.sleep(0.1)
        raise log_failure(f"simulated node {name} is not Ready after {timeout:.0f}s", self.logs / "kwok.log")

    def _spawn(self, name: str, argv: list[str]) -> None:
        self.state.record(spawn(name, argv, self.logs / f"{name}.log"))

    def stop(self, keep: bool = False) -> None:
        """End every process and remove a temporary folder, unless it is kept for inspection."""
        # A temporary one has no data to save; an API server takes seconds to end gracefully.
        end_all(self.state.daemons.values(), grace=0 if self.owned else 1)
        self.state.daemons.clear()
        self.state.ready = False
        if self.owned and not keep:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            self.state.save()


def sweep_orphans() -> None:
    """End control planes whose test run was killed before it could stop them."""
    for folder in Path(tempfile.gettempdir()).glob(_PREFIX + "*"):
        state = State.load(folder)
        owner = state.facts.get("owner")
        if owner and not Daemon(name="owner", log="", **owner).alive():
            end_all(state.daemons.values(), grace=0)
            shutil.rmtree(folder, ignore_errors=True)
