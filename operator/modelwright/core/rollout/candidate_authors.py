"""Who authored a rollout's candidate, and which content the approvers approve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.api.v1alpha1.model import ChangeStatus, Model
from modelwright.api.v1alpha1.policy import RolloutPolicy, RolloutPolicySpec
from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.core import approvals, authors
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.revision import Revision
from modelwright.core.rollout.observation import Observation
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.rollout.steps import StepKind, compile_steps
from modelwright.core.runtime_choice import RuntimeChoice

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CandidateContent:
    """What a candidate is made of, as far as known; `stored`: its ControllerRevision, written or about to be."""

    version: ModelVersion | None = None
    digest: str | None = None
    choice: RuntimeChoice | None = None
    stored: Object | None = None


def needs_approval(policy: RolloutPolicySpec) -> bool:
    """Whether a gate or a step of the policy waits for approvals."""
    gate = policy.gates is not None and policy.gates.approval is not None
    return gate or any(step.kind is StepKind.APPROVAL for step in compile_steps(policy.strategy))


def list_changes(
    model: Model,
    records: Iterable[RolloutRecord],
    base: Observation,
    policy: RolloutPolicy | None,
    content: CandidateContent,
    stored: Mapping[str, Object],
) -> tuple[ChangeStatus, ...]:
    """Who has changed what the target is made of since the serving revision was made.

    `records`: the Model's rollouts that count, oldest first. `stored`: ControllerRevisions by revision hash.
    """
    serving = base.serving.revision if base.serving is not None else None
    serving_template = stored.get(serving.hash) if serving is not None else None
    signer = model.spec.changed_by
    parts = [
        authors.AuthoredPart("Model", model.name, authors.hash_model_spec(model.spec), (signer,) if signer else ())
    ]
    if policy is not None:
        by = (policy.spec.changed_by,) if policy.spec.changed_by else ()
        parts.append(authors.AuthoredPart("RolloutPolicy", policy.name, authors.hash_spec(policy.spec), by))
    if content.version is not None:
        served = serving.version if serving is not None else None
        version = content.version
        parts.append(authors.build_version_part(version.name, version.spec, content.digest, served))
    if content.choice is not None:
        data = serving_template["data"] if serving_template is not None else None
        runtime = content.choice.runtime
        parts.append(authors.build_runtime_part(runtime.spec, runtime.kind, runtime.name, runtime.generation, data))
    known = list(records)
    promotions = [
        record
        for record in known
        if record.state is RolloutState.SUCCEEDED and serving is not None and record.candidate == serving
    ]
    served_content = {entry.kind: entry.content for entry in promotions[-1].status.authors} if promotions else {}
    is_active = bool(known) and known[-1].is_active
    settled = serving is not None and base.target == serving and not is_active
    return authors.track_changes(model.status.changes, parts, served_content, settled=settled)


def with_authors(
    record: RolloutRecord | None,
    base: Observation,
    changes: Iterable[ChangeStatus],
    content: CandidateContent,
    stored: Mapping[str, Object],
) -> RolloutRecord | None:
    """The record with the authors of its candidate."""
    if record is None or not record.is_active or record.is_manual:
        return record
    if record.candidate is None or record.candidate != base.target:
        return record
    previous = stored.get(record.from_revision.hash) if record.from_revision is not None else None
    rendered = content.stored["data"] if content.stored is not None else None
    served = previous["data"] if previous is not None else None
    recorded = authors.record_authors(record.status.authors, changes, rendered, served)
    return record if recorded == record.status.authors else record.with_status(authors=recorded)


def approved_runtime(record: RolloutRecord | None, revision: Revision) -> str | None:
    """Hash of the runtime content that approvers have approved for `revision`, while its rollout is active."""
    if record is None or not record.is_active or record.candidate != revision:
        return None
    gate_passed = any(gate.name == "approval" and gate.outcome == Outcome.PASS for gate in record.status.gates)
    if not gate_passed and not record.status.approvals:
        return None
    return next((entry.content for entry in record.status.authors if entry.kind in authors.RUNTIME_KINDS), None)


def with_content_hash(record: RolloutRecord | None, content: CandidateContent) -> RolloutRecord | None:
    """The record with the hash of the content that an approval given now would cover.

    A version that was deleted and created again under the same name is other content.
    """
    if record is None or not record.is_active or record.candidate is None:
        return record
    if content.version is None or content.version.name != record.candidate.version:
        return record
    snapshot = record.status.policy
    if snapshot is not None and snapshot.is_lost:
        return record
    runtime = content.stored["data"].get("runtime", {}).get("content") if content.stored is not None else None
    policy = snapshot.spec if snapshot is not None else None
    approved = approvals.approval_content_hash(record.candidate, content.version.spec, content.digest, policy, runtime)
    return record if record.status.content_hash == approved else record.with_status(content_hash=approved)
