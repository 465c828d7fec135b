"""The operator starts, and works, beside many objects of the largest size, within its memory limit.

Thirty ModelVersions each time: parsed, they would take three times the limit. MODELWRIGHT_FULL_MATRIX=1
(`make test-all`) tries a hundred of every kind, with which an API server is busy for minutes.
"""

from __future__ import annotations

import base64
import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from devcluster import ControlPlane
from modelwright.api.names import API_VERSION, LABEL_MODEL
from modelwright.kube import kinds
from modelwright.kube.client import KubeClient, load_configuration
from modelwright.kube.kinds import Kind
from tests.lib import objects
from tests.lib.control_plane import ROOT, Server
from tests.scale.operator_process import OperatorProcess

pytestmark = [pytest.mark.controlplane, pytest.mark.timeout(1800)]

FULL = os.environ.get("MODELWRIGHT_FULL_MATRIX") == "1"
EACH_TIME = {"ModelVersions"}
MANY = 100 if FULL else 30
NS = "hostile"
LISTS: list[Any] = [[[] for _ in range(28_000)] for _ in range(16)]
"""1.35 MiB of JSON, fifty times as much as Python objects. Only in open fields: the API server drops, as it reads, what
the present schema has no field for."""
TEXT = "x" * 1_400_000
LIMITED = (
    "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_DATA, (512 << 20, 512 << 20)); "
    "sys.argv = ['modelwright', 'run']; runpy.run_module('modelwright', run_name='__main__')"
)
SELF_TOLD = {kinds.MODEL, kinds.MODEL_VERSION, kinds.ROLLOUT_POLICY, kinds.RETRAINING_POLICY, kinds.TRAINING_RUN}


def own(kind: Kind, spec: Any, status: Any = None) -> dict[str, Any]:
    obj = {"apiVersion": API_VERSION, "kind": kind.kind, "spec": spec}
    return obj | ({"status": status} if status is not None else {})


def pod_spec() -> dict[str, Any]:
    return {"containers": [{"name": "c", "image": "i", "args": [""] * 450_000}], "restartPolicy": "Never"}


VERSION = objects.version(NS, "v")["spec"]
SAMPLES = {**VERSION, "samples": [{"request": {"a": part}} for part in LISTS]}
JOB = {"template": {"a": LISTS}}
CASES: list[tuple[str, Kind, dict[str, Any]]] = [
    (
        "Models",
        kinds.MODEL,
        own(kinds.MODEL, {"version": {"name": "v"}, "serving": {"podTemplate": {"spec": {"a": LISTS}}}}),
    ),
    ("ModelVersions", kinds.MODEL_VERSION, own(kinds.MODEL_VERSION, SAMPLES)),
    (
        "ModelVersions of text",
        kinds.MODEL_VERSION,
        own(kinds.MODEL_VERSION, {**VERSION, "samples": [{"request": {"a": TEXT}}]}),
    ),
    (
        "RolloutPolicies",
        kinds.ROLLOUT_POLICY,
        own(
            kinds.ROLLOUT_POLICY,
            {
                "strategy": {"preset": "Canary"},
                "gates": {"evaluation": {"metrics": [{"name": "accuracy", "min": "0.9"}], "template": {"a": LISTS}}},
            },
        ),
    ),
    (
        "RetrainingPolicies",
        kinds.RETRAINING_POLICY,
        own(kinds.RETRAINING_POLICY, {"modelRef": {"name": "m"}, "run": {"train": {"job": JOB}}}),
    ),
    (
        "ModelRollouts",
        kinds.MODEL_ROLLOUT,
        own(
            kinds.MODEL_ROLLOUT,
            {"modelRef": {"name": "m"}, "target": {"version": "v"}},
            {"policy": {"name": "p", "spec": {"a": LISTS}}},
        ),
    ),
    (
        "TrainingRuns",
        kinds.TRAINING_RUN,
        own(
            kinds.TRAINING_RUN,
            {"policyRef": {"name": "p"}},
            {"policy": {"name": "p", "spec": {}}, "profile": {"a": LISTS}},
        ),
    ),
    ("Approvals", kinds.APPROVAL, own(kinds.APPROVAL, {"modelRef": {"name": "m"}, "reason": TEXT})),
    ("ModelRuntimes", kinds.MODEL_RUNTIME, own(kinds.MODEL_RUNTIME, {"container": {"a": LISTS}})),
    (
        "ClusterModelRuntimes",
        kinds.CLUSTER_MODEL_RUNTIME,
        own(kinds.CLUSTER_MODEL_RUNTIME, {"container": {"a": LISTS}}),
    ),
    ("pods that carry our labels", kinds.POD, {"apiVersion": "v1", "kind": "Pod", "spec": pod_spec()}),
    (
        "Deployments that carry our labels",
        kinds.DEPLOYMENT,
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod_spec() | {"restartPolicy": "Always"}},
            },
        },
    ),
    (
        "Jobs that carry our labels",
        kinds.JOB,
        {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": pod_spec()}}},
    ),
]


