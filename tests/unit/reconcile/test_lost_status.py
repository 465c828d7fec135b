"""A backup restored without status: what serves goes on, no pod is replaced, and nothing is promoted unproven."""

import copy
import json
from typing import Any

import pytest

from modelwright.kube import kinds
from modelwright.kube.kinds import Kind
from tests.lib.rollout_harness import JUDGED, RolloutHarness, bad, good

EVERYTHING = {
    "all of ours": kinds.OWN_KINDS,
    "Models": (kinds.MODEL,),
    "ModelRollouts": (kinds.MODEL_ROLLOUT,),
    "ModelVersions": (kinds.MODEL_VERSION,),
}
BY_PODS = JUDGED | {"strategy": {"steps": [{"weight": 25, "hold": "20s"}, *JUDGED["strategy"]["steps"][1:]]}}
"""The same for four pods, which can't be shared 10 to 90."""
LOST = pytest.mark.parametrize("lost", EVERYTHING.values(), ids=EVERYTHING.keys())
BY = pytest.mark.parametrize("endpoint", [True, False], ids=["by a gateway", "by replicas"])


def lose_status(world: RolloutHarness, lost: tuple[Kind, ...]) -> None:
    for (kind, namespace, name), obj in list(world.api.objects.items()):
        if kind in lost and "status" in obj:
            world.api.objects[kind, namespace, name] = {k: v for k, v in obj.items() if k != "status"}
    world.restart()


def pods(world: RolloutHarness) -> dict[str, tuple[str, int, str]]:
    """Deployment -> uid, replicas and template."""
    return {
        name: (o["metadata"]["uid"], o["spec"]["replicas"], json.dumps(o["spec"]["template"], sort_keys=True))
        for (kind, _, name), o in world.api.objects.items()
        if kind == kinds.DEPLOYMENT
    }


def ends(world: RolloutHarness) -> list[tuple[str, str]]:
    return [(r["spec"]["target"]["version"], r["status"]["state"]) for r in world.records]


def looks(world: RolloutHarness, count: int) -> None:
    for _ in range(count):
        world.look()


@LOST
@BY
@pytest.mark.parametrize("policy", [None, JUDGED], ids=["without a policy", "with a policy"])
def test_at_rest_nothing_is_replaced_and_no_rollout_begins(lost: tuple[Kind, ...], endpoint: bool, policy: Any) -> None:
    world = RolloutHarness(policy and (policy if endpoint else BY_PODS), endpoint=endpoint)
    world.scheduler.results["errors"] = good()
    world.want("v2")
    world.go(lambda: world.serving == "v2")
    looks(world, 10)
    before, records, specs = pods(world), len(world.records), children(world)
    lose_status(world, lost)
    looks(world, 20)
    assert pods(world) == before
    assert children(world) == specs
    assert (world.serving, len(world.records)) == ("v2", records)
    assert world.model["status"]["rollout"]["state"] == "Succeeded"
    assert {c["type"]: c["status"] for c in world.model["status"]["conditions"]}["Ready"] == "True"
    writes = len(world.api.writes)
    looks(world, 5)
    assert world.api.writes[writes:] == []


def children(world: RolloutHarness) -> dict[Any, Any]:
    """What callers and pods depend on, but for the status that others write."""
    parts = (kinds.SERVICE, kinds.HTTP_ROUTE, kinds.POD_DISRUPTION_BUDGET, kinds.CONTROLLER_REVISION)
    return {
        where: copy.deepcopy({k: v for k, v in o.items() if k in ("spec", "data")})
        for where, o in world.api.objects.items()
        if where[0] in parts
    }


@LOST
@BY
@pytest.mark.parametrize(("evidence", "serves"), [(good(), "v2"), (bad(), "v1")], ids=["good", "bad"])
@pytest.mark.parametrize("step", [0, 1])
def test_a_canary_needs_its_evidence_as_before(
    lost: tuple[Kind, ...], endpoint: bool, evidence: Any, serves: str, step: int
) -> None:
    world = RolloutHarness(JUDGED if endpoint else BY_PODS, endpoint=endpoint)
    world.want("v2")
    world.scheduler.results = {"errors": good()} if step else {}
    world.go(lambda: world.record.get("step") == step)
    world.scheduler.results = {}
    looks(world, 2)
    lose_status(world, lost)
    kept = {name: (uid, template) for name, (uid, _, template) in pods(world).items()}
    for _ in range(10):
        world.look()
        assert world.serving in ("v1", None), "nothing was measured since"
        if endpoint:
            assert world.weights.get("v1", 0) >= 50
        assert {name: (uid, template) for name, (uid, _, template) in pods(world).items()} == kept
    assert len(world.records) == 2
    world.scheduler.results["errors"] = evidence
    world.go(lambda: world.records[-1]["status"]["state"] in ("Succeeded", "RolledBack"))
    looks(world, 15)
    assert (world.serving, ends(world)[-1]) == (serves, ("v2", "Succeeded" if serves == "v2" else "RolledBack"))
    assert len(world.records) == 2


def test_rolled_back_version_is_retried_only_with_evidence() -> None:
    world = RolloutHarness(JUDGED)
    world.scheduler.results["errors"] = bad()
    world.want("v2")
    world.go_to("RolledBack", "AnalysisFailed")
    looks(world, 10)
    lose_status(world, kinds.OWN_KINDS)
    looks(world, 30)
    assert world.serving == "v1"
    assert world.weights == {"v1": 100}
    assert ends(world)[-1] == ("v2", "RolledBack")


def test_candidate_without_record_starts_a_new_rollout() -> None:
    world = RolloutHarness(JUDGED)
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 90, "v2": 10})
    for record in world.records:
        world.api.user_delete(kinds.MODEL_ROLLOUT, "vision", record["metadata"]["name"])
    lose_status(world, kinds.OWN_KINDS)
    for _ in range(20):
        world.look()
        assert world.weights.get("v1", 0) >= 90
    assert world.serving == "v1"
    assert ends(world) == [("v2", "Holding")]
