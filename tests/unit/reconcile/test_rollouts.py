"""Rollouts by a policy, pass by pass: the real reconcilers on a simulated cluster, with evidence told by the test."""

import copy
from datetime import datetime
from typing import Any

import pytest

from modelwright.api import names
from modelwright.core.analysis.evidence import Arm, Block, MeasurementFailure, RequestShares
from modelwright.kube import api_errors, kinds
from tests.lib import objects
from tests.lib.rollout_harness import CANARY, ERRORS, JUDGED, NS, Object, RolloutHarness, bad, by_hand, good, policy
from tests.lib.simulated import Died


class InOrder(RolloutHarness):
    """Checks after each look that no Model is ready before its record has ended."""

    def look(self, seconds: float = 5) -> None:
        super().look(seconds)
        status = self.model.get("status", {})
        ready = {c["type"]: c["status"] for c in status.get("conditions", [])}.get("Ready") == "True"
        if ready and status["observedGeneration"] == self.model["metadata"]["generation"]:
            assert self.records[-1]["status"].get("state") in ("Succeeded", "RolledBack"), self.records[-1]["status"]


@pytest.mark.parametrize("endpoint", [True, False], ids=["by a route", "by a Service, which needs no confirmation"])
def test_a_record_has_ended_before_its_model_is_ready(endpoint: bool) -> None:
    world = InOrder(policy({"weight": 50, "hold": "20s"}, {"weight": 100}, keepPrevious="30s"), endpoint=endpoint)
    world.want("v2")
    world.go(lambda: world.serving == "v2" and world.record.get("state") == "Succeeded")
    for _ in range(3):
        world.look()


def test_edit_before_the_first_status_starts_from_serving() -> None:
    world = RolloutHarness(policy({"weight": 50, "hold": "20s"}, {"weight": 100}, keepPrevious="1h"))
    world.want("v2")
    before = copy.deepcopy(world.model["status"])
    world.go(lambda: world.serving == "v2" and world.record.get("state") == "Succeeded")
    world.api.set_status(world.model, before)
    world.want("v1")
    world.go_to("Succeeded", "FastRollback")
    assert world.records[-1]["status"]["from"]["version"] == "v2"


def test_canary_without_metrics_advances_by_time() -> None:
    world = RolloutHarness(CANARY)
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 90, "v2": 10})
    assert world.pods("v1") == 4
    assert world.pods("v2") == 1
    world.go(lambda: world.weights == {"v1": 50, "v2": 50})
    assert world.pods("v2") == 2
    world.go(lambda: world.weights == {"v2": 100})
    assert world.pods("v1") == 4
    world.go_to("Succeeded", "Promoted")
    assert world.serving == "v2"
    assert [step["outcome"] for step in world.record["steps"]] == ["Pass", "Pass", "Pass"]
    world.go(lambda: world.pods("v1") is None)
    assert [entry["version"] for entry in world.model["status"]["history"]] == ["v1"]


def test_previous_revisions_pods_stay_for_keep_previous() -> None:
    world = RolloutHarness(CANARY | {"keepPrevious": "10m"})
    world.want("v2")
    world.go_to("Succeeded")
    for _ in range(10):
        world.look()
    assert world.pods("v1") == 4
    assert world.model["status"]["rollout"]["state"] == "Succeeded"


def test_good_evidence_promotes() -> None:
    world = RolloutHarness(JUDGED)
    world.scheduler.results["errors"] = good()
    world.want("v2")
    world.go_to("Succeeded", "Promoted")
    assert {v["outcome"] for v in world.record["verdicts"]} == {"Pass"}


def test_measurement_request_has_the_times_of_its_step() -> None:
    world = RolloutHarness(JUDGED)
    world.scheduler.results = {"errors": good()}
    world.want("v2")
    world.go_to("Succeeded")
    asked = {(ask.pods_requested_at, ask.since) for ask in world.scheduler.asked if ask.key.endswith(("/0", "/1"))}
    steps = [tuple(parsed(entry[key]) for key in ("startedAt", "confirmedAt")) for entry in world.record["steps"][:2]]
    assert asked >= set(steps)
    assert {began for began, _ in asked} == {began for began, _ in steps}


