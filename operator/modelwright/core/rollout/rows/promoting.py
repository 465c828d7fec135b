"""Rows of the promotion: the candidate takes all traffic."""

from __future__ import annotations

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.problem import Problem
from modelwright.core.rollout.action_plans import prepare_promotion, promote_candidate
from modelwright.core.rollout.decision import GATEWAY_GRACE, POLL_GATEWAY, POLL_PODS, RolloutRow
from modelwright.core.rollout.lookups import (
    has_ready_pods,
    is_in_state,
    pods_problem,
    require_candidate,
    require_record,
)
from modelwright.core.rollout.observation import Observation
from modelwright.core.rollout.step_targets import traffic_matches
from modelwright.core.rollout.traffic_split import TrafficSplit
from modelwright.core.rollout.transitions import finish_rollout
from modelwright.core.table import StateRow, Transition, requeue_in


def _takeover_problem(o: Observation) -> Problem:
    problem, since = o.traffic.problem, require_record(o).status.since
    slow = since is not None and o.now - since >= GATEWAY_GRACE
    if problem is not None and (problem.stalled or slow):
        return problem
    return Problem(Reason.WAITING_FOR_ROUTE, f"version {require_candidate(o).version} is ready and takes over")


def _promoted_candidate_serves(o: Observation) -> bool:
    return (
        is_in_state(o, State.PROMOTING)
        and o.serving is not None
        and o.serving.revision.hash == require_candidate(o).hash
        and traffic_matches(o, TrafficSplit.all_to(require_candidate(o)))
        and o.traffic.confirmed
    )


ROWS: tuple[RolloutRow, ...] = (
    Transition(
        name="the candidate was promoted, and it serves",
        when=_promoted_candidate_serves,
        update=finish_rollout,
        summary="end as Succeeded",
    ),
    StateRow(
        name="promoting, and the candidate's pods are not all ready",
        when=lambda o: (
            is_in_state(o, State.PROMOTING) and not has_ready_pods(o, require_record(o).candidate, o.replicas)
        ),
        state=State.PROMOTING,
        reason=lambda o: pods_problem(o, o.replicas),
        actions=prepare_promotion,
        summary="bring it to full size; traffic stays as it is",
        requeue_after=requeue_in(POLL_PODS),
    ),
    StateRow(
        name="promoting",
        when=lambda o: is_in_state(o, State.PROMOTING),
        state=State.PROMOTING,
        reason=_takeover_problem,
        actions=promote_candidate,
        summary="send all traffic to the candidate, whose pods are those that were the canary",
        requeue_after=requeue_in(POLL_GATEWAY),
    ),
)
