"""What happens to the cluster, not to single requests, in the middle of a canary: the API server goes and comes back,
etcd is restarted, the leader is cut off, an object can't be read, statuses are lost. Each ends as a canary without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from devcluster import ControlPlane
from devcluster.processes import Daemon, end_all, spawn
from modelwright.kube import kinds
from tests.controlplane.scenarios import Space
from tests.controlplane.scenarios.rollouts import weights
from tests.controlplane.stage import NOT_YET, Stage, opened
from tests.controlplane.stories import SLOW
from tests.faults.matrix import BUGS, Outcome, Place, kept, lines_of
from tests.faults.proxy import Proxy
from tests.lib import objects
from tests.lib.api import CRD, Refused, eventually

STORY = "slow"
NAMES = ("api-server-away", "etcd-restarted", "leader-cut-off", "poisoned-object", "status-lost")
AWAY_SECONDS = 12.0
SHORT_TERM = {"lease_seconds": 8, "lease_renew_seconds": 6, "lease_retry_seconds": 1}


@dataclass
class Disaster:
    """What a disaster came to; `wrong` is empty when all held."""

    name: str
    seconds: float = 0.0
    restarts: int = 0
    wrong: str = ""


async def play(
    plane: ControlPlane, folder: Path, away: float = AWAY_SECONDS, only: Collection[str] = ()
) -> list[Disaster]:
    """All of them, or those named, one after the other. `away`: seconds without an API server."""
    what: dict[str, Callable[[Stage, str], Awaitable[int]]] = {
        "api-server-away": lambda stage, namespace: _through(stage, namespace, "kube-apiserver", away),
        "etcd-restarted": lambda stage, namespace: _through(stage, namespace, "etcd", 0),
        "leader-cut-off": _cut_off,
        "poisoned-object": _poisoned,
        "status-lost": _status_lost,
    }
    assert what.keys() == set(NAMES)
    unknown = set(only) - what.keys()
    assert not unknown, f"no such disasters: {sorted(unknown)}; there are {sorted(what)}"
    what = {name: disaster for name, disaster in what.items() if not only or name in only}
    async with opened(plane, folder, {STORY: SLOW}) as stage:
        await stage.undisturbed(STORY, stage.operator(f"reference-{STORY}"))
        await stage.prepare(dict.fromkeys(what, STORY), at_once=8)
        return [await _one(stage, name, disaster) for name, disaster in what.items()]


async def _one(stage: Stage, name: str, disaster: Callable[[Stage, str], Awaitable[int]]) -> Disaster:
    outcome, begin = Disaster(name), time.monotonic()
    try:
        outcome.restarts = await disaster(stage, name)
        outcome.wrong = "\n".join(line for line in lines_of(stage.log(name)) if any(text in line for text in BUGS))
    except Exception as error:
        outcome.wrong = "".join(traceback.format_exception(error))
    outcome.seconds = time.monotonic() - begin
    return outcome


async def _under_way(space: Space) -> None:
    """Until the canary has its first callers."""
    await SLOW.people(space)
    await space.until(kinds.HTTP_ROUTE, "digits", lambda route: len(weights(route)) == 2, "at the first step")


async def _ends(stage: Stage, namespace: str) -> None:
    space = stage.space(namespace)
    await eventually(lambda: SLOW.ended(space), bool, f"{namespace} ends")
    await stage.looks(namespace, STORY, stage.expected[STORY], f"{namespace}: the same end")


async def _through(stage: Stage, namespace: str, daemon: str, away: float) -> int:
    """A part of the control plane is killed, and started again after a while; everybody lives with that."""
    operator, outcome = stage.operator(namespace, **SHORT_TERM), Outcome(Place(STORY, namespace, 0))
    with operator:
        await asyncio.to_thread(operator.wait_ready)
        await _under_way(stage.space(namespace))
        keeping = asyncio.create_task(kept(stage, namespace, operator, outcome))
        try:
            await _restart(stage, namespace, daemon, away)
            await _ends(stage, namespace)
        finally:
            keeping.cancel()
            await asyncio.wait({keeping})
    assert outcome.restarts or not away, "the operator outlived its Lease"
    return outcome.restarts


async def _restart(stage: Stage, namespace: str, name: str, away: float) -> None:
    """Kill a daemon of the control plane, and start it as it was; comes back once everything can be read again."""
    daemons = stage.plane.state.daemons
    await asyncio.to_thread(end_all, [daemons[name]], 0)
    await asyncio.sleep(away)
    _start_again(stage, daemons[name])

    async def read() -> bool:
        try:
            # Lists of a kind fail until its cache is filled, which begins with the first of them.
            await stage.picture(SLOW, namespace)
        except (aiohttp.ClientError, OSError):
            return False
        except Refused as refused:
            if refused.status not in NOT_YET:
                raise
            return False
        return True

    await eventually(read, bool, f"everything can be read again after {name} was started")
    if away:
        # In a cluster these lose their Leases and are started again; here they would wait for up to half a minute.
        controllers = [daemon for other, daemon in daemons.items() if other not in ("etcd", "kube-apiserver")]
        await asyncio.to_thread(end_all, controllers, 0)
        for node in stage.plane.node_names:
            await stage.api.delete(kinds.LEASE, "kube-node-lease", node)
        for daemon in controllers:
            _start_again(stage, daemon)


def _start_again(stage: Stage, daemon: Daemon) -> None:
    stage.plane.state.record(spawn(daemon.name, daemon.argv, Path(daemon.log), dict(daemon.env)))


async def _cut_off(stage: Stage, namespace: str) -> int:
    """Nothing passes to or from the leader any more, and no connection ends: the standby goes on, alone."""
    space = stage.space(namespace)
    async with contextlib.AsyncExitStack() as stack:
        proxies, operators = [], []
        for which in ("leader", "standby"):
            file = stage.folder / f"{namespace}-{which}.kubeconfig"
            proxy = await stack.enter_async_context(Proxy(stage.plane.kubeconfig, file))
            operator = stage.operator(namespace, kubeconfig=file, **SHORT_TERM)
            proxies.append(proxy)
            operators.append(stack.enter_context(operator))
            if which == "leader":
                await eventually(lambda o=operator: asyncio.to_thread(o.leads), bool, "the first one leads")
        (leader, standby), (first, second) = operators, proxies
        await asyncio.to_thread(standby.wait_ready)
        await _under_way(space)
        assert second.written.count == 0, "the standby has written while another led"
        first.partition()
        await eventually(lambda: asyncio.to_thread(standby.leads), bool, "the standby leads")
        written = first.written.count
        # By then the other one has ended by itself: its Lease could not be renewed.
        assert leader.process is not None
        assert await asyncio.to_thread(leader.process.wait, 30) == 1
        first.heal()
        await _ends(stage, namespace)
        assert first.written.count == written, "two have written"
        assert second.written.count > 0
        await asyncio.to_thread(standby.stop)
    return 0


async def _poisoned(stage: Stage, namespace: str) -> int:
    """Objects that the schema would never let in, and that the operator can't read, stand beside the others."""
    space = stage.space(namespace)
    for kind, name, spec in (
        (kinds.MODEL, "poison", {"version": {"name": 7}, "serving": "none"}),
        (kinds.MODEL_VERSION, "poison", {"modelRef": ["digits"], "artifact": 1}),
        (kinds.ROLLOUT_POLICY, "poison", {"strategy": []}),
        (kinds.MODEL_ROLLOUT, "poison", {"modelRef": {"name": "digits"}, "target": {"version": 9}, "number": -1}),
        (kinds.TRAINING_RUN, "poison", {"policyRef": 1}),
    ):
        body: dict[str, Any] = {"apiVersion": objects.API_VERSION, "kind": kind.kind, "spec": spec}
        async with _without_schema(stage, kind):
            await _let_in(stage, {**body, "metadata": {"name": name, "namespace": namespace}})
    operator = stage.operator(namespace)
    with operator:
        await asyncio.to_thread(operator.wait_ready)
        await SLOW.people(space)
        await eventually(lambda: SLOW.ended(space), bool, f"{namespace} ends")
        metrics = await asyncio.to_thread(operator.metrics)
        await asyncio.to_thread(operator.stop)
    panics = [line for line in metrics.splitlines() if "panics_total{" in line and not line.endswith(" 0.0")]
    assert not panics, panics
    return 0