def parsed(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_the_record_keeps_the_blocks_that_decided_each_step() -> None:
    world = RolloutHarness(JUDGED)
    blocks = tuple(Block(1796045130.0 + 15 * at, 100, 1) for at in range(20))
    world.scheduler.results["errors"] = RequestShares(Arm(2000, 20), Arm(2000, 20), blocks=(blocks, blocks))
    world.want("v2")
    world.go_to("Succeeded", "Promoted")
    kept = [verdict["blocks"] for verdict in world.record["verdicts"]]
    assert {len(text.split(",")) for text in kept} == {20}
    assert {text.split(",")[0] for text in kept} == {"1796045130 1/100 1/100"}


def test_no_evidence_never_promotes_and_the_deadline_ends_it() -> None:
    world = RolloutHarness(JUDGED)
    world.want("v2")
    world.go_to("Holding", "InsufficientEvidence")
    assert world.weights == {"v1": 90, "v2": 10}
    world.go_to("Aborted", "Inconclusive")
    assert world.weights == {"v1": 100}
    assert world.serving == "v1"
    assert world.stage("v2") == "None", "nothing was found against it"
    for _ in range(10):
        world.look()
    assert world.record["state"] == "Aborted", "it is not begun again by itself"


def test_a_metrics_server_that_is_gone_for_good_never_promotes() -> None:
    world = RolloutHarness(JUDGED)
    world.scheduler.results["errors"] = MeasurementFailure("MetricsServerUnreachable", "connection refused")
    world.want("v2")
    world.go_to("Holding", "AnalysisError")
    world.go_to("Aborted", "Inconclusive")


def test_bad_evidence_rolls_back_and_quarantines() -> None:
    world = RolloutHarness(JUDGED)
    world.scheduler.results["errors"] = good()
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 50, "v2": 50})
    world.go(lambda: "confirmedAt" in world.record["steps"][1])
    world.scheduler.results["errors"] = bad()
    world.look()
    assert world.weights == {"v1": 100}, "one look after the bad sample no caller is sent there"
    world.go_to("RolledBack", "AnalysisFailed")
    for _ in range(10):
        world.look()
    assert len(world.records) == 2, "the same revision is not tried again by itself"
    assert world.pods("v2") is None
    ready = {c["type"]: c["status"] for c in world.model["status"]["conditions"]}
    assert ready["Stalled"] == "True"
    assert world.model["status"]["rollout"]["state"] == "RolledBack"


async def test_a_status_that_arrives_late_brings_no_earlier_state_back() -> None:
    """It would let a version that was taken back go on."""
    world, sent = RolloutHarness(JUDGED), []

    def note(verb: str, obj: Object) -> None:
        if verb == "status" and obj["kind"] == "ModelRollout" and obj["status"]["state"] == "Progressing":
            sent.append(copy.deepcopy(obj))

    world.api.before_write = note
    world.want("v2")
    world.scheduler.results["errors"] = bad()
    world.go_to("RolledBack")
    assert sent
    with pytest.raises(api_errors.Conflict):
        await world.api.apply(sent[-1], subresource="status")


def test_retry_tries_a_quarantined_revision_again() -> None:
    world = RolloutHarness(JUDGED)
    world.scheduler.results["errors"] = bad()
    world.want("v2")
    world.go_to("RolledBack")
    world.scheduler.results["errors"] = good()
    world.command("retry")
    world.go(lambda: len(world.records) == 3)
    world.go_to("Succeeded", "Promoted")


def test_another_version_and_back_ends_quarantine() -> None:
    world = RolloutHarness(JUDGED)
    world.scheduler.results["errors"] = bad()
    world.want("v2")
    world.go_to("RolledBack")
    world.scheduler.results["errors"] = good()
    world.want("v1")
    world.go(lambda: world.model["status"]["rollout"]["state"] == "Succeeded")
    world.want("v2")
    world.go_to("Succeeded", "Promoted")


def test_following_model_skips_a_rolled_back_version() -> None:
    world = RolloutHarness(JUDGED, versions=("v1",), version={"follow": {}})
    world.scheduler.results["errors"] = bad()
    world.api.user_create(objects.version(NS, "v2"))
    world.go(lambda: world.records[-1].get("status", {}).get("state") == "RolledBack")
    world.go(lambda: world.stage("v2") == "Quarantined")
    world.go(lambda: world.model["status"]["target"]["version"] == "v1")
    assert world.model["status"]["rollout"]["state"] == "Succeeded"
    world.scheduler.results["errors"] = good()
    world.api.user_create(objects.version(NS, "v3"))
    world.go(lambda: world.serving == "v3")
    assert world.stage("v2") == "Quarantined"


def test_newer_target_supersedes_with_the_serving_fallback() -> None:
    world = RolloutHarness(CANARY)
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 90, "v2": 10})
    world.want("v3")
    world.go(lambda: [r.get("status", {}).get("state") for r in world.records][1] == "Superseded")
    assert world.weights == {"v1": 100}
    world.go(lambda: world.weights.get("v3") == 10)
    assert world.pods("v2") is None, "never three sets of pods"
    world.go_to("Succeeded")
    assert world.serving == "v3"


