"""Observes the rollout of a Model: its record, policy, evidence, gates, approvals and commands."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from modelwright.api import names
from modelwright.api.common import InvalidObject
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import ChangeStatus, Model
from modelwright.api.v1alpha1.policy import RolloutPolicy
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.core.analysis.evidence import Outcome
from modelwright.core.problem import Problem
from modelwright.core.rollout import freeze, policy_lint, step_analysis
from modelwright.core.rollout.approval_requirement import find_requirement
from modelwright.core.rollout.candidate_authors import (
    CandidateContent,
    list_changes,
    needs_approval,
    with_authors,
    with_content_hash,
)
from modelwright.core.rollout.effective_policy import (
    MANUAL_ROLLBACK_POLICY,
    EffectivePolicy,
    find_policy_problem,
    lacks_policy,
    resolve_policy,
)
from modelwright.core.rollout.observation import Observation, RolloutInput
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.rollout.record_lifecycle import (
    current_step,
    initialize_record,
    is_released_by_spec,
)
from modelwright.kube import kinds
from modelwright.obs.read_child import read_child
from modelwright.reconcile.children import is_controlled_by
from modelwright.reconcile.context import Context
from modelwright.reconcile.model import gate_reports
from modelwright.reconcile.model.approvals import read_approval_decision, read_command_decision
from modelwright.reconcile.model.observed_routing import ModelRouting
from modelwright.reconcile.model.rollout_history import RolloutHistory
from modelwright.reconcile.model.snapshot import ModelChildren, ModelGoal
from modelwright.reconcile.model.step_measurements import (
    MeasuredModel,
    StepAnalysis,
    analyze_step,
    initial_outcome,
    read_ab_test,
    with_verdicts,
)
from modelwright.render import comparer_pod
from modelwright.traffic.port import TrafficRequirements

Object = dict[str, Any]


@dataclass(frozen=True)
class PreparedRollout:
    """The record of a rollout as it is to be written before anything is measured, and the policy it follows."""

    record: RolloutRecord | None
    policy: EffectivePolicy
    has_policy: bool
    """Whether the Model names a policy."""
    problem: Problem | None
    """Why the policy can't be read."""
    policy_problem: Problem | None
    """Why the Model can't follow the policy."""
    changes: tuple[ChangeStatus, ...] | None
    version: ModelVersion | None
    """The version of the candidate, where it is known."""


async def observe_rollout(
    context: Context,
    model: Model,
    history: RolloutHistory,
    base: Observation,
    goal: ModelGoal,
    children: ModelChildren,
    routing: ModelRouting,
) -> tuple[RolloutInput | None, StepAnalysis]:
    """Observe what a decision needs beside pods and traffic; None for a Model that moves without a policy.

    `base`: the observation without its rollout.
    """
    prepared = _prepare_record(context, model, history, base, goal, children, routing)
    if prepared is None:
        return None, StepAnalysis()
    record, policy = prepared.record, prepared.policy
    measured = MeasuredModel(context, model, routing.objects, children.stored)
    analysis = read_child(
        history.raw.get(record.name, {}) if record is not None else {},
        functools.partial(analyze_step, measured, record, policy, base),
        # Without measurements nothing is decided by them, in either direction; users and the deadline still decide.
        lambda _: StepAnalysis(outcome=Outcome.ERROR),
    )
    step = current_step(record, policy.steps)
    longest_request = timedelta(seconds=model.spec.serving.max_request_seconds)
    hold = step_analysis.minimum_hold(policy.spec, step, longest_request) if step is not None else timedelta(0)
    record = with_verdicts(record, analysis, base.now, hold=hold)
    is_current = analysis.step is None or analysis.step.is_current
    ab_test_won, ab_test_message = read_ab_test(context, policy.spec, record, step, analysis, hold, base.now)
    frozen_until = freeze.find_freeze_end(policy.spec.freeze, base.now)
    approval = None
    requirement = find_requirement(record, policy, step, base.now)
    if record is not None and requirement is not None:
        raw_rollout = history.raw[record.name]
        approval = read_approval_decision(context, model, raw_rollout, record, requirement, prepared.version, base.now)
    command = read_command_decision(context, model.namespace, record, policy, frozen_until)
    evidence = policy_lint.evidence_condition(policy.spec, policy.steps)
    return (
        RolloutInput(
            policy=policy.spec,
            steps=policy.steps,
            record=record,
            next_number=history.next_number,
            problem=prepared.problem or prepared.policy_problem,
            snapshot_problem=policy.snapshot_problem,
            evidence_condition=evidence if prepared.has_policy and policy.spec is not MANUAL_ROLLBACK_POLICY else None,
            policy_problem=prepared.policy_problem,
            outcome=analysis.outcome if is_current else initial_outcome(policy.spec, step),
            earlier_outcome=None if is_current else analysis.outcome,
            verdicts=analysis.verdicts,
            gates=await gate_reports.read_results(context, record, policy.spec) if record is not None else {},
            report_problem=gate_reports.untrusted_problem(context, model.namespace) if record is not None else None,
            changes=prepared.changes,
            approval=approval,
            command=command,
            longest_request=longest_request,
            frozen_until=frozen_until,
            comparer_ready=_is_comparer_ready(context, model, record),
            replica_weighted=model.spec.endpoint is None,
            surge=policy.spec.surge.pods if policy.spec.surge is not None else None,
            rollback_window=frozenset(entry.revision for entry in model.status.history[: policy.spec.rollback_window]),
            released_by_spec=is_released_by_spec(record, model),
            has_policy=prepared.has_policy,
            ab_test_won=ab_test_won,
            ab_test_message=ab_test_message,
            last_failure=model.status.failure.message if model.status.failure is not None else "",
        ),
        analysis,
    )


