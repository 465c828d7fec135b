"""Rows of the rollout table that need no policy: no target, a first revision, all at once, keeping what serves."""

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.problem import Problem
from modelwright.core.rollout.actions import Action, EnsureRevision, RemoveRevision, SetTraffic
from modelwright.core.rollout.decision import POLL_GATEWAY, POLL_PODS, RolloutRow
from modelwright.core.rollout.observation import Observation
from modelwright.core.rollout.traffic_split import TrafficSplit
from modelwright.core.table import POLL_IDLE, StateRow, requeue_in


def keep_routed_revisions(observed: Observation) -> tuple[Action, ...]:
    """What takes requests now is kept as it was stored, whatever became of its version, runtime or successor; and so
    is the way to what serves."""
    keys = set(observed.traffic.named)
    keeper = observed.fallback_revision
    if keeper is not None:
        keys.add(keeper.hash)
    kept = [EnsureRevision(observed.revisions[key].revision) for key in sorted(keys) if key in observed.revisions]
    return (*kept, SetTraffic(TrafficSplit.all_to(keeper))) if keeper is not None else tuple(kept)


def _keep_other_revisions(observed: Observation) -> tuple[Action, ...]:
    return tuple(action for action in keep_routed_revisions(observed) if action != _ensure_target(observed))


def _ensure_other_revisions(observed: Observation) -> tuple[Action, ...]:
    return tuple(action for action in _keep_other_revisions(observed) if isinstance(action, EnsureRevision))


def remove_obsolete(observed: Observation) -> tuple[RemoveRevision, ...]:
    """Revisions nobody wants leave, once traffic has been elsewhere for the settle time."""
    if observed.never_served:
        return tuple(RemoveRevision(revision) for revision in observed.obsolete_revisions)
    leaving = ((revision, observed.removable_at(revision)) for revision in observed.obsolete_revisions)
    return tuple(RemoveRevision(revision) for revision, when in leaving if when is not None and when <= observed.now)


def _ensure_target(observed: Observation) -> EnsureRevision:
    assert observed.target is not None  # noqa: S101 - the table's first row takes what has no target
    return EnsureRevision(observed.target)


def _route_to_target(observed: Observation) -> SetTraffic:
    assert observed.target is not None  # noqa: S101 - the table's first row takes what has no target
    return SetTraffic(TrafficSplit.all_to(observed.target))


def _start_target(observed: Observation) -> tuple[Action, ...]:
    if observed.never_served:
        # Nobody is served by anything else: naming the target early shows a taken name or a refused route at once,
        # and callers get "unavailable" rather than "not found".
        return (_ensure_target(observed), _route_to_target(observed), *remove_obsolete(observed))
    return (*_keep_other_revisions(observed), _ensure_target(observed), *remove_obsolete(observed))


def _switch_to_target(observed: Observation) -> tuple[Action, ...]:
    return (*_ensure_other_revisions(observed), _ensure_target(observed), _route_to_target(observed))


def maintain_target(observed: Observation) -> tuple[Action, ...]:
    return (*_switch_to_target(observed), *remove_obsolete(observed))


def _target_problem(observed: Observation) -> Problem:
    return observed.problem or Problem(Reason.WAITING_FOR_VERSION, "no version to serve yet")


def _target_pods_problem(observed: Observation) -> Problem:
    view = observed.target_view
    if view is None or observed.target is None:
        return Problem(Reason.WAITING_FOR_PODS, "the pods are about to be made")
    if view.failure is not None:
        return Problem(view.failure.reason, view.failure.message, stalled=True)
    who = f"version {observed.target.version}"
    if view.started is not None and observed.now - view.started > observed.start_timeout:
        seconds = int(observed.start_timeout.total_seconds())
        text = f"{who} was not ready within {seconds} s (spec.serving.startTimeout); its pods go on trying"
        return Problem(Reason.START_TIMEOUT, text, stalled=True)
    return Problem(Reason.WAITING_FOR_PODS, f"{who}: {view.available} of {observed.replicas} pods are ready")


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
        actions=_start_target,
        summary="keep what serves, run the target beside it, remove superseded revisions",
        requeue_after=requeue_in(POLL_PODS),
    ),
    StateRow(
        name="the target's pods are ready, but traffic does not name it alone",
        when=lambda o: o.target is not None and o.traffic.named != {o.target.hash},
        state=State.PROMOTING,
        reason=_takeover_problem,
        actions=_switch_to_target,
        summary="send all traffic to the target",
        requeue_after=requeue_in(POLL_GATEWAY),
    ),
    StateRow(
        name="traffic names the target, but the gateway has not been seen to follow",
        when=lambda o: not o.traffic.confirmed,
        state=State.PROMOTING,
        reason=_gateway_problem,
        actions=_switch_to_target,
        summary="ask the gateway again",
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