def test_superseded_candidates_pods_go_before_the_next_ones() -> None:
    world = RolloutHarness(CANARY)
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 90, "v2": 10})
    world.lingering.add("v2")
    world.want("v3")
    world.go(lambda: world.pods("v2") == 0)
    for _ in range(10):
        world.look()
    assert (world.pods("v2"), world.pods("v3")) == (0, None)
    world.lingering.clear()
    world.go(lambda: world.weights.get("v3") == 10)
    assert world.pods("v2") is None


def test_interrupted_promotion_survives_a_slow_gateway() -> None:
    world = RolloutHarness(CANARY)

    def die(verb: str, obj: Object) -> None:
        if obj["kind"] == "ModelRollout" and obj.get("status", {}).get("state") == "Succeeded":
            raise Died

    world.want("v2")
    world.api.after_write = die
    with pytest.raises(Died):
        world.go(lambda: False)
    assert world.serving == "v1", "the Model's status was not written"
    world.api.after_write = lambda verb, obj: None
    world.lags = True
    world.restart()
    for _ in range(5):
        world.look()
    assert world.serving == "v2"
    assert len(world.records) == 2
    assert world.weights == {"v2": 100}


def test_interrupted_record_moves_to_its_own_target() -> None:
    world = RolloutHarness(CANARY)

    def die(verb: str, obj: Object) -> None:
        if verb == "create" and obj["kind"] == "ModelRollout":
            raise Died

    world.want("v2")
    world.api.after_write = die
    with pytest.raises(Died):
        world.go(lambda: False)
    world.api.after_write = lambda verb, obj: None
    world.restart()
    world.want("v1")
    world.go(lambda: world.records[-1].get("status", {}).get("state") == "Superseded")
    assert world.records[-1]["status"]["to"]["version"] == "v2"
    assert world.weights == {"v1": 100}


@pytest.mark.parametrize("looks", range(4))
def test_broken_policy_edit_at_the_start_delays_no_rollout(looks: int) -> None:
    """Whenever the edit is heard of, beside the Model's: the gateway can't mirror."""
    world = RolloutHarness(CANARY)
    world.want("v2")
    for _ in range(looks):
        world.look()
    world.set_policy(policy({"mirror": {"hold": "1s"}}, {"weight": 100}))
    world.go(lambda: world.serving == "v2" or _says_stalled(world, "PolicyNotSupported"))
    world.set_policy(CANARY)
    world.go(lambda: world.serving == "v2" and world.record.get("state") == "Succeeded")
    assert {r["status"]["state"] for r in world.records} <= {"Succeeded", "Superseded"}


LOST: dict[str, Any] = {
    "deleted": lambda api: api.user_delete(kinds.ROLLOUT_POLICY, NS, "steps"),
    "of no form that is known": lambda api: api.user_patch(
        kinds.ROLLOUT_POLICY, NS, "steps", {"spec": {"strategy": {"preset": "Later"}}}
    ),
}


@pytest.mark.parametrize("how", LOST)
def test_rollout_without_its_policy_promotes_nothing(how: str) -> None:
    world = RolloutHarness(JUDGED)
    world.scheduler.results = {"errors": bad()}
    world.want("v2")
    world.go(lambda: len(world.records) == 2)
    assert "status" not in world.records[-1]
    LOST[how](world.api)
    for _ in range(20):
        world.look()
        assert world.weights == {"v1": 100}
    assert [record["status"]["state"] for record in world.records] == ["Succeeded", "Superseded"]
    world.scheduler.results = {"errors": good()}
    world.set_policy({**JUDGED, "strategy": {**JUDGED["strategy"], "preset": None}})
    world.go(lambda: world.serving == "v2")
    assert {verdict["step"] for verdict in world.record["verdicts"]} == {0, 1}


def test_a_rollout_that_has_lost_its_policy_is_turned_back() -> None:
    world = RolloutHarness(JUDGED)
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 90, "v2": 10})
    status = {key: value for key, value in world.record.items() if key != "policy"}
    world.api.set_status(world.api.objects[kinds.MODEL_ROLLOUT, NS, "digits-2"], status)
    world.set_policy({"analysis": None})
    world.restart()
    world.go_to("Aborted", "InvalidPolicy")
    assert world.weights == {"v1": 100}


def _says_stalled(world: RolloutHarness, reason: str) -> bool:
    told = {c["type"]: c for c in world.model["status"]["conditions"]}
    return (told["Stalled"]["status"], told["Stalled"]["reason"]) == ("True", reason)


