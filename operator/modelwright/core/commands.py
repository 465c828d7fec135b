"""Evaluates commands on rollouts: whether one can be carried out now, and why not.

The API server checks who gives a command and may give it: manifests/policies. This module only judges its meaning.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

from modelwright.api.v1alpha1.rollout import Command, RolloutTarget
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.admission import IN_FORCE, AdmissionState

LIVE_STATES = frozenset(
    {State.PENDING, State.GATING, State.PROGRESSING, State.HOLDING, State.AWAITING_APPROVAL, State.PROMOTING}
)
"""States in which a rollout still moves to the candidate."""


@dataclass(frozen=True, slots=True)
class CommandContext:
    """The state of a rollout that decides about a command.

    `newest`: no later record of the Model exists. `frozen`: a freeze window blocks it. `manual`: it is a manual
    rollback; `released`: it no longer holds the Model. `gates_open` and `approvals_open` name, for users, the gates
    that have not passed, and every place (gate or step, future ones included) without enough approvals.
    """

    state: State
    newest: bool
    paused: bool = False
    frozen: bool = False
    manual: bool = False
    released: bool = False
    retried: bool = False
    gates_open: tuple[str, ...] = ()
    approvals_open: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CommandAccepted:
    """A command to be executed, once."""

    command: Command


@dataclass(frozen=True, slots=True)
class CommandRefused:
    """A command without a meaning now; `message` has the reason and the remedy. It is recorded as handled too."""

    command: Command
    message: str


CommandDecision = CommandAccepted | CommandRefused


def evaluate_command(
    wanted: Command | None, handled: Container[str], context: CommandContext, admission: AdmissionState = IN_FORCE
) -> CommandDecision | None:
    """Decide whether the command of a rollout can be executed; None without one, or when it was handled before.

    `handled` are the tokens of status.commands. A refused command is not tried again when it would have a meaning
    later: its author saw the state at that time. The same holds for a command that was given while the admission
    policies were missing: nothing ever proves its author.
    """
    if wanted is None or wanted.token in handled or admission.in_force is None:
        return None
    if not admission.in_force:
        return CommandRefused(wanted, f"{wanted.name}: {admission.problem}; then give it again")
    why = _REFUSAL_BY_COMMAND[wanted.name](context)
    return CommandAccepted(wanted) if why is None else CommandRefused(wanted, f"{wanted.name}: {why}")


def _ended_refusal(context: CommandContext) -> str | None:
    if context.state is State.ROLLING_BACK:
        return "the rollout is already rolling back"
    return None if context.state in LIVE_STATES else f"the rollout has ended ({context.state})"


def _pause_refusal(context: CommandContext) -> str | None:
    if context.state is State.PROMOTING:
        return "all steps are done and the candidate takes over: abort goes back"
    return _ended_refusal(context) or ("the rollout is paused already" if context.paused else None)


def _resume_refusal(context: CommandContext) -> str | None:
    held_up = context.paused or context.frozen
    return _ended_refusal(context) or (None if held_up else "the rollout is not paused, and in no freeze")


def _promotion_refusal(context: CommandContext) -> str | None:
    if context.state is State.PROMOTING:
        return "the candidate is being promoted already"
    ended = _ended_refusal(context)
    if ended is not None:
        return ended
    if context.gates_open:
        return f"it continues without further evidence, but not past a gate: {', '.join(context.gates_open)} not passed"
    if context.approvals_open:
        places = ", ".join(context.approvals_open)
        return f"it does not stand for an approval, and one is missing at {places}"
    return None


def _retry_refusal(context: CommandContext) -> str | None:
    if context.state not in (State.ROLLED_BACK, State.ABORTED):
        return f"only what was rolled back or aborted can be tried again, and this is {context.state}"
    if not context.newest:
        return "a later rollout of the Model exists: its record is the one to retry"
    return "it was given already: the revision is free to be tried" if context.retried else None


def _release_refusal(context: CommandContext) -> str | None:
    if not context.manual:
        return "only a manual rollback (spec.rollback) holds the Model; this rollout does not"
    if context.released:
        return "the hold has ended already"
    if not context.newest:
        return "a later rollout of the Model exists, so this one holds nothing"
    if context.state in LIVE_STATES:
        return "the rollback is still in progress: abort ends it"
    return None if context.state is State.SUCCEEDED else f"it ended as {context.state} and holds nothing"


_REFUSAL_BY_COMMAND = {
    "pause": _pause_refusal,
    "resume": _resume_refusal,
    "promote": _promotion_refusal,
    "abort": _ended_refusal,
    "retry": _retry_refusal,
    "release": _release_refusal,
}


def rollback_target_problem(wanted: RolloutTarget, served: Iterable[tuple[str, str]]) -> str | None:
    """Return why a manual rollback to `wanted` is refused; None when it is allowed.

    `served` are the (version, revision) pairs that have served the Model, the present one included. A rollback has no
    gates and no steps, so to any other revision it would be a promotion without approval.
    """
    known = set(served)
    if wanted.revision is not None and (wanted.version, wanted.revision) in known:
        return None
    versions = {version for version, _ in known}
    if wanted.revision is None and wanted.version in versions:
        return None
    target = (
        f"revision {wanted.revision} of version {wanted.version}" if wanted.revision else f"version {wanted.version}"
    )
    return (
        f"spec.target: {target} has never served this Model, so it is no rollback target; served versions: "
        f"{', '.join(sorted(versions)) or 'none'}. Set a new version in spec.version of the Model"
    )
