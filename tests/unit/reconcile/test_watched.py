"""While the candidate has requests its metrics decide: the real reconcilers on a simulated cluster."""

from datetime import datetime
from typing import Any

import pytest

from modelwright.core.analysis.evidence import Arm, Block, MeasurementFailure, RequestShares
from tests.lib.rollout_harness import CANARY, ERRORS, JUDGED, RolloutHarness, bad, by_hand, good, policy

SLOW = JUDGED | {"deadline": "1h"}
HELD = SLOW | {"onFailure": "Hold"}
LOOKS = 6
"""More than a rollback takes, and far fewer than a deadline."""


def begun(spec: dict[str, Any] = SLOW, **more: Any) -> RolloutHarness:
    world = RolloutHarness(spec, **more)
    world.scheduler.results["errors"] = good()
    world.want("v2")
    return world


def promoting(spec: dict[str, Any] = SLOW) -> RolloutHarness:
    """At half of the requests, with the pods for all of them on their way."""
    world = begun(spec)
    world.go(lambda: world.record.get("state") == "Promoting", looks=400, seconds=1)
    world.short.add("v2")
    world.look(1)
    assert world.weights == {"v1": 50, "v2": 50}
    assert world.record["state"] == "Promoting"
    return world


def test_candidate_without_pods_rolls_back_while_promoting() -> None:
    world = promoting()
    world.broken = {"v2"}
    world.look()
    assert world.weights == {"v1": 100}
    world.go_to("RolledBack", "CandidateUnavailable")


def test_metric_failing_while_promoting_rolls_back() -> None:
    world = promoting()
    world.scheduler.results["errors"] = bad()
    world.look()
    assert world.weights == {"v1": 100}
    world.go_to("RolledBack", "AnalysisFailed")
    assert [(v["step"], v["outcome"]) for v in world.record["verdicts"]] == [(0, "Pass"), (1, "Fail")]


def test_record_keeps_blocks_of_a_late_metric_failure() -> None:
    world = promoting()
    ends = [1796045130.0 + 15 * at for at in range(20)]
    ones, zeros = tuple(Block(end, 100, 50) for end in ends), tuple(Block(end, 100, 1) for end in ends)
    world.scheduler.results["errors"] = RequestShares(Arm(2000, 1000), Arm(2000, 20), blocks=(ones, zeros))
    world.go_to("RolledBack", "AnalysisFailed")
    (failed,) = (verdict for verdict in world.record["verdicts"] if verdict["outcome"] == "Fail")
    assert failed["step"] == 1
    assert len(failed["blocks"].split(",")) == 20


def test_metric_failing_while_the_next_step_starts_rolls_back() -> None:
    world = begun()
    world.go(lambda: world.record.get("step") == 1, looks=400, seconds=1)
    world.short.add("v2")
    world.look()
    assert world.weights == {"v1": 90, "v2": 10}
    world.scheduler.results["errors"] = bad()
    world.look()
    assert world.weights == {"v1": 100}
    world.go_to("RolledBack", "AnalysisFailed")


@pytest.mark.parametrize("where", ["between steps", "promoting"])
def test_restart_requests_the_same_evidence(where: str) -> None:
    if where == "promoting":
        world = promoting()
    else:
        world = begun()
        world.go(lambda: world.record.get("step") == 1, looks=400, seconds=1)
        world.short.add("v2")
        world.look()
    before = world.scheduler.asked[-1]
    world.restart()
    world.look()
    after = world.scheduler.asked[-1]
    assert (after.key, after.since, after.metrics) == (before.key, before.since, before.metrics)
    world.scheduler.results["errors"] = bad()
    world.look()
    assert world.weights == {"v1": 100}


def test_unconfirmed_first_step_is_judged_all_the_same() -> None:
    world = begun()
    world.go(lambda: world.record.get("step") == 0, looks=400, seconds=1)
    world.lags = True
    world.go(lambda: world.weights == {"v1": 90, "v2": 10}, seconds=1)
    world.look()
    assert "confirmedAt" not in world.record["steps"][0]
    world.scheduler.results["errors"] = bad()
    world.look()
    assert world.weights == {"v1": 100}


@pytest.mark.parametrize(
    "found", [None, MeasurementFailure("MetricsServerUnreachable", "connection refused")], ids=["nothing", "an error"]
)
def test_what_decides_nothing_between_steps_changes_nothing(found: MeasurementFailure | None) -> None:
    world = promoting()
    world.scheduler.results = {} if found is None else {"errors": found}
    for _ in range(LOOKS):
        world.look()
    assert world.weights == {"v1": 50, "v2": 50}
    assert {v["outcome"] for v in world.record["verdicts"]} == {"Pass"}, "what the steps ended with stays written"
    world.short.clear()
    world.go_to("Succeeded", "Promoted")


