"""States that the operator really writes, by kind and name: the real reconcilers are driven into each of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from modelwright.kube import kinds
from tests.lib import objects
from tests.lib.rollout_harness import CANARY, JUDGED, NS, RolloutHarness, bad, by_hand, policy
from tests.unit.reconcile import test_policy as policies
from tests.unit.reconcile import test_retraining as retraining

Object = dict[str, Any]
APPROVED = policy({"weight": 10}, {"approval": {"required": 1, "timeout": "48h"}}, {"weight": 100})
ON_HOLD = JUDGED | {"onFailure": "Hold"}

HASHES = frozenset({"revision", "contentHash", "inputsHash", "heldFrom"})
"""Members whose values are made from what is rendered, or from whole specs."""

_Make = Callable[[], Object]
STATES: dict[tuple[str, str], _Make] = {}
WORLDS: dict[str, Callable[[], RolloutHarness]] = {}
"""By name of the state: the cluster in which a Model and its newest ModelRollout are in it."""


def state(kind: str, name: str) -> Callable[[_Make], _Make]:
    """Register how an object of `kind` comes into the state of this name."""

    def register(make: _Make) -> _Make:
        assert (kind, name) not in STATES
        STATES[kind, name] = make
        return make

    return register


def recorded(kind: str, name: str) -> Object:
    """The object in this state, as it lies at the API server. Hashes that each change of a renderer would move have
    numbers instead."""
    found = copy.deepcopy(STATES[kind, name]())
    hashes = {text: f"hash-{number}" for number, text in enumerate(dict.fromkeys(_hashes(found)), start=1)}

    def told(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: told(member) for key, member in value.items()}
        if isinstance(value, list):
            return [told(member) for member in value]
        if isinstance(value, str):
            for text, numbered in hashes.items():
                value = value.replace(text, numbered)
        return value

    obj: Object = told(found)
    obj["metadata"]["resourceVersion"] = "1"
    return obj


def _hashes(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for member, below in value.items():
            yield from _hashes(below, member)
    elif isinstance(value, list):
        for below in value:
            yield from _hashes(below, key)
    elif key in HASHES and isinstance(value, str):
        yield value


def rolled(spec: Object | None = CANARY, **more: Any) -> RolloutHarness:
    """A Model that serves v1 and has just been asked for v2."""
    world = RolloutHarness(spec, **more)
    world.want("v2")
    return world


def looked(world: RolloutHarness, count: int = 10) -> RolloutHarness:
    """The operator has seen what there is to see."""
    for _ in range(count):
        world.look()
    return world


def _both(name: str) -> Callable[[Callable[[], RolloutHarness]], Callable[[], RolloutHarness]]:
    """Register the Model and the newest ModelRollout of one story."""

    def register(make: Callable[[], RolloutHarness]) -> Callable[[], RolloutHarness]:
        STATES["Model", name] = lambda: make().model
        STATES["ModelRollout", name] = lambda: make().records[-1]
        WORLDS[name] = make
        return make

    return register


@_both("progressing")
def _progressing() -> RolloutHarness:
    world = rolled()
    world.go(lambda: world.weights == {"v1": 90, "v2": 10})
    world.go_to("Progressing", "StepInProgress")
    # The Model reports it a moment after its ModelRollout.
    return looked(world, 1)


@_both("holding-without-evidence")
def _holding_without_evidence() -> RolloutHarness:
    world = rolled(JUDGED)
    world.go_to("Holding", "InsufficientEvidence")
    return world


@_both("held-after-a-failed-metric")
def _held_after_a_failed_metric() -> RolloutHarness:
    world = rolled(ON_HOLD)
    world.scheduler.results["errors"] = bad()
    world.go_to("Holding", "AnalysisFailed")
    return world


@_both("paused")
def _paused() -> RolloutHarness:
    world = _progressing()
    world.command("pause")
    world.go_to("Holding", "Paused")
    return world


@_both("awaiting-approval")
def _awaiting_approval() -> RolloutHarness:
    world = RolloutHarness(APPROVED)
    version = objects.version(NS, "v4")
    version["spec"]["author"] = "bob"
    world.api.user_create(version)
    world.want("v4")
    world.go_to("AwaitingApproval", "AwaitingApproval")
    return world


@_both("without-an-author")
def _without_an_author() -> RolloutHarness:
    world = rolled(APPROVED)
    world.go_to("AwaitingApproval", "NoAuthor")
    return world


@_both("frozen")
def _frozen() -> RolloutHarness:
    world = RolloutHarness(CANARY)
    world.set_policy(CANARY | {"freeze": [{"schedule": "* * * * *", "duration": "24h"}]})
    world.want("v2")
    world.go_to("Pending", "FreezeWindow")
    return world


@_both("rolling-back")
def _rolling_back() -> RolloutHarness:
    world = rolled(JUDGED)
    world.go_to("Holding")
    world.scheduler.results["errors"] = bad()
    world.lags = True
    world.go_to("RollingBack")
    return world


@_both("rolled-back")
def _rolled_back() -> RolloutHarness:
    world = rolled(JUDGED)
    world.scheduler.results["errors"] = bad()
    world.go_to("RolledBack", "AnalysisFailed")
    return looked(world)


@_both("rolled-back-and-followed-on")
def _rolled_back_and_followed_on() -> RolloutHarness:
    """A Model that follows passes over what was taken back."""
    world = RolloutHarness(JUDGED, versions=("v1",), version={"follow": {}})
    world.scheduler.results["errors"] = bad()
    world.api.user_create(objects.version(NS, "v2"))
    world.known = world.records[-1]["metadata"]["name"]
    world.go_to("RolledBack", "AnalysisFailed")
    return looked(world)


@_both("aborted")
def _aborted() -> RolloutHarness:
    world = _progressing()
    world.command("abort")
    world.go_to("Aborted")
    return looked(world)


@_both("promoted")
def _promoted() -> RolloutHarness:
    world = rolled()
    world.go_to("Succeeded", "Promoted")
    return looked(world, 30)


@_both("held-by-rollback")
def _held_by_rollback() -> RolloutHarness:
    world = _promoted()
    by_hand(world)
    world.go(lambda: world.serving == "v1")
    world.go_to("Succeeded", "RolledBackByHand")
    return looked(world)


@_both("hold-released")
def _hold_released() -> RolloutHarness:
    world = _held_by_rollback()
    held = world.records[-1]["metadata"]["name"]
    world.command("release")
    world.go(lambda: world.serving == "v2" and world.model["status"]["rollout"]["state"] == "Succeeded")
    looked(world, 30)
    # The record that was released, not the one that then went forward again.
    assert world.records[-1]["metadata"]["name"] != held
    return world


@state("ModelRollout", "released")
def _released() -> Object:
    world = _hold_released()
    return next(r for r in reversed(world.records) if r["spec"].get("rollback"))


@state("ModelRollout", "superseded")
def _superseded() -> Object:
    world = _progressing()
    world.want("v3")
    world.go(lambda: world.serving == "v3")
    return next(r for r in world.records if r["spec"]["target"]["version"] == "v2")


@state("ModelRollout", "no-status")
def _rollout_without_status() -> Object:
    world = rolled()
    world.go(lambda: len(world.records) == 2)
    found = world.records[-1]
    found.pop("status", None)
    return found


@state("ModelRollout", "command-not-seen")
def _command_not_seen() -> Object:
    world = _progressing()
    world.command("pause")
    return world.records[-1]


def _bare() -> tuple[RolloutHarness, Object]:
    """A world, and a Model beside the one that serves, which nobody has looked at."""
    world = RolloutHarness(None)
    made = world.api.user_create(objects.model(NS, "other"))
    return world, made


@state("Model", "no-status")
def _no_status() -> Object:
    return _bare()[1]


@state("Model", "stale")
def _stale() -> Object:
    world = RolloutHarness(None)
    world.want("v2")
    return world.model


@state("Model", "first-pods-starting")
def _first_pods_starting() -> Object:
    world, _ = _bare()
    world.api.user_create({**objects.version(NS, "v5", model="third")})
    world.broken.add("v5")
    world.api.user_create(objects.model(NS, "third", "v5", serving={"replicas": 1}))
    looked(world, 3)
    return world.api.objects[kinds.MODEL, NS, "third"]


@state("Model", "ready")
def _ready() -> Object:
    return looked(RolloutHarness(None)).model


@state("Model", "pods-lost")
def _pods_lost() -> Object:
    world = looked(RolloutHarness(None))
    world.broken.add("v1")
    return looked(world).model


@state("Model", "scaled-to-zero")
def _scaled_to_zero() -> Object:
    world = looked(RolloutHarness(None))
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"serving": {"replicas": 0}}})
    return looked(world).model


@state("Model", "suspended")
def _suspended() -> Object:
    world = looked(RolloutHarness(None))
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"suspend": True}})
    return looked(world).model


@state("Model", "suspended-in-a-rollout")
def _suspended_in_a_rollout() -> Object:
    world = _progressing()
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"suspend": True}})
    return looked(world).model


@state("Model", "waiting-for-its-version")
def _waiting_for_its_version() -> Object:
    world = RolloutHarness(None)
    world.want("v9")
    world.look()
    return world.model


@state("Model", "version-not-found")
def _version_not_found() -> Object:
    world = RolloutHarness(None)
    world.want("v9")
    world.look()
    world.clock.advance(timedelta(minutes=6).total_seconds())
    world.look()
    return world.model


@state("Model", "spec-not-readable")
def _spec_not_readable() -> Object:
    world = looked(RolloutHarness(None))
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"noSuchField": "of a newer version"}})
    return looked(world, 2).model


@state("Model", "acknowledged-among-other-edits")
def _acknowledged() -> Object:
    world = looked(RolloutHarness(None))
    world.crowd = True
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"serving": {"replicas": 6}}})
    return looked(world, 1).model


@state("Model", "deleting")
def _deleting() -> Object:
    found = copy.deepcopy(_ready())
    found["metadata"] |= {"deletionTimestamp": "2026-01-01T01:00:00Z", "finalizers": ["foregroundDeletion"]}
    return found


def _version(world: RolloutHarness, name: str) -> Object:
    return world.api.objects[kinds.MODEL_VERSION, NS, name]


def _undigested(status: Object | None) -> Object:
    """A version without a digest, whose resolve pod has this status."""
    world = RolloutHarness(None)
    world.api.user_create(objects.version(NS, "v6", digest=None))
    looked(world, 2)
    if status is not None:
        (pod,) = [o for (kind, _, name), o in world.api.objects.items() if kind == kinds.POD and name.startswith("v6")]
        world.api.set_status(pod, status)
        looked(world, 2)
    return _version(world, "v6")


@state("ModelVersion", "no-status")
def _version_without_status() -> Object:
    world, _ = _bare()
    return world.api.user_create(objects.version(NS, "v6"))


@state("ModelVersion", "stamped-by-its-model")
def _stamped() -> Object:
    template = {"artifact": {"uri": "s3://models/v9", "digest": "sha256:" + "9" * 64, "format": {"name": "plain"}}}
    world = RolloutHarness(None)
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"version": {"name": None, "template": template}}})
    looked(world)
    made = (obj for (kind, _, _), obj in world.api.objects.items() if kind == kinds.MODEL_VERSION)
    return next(version for version in made if version["metadata"].get("ownerReferences"))


@state("ModelVersion", "serving")
def _version_serving() -> Object:
    return _version(looked(RolloutHarness(None)), "v1")


@state("ModelVersion", "finding-the-digest")
def _finding_the_digest() -> Object:
    return _undigested(None)


@state("ModelVersion", "artifact-not-found")
def _artifact_not_found() -> Object:
    said = '{"reason": "ArtifactNotFound", "message": "s3://models/v6: nothing is there"}'
    ended = {"terminated": {"exitCode": 3, "message": said}}
    return _undigested({"phase": "Pending", "containerStatuses": [{"name": "fetch", "state": ended}]})


@state("ModelVersion", "taken-back")
def _taken_back() -> Object:
    return _version(_rolled_back(), "v2")


@state("RolloutPolicy", "no-status")
def _policy_without_status() -> Object:
    return {key: value for key, value in _accepted().items() if key != "status"}


@state("RolloutPolicy", "accepted")
def _accepted() -> Object:
    return policies.PolicyHarness(policies.SPEC).api.objects[kinds.ROLLOUT_POLICY, NS, "canary"]


@state("RolloutPolicy", "by-time-alone")
def _by_time_alone() -> Object:
    return policies.PolicyHarness({"strategy": {"preset": "Canary"}}).api.objects[
        kinds.ROLLOUT_POLICY, policies.NS, "canary"
    ]


@state("RolloutPolicy", "not-decidable-in-time")
def _not_decidable_in_time() -> Object:
    world = policies.PolicyHarness({**policies.SPEC, "deadline": "5m"})
    return world.api.objects[kinds.ROLLOUT_POLICY, NS, "canary"]


@state("RolloutPolicy", "refused")
def _refused() -> Object:
    world = policies.PolicyHarness(policies.SPEC)
    world.edit(noSuchField="of a newer version")
    return world.api.objects[kinds.ROLLOUT_POLICY, NS, "canary"]


@state("RetrainingPolicy", "no-status")
def _retraining_without_status() -> Object:
    return {key: value for key, value in _watching().items() if key != "status"}


@state("RetrainingPolicy", "watching")
def _watching() -> Object:
    return retraining.RetrainingHarness(retraining.HOURLY).policy


@state("RetrainingPolicy", "suspended")
def _retraining_suspended() -> Object:
    world = retraining.RetrainingHarness(retraining.HOURLY)
    world.api.user_patch(kinds.RETRAINING_POLICY, NS, "digits", {"spec": {"suspend": True}})
    world.look()
    return world.policy


@state("RetrainingPolicy", "without-its-model")
def _without_its_model() -> Object:
    world = retraining.RetrainingHarness(retraining.HOURLY)
    world.api.user_delete(kinds.MODEL, NS, "digits")
    world.look()
    return world.policy


@state("RetrainingPolicy", "backing-off")
def _backing_off() -> Object:
    return _failed_run().policy


@state("RetrainingPolicy", "refused")
def _retraining_refused() -> Object:
    world = retraining.RetrainingHarness(retraining.HOURLY)
    world.api.user_patch(kinds.RETRAINING_POLICY, NS, "digits", {"spec": {"noSuchField": 1}})
    world.look()
    return world.policy


@state("TrainingRun", "no-status")
def _run_without_status() -> Object:
    world = retraining.RetrainingHarness()
    world.ask()
    return world.runs[0]


@state("TrainingRun", "training")
def _training() -> Object:
    world = retraining.RetrainingHarness()
    world.hold.add("train")
    world.ask()
    world.go(lambda: world.states == ["Training"])
    return world.runs[0]


@state("TrainingRun", "succeeded")
def _succeeded() -> Object:
    return _trained().runs[0]


def _trained() -> retraining.RetrainingHarness:
    world = retraining.RetrainingHarness(retraining.HOURLY)
    world.to_the_hour()
    world.go(lambda: world.states == ["Succeeded"])
    world.go(lambda: world.runs[0]["status"].get("outcome") == "Announced")
    return world


@state("TrainingRun", "skipped")
def _skipped() -> Object:
    world = _trained()
    world.to_the_hour()
    world.go(lambda: world.states == ["Succeeded", "Skipped"])
    return world.runs[1]


def _failed_run() -> retraining.RetrainingHarness:
    world = retraining.RetrainingHarness(retraining.HOURLY)
    world.reports["dataCheck"] = {"checks": [{"name": "nulls:age", "outcome": "Fail", "message": "12 of 100"}]}
    world.to_the_hour()
    world.go(lambda: world.states == ["Failed"])
    world.look()
    return world


@state("TrainingRun", "failed")
def _failed() -> Object:
    return _failed_run().runs[0]


@state("TrainingRun", "waiting-for-its-policy")
def _waiting_for_its_policy() -> Object:
    world = retraining.RetrainingHarness()
    world.api.user_delete(kinds.RETRAINING_POLICY, NS, "digits")
    world.ask()
    world.look()
    return world.runs[0]


@state("TrainingRun", "spec-not-readable")
def _run_not_readable() -> Object:
    world = retraining.RetrainingHarness()
    world.hold.add("train")
    world.ask()
    world.go(lambda: world.states == ["Training"])
    world.api.user_patch(kinds.TRAINING_RUN, NS, "by-hand", {"spec": {"noSuchField": 1}})
    world.look()
    return world.runs[0]
