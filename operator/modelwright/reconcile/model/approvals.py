"""Reads the Approvals and the command of a rollout, and has them evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from modelwright.api.common import InvalidObject
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.approval import Approval
from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.rollout import ModelRollout
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.core import approvals, authors, commands
from modelwright.core.rollout.approval_requirement import ApprovalRequirement
from modelwright.core.rollout.command_context import build_command_context
from modelwright.core.rollout.effective_policy import EffectivePolicy
from modelwright.core.rollout.record import RolloutRecord
from modelwright.kube import kinds
from modelwright.reconcile.context import Context

MAX_APPROVALS_READ = 200
"""Newest Approvals of a Model that one reconciliation reads at most."""


def read_approval_decision(
    context: Context,
    model: Model,
    raw_rollout: Mapping[str, Any],
    record: RolloutRecord,
    requirement: ApprovalRequirement,
    version: ModelVersion | None,
    now: datetime,
) -> approvals.ApprovalDecision:
    """Evaluate the Approvals given for the record's candidate. `version`: that of the candidate, where it is known."""
    required = requirement.required
    admission = context.admission(model.namespace)
    if not admission.in_force:
        text = admission.problem or "whether the admission policies are in force is being checked"
        stalled = admission.in_force is False
        return approvals.ApprovalsMissing((), required, str(Reason.ADMISSION_POLICY_MISSING), text, stalled)
    candidate, content_hash = record.status.to, record.status.content_hash
    candidate_version = candidate.version if candidate is not None else record.spec.target.version
    if version is None or candidate_version != version.name or content_hash is None or not record.status.authors:
        text = f"ModelVersion {candidate_version} can't be read, so nothing can be approved"
        return approvals.ApprovalsMissing((), required, str(Reason.AWAITING_APPROVAL), text)
    since = requirement.since
    return approvals.evaluate_approvals(
        _read_approvals(context, model),
        rollout=ModelRollout.parse(raw_rollout),
        content_hash=content_hash,
        authors=authors.collect_authors(record.status.authors, service_accounts=requirement.service_accounts),
        service_accounts=requirement.service_accounts,
        required=required,
        now=now,
        since=max(since, admission.since) if admission.since is not None else since,
    )


def _read_approvals(context: Context, model: Model) -> Iterable[Approval]:
    """The newest Approvals: an active rollout is younger than those that were given for its predecessors."""
    store = context.store
    places = store.list_places("model", kinds.APPROVAL, model.name, model.namespace)
    for place in store.sort_newest_first(kinds.APPROVAL, places)[:MAX_APPROVALS_READ]:
        try:
            yield Approval.parse(store.get(kinds.APPROVAL, *place) or {})
        except InvalidObject:
            continue


def read_command_decision(
    context: Context,
    namespace: str,
    record: RolloutRecord | None,
    policy: EffectivePolicy,
    frozen_until: datetime | None,
) -> commands.CommandDecision | None:
    """Evaluate the command of the record; None without one."""
    if record is None or record.spec.command is None:
        return None
    handled = {entry.token for entry in record.status.commands}
    command_context = build_command_context(record, policy, frozen_until)
    return commands.evaluate_command(record.spec.command, handled, command_context, context.admission(namespace))
