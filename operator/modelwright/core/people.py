"""What people's words come to: whether a rollout is approved, and whether a command can be carried out now.

Who a person is, and what they may, is the API server's to check: manifests/policies. Here only meaning is judged.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelwright.api import names
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.approval import Approval
from modelwright.api.v1alpha1.rollout import Command, ModelRollout, RolloutTarget
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.api.v1alpha1.version import ModelVersionSpec
from modelwright.core.authors import Authors, is_service_account, normalize_name
from modelwright.core.revision import Revision

CONTENT_HASH_LENGTH = 32
"""160 bits: nobody finds a second content for an approved hash."""

LIVE_STATES = frozenset(
    {State.PENDING, State.GATING, State.PROGRESSING, State.HOLDING, State.AWAITING_APPROVAL, State.PROMOTING}
)
"""States in which a rollout is still on its way to the candidate."""


@dataclass(frozen=True, slots=True)
class AdmissionState:
    """Whether admission proves who writes approvals and commands, and keeps others from making the operator's pods;
    without that no approval, command, gate, signature or result of a training counts.

    `in_force` None: not known yet, but in a moment. `problem`: what is wrong, for people, when it is False.
    `since`: when it came back after it was missing; whatever was written before proves nothing. None: never missed.
    """

    in_force: bool | None = None
    problem: str = ""
    since: datetime | None = None


IN_FORCE = AdmissionState(in_force=True)


def approval_content_hash(
    target: Revision,
    version: ModelVersionSpec,
    digest: str | None,
    policy: Mapping[str, Any] | None,
    runtime: str | None = None,
) -> str:
    """The hash of what people approve: the revision, the immutable content of its version, the digest it is pinned to,
    the policy (its spec, as in the rollout's snapshot) by which it goes out, and the content of the `runtime` that has
    rendered it.

    Who answers for the policy is not part of it: a name that is written later voids no approval. Card and metrics may
    still be edited, so they are left out. DataRobot binds its reviews in the same way, to a `change_version_id`: an
    edit voids them.
    """
    content = version.wire()
    for mutable in ("card", "metrics"):
        content.pop(mutable, None)
    if not version.authors:
        content.pop("authors", None)
    approved = {
        "version": target.version,
        "revision": target.hash,
        "content": content,
        "digest": digest,
        "policy": {key: value for key, value in policy.items() if key != "changedBy"} if policy is not None else None,
    }
    approved |= {"runtime": runtime} if runtime is not None else {}
    return names.content_hash(approved, CONTENT_HASH_LENGTH)


@dataclass(frozen=True, slots=True)
class Approved:
    """Enough people have approved; `counted` are their Approvals, one of each person, in the order they were given."""

    counted: tuple[Approval, ...]


@dataclass(frozen=True, slots=True)
class Rejected:
    """Somebody has rejected it: the rollout goes back."""

    by: Approval
    message: str


@dataclass(frozen=True, slots=True)
class ApprovalsMissing:
    """People are missing. `message`: who has approved, how many are missing, what was not counted and why.

    `stalled`: no Approval can help, the version has to be made anew.
    """

    counted: tuple[Approval, ...]
    missing: int
    reason: str
    message: str
    stalled: bool = False


ApprovalDecision = Approved | Rejected | ApprovalsMissing


def evaluate_approvals(
    found: Iterable[Approval],
    *,
    rollout: ModelRollout,
    content_hash: str,
    authors: Authors,
    required: int,
    now: datetime,
    since: datetime,
    service_accounts: bool = False,
) -> ApprovalDecision:
    """What the Approvals in a rollout's namespace come to.

    `authors` are those of all that the revision is made of, `required` the number of different people (1 to 10),
    `since` when their approval was first asked for at this place: what was approved at an earlier step does not count
    at a later one, nor does what rollout.status says was counted there. A rejection counts whenever it was given.
    `service_accounts`: whether they count as people.
    """
    used = {entry.name for entry in rollout.status.approvals}
    about = sorted((a for a in found if _is_about(a, rollout) and a.name not in used), key=_approval_order)
    counted: dict[str, Approval] = {}
    refused: list[str] = []
    for approval in about:
        why = _binding_refusal(approval, rollout, content_hash)
        if why is None and approval.spec.decision == "Reject":
            return Rejected(approval, f"{approval.spec.approver} has rejected it: {approval.spec.reason}")
        why = why or _counting_refusal(approval, authors, now, since, service_accounts)
        if why is not None:
            refused.append(f"{approval.name} of {approval.spec.approver} {why}")
        else:
            counted.setdefault(normalize_name(approval.spec.approver), approval)
    given = tuple(counted.values())
    if authors.unknown:
        reason = Reason.NO_AUTHOR if authors.nameless else Reason.AUTHOR_UNKNOWN
        return ApprovalsMissing(
            (), required, reason, _append_uncounted("; ".join(authors.unknown), refused), stalled=True
        )
    if len(given) >= required:
        return Approved(given)
    return ApprovalsMissing(
        given,
        required - len(given),
        Reason.AWAITING_APPROVAL,
        _append_uncounted(_summarize_approvals(given, required), refused),
    )


def _is_about(approval: Approval, rollout: ModelRollout) -> bool:
    spec = approval.spec.rollout
    return (
        approval.namespace == rollout.namespace
        and approval.metadata.deletion_timestamp is None
        and (spec.uid == rollout.uid or spec.name == rollout.name)
    )


def _approval_order(approval: Approval) -> tuple[float, str]:
    created = approval.metadata.creation_timestamp
    return (created.timestamp() if created is not None else 0.0), approval.name


def _binding_refusal(approval: Approval, rollout: ModelRollout, content_hash: str) -> str | None:
    """Why an Approval is not about this rollout as it is."""
    spec = approval.spec
    if spec.rollout.uid != rollout.uid:
        return f"was given for another rollout of this name (uid {spec.rollout.uid}; this one is {rollout.uid})"
    if spec.rollout.name != rollout.name:
        return f"names ModelRollout {spec.rollout.name}, which has another uid than it says"
    if spec.model_ref.name != rollout.spec.model_ref.name:
        return f"is about Model {spec.model_ref.name}, and the rollout is of {rollout.spec.model_ref.name}"
    if spec.content_hash != content_hash:
        return f"was given for another content ({spec.content_hash}; this is {content_hash})"
    return None


def _counting_refusal(
    approval: Approval, authors: Authors, now: datetime, since: datetime, service_accounts: bool
) -> str | None:
    """Why an approval of this rollout does not count."""
    created, expires = approval.metadata.creation_timestamp, approval.spec.expires
    if authors.includes(approval.spec.approver):
        return "is an author's own: somebody else has to approve"
    if is_service_account(approval.spec.approver) and not service_accounts:
        return "is a ServiceAccount's, which more than one person may use: a person has to approve in their own name"
    if expires is not None and expires <= now:
        return f"expired at {approval.spec.expires_at}"
    if created is None or created < since:
        return "was given before this was asked for: approve once more, with what is known now"
    return None


def _summarize_approvals(given: tuple[Approval, ...], required: int) -> str:
    who = f"approved by {', '.join(a.spec.approver for a in given)}" if given else "nobody has approved yet"
    people = "person" if required == 1 else "different people"
    return f"{len(given)} of {required} {people}: {who}; {required - len(given)} missing"


def _append_uncounted(text: str, refused: list[str]) -> str:
    return f"{text}. Not counted: {'; '.join(refused)}" if refused else text


@dataclass(frozen=True, slots=True)
class CommandContext:
    """What decides about a command: where its rollout stands.

    `newest`: no later record of the Model exists. `frozen`: a freeze window holds it up. `by_hand`: a person has made
    it, to go back; `released`: it holds the Model no longer. `gates_open` and `approvals_open` name, for people, the
    gates that have not passed, and every place (gate or step, those to come included) where people have not yet
    approved.
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
    """The command is to be carried out, once."""

    command: Command


@dataclass(frozen=True, slots=True)
class CommandRefused:
    """The command means nothing now; `message` says why and what to do. It is recorded as handled too."""

    command: Command
    message: str


CommandDecision = CommandAccepted | CommandRefused


def evaluate_command(
    wanted: Command | None, handled: Container[str], standing: CommandContext, admission: AdmissionState = IN_FORCE
) -> CommandDecision | None:
    """Whether the command of a rollout can be carried out; None when there is none, or it was handled before.

    `handled` are the tokens of status.commands. A command that is refused is not tried again when it would mean
    something later: it was about what its person saw. Nor is one that was found while admission was missing: nothing
    proves who gave it, then or later.
    """
    if wanted is None or wanted.token in handled or admission.in_force is None:
        return None
    if not admission.in_force:
        return CommandRefused(wanted, f"{wanted.name}: {admission.problem}; then give it again")
    why = _REFUSAL_BY_COMMAND[wanted.name](standing)
    return CommandAccepted(wanted) if why is None else CommandRefused(wanted, f"{wanted.name}: {why}")


def _ended_refusal(standing: CommandContext) -> str | None:
    if standing.state is State.ROLLING_BACK:
        return "the rollout is going back already"
    return None if standing.state in LIVE_STATES else f"the rollout has ended ({standing.state})"


def _pause_refusal(standing: CommandContext) -> str | None:
    if standing.state is State.PROMOTING:
        return "all steps are done and the candidate takes over: abort goes back"
    return _ended_refusal(standing) or ("the rollout is paused already" if standing.paused else None)


def _resume_refusal(standing: CommandContext) -> str | None:
    held_up = standing.paused or standing.frozen
    return _ended_refusal(standing) or (None if held_up else "the rollout is not paused, and in no freeze")


def _promotion_refusal(standing: CommandContext) -> str | None:
    if standing.state is State.PROMOTING:
        return "the candidate is being promoted already"
    ended = _ended_refusal(standing)
    if ended is not None:
        return ended
    if standing.gates_open:
        return f"it goes on without further evidence, but not past a gate: {', '.join(standing.gates_open)} not passed"
    if standing.approvals_open:
        places = ", ".join(standing.approvals_open)
        return f"it does not stand for an approval, and one is missing at {places}"
    return None


def _retry_refusal(standing: CommandContext) -> str | None:
    if standing.state not in (State.ROLLED_BACK, State.ABORTED):
        return f"only what was rolled back or aborted can be tried again, and this is {standing.state}"
    if not standing.newest:
        return "a later rollout of the Model exists: its record is the one to retry"
    return "it was given already: the revision is free to be tried" if standing.retried else None


def _release_refusal(standing: CommandContext) -> str | None:
    if not standing.manual:
        return "only a rollback by hand (spec.rollback) holds the Model; this rollout does not"
    if standing.released:
        return "the hold has ended already"
    if not standing.newest:
        return "a later rollout of the Model exists, so this one holds nothing"
    if standing.state in LIVE_STATES:
        return "the rollback is still on its way: abort ends it"
    return None if standing.state is State.SUCCEEDED else f"it ended as {standing.state} and holds nothing"


_REFUSAL_BY_COMMAND = {
    "pause": _pause_refusal,
    "resume": _resume_refusal,
    "promote": _promotion_refusal,
    "abort": _ended_refusal,
    "retry": _retry_refusal,
    "release": _release_refusal,
}


def rollback_target_problem(wanted: RolloutTarget, served: Iterable[tuple[str, str]]) -> str | None:
    """Why a person may not take a Model to `wanted` by hand; None when they may.

    `served` are the (version, revision) that have served the Model, the present one included. A rollback has no gates
    and no steps, so to anything else it would be a promotion that nobody has approved.
    """
    known = set(served)
    if wanted.revision is not None and (wanted.version, wanted.revision) in known:
        return None
    versions = {version for version, _ in known}
    if wanted.revision is None and wanted.version in versions:
        return None
    what = f"revision {wanted.revision} of version {wanted.version}" if wanted.revision else f"version {wanted.version}"
    return (
        f"spec.target: {what} has never served this Model, so there is no going back to it; what has: "
        f"{', '.join(sorted(versions)) or 'none'}. A new one is asked for in spec.version of the Model"
    )