def test_going_back_to_what_serves_supersedes() -> None:
    world = RolloutHarness(CANARY)
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 90, "v2": 10})
    world.want("v1")
    world.go(lambda: world.records[-1]["status"]["state"] == "Superseded")
    world.go(lambda: world.model["status"]["rollout"]["state"] == "Succeeded")
    assert world.weights == {"v1": 100}
    assert len(world.records) == 2


def test_pause_holds_and_stops_the_deadline() -> None:
    world = RolloutHarness(CANARY | {"deadline": "2m"})
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 90, "v2": 10})
    world.command("pause")
    world.go_to("Holding", "Paused")
    for _ in range(60):
        world.look()
    assert world.record["state"] == "Holding"
    assert world.weights == {"v1": 90, "v2": 10}
    world.command("resume", "2")
    world.go_to("Succeeded")


def test_a_paused_rollout_still_rolls_back() -> None:
    world = RolloutHarness(JUDGED)
    world.scheduler.results["errors"] = good()
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 90, "v2": 10})
    world.command("pause")
    world.go_to("Holding", "Paused")
    world.scheduler.results["errors"] = bad()
    world.go_to("RolledBack", "AnalysisFailed")


def test_abort_goes_back_and_quarantines() -> None:
    world = RolloutHarness(CANARY)
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 50, "v2": 50})
    world.command("abort")
    world.go_to("Aborted", "AbortedByCommand")
    assert world.weights == {"v1": 100}
    assert world.record["commands"][0]["by"] == "alice"
    for _ in range(10):
        world.look()
    assert len(world.records) == 2


def test_promote_goes_on_without_evidence_and_says_so() -> None:
    world = RolloutHarness(JUDGED)
    world.want("v2")
    world.go_to("Holding", "InsufficientEvidence")
    world.command("promote")
    world.go_to("Succeeded", "PromotedWithoutEvidence")
    assert world.serving == "v2"


def test_the_same_token_is_taken_up_once() -> None:
    world = RolloutHarness(CANARY)
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 90, "v2": 10})
    world.command("pause")
    world.go_to("Holding", "Paused")
    world.command("resume", "2")
    world.go_to("Progressing")
    world.command("pause")
    world.go_to("Succeeded")


def test_back_to_a_version_that_served_before_is_a_switch() -> None:
    world = RolloutHarness(JUDGED | {"keepPrevious": "10m"})
    world.scheduler.results["errors"] = good()
    world.want("v2")
    world.go_to("Succeeded")
    world.scheduler.results.clear()
    world.want("v1")
    world.go_to("Succeeded", "FastRollback")
    assert world.serving == "v1"
    assert not world.record.get("steps")


def test_manual_rollback_holds_until_spec_version_changes() -> None:
    world = RolloutHarness(CANARY)
    world.want("v2")
    world.go_to("Succeeded")
    by_hand(world)
    world.go(lambda: world.serving == "v1")
    world.go_to("Succeeded", "RolledBackByHand")
    for _ in range(10):
        world.look()
    assert world.serving == "v1"
    told = next(c for c in world.model["status"]["conditions"] if c["type"] == "Stalled")
    assert (told["status"], told["reason"]) == ("True", "HeldByRollback")
    world.want("v3")
    world.go(lambda: world.serving == "v3")


def test_a_rollback_by_hand_is_released_by_command() -> None:
    world = RolloutHarness(CANARY)
    world.want("v2")
    world.go_to("Succeeded")
    by_hand(world)
    world.go_to("Succeeded", "RolledBackByHand")
    world.command("release")
    world.go(lambda: world.serving == "v2")


def test_a_rollback_by_hand_in_the_middle_of_a_rollout_ends_it() -> None:
    world = RolloutHarness(CANARY)
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 50, "v2": 50})
    by_hand(world)
    world.go_to("Succeeded", "RolledBackByHand")
    assert world.weights == {"v1": 100}
    assert world.records[1]["status"]["state"] == "Superseded"


def test_a_rollback_by_hand_needs_no_policy() -> None:
    world = RolloutHarness(None)
    world.want("v2")
    world.go(lambda: world.serving == "v2")
    by_hand(world)
    world.go(lambda: world.serving == "v1")


def test_a_rollback_by_hand_to_what_never_served_is_refused() -> None:
    world = RolloutHarness(CANARY)
    by_hand(world, "v3")
    world.go(lambda: world.records[-1].get("status", {}).get("reason") == "InvalidSpec")
    for _ in range(5):
        world.look()
    assert world.serving == "v1"
    assert world.model["status"]["rollout"]["state"] == "Succeeded"


