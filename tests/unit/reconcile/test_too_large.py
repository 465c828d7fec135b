"""What the API server finds too large: the object says so, what goes by time goes on, and nothing else is held up."""

from __future__ import annotations

from typing import Any

import pytest

from modelwright.kube import api_errors, kinds
from tests.lib.rollout_harness import JUDGED, NS, RolloutHarness, bad, good

Object = dict[str, Any]
ETCD = b'{"kind": "Status", "message": "etcdserver: request is too large", "code": 500}'


def too_large() -> api_errors.ApiError:
    return api_errors.error_from_response(500, ETCD, {})


def test_too_large_child_is_named_and_retried() -> None:
    world = RolloutHarness(JUDGED)
    open_ = [False]

    def refuse(verb: str, obj: Object) -> None:
        if verb == "create" and obj["kind"] == "Deployment" and not open_[0]:
            raise too_large()

    world.api.before_write = refuse
    world.want("v2")
    world.go(lambda: any(c["reason"] == "ChildTooLarge" for c in world.model["status"]["conditions"]))
    told = next(c for c in world.model["status"]["conditions"] if c["type"] == "Stalled")
    assert told["status"] == "True"
    assert "Deployment" in told["message"]
    assert "1.5 MiB" in told["message"]
    assert world.serving == "v1"
    open_[0] = True
    world.scheduler.results = {"errors": good()}
    world.go(lambda: world.serving == "v2")


def test_unwritable_record_stops_no_rollback() -> None:
    world = RolloutHarness(JUDGED)
    world.scheduler.results = {"errors": good(candidate=50, serving=50)}
    world.want("v2")
    world.go(lambda: world.weights.get("v2") == 10)

    def refuse(verb: str, obj: Object) -> None:
        if verb == "status" and obj["kind"] == "ModelRollout":
            raise too_large()

    world.api.before_write = refuse
    world.scheduler.results = {"errors": bad()}
    world.go(lambda: world.weights == {"v1": 100})


def test_a_status_that_is_too_large_is_told_by_an_event() -> None:
    world = RolloutHarness(JUDGED)

    def refuse(verb: str, obj: Object) -> None:
        if verb == "status" and obj["kind"] == "Model":
            raise too_large()

    world.api.before_write = refuse
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"serving": {"replicas": 2}}})
    for _ in range(5):
        world.look()
    assert ("digits", "Warning", "StatusTooLarge") in world.operator.events.told
    assert world.pods("v1") == 2, "what it asks for is done"


@pytest.mark.parametrize("status", [413, 500])
def test_the_message_says_what_the_limits_are(status: int) -> None:
    assert "etcd stores 1.5 MiB" in api_errors.error_from_response(status, ETCD, {}).message
