"""Two shards on a real API server with simulated nodes: a leader killed, one hostname in both, a namespace moved under
load. The audit log says who wrote where, and when."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from devcluster import ControlPlane, parts
from modelwright.api.names import LABEL_SHARD
from modelwright.kube import kinds
from modelwright.kube.lease import ANNOTATION_FOLLOWED
from tests.lib import objects
from tests.lib.api import NAMESPACE, Api, eventually, install, install_policies
from tests.lib.audit import Audit, is_write
from tests.lib.gateway import Player
from tests.lib.kstatus import is_ready, stalled
from tests.scale.operator_process import OperatorProcess

pytestmark = [pytest.mark.kwok, pytest.mark.timeout(900)]

Object = dict[str, Any]
ROOT = Path(__file__).parents[2]
SETTINGS = {"settle_seconds": 1, "warm_standby": True, "lease_retry_seconds": 0.5}
SHARDS = ("default", "red")
GATEWAYS = "gateways"
MODELS, EDIT_SECONDS = 10, 0.1


@dataclass
class Cluster:
    """A control plane, and two replicas of each shard's operator."""

    plane: ControlPlane
    folder: Path
    operators: dict[str, list[OperatorProcess]] = field(default_factory=lambda: defaultdict(list))

    def start(self, shard: str) -> OperatorProcess:
        """Another replica of a shard."""
        replicas = self.operators[shard]
        name = f"{shard}-{len(replicas)}"
        operator = OperatorProcess(
            self.plane.kubeconfig, self.folder / f"{name}.log", shard=shard, instance=name, **SETTINGS
        )
        replicas.append(operator.start())
        return operator

    def all(self) -> list[OperatorProcess]:
        """Every replica that was started."""
        return list(itertools.chain.from_iterable(self.operators.values()))

    def complete(self) -> None:
        """Replicas in place of those that have ended: one that stood still for too long has lost its Lease."""
        for shard, replicas in self.operators.items():
            alive = [o for o in replicas if o.process is not None and o.process.poll() is None]
            for _ in range(2 - len(alive)):
                self.start(shard).wait_ready()

    def leader(self, shard: str) -> OperatorProcess | None:
        """The replica that says it leads."""
        alive = [o for o in self.operators[shard] if o.process is not None and o.process.poll() is None]
        return next((operator for operator in alive if operator.leads()), None)

    def audit(self) -> Audit:
        assert self.plane.audit_log is not None
        return Audit(self.plane.audit_log, "modelwright-shard-")

    def begun(self, shard: str, namespace: str) -> int:
        """How often a shard's leaders have begun in a namespace, by their logs."""
        return self.log(shard).count(f'a namespace has joined this shard", "namespace": "{namespace}"')

    def log(self, shard: str) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob(f"{shard}-*.log")))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ControlPlane(kwok_nodes=3, audit=True) as plane:
        cluster = Cluster(plane, tmp_path_factory.mktemp("shards"))
        asyncio.run(_prepare(plane))
        for shard in SHARDS:
            for _ in range(2):
                cluster.start(shard).wait_ready()
        assert all(o.process is not None and o.process.poll() is None for o in cluster.all())
        yield cluster
        for operator in cluster.all():
            if operator.process is not None and operator.process.poll() is None:
                operator.kill()


async def _prepare(plane: ControlPlane) -> None:
    async with Api(plane.kubeconfig) as api:
        await install(api, ROOT / "crds")
        await install(api, parts.gateway_api_crds())
        await install_policies(api, ROOT / "manifests/policies")
        await api.apply(objects.runtime())
        await label(api, GATEWAYS, None)
        await Player(api).set_up(GATEWAYS)


@pytest.fixture
async def api(cluster: Cluster) -> AsyncIterator[Api]:
    async with Api(cluster.plane.kubeconfig) as api:
        playing = asyncio.create_task(Player(api).run())
        yield api
        assert not playing.done(), playing.exception()
        playing.cancel()