def test_freeze_window_blocks_starts_unless_overridden() -> None:
    world = RolloutHarness(CANARY)
    world.set_policy(CANARY | {"freeze": [{"schedule": "* * * * *", "duration": "24h"}]})
    world.want("v2")
    world.go_to("Pending", "FreezeWindow")
    for _ in range(10):
        world.look()
    assert world.record["state"] == "Pending"
    world.command("resume")
    world.go_to("Succeeded", "Promoted")


def test_candidate_that_never_starts_rolls_back_at_the_deadline() -> None:
    world = RolloutHarness(CANARY | {"deadline": "2m"})
    world.broken.add("v2")
    world.want("v2")
    world.go_to("Aborted", "DeadlineExceeded")
    assert world.weights == {"v1": 100}


def test_a_candidate_that_loses_its_pods_is_rolled_back_at_once() -> None:
    world = RolloutHarness(CANARY)
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 50, "v2": 50})
    world.broken.add("v2")
    world.go_to("RolledBack", "CandidateUnavailable")


def test_recreate_restarts_the_old_revision_after_a_failure() -> None:
    recreate = {"strategy": {"recreate": {"timeout": "1m"}}}
    world = RolloutHarness(recreate)
    world.want("v2")
    world.go(lambda: world.pods("v1") == 0)
    assert world.pods("v2") is None
    world.go_to("Succeeded")
    assert world.serving == "v2"
    world.broken.add("v3")
    world.want("v3")
    world.go_to("Aborted", "StartTimeout")
    assert world.pods("v2") == 4
    assert world.weights == {"v2": 100}


def test_blue_green_runs_at_full_size_before_it_switches() -> None:
    world = RolloutHarness({"strategy": {"preset": "BlueGreen"}})
    world.want("v2")
    world.go(lambda: world.pods("v2") == 4)
    assert world.weights == {"v1": 100}
    world.go(lambda: world.weights == {"v2": 100})
    assert world.serving == "v1", "watched before it counts"
    world.go_to("Succeeded", "Promoted")


def test_without_a_gateway_pods_make_the_weights() -> None:
    world = RolloutHarness(policy({"weight": 20, "hold": "20s"}, {"weight": 50, "hold": "20s"}), endpoint=False)
    world.want("v2")
    world.go(lambda: world.pods("v2") == 1)
    world.go(lambda: names.LABEL_REVISION not in world.api.objects[kinds.SERVICE, NS, "digits"]["spec"]["selector"])
    world.go(lambda: world.pods("v2") == 4)
    assert world.pods("v1") == 4
    world.go_to("Succeeded")
    assert world.serving == "v2"


@pytest.mark.parametrize("endpoint", [True, False], ids=["gateway", "pods"])
@pytest.mark.parametrize("surge", [1, 2])
def test_surge_budget_always_holds_and_weight_follows_pods(surge: int, endpoint: bool) -> None:
    steps = policy(
        {"weight": 20, "hold": "20s"}, {"weight": 50, "hold": "20s"}, surge={"pods": surge}, keepPrevious="0s"
    )
    world = RolloutHarness(steps, endpoint=endpoint)

    def within(verb: str, obj: Object) -> None:
        asked = sum((world.pods(version) or 0) for version in ("v1", "v2"))
        assert asked <= 4 + surge

    world.api.after_write = within
    world.want("v2")
    world.go_to("Succeeded", "Promoted")
    world.go(lambda: world.pods("v1") is None)
    assert world.pods("v2") == 4


def test_each_revision_has_its_autoscaler_and_nobody_fights_it() -> None:
    world = RolloutHarness(CANARY, serving={"autoscaling": {"minReplicas": 1, "maxReplicas": 6}})
    world.scale("v1", 4)
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 90, "v2": 10})
    world.go(lambda: world.least("v2") == 1)
    assert world.least("v1") == 4, "what serves is not scaled down while it may get everything back"
    world.go(lambda: world.weights == {"v1": 50, "v2": 50})
    assert world.least("v2") == 2
    assert world.pods("v2") == 2, "raised, and ready, before the weight is"
    world.scale("v2", 3)
    world.go_to("Succeeded")
    assert world.pods("v2") == 4, "as many as served, before it takes over"
    world.go(lambda: world.pods("v1") is None)
    world.go(lambda: world.least("v2") == 1)


