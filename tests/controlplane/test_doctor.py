"""`doctor` against a real API server: nothing is found where all is well, and each seeded fault with its cure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import parts, pki
from tests.lib import objects
from tests.lib.control_plane import ROOT, Server, served
from tests.unit.cli.doctor import cluster
from tests.unit.cli.doctor.cluster import GATEWAYS, HOME

pytestmark = pytest.mark.controlplane

Json = dict[str, Any]
NS = "clinic"
STATUS = ("--subresource=status", "--type=merge", "-p")
SLOW = 30.0
"""Seconds within which the API server has taken up a CRD or a policy."""


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Clinic:
    """An install without an operator's process, and a namespace with a Model that serves; and `doctor` in it."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder

    def apply(self, *given: Json) -> None:
        """Objects, and the status that they have."""
        for obj in given:
            body = {key: value for key, value in obj.items() if key != "status"}
            for member in ("uid", "generation", "creationTimestamp"):
                body["metadata"].pop(member, None)
            self.server.ok("apply", "--server-side", "--force-conflicts", "-f", "-", objects=body)
            if "status" in obj:
                metadata = body["metadata"]
                scope = ["-n", metadata["namespace"]] if metadata.get("namespace") else []
                patch = json.dumps({"status": obj["status"]})
                self.server.ok("patch", obj["kind"], metadata["name"], *scope, *STATUS, patch)

    def renew(self) -> None:
        """What a leader does all the time."""
        spec = {"holderIdentity": "modelwright-a_1", "leaseDurationSeconds": 15, "renewTime": now()}
        metadata = {"name": "modelwright-operator", "namespace": HOME}
        self.apply({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec})

    def run(self, *arguments: str, kubeconfig: Path | None = None) -> tuple[int, str, str]:
        """Exit code and what was printed."""
        self.renew()
        line = [sys.executable, "-m", "modelwright.cli.plugin", "doctor", *arguments]
        line += ["--kubeconfig", str(kubeconfig or self.server.plane.kubeconfig)]
        environment = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
        environment |= {"KUBECTL": str(self.server.plane.kubectl), "PYTHONPATH": str(ROOT / "operator")}
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    def bad(self, *arguments: str) -> list[str]:
        """Faults and warnings, a line each."""
        return [line for line in self.run(*arguments)[1].splitlines() if line.startswith(("fault ", "warning "))]

    def until(self, is_so: Callable[[list[str]], bool], *arguments: str) -> list[str]:
        """What is found once it is so: CRDs and policies take a moment."""
        end = time.monotonic() + SLOW
        while not is_so(found := self.bad(*arguments)):
            assert time.monotonic() < end, "\n".join(found)
        return found


def placed(obj: Json, **more: Any) -> Json:
    """An object of the recorded cluster in this namespace."""
    metadata = {"name": obj["metadata"]["name"], "namespace": NS}
    return {**obj, "metadata": metadata, **more}


def wanted() -> list[Json]:
    store = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "planted-value"}
    where = {"namespace": NS}
    route = cluster.gateway() | {"apiVersion": "gateway.networking.k8s.io/v1"}
    route_class = cluster.gateway_class(*sorted(cluster.FEATURES)) | {"apiVersion": "gateway.networking.k8s.io/v1"}
    connections = cluster.connections("default") | {"apiVersion": "v1"}
    runtime = objects.runtime("plain", "plain")
    return [
        *({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in (HOME, GATEWAYS, NS)),
        runtime,
        connections,
        cluster.operator(),
        route_class,
        route,
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store", **where}, "stringData": store},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader", **where}},
        placed(cluster.policy()),
        placed(cluster.version()),
        placed(cluster.model()),
    ]


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """On an API server of its own: what is installed is changed, and other tests' objects would be found too."""
    with served() as server:
        server.ok("apply", "--server-side", "-f", str(parts.gateway_api_crds()))
        server.ok("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
        server.ok("apply", "-k", str(ROOT / "manifests/rbac"))
        found = Clinic(server, tmp_path_factory.mktemp("people"))
        found.apply(*wanted())
        yield found


def test_where_all_is_well_nothing_is_found(clinic: Clinic) -> None:
    clinic.until(lambda found: found == [])
    code, out, err = clinic.run()
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "0 faults, 0 warnings, 0 not permitted to see"
    assert f"ok             leader: Lease {HOME}/modelwright-operator: modelwright-a_1 leads" in out
    assert "you may view, edit, command, approve in all namespaces" in out
    assert clinic.bad("-n", NS) == clinic.bad("digits", "-n", NS) == []


def test_who_sees_one_namespace_is_shown_what_was_hidden(clinic: Clinic) -> None:
    """With the role modelwright-view there, and nothing else."""
    rbac = "rbac.authorization.k8s.io"
    clinic.apply(
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "vic", "namespace": NS},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "modelwright-view"},
            "subjects": [{"kind": "User", "name": "vic", "apiGroup": rbac}],
        }
    )
    authority = pki.Authority(clinic.server.plane.folder / "pki")
    file = clinic.folder / "vic"
    pki.kubeconfig(file, clinic.server.plane.url, authority, authority.sign("vic", "vic"))
    reported = yaml.safe_load(file.read_text())
    reported["contexts"][0]["context"]["namespace"] = NS
    file.write_text(yaml.safe_dump(reported))
    _, out, err = clinic.run(kubeconfig=file)
    assert err == ""
    lines = out.splitlines()
    hidden = [line for line in lines if line.startswith("not permitted")]
    assert any("Secrets: " in line and 'User "vic" cannot get resource "secrets"' in line for line in hidden), out
    assert any("admission: " in line for line in hidden), out
    assert any("helper pods: " in line and 'cannot create resource "pods"' in line for line in hidden), out
    assert any(line.startswith("ok") and "CRDs: " in line for line in lines), out
    assert any(line.startswith("ok") and f"rights: you may view in namespace {NS}" in line for line in lines), out


