"""Rows of a rollout that must not continue now: paused, frozen, without a target, or behind an earlier candidate."""

from __future__ import annotations

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.problem import Problem
from modelwright.core.rollout.action_plans import keep_step, remove_earlier_candidate
from modelwright.core.rollout.decision import POLL_GATEWAY, RolloutRow
from modelwright.core.rollout.evidence_predicates import has_failed_metric, requeue_in_step
from modelwright.core.rollout.lookups import (
    current_step,
    is_in_state,
    is_in_step,
    require_record,
    rollout_input,
    skips_steps,
    step_is_confirmed,
)
from modelwright.core.rollout.observation import Observation
from modelwright.core.rollout.record import confirm_step
from modelwright.core.rollout.step_targets import step_is_ready, step_split, traffic_matches
from modelwright.core.rollout.transitions import supersede_unsupported, unsupported_policy
from modelwright.core.table import POLL_IDLE, StateRow, Transition, requeue_in


def _is_frozen(o: Observation) -> bool:
    if (
        o.active_record is None
        or o.active_record.is_manual
        or o.active_record.status.freeze_overridden
        or rollout_input(o).frozen_until is None
    ):
        return False
    return o.active_record.state not in (State.PROMOTING, State.ROLLING_BACK) and not skips_steps(o)


def _freeze_problem(o: Observation) -> Problem:
    until = rollout_input(o).frozen_until
    assert until is not None  # noqa: S101
    text = (
        f"frozen until {until:%Y-%m-%d %H:%M} UTC; the command resume on ModelRollout "
        f"{require_record(o).name} goes on anyway"
    )
    return Problem(Reason.FREEZE_WINDOW, text)


def _has_earlier_candidate(o: Observation) -> bool:
    """Whether an earlier candidate still has requests or pods."""
    source = require_record(o).from_revision
    return bool(o.traffic.named - ({source.hash} if source else set())) or bool(o.obsolete_revisions)


def _step_took_effect(o: Observation) -> bool:
    return (
        is_in_step(o)
        and not step_is_confirmed(o)
        and not has_failed_metric(o)
        and o.traffic.confirmed
        and traffic_matches(o, step_split(o, current_step(o)))
        and step_is_ready(o)
    )


def _is_paused(o: Observation) -> bool:
    return (
        o.active_record is not None
        and bool(o.active_record.status.paused)
        and o.active_record.state is not State.PROMOTING
    )


def _target_is_missing(o: Observation) -> bool:
    return (
        o.active_record is not None
        and (o.target is None or o.problem is not None)
        and not is_in_state(o, State.PROMOTING)
    )


def _earlier_candidate_remains(o: Observation) -> bool:
    return (
        is_in_state(o, State.PENDING)
        and not skips_steps(o)
        and require_record(o).from_revision is not None
        and _has_earlier_candidate(o)
    )


ROWS: tuple[RolloutRow, ...] = (
    Transition(
        name="traffic is as the step wants it for the first time",
        when=_step_took_effect,
        update=lambda o: confirm_step(require_record(o), o.now),
        summary="count hold and evidence from now",
    ),
    StateRow(
        name="a person has paused it",
        when=_is_paused,
        state=State.HOLDING,
        reason=lambda _: Problem(Reason.PAUSED, "paused; the command resume lets it go on"),
        actions=keep_step,
        summary="keep the step, watch its metrics",
        requeue_after=requeue_in_step,
    ),
    Transition(
        name="its policy can't be followed, and nothing has started",
        when=lambda o: is_in_state(o, State.PENDING) and unsupported_policy(o) is not None,
        update=supersede_unsupported,
        summary="end it: the next one starts when the policy can be followed",
    ),
    StateRow(
        name="a freeze window is open, and nothing has started",
        when=lambda o: _is_frozen(o) and is_in_state(o, State.PENDING),
        state=State.PENDING,
        reason=_freeze_problem,
        actions=remove_earlier_candidate,
        summary="wait for the end of the window",
        requeue_after=requeue_in(POLL_IDLE),
    ),
    StateRow(
        name="a freeze window is open in the middle of a rollout",
        when=_is_frozen,
        state=State.HOLDING,
        reason=_freeze_problem,
        actions=keep_step,
        summary="keep the step, watch its metrics",
        requeue_after=requeue_in_step,
    ),
    StateRow(
        name="the target can't be had in the middle of a rollout",
        when=_target_is_missing,
        state=State.HOLDING,
        reason=lambda o: o.problem or Problem(Reason.WAITING_FOR_VERSION, "no version to serve yet"),
        actions=keep_step,
        summary="keep the step, watch its metrics",
        requeue_after=requeue_in_step,
    ),
    StateRow(
        name="an earlier candidate has not left yet",
        when=_earlier_candidate_remains,
        state=State.PENDING,
        reason=lambda _: Problem(Reason.WAITING_FOR_TRAFFIC, "an earlier candidate is being removed"),
        actions=remove_earlier_candidate,
        summary="send all traffic to what serves, remove what is left over",
        requeue_after=requeue_in(POLL_GATEWAY),
    ),
)
