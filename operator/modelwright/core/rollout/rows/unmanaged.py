"""Rows that need no policy: no target, a first revision, all traffic at once, keeping the serving revision."""

from __future__ import annotations

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.problem import Problem
from modelwright.core.rollout.action_plans import (
    keep_routed_revisions,
    maintain_target,
    remove_obsolete,
    start_target,
    switch_to_target,
)
from modelwright.core.rollout.decision import POLL_GATEWAY, POLL_PODS, RolloutRow
from modelwright.core.rollout.observation import Observation
from modelwright.core.table import POLL_IDLE, StateRow, requeue_in


def _target_problem(observed: Observation) -> Problem:
    return observed.problem or Problem(Reason.WAITING_FOR_VERSION, "no version to serve yet")


def _target_pods_problem(observed: Observation) -> Problem:
    view = observed.target_view
    if view is None or observed.target is None:
        return Problem(Reason.WAITING_FOR_PODS, "the pods are about to be created")
    if view.failure is not None:
        return Problem(view.failure.reason, view.failure.message, stalled=True)
    version = f"version {observed.target.version}"
    if view.started is not None and observed.now - view.started > observed.start_timeout:
        seconds = int(observed.start_timeout.total_seconds())
        text = f"{version} was not ready within {seconds} s (spec.serving.startTimeout); its pods go on trying"
        return Problem(Reason.START_TIMEOUT, text, stalled=True)
    return Problem(Reason.WAITING_FOR_PODS, f"{version}: {view.available} of {observed.replicas} pods are ready")


def _gateway_problem(observed: Observation) -> Problem:
    if observed.traffic.problem is not None:
        return observed.traffic.problem
    return Problem(Reason.ROUTE_NOT_PROGRAMMED, "waiting for the gateway to follow the new route")


def _takeover_problem(observed: Observation) -> Problem:
    if observed.traffic.problem is not None:
        return observed.traffic.problem
    version = observed.target.version if observed.target else ""
    return Problem(Reason.WAITING_FOR_ROUTE, f"version {version} is ready and takes over the traffic")


def _serving_problem(observed: Observation) -> Problem:
    version = observed.target.version if observed.target else ""
    return Problem(Reason.SERVING, f"version {version} takes all traffic")


ROWS: tuple[RolloutRow, ...] = (
    StateRow(
        name="there is no target, or it may not be acted upon",
        when=lambda o: o.target is None or o.problem is not None,
        state=State.PENDING,
        reason=_target_problem,
        actions=lambda o: (*keep_routed_revisions(o), *remove_obsolete(o)),
        summary="keep what serves",
        requeue_after=requeue_in(POLL_IDLE),
    ),
    StateRow(
        name="the target's pods are not all ready, and it does not serve yet",
        when=lambda o: not o.target_ready and not o.target_serves,
        state=State.PROGRESSING,
        reason=_target_pods_problem,
        actions=start_target,
        summary="keep what serves, run the target beside it, remove superseded revisions",
        requeue_after=requeue_in(POLL_PODS),
    ),
    StateRow(
        name="the target's pods are ready, but traffic does not name it alone",
        when=lambda o: o.target is not None and o.traffic.named != {o.target.hash},
        state=State.PROMOTING,
        reason=_takeover_problem,
        actions=switch_to_target,
        summary="send all traffic to the target",
        requeue_after=requeue_in(POLL_GATEWAY),
    ),
    StateRow(
        name="traffic names the target, but the gateway has not been seen to follow",
        when=lambda o: not o.traffic.confirmed,
        state=State.PROMOTING,
        reason=_gateway_problem,
        actions=switch_to_target,
        summary="check the gateway again",
        requeue_after=requeue_in(POLL_GATEWAY),
    ),
    StateRow(
        name="the target serves",
        when=lambda _: True,
        state=State.SUCCEEDED,
        reason=_serving_problem,
        actions=maintain_target,
        summary="keep it as it is; remove the old revisions after the settle time",
    ),
)
