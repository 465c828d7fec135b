"""Progress of the gates that a candidate passes before any user traffic."""

from __future__ import annotations

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.problem import Problem
from modelwright.core.rollout.lookups import is_in_state, require_record, rollout_input, skips_steps
from modelwright.core.rollout.observation import Observation
from modelwright.core.rollout.steps import GATE_ORDER


def next_gate(o: Observation) -> str | None:
    """The first gate that the policy asks for and that has not passed."""
    gates = rollout_input(o).policy.gates
    if gates is None or skips_steps(o):
        return None
    passed = {gate.name for gate in require_record(o).status.gates if gate.outcome == Outcome.PASS}
    return next((name for name in GATE_ORDER if getattr(gates, name) is not None and name not in passed), None)


def recorded_gate_outcome(o: Observation) -> Outcome | None:
    gate = next_gate(o)
    found = next((entry for entry in require_record(o).status.gates if entry.name == gate), None)
    return Outcome(found.outcome) if found is not None else None


def gate_is_undecided(o: Observation) -> bool:
    """A gate has come to nothing that would let the candidate pass, or refuse it."""
    return is_in_state(o, State.GATING, State.HOLDING) and recorded_gate_outcome(o) in (
        Outcome.INCONCLUSIVE,
        Outcome.ERROR,
    )


def has_new_gate_result(o: Observation) -> bool:
    """A gate has a result that the record doesn't have yet."""
    if not is_in_state(o, State.GATING, State.HOLDING) or require_record(o).status.step is not None:
        return False
    return next_gate(o) in rollout_input(o).gates and recorded_gate_outcome(o) is None


def gate_problem(o: Observation) -> Problem:
    gate = next_gate(o)
    found = next((entry for entry in require_record(o).status.gates if entry.name == gate), None)
    if found is not None:
        return Problem(Reason.GATE_FAILED, f"gate {gate}: {found.message}")
    unproven = rollout_input(o).report_problem
    if unproven is not None and unproven.stalled:
        return Problem(unproven.reason, f"gate {gate} does not count: {unproven.message}", stalled=True)
    return Problem(Reason.GATE_RUNNING, f"gate {gate} is being looked at")
