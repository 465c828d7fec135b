"""The input of a decision on a TrainingRun: one frozen observation of the run, its data and its objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from modelwright.api.v1alpha1.retraining import RetrainingPolicySpec, RunTemplate
from modelwright.api.v1alpha1.training import RunState, StageName, StageStatus, TrainingRun, TrainingRunStatus
from modelwright.core.problem import Problem
from modelwright.core.retraining.stage_reading import StageReading

RUN_TERMINAL_STATES = frozenset({RunState.SUCCEEDED, RunState.SKIPPED, RunState.FAILED, RunState.CANCELLED})
"""States in which a run has ended: only `outcome` and conditions change."""


STAGES_BY_STATE: Mapping[RunState, StageName] = {
    RunState.CHECKING_DATA: "dataCheck",
    RunState.TRAINING: "train",
    RunState.EVALUATING: "evaluate",
}
"""States in which an object of the user's works, and the stage that it does."""


DataRole = Literal["dataset", "holdout"]


@dataclass(frozen=True, slots=True)
class ResolvedData:
    """The digest of data, when it is known; `problem` says why it can't be found out."""

    digest: str | None = None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class ChildRef:
    """The live object that does a stage."""

    name: str
    uid: str
    kind: str = "Job"


@dataclass(frozen=True, slots=True)
class RunObservation:
    """The whole input of `decide`.

    `run`: its status is where it stands. `policy`: the snapshot in status.policy once that is there, else the live one;
    name and generation are the live one's. `problem`: why the run can't go on; a stalled one ends it unless an object
    of a stage is at work. `before`: older runs of the policy that have not ended. `serving`: the version that serves.
    `stage` and `child`: of the stage that `present` names, also after the run's end; None when its object is not there.
    `last_inputs`: inputsHash of the last run that succeeded. `registered`: whether the ModelVersion is there, or why it
    can't be made. `cancelled_by`: a newer run that takes this one's place. `kept_running`: the stage is over, and its
    Job goes on, since a container of others keeps its pod from ending.
    """

    now: datetime
    run: TrainingRun
    policy: RetrainingPolicySpec | None = None
    policy_name: str = ""
    policy_generation: int = 0
    problem: Problem | None = None
    earlier_runs: tuple[str, ...] = ()
    serving: str | None = None
    dataset: ResolvedData | None = None
    holdout: ResolvedData | None = None
    stage: StageReading | None = None
    child: ChildRef | None = None
    last_inputs: str | None = None
    registered: bool | Problem = False
    version_outcome: str | None = None
    cancelled_by: str | None = None
    kept_running: bool = False

    @property
    def status(self) -> TrainingRunStatus:
        """The record."""
        return self.run.status

    @property
    def state(self) -> RunState:
        """Where the run stands; one that nobody has looked at yet is Pending."""
        return RunState(self.status.state) if self.status.state is not None else RunState.PENDING

    @property
    def template(self) -> RunTemplate:
        """What the run does."""
        assert self.policy is not None  # noqa: S101 - rows that come after "the policy can't be read" have one
        return self.policy.run

    def with_status(self, **changes: Any) -> RunObservation:
        """This picture with some members of the record changed."""
        status = self.status.model_copy(update=changes)
        return replace(self, run=self.run.model_copy(update={"status": status}))


def current_stage(status: TrainingRunStatus) -> StageStatus | None:
    """The stage whose object matters now: the one that goes on, or of a run that has ended the last one."""
    return status.stages[-1] if status.stages else None
