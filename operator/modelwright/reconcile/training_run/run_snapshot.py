"""A run and the objects that its decision depends on, as one reconciliation sees them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from modelwright.api.common import InvalidObject, list_problems, parse_duration
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.retraining import (
    RetrainingPolicy,
    RetrainingPolicySpec,
    Work,
)
from modelwright.api.v1alpha1.training import (
    StageStatus,
    TrainingRun,
)
from modelwright.api.v1alpha1.version import Artifact, ModelFormat
from modelwright.core.problem import Problem
from modelwright.core.retraining.run_machine import (
    current_stage,
)
from modelwright.engines.providers import choose_engine
from modelwright.kube import kinds
from modelwright.kube.kinds import Kind
from modelwright.reconcile.context import Context
from modelwright.reconcile.model_rollout import DEFAULT_HISTORY_TTL
from modelwright.render import helper_pod_placement
from modelwright.render.images import Images

Object = dict[str, Any]


@dataclass(frozen=True)
class RunSnapshot:
    """A run with the objects that its decision depends on, as one reconciliation sees them."""

    raw: Object
    run: TrainingRun
    policy_raw: Object | None
    spec: RetrainingPolicySpec | None
    """The policy as it was when the run started, else as it is; None when neither can be read."""
    problem: Problem | None
    """Why the run can't continue by that policy."""
    model_raw: Object | None
    model: Model | None

    @property
    def model_name(self) -> str:
        """Name of the policy's Model; empty while the policy is unknown."""
        return self.spec.model_ref.name if self.spec is not None else ""

    @property
    def serving_version(self) -> str | None:
        """The version that the Model serves."""
        serving = self.model.status.serving if self.model is not None else None
        return serving.version if serving is not None else None

    @property
    def current_stage(self) -> tuple[StageStatus, Work] | None:
        """The stage whose object matters now, and the work it does."""
        entry = current_stage(self.run.status)
        work = self.stage_work(entry.name) if entry is not None else None
        return (entry, work) if entry is not None and work is not None else None

    def stage_work(self, stage: str) -> Work | None:
        """The work of a stage; None for a stage that the policy leaves out."""
        if self.spec is None:
            return None
        template = self.spec.run
        return {"dataCheck": template.data_check, "train": template.train, "evaluate": template.evaluate}[stage]

    def helper_images(self, images: Images) -> Images:
        """The images of helper pods, with the placement that the Model requests."""
        return helper_pod_placement.with_model_placement(images, self.model_raw)

    def is_expired(self, now: datetime) -> bool:
        """Whether the run has ended, and its policy has been gone for historyTTL."""
        ended, policy = self.run.status.finished_at, self.policy_raw
        if ended is None or (policy is not None and self.run.spec.policy_uid in (None, policy["metadata"]["uid"])):
            return False
        if self.spec is None:
            return now - ended >= DEFAULT_HISTORY_TTL
        return now - ended >= timedelta(seconds=parse_duration(self.spec.history_ttl))


def read_snapshot(context: Context, raw: Object, run: TrainingRun) -> RunSnapshot:
    """Read what the decision about a run depends on from the store."""
    policy_raw = context.store.get(kinds.RETRAINING_POLICY, run.namespace, run.spec.policy_ref.name)
    spec, problem = _read_policy(context, run, policy_raw)
    model_raw = context.store.get(kinds.MODEL, run.namespace, spec.model_ref.name) if spec is not None else None
    return RunSnapshot(raw, run, policy_raw, spec, problem, model_raw, _parse_model(model_raw))


def _read_policy(
    context: Context, run: TrainingRun, policy_raw: Object | None
) -> tuple[RetrainingPolicySpec | None, Problem | None]:
    """The policy that the run follows, or why it can't be read."""
    stored = run.status.policy
    if stored is not None and stored.is_lost:
        text = (
            f"status.policy: ControllerRevision {stored.stored_in}, which holds the policy that the run began with, "
            "is gone or holds something else: start another run"
        )
        return None, Problem(Reason.INVALID_POLICY, text, stalled=True)
    if stored is not None:
        try:
            return RetrainingPolicySpec.model_validate(stored.spec, by_alias=True, by_name=False), None
        except ValidationError as error:
            text = "; ".join(f"{path}: {message}" for path, message in list_problems(error))
            return None, Problem(Reason.INVALID_POLICY, f"status.policy: {text}", stalled=True)
    name = run.spec.policy_ref.name
    if policy_raw is None:
        return None, Problem(Reason.WAITING_FOR_POLICY, f"spec.policyRef: there is no RetrainingPolicy {name}")
    try:
        return RetrainingPolicy.parse(policy_raw).spec, _manual_start_problem(context, run)
    except InvalidObject as error:
        return None, Problem(Reason.INVALID_POLICY, f"RetrainingPolicy {name}: {error.message}", stalled=True)


def _manual_start_problem(context: Context, run: TrainingRun) -> Problem | None:
    """Why a manual start can't be trusted: admission has not verified its author."""
    if run.spec.manual is None:
        return None
    admission, created = context.admission(run.namespace), run.metadata.creation_timestamp
    if admission.in_force and (admission.since is None or (created is not None and created >= admission.since)):
        return None
    text = admission.problem or "admission has not proved who started this run; create it again"
    return Problem(Reason.ADMISSION_POLICY_MISSING, text, stalled=admission.in_force is not None)


def _parse_model(raw: Object | None) -> Model | None:
    try:
        return Model.parse(raw) if raw is not None else None
    except InvalidObject:
        return None


def find_kind(context: Context, work: Work) -> Kind | None:
    """The kind that does a stage; None when the operator may not create it."""
    if work.job is not None:
        return kinds.JOB
    api_version, name = choose_engine(work).resolve_kind(work)
    group = api_version.rpartition("/")[0]
    return next((kind for kind in context.training_kinds if (kind.group, kind.kind) == (group, name)), None)


def missing_kind_problem(context: Context, snapshot: RunSnapshot) -> Problem | None:
    """Why the current stage can't start: its kind is allowed, and its controller is not installed (yet)."""
    stage = snapshot.current_stage
    kind = find_kind(context, stage[1]) if stage is not None else None
    if kind is None or kind in (kinds.JOB, *context.served_kinds):
        return None
    return Problem(Reason.KIND_NOT_INSTALLED, f"the cluster has no kind {kind} ({kind.api_version}) now")


def trained_artifact(run: TrainingRun, spec: RetrainingPolicySpec) -> Artifact | None:
    """The artifact that the training reported; None before it did."""
    result, output = run.status.result, spec.run.output
    if result is None:
        return None
    format_name = result.format or output.format.name
    version = result.format_version or (output.format.version if format_name == output.format.name else None)
    return Artifact(
        uri=result.uri,
        digest=result.digest,
        format=ModelFormat(name=format_name, version=version),
        service_account_name=output.service_account_name,
        credentials_secret_ref=output.credentials_secret_ref,
    )
