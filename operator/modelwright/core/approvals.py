"""Evaluates the approvals of a rollout.

The API server checks who a person is and what they may do: manifests/policies. This module only judges the meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelwright.api import names
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.approval import Approval
from modelwright.api.v1alpha1.rollout import ModelRollout
from modelwright.api.v1alpha1.version import ModelVersionSpec
from modelwright.core.authors import Authors, is_service_account, normalize_name
from modelwright.core.revision import Revision

CONTENT_HASH_LENGTH = 32
"""160 bits, so that finding a second content for an approved hash is infeasible."""


def approval_content_hash(
    target: Revision,
    version: ModelVersionSpec,
    digest: str | None,
    policy: Mapping[str, Any] | None,
    runtime: str | None = None,
) -> str:
    """Hash the content that approvals cover.

    It has the revision, the immutable content of its version, its pinned digest, the rollout's policy (its spec, as in
    the rollout's snapshot), and the content of the `runtime` that rendered it.

    The policy's changedBy is left out, so that a name which is added later voids no approval; so are card and metrics,
    which may still be edited. DataRobot binds its reviews in the same way, to a `change_version_id`: an edit voids
    them.
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
    """Enough approvers have approved; `counted` are their Approvals, one of each, in the order of creation."""

    counted: tuple[Approval, ...]


@dataclass(frozen=True, slots=True)
class Rejected:
    """An approver has rejected the rollout, which is rolled back."""

    by: Approval
    message: str


@dataclass(frozen=True, slots=True)
class ApprovalsMissing:
    """Approvals are missing. `message` names the approvers, how many are missing, and why others were not counted.

    `stalled`: no Approval can help; an author must be named, or a new version created.
    """

    counted: tuple[Approval, ...]
    missing: int
    reason: str
    message: str
    stalled: bool = False


ApprovalDecision = Approved | Rejected | ApprovalsMissing


def evaluate_approvals(
    candidates: Iterable[Approval],
    *,
    rollout: ModelRollout,
    content_hash: str,
    authors: Authors,
    required: int,
    now: datetime,
    since: datetime,
    service_accounts: bool = False,
) -> ApprovalDecision:
    """Evaluate the Approvals in a rollout's namespace.

    `authors` are those of all parts of the revision, `required` is the number of different approvers (1 to 10), `since`
    the time at which approval was first requested at this place: an approval of an earlier step does not count at a
    later one, nor does one that rollout.status has counted there. A rejection counts whenever it was created.
    `service_accounts`: whether ServiceAccounts count as persons.
    """
    used = {entry.name for entry in rollout.status.approvals}
    about = sorted((a for a in candidates if _is_about(a, rollout) and a.name not in used), key=_approval_order)
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
    valid = tuple(counted.values())
    if authors.unknown:
        reason = Reason.NO_AUTHOR if authors.nameless else Reason.AUTHOR_UNKNOWN
        return ApprovalsMissing(
            (), required, reason, _append_uncounted("; ".join(authors.unknown), refused), stalled=True
        )
    if len(valid) >= required:
        return Approved(valid)
    return ApprovalsMissing(
        valid,
        required - len(valid),
        Reason.AWAITING_APPROVAL,
        _append_uncounted(_summarize_approvals(valid, required), refused),
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
    """Return why an Approval is not about the present state of this rollout."""
    spec = approval.spec
    if spec.rollout.uid != rollout.uid:
        return f"was given for another rollout of this name (uid {spec.rollout.uid}; this one is {rollout.uid})"
    if spec.rollout.name != rollout.name:
        return f"names ModelRollout {spec.rollout.name}, whose uid differs from its own"
    if spec.model_ref.name != rollout.spec.model_ref.name:
        return f"is about Model {spec.model_ref.name}, and the rollout is of {rollout.spec.model_ref.name}"
    if spec.content_hash != content_hash:
        return f"was given for another content ({spec.content_hash}; this is {content_hash})"
    return None


def _counting_refusal(
    approval: Approval, authors: Authors, now: datetime, since: datetime, service_accounts: bool
) -> str | None:
    """Return why an approval of this rollout does not count."""
    created, expires = approval.metadata.creation_timestamp, approval.spec.expires
    if authors.includes(approval.spec.approver):
        return "is an author's own: another person has to approve"
    if is_service_account(approval.spec.approver) and not service_accounts:
        return "is a ServiceAccount's, which more than one person may use: a person has to approve in their own name"
    if expires is not None and expires <= now:
        return f"expired at {approval.spec.expires_at}"
    if created is None or created < since:
        return "was given before it was requested: approve once more, with the present evidence"
    return None


def _summarize_approvals(valid: tuple[Approval, ...], required: int) -> str:
    approvers_text = f"approved by {', '.join(a.spec.approver for a in valid)}" if valid else "no approvals yet"
    approvers = "approver" if required == 1 else "different approvers"
    return f"{len(valid)} of {required} {approvers}: {approvers_text}; {required - len(valid)} missing"


def _append_uncounted(text: str, refused: list[str]) -> str:
    return f"{text}. Not counted: {'; '.join(refused)}" if refused else text
