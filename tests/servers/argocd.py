"""Argo CD itself, from its released module: controller, repository server and API server as processes of this host,
each with the rights that Argo CD's own manifests give its ServiceAccount."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import yaml

from demo.kubectl import Json, Kubectl
from devcluster import host, parts, ports
from devcluster.cluster import Cluster
from devcluster.progress import NoProgress
from tests.servers.processes import Processes

NAMESPACE = "argocd"
APPLICATIONS = "applications.argoproj.io"
CUSTOMIZATIONS = Path(__file__).parents[2] / "manifests/argocd/argocd-cm.yaml"
# What runs as a process here, and what only guards or follows it.
_LEFT_OUT = frozenset({"Deployment", "StatefulSet", "Service", "NetworkPolicy"})


@dataclass
class ArgoCd:
    """Use in a `with` block: installs Argo CD's objects, starts its processes in `folder`, and ends them."""

    cluster: Cluster
    folder: Path
    _stack: ExitStack = field(default_factory=ExitStack)
    _processes: Processes = field(init=False)
    _web: httpx.Client | None = None

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(self.cluster.kubectl, self.cluster.kubeconfig)

    def __enter__(self) -> ArgoCd:
        parts.build(["argocd", "kustomize"])
        host.install({"redis-server": "redis-server"}, NoProgress())
        with self._stack as stack:
            self._objects()
            self._processes = stack.enter_context(Processes(self.folder))
            redis, repository, web, *metrics = ports.free_ports(6)
            common = ["--redis", f"127.0.0.1:{redis}"]
            server = [*common, "--repo-server", f"127.0.0.1:{repository}", "--repo-server-plaintext"]
            store = ["redis-server", "--bind", "127.0.0.1", "--port", str(redis)]
            self._processes.start("redis", [*store, "--save", "", "--dir", str(self.folder)])
            loopback = ["--address", "127.0.0.1", "--metrics-address", "127.0.0.1", "--metrics-port"]
            self._argocd(
                "repo-server", [*common, "--disable-tls", "--port", str(repository), *loopback, str(metrics[0])]
            )
            # Looks at the repository every few seconds instead of every three minutes.
            often = ["--app-resync", "5", "--app-resync-jitter", "0", "--metrics-port", str(metrics[1])]
            self._argocd("application-controller", [*server, *often])
            listens = [*loopback, str(metrics[2]), "--port", str(web), "--insecure", "--disable-auth"]
            self._argocd("server", [*server, *listens])
            self._web = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{web}", timeout=30))
            self._processes.wait(f"http://127.0.0.1:{web}/healthz")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def application(self, name: str) -> Json:
        """The Application as it is."""
        return self.kubectl.get(APPLICATIONS, name, NAMESPACE) or {}

    def look_again(self, name: str) -> None:
        """As a webhook of the repository does: Argo CD remembers the newest commit for minutes."""
        change = {"metadata": {"annotations": {"argocd.argoproj.io/refresh": "normal"}}}
        if self.application(name):
            self.kubectl.patch(APPLICATIONS, name, NAMESPACE, change)

    def tree(self, application: str) -> list[Json]:
        """What Argo CD shows below an Application, orphaned resources included: each with kind, name and health."""
        found = self._ask("GET", f"/api/v1/applications/{application}/resource-tree")
        return [*found.get("nodes", []), *found.get("orphanedNodes", [])]

    def actions(self, application: str, node: Json) -> set[str]:
        """The names of the actions that are offered on a resource now."""
        query = self._named(node)
        found = self._ask("GET", f"/api/v1/applications/{application}/resource/actions", params=query)
        return {each["name"] for each in found.get("actions", []) if not each.get("disabled")}

    def act(self, application: str, node: Json, action: str) -> None:
        """Press the button. Raises httpx.HTTPStatusError with Argo CD's words."""
        body = {"name": application, "action": action, **self._named(node)}
        self._ask("POST", f"/api/v1/applications/{application}/resource/actions/v2", json=body)

    def _named(self, node: Json) -> dict[str, str]:
        return {
            "resourceName": node["name"],
            "namespace": node["namespace"],
            "group": node["group"],
            "kind": node["kind"],
            "version": node["version"],
        }

    def _ask(self, method: str, path: str, **more: Any) -> Json:
        assert self._web is not None
        answer = self._web.request(method, path, **more)
        if answer.is_error:
            raise httpx.HTTPStatusError(answer.text, request=answer.request, response=answer)
        decoded: Json = answer.json()
        return decoded

    def _objects(self) -> None:
        metadata = {"name": NAMESPACE}
        self.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        (file,) = parts.module_files("argocd", "manifests", "install.yaml").iterdir()
        objects = [obj for obj in yaml.safe_load_all(file.read_text()) if obj and obj["kind"] not in _LEFT_OUT]
        for obj in objects:
            for subject in obj.get("subjects", ()):
                subject["namespace"] = NAMESPACE
            if not obj["kind"].startswith(("Cluster", "CustomResource")):
                obj["metadata"]["namespace"] = NAMESPACE
        self._stack.callback(self._remove, objects)
        self.kubectl.apply(*objects)
        # As docs/how-to/gitops.md says.
        self.kubectl.run("apply", "--server-side", "--field-manager=modelwright", "-f", str(CUSTOMIZATIONS))

    def _remove(self, objects: list[Json]) -> None:
        for obj in objects:
            if "namespace" not in obj["metadata"]:
                self.kubectl.delete(obj["kind"], obj["metadata"]["name"])
        self.kubectl.delete("namespace", NAMESPACE)

    def _argocd(self, name: str, arguments: list[str]) -> None:
        account = f"argocd-{name}"
        config = self.folder / f"{name}.kubeconfig"
        config.write_text(self._kubeconfig(account))
        kept = self.folder / "config"
        for each in ("ssh", "tls", "gpg/source", "gpg/keys"):
            (kept / each).mkdir(parents=True, exist_ok=True)
        (kept / "ssh/ssh_known_hosts").touch()
        environment = {
            "ARGOCD_BINARY_NAME": f"argocd-{name}",
            "ARGOCD_FAKE_IN_CLUSTER": "true",
            "ARGOCD_GPG_ENABLED": "false",
            "ARGOCD_TLS_DATA_PATH": str(kept / "tls"),
            "ARGOCD_SSH_DATA_PATH": str(kept / "ssh"),
            "KUBECONFIG": str(config),
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "PATH": f"{parts.binary_path('kustomize').parent}:{os.environ['PATH']}",
        }
        self._processes.start(name, [str(parts.binary_path("argocd")), *arguments], environment)

    def _kubeconfig(self, account: str) -> str:
        config = yaml.safe_load(self.cluster.kubeconfig.read_text())
        exists = self.kubectl.get("serviceaccounts", account, NAMESPACE)
        if exists is not None:
            token = self.kubectl.run("create", "token", account, "-n", NAMESPACE, "--duration", "8h").strip()
            config["users"][0]["user"] = {"token": token}
        config["contexts"][0]["context"]["namespace"] = NAMESPACE
        return json.dumps(config)