def test_unsupported_timeout_is_reported_and_left_out() -> None:
    world = RolloutHarness(CANARY)

    def told() -> tuple[str, str, str]:
        found = [c for c in world.model["status"]["conditions"] if c["type"] == "EndpointApplied"]
        return (found[0]["status"], found[0]["reason"], found[0]["message"]) if found else ("", "", "")

    def timeouts() -> list[Any]:
        rules = world.api.objects[kinds.HTTP_ROUTE, NS, "digits"]["spec"]["rules"]
        return [rule.get("timeouts") for rule in rules]

    assert told() == ("", "", "")
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"endpoint": {"requestTimeout": "3s"}}})
    world.go(lambda: told()[:2] == ("False", "EndpointNotSupported"))
    assert "spec.endpoint.requestTimeout: the gateway class does not list HTTPRouteRequestTimeout" in told()[2]
    assert timeouts() == [None]
    assert world.serving == "v1"
    # The simulated watches tell of what has our label.
    seen = {"metadata": {"labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY}}}
    world.api.user_patch(kinds.GATEWAY, "gateways", "models", seen)
    world.api.user_patch(kinds.GATEWAY_CLASS, "", "any", seen)
    listed = {"supportedFeatures": [{"name": "HTTPRouteRequestTimeout"}]}
    world.api.set_status(world.api.objects[kinds.GATEWAY_CLASS, "", "any"], listed)
    world.go(lambda: timeouts() == [{"request": "3s"}])
    world.go(lambda: told()[:2] == ("True", "EndpointApplied"))
    assert "is less than spec.serving.maxRequestSeconds (5)" in told()[2]
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"endpoint": {"requestTimeout": None}}})
    world.go(lambda: timeouts() == [None] and told() == ("", "", ""))


EXTERNAL = {"autoscaling": {"external": {}}}


def test_replicas_that_another_autoscaler_sets_stay() -> None:
    world = RolloutHarness(CANARY, serving=EXTERNAL)
    assert world.pods("v1") == 1
    for pods in (4, 2, 0, 3):
        world.scale("v1", pods)
        for _ in range(3):
            world.look(5)
        assert world.pods("v1") == pods
        assert world.model["status"]["replicas"] == pods
        told = {c["type"]: c["reason"] for c in world.model["status"]["conditions"]}
        assert told["Available"] == ("RevisionAvailable" if pods else "ScaledToZero")
        assert told["Ready"] == "Serving"


def test_rollout_scales_its_candidate_beside_an_autoscaler() -> None:
    world = RolloutHarness(CANARY, serving=EXTERNAL)
    world.scale("v1", 4)
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 90, "v2": 10})
    assert (world.pods("v1"), world.pods("v2")) == (4, 1)
    assert world.least("v1") is None, "no HorizontalPodAutoscaler of ours"
    world.scale("v2", 3)
    world.go(lambda: world.weights == {"v1": 50, "v2": 50})
    assert world.pods("v2") == 3, "more than the step needs stay"
    world.go_to("Succeeded")
    assert world.pods("v2") == 4, "as many as served, before it takes over"
    world.scale("v2", 2)
    world.go(lambda: world.pods("v1") is None)
    assert world.pods("v2") == 2


@pytest.mark.parametrize("serving", [EXTERNAL, {"autoscaling": {"maxReplicas": 6}}], ids=["external", "HPA"])
def test_what_a_recreating_rollout_has_stopped_comes_back(serving: Object) -> None:
    world = RolloutHarness({"strategy": {"recreate": {}}}, serving=serving)
    world.scale("v1", 3)
    world.want("v2")
    world.go(lambda: world.pods("v1") == 0 and world.pods("v2") is not None)
    world.command("abort")
    world.go_to("Aborted")
    assert world.pods("v1") == 1
    assert world.weights == {"v1": 100}


def test_surge_is_refused_beside_an_external_autoscaler() -> None:
    world = RolloutHarness(CANARY | {"surge": {"pods": 1}}, serving=EXTERNAL)
    world.want("v2")
    world.go(lambda: bool(world.model["status"].get("failure")))
    failure = world.model["status"]["failure"]
    assert failure["reason"] == "PolicyNotSupported"
    assert "spec.surge.pods" in failure["message"]
    assert world.weights == {"v1": 100}


def test_models_autoscaler_finds_its_replicas_and_pods() -> None:
    world = RolloutHarness(CANARY, replicas=2)
    assert world.model["status"]["replicas"] == world.model["spec"]["serving"]["replicas"] == 2
    selector = dict(part.split("=") for part in world.model["status"]["selector"].split(","))
    (deployment,) = (o for (kind, _, _), o in world.api.objects.items() if kind == kinds.DEPLOYMENT)
    assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert names.LABEL_REVISION not in selector, "the pods of both revisions of a rollout"
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"serving": {"replicas": 5}}})
    world.go(lambda: world.model["status"]["replicas"] == 5)


