"""Retraining, pass by pass: the real reconcilers on a simulated cluster whose Jobs say what the test wants."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from modelwright.api import names
from modelwright.api.v1alpha1.retraining import TrainedVersionTemplate
from modelwright.kube import kinds
from tests.lib import objects
from tests.lib.retraining_harness import (
    DATA,
    DIGEST,
    HOURLY,
    MODEL_DIGEST,
    NS,
    TRAINED,
    Object,
    RetrainingHarness,
    _role,
    done,
    look_at_data,
    look_job,
)
from tests.lib.simulated import Died
from tests.lib.stepped import Operator

OTHER = "sha256:" + "9" * 64


def test_a_tick_becomes_a_version_with_its_lineage() -> None:
    world = RetrainingHarness(HOURLY)
    world.to_the_hour()
    world.go(lambda: world.states == ["Succeeded"])
    run = world.runs[0]
    version = world.api.objects[kinds.MODEL_VERSION, NS, run["metadata"]["name"]]
    spec = version["spec"]
    assert spec["artifact"] == {
        "uri": f"s3://models/digits/{run['metadata']['name']}",
        "digest": MODEL_DIGEST,
        "format": {"name": "plain"},
    }
    assert spec["lineage"] == {
        "dataset": {"uri": "s3://data/digits", "digest": DIGEST},
        "image": f"example.com/trainer@sha256:{'f' * 64}",
        "trainingRun": run["metadata"]["name"],
        "parent": "v1",
    }
    assert spec["parameters"] == {"C": "3.0"}
    assert [(m["name"], m["value"]) for m in spec["metrics"]] == [("accuracy", "0.97")]
    assert world.made == ["dataCheck", "train", "evaluate"]
    assert run["status"]["comparedWith"] == "v1"
    world.go(lambda: world.runs[0]["status"].get("outcome") == "Announced")
    assert world.model["status"]["serving"]["version"] == "v1", "a pinned Model does not move"
    name = run["metadata"]["name"]
    world.go(lambda: world.model["status"].get("announced") == {"version": name, "trainingRun": name})
    status = world.policy["status"]
    assert (status["lastRun"], status["lastVersion"]) == (run["metadata"]["name"],) * 2
    assert status["triggers"][0]["run"] == run["metadata"]["name"]


TOOLS = {
    "app.kubernetes.io/instance": "ml-platform",
    "argocd.argoproj.io/instance": "ml-platform",
    "kustomize.toolkit.fluxcd.io/name": "apps",
    "helm.toolkit.fluxcd.io/name": "apps",
    "helm.sh/chart": "apps-1",
    "kapp.k14s.io/app": "1",
    "applyset.kubernetes.io/part-of": "x",
}


def test_version_has_labels_of_its_policy_not_of_the_run() -> None:
    """Else a tool prunes what it has never made, and who may write runs chooses what a Model follows."""
    world = RetrainingHarness(HOURLY, version={"labels": {"tier": "gold"}})
    spec = {"policyRef": {"name": "digits"}, "manual": {"by": "tom", "reason": "x"}}
    world.api.user_create(
        {
            "apiVersion": objects.API_VERSION,
            "kind": "TrainingRun",
            "spec": spec,
            "metadata": {
                "name": "now",
                "namespace": NS,
                "labels": {**TOOLS, "audited": "true"},
                "annotations": {"argocd.argoproj.io/tracking-id": "ml-platform:x"},
            },
        }
    )
    world.go(lambda: world.states == ["Succeeded"])
    metadata = world.api.objects[kinds.MODEL_VERSION, NS, "now"]["metadata"]
    assert metadata["labels"] == {"tier": "gold"}
    assert not metadata.get("annotations")


@pytest.mark.parametrize("label", [*TOOLS, "modelwright.dev/role", "no name/at all"])
def test_a_policy_gives_no_label_by_which_a_tool_prunes(label: str) -> None:
    with pytest.raises(ValidationError):
        TrainedVersionTemplate.model_validate({"labels": {label: "x"}})


def test_job_known_before_its_pods_is_judged_by_its_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    world = RetrainingHarness(HOURLY)
    hear = world.operator.hear

    def hear_of_no_pod(count: int) -> None:
        heard = [told for told in world.api.told[:count] if not _is_of_training(told[2])]
        world.api.told[:count] = heard
        hear(len(heard))

    monkeypatch.setattr(world.operator, "hear", hear_of_no_pod)
    world.to_the_hour()
    world.go(lambda: bool(world.states) and world.states[0] in ("Succeeded", "Failed"))
    assert world.states == ["Succeeded"], world.runs[0]["status"]


def _is_of_training(obj: Object) -> bool:
    return bool(obj["kind"] == "Pod" and _role(obj) == names.ROLE_TRAINING)


def test_a_following_model_takes_it_and_the_run_says_so() -> None:
    world = RetrainingHarness(HOURLY, follow=True)
    world.to_the_hour()
    world.go(lambda: world.states == ["Succeeded"])
    world.go(lambda: world.runs[0]["status"].get("outcome") == "Serving")
    assert world.model["status"]["serving"]["version"] == world.runs[0]["metadata"]["name"]


def test_trained_version_is_scanned_before_it_is_loaded() -> None:
    world = RetrainingHarness(HOURLY, follow=True, rollout={"strategy": {"steps": [{"weight": 100}]}})
    world.api.user_patch(kinds.ROLLOUT_POLICY, NS, "steps", {"spec": {"gates": {"scan": {}}}})
    world.to_the_hour()

    def gates() -> list[Object]:
        found = [o for (kind, _, _), o in world.api.objects.items() if kind == kinds.JOB]
        return [o for o in found if _role(o) == names.ROLE_GATE]

    world.go(lambda: bool(gates()))
    (scan,) = gates()
    trained = scan["metadata"]["annotations"][names.ANNOTATION_VERSION_NAME]
    assert world.api.objects[kinds.MODEL_VERSION, NS, trained]["spec"]["lineage"]["trainingRun"]
    for _ in range(6):
        world.look()
    served = {
        o["metadata"]["annotations"][names.ANNOTATION_VERSION_NAME]
        for (kind, _, _), o in world.api.objects.items()
        if kind == kinds.DEPLOYMENT
    }
    assert served == {"v1"}, "nothing of it runs until it has passed"


def test_second_run_on_the_same_data_is_skipped() -> None:
    world = RetrainingHarness(HOURLY)
    world.to_the_hour()
    world.go(lambda: world.states == ["Succeeded"])
    world.to_the_hour()
    world.go(lambda: world.states == ["Succeeded", "Skipped"])
    assert world.made == ["dataCheck", "train", "evaluate"]
    world.digest = "sha256:" + "a" * 64
    world.to_the_hour()
    world.go(lambda: world.states == ["Succeeded", "Skipped", "Succeeded"])


def test_damaged_data_is_stopped_before_anything_is_trained() -> None:
    world = RetrainingHarness(HOURLY)
    world.reports["dataCheck"] = {"checks": [{"name": "nulls:age", "outcome": "Fail", "message": "12 of 100"}]}
    world.to_the_hour()
    world.go(lambda: world.states == ["Failed"])
    status = world.runs[0]["status"]
    assert status["reason"] == "DataRejected"
    assert status["checks"] == [{"name": "nulls:age", "outcome": "Fail", "message": "12 of 100"}]
    assert world.made == ["dataCheck"]
    assert "version" not in status


def test_a_worse_model_is_refused_by_the_gate_and_the_wait_grows() -> None:
    world = RetrainingHarness(HOURLY, guard={"backoff": {"initial": "10m", "max": "6h"}, "skipUnchanged": False})
    world.reports["evaluate"] = {
        "metrics": [{"name": "accuracy", "candidate": 0.91, "serving": 0.95, "n": 500, "better": 5, "worse": 25}]
    }
    waits = []
    for count in (1, 2):
        world.to_the_hour()
        world.go(lambda: world.states == ["Failed"] * count)  # noqa: B023
        world.look()
        status = world.policy["status"]
        waits.append((status["failures"], status["retryAt"]))
        assert world.runs[-1]["status"]["reason"] == "GateFailed"
    assert [failures for failures, _ in waits] == [1, 2]
    assert world.model["status"]["serving"]["version"] == "v1"


def test_unpromoted_version_counts_as_a_failure() -> None:
    guard = {"backoff": {"initial": "3h", "max": "6h"}, "skipUnchanged": False}
    world = RetrainingHarness(
        HOURLY, follow=True, guard=guard, rollout={"strategy": {"preset": "BlueGreen"}, "deadline": "30s"}
    )
    world.broken = True
    world.to_the_hour()
    world.go(lambda: world.runs[0]["status"].get("outcome") == "Undecided")
    assert world.model["status"]["serving"]["version"] == "v1"
    world.go(lambda: world.policy["status"].get("failures") == 1)
    world.to_the_hour()
    world.look()
    assert len(world.runs) == 1
    assert world.suppressed()["BackingOff"] == 1


@pytest.mark.parametrize(("catch_up", "runs"), [("None", 0), ("Latest", 1), ("All", 3)])
def test_missed_ticks_are_caught_up_by_policy(catch_up: str, runs: int) -> None:
    trigger = {"name": "hourly", "schedule": {"cron": "0 * * * *", "catchUp": catch_up}}
    world = RetrainingHarness(trigger, guard={"skipUnchanged": False})
    world.clock.advance(3 * 3600 + 600)
    world.operator = Operator(world.api, world.clock)
    world.go(lambda: len(world.runs) == runs and world.states == ["Succeeded"] * runs, looks=120)
    for _ in range(5):
        world.look()
    assert len(world.runs) == runs


def test_deleted_job_counts_while_its_pod_is_there() -> None:
    world = RetrainingHarness(HOURLY)
    world.hold.add("train")
    world.to_the_hour()
    world.go(lambda: world.states == ["Training"] and len(world.jobs()) == 2)
    world.look()
    job = next(job for job in world.jobs() if world.stage(job) == "train")
    world.made.append("train")
    world.pod(job)
    world.api.user_delete(kinds.JOB, NS, job["metadata"]["name"])
    world.hold.clear()
    world.go(lambda: world.states == ["Succeeded"])
    assert world.made.count("train") == 1


def test_job_gone_without_a_result_fails_the_run() -> None:
    world = RetrainingHarness(HOURLY)
    world.hold.add("train")
    world.to_the_hour()
    world.go(lambda: world.states == ["Training"] and len(world.jobs()) == 2)
    world.look()
    job = next(job for job in world.jobs() if world.stage(job) == "train")
    world.api.user_delete(kinds.JOB, NS, job["metadata"]["name"])
    world.hold.clear()
    world.go(lambda: world.states == ["Failed"])
    assert world.runs[0]["status"]["reason"] == "ChildLost"
    for _ in range(5):
        world.look()
    assert "train" not in world.made


@pytest.mark.parametrize(
    ("stage", "report", "reason"),
    [
        ("train", "not json", "ReportMissing"),
        ("train", "", "ReportMissing"),
        ("train", {"artifact": {"uri": "s3://elsewhere/x", "digest": MODEL_DIGEST}}, "OutputNotAllowed"),
        ("train", {**TRAINED, "dataset": {"uri": "s3://data/digits", "digest": OTHER}}, "DatasetChanged"),
        ("evaluate", {"metrics": [{"name": "other", "candidate": 1.0}]}, "GateFailed"),
        ("evaluate", {"metrics": [{"name": "accuracy", "candidate": "NaN", "serving": 0.9}]}, "GateFailed"),
    ],
)
def test_bad_result_fails_the_run_and_serving_stays(stage: str, report: Any, reason: str) -> None:
    world = RetrainingHarness(HOURLY)
    world.reports[stage] = report
    world.to_the_hour()
    world.go(lambda: world.states == ["Failed"])
    assert world.runs[0]["status"]["reason"] == reason, world.runs[0]["status"]["message"]
    assert world.model["status"]["serving"]["version"] == "v1"
    assert (kinds.MODEL_VERSION, NS, world.runs[0]["metadata"]["name"]) not in world.api.objects


def test_manual_run_ignores_limits_and_has_its_parameters() -> None:
    world = RetrainingHarness(HOURLY, guard={"cooldown": "48h"})
    world.to_the_hour()
    world.go(lambda: world.states == ["Succeeded"])
    world.ask(parameters={"C": "7"})
    world.reports["train"] = {"metrics": {}}
    world.go(lambda: world.states == ["Succeeded", "Succeeded"])
    version = world.api.objects[kinds.MODEL_VERSION, NS, "by-hand"]
    assert version["spec"]["parameters"] == {"C": "7"}
    assert version["spec"]["author"] == "alice"
    # Nobody answers for the policy.
    assert version["spec"]["authors"] == ["modelwright:retraining"]
    world.to_the_hour()
    assert world.suppressed()["Cooldown"] == 1


def test_policys_signer_is_an_author_of_its_versions() -> None:
    world = RetrainingHarness(HOURLY)
    world.api.user_patch(kinds.RETRAINING_POLICY, NS, "digits", {"spec": {"changedBy": "dora"}})
    world.to_the_hour()
    world.go(lambda: world.states == ["Succeeded"])
    version = world.api.objects[kinds.MODEL_VERSION, NS, world.runs[0]["metadata"]["name"]]
    assert version["spec"]["author"] == "dora"
    world.ask()
    world.go(lambda: world.states == ["Succeeded", "Succeeded"])
    version = world.api.objects[kinds.MODEL_VERSION, NS, "by-hand"]
    assert (version["spec"]["author"], version["spec"]["authors"]) == ("alice", ["dora"])


def test_replace_ends_the_run_that_goes_on_and_its_job() -> None:
    world = RetrainingHarness(HOURLY, guard={"concurrency": "Replace", "skipUnchanged": False})
    world.hold.add("train")
    world.to_the_hour()
    world.go(lambda: world.states == ["Training"] and len(world.jobs()) == 2)
    world.to_the_hour()
    world.go(lambda: world.states[0] == "Cancelled")
    world.hold.clear()
    world.go(lambda: world.states == ["Cancelled", "Succeeded"])


def test_a_suspended_policy_lets_triggers_go_and_counts_them() -> None:
    world = RetrainingHarness(HOURLY)
    world.api.user_patch(kinds.RETRAINING_POLICY, NS, "digits", {"spec": {"suspend": True}})
    world.to_the_hour()
    world.look()
    assert world.runs == []
    assert world.suppressed() == {"Suspended": 1}


def test_foreign_version_of_that_name_is_left_alone() -> None:
    world = RetrainingHarness(HOURLY)
    world.hold.add("evaluate")
    world.to_the_hour()
    world.go(lambda: world.states == ["Evaluating"])
    theirs = objects.version(NS, world.runs[0]["metadata"]["name"])
    world.api.user_create(theirs)
    world.hold.clear()
    world.go(lambda: world.states == ["Failed"])
    assert world.runs[0]["status"]["reason"] == "NameTaken"


def _history(world: RetrainingHarness) -> Any:
    return [
        (run["spec"]["trigger"]["identity"], run["status"]["state"], [s["name"] for s in run["status"]["stages"]])
        for run in world.runs
    ]


def _story(kill: tuple[int, bool] | None = None) -> tuple[RetrainingHarness, int]:
    """A run from its tick to its version; the operator dies at the given write, before or after it was done."""
    world = RetrainingHarness(HOURLY)
    count = 0

    def write(*_: Any) -> None:
        nonlocal count
        if kill is not None and count == kill[0]:
            count += 1
            raise Died

    def before(*_: Any) -> None:
        if kill is None or not kill[1]:
            write()

    def after(*_: Any) -> None:
        nonlocal count
        if kill is not None and kill[1]:
            write()
        count += 1

    world.api.before_write, world.api.after_write = before, after
    passed = timedelta(minutes=world.clock.now().minute, seconds=world.clock.now().second)
    world.clock.advance((timedelta(hours=1) - passed).total_seconds() + 1)
    for _ in range(60):
        try:
            world.look()
        except Died:
            world.operator = Operator(world.api, world.clock)
        if world.states == ["Succeeded"] and world.runs[0]["status"].get("outcome") == "Announced":
            break
    for _ in range(3):
        world.look()
    return world, count


def test_crash_at_any_write_ends_with_one_run_and_job_per_stage() -> None:
    whole, writes = _story()
    assert writes > 10
    for number in range(writes):
        for done_already in (False, True):
            world, _ = _story((number, done_already))
            place = f"killed {'after' if done_already else 'before'} write {number}"
            assert _history(world) == _history(whole), place
            assert world.made == ["dataCheck", "train", "evaluate"], place
            assert len([1 for (kind, _, _) in world.api.objects if kind == kinds.MODEL_VERSION]) == 2, place


def test_a_converged_policy_writes_nothing() -> None:
    world = RetrainingHarness({"name": "yearly", "schedule": {"cron": "0 0 1 1 *"}})
    for _ in range(3):
        world.look()
    before = len(world.api.writes)
    for _ in range(20):
        world.look(60)
    assert len(world.api.writes) == before


def test_data_that_changes_is_one_run_and_the_first_look_none() -> None:
    world = RetrainingHarness(DATA, guard={"skipUnchanged": False})
    look_at_data(world, "a", 1)
    look_at_data(world, "a", 2)
    assert world.runs == []
    look_at_data(world, "b", 3)
    look_at_data(world, "b", 4)
    world.go(lambda: world.states == ["Succeeded"])
    look_at_data(world, "a", 5)
    look_at_data(world, "b", 6)
    world.go(lambda: world.states == ["Succeeded"] * 3)


PROXY: Object = {"name": "istio-proxy", "image": "example.com/proxy:1", "state": {"running": {}}}


class Meshed(RetrainingHarness):
    """Each pod has a container of others that never ends, so that pods stay Running and Jobs never end."""

    def end(self, job: Object) -> None:
        stage, name = self.stage(job), job["metadata"]["name"]
        if (kinds.POD, NS, f"{name}-x") not in self.api.objects:
            self.made.append(stage)
            self.pod(job)

    def pod(self, job: Object) -> None:
        super().pod(job)
        pod = self.api.objects[kinds.POD, NS, f"{job['metadata']['name']}-x"]
        self.api.set_status(pod, kept_running(pod["status"]))

    def play(self) -> None:
        super().play()
        for (kind, _, _), o in list(self.api.objects.items()):
            if kind == kinds.POD and o["metadata"]["labels"].get(names.LABEL_ROLE) == names.ROLE_RESOLVE:
                self.api.set_status(o, kept_running(o["status"]))


def kept_running(status: Object) -> Object:
    own = [entry for entry in status["containerStatuses"] if entry["name"] != PROXY["name"]]
    return {**status, "phase": "Running", "containerStatuses": [PROXY, *own]}


def test_endless_sidecars_delay_no_run_and_leave_no_pod() -> None:
    world = Meshed(HOURLY)
    world.to_the_hour()
    world.go(lambda: world.states == ["Succeeded"])
    assert world.made == ["dataCheck", "train", "evaluate"]
    world.go(lambda: world.jobs() == [])


def test_failed_stage_beside_a_sidecar_leaves_no_pod() -> None:
    world = Meshed(HOURLY)
    pod = world.pod

    def failing(job: Object) -> None:
        pod(job)
        live = world.api.objects[kinds.POD, NS, f"{job['metadata']['name']}-x"]
        (_, own) = live["status"]["containerStatuses"]
        failed = {**own, "state": {"terminated": {"exitCode": 1, "message": "no such column"}}}
        world.api.set_status(live, {**live["status"], "containerStatuses": [PROXY, failed]})

    world.pod = failing  # type: ignore[method-assign]
    world.to_the_hour()
    world.go(lambda: world.states == ["Failed"])
    assert "no such column" in world.runs[0]["status"]["message"]
    world.go(lambda: world.jobs() == [])


@pytest.mark.parametrize("code", [0, 1])
def test_poll_kept_running_by_a_sidecar_delays_no_poll(code: int) -> None:
    world = RetrainingHarness(DATA)
    cron_job = next(o for (kind, _, _), o in world.api.objects.items() if kind == kinds.CRON_JOB)
    job = look_job(world, cron_job, 1)
    pod = world.api.user_create(objects.pod_of(job, "look-1"))
    status = done({"fingerprint": "a", "objects": 1, "bytes": 1}, "fetch")
    status["containerStatuses"][0]["state"]["terminated"]["exitCode"] = code
    world.api.set_status(pod, kept_running(status))
    if code:
        world.look()
        assert (kinds.JOB, NS, "look-1") in world.api.objects, "what went wrong is told until the next look is due"
        world.clock.advance(3600)
    world.go(lambda: (kinds.JOB, NS, "look-1") not in world.api.objects)
    known = [(e["name"], e["identity"]) for e in world.policy["status"].get("triggers", [])]
    assert known == ([] if code else [(DATA["name"], "a")])


def test_a_policy_that_is_suspended_does_not_look_at_data() -> None:
    world = RetrainingHarness(DATA)
    world.api.user_patch(kinds.RETRAINING_POLICY, NS, "digits", {"spec": {"suspend": True}})
    world.look()
    assert not [1 for (kind, _, _) in world.api.objects if kind == kinds.CRON_JOB]


def test_a_trigger_that_is_added_has_missed_nothing() -> None:
    world = RetrainingHarness()
    world.clock.advance(10 * 3600)
    world.api.user_patch(kinds.RETRAINING_POLICY, NS, "digits", {"spec": {"triggers": [HOURLY]}})
    world.look()
    world.look()
    assert world.runs == []
    world.to_the_hour()
    world.go(lambda: world.states == ["Succeeded"])


@pytest.mark.parametrize(
    "edited",
    [
        {"cron": "30 * * * *", "catchUp": "All"},
        {"cron": "0 * * * *", "timeZone": "Asia/Kolkata", "catchUp": "All"},
        {"cron": "*/5 * * * *"},
    ],
    ids=["another minute", "another time zone", "more often"],
)
def test_a_schedule_that_is_edited_has_missed_nothing(edited: dict[str, Any]) -> None:
    world = RetrainingHarness(HOURLY)
    world.to_the_hour()
    world.go(lambda: world.states == ["Succeeded"])
    world.clock.advance(50 * 60)
    world.api.user_patch(
        kinds.RETRAINING_POLICY, NS, "digits", {"spec": {"triggers": [{"name": HOURLY["name"], "schedule": edited}]}}
    )
    world.look()
    world.look()
    assert len(world.runs) == 1
    world.clock.advance(3600)
    world.go(lambda: len(world.runs) > 1)


def test_status_without_schedules_is_completed() -> None:
    world = RetrainingHarness(HOURLY)
    world.to_the_hour()
    world.go(lambda: world.states == ["Succeeded"])
    (entry,) = world.policy["status"]["triggers"]
    assert entry.pop("schedule") == "0 * * * * UTC"
    world.api.user_patch(kinds.RETRAINING_POLICY, NS, "digits", {"status": {"triggers": [entry]}})
    world.to_the_hour()
    world.go(lambda: len(world.runs) == 2)
    assert world.policy["status"]["triggers"][0]["schedule"] == "0 * * * * UTC"


def test_impossible_cron_and_unknown_zone_name_their_field() -> None:
    for schedule, field in (
        ({"cron": "0 0 30 2 *"}, "schedule.cron"),
        ({"cron": "0 0 * * *", "timeZone": "Mars/Olympus"}, "timeZone"),
    ):
        world = RetrainingHarness({"name": "never", "schedule": schedule})
        stalled = next(c for c in world.policy["status"]["conditions"] if c["type"] == "Stalled")
        assert (stalled["status"], stalled["reason"]) == ("True", "InvalidPolicy")
        assert f"spec.triggers[never].{'schedule.' if field == 'timeZone' else ''}{field}" in stalled["message"]


def test_rejected_query_names_its_trigger_and_others_fire() -> None:
    query = "abs(" * 33 + "up" + ")" * 33
    world = RetrainingHarness(HOURLY)
    hostile = {"name": "deep", "prometheus": {"query": query, "above": "1"}}
    world.api.user_patch(kinds.RETRAINING_POLICY, NS, "digits", {"spec": {"triggers": [HOURLY, hostile]}})
    world.look()
    stalled = next(c for c in world.policy["status"]["conditions"] if c["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "QueryRefused")
    assert stalled["message"] == "spec.triggers[deep].prometheus: query has more than 32 brackets in each other"
    world.to_the_hour()
    world.go(lambda: world.states == ["Succeeded"])


def test_forbidden_kind_ends_the_run_with_that_reason() -> None:
    manifest = {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "spec": {}}
    world = RetrainingHarness(HOURLY, train={"resource": {"profile": "JobSet", "manifest": manifest}}, dataCheck=None)
    world.to_the_hour()
    world.go(lambda: world.states == ["Failed"])
    assert world.runs[0]["status"]["reason"] == "KindNotAllowed"
    assert "training.kinds" in world.runs[0]["status"]["message"]


def test_a_kind_that_is_allowed_and_comes_later_is_waited_for() -> None:
    job_set = kinds.Kind("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet", optional=True)
    kinds.register_kinds([job_set])
    manifest = {"apiVersion": job_set.api_version, "kind": "JobSet", "spec": {}}
    world = RetrainingHarness(HOURLY, train={"resource": {"profile": "JobSet", "manifest": manifest}}, dataCheck=None)
    world.operator = Operator(world.api, world.clock, training_kinds=(job_set,))
    world.to_the_hour()
    world.go(lambda: [run.get("status", {}).get("reason") for run in world.runs] == ["KindNotInstalled"])
    written = len(world.api.writes)
    for _ in range(5):
        world.look()
    assert world.states == ["Training"]
    assert len(world.api.writes) == written, "waiting costs nothing"
    served = frozenset({*kinds.ALL_KINDS, job_set})
    world.operator = Operator(world.api, world.clock, training_kinds=(job_set,), served_kinds=served)
    world.go(lambda: any(kind == job_set for kind, _, _ in world.api.objects))
    world.go(lambda: world.runs[0]["status"]["reason"] == "StageRunning")


def test_runs_outlive_their_policy_for_history_ttl_and_no_longer() -> None:
    world = RetrainingHarness(HOURLY)
    world.to_the_hour()
    world.go(lambda: world.states == ["Succeeded"])
    world.api.user_delete(kinds.RETRAINING_POLICY, NS, "digits")
    world.look(167 * 3600)
    assert len(world.runs) == 1
    world.look(3600)
    world.look()
    assert world.runs == []


def test_unreadable_run_is_stalled_alone() -> None:
    world = RetrainingHarness()
    world.hold.add("train")
    world.ask()
    world.go(lambda: world.states == ["Training"])
    world.api.user_patch(kinds.TRAINING_RUN, NS, "by-hand", {"spec": {"noSuchField": 1}})
    world.look()
    status = world.runs[0]["status"]
    assert status["observedGeneration"] == 2
    told = {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}
    assert told["Stalled"] == ("True", "InvalidSpec")
    assert told["Ready"] == ("False", "InvalidSpec")
    assert told["Reconciling"][0] == "False"
