"""Results of the rollout table: an assessment for the status, and the actions to take."""

from dataclasses import dataclass
from datetime import timedelta

from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.rollout.actions import Action
from modelwright.core.rollout.observation import Observation
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.table import StateRow, Transition

POLL_PODS = timedelta(seconds=5)
"""Interval at which a rollout is reconciled that waits for pods."""
POLL_GATEWAY = timedelta(seconds=1)
"""Interval at which a rollout is reconciled that waits for the gateway."""


GATEWAY_GRACE = timedelta(seconds=10)
"""Time that a gateway may take to follow before its problem is reported."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """A state and its reason, for status and Events. `stalled`: a user has to act before the rollout continues."""

    state: State
    reason: str
    message: str
    stalled: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """Actions to take now, in order.

    `requeue_after`: time after which to reconcile again although no event may have come; None: only on an event.
    """

    actions: tuple[Action, ...]
    requeue_after: timedelta | None = None


RolloutRow = StateRow[Observation, State, Action] | Transition[Observation, RolloutRecord]
"""A row of the rollout table."""
