"""Models on a real API server with simulated nodes: every scenario, the conditions at every moment, and a restart."""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import ControlPlane, parts
from modelwright.kube import kinds
from tests.controlplane import scenarios
from tests.controlplane.scenarios import (  # noqa: F401
    SCENARIOS,
    Space,
    children,
    deletion,
    endpoints,
    gitops,
    podtemplates,
    retraining,
    rollouts,
    runtimes,
    scaling,
    versions,
)
from tests.lib import objects
from tests.lib.api import Api, eventually, install, install_policies
from tests.lib.audit import Audit
from tests.lib.gateway import Player
from tests.lib.kstatus import conditions, faults, is_ready, stalled
from tests.scale.operator_process import OperatorProcess
from tests.servers.prometheus_fake import FakePrometheus

pytestmark = [pytest.mark.kwok, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
AT_ONCE = 12
# Nothing starts this operator again, and who leads is tried elsewhere: on a busy host its Lease must not run out.
SETTINGS = {"settle_seconds": 1, "lease_seconds": 90, "lease_renew_seconds": 60}
JUDGED = (kinds.MODEL, kinds.MODEL_VERSION, kinds.MODEL_ROLLOUT)


@dataclass
class Outcome:
    """How the scenarios ended, by name, and what else was seen."""

    errors: dict[str, str] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    seconds: dict[str, float] = field(default_factory=dict)
    gateway_exit: int | None = None
    restart_writes: dict[tuple[str, str, str], int] = field(default_factory=dict)
    restart_changes: dict[str, Any] = field(default_factory=dict)
    panics: str = ""


async def _judge(api: Api, outcome: Outcome, kind: Any) -> None:
    """Look at every state of every object of a kind, as it happens."""
    before: dict[str, Any] = {}
    async for event, obj in api.watch(kind):
        uid = obj["metadata"]["uid"]
        if event != "DELETED":
            outcome.faults[obj["metadata"]["namespace"]] += faults(obj, before.get(uid))
            before[uid] = obj


async def _gateway_api_appears(api: Api, plane: ControlPlane, operator: OperatorProcess, outcome: Outcome) -> None:
    """A Model wants a route before the cluster knows routes; then it does, and the operator starts itself anew."""
    space = "gateway-api-appears"
    await api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}})
    await api.apply(objects.version(space, "v1"))
    await api.apply(objects.model(space, endpoint=objects.endpoint(space)))
    await eventually(
        lambda: api.get(kinds.MODEL, space, "digits"),
        lambda seen: stalled(seen, "GatewayAPIMissing") and conditions(seen)["Available"]["status"] == "True",
        "Stalled for want of the Gateway API, and serving inside the cluster",
    )
    await install(api, parts.gateway_api_crds())
    assert operator.process is not None
    outcome.gateway_exit = await asyncio.to_thread(operator.process.wait, 60)


async def _one(
    api: Api, name: str, plane: ControlPlane, player: Player, metrics: FakePrometheus, outcome: Outcome
) -> None:
    namespace = name.replace("_", "-")[:63].rstrip("-")
    begin = time.monotonic()
    try:
        await api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        space = Space(api, namespace, Audit(plane.audit_log), player, metrics, (plane.kubectl, plane.kubeconfig))
        await SCENARIOS[name](space)
    except Exception:
        outcome.errors[name] = traceback.format_exc()
    outcome.seconds[name] = time.monotonic() - begin


async def _restart_of_a_settled_world(
    api: Api, plane: ControlPlane, operator: OperatorProcess, again: OperatorProcess, outcome: Outcome
) -> None:
    """Once nothing moves any more, a new operator process finds nothing to write."""
    audit = Audit(plane.audit_log)
    limit = time.monotonic() + 60
    while True:
        mark = audit.mark()
        await asyncio.sleep(4)
        if not audit.writes(mark):
            break
        assert time.monotonic() < limit, f"the world never settles: {audit.writes(mark)}"
    await asyncio.to_thread(operator.stop)
    before = await _states(api)
    mark = audit.mark()
    again.start()
    await asyncio.to_thread(again.wait_ready, 180)
    count = len(await api.list(kinds.MODEL)) + len(await api.list(kinds.MODEL_VERSION))
    await eventually(
        lambda: asyncio.to_thread(again.metrics), lambda text: _total(text) >= count, "every object was looked at"
    )
    await asyncio.sleep(2)
    outcome.restart_writes = dict(audit.writes(mark))
    after = await _states(api)
    outcome.restart_changes = {key: (before.get(key), now) for key, now in after.items() if before.get(key) != now}