LIMITS = {
    "apiVersion": "v1",
    "kind": "LimitRange",
    "metadata": {"name": "small", "namespace": NS},
    "spec": {"limits": [{"type": "Container", "max": {"memory": "16Mi"}}]},
}


def test_seeded_faults_are_found_together_with_their_cures(clinic: Clinic) -> None:
    """The last one: the faults stay."""
    server = clinic.server
    old = server.get("crd", "models.modelwright.dev")
    members = old["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    del members["endpoint"]["properties"]["requestTimeout"]
    del members["endpoint"]["x-kubernetes-validations"]
    steps = {"steps": [{"mirror": {"percent": 100, "hold": "2m"}}, {"weight": 100}]}
    stalled = [cluster.condition("Stalled", "True", "RouteConflict", "path / is taken")]
    server.ok("delete", "validatingadmissionpolicybinding", "modelwright-approval")
    server.ok("replace", "-f", "-", objects=old)
    clinic.apply(
        LIMITS,
        cluster.gateway(hostname="*.elsewhere.com") | {"apiVersion": "gateway.networking.k8s.io/v1"},
        cluster.gateway_class("HTTPRouteCORS") | {"apiVersion": "gateway.networking.k8s.io/v1"},
        cluster.connections("cloud") | {"apiVersion": "v1"},
        cluster.operator() | {"status": {"replicas": 2, "readyReplicas": 0}},
        placed(cluster.policy(strategy=steps)),
        placed(cluster.version(format={"name": "onnx"}) | {"metadata": {"name": "v2"}}),
        placed(cluster.model(version={"name": "v2"}), status={"observedGeneration": 2, "conditions": stalled}),
    )
    server.ok("delete", "serviceaccount", "reader", "-n", NS)
    gone = json.dumps([{"op": "remove", "path": "/data/AWS_SECRET_ACCESS_KEY"}])
    server.ok("patch", "secret", "store", "-n", NS, "--type=json", "-p", gone)
    found = clinic.until(lambda found: not missing(found))
    assert "planted-value" not in "\n".join(found)


def missing(found: list[str]) -> list[tuple[str, ...]]:
    """The expected findings of which no line has all parts."""
    return [row for row in EXPECTED if not any(all(part in line for part in row) for line in found)]


EXPECTED = [
    ("fault", "CRDs: ", "models.modelwright.dev", "drops spec.endpoint.requestTimeout", "cure: install the chart"),
    ("fault", "operator: ", "none of its 2 pods is ready", "cure: kubectl"),
    ("fault", "admission: ", "modelwright-approval", "no ValidatingAdmissionPolicyBinding", "apply -k"),
    ("fault", "gateways: ", "hostname *.elsewhere.com", "cure: change the listener"),
    ("fault", "features: ", "HTTPRouteRequestMirror", "cure: "),
    ("fault", "connections: ", "the operator has cloud", "cure: add the connection"),
    ("fault", "Secrets: ", f"Secret {NS}/store", "without AWS_SECRET_ACCESS_KEY", "patch secret store"),
    ("fault", "ServiceAccounts: ", f"ServiceAccount {NS}/reader", "create serviceaccount reader"),
    ("fault", "runtimes: ", "no runtime serves format onnx", "cure: install a runtime"),
    ("fault", "helper pods: ", "LimitRange refuses", "helperPods.resources"),
    ("fault", "Models: ", "RouteConflict: path / is taken", "cure: choose another hostname"),
]