async def label(api: Api, namespace: str, shard: str | None) -> None:
    """Make a Namespace, or move it; None takes the label away."""
    if await api.get(NAMESPACE, None, namespace) is None:
        labels = {"labels": {LABEL_SHARD: shard}} if shard else {}
        await api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, **labels}})
    else:
        await api.patch(NAMESPACE, None, namespace, {"metadata": {"labels": {LABEL_SHARD: shard}}})


async def serve(api: Api, namespace: str, name: str = "digits", **spec: Any) -> None:
    """A version and a Model of it."""
    version = spec.pop("version", f"{name}-v1")
    await api.apply(objects.version(namespace, version, model=name), force=True)
    await api.apply(objects.model(namespace, name, version=version, **spec), force=True)


async def ready(api: Api, namespace: str, name: str = "digits", version: str | None = None) -> Object:
    """The Model, once it is Ready with a version."""
    wanted = version or f"{name}-v1"
    found: Object = await eventually(
        lambda: api.get(kinds.MODEL, namespace, name),
        lambda seen: is_ready(seen) and seen["status"]["serving"]["version"] == wanted,
        f"{namespace}/{name} is Ready with {wanted}",
    )
    return found


def writes(cluster: Cluster, namespace: str, since: int = 0) -> list[Object]:
    """All writes in a namespace that a shard's operator has tried, Events apart."""
    return [
        entry
        for entry in cluster.audit().entries(since)
        if is_write(entry)
        and entry["objectRef"].get("namespace") == namespace
        and entry["objectRef"]["resource"] not in ("events", "leases")
    ]


def writer(entry: Object) -> str:
    return str(entry["userAgent"]).removeprefix("modelwright-shard-")


def meetings(entries: list[Object]) -> list[tuple[Object, Object]]:
    """Writes of one shard that began before those of the other had ended."""
    found, last_end = [], dict[str, Object]()
    for entry in sorted(entries, key=lambda e: e["requestReceivedTimestamp"]):
        for shard, earlier in last_end.items():
            if shard != writer(entry) and earlier["stageTimestamp"] >= entry["requestReceivedTimestamp"]:
                found.append((earlier, entry))
        known = last_end.get(writer(entry))
        if known is None or entry["stageTimestamp"] > known["stageTimestamp"]:
            last_end[writer(entry)] = entry
    return found


async def written_by(cluster: Cluster, namespace: str, shard: str, since: int) -> None:
    """Come back once a shard has written in a namespace."""

    async def seen() -> Counter[str]:
        return Counter(writer(entry) for entry in writes(cluster, namespace, since))

    await eventually(seen, lambda counted: counted[shard] > 0, f"shard {shard} writes in {namespace}")


