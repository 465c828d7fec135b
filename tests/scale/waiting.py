"""Putting many objects there, and waiting for what becomes of them."""

import asyncio
import time

import yaml

from modelwright.kube import kinds
from modelwright.kube.client import KubeClient
from tests.scale.audit import AuditLog, Counts
from tests.scale.objects import NAMESPACE, Object, bare


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
        models = await client.list(kinds.MODEL, NAMESPACE)
        left = [m["metadata"]["name"] for m in models if not _serves(m, number)]
        if not left and len(models) == count:
            return
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


async def bare_seconds(client: KubeClient, count: int) -> float:
    """How long API server, controllers and nodes alone need for the pods and Services of so many Models: the measure of
    this machine at this hour. They stay until `bare_gone`."""
    begin = time.monotonic()
    await put_all(client, [obj for number in range(count) for obj in bare(f"bare-{number:05d}")])
    while True:
        found = await client.list(kinds.DEPLOYMENT, NAMESPACE)
        if sum(each.get("status", {}).get("availableReplicas", 0) for each in found) == count:
            break
        await asyncio.sleep(1)
    return time.monotonic() - begin


async def bare_gone(client: KubeClient) -> None:
    """Delete them, and wait until their pods are gone too."""
    for kind in (kinds.DEPLOYMENT, kinds.SERVICE):
        for each in await client.list(kind, NAMESPACE):
            metadata = each["metadata"]
            if metadata["name"].startswith("bare-"):
                await client.delete(kind, NAMESPACE, metadata["name"], uid=metadata["uid"])
    while await client.list(kinds.POD, NAMESPACE):  # noqa: ASYNC110 - the API server tells nobody
        await asyncio.sleep(1)
