"""A row of the rollout table, and what is read from it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.problem import Problem
from modelwright.core.rollout.actions import Action
from modelwright.core.rollout.observation import Observation
from modelwright.core.rollout.record import RolloutRecord

POLL_PODS = timedelta(seconds=5)
POLL_GATEWAY = timedelta(seconds=1)
POLL_IDLE = timedelta(seconds=30)


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
    requeue_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class StateRow:
    """A row of the table. When `holds`, the rollout is in `state`, explained by `explain`, and `act` follows."""

    name: str
    when: Callable[[Observation], bool]
    state: State
    reason: Callable[[Observation], Problem]
    actions: Callable[[Observation], tuple[Action, ...]]
    summary: str
    requeue_after: Callable[[Observation], timedelta | None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Transition:
    """A row that changes what the ModelRollout remembers: when `holds`, the record becomes `then`, and the table is
    read again from the top. Nothing is done before the change is written down."""

    name: str
    when: Callable[[Observation], bool]
    update: Callable[[Observation], RolloutRecord]
    summary: str


Row = StateRow | Transition


def requeue_in(wait: timedelta) -> Callable[[Observation], timedelta | None]:
    """Look again in `wait`, whatever is seen."""
    return lambda _: wait
