"""How many requests, how much CPU, memory and time the operator needs for N Models on simulated nodes."""

import asyncio
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from devcluster import ControlPlane
from modelwright.kube import kinds
from modelwright.kube.client import KubeClient, load_configuration
from tests.scale.audit import AuditLog, Counts
from tests.scale.operator_process import ROOT, OperatorProcess

Object = dict[str, Any]
DIGEST = "sha256:" + "0" * 64
BOUNDS = {
    "create: seconds": 20.0, "change: seconds": 25.0, "create: writes a Model": 6.0, "create: reads a Model": 0.0,
    "create: CPU ms a Model": 15.0, "memory MiB": 140.0, "restart: writes": 0.0, "idle: writes": 0.0,
}  # fmt: skip
"""What design.md asks for at 500 Models."""
BOUNDED = 500


@dataclass
class Figures:
    """What one size came to, in the order of measuring."""

    models: int
    values: dict[str, float] = field(default_factory=dict)
    detail: dict[str, Counts] = field(default_factory=dict)


def runtime() -> Object:
    """A runtime whose pods only have to exist: the nodes are simulated."""
    return {
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "ClusterModelRuntime",
        "metadata": {"name": "scale"},
        "spec": {
            "formats": [{"name": "scale"}],
            "protocol": "V2",
            "ports": {"http": 8080, "metrics": 8082},
            "container": {"image": "example.com/scale:1", "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}}},
        },
    }


def version(model: str, number: int) -> Object:
    """A pinned version, so that nothing has to be fetched."""
    return {
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "ModelVersion",
        "metadata": {"name": f"{model}-v{number}", "namespace": "default"},
        "spec": {
            "modelRef": {"name": model},
            "artifact": {"uri": f"s3://models/{model}/{number}", "digest": DIGEST, "format": {"name": "scale"}},
        },
    }


def model(name: str, number: int, **spec: Any) -> Object:
    """A Model pinned to one of its versions."""
    return {
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"version": {"name": f"{name}-v{number}"}, **spec},
    }


def bare(name: str) -> list[Object]:
    """A Deployment and a Service as a Model has them, and nobody's."""
    labels = {"app": name}
    container = {"name": "model", **runtime()["spec"]["container"]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    metadata = {"name": name, "namespace": "default"}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"port": 80}]},
        },
    ]


async def bare_seconds(client: KubeClient, count: int) -> float:
    """How long API server, controllers and nodes alone need for the pods and Services of so many Models: the measure of
    this machine at this hour."""
    begin = time.monotonic()
    await put_all(client, [obj for number in range(count) for obj in bare(f"bare-{number:05d}")])
    while True:
        found = await client.list(kinds.DEPLOYMENT, "default")
        if sum(each.get("status", {}).get("availableReplicas", 0) for each in found) == count:
            break
        await asyncio.sleep(1)
    seconds = time.monotonic() - begin
    for kind in (kinds.DEPLOYMENT, kinds.SERVICE):
        for each in await client.list(kind, "default"):
            metadata = each["metadata"]
            if metadata["name"].startswith("bare-"):
                await client.delete(kind, "default", metadata["name"], uid=metadata["uid"])
    while await client.list(kinds.POD, "default"):  # noqa: ASYNC110 - the API server tells nobody
        await asyncio.sleep(1)
    return seconds


async def install_crds(plane: ControlPlane, client: KubeClient) -> None:
    """Apply crds/ and return once our kinds are served."""
    command = [plane.kubectl, "--kubeconfig", plane.kubeconfig, "apply", "--server-side", "-k", ROOT / "crds"]
    await asyncio.to_thread(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
    while not set(kinds.OWN_KINDS) <= await client.served_kinds():  # noqa: ASYNC110 - the API server tells nobody
        await asyncio.sleep(0.1)


async def put_all(client: KubeClient, objects: list[Object]) -> None:
    """Apply all objects, sixteen at a time."""
    gate = asyncio.Semaphore(16)

    async def one(obj: Object) -> None:
        async with gate:
            await client.apply(obj, field_manager="scale")

    await asyncio.gather(*map(one, objects))


async def all_serve(client: KubeClient, number: int, count: int, patience: float) -> None:
    """Return once every Model is Ready with version `number`, alone; looks seldom, since that costs the API server."""
    limit = time.monotonic() + patience
    while True:
        models = await client.list(kinds.MODEL, "default")
        left = [m["metadata"]["name"] for m in models if not _serves(m, number)]
        if not left and len(models) == count:
            return
        if time.monotonic() > limit:
            stuck = next(m for m in models if m["metadata"]["name"] == left[0])
            raise RuntimeError(
                f"{len(left)} of {count} Models are not ready after {patience} s, such as:\n{yaml.dump(stuck)}"
            )
        await asyncio.sleep(2)


def _serves(obj: Object, number: int) -> bool:
    status = obj.get("status", {})
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))
    current = status.get("observedGeneration") == obj["metadata"]["generation"]
    return ready and current and status["serving"]["version"].endswith(f"-v{number}")


async def quiet(audit: AuditLog, seconds: float = 3.0) -> Counts:
    """Counts until nothing was written for `seconds`."""
    total = audit.take()
    while True:
        await asyncio.sleep(seconds)
        more = audit.take()
        total.writes += more.writes
        total.reads += more.reads
        total.events += more.events
        total.refused += more.refused
        if not more.total_writes and not more.events:
            return total


