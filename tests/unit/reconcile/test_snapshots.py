"""Long policies are stored once for each content, outside of the records that go by them (docs/adr/0035)."""

import copy
from typing import Any

import pytest

from modelwright.core import policy_objects
from modelwright.kube import api_errors, kinds
from modelwright.kube.queue import Key
from modelwright.reconcile.policy_snapshots import list_unused
from tests.lib.history import sweep
from tests.lib.retraining_harness import HOURLY, TEMPLATE, RetrainingHarness
from tests.lib.rollout_harness import CANARY, JUDGED, NS, RolloutHarness, bad, good
from tests.lib.simulated import Died

Object = dict[str, Any]

QUERY = 'requests_total{namespace="$(NAMESPACE)",version="$(VERSION)"' + " " * 4020 + "}"
BY_QUERY = {"name": "errors", "prometheus": {"bad": QUERY, "total": QUERY}, "margin": "0.02", "minSamples": 100}
LONG = JUDGED | {"analysis": {"interval": "5s", "metrics": [BY_QUERY]}}
EDITED = LONG | {"deadline": "4m"}


def stored(world: Any) -> list[Object]:
    found = [o for (kind, _, _), o in world.api.objects.items() if kind == kinds.CONTROLLER_REVISION]
    return [o for o in found if o["metadata"]["labels"].get("modelwright.dev/role") == "policy"]


def under_way(policy: Object = LONG) -> RolloutHarness:
    """A rollout to v2, of which nothing is known yet, at its first step."""
    world = RolloutHarness(policy)
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 90, "v2": 10})
    return world


def says(world: RolloutHarness) -> str:
    return next(str(c["message"]) for c in world.model["status"]["conditions"] if c["type"] == "Stalled")


def ends_well(world: RolloutHarness) -> None:
    world.scheduler.results["errors"] = good()
    world.go_to("Succeeded", "Promoted")


def test_a_short_policy_is_in_the_record() -> None:
    world = under_way(CANARY)
    assert world.record["policy"]["spec"]["strategy"]["steps"] == CANARY["strategy"]["steps"]
    assert "storedIn" not in world.record["policy"]
    assert stored(world) == []


def test_a_long_policy_is_stored_once_and_records_name_it() -> None:
    world = RolloutHarness(LONG)
    world.scheduler.results["errors"] = good()
    for version in ("v2", "v3", "v1"):
        world.want(version)
        world.go_to("Succeeded")
    (kept,) = stored(world)
    policies = [record["status"]["policy"] for record in world.records]
    assert policies == [{"name": "steps", "generation": 1, "spec": {}, "storedIn": kept["metadata"]["name"]}] * 4
    assert kept["data"]["spec"]["analysis"]["metrics"][0]["prometheus"]["total"] == QUERY
    assert "ownerReferences" not in kept["metadata"]
    assert kept["metadata"]["name"].startswith("steps-")
    assert len([write for write in world.api.writes if write[2] == kept["metadata"]["name"]]) == 1


def test_approved_hash_ignores_where_the_policy_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    apart = under_way().record["contentHash"]
    monkeypatch.setattr(policy_objects, "INLINE_LIMIT_BYTES", 1 << 20)
    assert under_way().record["contentHash"] == apart


def test_a_rollout_goes_by_the_policy_it_began_with() -> None:
    world = under_way()
    before = world.record["contentHash"]
    world.set_policy(EDITED | {"strategy": {"steps": [{"weight": 90, "hold": "20s"}]}})
    for _ in range(3):
        world.look()
    assert world.weights == {"v1": 90, "v2": 10}
    ends_well(world)
    assert len(world.record["steps"]) == 3
    assert world.record["contentHash"] == before


def test_a_new_operator_goes_on_by_it() -> None:
    world = under_way()
    world.set_policy(EDITED)
    world.restart()
    ends_well(world)


def test_lost_snapshot_is_restored_from_the_unchanged_policy() -> None:
    world = under_way()
    (kept,) = stored(world)
    world.api.user_delete(kinds.CONTROLLER_REVISION, NS, kept["metadata"]["name"])
    ends_well(world)
    assert [o["data"] for o in stored(world)] == [kept["data"]]


