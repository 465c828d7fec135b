"""A right is taken away while a rollout runs: it is named, nothing is promoted, and all goes on when it is back."""

from __future__ import annotations

from typing import Any

import pytest

from modelwright.kube import api_errors, kinds
from modelwright.kube.kinds import Kind
from tests.lib.rollout_harness import JUDGED, RolloutHarness, bad, good

Object = dict[str, Any]


class Rbac:
    """Refuses writes of these kinds as RBAC does, while there are any."""

    def __init__(self, world: RolloutHarness) -> None:
        self.refused: set[str] = set()
        self.count = 0
        world.api.before_write = self._before

    def _before(self, verb: str, obj: Object) -> None:
        kind = kinds.kind_of(obj)
        resource = kind.plural + ("/status" if verb == "status" else "")
        if resource in self.refused:
            self.count += 1
            verb = "patch" if verb == "status" else verb
            text = (
                f'{obj["metadata"]["name"]} is forbidden: User "op" cannot {verb} resource "{resource}" in API group '
                f'"{kind.group}" in the namespace "vision"'
            )
            raise api_errors.Denied(403, "Forbidden", text)


def canary() -> tuple[RolloutHarness, Rbac]:
    world = RolloutHarness(JUDGED)
    world.scheduler.results = {"errors": good(candidate=50, serving=50)}
    world.want("v2")
    world.go(lambda: world.weights.get("v2") == 10)
    return world, Rbac(world)


def stalled(world: RolloutHarness) -> Object:
    return next(c for c in world.model["status"]["conditions"] if c["type"] == "Stalled")


def test_missing_right_is_named_and_the_rollout_resumes_with_it() -> None:
    world, rbac = canary()
    rbac.refused = {kinds.HTTP_ROUTE.plural}
    world.scheduler.results = {"errors": good()}
    world.go(lambda: stalled(world)["reason"] == "AccessDenied")
    for words in ("patch", "httproutes", 'namespace "vision"'):
        assert words in stalled(world)["message"]
    for _ in range(10):
        world.look()
        assert world.weights == {"v1": 90, "v2": 10}
        assert world.serving == "v1"
    rbac.refused = set()
    world.go(lambda: world.serving == "v2" and world.record.get("state") == "Succeeded")


@pytest.mark.parametrize("kind", [kinds.MODEL, kinds.MODEL_ROLLOUT], ids=str)
def test_without_status_rights_nothing_is_promoted_or_lost(kind: Kind) -> None:
    world, rbac = canary()
    rbac.refused = {f"{kind.plural}/status"}
    world.scheduler.results = {"errors": good()}
    for _ in range(5):
        world.look()
    assert rbac.count <= 5 * 4, "a pass each look, and not again and again"
    rbac.refused = set()
    world.go(lambda: world.serving == "v2" and world.record.get("state") == "Succeeded")
    assert [step["outcome"] for step in world.record["steps"]] == ["Pass"] * len(world.record["steps"])


def test_bad_version_rolls_back_without_a_writable_record() -> None:
    world, rbac = canary()
    rbac.refused = {f"{kinds.MODEL_ROLLOUT.plural}/status", f"{kinds.MODEL.plural}/status"}
    world.scheduler.results = {"errors": bad()}
    world.go(lambda: world.weights == {"v1": 100})
    rbac.refused = set()
    world.go_to("RolledBack")


def test_all_rights_at_once_go_and_come_back() -> None:
    world, rbac = canary()
    every = {kind.plural for kind in kinds.ALL_KINDS}
    rbac.refused = every | {f"{plural}/status" for plural in every}
    world.scheduler.results = {"errors": good()}
    for _ in range(10):
        world.look()
        assert world.weights == {"v1": 90, "v2": 10}
    rbac.refused = set()
    world.go(lambda: world.serving == "v2" and world.record.get("state") == "Succeeded")
