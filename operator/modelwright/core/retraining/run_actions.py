"""Actions on a TrainingRun, and the decision that holds them, as data; `reconcile` carries them out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from modelwright.api.v1alpha1.training import StageName, TrainingRunStatus
from modelwright.core.retraining.run_observation import DataRole


@dataclass(frozen=True, slots=True)
class ResolveData:
    """Resolve the digest of this data."""

    which: DataRole


@dataclass(frozen=True, slots=True)
class StartStage:
    """Create the object of this stage, unless one of its name exists. The record has the start of the stage already."""

    stage: StageName


@dataclass(frozen=True, slots=True)
class StopStage:
    """Stop the object of this stage, because the run has already ended."""

    stage: StageName


@dataclass(frozen=True, slots=True)
class RegisterVersion:
    """Create the ModelVersion of the result, unless it exists."""

    version: str


RunAction = ResolveData | StartStage | StopStage | RegisterVersion


@dataclass(frozen=True, slots=True)
class RunDecision:
    """The record, to be written first; the actions to take after that, in order; and the time after which to reconcile
    again although no event may have come (None: only on an event)."""

    status: TrainingRunStatus
    actions: tuple[RunAction, ...] = ()
    requeue_after: timedelta | None = None