@pytest.mark.parametrize("forged", [None, {"spec": EDITED}, {"spec": []}, "text"], ids=repr)
def test_lost_or_forged_snapshot_turns_the_rollout_back(forged: Any) -> None:
    world = under_way()
    (kept,) = stored(world)
    name, content = kept["metadata"]["name"], world.record["contentHash"]
    world.api.user_delete(kinds.CONTROLLER_REVISION, NS, name)
    if forged is not None:
        world.api.user_create({**copy.deepcopy(kept), "data": forged})
    world.set_policy(EDITED)
    world.scheduler.results["errors"] = good()
    world.go_to("Aborted", "InvalidPolicy")
    assert world.weights == {"v1": 100}
    assert name in world.record["message"]
    assert world.record["contentHash"] == content
    assert "stage" not in world.api.objects[kinds.MODEL_VERSION, NS, "v2"].get("status", {})


def awaiting_approval() -> RolloutHarness:
    """A rollout to v2 that waits for an approval before its first share of the requests."""
    world = RolloutHarness(LONG | {"strategy": {"steps": [{"approval": {}}, *LONG["strategy"]["steps"]]}})
    world.want("v2")
    world.go_to("AwaitingApproval")
    return world


def test_lost_snapshot_holds_a_rollout_without_requests() -> None:
    world = awaiting_approval()
    (kept,) = stored(world)
    name = kept["metadata"]["name"]
    world.api.user_delete(kinds.CONTROLLER_REVISION, NS, name)
    world.set_policy(EDITED)
    world.go_to("Holding", "InvalidPolicy")
    world.command("promote")
    for _ in range(6):
        world.look()
    assert world.weights == {"v1": 100}
    assert world.record["commands"][0]["accepted"] is False
    assert name in says(world)
    # Put back, it goes on.
    world.api.user_create(copy.deepcopy(kept))
    world.go_to("AwaitingApproval")


def test_a_person_can_end_a_rollout_whose_policy_is_gone() -> None:
    world = awaiting_approval()
    world.api.user_delete(kinds.CONTROLLER_REVISION, NS, stored(world)[0]["metadata"]["name"])
    world.set_policy(EDITED)
    world.go_to("Holding", "InvalidPolicy")
    world.command("abort")
    world.go_to("Aborted")
    assert world.weights == {"v1": 100}


def test_one_that_has_lost_its_labels_is_asked_for_by_name() -> None:
    world = under_way()
    (kept,) = stored(world)
    labels = dict.fromkeys(kept["metadata"]["labels"])
    world.api.user_patch(kinds.CONTROLLER_REVISION, NS, kept["metadata"]["name"], {"metadata": {"labels": labels}})
    world.set_policy(EDITED)
    ends_well(world)


def test_bad_evidence_rolls_back_by_it() -> None:
    world = under_way()
    world.scheduler.results["errors"] = bad()
    world.go_to("RolledBack", "AnalysisFailed")


def refuse(world: RolloutHarness, error: api_errors.ApiError) -> None:
    def before(verb: str, obj: Object) -> None:
        if verb == "create" and obj["metadata"].get("labels", {}).get("modelwright.dev/role") == "policy":
            raise error

    world.api.before_write = before


def test_what_cannot_be_stored_apart_is_in_the_record() -> None:
    world = RolloutHarness(CANARY)
    world.set_policy(LONG)
    refuse(world, api_errors.Denied(403, "Forbidden", "exceeded quota: count/controllerrevisions.apps"))
    world.want("v2")
    ends_well(world)
    assert "storedIn" not in world.record["policy"]
    assert world.record["policy"]["spec"]["deadline"] == "5m"


def test_foreign_object_of_the_name_forges_nothing() -> None:
    first = under_way()
    (kept,) = stored(first)
    world = RolloutHarness(CANARY)
    world.api.user_create({**copy.deepcopy(kept), "data": {"spec": CANARY}})
    world.set_policy(LONG)
    world.want("v2")
    ends_well(world)
    assert "storedIn" not in world.record["policy"]


def test_a_copy_in_a_record_of_before_is_read_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_objects, "INLINE_LIMIT_BYTES", 1 << 20)
    world = under_way()
    monkeypatch.undo()
    world.restart()
    world.set_policy(EDITED)
    ends_well(world)
    assert world.record["policy"]["spec"]["deadline"] == "5m"
    assert stored(world) == []


