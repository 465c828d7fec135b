"""TrainingRun: the record of one training: its cause, the result of each stage, and the version it made."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from modelwright.api.cel import Cel, Cut, ListType
from modelwright.api.common import (
    INT64_MAX,
    LocalObjectReference,
    OpenObject,
    Resource,
    ShortStatusText,
    StatusText,
    StatusWire,
    Text63,
    Text253,
    Text1024,
    Timestamp,
    Wire,
)
from modelwright.api.conditions import Conditions
from modelwright.api.crd_info import AGE_COLUMN, Column, CrdInfo
from modelwright.api.v1alpha1.rollout import ClockStatus, PolicySnapshot, ReportStatus
from modelwright.api.v1alpha1.version import Parameters


class RunTrigger(Wire):
    """The event that started the run; written by the operator."""

    name: Text63 = Field(description="Name of the trigger in the policy.")
    identity: Text253 = Field(description="Identity of the event; each has one run.")
    message: Text1024 = Field(default="-", description="Why it fired, as text.")


class ManualRun(Wire):
    """A person's request for a run."""

    by: Text253 = Field(description="Who, as the API server knows them; admission demands the writer's own name.")
    reason: Text1024 = Field(description="Why.")
    parameters: Parameters = Field(
        default_factory=dict, description="Parameters that replace the policy's in this run."
    )