def test_fresh_baseline_equals_the_candidate_in_size() -> None:
    judged = JUDGED | {"analysis": {"interval": "5s", "baseline": "Fresh", "metrics": [ERRORS]}, "keepPrevious": "10m"}
    world = RolloutHarness(judged)
    world.scheduler.results["errors"] = good()
    world.want("v2")
    world.go(lambda: "confirmedAt" in (world.record.get("steps") or [{}])[0])
    refs = world.api.objects[kinds.HTTP_ROUTE, NS, "digits"]["spec"]["rules"][-1]["backendRefs"]
    assert sorted(ref["weight"] for ref in refs) == [10, 10, 80]
    pods = sorted(o["spec"]["replicas"] for (kind, _, _), o in world.api.objects.items() if kind == kinds.DEPLOYMENT)
    assert pods == [1, 1, 4]
    world.go(lambda: bool(world.scheduler.asked))
    compared = world.scheduler.asked[-1].serving.revision
    assert compared not in (world.record["from"]["revision"], world.record["to"]["revision"])
    world.go_to("Succeeded", "Promoted")
    world.look(10)
    world.look(10)
    left = [o for (kind, _, _), o in world.api.objects.items() if kind == kinds.DEPLOYMENT]
    assert len(left) == 2, "the candidate and the previous revision, which is kept"


def test_going_back_waits_for_the_pods_of_what_was_scaled_down() -> None:
    steps = policy({"weight": 75, "hold": "10m"}, surge={"pods": 1})
    world = RolloutHarness(steps)
    world.want("v2")
    world.go(lambda: "confirmedAt" in (world.record.get("steps") or [{}])[0])
    assert world.pods("v1") == 2
    world.command("abort")
    world.go(lambda: world.weights.get("v2", 0) < 75)
    assert world.weights["v2"] > 0, "weight follows readiness"
    world.go_to("Aborted")
    assert world.weights == {"v1": 100}
    assert world.pods("v1") == 4


def test_unwritable_route_does_not_stop_the_rollback() -> None:
    world = RolloutHarness(JUDGED)
    world.scheduler.results["errors"] = good()
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 90, "v2": 10})

    def refuse(verb: str, obj: Object) -> None:
        if kinds.kind_of(obj) == kinds.HTTP_ROUTE:
            raise api_errors.Transient(500, "Fault", "no route can be written")

    world.api.before_write = refuse
    world.scheduler.results["errors"] = bad()
    world.go_to("RollingBack", "AnalysisFailed")
    assert world.weights == {"v1": 90, "v2": 10}
    world.api.before_write = lambda verb, obj: None
    world.go_to("RolledBack")
    assert world.weights == {"v1": 100}


@pytest.mark.parametrize("when", range(1, 40, 3))
def test_killed_at_any_write_it_comes_to_the_same_end(when: int) -> None:
    from tests.lib.simulated import Died

    world = RolloutHarness(JUDGED)
    world.scheduler.results["errors"] = good()
    left = [when]

    def die(verb: str, obj: Object) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Died

    world.api.before_write = die
    world.want("v2")
    for _ in range(80):
        try:
            world.look()
        except Died:
            world.restart()
    assert world.record["state"] == "Succeeded"
    assert len(world.records) == 2
    assert world.serving == "v2"


def test_record_waiting_for_a_user_is_stalled_as_its_model() -> None:
    world = RolloutHarness(policy({"weight": 10}, {"approval": {}}, {"weight": 100}))
    world.want("v2")
    world.go_to("AwaitingApproval", "NoAuthor")
    for found in (world.model["status"], world.record):
        told = {c["type"]: c["status"] for c in found["conditions"]}
        assert (told["Ready"], told["Reconciling"], told["Stalled"]) == ("False", "False", "True")
    world.command("abort")
    world.go_to("RollingBack")
    told = {c["type"]: c["status"] for c in world.record["conditions"]}
    assert (told["Reconciling"], told["Stalled"]) == ("True", "False")


ASKS = policy({"weight": 10}, {"weight": 100}, gates={"approval": {"required": 1, "timeout": "48h"}})
EVIL = {"podTemplate": {"spec": {"containers": [{"name": "model", "image": "evil.example/alice"}]}}}


def asking() -> RolloutHarness:
    """A Model that serves v1, whose policy asks for approval from now on."""
    world = RolloutHarness(policy({"weight": 10}, {"weight": 100}))
    world.set_policy(ASKS)
    world.look()
    return world