@pytest.mark.parametrize("after", [False, True], ids=["before it is written", "after"])
def test_snapshot_is_stored_once_despite_a_crash(after: bool) -> None:
    world = RolloutHarness(CANARY)
    world.set_policy(LONG)
    world.want("v2")

    def die(verb: str, obj: Object) -> None:
        if verb == "create" and obj["metadata"].get("labels", {}).get("modelwright.dev/role") == "policy":
            raise Died

    setattr(world.api, "after_write" if after else "before_write", die)
    with pytest.raises(Died):
        world.go_to("Progressing")
    world.api.before_write = world.api.after_write = lambda verb, obj: None
    world.restart()
    ends_well(world)
    assert world.record["policy"]["storedIn"] == stored(world)[0]["metadata"]["name"]
    assert len(stored(world)) == 1


def test_snapshot_is_deleted_an_hour_after_its_last_record() -> None:
    world = RolloutHarness(LONG | {"historyLimit": 1})
    world.scheduler.results["errors"] = good()
    (first,) = [Key("ControllerRevision", NS, o["metadata"]["name"]) for o in stored(world)]
    world.set_policy(EDITED | {"historyLimit": 1})
    assert list_unused(world.operator.store) == []
    for version in ("v2", "v3"):
        world.want(version)
        world.go_to("Succeeded")
        world.look()
    assert list_unused(world.operator.store) == [first]
    sweep(world, [first])
    assert len(stored(world)) == 2
    world.clock.advance(3601)
    sweep(world, [first])
    assert [o["metadata"]["name"] for o in stored(world)] == [world.record["policy"]["storedIn"]]


def test_one_that_a_record_names_again_meanwhile_stays() -> None:
    world = RolloutHarness(LONG | {"historyLimit": 1})
    world.scheduler.results["errors"] = good()
    (first,) = [Key("ControllerRevision", NS, o["metadata"]["name"]) for o in stored(world)]
    world.set_policy(EDITED | {"historyLimit": 1})
    for version in ("v2", "v3"):
        world.want(version)
        world.go_to("Succeeded")
        world.look()
    sweep(world, [first])
    world.set_policy(LONG | {"historyLimit": 1})
    world.want("v2")
    world.go_to("Succeeded")
    world.clock.advance(3601)
    sweep(world, [first])
    assert first.name in [o["metadata"]["name"] for o in stored(world)]


def test_orphaned_record_stays_for_its_policys_history_ttl() -> None:
    world = under_way(LONG | {"historyTTL": "24h"})
    ends_well(world)
    world.api.user_delete(kinds.MODEL, NS, "digits")
    world.api.user_delete(kinds.ROLLOUT_POLICY, NS, "steps")
    world.api.collect()
    world.look()
    records = [Key("ModelRollout", NS, record["metadata"]["name"]) for record in world.records]
    world.clock.advance(23 * 3600)
    sweep(world, records)
    assert len(world.records) == 2
    world.clock.advance(3600)
    sweep(world, records)
    assert world.records == []
    assert list_unused(world.operator.store) == [
        Key("ControllerRevision", NS, o["metadata"]["name"]) for o in stored(world)
    ]


def retraining() -> RetrainingHarness:
    train = copy.deepcopy(TEMPLATE)
    train["template"]["spec"]["containers"][0]["args"] = ["x" * 9000]
    world = RetrainingHarness(HOURLY, train={"job": train})
    world.hold = {"train"}
    world.to_the_hour()
    world.go(lambda: world.states == ["Training"])
    return world


def test_run_follows_its_stored_policy() -> None:
    world = retraining()
    (kept,) = stored(world)
    told = world.runs[0]["status"]["policy"]
    assert (told["spec"], told["storedIn"]) == ({}, kept["metadata"]["name"])
    world.api.user_patch(
        kinds.RETRAINING_POLICY,
        NS,
        "digits",
        {
            "spec": {
                "run": {
                    "evaluate": {
                        "gates": [
                            {"name": "accuracy", "min": "0.99"},
                        ]
                    }
                }
            }
        },
    )
    world.hold = set()
    world.go(lambda: world.states == ["Succeeded"])
    assert len([write for write in world.api.writes if write[2] == kept["metadata"]["name"]]) == 1


def test_a_run_whose_policy_is_gone_and_edited_ends_and_says_so() -> None:
    world = retraining()
    name = stored(world)[0]["metadata"]["name"]
    world.api.user_delete(kinds.CONTROLLER_REVISION, NS, name)
    world.look()
    assert world.states == ["Training"]
    world.api.user_patch(kinds.RETRAINING_POLICY, NS, "digits", {"spec": {"run": {"parameters": {"C": "11"}}}})
    world.go(lambda: world.states == ["Failed"])
    assert name in world.runs[0]["status"]["message"]
