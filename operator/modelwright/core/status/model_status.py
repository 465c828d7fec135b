"""The status of a Model, built from one observation. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from modelwright.api import names
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import (
    AnnouncedStatus,
    ChangeStatus,
    DriftStatus,
    FailureStatus,
    Model,
    ModelStatus,
    RolloutStatus,
    RuntimeStatus,
    ServedStatus,
    ServingStatus,
    TargetStatus,
    TrafficStatus,
)
from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.core.problem import Problem
from modelwright.core.revision import Revision
from modelwright.core.rollout.decision import Assessment, Decision
from modelwright.core.rollout.observation import Observation
from modelwright.core.runtime_choice import RuntimeChoice
from modelwright.core.status import readiness
from modelwright.core.status.readiness import ConditionSummary

STALLED_POLL_SECONDS = 30.0
"""Seconds until a Model is reconciled again that waits for a user, with no rollout in progress."""
UNHEALTHY_POLL_SECONDS = 10.0
"""Seconds between two reconciliations of a Model whose target lacks available pods."""
MIN_WEIGHT_CHANGE = 3
"""Percentage points by which an observed share must have moved to be written again."""
MAX_HISTORY = 10


@dataclass(frozen=True, slots=True)
class ModelStatusInput:
    """All that a Model's status is built from. `assessment`: the state of the rollout; `summary`: its conditions."""

    model: Model
    observation: Observation
    assessment: Assessment
    summary: ConditionSummary
    target: Revision | None
    """The revision of spec.version, once it is known."""
    target_version: str | None
    """The version to go to, as long as its revision isn't known."""
    choice: RuntimeChoice | None
    outdated: str | None
    url: str | None
    announced: AnnouncedStatus | None
    drift: DriftStatus | None
    monitored: tuple[bool, Reason, str] | None
    endpoint: tuple[bool, Reason, str] | None


def build_model_status(given: ModelStatusInput) -> ModelStatus:
    """Build the status."""
    model, observation, old = given.model, given.observation, given.model.status
    serving, rollout = observation.serving, observation.rollout
    return ModelStatus(
        observed_generation=model.generation,
        url=given.url,
        serving=ServingStatus(version=serving.revision.version, revision=serving.revision.hash, since=serving.since)
        if serving
        else None,
        target=_target_status(given),
        rollout=_rollout_status(old.rollout, given.assessment, observation),
        traffic=_traffic_status(observation, old.traffic),
        runtime=_runtime_status(given.choice) if given.choice is not None else old.runtime,
        replicas=_serving_pod_count(observation, "replicas"),
        ready_replicas=_serving_pod_count(observation, "ready"),
        selector=_scale_selector(model),
        history=_serving_history(old, observation),
        failure=_failure_status(observation, given.summary),
        announced=given.announced,
        outdated=given.outdated,
        changes=_change_statuses(old, observation),
        drift=given.drift,
        conditions=readiness.build_conditions(
            old.conditions,
            given.summary,
            readiness.assess_availability(observation),
            monitored=given.monitored,
            evidence=rollout.evidence_condition if rollout is not None else None,
            endpoint=given.endpoint,
            generation=model.generation,
            now=observation.now,
        ),
    )


def summarize_model(observation: Observation, assessment: Assessment, old: ModelStatus) -> ConditionSummary:
    """The conditions of a Model in short; a problem that has lasted too long is stalled."""
    problem = Problem(assessment.reason, assessment.message, assessment.stalled)
    since = _rollout_status(old.rollout, assessment, observation).since
    if since is not None:
        problem = readiness.escalate_problem(problem, since, observation.now)
    escalated = Assessment(assessment.state, problem.reason, problem.message, problem.stalled)
    return readiness.assess_readiness(observation, escalated)


def with_recorded_message(observation: Observation, assessment: Assessment) -> Assessment:
    """The assessment with the record's message while its state lasts: new numbers would be a write at each one."""
    record = observation.active_record
    if record is None or (record.state, record.status.reason) != (assessment.state, assessment.reason):
        return assessment
    return replace(assessment, message=record.status.message or assessment.message)


def requeue_seconds(observation: Observation, decision: Decision, assessment: Assessment) -> float | None:
    """Seconds until the next reconciliation; None to wait for an event."""
    is_under_way = (
        observation.active_record is not None
        or bool(observation.obsolete_revisions)
        or assessment.state is RolloutState.PROGRESSING
    )
    if assessment.stalled and not is_under_way:
        return STALLED_POLL_SECONDS
    if decision.requeue_after is not None:
        return decision.requeue_after.total_seconds()
    view = observation.target_view
    if view is not None and view.replicas is not None and view.available < view.replicas:
        return UNHEALTHY_POLL_SECONDS
    return None


