"""The embedded cluster: two nodes in one sandbox on this host, brought up from nothing and taken down."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from devcluster import (
    addons,
    components,
    engines,
    envoy,
    host,
    network,
    node,
    parts,
    paths,
    pause,
    pki,
    sandbox,
    simulation,
)
from devcluster.api import ApiClient
from devcluster.errors import ClusterError, log_failure
from devcluster.processes import Daemon, end_all, spawn
from devcluster.progress import Progress
from devcluster.state import State

NODES = ("node-a", "node-b")
API_PORT, ETCD_PORT, ETCD_PEER_PORT = 6443, 2379, 2380
VOLUMES = 16


class Embedded:
    """One cluster in one folder. `up` works from nothing, on a running cluster, and on the remains of a dead one."""

    def __init__(self, name: str, folder: Path, progress: Progress) -> None:
        self.name = name
        self.folder = folder
        self.progress = progress
        self.state = State.load(folder)

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def binaries(self, kwok_nodes: int) -> list[str]:
        wanted = [*parts.CONTROL_PLANE, *parts.CONTROLLERS, *parts.NODE]
        return wanted + (list(parts.SIMULATION) if kwok_nodes else [])

    def up(self, kwok_nodes: int = 0) -> None:
        if self.state.ready and self._sandbox_alive():
            try:
                self._restart_dead()
                self._simulate(kwok_nodes)
                return
            except ClusterError:
                # It may have been exiting during the check.
                if self._sandbox_alive():
                    raise
        if os.geteuid() != 0:
            raise ClusterError("the embedded cluster needs root: it makes namespaces, mounts and network links")
        host.install(host.CLUSTER_PACKAGES, self.progress)
        parts.build(self.binaries(kwok_nodes), self.progress)
        for step in ("clean start", "API server", "nodes", "add-ons", "ready"):
            self.progress.add(step)
        with self.progress.step("clean start"):
            self.down()
            self.state.profile = "full"
            network.choose_network(self.state)
            holder = self.state.record(sandbox.start(self.folder))
            network.connect(self.net, holder.pid)
        with self.progress.step("API server"):
            self._start_api()
        with ThreadPoolExecutor(2) as pool:
            started = [pool.submit(self._start_nodes), pool.submit(self._start_addons)]
            for each in started:
                each.result()
        with self.progress.step("ready"):
            self._await_ready()
        self.state.ready = True
        self.state.save()
        self._simulate(kwok_nodes)

    def down(self) -> None:
        """Remove everything recorded on disk; missing parts are no error."""
        holder = self.state.daemons.get("sandbox")
        if holder:
            # The kernel ends every process of the sandbox with its first one.
            end_all([holder], grace=0)
            end_all(self.state.daemons.values(), grace=0)
        if "slot" in self.state.facts:
            network.disconnect(self.net, others=any("slot" in State.load(each).facts for each in self._siblings()))
        sandbox.remove_cgroups(sandbox.cgroup(self.name))
        slot = self.state.facts.get("slot")
        paths.remove(self.folder)
        self.state = State(self.folder)
        if slot is not None:
            self.state.facts["slot"] = slot

    @property
    def net(self) -> network.Network:
        return network.Network(self.state.facts["slot"])

    @property
    def authority(self) -> pki.Authority:
        return pki.Authority(self.folder / "pki")

    def client(self) -> ApiClient:
        admin = self.authority.sign("admin", "admin", group="system:masters")
        return ApiClient(f"https://{self.net.address}:{API_PORT}", self.authority, admin)

    def _siblings(self) -> list[Path]:
        return [each for each in self.folder.parent.glob("*") if each != self.folder]

    def _sandbox_alive(self) -> bool:
        holder = self.state.daemons.get("sandbox")
        return holder is not None and holder.alive()

    def _restart_dead(self) -> None:
        """Restart the daemons that died in a living sandbox, on their existing data."""
        dead = self.state.dead()
        for name in dead:
            with self.progress.step(f"restart {name}"):
                self._restart(name, self.state.daemons[name].argv)
            if name == "kube-apiserver":
                # A kubelet that finds none at its start may give up.
                self.client().wait("/readyz", "the API server", self._daemons("etcd", name))
        if dead:
            with self.progress.step("ready"):
                self._await_ready()
        for name in self.state.dead():
            raise log_failure(f"{name} was started again, and ended", Path(self.state.daemons[name].log))

    def _restart(self, name: str, argv: Sequence[str]) -> None:
        old = self.state.daemons[name]
        end_all([old])
        self._spawn(name, argv, dict(old.env))

    def _spawn(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Daemon:
        holder = self.state.daemons["sandbox"]
        return self.state.record(spawn(name, argv, self.logs / f"{name}.log", env, holder))

    def _start_api(self) -> None:
        address = self.net.address
        pki.Authority.create(self.folder / "pki")
        names = [address, self.net.api_service, "127.0.0.1", "localhost", "kubernetes", "kubernetes.default"]
        names += ["kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        server = self.authority.sign("server", "kube-apiserver", addresses=names)
        admin = self.authority.sign("admin", "admin", group="system:masters")
        self.service_account = pki.service_account_key(self.authority.folder)
        self.api = components.ApiServer(
            folder=self.folder,
            authority=self.authority,
            address=address,
            port=API_PORT,
            etcd=f"http://{address}:{ETCD_PORT}",
            service_range=self.net.services,
            controllers=True,
            audit_log=self.folder / "audit.log",
        )
        self._spawn("etcd", components.etcd(self.folder / "etcd", address, ETCD_PORT, ETCD_PEER_PORT))
        self._spawn("kube-apiserver", components.api_server(self.api, server, admin, self.service_account))
        pki.kubeconfig(self.kubeconfig, self.api.url, self.authority, admin)
        self.client().wait("/readyz", "the API server", self._daemons("etcd", "kube-apiserver"))

    def _start_nodes(self) -> None:
        with self.progress.step("nodes"):
            manager = components.controller_manager(
                self.api, self.kubeconfig, self.service_account, 10257, simulated=False
            )
            self._spawn("kube-controller-manager", manager)
            self._spawn("kube-scheduler", components.scheduler(self.api, self.kubeconfig, 10259))
            node.share(self.folder / "nodes", self.net)
            resolv_conf = self.folder / "nodes" / "resolv.conf"
            resolv_conf.write_text("".join(f"nameserver {server}\n" for server in host.name_servers()))
            archive = pause.pause_archive(
                parts.binary_path("pause"), self.folder / "nodes" / "pause.tar", node.PAUSE_IMAGE
            )
            nodes = [self._node(number) for number in range(len(NODES))]
            for each in nodes:
                self._spawn(f"containerd-{each.name}", node.containerd(each, self.folder / "nodes"))
                sandbox.make_cgroups(each.cgroup)
            for number, each in enumerate(nodes):
                self._import(each, archive)
                argv = node.kubelet(each, number, self.authority, self.net, resolv_conf)
                self._spawn(f"kubelet-{each.name}", [*argv, f"--node-labels=topology.kubernetes.io/zone={each.name}"])
            self._spawn("kube-proxy", node.kube_proxy(self.kubeconfig, NODES[0], self.net, self.folder / "nodes"))

    def _node(self, number: int) -> node.Node:
        name, address = NODES[number], self.net.node(number)
        identity = self.authority.sign(name, f"system:node:{name}", group="system:nodes", addresses=[address, name])
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        kubeconfig = pki.kubeconfig(folder / "kubeconfig", self.api.url, self.authority, identity)
        return node.Node(name, self.name, folder, address, kubeconfig, identity)

    def _import(self, wanted: node.Node, archive: Path) -> None:
        command = ["ctr", f"--address={wanted.socket}", "--namespace=k8s.io", "images", "import", str(archive)]
        daemon = self.state.daemons[f"containerd-{wanted.name}"]
        limit = time.monotonic() + 30
        while True:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return
            if not daemon.alive() or time.monotonic() > limit:
                raise log_failure(
                    f"containerd of {wanted.name} does not answer: {done.stderr.strip()}", Path(daemon.log)
                )
            time.sleep(0.1)

    def _start_addons(self) -> None:
        with self.progress.step("add-ons"):
            places = addons.AddonPaths(self.folder, self.kubeconfig, self.net)
            self._spawn("registry", addons.registry(places), {"OTEL_TRACES_EXPORTER": "none"})
            self._spawn("s3", addons.s3(places))
            self._spawn("coredns", addons.coredns(places, host.name_servers()))
            self._apply_files(parts.gateway_api_crds(), parts.traefik_crds())
            volumes = [self._volume(number) for number in range(VOLUMES)]
            self._apply([*addons.dns_objects(self.net), *addons.common_objects(), *volumes])
            self._spawn("traefik", addons.traefik(places), {"KUBECONFIG": str(self.kubeconfig)})
            command = addons.prometheus(places)
            (places.make_folder("prometheus") / addons.TOKEN_FILE).write_text(self._prometheus_token())
            self._spawn("prometheus", command)

    def _prometheus_token(self) -> str:
        who = addons.PROMETHEUS
        return self._kubectl("create", "token", who["name"], f"--namespace={who['namespace']}", "--duration=8760h")

    def _volume(self, number: int) -> dict[str, Any]:
        folder = self.folder / "volumes" / f"local-{number:03}"
        folder.mkdir(parents=True, exist_ok=True)
        # Pods run as various users, and the owner of a host path is not changed for them.
        folder.chmod(0o777)
        return addons.volume(folder.name, folder)

    def _apply_files(self, *folders: Path) -> None:
        self._kubectl("apply", "--server-side", "--force-conflicts", *[f"--filename={each}" for each in folders])
        self._kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")

    def _apply(self, wanted: list[dict[str, Any]]) -> None:
        items = {"apiVersion": "v1", "kind": "List", "items": wanted}
        self._kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", text=json.dumps(items))

    def _kubectl(self, *arguments: str, text: str | None = None) -> str:
        return self._run("kubectl", *arguments, text=text)

    def _run(self, tool: str, *arguments: str, text: str | None = None) -> str:
        command = [str(parts.binary_path(tool)), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise log_failure(f"{tool} {' '.join(arguments[:2])} failed: {done.stderr.strip()}")
        return done.stdout

    def _daemons(self, *names: str) -> list[Daemon]:
        return [self.state.daemons[name] for name in names]

    def _await_ready(self) -> None:
        client = self.client()
        client.wait("/readyz", "the API server", self._daemons("etcd", "kube-apiserver"))
        for name in NODES:
            node_path = f"/api/v1/nodes/{name}"
            self._until(partial(_has_condition, client, node_path, "Ready"), f"node {name}", f"kubelet-{name}")
        gateway = "/apis/gateway.networking.k8s.io/v1/namespaces/gateways/gateways/models"
        self._until(partial(_has_condition, client, gateway, "Programmed"), "the Gateway", "traefik")
        address = self.net.address
        for name, url in {
            "registry": f"http://{address}:{node.REGISTRY_PORT}/v2/",
            "prometheus": f"http://{address}:{addons.PROMETHEUS_PORT}/-/ready",
            "s3": f"http://{address}:{addons.S3_PORT}/",
        }.items():
            self._until(partial(answers_http, url), name, name)
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        client.wait(account, "the default ServiceAccount", self._daemons("kube-controller-manager"))
        client.close()

    def _until(self, ready: Callable[[], bool], what: str, daemon: str, timeout: float = 90) -> None:
        responsible = self.state.daemons[daemon]
        limit = time.monotonic() + timeout
        while not ready():
            if not responsible.alive():
                raise log_failure(f"{daemon} ended while {what} was awaited", Path(responsible.log))
            if time.monotonic() > limit:
                raise log_failure(f"{what} is not ready after {timeout:.0f}s", Path(responsible.log))
            time.sleep(0.1)

    def engines(self) -> None:
        """Run JobSet and Kueue in a running cluster; no effect when they already run."""
        parts.build([each.name for each in engines.ENGINES], self.progress)
        with self.progress.step("engines"):
            for engine in engines.ENGINES:
                identity = self.authority.sign(engine.name, engine.name, addresses=[self.net.address])
                places = addons.AddonPaths(self.folder, self.kubeconfig, self.net)
                self._apply_files(engine.crds())
                running = self.state.daemons.get(engine.name)
                if running is None or not running.alive():
                    command = engine.command(places.make_folder(engine.name), self.net, identity)
                    self._spawn(engine.name, command, {"KUBECONFIG": str(self.kubeconfig)})
                ready = f"http://{self.net.address}:{engine.health_port}/readyz"
                self._until(partial(answers_http, ready), f"{engine.name}'s webhook", engine.name)
                self._apply(engine.webhooks(self.net, self.authority))

    def envoy(self, image: str) -> None:
        """Run Envoy Gateway, with its own Gateway, in a running cluster; no effect when it already runs. `image`:
        the image of `envoy.build`, as pods name it."""
        with self.progress.step("Envoy Gateway"):
            self._apply_files(envoy.crds())
            chart = envoy.chart()
            command = ["upgrade", "--install", envoy.RELEASE, str(chart), "--create-namespace", "--wait"]
            values = json.dumps(envoy.values(chart, image))
            self._run("helm", *command, f"--namespace={envoy.NAMESPACE}", "--timeout=3m", "--values=-", text=values)
            self._apply(envoy.objects(image))
            gateway = ["gateways.gateway.networking.k8s.io", envoy.GATEWAY["name"], f"-n={envoy.GATEWAY['namespace']}"]
            self._kubectl("wait", "--for=condition=Programmed", *gateway, "--timeout=180s")

    @contextlib.contextmanager
    def stopped_daemon(self, name: str) -> Iterator[None]:
        """End a daemon for the duration of the context; restart it afterwards, once the API server responds."""
        daemon = self.state.daemons[name]
        end_all([daemon])
        try:
            yield
        finally:
            self.client().wait("/readyz", "the API server", self._daemons("etcd", "kube-apiserver"))
            self._restart(name, daemon.argv)

    @contextlib.contextmanager
    def network_policies(self, node: str) -> Iterator[None]:
        """Run kube-router to enforce NetworkPolicies on one node for the duration of the context; our nodes share a
        network."""
        parts.build(["kube-router"], self.progress)
        host.install({"ipset": "ipset"}, self.progress)
        holder = self.state.daemons["sandbox"]
        command = components.kube_router(self.kubeconfig, node, self.net.services)
        router = spawn("kube-router", command, self.logs / "kube-router.log", inside=holder)
        try:
            yield
        finally:
            end_all([router])
            theirs = "grep -v -e KUBE-ROUTER -e KUBE-NWPLCY -e KUBE-POD-FW"
            sandbox.enter(holder, "sh", "-c", f"iptables-save -t filter | {theirs} | iptables-restore -w")

    def _simulate(self, count: int) -> None:
        if not count:
            return
        parts.build(parts.SIMULATION, self.progress)
        with self.progress.step("simulated nodes"):
            if "kwok" not in self.state.daemons:
                manager = self.state.daemons["kube-controller-manager"]
                self._restart(manager.name, [*manager.argv, components.NODE_GRACE_FLAG])
                self._spawn("kwok", components.kwok(self.kubeconfig))
            client = self.client()
            self.state.facts["simulated"] = simulation.create(client, count, tainted=True)
            self.state.save()
            client.close()


def _has_condition(client: ApiClient, path: str, condition: str) -> bool:
    status, obj = client.request("GET", path)
    conditions = obj.get("status", {}).get("conditions", []) if status == 200 else []
    return any(each["type"] == condition and each["status"] == "True" for each in conditions)


def answers_http(url: str) -> bool:
    """Return whether a server speaks HTTP there; a refusal for lack of credentials counts."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False
