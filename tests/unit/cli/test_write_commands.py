"""What people write through the plugin, and what is refused before it is written."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from modelwright.api.v1alpha1 import Approval, ModelRollout, TrainingRun
from modelwright.cli import manual_actions
from modelwright.cli.model_view import ObjectNotFound
from tests.unit.cli import world
from tests.unit.cli.world import HASH, NOW, seen

Json = dict[str, Any]


def named(body: Json) -> Json:
    """As the API server would store it."""
    return {**body, "metadata": {**body["metadata"], "name": "x", "uid": "u"}}


@pytest.mark.parametrize("name", ["pause", "resume", "promote", "abort"])
def test_commands_go_to_the_rollout_that_is_on_its_way(name: str) -> None:
    assert manual_actions.find_commanded_rollout(seen(), name).name == "digits-2"
    ended = world.rollout("digits-2", 11, "v2", "Succeeded", 2)
    with pytest.raises(manual_actions.InvalidAction, match=f"{name} of digits-2: it has ended"):
        manual_actions.find_commanded_rollout(seen(ended), name)


def test_a_command_is_accepted_by_the_api() -> None:
    raw = world.ON_ITS_WAY | {
        "spec": world.ON_ITS_WAY["spec"]
        | manual_actions.build_command_patch("pause", "t1", "alice", "a complaint")["spec"]
    }
    command = ModelRollout.parse(raw).spec.command
    assert command is not None
    assert (command.name, command.by) == ("pause", "alice")


@pytest.mark.parametrize("state", ["RolledBack", "Aborted"])
def test_only_a_rolled_back_or_aborted_rollout_is_retried(state: str) -> None:
    assert (
        manual_actions.find_commanded_rollout(seen(world.rollout("digits-2", 11, "v2", state, 2)), "retry").name
        == "digits-2"
    )
    with pytest.raises(manual_actions.InvalidAction, match="only a rollout that was rolled back or aborted"):
        manual_actions.find_commanded_rollout(seen(), "retry")


def test_only_a_manual_rollback_is_released() -> None:
    with pytest.raises(manual_actions.InvalidAction, match="no manual rollback pins it"):
        manual_actions.find_commanded_rollout(seen(), "release")
    by_hand = world.rollout("digits-back", 12, "v0", "Succeeded", None)
    assert manual_actions.find_commanded_rollout(seen(by_hand), "release").name == "digits-back"
    going_back = world.rollout("digits-back", 12, "v0", "Promoting", None)
    with pytest.raises(manual_actions.InvalidAction, match="still in progress; abort ends it"):
        manual_actions.find_commanded_rollout(seen(going_back), "release")
    released = world.rollout("digits-back", 12, "v0", "Succeeded", None, released=True)
    with pytest.raises(manual_actions.InvalidAction):
        manual_actions.find_commanded_rollout(seen(released), "release")


def test_an_approval_is_bound_to_the_reviewed_content() -> None:
    record = seen().get_rollout("digits-2")
    body = manual_actions.build_approval(record, "Approve", "alice", "looked at", NOW + timedelta(hours=48), HASH)
    approval = Approval.parse(named(body))
    assert (approval.spec.content_hash, approval.spec.rollout.uid) == (HASH, "uid-digits-2")
    assert body["spec"]["expiresAt"] == "2026-11-28T12:00:00Z"
    with pytest.raises(manual_actions.InvalidAction, match="has changed since it was reviewed"):
        manual_actions.build_approval(record, "Approve", "alice", "looked at", None, "another")
    with pytest.raises(manual_actions.InvalidAction, match="has ended"):
        manual_actions.build_approval(seen().get_rollout("digits-1"), "Approve", "alice", "late", None, HASH)


@pytest.mark.parametrize(("wanted", "target"), [(None, "v0"), ("v0", "v0")])
def test_going_back_is_to_what_has_served(wanted: str | None, target: str) -> None:
    body = manual_actions.build_rollback(seen(), wanted, "alice", "wrong answers")
    assert ModelRollout.parse(named(body)).spec.target.version == target


@pytest.mark.parametrize(
    ("wanted", "says"),
    [("v1", "serves version v1 already"), ("v2", "has not served before; Model digits can roll back to v0")],
)
def test_going_back_to_anything_else_is_refused(wanted: str, says: str) -> None:
    with pytest.raises(manual_actions.InvalidAction, match=says):
        manual_actions.build_rollback(seen(), wanted, "alice", "wrong answers")


def test_a_run_by_hand_needs_one_policy_or_its_name() -> None:
    body = manual_actions.build_training_run(seen(), None, "alice", "labels are in")
    assert TrainingRun.parse(named(body)).spec.policy_ref.name == "digits"
    two = seen(*world.retraining("second"))
    with pytest.raises(
        manual_actions.InvalidAction, match=r"has 2 RetrainingPolicies \(digits, second\): name one with --policy"
    ):
        manual_actions.build_training_run(two, None, "alice", "labels are in")
    assert manual_actions.build_training_run(two, "second", "alice", "x")["spec"]["policyRef"] == {"name": "second"}
    with pytest.raises(ObjectNotFound, match="no RetrainingPolicy third"):
        manual_actions.build_training_run(two, "third", "alice", "x")