async def _let_in(stage: Stage, obj: dict[str, Any]) -> None:
    """Create it as soon as the API server goes by the changed schema."""

    async def tried() -> bool:
        try:
            await stage.api.create(obj)
        except Refused as refused:
            if refused.status != 422:
                raise
            return False
        return True

    await eventually(tried, bool, f"{obj['kind']} takes anything")


@contextlib.asynccontextmanager
async def _without_schema(stage: Stage, kind: Any) -> Any:
    """The kind takes anything meanwhile."""
    name = f"{kind.plural}.{kind.group}"
    found = await stage.api.get(CRD, None, name)
    assert found is not None
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    versions = found["spec"]["versions"]
    # Fields to select by must be in the schema, and the number of replicas that can be scaled must be one.
    anything = [
        {**version, "schema": schema, "selectableFields": [], "subresources": {"status": {}}} for version in versions
    ]
    await stage.api.patch(CRD, None, name, {"spec": {"versions": anything}})
    try:
        yield
    finally:
        await stage.api.patch(CRD, None, name, {"spec": {"versions": versions}})


async def _status_lost(stage: Stage, namespace: str) -> int:
    """All status of ours is gone in the middle of a canary, as after the restore of a backup without it."""
    space = stage.space(namespace)
    with stage.operator(namespace) as operator:
        await asyncio.to_thread(operator.wait_ready)
        await _under_way(space)
        await asyncio.to_thread(operator.stop)
    before = await _deployments(space)
    serving = (await space.get(kinds.MODEL, "digits"))["status"]["serving"]["revision"]
    for kind in kinds.OWN_KINDS:
        if not kind.namespaced:
            continue
        for obj in await space.api.list(kind, namespace):
            if obj.get("status"):
                gone = [{"op": "remove", "path": "/status"}]
                await space.api.patch(kind, namespace, obj["metadata"]["name"], gone, "status")
    with stage.operator(namespace) as operator:
        await asyncio.to_thread(operator.wait_ready)
        await eventually(lambda: space.api.get(kinds.MODEL, namespace, "digits"), lambda m: "status" in m, "a status")
        route = await space.get(kinds.HTTP_ROUTE, "digits")
        assert weights(route).get(serving, 0) >= 50, weights(route)
        assert before.items() <= (await _deployments(space)).items(), "a Deployment was made anew"
        await eventually(lambda: SLOW.ended(space), bool, f"{namespace} ends")
        assert (await _deployments(space)).items() <= before.items(), "a Deployment was made anew"
        await asyncio.to_thread(operator.stop)
    return 0


async def _deployments(space: Space) -> dict[str, str]:
    return {
        d["metadata"]["name"]: d["metadata"]["uid"] for d in await space.api.list(kinds.DEPLOYMENT, space.namespace)
    }
