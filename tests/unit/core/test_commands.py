"""Commands on rollouts: in which states they are accepted, and why they are refused."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from modelwright.api.v1alpha1.rollout import Command, CommandName, RolloutTarget
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core import commands
from modelwright.core.admission import AdmissionState
from modelwright.core.commands import CommandAccepted, CommandContext, CommandRefused

LIVE = ["Pending", "Gating", "Progressing", "Holding", "AwaitingApproval"]
ENDED = ["Succeeded", "RolledBack", "Aborted", "Superseded"]
MEANINGFUL: dict[str, set[str]] = {
    "pause": set(LIVE),
    "resume": set(),
    "promote": set(LIVE),
    "abort": {*LIVE, "Promoting"},
    "retry": {"RolledBack", "Aborted"},
    "release": set(),
}


def order(name: Any) -> Command:
    return Command(name=name, token="t", by="sven", reason="as agreed")


def refusal_of(name: str, context: CommandContext) -> str | None:
    """None when the command is accepted, else why not."""
    decision = commands.evaluate_command(order(name), set(), context)
    assert decision is not None
    return decision.message if isinstance(decision, CommandRefused) else None


@pytest.mark.parametrize("name", get_args(CommandName))
@pytest.mark.parametrize("state", list(State))
def test_commands_mean_something_in_some_states_only(name: str, state: State) -> None:
    why = refusal_of(name, CommandContext(state, newest=True))
    assert (why is None) == (state in MEANINGFUL[name]), why
    assert why is None or why.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("name", "context", "why"),
    [
        ("pause", CommandContext(State.PROGRESSING, True, paused=True), "is paused already"),
        ("resume", CommandContext(State.HOLDING, True, paused=True), None),
        ("resume", CommandContext(State.HOLDING, True, frozen=True), None),
        ("pause", CommandContext(State.HOLDING, True, frozen=True), None),
        ("resume", CommandContext(State.HOLDING, True), "is not paused"),
        ("resume", CommandContext(State.ABORTED, True, paused=True), "has ended (Aborted)"),
        ("abort", CommandContext(State.ROLLING_BACK, True), "is already rolling back"),
        ("promote", CommandContext(State.PROMOTING, True), "is being promoted already"),
        ("promote", CommandContext(State.GATING, True, gates_open=("infra",)), "not past a gate: infra not passed"),
        (
            "promote",
            CommandContext(State.PROGRESSING, True, approvals_open=("step 3", "step 5")),
            "it does not stand for an approval, and one is missing at step 3, step 5",
        ),
        ("retry", CommandContext(State.ROLLED_BACK, False), "a later rollout of the Model exists"),
        ("retry", CommandContext(State.ROLLED_BACK, True, retried=True), "was given already"),
        ("release", CommandContext(State.SUCCEEDED, True, manual=True), None),
        ("release", CommandContext(State.SUCCEEDED, True, manual=True, released=True), "has ended already"),
        ("release", CommandContext(State.SUCCEEDED, False, manual=True), "this one holds nothing"),
        ("release", CommandContext(State.PROGRESSING, True, manual=True), "abort ends it"),
        ("release", CommandContext(State.ABORTED, True, manual=True), "holds nothing"),
        ("release", CommandContext(State.SUCCEEDED, True), "only a manual rollback"),
    ],
)
def test_why_a_command_is_refused(name: str, context: CommandContext, why: str | None) -> None:
    message = refusal_of(name, context)
    assert message is None if why is None else why in str(message)


def test_a_command_is_taken_up_once() -> None:
    context = CommandContext(State.PROGRESSING, newest=True)
    assert commands.evaluate_command(None, set(), context) is None
    assert commands.evaluate_command(order("abort"), {"t"}, context) is None
    assert commands.evaluate_command(order("abort"), {"other"}, context) == CommandAccepted(order("abort"))


def test_a_command_without_admission_is_refused_forever() -> None:
    context = CommandContext(State.PROGRESSING, newest=True)
    assert commands.evaluate_command(order("abort"), set(), context, AdmissionState()) is None
    missing = commands.evaluate_command(order("abort"), set(), context, AdmissionState(False, "policies are missing"))
    assert missing == CommandRefused(order("abort"), "abort: policies are missing; then give it again")


@pytest.mark.parametrize(
    ("version", "revision", "may"),
    [("v1", None, True), ("v1", "a", True), ("v1", "b", False), ("v2", None, True), ("v3", None, False)],
)
def test_only_served_revisions_are_rollback_targets(version: str, revision: str | None, may: bool) -> None:
    why = commands.rollback_target_problem(
        RolloutTarget(version=version, revision=revision), [("v1", "a"), ("v2", "c")]
    )
    assert (why is None) == may
    assert why is None or "has never served this Model, so it is no rollback target; served versions: v1, v2" in why