@contextlib.asynccontextmanager
async def frozen(cluster: Cluster, shard: str) -> AsyncIterator[None]:
    """A shard's leader stands still, and keeps its Lease: it neither sees what happens nor ends what it has begun."""

    async def who() -> OperatorProcess | None:
        return cluster.leader(shard)

    leader = await eventually(who, bool, f"shard {shard} has a leader")
    assert leader.process is not None
    os.kill(leader.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(leader.process.pid, signal.SIGCONT)


async def followed(api: Api, shard: str, namespace: str) -> None:
    """Come back once a shard has seen the Namespace as it is, and had the time to read Leases twice after that."""
    version = int((await api.get(NAMESPACE, None, namespace) or {})["metadata"]["resourceVersion"])
    name = "modelwright-operator" if shard == "default" else f"modelwright-operator-{shard}"
    renewed = set()

    async def renewals() -> int:
        lease = await api.get(kinds.LEASE, "default", name) or {}
        if int((lease["metadata"].get("annotations") or {}).get(ANNOTATION_FOLLOWED, 0)) >= version:
            renewed.add(lease["spec"]["renewTime"])
        return len(renewed)

    await eventually(renewals, lambda count: count > 2, f"shard {shard} has followed to {version}")


async def test_each_shard_works_in_its_own_namespaces(cluster: Cluster, api: Api) -> None:
    places = {"unlabelled": None, "labelled-default": "default", "labelled-red": "red"}
    for namespace, shard in places.items():
        await label(api, namespace, shard)
        await serve(api, namespace)
    for namespace in places:
        await ready(api, namespace)
    for namespace, shard in places.items():
        assert {writer(entry) for entry in writes(cluster, namespace)} == {shard or "default"}
    leases = {lease["metadata"]["name"]: lease for lease in await api.list(kinds.LEASE, "default")}
    assert {name: lease["metadata"]["labels"] for name, lease in leases.items()} == {
        "modelwright-operator": {LABEL_SHARD: "default"},
        "modelwright-operator-red": {LABEL_SHARD: "red"},
    }


async def test_the_standby_of_a_killed_shard_leader_follows(cluster: Cluster, api: Api) -> None:
    await label(api, "killed", "red")
    await label(api, "undisturbed", None)
    for namespace in ("killed", "undisturbed"):
        await serve(api, namespace)
        await ready(api, namespace)
    red, other = cluster.leader("red"), cluster.leader("default")
    assert red is not None
    red.kill()
    for namespace in ("undisturbed", "killed"):
        await serve(api, namespace, version="v2")
        await ready(api, namespace, version="v2")
    assert cluster.leader("red") not in (None, red)
    assert cluster.leader("default") is other
    lease = await api.get(kinds.LEASE, "default", "modelwright-operator")
    assert lease is not None
    assert lease["spec"]["leaseTransitions"] == 0
    cluster.start("red").wait_ready()


@pytest.mark.parametrize("older", SHARDS)
async def test_the_older_model_wins_a_hostname_across_shards(cluster: Cluster, api: Api, older: str) -> None:
    younger = next(shard for shard in SHARDS if shard != older)
    first, second = f"older-in-{older}", f"younger-in-{younger}"
    await label(api, first, older)
    await label(api, second, younger)
    endpoint = objects.endpoint(GATEWAYS, hostnames=[f"{older}.example.com"], pathPrefix="/digits")
    await serve(api, first, endpoint=endpoint)
    await ready(api, first)
    created = (await api.get(kinds.MODEL, first, "digits") or {})["metadata"]["creationTimestamp"]
    # Ages have seconds.
    await eventually(lambda: _now(api, second), lambda now: now > created, "a second has passed")
    await serve(api, second, endpoint=endpoint)
    loser = await eventually(
        lambda: api.get(kinds.MODEL, second, "digits"), lambda seen: stalled(seen, "RouteConflict"), "Stalled"
    )
    message = next(c["message"] for c in loser["status"]["conditions"] if c["type"] == "Stalled")
    assert f"older Model {first}/digits" in message
    assert await api.get(kinds.HTTP_ROUTE, second, "digits") is None
    assert is_ready(await api.get(kinds.MODEL, first, "digits") or {})
    # The younger one moves on as soon as the place is free.
    await api.delete(kinds.MODEL, first, "digits")
    await ready(api, second)


async def _now(api: Api, namespace: str) -> str:
    """The API server's time, as it would be a creation's."""
    probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "now-", "namespace": namespace}}
    made = await api.call("POST", f"/api/v1/namespaces/{namespace}/configmaps", probe, dryRun="All")
    return str(made["metadata"]["creationTimestamp"])


