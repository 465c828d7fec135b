"""While people's edits wait in a line, each is answered by one write first: that it was seen."""

from __future__ import annotations

from typing import Any

from modelwright.kube import kinds
from tests.lib.rollout_harness import CANARY, NS, RolloutHarness

MODEL_STATUS = ("status", kinds.MODEL, "digits")


class Edited(RolloutHarness):
    """A Model, and what its status says of an edit."""

    def edit(self, **serving: Any) -> None:
        self.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"serving": serving}})

    def writes_of_a_look(self) -> list[tuple[str, kinds.Kind, str]]:
        before = len(self.api.writes)
        self.look()
        return self.api.writes[before:]

    @property
    def conditions(self) -> dict[str, tuple[str, str]]:
        return {c["type"]: (c["status"], c["reason"]) for c in self.model["status"]["conditions"]}

    @property
    def heard(self) -> bool:
        return bool(self.model["status"]["observedGeneration"] == self.model["metadata"]["generation"])


def test_queued_edit_is_acknowledged_by_one_write() -> None:
    world = Edited(None)
    world.crowd = True
    before = world.model["status"]
    world.edit(replicas=6)
    assert world.writes_of_a_look() == [MODEL_STATUS]
    assert world.heard
    assert world.pods("v1") == 4
    assert world.conditions == {
        "Ready": ("False", "NewGeneration"),
        "Reconciling": ("True", "NewGeneration"),
        "Stalled": ("False", "UpToDate"),
        "Available": ("True", "RevisionAvailable"),
    }
    for kept in ("serving", "target", "rollout", "traffic", "url"):
        assert world.model["status"].get(kept) == before.get(kept)
    world.look()
    assert world.pods("v1") == 6
    world.go(lambda: world.conditions["Ready"] == ("True", "Serving"))


def test_an_edit_alone_is_carried_out_at_once() -> None:
    world = Edited(None)
    world.edit(replicas=6)
    assert MODEL_STATUS in world.writes_of_a_look()
    assert (world.heard, world.pods("v1")) == (True, 6)


def test_a_model_that_is_suspended_in_a_crowd_says_so_at_once() -> None:
    world = Edited(None)
    world.crowd = True
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"suspend": True}})
    assert world.writes_of_a_look() == [MODEL_STATUS]
    assert world.conditions["Ready"] == ("True", "Suspended")


def test_a_rollout_on_its_way_is_never_kept_waiting_by_a_crowd() -> None:
    world = Edited(CANARY)
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 90, "v2": 10})
    world.crowd = True
    world.want("v3")
    world.look()
    assert world.records[-1]["status"]["state"] == "RollingBack"


def test_acknowledged_edit_clears_the_failure() -> None:
    world = Edited(CANARY)
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 90, "v2": 10})
    world.command("abort")
    world.go(lambda: world.conditions["Stalled"][0] == "True")
    assert world.model["status"]["failure"]
    world.crowd = True
    world.want("v1")
    assert world.writes_of_a_look() == [MODEL_STATUS]
    assert "failure" not in world.model["status"]
    world.go(lambda: world.conditions["Ready"] == ("True", "Serving"))
