"""Actions of a rollout decision, as data; `reconcile` carries them out."""

from dataclasses import dataclass

from modelwright.core.revision import Revision
from modelwright.core.rollout.traffic_split import TrafficSplit


@dataclass(frozen=True, slots=True)
class EnsureRevision:
    """Ensure that this revision's children are as rendered: create missing ones, repair drifted ones.

    `replicas`: number of pods, or the minimum if an autoscaler may add to them; None: as in the Model's spec.
    """

    revision: Revision
    replicas: int | None = None


@dataclass(frozen=True, slots=True)
class SetTraffic:
    """Set the destinations of requests. Also sent when nothing changes, to repair a drifted route."""

    split: TrafficSplit


@dataclass(frozen=True, slots=True)
class RemoveRevision:
    """Remove this revision's pods. Never sent for a revision that traffic names.

    `pods_only`: scale the Deployment to 0 instead of deleting it. Other pods can then take their place as soon as they
    are gone; those of a deleted Deployment stay until the garbage collector acts.
    """

    revision: Revision
    pods_only: bool = False


@dataclass(frozen=True, slots=True)
class StartRollout:
    """Create the ModelRollout, of this number, that moves the Model to the target."""

    number: int


@dataclass(frozen=True, slots=True)
class RunGate:
    """Ensure that the Job of this gate runs: scan, evaluation or infra."""

    gate: str


@dataclass(frozen=True, slots=True)
class EnsureComparer:
    """Ensure that the comparer runs, which sends mirrored requests of callers to both revisions."""

    serving: Revision
    candidate: Revision


Action = EnsureRevision | SetTraffic | RemoveRevision | StartRollout | RunGate | EnsureComparer
