"""What the Approvals and the command of a rollout are about."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from modelwright.core.analysis.evidence import Outcome
from modelwright.core.commands import CommandContext
from modelwright.core.gate_results import JOB_GATES
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


def build_command_context(
    record: RolloutRecord, policy: EffectivePolicy, frozen_until: datetime | None
) -> CommandContext:
    """The state of a rollout that decides which commands it accepts."""
    gates = policy.spec.gates
    passed = {gate.name for gate in record.status.gates if gate.outcome == Outcome.PASS}
    required = [name for name in JOB_GATES if gates is not None and getattr(gates, name) is not None]
    open_gates = tuple(name for name in required if name not in passed) if not record.is_manual else ()
    if policy.snapshot_problem is not None:
        open_gates = ("those of the policy that it began with, which can't be read,",)
    open_approvals = []
    if gates is not None and gates.approval is not None and "approval" not in passed:
        open_approvals.append("the approval gate")
    done = {entry.index for entry in record.status.steps if entry.outcome == "Pass"}
    open_approvals += [
        f"step {index + 1}"
        for index, step in enumerate(policy.steps)
        if step.kind is StepKind.APPROVAL and index not in done
    ]
    return CommandContext(
        state=record.state,
        newest=True,
        paused=bool(record.status.paused),
        frozen=frozen_until is not None and not record.status.freeze_overridden,
        manual=record.is_manual,
        released=bool(record.status.released),
        retried=bool(record.status.retried),
        gates_open=open_gates,
        approvals_open=() if record.is_manual else tuple(open_approvals),
    )