async def test_a_namespace_that_moves_under_load_has_one_writer(cluster: Cluster, api: Api) -> None:
    space, names = "moving", [f"m{number}" for number in range(MODELS)]
    await label(api, space, None)
    for name in names:
        for number in (1, 2, 3):
            await api.apply(objects.version(space, f"{name}-v{number}", model=name))
        await api.apply(objects.model(space, name, version=f"{name}-v1"))
    for name in names:
        await ready(api, space, name)
    stop = asyncio.Event()

    async def edit() -> None:
        for turn in itertools.count():
            if stop.is_set():
                return
            name = names[turn % MODELS]
            change = {"spec": {"version": {"name": f"{name}-v{2 + turn // MODELS % 2}"}}}
            await api.patch(kinds.MODEL, space, name, change)
            await asyncio.sleep(EDIT_SECONDS)

    editing = asyncio.create_task(edit())
    before = "default"
    for shard in ("red", "default", "red", None, "red"):
        since = cluster.audit().mark()
        async with frozen(cluster, before):
            begun = cluster.begun(shard or "default", space)
            await label(api, space, shard)
            await followed(api, shard or "default", space)
            assert cluster.begun(shard or "default", space) == begun
            assert (shard or "default") not in map(writer, writes(cluster, space, since))
        before = shard or "default"
        await written_by(cluster, space, before, since)
        await asyncio.to_thread(cluster.complete)
    stop.set()
    await editing
    for name in names:
        await api.patch(kinds.MODEL, space, name, {"spec": {"version": {"name": f"{name}-v1"}}})
    for name in names:
        await ready(api, space, name)
    seen = writes(cluster, space)
    assert {writer(entry) for entry in seen} == set(SHARDS)
    assert meetings(seen) == []
    turns = [shard for shard, _ in itertools.groupby(map(writer, _in_order(seen)))]
    assert turns == ["default", "red", "default", "red", "default", "red"]
    assert _made_twice(seen) == []
    for name in names:
        deployments = partial(api.list, kinds.DEPLOYMENT, space, f"modelwright.dev/model={name}")
        await eventually(deployments, _one_has_pods, f"{name} has one revision with pods")


async def test_a_label_edited_back_and_forth_leaves_one_writer(cluster: Cluster, api: Api) -> None:
    space = "wavering"
    await label(api, space, None)
    await serve(api, space)
    await ready(api, space)
    for turn in range(20):
        await label(api, space, SHARDS[turn % 2])
        await serve(api, space, version=f"v{2 + turn % 3}")
    await serve(api, space, version="v9")
    await ready(api, space, version="v9")
    seen = writes(cluster, space)
    assert meetings(seen) == []
    assert writer(_in_order(seen)[-1]) == "red"
    assert _made_twice(seen) == []


async def test_a_shard_without_an_operator_is_reported(cluster: Cluster, api: Api) -> None:
    await label(api, "nobodys", "blue")
    await serve(api, "nobodys")

    async def metrics() -> str:
        leader = cluster.leader("default")
        return leader.metrics() if leader is not None else ""

    seen = await eventually(
        metrics, lambda text: 'modelwright_shard_led{shard="blue"} 0.0' in text, "blue has no leader"
    )
    assert 'modelwright_shard_namespaces{shard="blue"} 1.0' in seen
    assert 'modelwright_shard_led{shard="red"} 1.0' in seen
    assert re.search(r'"name a shard that has no leader|name a shard that has no leader.*blue', cluster.log("default"))
    assert writes(cluster, "nobodys") == []
    await label(api, "nobodys", None)
    await ready(api, "nobodys")
    assert {writer(entry) for entry in writes(cluster, "nobodys")} == {"default"}


def _one_has_pods(deployments: list[Object]) -> bool:
    return sum(bool(deployment["spec"]["replicas"]) for deployment in deployments) == 1


def _in_order(entries: list[Object]) -> list[Object]:
    return sorted(entries, key=lambda entry: entry["requestReceivedTimestamp"])


def _made_twice(entries: list[Object]) -> list[tuple[str, str]]:
    """Objects that were created again without having been deleted."""
    there, twice = set(), []
    for entry in _in_order(entries):
        key = (entry["objectRef"]["resource"], entry["objectRef"].get("name", ""))
        if entry["responseStatus"]["code"] >= 300:
            continue
        if entry["verb"] == "create" and key[1]:
            if key in there:
                twice.append(key)
            there.add(key)
        elif entry["verb"] == "delete":
            there.discard(key)
    return twice