def _rollout_status(old: RolloutStatus | None, assessment: Assessment, observation: Observation) -> RolloutStatus:
    record = observation.record
    name = record.name if record is not None else None
    is_same = old is not None and (old.state, old.reason, old.name) == (assessment.state, assessment.reason, name)
    since = old.since if old is not None and is_same else observation.now
    return RolloutStatus(
        name=name, state=assessment.state, reason=assessment.reason, message=assessment.message or None, since=since
    )


def _change_statuses(old: ModelStatus, observation: Observation) -> tuple[ChangeStatus, ...]:
    """Who has changed what. Without a policy that requires approval nothing is added, and nothing forgotten."""
    changes = observation.rollout.changes if observation.rollout is not None else None
    return old.changes if changes is None else changes


def _serving_history(old: ModelStatus, observation: Observation) -> tuple[ServedStatus, ...]:
    """The revisions that served before, the latest first."""
    serving, before = observation.serving, old.serving
    if serving is None or before is None or before.revision == serving.revision.hash:
        return old.history
    left = ServedStatus(version=before.version, revision=before.revision, until=observation.now)
    older = [entry for entry in old.history if entry.revision not in (serving.revision.hash, left.revision)]
    return (left, *older)[:MAX_HISTORY]


def _target_status(given: ModelStatusInput) -> TargetStatus | None:
    if given.target is not None:
        return TargetStatus(version=given.target.version, revision=given.target.hash)
    return TargetStatus(version=given.target_version) if given.target_version else None


def _runtime_status(choice: RuntimeChoice) -> RuntimeStatus:
    return RuntimeStatus(
        kind=choice.runtime.kind, name=choice.runtime.name, reason=choice.reason, code=choice.format.code
    )


def _traffic_status(observation: Observation, old: tuple[TrafficStatus, ...]) -> tuple[TrafficStatus, ...]:
    """Weights as they are configured. Between the writes of a switch, the Service and the route name two revisions."""
    views = [view for key, view in sorted(observation.revisions.items()) if key in observation.traffic.named]
    target = observation.target.hash if observation.target else None
    alone = {views[0].revision.hash: 100} if len(views) == 1 else {target: 100}
    weights = observation.traffic.weights if observation.active_record is not None else alone
    observed = _observed_weights(observation, {entry.revision: entry.observed_weight for entry in old})
    return tuple(
        TrafficStatus(
            version=view.revision.version,
            revision=view.revision.hash,
            weight=max(0, min(100, weights.get(view.revision.hash, 0))),
            observed_weight=observed.get(view.revision.hash),
            ready=view.available > 0,
        )
        for view in views
    )


def _observed_weights(observation: Observation, old: Mapping[str, int | None]) -> dict[str, int]:
    """Shares of the requests since the step started, by revision hash, where they were counted."""
    record = observation.active_record
    if record is None or record.candidate is None or record.from_revision is None:
        return {}
    share, before = record.status.observed_weight, old.get(record.candidate.hash)
    if share is None:
        return {}
    if before is not None and abs(before - share) < MIN_WEIGHT_CHANGE:
        share = before
    return {record.candidate.hash: share, record.from_revision.hash: 100 - share}


def _serving_pod_count(observation: Observation, field: str) -> int | None:
    if observation.serving is None:
        return None
    view = observation.revisions.get(observation.serving.revision.hash)
    return int(getattr(view, field) or 0) if view is not None else 0


def _failure_status(observation: Observation, summary: ConditionSummary) -> FailureStatus | None:
    view = observation.target_view
    if view is not None and view.failure is not None and view.available < (view.replicas or 0):
        failure = view.failure
        return FailureStatus(
            reason=failure.reason,
            message=failure.message,
            exit_code=failure.exit_code,
            pod=failure.pod,
            revision=view.revision.hash,
        )
    return FailureStatus(reason=summary.reason, message=summary.message) if summary.stalled else None


def _scale_selector(model: Model) -> str | None:
    """Selects the pods of all revisions: while a rollout splits the requests, an autoscaler must count all of them."""
    if model.spec.serving.replicas is None:
        return None
    labels = {names.LABEL_MODEL: names.label_value(model.name), names.LABEL_ROLE: names.ROLE_SERVING}
    return ",".join(f"{key}={value}" for key, value in labels.items())
