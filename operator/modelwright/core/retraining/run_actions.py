"""Actions on a TrainingRun, as data; `reconcile` carries them out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from modelwright.api.v1alpha1.training import StageName, TrainingRunStatus
from modelwright.core.retraining.run_observation import DataRole


@dataclass(frozen=True, slots=True)
class ResolveData:
    """Have the digest of this data found out."""

    which: DataRole


@dataclass(frozen=True, slots=True)
class StartStage:
    """Make the object of this stage, if there is none of its name. The record says already that it has begun."""

    stage: StageName


@dataclass(frozen=True, slots=True)
class StopStage:
    """End the object of this stage: the run has ended, whatever it would still come to."""

    stage: StageName


@dataclass(frozen=True, slots=True)
class RegisterVersion:
    """Make the ModelVersion of the result, if it is not there."""

    version: str


RunAction = ResolveData | StartStage | StopStage | RegisterVersion


@dataclass(frozen=True, slots=True)
class RunDecision:
    """The record, to be written first; what to do after that, in order; and when to look again although nothing may
    have happened (None: only on an event)."""

    status: TrainingRunStatus
    actions: tuple[RunAction, ...] = ()
    requeue_after: timedelta | None = None
