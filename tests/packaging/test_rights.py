"""The operator with exactly the rights that the installs give it: everything it does is allowed, in both scopes."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import ControlPlane, parts
from tests.packaging.render import INSTALL, NAMESPACE, Object
from tests.scale.operator_process import OperatorProcess

pytestmark = pytest.mark.kwok

USER = f"system:serviceaccount:{NAMESPACE}:modelwright"
DIGEST = "sha256:" + "0" * 64
# What the operator sends in a forged name, to see it refused: docs/adr/0009.
FORGERIES = "dryRun=All"
# A namespaced operator finds out once whether it was given more than the install gives it.
ASKED_ONCE = {
    "list /apis/gateway.networking.k8s.io/v1/gatewayclasses?limit=500",
    "list /apis/modelwright.dev/v1alpha1/clustermodelruntimes?limit=500",
}


class InstalledControlPlane:
    """A control plane with one of the installs, asked as an administrator."""

    def __init__(self, plane: ControlPlane, folder: Path, install: str) -> None:
        self.plane = plane
        self.install = install
        self.namespace = NAMESPACE if install == "namespaced" else "team"
        self.runtime_kind = "ModelRuntime" if install == "namespaced" else "ClusterModelRuntime"
        self.kubeconfig = folder / "kubeconfig"
        self.log = folder / "operator.log"

    def kubectl(self, *arguments: str, objects: list[Object] | None = None) -> str:
        done = subprocess.run(
            [str(self.plane.kubectl), "--kubeconfig", str(self.plane.kubeconfig), *arguments],
            input=yaml.safe_dump_all(objects) if objects else None,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def apply(self, *objects: Object) -> None:
        self.kubectl("apply", "--server-side", "-f", "-", objects=list(objects))

    def items(self, resource: str) -> list[Object]:
        found: list[Object] = json.loads(self.kubectl("get", resource, "-n", self.namespace, "-o", "json"))["items"]
        return found

    def names(self, resource: str) -> list[str]:
        return [item["metadata"]["name"] for item in self.items(resource)]

    def refused(self) -> list[str]:
        """What the API server forbade the operator, from the audit log."""
        assert self.plane.audit_log is not None
        entries = [json.loads(line) for line in self.plane.audit_log.read_text().splitlines()]
        found = {
            f"{e['verb']} {e['requestURI']}"
            for e in entries
            if e["user"]["username"] == USER
            and e.get("responseStatus", {}).get("code") in (401, 403)
            and FORGERIES not in e["requestURI"]
        }
        return sorted(found - (ASKED_ONCE if self.install == "namespaced" else set()))

    def until(self, what: str, holds: Callable[[], Any], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not holds():
            refused = self.refused()
            assert not refused, refused
            if time.monotonic() > end:
                states = [{m["metadata"]["name"]: m.get("status", {}).get("conditions")} for m in self.items("models")]
                tail = self.log.read_text().splitlines()[-10:]
                pytest.fail("\n".join([f"{what}: not after {seconds} s", json.dumps(states, indent=1), *tail]))
            time.sleep(0.2)

    def act_as_the_operator(self) -> None:
        """A kubeconfig with the token of the installed ServiceAccount."""
        token = self.kubectl("create", "token", "modelwright", "-n", NAMESPACE, "--duration", "1h").strip()
        config = yaml.safe_load(self.plane.kubeconfig.read_text())
        for user in config["users"]:
            user["user"] = {"token": token}
        self.kubeconfig.write_text(yaml.safe_dump(config))
        claims = token.split(".")[1]
        assert USER in base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)).decode()


@pytest.fixture(params=["cluster", "namespaced"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[InstalledControlPlane]:
    with ControlPlane(kwok_nodes=2, audit=True) as plane:
        here = InstalledControlPlane(plane, tmp_path, request.param)
        here.kubectl("apply", "--server-side", "-f", str(parts.gateway_api_crds()))
        here.kubectl("apply", "--server-side", "-k", str(INSTALL / "crds"))
        here.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
        for name in {NAMESPACE, here.namespace}:
            here.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        here.kubectl("apply", "--server-side", "-k", str(INSTALL / request.param))
        here.kubectl("scale", "--replicas=0", "deployment/modelwright", "-n", NAMESPACE)
        here.act_as_the_operator()
        yield here


def own(world: InstalledControlPlane, kind: str, name: str, spec: Object) -> Object:
    metadata = {"name": name} if kind.startswith("Cluster") else {"name": name, "namespace": world.namespace}
    return {"apiVersion": "modelwright.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def runtime(world: InstalledControlPlane) -> Object:
    container = {
        "image": "example.com/runtime:1",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {"formats": [{"name": "any"}], "protocol": "V2", "ports": {"http": 8080}, "container": container}
    return own(world, world.runtime_kind, "any", spec)


def artifact(**more: Any) -> Object:
    return {"uri": "https://store.example.com/model.bin", "format": {"name": "any"}, **more}


def test_nothing_the_operator_does_is_forbidden(world: InstalledControlPlane) -> None:
    gateway = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "models", "namespace": world.namespace},
        "spec": {"gatewayClassName": "none", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
    }
    serving = {"runtimeRef": {"kind": world.runtime_kind, "name": "any"}}
    pinned = own(
        world,
        "Model",
        "pinned",
        {
            "version": {"name": "pinned-1"},
            "serving": {**serving, "replicas": 2},
            "endpoint": {"parentRefs": [{"name": "models"}], "hostnames": ["pinned.example.com"]},
        },
    )
    inline = own(
        world,
        "Model",
        "inline",
        {
            "version": {"template": {"artifact": artifact(digest=DIGEST)}},
            "serving": {**serving, "autoscaling": {"minReplicas": 1, "maxReplicas": 3}},
        },
    )
    plain = own(world, "Model", "plain", {"version": {"name": "plain-1"}, "serving": serving})
    versions = [
        own(world, "ModelVersion", f"{n}-1", {"modelRef": {"name": n}, "artifact": artifact(digest=DIGEST)})
        for n in ("pinned", "plain")
    ]
    resolved = own(world, "ModelVersion", "plain-2", {"modelRef": {"name": "plain"}, "artifact": artifact()})
    template = {"template": {"spec": {"containers": [{"name": "work", "image": "example.com/trainer:1"}]}}}
    data = {"uri": "https://store.example.com/data.csv"}
    retraining = own(
        world,
        "RetrainingPolicy",
        "plain",
        {
            "modelRef": {"name": "plain"},
            "triggers": [{"name": "new", "data": data}, {"name": "daily", "schedule": {"cron": "0 3 * * *"}}],
            "run": {
                "dataset": {**data, "digest": DIGEST},
                "train": {"job": template},
                "output": {"uri": "s3://models/plain", "format": {"name": "any"}},
            },
        },
    )
    by_hand = {"policyRef": {"name": "plain"}, "manual": {"by": "admin", "reason": "to see it"}}
    run = own(world, "TrainingRun", "plain-now", by_hand)
    watched = {"watch_namespaces": world.namespace} if world.install == "namespaced" else {}
    with OperatorProcess(world.kubeconfig, world.log, namespace=NAMESPACE, settle_seconds=1, **watched) as operator:
        operator.wait_ready()
        world.apply(gateway, runtime(world), *versions, resolved, pinned, inline, plain)
        world.until("Deployments", lambda: len(set(world.names("deployments")) - {"modelwright"}) == 3)
        world.until("Services", lambda: {"inline", "plain"} <= set(world.names("services")))
        world.until("the route", lambda: world.names("httproutes") == ["pinned"])
        world.until("the disruption budget", lambda: world.names("poddisruptionbudgets"))
        world.until("the autoscaler", lambda: world.names("horizontalpodautoscalers"))
        world.until("the stamped version", lambda: any(n.startswith("inline-") for n in world.names("modelversions")))
        world.until("the resolve pod", lambda: any("-resolve-" in n for n in world.names("pods")))
        world.until("the stored revisions", lambda: len(world.names("controllerrevisions")) >= 3)
        world.until("Events", lambda: world.names("events.events.k8s.io"))
        world.until("proof of the admission policies", lambda: "admission policies are in force" in operator_log(world))
        world.until("readiness", lambda: ready(world, "plain"))
        world.apply(retraining, run)
        world.until("the look at data", lambda: world.names("cronjobs"))
        # Its pod ends without a result on a simulated node.
        world.until("the end of the run", lambda: ended(world, "plain-now"))
        assert world.names("jobs")
        world.kubectl("delete", "retrainingpolicies,trainingruns", "--all", "-n", world.namespace)
        world.kubectl("delete", "models", "--all", "-n", world.namespace, "--wait=false")
        world.until("an empty namespace", lambda: not set(world.names("deployments")) - {"modelwright"}, 90)
        assert operator.stop() == 0
    assert not world.refused()


def operator_log(world: InstalledControlPlane) -> str:
    return world.log.read_text()


def ended(world: InstalledControlPlane, name: str) -> bool:
    runs = (run.get("status", {}) for run in world.items("trainingruns") if run["metadata"]["name"] == name)
    return any(status.get("finishedAt") for status in runs)


def ready(world: InstalledControlPlane, name: str) -> bool:
    for model in world.items("models"):
        if model["metadata"]["name"] == name:
            conditions = model.get("status", {}).get("conditions", [])
            return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return False
