"""Builds the state of a rollout by which its commands are accepted or refused."""

from __future__ import annotations

from datetime import datetime

from modelwright.core.analysis.evidence import Outcome
from modelwright.core.commands import CommandContext
from modelwright.core.gate_results import JOB_GATES
from modelwright.core.rollout.effective_policy import EffectivePolicy
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.rollout.steps import StepKind


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
