"""Pods beside the serving ones follow what the administrator says of them, and a quota that refuses them is named."""

from __future__ import annotations

from typing import Any

import pytest

from modelwright.api.v1alpha1.helper_pods import HelperPods
from modelwright.kube import api_errors, kinds
from modelwright.render.images import Images
from tests.lib import objects
from tests.lib.monitoring_harness import MonitoringHarness
from tests.lib.retraining_harness import DATA, RetrainingHarness
from tests.lib.rollout_harness import NS, RolloutHarness
from tests.lib.stepped import Operator

Object = dict[str, Any]
SETTINGS: list[Object] = [{"nodeSelector": {"a": "1"}}, {"nodeSelector": {"b": "2"}, "labels": {"x": "y"}}, {}]


def restarted_with(world: RolloutHarness | RetrainingHarness, said: Object) -> None:
    images = Images("example.com/fetch:1", helper_pods=HelperPods.model_validate(said))
    world.operator = Operator(world.api, world.clock, images=images)


def test_an_observer_is_made_again_when_it_is_to_run_elsewhere() -> None:
    world = MonitoringHarness()
    world.go(lambda: world.copies == 20)
    for said in SETTINGS:
        restarted_with(world, said)
        world.go(lambda said=said: placed(world.child(kinds.DEPLOYMENT)) == said.get("nodeSelector"))  # type: ignore[misc]
        world.go(lambda: world.copies == 20)
        assert world.quiet()


def test_data_polls_are_recreated_for_other_placement() -> None:
    world = RetrainingHarness(DATA)
    for said in SETTINGS:
        restarted_with(world, said)
        world.look()
        (cron_job,) = (o for (kind, _, _), o in world.api.objects.items() if kind == kinds.CRON_JOB)
        assert placed(cron_job["spec"]["jobTemplate"]) == said.get("nodeSelector")
        before = len(world.api.writes)
        world.look()
        assert len(world.api.writes) == before


def test_unschedulable_resolve_pod_is_recreated_elsewhere() -> None:
    world = RolloutHarness(None)
    world.api.user_create(unpinned("v9"))
    for said in [{}, *SETTINGS]:
        restarted_with(world, said)
        wanted = said.get("nodeSelector")
        world.go(lambda wanted=wanted: [selector(pod) for pod in waiting(world)] == [wanted])  # type: ignore[misc]
        (pod,) = waiting(world)
        text = "0/1 nodes are available"
        unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": text}
        world.api.set_status(pod, {"phase": "Pending", "conditions": [unschedulable]})
        world.go(lambda: (told(world, "v9") or {}).get("reason") == "Unschedulable")
        before = pod["metadata"]["uid"]
        world.look()
        assert [p["metadata"]["uid"] for p in waiting(world)] == [before]


def test_pods_of_a_model_run_where_its_author_says() -> None:
    world = RolloutHarness(None)
    world.api.user_create(unpinned("v9"))
    for said in [*SETTINGS, None]:
        world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"helperPods": None}})
        world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"helperPods": said}})
        wanted = (said or {}).get("nodeSelector")
        world.go(lambda wanted=wanted: [selector(pod) for pod in waiting(world)] == [wanted])  # type: ignore[misc]


def test_looks_at_data_for_a_model_run_where_its_author_says() -> None:
    world = RetrainingHarness(DATA)
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"helperPods": SETTINGS[0]}})
    world.look()
    (cron_job,) = (o for (kind, _, _), o in world.api.objects.items() if kind == kinds.CRON_JOB)
    assert placed(cron_job["spec"]["jobTemplate"]) == {"a": "1"}


def test_an_observer_of_a_model_runs_where_its_author_says() -> None:
    world = MonitoringHarness()
    world.go(lambda: world.copies == 20)
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"helperPods": SETTINGS[0]}})
    world.go(lambda: placed(world.child(kinds.DEPLOYMENT)) == {"a": "1"})
    world.go(lambda: world.copies == 20)


def test_foreign_annotation_recreates_no_serving_pods() -> None:
    world = RolloutHarness(None)
    name = next(name for (kind, _, name) in world.api.objects if kind == kinds.DEPLOYMENT)
    uid = world.api.objects[kinds.DEPLOYMENT, NS, name]["metadata"]["uid"]
    mark = {"metadata": {"annotations": {"modelwright.dev/helper-pods": "x"}}}
    world.api.user_patch(kinds.DEPLOYMENT, NS, name, mark)
    for _ in range(3):
        world.look()
    assert world.api.objects[kinds.DEPLOYMENT, NS, name]["metadata"]["uid"] == uid


REFUSALS = [
    ("exceeded quota: team, requested: limits.cpu=1, used: limits.cpu=8, limited: limits.cpu=8", "QuotaExceeded"),
    ("failed quota: team: must specify limits.cpu for: fetch", "QuotaExceeded"),
    ("maximum memory usage per Container is 512Mi, but limit is 1Gi", "QuotaExceeded"),
    ('User "op" cannot create resource "pods" in API group "" in the namespace "vision"', "AccessDenied"),
]


@pytest.mark.parametrize(("said", "reason"), REFUSALS)
def test_refused_resolve_pod_has_its_reason_and_is_made_later(said: str, reason: str) -> None:
    world = RolloutHarness(None)
    refused = [True]

    def before(verb: str, obj: Object) -> None:
        if verb == "create" and obj["kind"] == "Pod" and refused[0]:
            raise api_errors.Denied(403, "Forbidden", f'pods "{obj["metadata"]["name"]}" is forbidden: {said}')

    world.api.before_write = before
    world.api.user_create(unpinned("v9"))
    world.go(lambda: told(world, "v9") is not None)
    found = told(world, "v9")
    assert found is not None
    assert found["reason"] == reason
    assert said in found["message"]
    assert ("helperPods.resources" in found["message"]) == (reason == "QuotaExceeded")
    refused[0] = False
    world.go(lambda: any(kind == kinds.POD for kind, _, _ in world.api.objects))


def placed(obj: Object | None) -> Object | None:
    spec: Object = obj["spec"]["template"]["spec"] if obj is not None else {}
    return spec.get("nodeSelector")


def selector(pod: Object) -> Object | None:
    found: Object | None = pod["spec"].get("nodeSelector")
    return found


def waiting(world: RolloutHarness) -> list[Object]:
    return [o for (kind, _, _), o in world.api.objects.items() if kind == kinds.POD]


def unpinned(name: str) -> Object:
    return objects.version(NS, name, digest=None)


def told(world: RolloutHarness, name: str) -> Object | None:
    conditions = world.api.objects[kinds.MODEL_VERSION, NS, name].get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == "Stalled" and c["status"] == "True"), None)
