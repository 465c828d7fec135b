"""Finds the approval that a rollout waits for now: of its gate or of its current step."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from modelwright.core.rollout.effective_policy import EffectivePolicy
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.rollout.steps import RolloutStep, StepKind


@dataclass(frozen=True, slots=True)
class ApprovalRequirement:
    """An approval that a rollout waits for: approvers required, since when, and whether service accounts count."""

    required: int
    since: datetime
    service_accounts: bool


def find_requirement(
    record: RolloutRecord | None, policy: EffectivePolicy, step: RolloutStep | None, now: datetime
) -> ApprovalRequirement | None:
    """The approval that the rollout waits for now, of the gate or of the current step; None when it waits for none."""
    if record is None or not record.is_active or record.candidate is None:
        return None
    gates = policy.spec.gates
    gate = gates.approval if gates is not None and record.status.step is None else None
    if gate is not None:
        return ApprovalRequirement(gate.required, record.status.since or now, gate.service_accounts)
    if step is None or step.kind is not StepKind.APPROVAL:
        return None
    entry = record.step_status
    return ApprovalRequirement(step.required, entry.started_at if entry is not None else now, step.service_accounts)
