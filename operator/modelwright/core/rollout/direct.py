"""Rows of the rollout table that need no policy: no target, a first revision, all at once, keeping what serves."""

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.rollout.actions import Action, Remove, Run, SendTraffic
from modelwright.core.rollout.observed import Observed, Problem
from modelwright.core.rollout.routing import Routing
from modelwright.core.rollout.rule import ASK_GATEWAY, LOOK_SELDOM, WATCH_PODS, Rule, after


def keep_named(observed: Observed) -> tuple[Action, ...]:
    """What takes requests now is kept as it was stored, whatever became of its version, runtime or successor; and so
    is the way to what serves."""
    keys = set(observed.traffic.named)
    keeper = observed.keeper
    if keeper is not None:
        keys.add(keeper.hash)
    kept = [Run(observed.revisions[key].revision) for key in sorted(keys) if key in observed.revisions]
    return (*kept, SendTraffic(Routing.to(keeper))) if keeper is not None else tuple(kept)


def _keep_others(observed: Observed) -> tuple[Action, ...]:
    return tuple(action for action in keep_named(observed) if action != _run_target(observed))


def _run_others(observed: Observed) -> tuple[Action, ...]:
    return tuple(action for action in _keep_others(observed) if isinstance(action, Run))


def sweep(observed: Observed) -> tuple[Remove, ...]:
    """Revisions nobody wants leave, once traffic has been elsewhere for the settle time."""
    if observed.never_served:
        return tuple(Remove(revision) for revision in observed.leftovers)
    leaving = ((revision, observed.leaves_at(revision)) for revision in observed.leftovers)
    return tuple(Remove(revision) for revision, when in leaving if when is not None and when <= observed.now)


def _run_target(observed: Observed) -> Run:
    assert observed.target is not None  # noqa: S101 - the table's first row takes what has no target
    return Run(observed.target)


def _send(observed: Observed) -> SendTraffic:
    assert observed.target is not None  # noqa: S101 - the table's first row takes what has no target
    return SendTraffic(Routing.to(observed.target))


def _bring_up(observed: Observed) -> tuple[Action, ...]:
    if observed.never_served:
        # Nobody is served by anything else: naming the target early shows a taken name or a refused route at once,
        # and callers get "unavailable" rather than "not found".
        return (_run_target(observed), _send(observed), *sweep(observed))
    return (*_keep_others(observed), _run_target(observed), *sweep(observed))


def _switch(observed: Observed) -> tuple[Action, ...]:
    return (*_run_others(observed), _run_target(observed), _send(observed))


def keep(observed: Observed) -> tuple[Action, ...]:
    return (*_switch(observed), *sweep(observed))


def _no_target(observed: Observed) -> Problem:
    return observed.problem or Problem(Reason.WAITING_FOR_VERSION, "no version to serve yet")


def _pods_missing(observed: Observed) -> Problem:
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


def _unconfirmed(observed: Observed) -> Problem:
    if observed.traffic.problem is not None:
        return observed.traffic.problem
    return Problem(Reason.ROUTE_NOT_PROGRAMMED, "waiting for the gateway to follow the new route")


def _switching(observed: Observed) -> Problem:
    if observed.traffic.problem is not None:
        return observed.traffic.problem
    version = observed.target.version if observed.target else ""
    return Problem(Reason.WAITING_FOR_ROUTE, f"version {version} is ready and takes over the traffic")


def _served(observed: Observed) -> Problem:
    version = observed.target.version if observed.target else ""
    return Problem(Reason.SERVING, f"version {version} takes all traffic")


ROWS: tuple[Rule, ...] = (
    Rule(
        "there is no target, or it may not be acted upon",
        lambda o: o.target is None or o.problem is not None,
        State.PENDING,
        _no_target,
        lambda o: (*keep_named(o), *sweep(o)),
        "keep what serves",
        after(LOOK_SELDOM),
    ),
    Rule(
        "the target's pods are not all ready, and it does not serve yet",
        lambda o: not o.target_ready and not o.target_serves,
        State.PROGRESSING,
        _pods_missing,
        _bring_up,
        "keep what serves, run the target beside it, remove superseded revisions",
        after(WATCH_PODS),
    ),
    Rule(
        "the target's pods are ready, but traffic does not name it alone",
        lambda o: o.target is not None and o.traffic.named != {o.target.hash},
        State.PROMOTING,
        _switching,
        _switch,
        "send all traffic to the target",
        after(ASK_GATEWAY),
    ),
    Rule(
        "traffic names the target, but the gateway has not been seen to follow",
        lambda o: not o.traffic.confirmed,
        State.PROMOTING,
        _unconfirmed,
        _switch,
        "ask the gateway again",
        after(ASK_GATEWAY),
    ),
    Rule(
        "the target serves",
        lambda _: True,
        State.SUCCEEDED,
        _served,
        keep,
        "keep it as it is; remove the old revisions after the settle time",
    ),
)