def test_looks_between_steps_that_find_nothing_new_write_nothing() -> None:
    world = promoting()
    for _ in range(LOOKS):
        world.look()
    writes = len(world.api.writes)
    for _ in range(LOOKS):
        world.look()
    assert len(world.api.writes) == writes


@pytest.mark.parametrize("where", ["between steps", "promoting"])
def test_on_failure_hold_keeps_traffic_until_a_user_decides(where: str) -> None:
    if where == "promoting":
        world, weights = promoting(HELD), {"v1": 50, "v2": 50}
    else:
        world, weights = begun(HELD), {"v1": 90, "v2": 10}
        world.go(lambda: world.record.get("step") == 1, looks=400, seconds=1)
    world.scheduler.results["errors"] = bad()
    world.short.clear()
    world.go_to("Holding", "AnalysisFailed")
    writes = len(world.api.writes)
    for _ in range(LOOKS):
        world.look()
    assert world.weights == weights
    assert len(world.api.writes) - writes <= 1
    world.command("promote")
    world.go_to("Succeeded", "PromotedWithoutEvidence")


def test_promotion_without_evidence_still_rolls_back_on_failure() -> None:
    """Only what a person knew of is overruled."""
    world = RolloutHarness(SLOW)
    world.want("v2")
    world.go_to("Holding", "InsufficientEvidence")
    world.short.add("v2")
    world.command("promote")
    world.go_to("Promoting")
    world.scheduler.results["errors"] = bad()
    world.go_to("RolledBack", "AnalysisFailed")


def test_manual_rollback_without_pods_returns_requests() -> None:
    world = RolloutHarness(CANARY)
    world.want("v2")
    world.go_to("Succeeded")
    by_hand(world)
    world.lags = True
    world.go(lambda: world.weights == {"v1": 100})
    world.broken = {"v1"}
    world.look()
    assert world.weights == {"v2": 100}
    world.broken, world.lags = set(), False
    world.go_to("Succeeded", "RolledBackByHand")
    assert world.weights == {"v1": 100}


def test_a_fast_rollback_whose_pods_die_is_turned_back() -> None:
    world = RolloutHarness(CANARY | {"keepPrevious": "10m"})
    world.want("v2")
    world.go_to("Succeeded")
    world.want("v1")
    world.lags = True
    world.go(lambda: world.weights == {"v1": 100})
    world.broken = {"v1"}
    world.look()
    assert world.weights == {"v2": 100}


@pytest.mark.parametrize(
    "steps",
    [
        [{"match": {"headers": [{"name": "x", "value": "y"}], "hold": "20s"}}, {"weight": 100}],
        [{"weight": 10}, {"approval": {}}, {"weight": 100}],
        [{"weight": 10}, {"hold": "20s"}, {"weight": 100}],
    ],
    ids=["match", "approval", "hold"],
)
def test_every_kind_of_step_is_judged_until_the_promotion(steps: list[dict[str, Any]]) -> None:
    world = begun(policy(*steps, analysis={"interval": "5s", "metrics": [ERRORS]}, deadline="1h"))
    for _ in range(40):
        before = len(world.scheduler.asked)
        world.look(2)
        if set(world.weights) == {"v1", "v2"} and world.record.get("state") in ("Progressing", "AwaitingApproval"):
            world.look(2)
            assert len(world.scheduler.asked) > before, world.record
    world.scheduler.results["errors"] = bad()
    if world.record["state"] != "Succeeded":
        world.go_to("RolledBack", "AnalysisFailed")


HANGS = {"replicas": 4, "maxRequestSeconds": 60}


@pytest.mark.parametrize(
    "strategy",
    [
        {"preset": "Rolling"},
        {"preset": "BlueGreen"},
        {"preset": "Canary"},
        {"steps": [{"weight": 50}, {"hold": "1s"}, {"approval": {}}, {"weight": 100}]},
        {"steps": [{"match": {"headers": [{"name": "x", "value": "y"}], "hold": "1s"}}, {"weight": 100}]},
        {"abTest": {"duration": "10s", "sticky": False, "winner": {"metric": "errors", "better": "Lower"}}},
    ],
    ids=["Rolling", "BlueGreen", "Canary", "steps", "match", "A/B"],
)
def test_no_step_passes_before_the_longest_request_has_ended(strategy: dict[str, Any]) -> None:
    """A request that hangs is counted when it ends: until then a candidate that lets all of them hang is perfect."""
    metrics = {"interval": "5s", "metrics": [{**ERRORS, "max": "0.5"}]}
    world = RolloutHarness({"strategy": strategy, "analysis": metrics, "deadline": "3h"}, serving=HANGS)
    world.scheduler.results["errors"] = RequestShares(Arm(20000, 10), Arm(20000, 800))
    world.want("v2")
    for _ in range(60):
        world.look(10)
        for step in world.record.get("steps", []):
            if step.get("outcome") == "Pass" and "confirmedAt" in step and (step["weight"] or step["kind"] != "weight"):
                assert seconds_between(step["confirmedAt"], step["finishedAt"]) >= 60
    assert any(step.get("outcome") == "Pass" for step in world.record["steps"])


