"""What a decision asks for, as data; `reconcile/actions.py` carries it out."""

from dataclasses import dataclass

from modelwright.core.revision import Revision
from modelwright.core.rollout.traffic_split import TrafficSplit


@dataclass(frozen=True, slots=True)
class EnsureRevision:
    """Have this revision's children as they are rendered: made when missing, mended when they drifted.

    `pods`: how many, or at least how many where an autoscaler may add to them; None as the Model's spec has it.
    """

    revision: Revision
    replicas: int | None = None


@dataclass(frozen=True, slots=True)
class SetTraffic:
    """Have requests go so. Also sent when nothing changes: the route is mended when it drifted."""

    split: TrafficSplit


@dataclass(frozen=True, slots=True)
class RemoveRevision:
    """Take this revision's pods away. Never sent for a revision that traffic names.

    `pods_only`: all but the Deployment, which is scaled to nothing. Other pods may then follow as soon as it has none;
    those of a Deployment that is deleted stay for as long as the garbage collector takes.
    """

    revision: Revision
    pods_only: bool = False


@dataclass(frozen=True, slots=True)
class StartRollout:
    """Make the ModelRollout of the move to the target."""

    number: int


@dataclass(frozen=True, slots=True)
class RunGate:
    """Have this gate's Job run: scan, evaluation or infra."""

    gate: str


@dataclass(frozen=True, slots=True)
class EnsureComparer:
    """Have the comparer run that asks both revisions what callers ask one of them."""

    serving: Revision
    candidate: Revision


Action = EnsureRevision | SetTraffic | RemoveRevision | StartRollout | RunGate | EnsureComparer
