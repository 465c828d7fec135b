"""Rows of the gates, all before any user traffic."""

from __future__ import annotations

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.rollout.action_plans import ensure_source, route_to_source, run_gate
from modelwright.core.rollout.approval_predicates import approval_problem, awaits_approval, is_approved
from modelwright.core.rollout.decision import POLL_PODS, RolloutRow
from modelwright.core.rollout.gate_predicates import gate_is_undecided, gate_problem, next_gate
from modelwright.core.rollout.lookups import is_in_state, is_recreating, require_record, rollout_input
from modelwright.core.rollout.observation import Observation
from modelwright.core.rollout.record import transition_to
from modelwright.core.rollout.transitions import pass_approval_gate, roll_back, start_steps
from modelwright.core.table import POLL_IDLE, StateRow, Transition, requeue_in


def _gate_is_open(o: Observation) -> bool:
    return (
        is_in_state(o, State.GATING, State.HOLDING)
        and require_record(o).status.step is None
        and next_gate(o) is not None
    )


def _no_gate_is_left(o: Observation) -> bool:
    return (
        is_in_state(o, State.PENDING, State.GATING, State.AWAITING_APPROVAL, State.HOLDING)
        and require_record(o).status.step is None
        and not is_recreating(o)
    )


ROWS: tuple[RolloutRow, ...] = (
    Transition(
        name="nothing prevents the start, and the policy has gates",
        when=lambda o: is_in_state(o, State.PENDING) and next_gate(o) is not None,
        update=lambda o: transition_to(
            require_record(o), State.GATING, Reason.GATE_RUNNING, f"gate {next_gate(o)}", o.now
        ),
        summary="start with the gates",
    ),
    Transition(
        name="a gate has decided nothing, and the policy rolls back then",
        when=lambda o: gate_is_undecided(o) and rollout_input(o).policy.on_inconclusive == "Rollback",
        update=lambda o: roll_back(State.ABORTED, Reason.INCONCLUSIVE, o, gate_problem(o).message),
        summary="turn back, to end as Aborted: nothing was found against the candidate",
    ),
    StateRow(
        name="a gate has decided nothing",
        when=gate_is_undecided,
        state=State.HOLDING,
        reason=lambda o: gate_problem(o),
        actions=lambda o: (*ensure_source(o), *route_to_source(o)),
        summary="hold for a person until the deadline",
        requeue_after=requeue_in(POLL_IDLE),
    ),
    Transition(
        name="the approvals before any caller's request are complete",
        when=lambda o: awaits_approval(o) and require_record(o).status.step is None and is_approved(o),
        update=pass_approval_gate,
        summary="record their names",
    ),
    StateRow(
        name="approvals are required before any caller's request",
        when=lambda o: awaits_approval(o) and require_record(o).status.step is None,
        state=State.AWAITING_APPROVAL,
        reason=approval_problem,
        actions=lambda o: (*ensure_source(o), *route_to_source(o)),
        summary="keep what serves, wait",
        requeue_after=requeue_in(POLL_IDLE),
    ),
    StateRow(
        name="a gate is to be passed",
        when=_gate_is_open,
        state=State.GATING,
        reason=lambda o: gate_problem(o),
        actions=run_gate,
        summary="run the gate's Job; for infra, one pod of the candidate",
        requeue_after=requeue_in(POLL_PODS),
    ),
    Transition(
        name="no gate is left to pass",
        when=_no_gate_is_left,
        update=start_steps,
        summary="start with the first step; promote at once where there are none",
    ),
)
