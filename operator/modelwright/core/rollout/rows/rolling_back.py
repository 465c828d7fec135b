"""Rows of a rollout that returns to the revision it started from; `rollback_causes` has the rows that start it."""

from __future__ import annotations

from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.problem import Problem
from modelwright.core.rollout.action_plans import return_to_source
from modelwright.core.rollout.decision import POLL_GATEWAY, RolloutRow
from modelwright.core.rollout.lookups import is_in_state, recorded_problem
from modelwright.core.rollout.observation import Observation
from modelwright.core.rollout.step_targets import traffic_returned
from modelwright.core.rollout.transitions import finish_rollback
from modelwright.core.table import StateRow, Transition, requeue_in


def _return_problem(o: Observation) -> Problem:
    """Explain what prevents traffic from returning; if nothing does, why it has to."""
    traffic_problem = o.traffic.problem if o.traffic.problem is not None and o.traffic.problem.stalled else None
    return o.problem or traffic_problem or recorded_problem(o)


ROWS: tuple[RolloutRow, ...] = (
    Transition(
        name="turning back, and traffic is with what served",
        when=lambda o: is_in_state(o, State.ROLLING_BACK) and traffic_returned(o),
        update=finish_rollback,
        summary="end as RolledBack, Aborted or Superseded",
    ),
    StateRow(
        name="turning back",
        when=lambda o: is_in_state(o, State.ROLLING_BACK),
        state=State.ROLLING_BACK,
        reason=_return_problem,
        actions=return_to_source,
        summary="send all traffic to what served when the rollout started, as its pods are ready",
        requeue_after=requeue_in(POLL_GATEWAY),
    ),
)
