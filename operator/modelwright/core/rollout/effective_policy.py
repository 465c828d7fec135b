"""The policy that a rollout follows, and whether the Model can follow it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from pydantic import ValidationError

from modelwright.api.common import list_problems
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.policy import RolloutPolicy, RolloutPolicySpec, Strategy
from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.core.problem import Problem
from modelwright.core.rollout import policy_lint
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.rollout.steps import RolloutStep, compile_steps

MANUAL_ROLLBACK_POLICY = RolloutPolicySpec(strategy=Strategy(preset="Rolling"), keep_previous="0s", rollback_window=0)
"""Stands for the policy of a manual rollback on a Model without one: none of its steps are used."""


@dataclass(frozen=True, slots=True)
class EffectivePolicy:
    """The policy that counts: the one an active record started with, else the Model's present one."""

    spec: RolloutPolicySpec
    steps: tuple[RolloutStep, ...]
    problem: Problem | None = None
    """Why the record's own policy can't be read."""
    snapshot_problem: Problem | None = None
    """The same, while an active record depends on that policy: it continues under no other."""


def resolve_policy(record: RolloutRecord | None, present: RolloutPolicy | None) -> EffectivePolicy:
    """Find the policy that counts. `present`: the Model's policy as it is now."""
    spec, problem = _choose_policy(record, present)
    steps = compile_steps(spec.strategy)
    if problem is None or record is None or not record.is_active or record.is_manual:
        return EffectivePolicy(spec, steps, problem)
    if record.status.step is not None:
        # The record may be further on than the last step of another policy.
        steps = (*steps, *steps[-1:] * (record.step_index + 1))
    return EffectivePolicy(spec, steps, problem, problem)


def _choose_policy(
    record: RolloutRecord | None, present: RolloutPolicy | None
) -> tuple[RolloutPolicySpec, Problem | None]:
    snapshot = record.status.policy if record is not None else None
    if record is not None and snapshot is not None and (record.is_active or present is None):
        if snapshot.is_lost:
            text = (
                f"status.policy of {record.name}: ControllerRevision {snapshot.stored_in}, which holds the policy that "
                "it started with, is gone or holds something else"
            )
            return MANUAL_ROLLBACK_POLICY, Problem(Reason.INVALID_POLICY, text, stalled=True)
        try:
            return RolloutPolicySpec.model_validate(snapshot.spec, by_alias=True, by_name=False), None
        except ValidationError as error:
            errors = "; ".join(f"{path}: {message}" for path, message in list_problems(error))
            text = f"status.policy of {record.name}: {errors}"
            return MANUAL_ROLLBACK_POLICY, Problem(Reason.INVALID_POLICY, text, stalled=True)
    if record is not None and lacks_policy(record) and record.state is not RolloutState.PENDING:
        text = f"{record.name} has no status.policy, so the evidence it requires is unknown"
        return MANUAL_ROLLBACK_POLICY, Problem(Reason.INVALID_POLICY, text, stalled=True)
    return (present.spec if present is not None else MANUAL_ROLLBACK_POLICY), None


def lacks_policy(record: RolloutRecord | None) -> bool:
    """Whether an active rollout never kept the policy it was created for: that was deleted, or broken, first."""
    return record is not None and record.is_active and not record.is_manual and record.status.policy is None


def find_policy_problem(
    policy: EffectivePolicy, model: Model, *, has_serving: bool, unsupported: Sequence[str]
) -> Problem | None:
    """Why this Model can't follow the policy. `unsupported`: what its way of moving traffic can't do, by field."""
    spec, serving = policy.spec, model.spec.serving
    texts = list(unsupported)
    longest_request = timedelta(seconds=serving.max_request_seconds)
    texts += policy_lint.find_deadline_problems(spec, policy.steps, longest_request)
    if spec.analysis is not None and spec.analysis.baseline == "Fresh" and model.spec.endpoint is None:
        texts.append("spec.analysis.baseline: Fresh needs a gateway (spec.endpoint of the Model)")
    is_bounded = spec.surge is not None and spec.surge.pods is not None
    if is_bounded and serving.scaled_externally and has_serving:
        texts.append(
            "spec.surge.pods: pods and traffic can't move in turns while the Model's spec.serving.autoscaling.external "
            "leaves the number of pods to others; leave it out, or have the autoscaler scale the Model itself"
        )
    invalid = policy_lint.find_problems(spec)
    if not texts and not invalid:
        return None
    ref = model.spec.rollout_policy_ref
    name = ref.name if ref is not None else ""
    reason = Reason.INVALID_POLICY if invalid else Reason.POLICY_NOT_SUPPORTED
    return Problem(reason, f"RolloutPolicy {name}: {'; '.join((*invalid, *texts))}", stalled=True)
