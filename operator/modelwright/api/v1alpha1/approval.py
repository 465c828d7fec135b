"""Approval: a person's decision for or against one rollout and exactly the content it moves to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from modelwright.api.cel import Cel
from modelwright.api.common import (
    LocalObjectReference,
    Resource,
    Subdomain,
    Text63,
    Text253,
    Text1024,
    Wire,
    pattern_rule,
)
from modelwright.api.crd_info import AGE_COLUMN, Column, CrdInfo

Decision = Literal["Approve", "Reject"]
STRICT_RFC3339 = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _parse_approval_time(value: str) -> datetime:
    return datetime.fromisoformat(value).astimezone(UTC)


def _is_valid_time(value: str) -> bool:
    try:
        return _parse_approval_time(value) > _EPOCH
    except (ValueError, OverflowError):
        return False


TimeText = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=64),
    pattern_rule(STRICT_RFC3339, "must be a time such as 2026-11-21T03:00:00Z"),
    Cel(
        f"!self.matches(r'{STRICT_RFC3339}') || timestamp(self) > timestamp('1970-01-01T00:00:00Z')",
        "must be a time that exists",
        _is_valid_time,
    ),
]


class ApprovedRollout(Wire):
    """The ModelRollout that is approved or rejected."""

    name: Subdomain = Field(description="Name of the ModelRollout.")
    uid: Text63 = Field(
        description="Its metadata.uid, so that the decision does not apply to a later rollout of the same name."
    )


class ApprovalSpec(Wire):
    """Approver, decision, content and reason. Immutable."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "self == oldSelf",
            "spec of an Approval is immutable: to withdraw it, create another Approval with decision Reject",
        ),
        Cel(
            "self.decision == 'Approve' || !has(self.expiresAt)",
            "expiresAt has no effect with decision Reject: a rejection ends the rollout",
            lambda self: self.decision == "Approve" or self.expires_at is None,
            ".expiresAt",
        ),
    )

    model_ref: LocalObjectReference = Field(description="The Model. Admission demands the verb `approve` on it.")
    rollout: ApprovedRollout = Field(description="The ModelRollout that is approved or rejected.")
    content_hash: Text63 = Field(
        description="status.contentHash of the ModelRollout: the content that was reviewed. If the hash differs, the "
        "Approval does not count."
    )
    decision: Decision = Field(description="Approve, or Reject: ends the rollout.")
    approver: Text253 = Field(description="Who, as the API server knows them; admission demands the writer's own name.")
    reason: Text1024 = Field(description="Why.")
    expires_at: TimeText | None = Field(
        default=None, description="Until when an approval counts, RFC 3339. When absent, as long as the rollout waits."
    )

    @property
    def expires(self) -> datetime | None:
        """expiresAt as a time, UTC; None when it counts as long as the rollout waits."""
        return _parse_approval_time(self.expires_at) if self.expires_at is not None else None


class Approval(Resource):
    """A person's decision on one rollout."""

    __crd__: ClassVar[CrdInfo] = CrdInfo(
        plural="approvals",
        short_name="apv",
        description="An Approval is a person's decision for or against one ModelRollout. It is bound to the uid of "
        "the rollout and to the content that it moves to; admission checks who writes it.",
        columns=(
            Column("Model", ".spec.modelRef.name", "The Model."),
            Column("Rollout", ".spec.rollout.name", "The ModelRollout it is about."),
            Column("Decision", ".spec.decision", "Approve or Reject."),
            Column("Approver", ".spec.approver", "Who."),
            Column("Expires", ".spec.expiresAt", "Until when it counts.", wide=True),
            Column("Why", ".spec.reason", "Why.", wide=True),
            AGE_COLUMN,
        ),
        selectable_fields=(".spec.modelRef.name", ".spec.rollout.name"),
    )

    kind: str = "Approval"
    spec: ApprovalSpec = Field(description="Approver, decision, content and reason. Immutable.")