async def measure(count: int, idle: float, folder: Path) -> Figures:
    """All figures for `count` Models."""
    figures = Figures(count)
    with ControlPlane(kwok_nodes=max(3, count // 100), audit=True) as plane:
        os.environ["KUBECONFIG"] = str(plane.kubeconfig)
        client = KubeClient(await load_configuration(), qps=2000, burst=4000, user_agent="scale-harness")
        await install_crds(plane, client)
        await client.apply(runtime(), field_manager="scale")
        figures.values["bare Deployments and Services: seconds"] = await bare_seconds(client, count)
        audit = AuditLog(plane.audit_log)
        operator = OperatorProcess(plane.kubeconfig, folder / f"operator-{count}.log", qps=1000, burst=2000)
        with operator:
            operator.wait_ready()
            await quiet(audit, 1.0)
            names = [f"m{number:05d}" for number in range(count)]
            await _phase(figures, "create", operator, audit, client, count, 1,
                         [o for name in names for o in (version(name, 1), model(name, 1))])  # fmt: skip
            await _phase(figures, "change", operator, audit, client, count, 2,
                         [o for name in names for o in (version(name, 2), model(name, 2))])  # fmt: skip
            figures.values["memory MiB"] = operator.resident_mib()
            figures.values["peak memory MiB"] = operator.resident_mib(peak=True)
            await _idle(figures, operator, audit, idle)
            begin = time.monotonic()
            operator.stop()
            figures.values["stop: seconds"] = time.monotonic() - begin
        audit.take()
        again = OperatorProcess(plane.kubeconfig, folder / f"operator-{count}-again.log", qps=1000, burst=2000)
        with again:
            figures.values["restart: seconds to ready"] = again.wait_ready()
            counts = await quiet(audit, 5.0)
            figures.values["restart: writes"] = counts.total_writes
            figures.values["restart: Events"] = counts.events
            figures.values["restart: memory MiB"] = again.resident_mib()
            figures.detail["restart"] = counts
            again.stop()
        await client.close()
    return figures


async def _phase(
    figures: Figures, name: str, operator: OperatorProcess, audit: AuditLog, client: KubeClient, count: int,
    number: int, objects: list[Object],
) -> None:  # fmt: skip
    cpu, begin = operator.cpu_seconds(), time.monotonic()
    await put_all(client, objects)
    figures.values[f"{name}: seconds to apply"] = time.monotonic() - begin
    await all_serve(client, number, count, patience=60 + count)
    figures.values[f"{name}: seconds"] = seconds = time.monotonic() - begin
    figures.values[f"{name}: times as long as bare"] = (
        seconds / figures.values["bare Deployments and Services: seconds"]
    )
    counts = await quiet(audit)
    figures.values[f"{name}: CPU ms a Model"] = 1000 * (operator.cpu_seconds() - cpu) / count
    figures.values[f"{name}: writes a Model"] = counts.total_writes / count
    figures.values[f"{name}: reads a Model"] = counts.total_reads / count
    figures.values[f"{name}: Events a Model"] = counts.events / count
    figures.detail[name] = counts


async def _idle(figures: Figures, operator: OperatorProcess, audit: AuditLog, seconds: float) -> None:
    audit.take()
    cpu = operator.cpu_seconds()
    await asyncio.sleep(seconds)
    counts = audit.take()
    figures.values["idle: writes"] = counts.total_writes + counts.events
    figures.values["idle: Lease writes a minute"] = counts.leases * 60 / seconds
    figures.values["idle: CPU % of a core"] = 100 * (operator.cpu_seconds() - cpu) / seconds


def show(results: list[Figures], bounds: Mapping[str, float] = BOUNDS, of: int = BOUNDED) -> None:
    """The table, then each phase's requests by verb and kind. `bounds` are those at the size `of`."""
    console = Console(width=120)
    table = Table(title="On simulated nodes")
    table.add_column("figure")
    for result in results:
        table.add_column(f"N={result.models}", justify="right")
    table.add_column(f"bound at {of}", justify="right")
    for key in results[0].values:
        bound = bounds.get(key)
        cells = [f"{result.values[key]:.2f}" for result in results]
        table.add_row(key, *cells, "" if bound is None else f"{bound:g}")
    console.print(table)
    for result in results:
        for phase, counts in result.detail.items():
            parts = [f"{v} {r}: {n / result.models:.2f}" for (v, r), n in counts.writes.most_common()]
            parts += [f"{v} {r} (read): {n / result.models:.2f}" for (v, r), n in counts.reads.most_common()]
            parts += [f"{v} {r} -> {c}: {n}" for (v, r, c), n in counts.refused.most_common()]
            console.print(f"N={result.models} {phase}: " + "; ".join(parts or ["nothing"]))


def write(
    path: Path, results: list[Figures], command: str, bounds: Mapping[str, float] = BOUNDS, of: int = BOUNDED
) -> None:
    """The figures in the common format of docs/figures. `bounds` are those at the size `of`."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    rows = []
    for result in results:
        for key, value in result.values.items():
            bound = bounds.get(key) if result.models == of else None
            unit = next((u for u in ("seconds", "CPU ms", "MiB", "%", "times") if u in key), "count")
            rows.append(
                {
                    "name": f"N={result.models} {key}",
                    "value": round(value, 3),
                    "unit": unit,
                    "bound": bound,
                    "holds": None if bound is None else value <= bound,
                }
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "host": {"cores": os.cpu_count(), "memoryGiB": round(memory, 1), "machine": platform.machine()},
        "figures": rows,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
