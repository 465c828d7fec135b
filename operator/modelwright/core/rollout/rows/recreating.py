"""Rows of the strategy `recreate`: the old revision stops before the new one starts."""

from __future__ import annotations

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.problem import Problem
from modelwright.core.rollout.action_plans import prepare_promotion, stop_source
from modelwright.core.rollout.decision import POLL_GATEWAY, POLL_PODS, RolloutRow
from modelwright.core.rollout.lookups import count_pods, has_ready_pods, is_recreating, pods_problem, require_record
from modelwright.core.rollout.record import transition_to
from modelwright.core.table import StateRow, Transition, requeue_in

ROWS: tuple[RolloutRow, ...] = (
    StateRow(
        name="recreate: the old revision still has pods",
        when=lambda o: is_recreating(o) and bool(count_pods(o, require_record(o).from_revision)),
        state=State.PROGRESSING,
        reason=lambda _: Problem(Reason.STOPPING_PREVIOUS, "the old revision stops before the new one starts"),
        actions=stop_source,
        summary="stop the old revision",
        requeue_after=requeue_in(POLL_GATEWAY),
    ),
    StateRow(
        name="recreate: the candidate's pods are not all ready",
        when=lambda o: is_recreating(o) and not has_ready_pods(o, require_record(o).candidate, o.replicas),
        state=State.PROGRESSING,
        reason=lambda o: pods_problem(o, o.replicas),
        actions=prepare_promotion,
        summary="run the candidate",
        requeue_after=requeue_in(POLL_PODS),
    ),
    Transition(
        name="recreate: the candidate's pods are ready",
        when=is_recreating,
        update=lambda o: transition_to(
            require_record(o), State.PROMOTING, Reason.PROMOTED, "the candidate is ready", o.now
        ),
        summary="promote it",
    ),
)