class TrainingRunSpec(Wire):
    """The cause of the run. Immutable."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel("self == oldSelf", "spec of a TrainingRun is immutable: delete the run to cancel it, create another one"),
        Cel(
            "has(self.trigger) != has(self.manual)",
            "spec.manual (who wants the run, and why) is needed in a TrainingRun that a person makes; the operator's "
            "own have a trigger instead",
            lambda self: (self.trigger is None) != (self.manual is None),
        ),
    )

    policy_ref: LocalObjectReference = Field(description="The RetrainingPolicy whose run this is.")
    policy_uid: Text63 | None = Field(default=None, description="uid of the policy; set by the operator.")
    trigger: RunTrigger | None = Field(default=None, description="The event that started it; set by the operator.")
    manual: ManualRun | None = Field(default=None, description="Makes this a run that a person requests.")


class RunState(StrEnum):
    """State of a run."""

    PENDING = "Pending"
    QUEUED = "Queued"
    RESOLVING = "Resolving"
    CHECKING_DATA = "CheckingData"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    REGISTERING = "Registering"
    SUCCEEDED = "Succeeded"
    SKIPPED = "Skipped"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class StageState(StrEnum):
    """State of the object of a stage, of any kind."""

    PENDING = "Pending"
    QUEUED = "Queued"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


StageName = Literal["dataCheck", "train", "evaluate"]


class DatasetStatus(StatusWire):
    """Data, by its digest."""

    uri: Annotated[str, Cut(2048)] = Field(description="Address of the data.")
    digest: ShortStatusText = Field(description="Digest that every stage checks.")


class StageStatus(StatusWire):
    """One stage that has started."""

    name: Annotated[str, Cut(63)] = Field(description="dataCheck, train or evaluate.")
    state: Annotated[str, Cut(63)] = Field(
        description="Pending, Queued, Running, Suspended, Succeeded, Failed or Unknown."
    )
    reason: Annotated[str, Cut(63)] = Field(default="", description="Why, as one of the documented reasons.")
    message: StatusText = Field(default="", description="Why, as text.")
    kind: Annotated[str, Cut(63)] = Field(default="Job", description="Kind of the object that runs it.")
    child: ShortStatusText = Field(default="", description="Name of the object that runs it.")
    uid: ShortStatusText = Field(
        default="", description="Its uid: each stage has one object, which is never created again."
    )
    started_at: Timestamp = Field(description="When it started, UTC.")
    finished_at: Timestamp | None = Field(default=None, description="When it ended, UTC.")
    clock: ClockStatus | None = Field(
        default=None, description="The clock of its timeout: it stops while the object is suspended or queued."
    )


class CheckStatus(StatusWire):
    """One check of the data."""

    name: Annotated[str, Cut(128)] = Field(description="Name of the check, such as nulls:age.")
    outcome: Annotated[str, Cut(63)] = Field(description="Pass or Fail.")
    message: Annotated[str, Cut(1024)] = Field(default="", description="Result of the check.")


class FigureStatus(StatusWire):
    """One figure of the evaluation."""

    name: Annotated[str, Cut(63)] = Field(description="Name of the figure.")
    slice: Annotated[str, Cut(63)] = Field(description="Part of the data; empty for all of it.")
    candidate: ShortStatusText = Field(description="The new version's figure.")
    serving: ShortStatusText | None = Field(default=None, description="The serving version's figure.")
    examples: int | None = Field(default=None, ge=0, le=INT64_MAX, description="Number of examples.")
    better: int | None = Field(
        default=None, ge=0, le=INT64_MAX, description="Examples for which only the new version is right."
    )
    worse: int | None = Field(
        default=None, ge=0, le=INT64_MAX, description="Examples for which only the serving version is right."
    )
    standard_error: ShortStatusText | None = Field(
        default=None, description="Standard error of the difference to the serving version."
    )
    candidate_standard_error: ShortStatusText | None = Field(
        default=None, description="Standard error of the new version's figure."
    )


class ResultMetric(StatusWire):
    """A figure that the training reported."""

    name: Annotated[str, Cut(63)] = Field(description="Name of the figure.")
    value: ShortStatusText = Field(description="The figure.")


class RunResult(StatusWire):
    """The report of the training."""

    uri: Annotated[str, Cut(2048)] = Field(description="Address of the artifact.")
    digest: ShortStatusText | None = Field(default=None, description="Digest of the artifact, if it was reported.")
    format: Annotated[str, Cut(63)] | None = Field(default=None, description="Format of the artifact.")
    format_version: Annotated[str, Cut(63)] | None = Field(default=None, description="Version of the format.")
    image: Annotated[str, Cut(1024)] | None = Field(default=None, description="Image that trained, with its digest.")
    repository: Annotated[str, Cut(1024)] | None = Field(default=None, description="Repository of the code.")
    commit: ShortStatusText | None = Field(default=None, description="Commit of the code.")
    reference: DatasetStatus | None = Field(
        default=None, description="Sample of the training data that drift is measured against, if one was reported."
    )
    metrics: Annotated[tuple[ResultMetric, ...], Field(max_length=64), ListType("map", ("name",))] = Field(
        default=(), description="Figures of the training. At most 64."
    )
    parameters: Annotated[dict[str, Annotated[str, Cut(1024)]], Field(max_length=128)] = Field(
        default_factory=dict, description="Parameters it was trained with, the best of a search. At most 128."
    )


class TrainingRunStatus(StatusWire):
    """The record."""

    observed_generation: int | None = Field(
        default=None, ge=0, le=INT64_MAX, description="metadata.generation that this status is about."
    )
    state: Annotated[str, Cut(63)] | None = Field(
        default=None,
        description="Pending, Queued, Resolving, CheckingData, Training, Evaluating, Registering, Succeeded, Skipped, "
        "Failed or Cancelled.",
    )
    reason: Annotated[str, Cut(63)] | None = Field(default=None, description="Why, as one of the documented reasons.")
    message: StatusText | None = Field(default=None, description="Why, as text.")
    since: Timestamp | None = Field(default=None, description="When this state began, UTC.")
    model: ShortStatusText | None = Field(default=None, description="The Model that is retrained.")
    policy: PolicySnapshot | None = Field(default=None, description="The policy as it was at the start.")
    started_at: Timestamp | None = Field(default=None, description="When it began, UTC.")
    finished_at: Timestamp | None = Field(default=None, description="When it ended, UTC.")
    clock: ClockStatus | None = Field(default=None, description="The clock of the deadline.")
    dataset: DatasetStatus | None = Field(default=None, description="Training data.")
    holdout: DatasetStatus | None = Field(default=None, description="Evaluation data.")
    inputs_hash: ShortStatusText | None = Field(
        default=None, description="Hash of data, parameters, seed and templates: two runs with the same one are equal."
    )
    compared_with: ShortStatusText | None = Field(
        default=None, description="The serving ModelVersion that the evaluation compares with."
    )
    stages: Annotated[tuple[StageStatus, ...], Field(max_length=8), ListType("map", ("name",))] = Field(
        default=(), description="Stages that have started. At most 8."
    )
    checks: Annotated[tuple[CheckStatus, ...], Field(max_length=128), ListType("map", ("name",))] = Field(
        default=(), description="Checks of the data; those that failed first. At most 128."
    )
    profile: OpenObject | None = Field(
        default=None, description="Profile of the dataset by the data check, for the check of the next run."
    )
    result: RunResult | None = Field(default=None, description="The report of the training.")
    figures: Annotated[tuple[FigureStatus, ...], Field(max_length=256), ListType("map", ("name", "slice"))] = Field(
        default=(), description="Figures of the evaluation. At most 256."
    )
    full_report: ReportStatus | None = Field(
        default=None, description="The full report of the evaluation, if it has put one elsewhere."
    )
    confusion_matrix: OpenObject | None = Field(
        default=None, description="Confusion matrix of the new version, as the evaluation reported it."
    )
    version: ShortStatusText | None = Field(default=None, description="The ModelVersion that it made.")
    outcome: Annotated[str, Cut(63)] | None = Field(
        default=None,
        description="Fate of the version: Announced (the Model is pinned to another), RollingOut, Serving, "
        "Undecided (a rollout to it ended without a finding against it), "
        "RolledBack or Superseded.",
    )
    conditions: Conditions = Field(default=(), description="Ready, Reconciling and Stalled, as kstatus defines them.")


class TrainingRun(Resource):
    """The record of one training."""

    __crd__: ClassVar[CrdInfo] = CrdInfo(
        plural="trainingruns",
        short_name="trn",
        description="A TrainingRun is the record of one training: its cause, the result of each stage, and the "
        "ModelVersion it made. The operator creates them from a RetrainingPolicy; a person may create one to "
        "train now.",
        columns=(
            Column("Policy", ".spec.policyRef.name", "The RetrainingPolicy."),
            Column("Model", ".status.model", "The Model that is retrained.", wide=True),
            Column("Trigger", ".spec.trigger.name", "The trigger that started it."),
            Column("By", ".spec.manual.by", "Who requested it.", wide=True),
            Column("State", ".status.state", "State of the run."),
            Column("Reason", ".status.reason", "Why it is in this state."),
            Column("Version", ".status.version", "The ModelVersion that it made."),
            Column("Outcome", ".status.outcome", "Fate of that version."),
            AGE_COLUMN,
        ),
        selectable_fields=(".spec.policyRef.name", ".status.state"),
        name_max=52,
    )

    kind: str = "TrainingRun"
    spec: TrainingRunSpec = Field(description="The cause of the run. Immutable.")
    status: TrainingRunStatus = Field(default_factory=TrainingRunStatus, description="The record.")