def _prepare_record(
    context: Context,
    model: Model,
    history: RolloutHistory,
    base: Observation,
    goal: ModelGoal,
    children: ModelChildren,
    routing: ModelRouting,
) -> PreparedRollout | None:
    """Initialize the newest record, and find its policy and authors; None without a rollout to decide about."""
    has_policy = model.spec.rollout_policy_ref is not None
    record = history.newest
    if not has_policy and (record is None or not (record.is_active or record.pins_model)):
        return None
    present, present_problem = _read_policy(context, model)
    record = initialize_record(record, model, base, present)
    policy = resolve_policy(record, present)
    content = _candidate_content(goal)
    changes = None
    if needs_approval(policy.spec) or (present is not None and needs_approval(present.spec)):
        changes = list_changes(model, history.counted, base, present, content, children.stored)
        record = with_authors(record, base, changes, content, children.stored)
    record = with_content_hash(record, content)
    problem = policy.problem or present_problem
    policy_problem = None
    if problem is None and has_policy:
        policy_problem = _find_policy_problem(policy, model, base, routing)
    elif lacks_policy(record):
        policy_problem = problem or Problem(
            Reason.WAITING_FOR_POLICY, "spec.rolloutPolicyRef names no RolloutPolicy any more"
        )
    return PreparedRollout(record, policy, has_policy, problem, policy_problem, changes, content.version)


def _candidate_content(goal: ModelGoal) -> CandidateContent:
    plan = goal.followed_plan
    if plan is None:
        return CandidateContent()
    return CandidateContent(plan.version, plan.digest, plan.choice, plan.stored)


def _read_policy(context: Context, model: Model) -> tuple[RolloutPolicy | None, Problem | None]:
    ref = model.spec.rollout_policy_ref
    if ref is None:
        return None, None
    raw = context.store.get(kinds.ROLLOUT_POLICY, model.namespace, ref.name)
    if raw is None:
        text = f"spec.rolloutPolicyRef: there is no RolloutPolicy {ref.name}"
        return None, Problem(Reason.WAITING_FOR_POLICY, text)
    try:
        return RolloutPolicy.parse(raw), None
    except InvalidObject as error:
        return None, Problem(Reason.INVALID_POLICY, f"RolloutPolicy {ref.name}: {error.message}", stalled=True)


def _find_policy_problem(
    policy: EffectivePolicy, model: Model, base: Observation, routing: ModelRouting
) -> Problem | None:
    """Why this Model can't follow the policy."""
    needs = TrafficRequirements.from_steps(
        policy.steps,
        ab_test=policy.spec.strategy.ab_test is not None,
        replicas=base.replicas,
        autoscaling=model.spec.serving.autoscaling is not None,
    )
    has_serving = base.serving is not None
    unsupported = routing.router.list_unsupported_needs(routing.objects, needs) if has_serving else ()
    return find_policy_problem(policy, model, has_serving=has_serving, unsupported=unsupported)


def _is_comparer_ready(context: Context, model: Model, record: RolloutRecord | None) -> bool:
    if record is None or record.from_revision is None or record.candidate is None:
        return False
    deployment = context.store.get(kinds.DEPLOYMENT, model.namespace, names.comparer_name(model.name))
    if deployment is not None and not is_controlled_by(deployment, model.uid):
        deployment = None
    return comparer_pod.is_comparer_ready(deployment, record.from_revision, record.candidate)
