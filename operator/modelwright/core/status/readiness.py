"""Conditions of Models and ModelVersions. Nothing else sets Ready, Reconciling, Stalled or Available.

They follow kstatus: Stalled means that a user has to act, Reconciling that a change is in progress, Ready that the
actual state is the desired one. Available is independent of Ready: it reports whether callers get answers, and a good
rollout doesn't change it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from modelwright.api.conditions import Condition, ConditionType, find_condition, is_true, with_condition
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import ModelStatus
from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.core.problem import Problem
from modelwright.core.rollout.machine import Assessment
from modelwright.core.rollout.observation import Observation

MISSING_REFERENCE_TIMEOUT = timedelta(minutes=5)
"""How long to wait for a missing referenced object, or to retry a write, before the object is Stalled."""

_REASON_AFTER_TIMEOUT: Mapping[str, Reason] = {
    Reason.WAITING_FOR_VERSION: Reason.VERSION_NOT_FOUND,
    Reason.WAITING_FOR_RUNTIME: Reason.RUNTIME_NOT_FOUND,
    Reason.WAITING_FOR_MODEL: Reason.WAITING_FOR_MODEL,
    Reason.WAITING_FOR_POLICY: Reason.POLICY_NOT_FOUND,
    Reason.PROGRESSING_WITH_RETRY: Reason.PROGRESSING_WITH_RETRY,
}


@dataclass(frozen=True, slots=True)
class ConditionSummary:
    """The three kstatus conditions as one: stalled, reconciling, or neither (then ready)."""

    reason: str
    message: str
    stalled: bool = False
    reconciling: bool = False


def escalate_problem(problem: Problem, since: datetime, now: datetime) -> Problem:
    """Return `problem`, stalled under its final reason once it has lasted for MISSING_REFERENCE_TIMEOUT."""
    final = _REASON_AFTER_TIMEOUT.get(problem.reason)
    if problem.stalled or final is None or now - since < MISSING_REFERENCE_TIMEOUT:
        return problem
    return Problem(final, problem.message, stalled=True)


def assess_readiness(observed: Observation, assessment: Assessment) -> ConditionSummary:
    """Assess a Model's readiness from its rollout and pods."""
    if observed.suspended:
        text = "spec.suspend is true: nothing is changed"
        if assessment.state is RolloutState.SUCCEEDED:
            return _check_health(observed, ConditionSummary(Reason.SUSPENDED, f"{text}; {assessment.message}"))
        return ConditionSummary(Reason.SUSPENDED, f"{text}; was: {assessment.message}", stalled=True)
    if assessment.stalled:
        return ConditionSummary(assessment.reason, assessment.message, stalled=True)
    if assessment.state is not RolloutState.SUCCEEDED:
        return ConditionSummary(assessment.reason, assessment.message, reconciling=True)
    return _check_health(observed, ConditionSummary(assessment.reason, assessment.message))


def _check_health(observed: Observation, well: ConditionSummary) -> ConditionSummary:
    """Check the pods of the serving revision: they can fail after their rollout, and the Model is then not ready."""
    view = observed.target_view
    if view is None or view.replicas is None or (view.available >= view.replicas and view.current):
        return well
    if view.failure is not None and view.available == 0:
        return ConditionSummary(view.failure.reason, view.failure.message, stalled=True)
    detail = f": {view.failure.message}" if view.failure else ""
    text = f"{view.available} of {view.replicas} pods are ready{detail}"
    return ConditionSummary(Reason.WAITING_FOR_PODS, text, reconciling=True)


def assess_availability(observed: Observation) -> tuple[bool, Reason, str]:
    """Return whether every revision that traffic names has an available pod, with reason and message."""
    if observed.serving is None and not any(v.available for v in observed.revisions.values()):
        return False, Reason.NOTHING_SERVING, "no revision has served yet"
    if observed.replicas == 0 and observed.target_serves:
        return False, Reason.SCALED_TO_ZERO, "no pods are requested, by spec.serving.replicas or by another autoscaler"
    for key in sorted(observed.traffic.named):
        view = observed.revisions.get(key)
        if view is None or view.available < 1:
            return False, Reason.NO_READY_PODS, f"revision {key} takes traffic and has no ready pod"
    if not observed.traffic.named:
        return False, Reason.NOTHING_SERVING, "no revision takes traffic"
    return True, Reason.REVISION_AVAILABLE, "every revision that takes traffic has a ready pod"


