"""The rollout's states and decisions: one table, read from the top, the first row whose condition holds applies.

`docs/concepts/rollout-states.md` is made from this table, and a test holds the two against each other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.rollout.actions import Action, Remove, Run, SendTraffic
from modelwright.core.rollout.observed import Observed, Problem


@dataclass(frozen=True, slots=True)
class Assessment:
    """A state with the reason for it, for status and Events. `stalled`: it takes a person to go on."""

    state: State
    reason: str
    message: str
    stalled: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, in order, and when to look again although nothing may have happened (None: only on an event)."""

    actions: tuple[Action, ...]
    look_again: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the table: when `holds`, the rollout is in `state`, explained by `explain`, and `act` follows."""

    name: str
    holds: Callable[[Observed], bool]
    state: State
    explain: Callable[[Observed], Problem]
    act: Callable[[Observed], tuple[Action, ...]]
    does: str
    look_again: timedelta | None = None


WATCH_PODS = timedelta(seconds=5)
ASK_GATEWAY = timedelta(seconds=1)


def determine(observed: Observed) -> Assessment:
    """The state a Model's rollout is in."""
    rule = _rule(observed)
    why = rule.explain(observed)
    return Assessment(rule.state, why.reason, why.message, why.stalled)


def decide(observed: Observed) -> Decision:
    """The actions that follow from the state. At most one changes traffic; none when the Model is suspended."""
    if observed.suspended:
        return Decision(())
    rule = _rule(observed)
    wait = rule.look_again
    if wait is None and observed.leftovers:
        wait = observed.settle
    return Decision(rule.act(observed), wait)


def _rule(observed: Observed) -> Rule:
    return next(rule for rule in RULES if rule.holds(observed))


def _keep_named(observed: Observed) -> tuple[Action, ...]:
    """What takes requests now is kept as it was stored, whatever became of its version, runtime or successor; and so
    is the way to what serves."""
    keys = set(observed.traffic.named)
    keeper = observed.keeper
    if keeper is not None:
        keys.add(keeper.hash)
    kept = [Run(observed.revisions[key].revision) for key in sorted(keys) if key in observed.revisions]
    return (*kept, SendTraffic(keeper)) if keeper is not None else tuple(kept)


def _keep_others(observed: Observed) -> tuple[Action, ...]:
    return tuple(action for action in _keep_named(observed) if action != _run_target(observed))


def _run_others(observed: Observed) -> tuple[Action, ...]:
    return tuple(action for action in _keep_others(observed) if isinstance(action, Run))


def _sweep(observed: Observed) -> tuple[Action, ...]:
    """Revisions nobody wants leave, once traffic has been elsewhere for the settle time."""
    settled = observed.now if observed.never_served else observed.settled_at
    if settled is None or observed.now < settled:
        return ()
    return tuple(Remove(revision) for revision in observed.leftovers)


def _run_target(observed: Observed) -> Run:
    assert observed.target is not None  # noqa: S101 - the table's first row takes what has no target
    return Run(observed.target)


def _send(observed: Observed) -> SendTraffic:
    assert observed.target is not None  # noqa: S101 - the table's first row takes what has no target
    return SendTraffic(observed.target)


def _bring_up(observed: Observed) -> tuple[Action, ...]:
    if observed.never_served:
        # Nobody is served by anything else: naming the target early shows a taken name or a refused route at once,
        # and callers get "unavailable" rather than "not found".
        return (_run_target(observed), _send(observed), *_sweep(observed))
    return (*_keep_others(observed), _run_target(observed), *_sweep(observed))


def _switch(observed: Observed) -> tuple[Action, ...]:
    return (*_run_others(observed), _run_target(observed), _send(observed))


def _keep(observed: Observed) -> tuple[Action, ...]:
    return (*_switch(observed), *_sweep(observed))


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


def _settling(observed: Observed) -> Problem:
    names = ", ".join(sorted({revision.version for revision in observed.leftovers}))
    return Problem(Reason.SETTLING_TRAFFIC, f"traffic has moved; the old revision ({names}) leaves in a moment")


def _served(observed: Observed) -> Problem:
    version = observed.target.version if observed.target else ""
    return Problem(Reason.SERVING, f"version {version} takes all traffic")


RULES: tuple[Rule, ...] = (
    Rule(
        "there is no target, or it may not be acted upon",
        lambda o: o.target is None or o.problem is not None,
        State.PENDING,
        _no_target,
        lambda o: (*_keep_named(o), *_sweep(o)),
        "keep what serves",
        timedelta(seconds=30),
    ),
    Rule(
        "the target's pods are not all ready, and it does not serve yet",
        lambda o: not o.target_ready and not o.target_serves,
        State.PROGRESSING,
        _pods_missing,
        _bring_up,
        "keep what serves, run the target beside it, remove superseded revisions",
        WATCH_PODS,
    ),
    Rule(
        "the target's pods are ready, but traffic does not name it alone",
        lambda o: o.target is not None and o.traffic.named != {o.target.hash},
        State.PROMOTING,
        _switching,
        _switch,
        "send all traffic to the target",
        ASK_GATEWAY,
    ),
    Rule(
        "traffic names the target, but the gateway has not been seen to follow",
        lambda o: not o.traffic.confirmed,
        State.PROMOTING,
        _unconfirmed,
        _switch,
        "ask the gateway again",
        ASK_GATEWAY,
    ),
    Rule(
        "the target serves, and old revisions are still there",
        lambda o: bool(o.leftovers),
        State.PROMOTING,
        _settling,
        _keep,
        "remove the old revisions after the settle time",
        ASK_GATEWAY,
    ),
    Rule(
        "the target serves alone",
        lambda _: True,
        State.SUCCEEDED,
        _served,
        _keep,
        "keep it as it is",
    ),
)
