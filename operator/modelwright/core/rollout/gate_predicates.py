"""Predicates and facts about the gates that a candidate passes before any user traffic."""

from __future__ import annotations

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.rollout import GateStatus
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.problem import Problem
from modelwright.core.rollout.lookups import is_in_state, require_record, rollout_input, skips_steps
from modelwright.core.rollout.observation import Observation
from modelwright.core.rollout.steps import GATE_ORDER


def next_gate(o: Observation) -> str | None:
    """Return the first gate of the policy that has not passed; None if there is none."""
    gates = rollout_input(o).policy.gates
    if gates is None or skips_steps(o):
        return None
    passed = {gate.name for gate in require_record(o).status.gates if gate.outcome == Outcome.PASS}
    return next((name for name in GATE_ORDER if getattr(gates, name) is not None and name not in passed), None)


def _recorded_gate(o: Observation) -> GateStatus | None:
    gate = next_gate(o)
    return next((entry for entry in require_record(o).status.gates if entry.name == gate), None)


def recorded_gate_outcome(o: Observation) -> Outcome | None:
    """Return the recorded outcome of the next gate; None if it has not ended."""
    entry = _recorded_gate(o)
    return Outcome(entry.outcome) if entry is not None else None


def gate_is_undecided(o: Observation) -> bool:
    """Whether a gate has ended without passing or failing the candidate."""
    return is_in_state(o, State.GATING, State.HOLDING) and recorded_gate_outcome(o) in (
        Outcome.INCONCLUSIVE,
        Outcome.ERROR,
    )


def has_new_gate_result(o: Observation) -> bool:
    """Whether a gate has a result that the record does not have yet."""
    if not is_in_state(o, State.GATING, State.HOLDING) or require_record(o).status.step is not None:
        return False
    return next_gate(o) in rollout_input(o).gates and recorded_gate_outcome(o) is None


def gate_problem(o: Observation) -> Problem:
    """Explain why the next gate has not passed: its result, reports that can't be trusted, or that it still runs."""
    gate, entry = next_gate(o), _recorded_gate(o)
    if entry is not None:
        return Problem(Reason.GATE_FAILED, f"gate {gate}: {entry.message}")
    problem = rollout_input(o).report_problem
    if problem is not None and problem.stalled:
        return Problem(problem.reason, f"gate {gate} does not count: {problem.message}", stalled=True)
    return Problem(Reason.GATE_RUNNING, f"gate {gate} is running")