def build_conditions(
    old: tuple[Condition, ...],
    summary: ConditionSummary,
    serving: tuple[bool, Reason, str] | None,
    *,
    monitored: tuple[bool, Reason, str] | None = None,
    verified: tuple[bool | None, str, str] | None = None,
    evidence: tuple[bool, Reason, str] | None = None,
    endpoint: tuple[bool, Reason, str] | None = None,
    generation: int,
    now: datetime,
) -> tuple[Condition, ...]:
    """Build Ready, Reconciling, Stalled and, for a Model, Available.

    Monitored and Verified are set only while the spec requests them, EvidenceAsked only with a RolloutPolicy,
    EndpointApplied only with an endpoint. Transition times change only with the status.
    """
    rows: list[tuple[str, bool | None, str, str]] = []
    if serving is not None:
        rows.append((ConditionType.AVAILABLE, *serving))
    for wanted, entry in (
        (ConditionType.MONITORED, monitored),
        (ConditionType.VERIFIED, verified),
        (ConditionType.EVIDENCE_ASKED, evidence),
        (ConditionType.ENDPOINT_APPLIED, endpoint),
    ):
        if entry is not None:
            rows.append((wanted, *entry))
        else:
            old = tuple(condition for condition in old if condition.type != wanted)
    old = set_readiness(old, summary, generation=generation, now=now)
    for type_, status, reason, message in rows:
        old = with_condition(old, type_, status, reason, message, generation=generation, now=now)
    return old


def set_readiness(
    old: tuple[Condition, ...], summary: ConditionSummary, *, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Return `old` with Ready, Reconciling and Stalled from this summary; the others stay."""
    ready = not summary.stalled and not summary.reconciling
    quiet = (Reason.UP_TO_DATE, "")
    for type_, status, (reason, message) in (
        (ConditionType.READY, ready, _reason_and_message(summary)),
        (
            ConditionType.RECONCILING,
            summary.reconciling,
            _reason_and_message(summary) if summary.reconciling else quiet,
        ),
        (ConditionType.STALLED, summary.stalled, _reason_and_message(summary) if summary.stalled else quiet),
    ):
        old = with_condition(old, type_, status, reason, message, generation=generation, now=now)
    return old


def acknowledge_edit(old: tuple[Condition, ...], *, generation: int, now: datetime) -> tuple[Condition, ...]:
    """Return `old` for an edit that was observed and is queued: Ready waits; the other conditions stay."""
    summary = ConditionSummary(Reason.NEW_GENERATION, "other edits are answered first", reconciling=True)
    conditions = set_readiness(old, summary, generation=generation, now=now)
    return tuple(condition.model_copy(update={"observed_generation": generation}) for condition in conditions)


_MOVING_STATES = (RolloutState.PENDING, RolloutState.GATING, RolloutState.PROGRESSING, RolloutState.PROMOTING)


def reports_progress_only(old: ModelStatus, new: ModelStatus) -> bool:
    """Return whether `new` differs from `old` only in the progress of a rollout of the same generation.

    Such a change requires no action, so that its write may be delayed. A change of what serves, of a problem or of a
    required user action is never progress.
    """
    if new == old or old.rollout is None or new.rollout is None or old.rollout.name != new.rollout.name:
        return False
    before = find_condition(old.conditions, ConditionType.RECONCILING)
    # An acknowledgement leaves the state from before the edit.
    acknowledged = before is not None and before.reason == Reason.NEW_GENERATION
    states = {new.rollout.state} if acknowledged else {old.rollout.state, new.rollout.state}
    return (
        states <= set(_MOVING_STATES)
        and is_true(old.conditions, ConditionType.RECONCILING)
        and is_true(new.conditions, ConditionType.RECONCILING)
        and _without_progress(old) == _without_progress(new)
    )


def _without_progress(status: ModelStatus) -> tuple[ModelStatus, list[tuple[str, str]]]:
    blank = {"rollout": None, "target": None, "runtime": None, "replicas": None, "ready_replicas": None, "traffic": ()}
    rest = status.model_copy(update={**blank, "conditions": ()})
    return rest, sorted((str(condition.type), condition.status) for condition in status.conditions)


def _reason_and_message(summary: ConditionSummary) -> tuple[str, str]:
    return summary.reason, summary.message
