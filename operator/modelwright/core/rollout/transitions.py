"""Changes that transitions make to the record of a rollout."""

from __future__ import annotations

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.rollout import GateStatus, ReportStatus
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.approvals import Approved
from modelwright.core.commands import CommandRefused
from modelwright.core.problem import Problem
from modelwright.core.rollout.approval_predicates import record_approvals
from modelwright.core.rollout.evidence_predicates import has_failed_metric
from modelwright.core.rollout.gate_predicates import next_gate
from modelwright.core.rollout.lookups import (
    is_recreate,
    recorded_problem,
    require_candidate,
    require_record,
    rollout_input,
    skips_steps,
    step_is_confirmed,
)
from modelwright.core.rollout.observation import Observation
from modelwright.core.rollout.record import (
    RolloutRecord,
    end_step,
    overrule_step,
    record_command,
    start_rollback,
    start_step,
    transition_to,
)


def record_gate(o: Observation) -> RolloutRecord:
    record, gate = require_record(o), next_gate(o)
    assert gate is not None  # noqa: S101 - holds only with a gate that has ended
    result = rollout_input(o).gates[gate]
    full = result.full_report
    report = ReportStatus(uri=full.uri, digest=full.digest) if full is not None else None
    entry = GateStatus(
        name=gate, outcome=result.outcome, reason=result.reason, message=result.message, report=report, at=o.now
    )
    return record.with_status(gates=(*record.status.gates, entry))


def pass_approval_gate(o: Observation) -> RolloutRecord:
    record, decision = record_approvals(o, require_record(o)), rollout_input(o).approval
    approvals = decision.counted if isinstance(decision, Approved) else ()
    message = f"approved by {', '.join(approval.spec.approver for approval in approvals)}"
    entry = GateStatus(name="approval", outcome=Outcome.PASS, reason="Approved", message=message, at=o.now)
    return record.with_status(gates=(*record.status.gates, entry))


def apply_command(o: Observation) -> RolloutRecord:
    """Execute the command on the record, or record why it is refused."""
    record, decision = require_record(o), rollout_input(o).command
    command = record.spec.command
    assert decision is not None  # noqa: S101
    assert command is not None  # noqa: S101
    if isinstance(decision, CommandRefused):
        return record_command(record, accepted=False, message=decision.message, now=o.now)
    record = record_command(record, accepted=True, message="", now=o.now)
    message = f"{command.by}: {command.reason}"
    if command.name == "pause":
        return record.with_status(paused=True)
    if command.name == "resume":
        return record.with_status(paused=None, freeze_overridden=True if rollout_input(o).frozen_until else None)
    if command.name == "retry":
        return record.with_status(retried=True)
    if command.name == "release":
        return record.with_status(released=True)
    if command.name == "abort":
        return start_rollback(record, State.ABORTED, Reason.ABORTED_BY_COMMAND, message, o.now)
    proven = rollout_input(o).outcome in (None, Outcome.PASS) and not _skips_evidence(o)
    record = overrule_step(record, o.now) if has_failed_metric(o) else end_step(record, "Skipped", o.now)
    record = record.with_status(paused=None, without_evidence=None if proven else True)
    return transition_to(record, State.PROMOTING, Reason.PROMOTED, message, o.now)


def _skips_evidence(o: Observation) -> bool:
    """Whether a promotion now skips evidence that the policy requires in this or a later step."""
    if rollout_input(o).policy.analysis is None:
        return False
    later = [step for step in rollout_input(o).steps[require_record(o).step_index + 1 :] if not step.is_promotion]
    test_is_open = rollout_input(o).policy.strategy.ab_test is not None and rollout_input(o).ab_test_won is not True
    return bool(later) or test_is_open or not step_is_confirmed(o)


def advance_step(o: Observation) -> RolloutRecord:
    """Start the next step, or the promotion after the last one."""
    record, steps = record_approvals(o, require_record(o)), rollout_input(o).steps
    if record.step_index + 1 >= len(steps):
        return transition_to(
            end_step(record, "Pass", o.now), State.PROMOTING, Reason.PROMOTED, "every step has passed", o.now
        )
    return start_step(record, steps, record.step_index + 1, o.now)


def start_steps(o: Observation) -> RolloutRecord:
    """Start the first step, or the promotion if there are no steps."""
    record = require_record(o)
    if skips_steps(o):
        reason = Reason.ROLLED_BACK_BY_HAND if record.is_manual else Reason.FAST_ROLLBACK
        return transition_to(record, State.PROMOTING, reason, "back to a revision that served before", o.now)
    if record.from_revision is None:
        return transition_to(record, State.PROMOTING, Reason.FIRST_REVISION, "nothing served before: no steps", o.now)
    if is_recreate(o):
        return transition_to(record, State.PROGRESSING, Reason.STOPPING_PREVIOUS, "the previous revision stops", o.now)
    record = start_step(record, rollout_input(o).steps, 0, o.now)
    return transition_to(record, State.PROGRESSING, Reason.STEP_IN_PROGRESS, "the first step starts", o.now)


def finish_rollout(o: Observation) -> RolloutRecord:
    """End the rollout as Succeeded, with the reason for which the candidate serves."""
    record, candidate = require_record(o), require_candidate(o)
    if record.is_manual:
        assert record.spec.rollback is not None  # noqa: S101
        message = f"{record.spec.rollback.by}: {record.spec.rollback.reason}"
        return transition_to(record, State.SUCCEEDED, Reason.ROLLED_BACK_BY_HAND, message, o.now)
    reason, message = Reason.PROMOTED, f"version {candidate.version} takes all traffic"
    if record.status.without_evidence:
        reason, message = Reason.PROMOTED_WITHOUT_EVIDENCE, f"{message}; promoted without the required evidence"
    elif record.from_revision is None:
        reason = Reason.FIRST_REVISION
    elif candidate.hash in rollout_input(o).rollback_window:
        reason = Reason.FAST_ROLLBACK
    record = end_step(record, "Pass", o.now).with_status(weight=100)
    return transition_to(record, State.SUCCEEDED, reason, message, o.now)


def roll_back(ending: State, reason: Reason, o: Observation, message: str) -> RolloutRecord:
    """Start the rollback; the rollout ends in the state `ending`."""
    return start_rollback(record_approvals(o, require_record(o)), ending, reason, message, o.now)


def unsupported_policy(o: Observation) -> Problem | None:
    """Return why the record's policy can't be followed: it was edited just before it was stored, or the gateway has
    changed."""
    return None if require_record(o).is_manual or skips_steps(o) else rollout_input(o).policy_problem


def supersede_unsupported(o: Observation) -> RolloutRecord:
    problem = unsupported_policy(o) or Problem(Reason.POLICY_NOT_SUPPORTED, "")
    return roll_back(State.SUPERSEDED, Reason(problem.reason), o, problem.message)


def supersede(o: Observation) -> RolloutRecord:
    version = o.target.version if o.target else ""
    return roll_back(State.SUPERSEDED, Reason.SUPERSEDED, o, f"version {version} is wanted now")


def finish_rollback(o: Observation) -> RolloutRecord:
    """End the rollout in the state that the start of the rollback has recorded."""
    record, problem = require_record(o), recorded_problem(o)
    return transition_to(record, State(record.status.ending or State.ABORTED), problem.reason, problem.message, o.now)
