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
"""States in which an object of the user runs, with the stage that it performs."""


DataRole = Literal["dataset", "holdout"]


@dataclass(frozen=True, slots=True)
class ResolvedData:
    """The digest of data, once it is known; `problem`: why it can't be resolved."""

    digest: str | None = None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class ChildRef:
    """The live object that performs a stage."""

    name: str
    uid: str
    kind: str = "Job"


@dataclass(frozen=True, slots=True)
class RunObservation:
    """The whole input of `decide_run`.

    `run`: its status is the record. `policy`: the snapshot in status.policy once there is one, else the live one; name
    and generation are the live one's. `problem`: why the run can't continue; a stalled one ends it unless an object of
    a stage is running. `earlier_runs`: names of older runs of the policy that have not ended. `serving`: name of the
    serving version. `stage` and `child`: of the stage that `current_stage` returns, also after the end of the run; None
    without its object. `last_inputs`: inputsHash of the last run that succeeded. `registered`: whether the ModelVersion
    exists, or why it can't be created. `version_outcome`: outcome of that version in its rollout. `cancelled_by`: name
    of a newer run that replaces this one. `kept_running`: the stage has ended, but its Job runs on, because a container
    injected by others keeps its pod from ending.
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
        """The state; Pending before the first reconciliation."""
        return RunState(self.status.state) if self.status.state is not None else RunState.PENDING

    @property
    def template(self) -> RunTemplate:
        """The policy's template of the run."""
        assert self.policy is not None  # noqa: S101 - earlier rows apply without a policy
        return self.policy.run

    def with_status(self, **changes: Any) -> RunObservation:
        """Return this observation with some members of the record changed."""
        status = self.status.model_copy(update=changes)
        return replace(self, run=self.run.model_copy(update={"status": status}))


def current_stage(status: TrainingRunStatus) -> StageStatus | None:
    """Return the entry of the stage in progress, or of the last one if the run has ended."""
    return status.stages[-1] if status.stages else None