def approve(world: RolloutHarness, by: str, name: str) -> None:
    world.api._clock = world.clock
    found = [o for (kind, _, _), o in world.api.objects.items() if kind == kinds.MODEL_ROLLOUT]
    record = max(found, key=lambda o: o["spec"]["number"])
    spec = {
        "modelRef": {"name": "digits"},
        "rollout": {"name": record["metadata"]["name"], "uid": record["metadata"]["uid"]},
        "contentHash": record["status"]["contentHash"],
        "decision": "Approve",
        "approver": by,
        "reason": "looked at",
    }
    metadata = {"name": name, "namespace": NS}
    world.api.user_create({"apiVersion": objects.API_VERSION, "kind": "Approval", "metadata": metadata, "spec": spec})
    world.look()
    world.look()


def edit(world: RolloutHarness, **spec: Any) -> None:
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": spec})
    world.look()
    world.look()


def told_authors(world: RolloutHarness) -> dict[str, list[str]]:
    return {entry["kind"]: entry["by"] for entry in world.record["authors"] if entry.get("by")}


def test_pod_templates_author_may_not_approve_it() -> None:
    world = asking()
    edit(world, serving=EVIL, changedBy="alice")
    world.go_to("AwaitingApproval", "AwaitingApproval")
    assert told_authors(world) == {"Model": ["alice"]}
    approve(world, "alice", "own")
    assert "own of alice is an author's own" in world.record["message"]
    assert world.record["state"] == "AwaitingApproval"
    approve(world, "bob", "other")
    world.go_to("Succeeded")
    # What serves has no author any more; the next change has its own.
    edit(world, serving=EVIL | {"drainSeconds": 7}, changedBy="bob")
    world.go_to("AwaitingApproval", "AwaitingApproval")
    assert told_authors(world) == {"Model": ["bob"]}


def test_unsigned_change_passes_once_signed_and_approved() -> None:
    world = asking()
    edit(world, serving=EVIL)
    world.go_to("AwaitingApproval", "AuthorUnknown")
    assert "Model digits was changed without spec.changedBy" in world.record["message"]
    approve(world, "bob", "early")
    assert world.record["reason"] == "AuthorUnknown"
    edit(world, changedBy="carol")
    assert told_authors(world) == {"Model": ["carol"]}
    approve(world, "bob", "again")
    world.go_to("Succeeded")


def test_two_editors_of_a_revision_are_both_its_authors() -> None:
    world = asking()
    edit(world, serving=EVIL, changedBy="alice")
    world.restart()
    edit(world, serving=EVIL | {"drainSeconds": 7}, changedBy="bob")
    world.go_to("AwaitingApproval", "AwaitingApproval")
    assert told_authors(world) == {"Model": ["alice", "bob"]}
    edit(world, serving={"replicas": 5})
    assert told_authors(world) == {"Model": ["alice", "bob"]}


def test_who_changes_the_policy_is_an_author_of_what_goes_by_it() -> None:
    world = asking()
    lenient = ASKS | {"deadline": "2h", "changedBy": "alice"}
    world.set_policy(lenient)
    world.look()
    world.set_policy(lenient | {"deadline": "3h", "changedBy": "bob"})
    world.look()
    world.api.user_patch(kinds.MODEL_VERSION, NS, "v2", {"spec": {"author": "dora"}})
    world.want("v2")
    world.go_to("AwaitingApproval", "AwaitingApproval")
    assert told_authors(world) == {"ModelVersion": ["dora"], "RolloutPolicy": ["alice", "bob"]}


def test_runtime_edited_after_the_approval_is_not_used() -> None:
    world = asking()
    world.broken.add("v2")
    world.api.user_patch(kinds.MODEL_VERSION, NS, "v2", {"spec": {"author": "dora"}})
    world.want("v2")
    world.go_to("AwaitingApproval", "AwaitingApproval")
    approve(world, "bob", "yes")
    world.go_to("Progressing")
    world.api.user_patch(
        kinds.CLUSTER_MODEL_RUNTIME,
        None,
        objects.runtime()["metadata"]["name"],
        {"spec": {"container": {"image": "evil.example/alice"}, "changedBy": "alice"}},
    )
    for _ in range(5):
        world.look()
    found = [o for (kind, _, _), o in world.api.objects.items() if kind == kinds.DEPLOYMENT]
    assert "evil.example/alice" not in str(found)


def test_without_approvals_nobody_is_asked_for_a_name() -> None:
    world = RolloutHarness(policy({"weight": 10}, {"weight": 100}))
    edit(world, serving=EVIL)
    world.go_to("Succeeded")
    assert not world.record.get("authors")
    assert not world.model["status"].get("changes")