async def _states(api: Api) -> dict[str, Any]:
    found = [obj for kind in JUDGED for obj in await api.list(kind)]
    return {f"{o['kind']} {o['metadata']['namespace']}/{o['metadata']['name']}": o.get("status") for o in found}


def _panics(log: Path) -> str:
    return "\n".join(line for line in log.read_text().splitlines() if "this is a bug" in line)


def _total(metrics: str) -> float:
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in metrics.splitlines() if line.startswith("modelwright_reconcile_total")
    )


async def _run(plane: ControlPlane, names: list[str], log: Path, outcome: Outcome) -> None:
    async with contextlib.AsyncExitStack() as stack:
        api = await stack.enter_async_context(Api(plane.kubeconfig))
        await install(api, ROOT / "crds")
        await install_policies(api, ROOT / "manifests/policies")
        await api.apply(objects.runtime(changedBy="dora"))
        metrics = await stack.enter_async_context(FakePrometheus())
        settings = {**SETTINGS, "connections_file": metrics.connections(log.parent)}
        first = OperatorProcess(plane.kubeconfig, log, **settings, discovery_seconds=1)
        stack.enter_context(first)
        await asyncio.to_thread(first.wait_ready)
        watching = [asyncio.create_task(_judge(api, outcome, k)) for k in JUDGED]
        await _gateway_api_appears(api, plane, first, outcome)
        player = Player(api)
        playing = asyncio.create_task(player.run())
        await player.set_up("gateway-api-appears")
        for obj in rollouts.FROZEN_ROUTES:
            await api.apply(obj)
        operator = OperatorProcess(plane.kubeconfig, log, **settings)
        stack.enter_context(operator)
        await asyncio.to_thread(operator.wait_ready)
        await eventually(
            lambda: api.get(kinds.MODEL, "gateway-api-appears", "digits"), is_ready, "Ready with its route"
        )
        gate = asyncio.Semaphore(AT_ONCE)

        async def gated(name: str) -> None:
            async with gate:
                await _one(api, name, plane, player, metrics, outcome)

        await asyncio.gather(*(gated(name) for name in names))
        assert operator.process is not None
        assert operator.process.poll() is None, "the operator has ended"
        outcome.panics = _panics(log)
        again = OperatorProcess(plane.kubeconfig, log, **settings)
        # It is started later; two would fight for one port.
        stack.push(again)
        try:
            await _restart_of_a_settled_world(api, plane, operator, again, outcome)
        except Exception:
            outcome.errors["restart"] = traceback.format_exc()
        for task in (*watching, playing):
            assert not task.done(), task.exception()
            task.cancel()


@pytest.fixture(scope="module")
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """All scenarios that were asked for, run beside each other against one operator."""
    items = [item for item in request.session.items if item.path == Path(__file__)]
    names = [item.callspec.params["name"] for item in items if hasattr(item, "callspec")]  # type: ignore[attr-defined]
    log = tmp_path_factory.mktemp("serving") / "operator.log"
    result = Outcome()
    with ControlPlane(kwok_nodes=2, audit=True) as plane:
        try:
            asyncio.run(_run(plane, names, log, result))
        except BaseException:
            print("\n".join(log.read_text(errors="replace").splitlines()[-60:]) if log.exists() else "no log")
            raise
    slowest = sorted(result.seconds.items(), key=lambda pair: -pair[1])[:5]
    print("slowest scenarios:", ", ".join(f"{name} {seconds:.0f} s" for name, seconds in slowest), "log:", log)
    return result


def test_when_the_gateway_api_appears_the_route_is_created(outcome: Outcome) -> None:
    assert outcome.gateway_exit == 0
    assert not outcome.faults["gateway-api-appears"]


@pytest.mark.parametrize("name", sorted(scenarios.SCENARIOS))
def test_scenario(outcome: Outcome, name: str) -> None:
    if name in outcome.errors:
        pytest.fail(outcome.errors[name], pytrace=False)
    assert not outcome.faults[name.replace("_", "-")[:63].rstrip("-")]


def test_a_restart_in_a_settled_world_writes_nothing(outcome: Outcome) -> None:
    if "restart" in outcome.errors:
        pytest.fail(outcome.errors["restart"], pytrace=False)
    assert outcome.restart_writes == {}, yaml.dump(outcome.restart_changes)


def test_no_pass_ended_with_a_bug(outcome: Outcome) -> None:
    assert not outcome.panics
