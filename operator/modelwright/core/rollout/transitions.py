"""Changes that transitions make to the record of a rollout."""

from __future__ import annotations

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.rollout import GateStatus, ReportStatus
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.people import Approved, CommandRefused
from modelwright.core.problem import Problem
from modelwright.core.rollout.approval_progress import record_approvals
from modelwright.core.rollout.evidence_progress import has_failed_metric
from modelwright.core.rollout.gate_progress import next_gate
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
    record, people = record_approvals(o, require_record(o)), rollout_input(o).approval
    who = ", ".join(a.spec.approver for a in people.counted) if isinstance(people, Approved) else ""
    entry = GateStatus(name="approval", outcome=Outcome.PASS, reason="Approved", message=f"approved by {who}", at=o.now)
    return record.with_status(gates=(*record.status.gates, entry))


def apply_command(o: Observation) -> RolloutRecord:
    """The record after its command."""
    record, decision = require_record(o), rollout_input(o).command
    command = record.spec.command
    assert decision is not None  # noqa: S101
    assert command is not None  # noqa: S101
    if isinstance(decision, CommandRefused):
        return record_command(record, accepted=False, message=decision.message, now=o.now)
    record = record_command(record, accepted=True, message="", now=o.now)
    said = f"{command.by}: {command.reason}"
    if command.name == "pause":
        return record.with_status(paused=True)
    if command.name == "resume":
        return record.with_status(paused=None, freeze_overridden=True if rollout_input(o).frozen_until else None)
    if command.name == "retry":
        return record.with_status(retried=True)
    if command.name == "release":
        return record.with_status(released=True)
    if command.name == "abort":
        return start_rollback(record, State.ABORTED, Reason.ABORTED_BY_COMMAND, said, o.now)
    proven = rollout_input(o).outcome in (None, Outcome.PASS) and not _skips_evidence(o)
    record = overrule_step(record, o.now) if has_failed_metric(o) else end_step(record, "Skipped", o.now)
    record = record.with_status(paused=None, without_evidence=None if proven else True)
    return transition_to(record, State.PROMOTING, Reason.PROMOTED, said, o.now)


def _skips_evidence(o: Observation) -> bool:
    """Evidence that the policy asks for in this or a later step is left out when the rollout is promoted now."""
    if rollout_input(o).policy.analysis is None:
        return False
    later = [step for step in rollout_input(o).steps[require_record(o).step_index + 1 :] if not step.is_promotion]
    tested = rollout_input(o).policy.strategy.ab_test is not None and rollout_input(o).ab_test_won is not True
    return bool(later) or tested or not step_is_confirmed(o)


def advance_step(o: Observation) -> RolloutRecord:
    record, steps = record_approvals(o, require_record(o)), rollout_input(o).steps
    if record.step_index + 1 >= len(steps):
        return transition_to(
            end_step(record, "Pass", o.now), State.PROMOTING, Reason.PROMOTED, "every step has passed", o.now
        )
    return start_step(record, steps, record.step_index + 1, o.now)


def start_steps(o: Observation) -> RolloutRecord:
    """The record at its first step, or at the promotion where there are none."""
    record = require_record(o)
    if skips_steps(o):
        why = Reason.ROLLED_BACK_BY_HAND if record.is_manual else Reason.FAST_ROLLBACK
        return transition_to(record, State.PROMOTING, why, "back to a revision that served before", o.now)
    if record.from_revision is None:
        return transition_to(record, State.PROMOTING, Reason.FIRST_REVISION, "nothing served before: no steps", o.now)
    if is_recreate(o):
        return transition_to(record, State.PROGRESSING, Reason.STOPPING_PREVIOUS, "the previous revision stops", o.now)
    record = start_step(record, rollout_input(o).steps, 0, o.now)
    return transition_to(record, State.PROGRESSING, Reason.STEP_IN_PROGRESS, "the first step begins", o.now)


def finish_rollout(o: Observation) -> RolloutRecord:
    record, to = require_record(o), require_candidate(o)
    if record.is_manual:
        assert record.spec.rollback is not None  # noqa: S101
        said = f"{record.spec.rollback.by}: {record.spec.rollback.reason}"
        return transition_to(record, State.SUCCEEDED, Reason.ROLLED_BACK_BY_HAND, said, o.now)
    reason, text = Reason.PROMOTED, f"version {to.version} takes all traffic"
    if record.status.without_evidence:
        reason, text = Reason.PROMOTED_WITHOUT_EVIDENCE, f"{text}; a person promoted it without the evidence asked for"
    elif record.from_revision is None:
        reason = Reason.FIRST_REVISION
    elif to.hash in rollout_input(o).rollback_window:
        reason = Reason.FAST_ROLLBACK
    return transition_to(end_step(record, "Pass", o.now).with_status(weight=100), State.SUCCEEDED, reason, text, o.now)


def roll_back(ending: State, reason: Reason, o: Observation, text: str) -> RolloutRecord:
    return start_rollback(record_approvals(o, require_record(o)), ending, reason, text, o.now)


def unsupported_policy(o: Observation) -> Problem | None:
    """What the record's policy asks for in vain: it was edited just before it was kept, or the gateway has changed."""
    return None if require_record(o).is_manual or skips_steps(o) else rollout_input(o).policy_problem


def supersede_unsupported(o: Observation) -> RolloutRecord:
    problem = unsupported_policy(o) or Problem(Reason.POLICY_NOT_SUPPORTED, "")
    return roll_back(State.SUPERSEDED, Reason(problem.reason), o, problem.message)


def supersede(o: Observation) -> RolloutRecord:
    return roll_back(
        State.SUPERSEDED,
        Reason.SUPERSEDED,
        o,
        f"version {o.target.version if o.target else ''} is wanted now",
    )


def finish_rollback(o: Observation) -> RolloutRecord:
    return transition_to(
        require_record(o),
        State(require_record(o).status.ending or State.ABORTED),
        recorded_problem(o).reason,
        recorded_problem(o).message,
        o.now,
    )