def test_pass_before_the_longest_request_ends_does_not_count() -> None:
    world = begun(SLOW | {"strategy": {"preset": "Rolling"}}, serving=HANGS)
    world.go(lambda: "confirmedAt" in world.record.get("steps", [{}])[0])
    measured = world.clock.now()
    world.scheduler.at = lambda: measured
    for _ in range(20):
        world.look(10)
    assert world.weights == {"v1": 75, "v2": 25}
    assert world.record["verdicts"][0]["reason"] == "RequestsNotEnded"
    world.scheduler.at = world.clock.now
    world.go_to("Succeeded", "Promoted")


def test_deadline_below_the_longest_request_is_refused() -> None:
    world = RolloutHarness(CANARY, serving=HANGS | {"maxRequestSeconds": 3600})
    world.set_policy(JUDGED)
    world.want("v2")
    world.go(lambda: conditions(world.model)["Stalled"]["reason"] == "PolicyNotSupported")
    assert "spec.serving.maxRequestSeconds of the Model, 3600 s" in conditions(world.model)["Stalled"]["message"]


def test_a_step_without_evidence_does_not_wait_for_requests() -> None:
    world = RolloutHarness(CANARY, serving=HANGS)
    world.want("v2")
    world.go(lambda: world.record.get("step") == 1, looks=12)


@pytest.mark.parametrize(
    "metric",
    [{"name": "abs", "builtin": "error-rate", "max": "0.5", "dryRun": True}, None],
    ids=["a dry run alone could judge it", "nothing could judge it"],
)
def test_a_hold_at_100_that_no_metric_judges_is_refused(metric: dict[str, Any] | None) -> None:
    metrics = [ERRORS] if metric is None else [ERRORS, metric]
    steps = ({"weight": 10, "hold": "20s"}, {"weight": 100, "hold": "60s"})
    world = RolloutHarness(CANARY)
    world.set_policy(policy(*steps, analysis={"interval": "5s", "metrics": metrics}))
    world.scheduler.results = {"errors": good(), "abs": good()}
    world.want("v2")
    for _ in range(LOOKS):
        world.look()
    assert world.weights == {"v1": 100}
    told = conditions(world.model)["Stalled"]
    assert (told["status"], told["reason"]) == ("True", "InvalidPolicy")
    assert "no metric judges step 2 (weight 100 %)" in told["message"]


def test_rollout_under_such_a_policy_is_not_promoted() -> None:
    """As after an upgrade of the operator."""
    world = begun(policy({"weight": 10, "hold": "20s"}, {"weight": 100}, analysis={"metrics": [ERRORS]}, deadline="5m"))
    world.go(lambda: world.weights == {"v1": 90, "v2": 10})
    (raw,) = (o for (_, _, name), o in world.api.objects.items() if name == world.records[-1]["metadata"]["name"])
    raw["status"]["policy"]["spec"]["strategy"]["steps"][1]["hold"] = "60s"
    world.restart()
    world.go(lambda: world.record.get("reason") == "Inconclusive", looks=100)


@pytest.mark.parametrize(("spec", "asked"), [(CANARY, "False"), (JUDGED, "True")], ids=["by time", "judged"])
def test_model_and_rollouts_report_whether_evidence_is_required(spec: dict[str, Any], asked: str) -> None:
    world = begun(spec)
    world.go_to("Succeeded", "Promoted")
    assert conditions(world.model)["EvidenceAsked"]["status"] == asked
    assert conditions(world.records[-1])["EvidenceAsked"]["status"] == asked
    assert conditions(world.model)["Ready"]["status"] == "True"


def seconds_between(one: str, other: str) -> float:
    return (datetime.fromisoformat(other) - datetime.fromisoformat(one)).total_seconds()


def conditions(obj: dict[str, Any]) -> dict[str, Any]:
    return {condition["type"]: condition for condition in obj["status"]["conditions"]}