@pytest.fixture
def plane() -> Iterator[Server]:
    """An API server with our kinds as a former version might have had them: open, and without a bound."""
    with ControlPlane() as plane:
        server = Server(plane)
        former = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
        former = [crd for crd in former if crd["kind"] == "CustomResourceDefinition"]
        anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        for crd in former:
            version = crd["spec"]["versions"][0]
            version["schema"] = {"openAPIV3Schema": anything}
            for key in ("subresources", "selectableFields", "additionalPrinterColumns"):
                version.pop(key, None)
        server.ok("apply", "-f", "-", objects=former)
        server.ok("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        for namespace in (NS, "neighbour"):
            server.ok("create", "namespace", namespace)
        yield server


async def fill(plane: ControlPlane, kind: Kind, template: dict[str, Any]) -> None:
    """Store many of them: our kinds in etcd itself, as JSON, since the API server takes seconds for each."""
    labels = {"app.kubernetes.io/managed-by": "modelwright", LABEL_MODEL: "digits", "modelwright.dev/role": "resolve"}
    if kind in kinds.OWN_KINDS:
        await store(plane, kind, template, labels)
        return
    configuration = await load_configuration(str(plane.kubeconfig))
    client = KubeClient(configuration, qps=1000, burst=1000, request_seconds=120)
    try:
        for number in range(MANY):
            body = {**template, "metadata": {"name": f"fat-{number}", "labels": labels}}
            await client._request_bytes("POST", kind, kind.path(NS), body=body)
    finally:
        await client.close()


async def store(plane: ControlPlane, kind: Kind, template: dict[str, Any], labels: dict[str, str]) -> None:
    """What an API server has written, as another one of a former version would have."""
    async with aiohttp.ClientSession() as session:
        for number in range(MANY):
            name = f"fat-{number}"
            namespace = {"namespace": NS} if kind.namespaced else {}
            metadata = {
                "name": name,
                **namespace,
                "uid": str(uuid.uuid4()),
                "generation": 1,
                "labels": labels,
                "creationTimestamp": "2026-11-01T00:00:00Z",
            }
            place = f"/registry/{kind.group}/{kind.plural}/{NS + '/' if kind.namespaced else ''}{name}"
            value = json.dumps({**template, "metadata": metadata}, separators=(",", ":"))
            body = {"key": encoded(place), "value": encoded(value)}
            async with session.post(f"{plane.etcd}/v3/kv/put", json=body) as answer:
                answer.raise_for_status()


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


TRIED = [case for case in CASES if FULL or case[0] in EACH_TIME]


@pytest.mark.parametrize(("what", "kind", "template"), TRIED, ids=[case[0] for case in TRIED])
async def test_it_starts_and_works_beside_many_of_the_largest(
    plane: Server, tmp_path: Path, what: str, kind: Kind, template: dict[str, Any]
) -> None:
    await fill(plane.plane, kind, template)
    plane.ok("apply", "-k", str(ROOT / "crds"))
    plane.ok("create", "-f", "-", objects=objects.model("neighbour"))
    log, begin = tmp_path / "log", time.monotonic()
    with OperatorProcess(plane.plane.kubeconfig, log, program=("-c", LIMITED), sweep_seconds=20) as operator:
        operator.wait_ready(600)
        eventually(lambda: told(plane, "model", "digits", "neighbour"), operator, "the neighbour's Model is served")
        if kind in SELF_TOLD:
            eventually(lambda: told(plane, kind.plural, "fat-0", NS), operator, "the object is refused in its status")
        # A whole resync, too.
        eventually(lambda: 'resyncs_total{result="ok"}' in operator.metrics(), operator, "a resync has ended")
        operator.check()
        assert f'modelwright_store_too_large_objects{{kind="{kind.kind}"}}' in operator.metrics()
        peak = operator.resident_mib(peak=True)
        print(f"{MANY} {what}: {time.monotonic() - begin:.0f} s, peak {peak:.0f} MiB")
        assert operator.stop() == 0


def told(plane: Server, plural: str, name: str, namespace: str) -> bool:
    answer = plane.run("get", plural, name, "-n", namespace, "-o", "jsonpath={.status.conditions[*].message}")
    assert answer.returncode == 0, answer.stderr
    return bool(answer.stdout) if namespace != NS else any(text in answer.stdout for text in ("in memory", "no room"))


def eventually(condition: Any, operator: OperatorProcess, what: str, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        operator.check()
        assert time.monotonic() < end, f"not so in time: {what}"
        time.sleep(0.5)
