"""Predicates and facts about the approvals that a gate or a step waits for."""

from __future__ import annotations

from datetime import timedelta

from modelwright.api.common import parse_duration
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.rollout import ApprovalRecord
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.approvals import ApprovalsMissing, Approved, Rejected
from modelwright.core.problem import Problem
from modelwright.core.rollout.gate_predicates import next_gate
from modelwright.core.rollout.lookups import current_step, is_in_state, is_in_step, require_record, rollout_input
from modelwright.core.rollout.observation import Observation
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.rollout.steps import StepKind


def is_approved(o: Observation) -> bool:
    return isinstance(rollout_input(o).approval, Approved)


def is_rejected(o: Observation) -> bool:
    return isinstance(rollout_input(o).approval, Rejected)


def awaits_approval(o: Observation) -> bool:
    if is_in_state(o, State.GATING, State.AWAITING_APPROVAL) and require_record(o).status.step is None:
        return next_gate(o) == "approval"
    return is_in_step(o) and current_step(o).kind is StepKind.APPROVAL


def approval_timeout(o: Observation) -> timedelta:
    gates = rollout_input(o).policy.gates
    if require_record(o).status.step is None and gates is not None and gates.approval is not None:
        return timedelta(seconds=parse_duration(gates.approval.timeout))
    return current_step(o).timeout or timedelta.max


def _approval_place(record: RolloutRecord) -> str:
    return "gate" if record.status.step is None else f"step {record.step_index}"


def record_approvals(o: Observation, record: RolloutRecord) -> RolloutRecord:
    """Record the Approvals that counted, with their approvers."""
    decision = rollout_input(o).approval
    if decision is None or not awaits_approval(o):
        return record
    counted = (decision.by,) if isinstance(decision, Rejected) else decision.counted
    place = _approval_place(record)
    recorded = {(entry.name, entry.place) for entry in record.status.approvals}
    new = tuple(
        ApprovalRecord(
            name=approval.name,
            approver=approval.spec.approver,
            decision=approval.spec.decision,
            reason=approval.spec.reason,
            place=place,
            at=o.now,
        )
        for approval in counted
        if (approval.name, place) not in recorded
    )
    return record.with_status(approvals=(*record.status.approvals, *new)[-64:]) if new else record


def approval_problem(o: Observation) -> Problem:
    decision = rollout_input(o).approval
    if isinstance(decision, ApprovalsMissing):
        return Problem(decision.reason, decision.message, decision.stalled)
    message = decision.message if isinstance(decision, Rejected) else "people must approve"
    return Problem(Reason.AWAITING_APPROVAL, message)
