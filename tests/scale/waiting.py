"""Putting many objects there, and waiting for what becomes of them."""

import asyncio
import time
from collections.abc import Callable

import yaml

from devcluster import ControlPlane
from modelwright.kube import kinds
from modelwright.kube.client import KubeClient
from tests.scale import processes
from tests.scale.audit import AuditLog, Counts
from tests.scale.objects import NAMESPACE, Object


async def put_all(client: KubeClient, objects: list[Object]) -> None:
    """Apply all objects, sixteen at a time."""
    gate = asyncio.Semaphore(16)

    async def one(obj: Object) -> None:
        async with gate:
            await client.apply(obj, field_manager="scale")

    await asyncio.gather(*map(one, objects))


async def all_serve(client: KubeClient, number: int, count: int, patience: float, check: Callable[[], None]) -> None:
    """Return once every Model is Ready with version `number`, alone; looks seldom, since that costs the API server.
    Raises RuntimeError after `patience` seconds; what `check` raises ends the wait too."""
    limit = time.monotonic() + patience
    while True:
        models = await client.list(kinds.MODEL, NAMESPACE)
        left = [m["metadata"]["name"] for m in models if not _serves(m, number)]
        if not left and len(models) == count:
            return
        check()
        if time.monotonic() > limit:
            stuck = next(m for m in models if m["metadata"]["name"] == left[0])
            raise RuntimeError(
                f"{len(left)} of {count} Models are not ready after {patience} s, such as:\n{yaml.dump(stuck)}"
            )
        await asyncio.sleep(max(2, count / 500))


def _serves(obj: Object, number: int) -> bool:
    status = obj.get("status", {})
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))
    current = status.get("observedGeneration") == obj["metadata"]["generation"]
    return ready and current and status["serving"]["version"].endswith(f"-v{number}")


async def quiet(audit: AuditLog, seconds: float = 3.0, patience: float = 900.0) -> Counts:
    """Counts until nothing was written for `seconds`. Raises RuntimeError after `patience` seconds."""
    total = audit.take()
    limit = time.monotonic() + patience
    while time.monotonic() < limit:
        await asyncio.sleep(seconds)
        more = audit.take()
        total.add(more)
        if not more.total_writes and not more.events:
            return total
    raise RuntimeError(f"the operator still writes after {patience:.0f} s: {dict(more.writes)}, {more.events} Events")


async def control_plane_rests(plane: ControlPlane, patience: float = 60.0) -> None:
    """Return once all its processes together use less than a fifth of a core: new CRDs keep the API server busy for
    seconds, which would count for what is measured next. After `patience` seconds in any case."""
    limit = time.monotonic() + patience
    pids = [daemon.pid for daemon in plane.state.daemons.values()]
    before = sum(map(processes.cpu_seconds, pids))
    while time.monotonic() < limit:
        await asyncio.sleep(2)
        used = sum(map(processes.cpu_seconds, pids))
        if used - before < 0.2 * 2:
            return
        before = used
