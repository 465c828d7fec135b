"""ModelRollout: the record of one attempt to move a Model to a revision, and the place for commands to it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from modelwright.api.cel import Cel, Cut, ListType
from modelwright.api.common import (
    INT64_MAX,
    MAX_AUTHORS,
    LocalObjectReference,
    OpenObject,
    Resource,
    ShortStatusText,
    StatusInt,
    StatusText,
    StatusWire,
    Subdomain,
    Text63,
    Text253,
    Text1024,
    Timestamp,
    Wire,
)
from modelwright.api.conditions import Conditions
from modelwright.api.crd_info import AGE_COLUMN, Column, CrdInfo

CommandName = Literal["pause", "resume", "promote", "abort", "retry", "release"]


class RolloutTarget(Wire):
    """The revision to move to."""

    version: Subdomain = Field(description="Name of the ModelVersion.")
    revision: Text63 | None = Field(
        default=None, description="Hash of the revision. When absent, the one that this version was last served by."
    )


class Rollback(Wire):
    """A person takes the Model to a version at once, and holds it there."""

    by: Text253 = Field(description="Who, as the API server knows them; admission demands the writer's own name.")
    reason: Text1024 = Field(description="Why.")


class Command(Wire):
    """A person's command to this rollout."""

    name: CommandName = Field(
        description="pause, resume; promote: finish without further evidence; abort: go back; retry: try a "
        "rolled-back revision again; release: end the hold of a manual rollback."
    )
    token: Text63 = Field(description="Any text; each token is executed once.")
    by: Text253 = Field(description="Who, as the API server knows them; admission demands the writer's own name.")
    reason: Text1024 = Field(description="Why.")


