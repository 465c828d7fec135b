"""What a decision asks for, as data; `reconcile/actions.py` carries it out."""

from dataclasses import dataclass

from modelwright.core.rollout.observed import Revision


@dataclass(frozen=True, slots=True)
class Run:
    """Have this revision's children as they are rendered: made when missing, mended when they drifted."""

    revision: Revision


@dataclass(frozen=True, slots=True)
class SendTraffic:
    """Have all requests go to this revision. Also sent when nothing changes: the route is mended when it drifted."""

    revision: Revision


@dataclass(frozen=True, slots=True)
class Remove:
    """Take this revision's pods away. Never sent for a revision that traffic names."""

    revision: Revision


Action = Run | SendTraffic | Remove
