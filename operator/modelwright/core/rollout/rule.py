"""A row of the rollout table, and what is read from it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.rollout.actions import Action
from modelwright.core.rollout.observed import Observed, Problem
from modelwright.core.rollout.record import Record

WATCH_PODS = timedelta(seconds=5)
ASK_GATEWAY = timedelta(seconds=1)
LOOK_SELDOM = timedelta(seconds=30)


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
    """A row of the table. When `holds`, the rollout is in `state`, explained by `explain`, and `act` follows."""

    name: str
    holds: Callable[[Observed], bool]
    state: State
    explain: Callable[[Observed], Problem]
    act: Callable[[Observed], tuple[Action, ...]]
    does: str
    look_again: Callable[[Observed], timedelta | None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Transition:
    """A row that changes what the ModelRollout remembers: when `holds`, the record becomes `then`, and the table is
    read again from the top. Nothing is done before the change is written down."""

    name: str
    holds: Callable[[Observed], bool]
    then: Callable[[Observed], Record]
    does: str


Row = Rule | Transition


def after(wait: timedelta) -> Callable[[Observed], timedelta | None]:
    """Look again in `wait`, whatever is seen."""
    return lambda _: wait