class ModelRolloutSpec(Wire):
    """The attempted move. Immutable, except for the command."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "self.modelRef == oldSelf.modelRef && self.target == oldSelf.target && "
            "has(self.number) == has(oldSelf.number) && (!has(self.number) || self.number == oldSelf.number) && "
            "has(self.modelUid) == has(oldSelf.modelUid) && (!has(self.modelUid) || self.modelUid == oldSelf.modelUid) "
            "&& has(self.rollback) == has(oldSelf.rollback) && "
            "(!has(self.rollback) || self.rollback == oldSelf.rollback)",
            "spec of a ModelRollout is immutable, but for spec.command",
        ),
        Cel(
            "has(self.number) != has(self.rollback)",
            "spec.rollback (who goes back, and why) is needed in a ModelRollout that a person makes; the operator's "
            "own have a number instead",
            lambda self: (self.number is None) != (self.rollback is None),
        ),
    )

    model_ref: LocalObjectReference = Field(description="The Model.")
    model_uid: Text63 | None = Field(default=None, description="uid of the Model; set by the operator.")
    number: Annotated[int, Field(strict=True, ge=1, le=1000000000)] | None = Field(
        default=None, description="Counts the operator's rollouts of the Model; set by the operator."
    )
    target: RolloutTarget = Field(description="The revision to move to.")
    rollback: Rollback | None = Field(
        default=None, description="Makes this a manual rollback: at once, without gates, steps and freezes."
    )
    command: Command | None = Field(default=None, description="A person's command to this rollout.")


class RolloutState(StrEnum):
    """State of a move to another revision."""

    PENDING = "Pending"
    GATING = "Gating"
    PROGRESSING = "Progressing"
    HOLDING = "Holding"
    AWAITING_APPROVAL = "AwaitingApproval"
    PROMOTING = "Promoting"
    SUCCEEDED = "Succeeded"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"
    SUPERSEDED = "Superseded"


class RevisionRef(StatusWire):
    """A revision."""

    version: ShortStatusText = Field(description="Name of the ModelVersion.")
    revision: ShortStatusText = Field(description="Hash of the revision.")


class PolicySnapshot(StatusWire):
    """The policy as it was when the rollout began; later edits concern later rollouts."""

    name: ShortStatusText = Field(description="Name of the policy.")
    generation: int = Field(default=0, ge=0, le=INT64_MAX, description="Its metadata.generation.")
    spec: OpenObject = Field(description="Its spec; empty when storedIn is given.")
    stored_in: ShortStatusText | None = Field(
        default=None,
        description="Name of the ControllerRevision that holds a spec of more than 8 KiB (data.spec); it ends with a "
        "hash of that spec.",
    )

    @property
    def is_lost(self) -> bool:
        """True when the spec is stored separately but is missing."""
        return self.stored_in is not None and not self.spec


class StepStatus(StatusWire):
    """One step that has started."""

    index: StatusInt = Field(description="Place in the list of steps, from 0.")
    kind: Annotated[str, Cut(63)] = Field(description="mirror, weight, match, approval, hold or abTest.")
    weight: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None, description="Share of the callers' requests for the candidate, in percent."
    )
    started_at: Timestamp = Field(description="When it started, UTC.")
    confirmed_at: Timestamp | None = Field(
        default=None, description="When the traffic was confirmed to match the step; hold and evidence count from here."
    )
    finished_at: Timestamp | None = Field(default=None, description="When it ended, UTC.")
    outcome: Annotated[str, Cut(63)] | None = Field(
        default=None,
        description="Pass, Fail (the rollout went back, or a person promoted the candidate nevertheless), "
        "Skipped, Ended; absent while it is active.",
    )


class VerdictStatus(StatusWire):
    """Verdict of one metric in one step: the latest, and at the end the deciding one."""

    step: StatusInt = Field(description="Index of the step.")
    metric: ShortStatusText = Field(description="Name of the metric.")
    outcome: Annotated[str, Cut(63)] = Field(description="Pass, Fail, Inconclusive or Error.")
    reason: Annotated[str, Cut(63)] = Field(default="", description="Why, as one of the documented reasons.")
    message: StatusText = Field(default="", description="Why, with the numbers.")
    candidate: ShortStatusText | None = Field(default=None, description="The candidate's figure.")
    serving: ShortStatusText | None = Field(default=None, description="The serving revision's figure.")
    low: ShortStatusText | None = Field(default=None, description="Lower end of the interval that was judged.")
    high: ShortStatusText | None = Field(default=None, description="Upper end of the interval that was judged.")
    limit: ShortStatusText | None = Field(default=None, description="The limit it was judged by.")
    samples: int | None = Field(default=None, ge=0, le=INT64_MAX, description="Requests of the candidate.")
    serving_samples: int | None = Field(
        default=None, ge=0, le=INT64_MAX, description="Requests of the serving revision."
    )
    failures: StatusInt | None = Field(default=None, description="Measurements outside the limits.")
    dry_run: bool | None = Field(default=None, description="True when it decides nothing.")
    query: StatusText | None = Field(default=None, description="The query that was sent.")
    blocks: StatusText | None = Field(
        default=None,
        description="The deciding counts in at most 64 blocks of time, written when the step has ended: end in unix "
        "seconds, "
        "bad/all requests of the candidate, bad/all of the serving revision; separated by commas.",
    )
    at: Timestamp | None = Field(default=None, description="When this was last measured and written, UTC.")


class ReportStatus(StatusWire):
    """A report that is kept elsewhere, by its digest."""

    uri: Annotated[str, Cut(2048)] = Field(description="Address of the report.")
    digest: ShortStatusText = Field(description="Digest of the report.")


class GateStatus(StatusWire):
    """Result of a gate."""

    name: Annotated[str, Cut(63)] = Field(description="scan, evaluation, infra or approval.")
    outcome: Annotated[str, Cut(63)] = Field(description="Running, Pass, Fail, Inconclusive or Error.")
    reason: Annotated[str, Cut(63)] = Field(default="", description="Why, as one of the documented reasons.")
    message: StatusText = Field(default="", description="Why, with the figures.")
    report: ReportStatus | None = Field(
        default=None, description="The full report of the evaluation, if its Job has put one elsewhere."
    )
    at: Timestamp | None = Field(default=None, description="When it ended, UTC.")


class CommandStatus(StatusWire):
    """A command and its result."""

    name: Annotated[str, Cut(63)] = Field(description="Name of the command.")
    token: Annotated[str, Cut(63)] = Field(description="Its token.")
    by: ShortStatusText = Field(description="Author of the command.")
    reason: StatusText = Field(default="", description="Why, in their words.")
    at: Timestamp = Field(description="When it was accepted or refused, UTC.")
    accepted: bool = Field(default=True, description="Whether it was executed.")
    message: StatusText = Field(default="", description="Its effect, or why it was refused.")


class ApprovalRecord(StatusWire):
    """An Approval that counted."""

    name: ShortStatusText = Field(description="Name of the Approval.")
    approver: ShortStatusText = Field(description="Who.")
    decision: Annotated[str, Cut(63)] = Field(description="Approve or Reject.")
    reason: StatusText = Field(default="", description="Why, in their words.")
    place: Annotated[str, Cut(63)] = Field(description="gate, or step and its index.")
    at: Timestamp = Field(description="When it was taken into account, UTC.")


class AuthorsStatus(StatusWire):
    """The authors of one of the objects that the candidate is made of."""

    kind: Annotated[str, Cut(63)] = Field(
        description="Model, ModelVersion, ModelRuntime, ClusterModelRuntime or RolloutPolicy."
    )
    name: ShortStatusText = Field(description="Name of the object.")
    content: ShortStatusText = Field(description="Hash of what approvals are about.")
    by: Annotated[tuple[ShortStatusText, ...], Field(max_length=MAX_AUTHORS), ListType("set")] = Field(
        default=(),
        description="Authors of changes since the serving revision was made from it. Empty when it is unchanged, or "
        "when "
        f"all who changed it are unknown. At most {MAX_AUTHORS}.",
    )
    unknown: bool = Field(default=False, description="Whether someone unknown has changed it.")


class ClockStatus(StatusWire):
    """The clock of the deadline: it stops during approvals, freezes and pauses."""

    elapsed_seconds: StatusInt = Field(default=0, description="Seconds counted until runningSince.")
    running_since: Timestamp | None = Field(default=None, description="Since when it runs; absent while it is stopped.")


class ModelRolloutStatus(StatusWire):
    """The record."""

    observed_generation: int | None = Field(
        default=None, ge=0, le=INT64_MAX, description="metadata.generation that this status is about."
    )
    state: Annotated[str, Cut(63)] | None = Field(
        default=None,
        description="Pending, Gating, Progressing, Holding, AwaitingApproval, Promoting, Succeeded, RollingBack, "
        "RolledBack, Aborted or Superseded.",
    )
    reason: Annotated[str, Cut(63)] | None = Field(default=None, description="Why, as one of the documented reasons.")
    message: StatusText | None = Field(default=None, description="Why, as text.")
    since: Timestamp | None = Field(default=None, description="When this state began, UTC.")
    from_: RevisionRef | None = Field(
        default=None, alias="from", description="The revision that served when it began; absent for a first one."
    )
    to: RevisionRef | None = Field(default=None, description="The revision it moves to: the candidate.")
    held_from: ShortStatusText | None = Field(
        default=None,
        description="Set for manual rollbacks: a hash of the Model's spec.version at the start; when spec.version "
        "changes, "
        "the hold ends.",
    )
    content_hash: ShortStatusText | None = Field(
        default=None,
        description="Hash of what is rolled out: version, digest, revision and policy. Approvals name it.",
    )
    ending: Annotated[str, Cut(63)] | None = Field(
        default=None,
        description="The state in which it will end once traffic is back: RolledBack, Aborted, Superseded.",
    )
    policy: PolicySnapshot | None = Field(default=None, description="The policy as it was at the start.")
    step: StatusInt | None = Field(default=None, description="Index of the current step, from 0.")
    progress: ShortStatusText | None = Field(default=None, description="Current step and number of steps, such as 2/3.")
    weight: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None, description="Share of the callers' requests that the candidate is to have, in percent."
    )
    observed_weight: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None,
        description="Observed share since the step began; absent below 100 requests.",
    )
    verdict: Annotated[str, Cut(63)] | None = Field(default=None, description="Verdict of the current step.")
    preview: Annotated[str, Cut(2048)] | None = Field(
        default=None, description="Address of the candidate inside the cluster, separate from callers' traffic."
    )
    started_at: Timestamp | None = Field(default=None, description="When it began, UTC.")
    finished_at: Timestamp | None = Field(default=None, description="When it ended, UTC.")
    clock: ClockStatus | None = Field(default=None, description="The clock of the deadline.")
    paused: bool | None = Field(default=None, description="Whether a person has paused it.")
    freeze_overridden: bool | None = Field(
        default=None, description="Whether a person let it proceed in spite of the policy's spec.freeze."
    )
    without_evidence: bool | None = Field(
        default=None, description="Whether a person promoted it without the evidence that the policy asks for."
    )
    released: bool | None = Field(default=None, description="Whether the hold of a manual rollback has ended.")
    retried: bool | None = Field(default=None, description="Whether a person allowed this revision to be tried again.")
    lapsed: bool | None = Field(
        default=None, description="Whether the Model has targeted another revision since this one was rolled back."
    )
    steps: Annotated[tuple[StepStatus, ...], Field(max_length=32), ListType("map", ("index",))] = Field(
        default=(), description="Steps that have started. At most 32."
    )
    gates: Annotated[tuple[GateStatus, ...], Field(max_length=8), ListType("map", ("name",))] = Field(
        default=(), description="Gates and their results. At most 8."
    )
    verdicts: Annotated[tuple[VerdictStatus, ...], Field(max_length=512), ListType("map", ("step", "metric"))] = Field(
        default=(), description="Per step and metric the latest, then the deciding verdict. At most 512."
    )
    commands: Annotated[tuple[CommandStatus, ...], Field(max_length=64), ListType("map", ("token",))] = Field(
        default=(), description="Commands and their results. At most 64."
    )
    authors: Annotated[tuple[AuthorsStatus, ...], Field(max_length=8), ListType("map", ("kind",))] = Field(
        default=(),
        description="Authors of what the candidate is made of: their approvals do not count. Kept only with a policy "
        "that asks for approval. At most 8.",
    )
    approvals: Annotated[tuple[ApprovalRecord, ...], Field(max_length=64), ListType("map", ("name", "place"))] = Field(
        default=(), description="Approvals that counted. At most 64."
    )
    conditions: Conditions = Field(
        default=(), description="Ready, Reconciling and Stalled, as kstatus defines them, and EvidenceAsked."
    )


class ModelRollout(Resource):
    """The record of one attempt to move a Model to a revision."""

    __crd__: ClassVar[CrdInfo] = CrdInfo(
        plural="modelrollouts",
        short_name="mro",
        description="A ModelRollout is the record of one attempt to move a Model to a revision: policy, steps, "
        "evidence, decision, approvals. The operator creates them; a person may create one to go back at once.",
        columns=(
            Column("Model", ".spec.modelRef.name", "The Model."),
            Column("From", ".status.from.version", "ModelVersion that served."),
            Column("To", ".spec.target.version", "ModelVersion it moves to."),
            Column("State", ".status.state", "State of the rollout."),
            Column("Step", ".status.progress", "Current step and number of steps."),
            Column("Weight", ".status.weight", "Share of the requests for the candidate, in percent.", type="integer"),
            Column("Verdict", ".status.verdict", "Verdict of the current step."),
            Column("Reason", ".status.reason", "Why it is in this state."),
            AGE_COLUMN,
        ),
        selectable_fields=(".spec.modelRef.name", ".status.state"),
    )

    kind: str = "ModelRollout"
    spec: ModelRolloutSpec = Field(description="The attempted move. Immutable, except for the command.")
    status: ModelRolloutStatus = Field(default_factory=ModelRolloutStatus, description="The record.")
