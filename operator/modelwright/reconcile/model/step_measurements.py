"""Requests the measurements of a rollout's step, and evaluates those that are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from modelwright.api.common import InvalidObject, parse_duration
from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.policy import RolloutPolicySpec
from modelwright.api.v1alpha1.runtime import ClusterModelRuntime, ModelRuntime, RuntimeMetrics
from modelwright.core.analysis.evidence import Measurement, Outcome, Verdict
from modelwright.core.revision import Revision
from modelwright.core.rollout import step_analysis
from modelwright.core.rollout.effective_policy import EffectivePolicy
from modelwright.core.rollout.measured_step import MeasuredStep, select_measured_step
from modelwright.core.rollout.observation import Observation
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.rollout.record_lifecycle import current_step, has_hold_ended
from modelwright.core.rollout.step_targets import baseline_revision
from modelwright.core.rollout.steps import RolloutStep, StepKind
from modelwright.kube import kinds
from modelwright.kube.queue import Key
from modelwright.measurement.request import Gateway, MeasurementRequest, RevisionTarget
from modelwright.reconcile.context import Context
from modelwright.traffic.port import RoutingObjects

Object = dict[str, Any]


@dataclass(frozen=True)
class StepAnalysis:
    """The measurements of the step under evaluation, and the verdicts on it."""

    step: MeasuredStep | None = None
    verdicts: tuple[Verdict, ...] = ()
    outcome: Outcome | None = None
    measured_at: Mapping[str, datetime] | None = None
    measurements: tuple[Measurement, ...] | None = None
    observed_weight: int | None = None
    request: MeasurementRequest | None = None


@dataclass(frozen=True)
class MeasuredModel:
    """A Model whose revisions are measured. `stored`: its ControllerRevisions by revision hash."""

    context: Context
    model: Model
    routing: RoutingObjects
    stored: Mapping[str, Object]

    def target(self, revision: Revision) -> RevisionTarget:
        """Describe a revision as its requests are counted."""
        template = self.stored.get(revision.hash)
        runtime = template["data"].get("runtime", {}) if template is not None else {}
        return RevisionTarget.for_revision(self.model.name, revision, self._runtime_metrics(runtime))

    def comparison_target(
        self, record: RolloutRecord, policy: RolloutPolicySpec, step: RolloutStep
    ) -> RevisionTarget | None:
        """Describe what the candidate is compared with: all pods of the serving revision, or fresh pods of it."""
        if record.from_revision is None:
            return None
        serving, fresh = self.target(record.from_revision), baseline_revision(policy, record, step)
        return RevisionTarget.for_revision(self.model.name, fresh, serving.metrics) if fresh is not None else serving

    def gateway(self) -> Gateway | None:
        """Find the gateway in front of the Model; None without an endpoint, or while its class is unknown."""
        if self.routing.endpoint is None:
            return None
        for gateway in self.routing.gateways.values():
            class_name = gateway["spec"].get("gatewayClassName", "")
            gateway_class = self.context.store.get(kinds.GATEWAY_CLASS, None, class_name) or {}
            controller = gateway_class.get("spec", {}).get("controllerName")
            if controller:
                return Gateway(str(controller), self.routing.endpoint.protocol == "GRPC")
        return None

    def _runtime_metrics(self, runtime: Mapping[str, Any]) -> RuntimeMetrics | None:
        clusterwide = runtime.get("kind") == "ClusterModelRuntime"
        kind = kinds.CLUSTER_MODEL_RUNTIME if clusterwide else kinds.MODEL_RUNTIME
        namespace = None if clusterwide else self.model.namespace
        raw = self.context.store.get(kind, namespace, str(runtime.get("name")))
        if raw is None:
            return None
        try:
            return (ClusterModelRuntime if clusterwide else ModelRuntime).parse(raw).spec.metrics
        except InvalidObject:
            return None


def analyze_step(
    measured: MeasuredModel, record: RolloutRecord | None, policy: EffectivePolicy, base: Observation
) -> StepAnalysis:
    """Evaluate the latest measurements of the step under evaluation.

    Measurements run in the background: the scheduler returns those it has, and never makes a reconciliation wait.
    """
    if record is None or record.candidate is None or policy.spec.analysis is None:
        return StepAnalysis()
    spec, steps = policy.spec, policy.steps
    at = select_measured_step(record, steps, exposed=_is_exposed(base, record.candidate))
    if at is None:
        return StepAnalysis(outcome=initial_outcome(spec, current_step(record, steps)))
    step, metrics = at.step, step_analysis.metrics_for_step(spec, at.step)
    scheduler = measured.context.measurements
    if not metrics or scheduler is None:
        return StepAnalysis(at, outcome=initial_outcome(spec, step) if at.is_current else None)
    model = measured.model
    request = MeasurementRequest(
        key=f"{record.uid}/{at.index}",
        notify_key=Key("Model", model.namespace, model.name),
        namespace=model.namespace,
        model=model.name,
        candidate=measured.target(record.candidate),
        serving=measured.comparison_target(record, spec, step),
        since=at.since,
        interval=timedelta(seconds=parse_duration(policy.spec.analysis.interval)),
        metrics=metrics,
        mirror=step.mirror > 0,
        gateway=measured.gateway(),
        pods_requested_at=next((entry.started_at for entry in record.status.steps if entry.index == at.index), None),
    )
    measurements = scheduler.get_measurements(request)
    complete_at = at.since + timedelta(seconds=model.spec.serving.max_request_seconds)
    outcome, verdicts = step_analysis.evaluate_step(
        spec, steps, step, measurements, record, index=at.index, early=at.early, complete_at=complete_at
    )
    is_counted = at.is_current and baseline_revision(spec, record, step) is None
    return StepAnalysis(
        step=at,
        verdicts=verdicts,
        outcome=outcome,
        measured_at={measurement.metric: measurement.at for measurement in measurements or ()},
        measurements=measurements,
        observed_weight=scheduler.get_observed_weight(request) if is_counted else None,
        request=request,
    )


def with_verdicts(
    record: RolloutRecord | None,
    analysis: StepAnalysis,
    now: datetime,
    *,
    hold: timedelta = timedelta(0),
    fresh: bool = False,
) -> RolloutRecord | None:
    """The record with the verdicts, as far as they are worth a write; see `step_analysis.record_verdicts`."""
    if record is None or analysis.step is None or not analysis.verdicts:
        return record
    measured_at = analysis.measured_at or {}
    if not analysis.step.is_current:
        return step_analysis.record_late_failures(record, analysis.step.index, analysis.verdicts, measured_at, now)
    return step_analysis.record_verdicts(
        record,
        analysis.verdicts,
        analysis.outcome,
        measured_at,
        now,
        hold=hold,
        weight=analysis.observed_weight,
        fresh=fresh,
    )


def read_ab_test(
    context: Context,
    policy: RolloutPolicySpec,
    record: RolloutRecord | None,
    step: RolloutStep | None,
    analysis: StepAnalysis,
    hold: timedelta,
    now: datetime,
) -> tuple[bool | None, str]:
    """Whether the candidate has won the A/B test, with a message.

    None before the end of the test, while its values are being read, and, until WINNER_TIMEOUT, while a measurement
    that is missing or failed is worth waiting for.
    """
    if step is None or step.kind is not StepKind.AB_TEST or not has_hold_ended(record, hold, now):
        return None, ""
    metric, scheduler = step_analysis.winner_metric(policy), context.measurements
    may_wait = not has_hold_ended(record, hold + step_analysis.WINNER_TIMEOUT, now)
    if may_wait and metric is not None and step_analysis.is_worth_waiting(metric, analysis.measurements):
        return None, ""
    request = analysis.request
    if metric is None or request is None or scheduler is None or not step_analysis.is_query_metric(metric):
        return step_analysis.decide_ab_test(policy, analysis.measurements)
    points = scheduler.get_range_points(request, metric, request.since + step.hold)
    return (None, "") if points is None else step_analysis.decide_ab_test(policy, None, points)


def initial_outcome(policy: RolloutPolicySpec, step: RolloutStep | None) -> Outcome | None:
    """The outcome of a step without measurements; None when no evidence is required in it."""
    return step_analysis.initial_outcome(policy, step) if step is not None else None


def _is_exposed(base: Observation, candidate: Revision) -> bool:
    """Whether users' requests are sent to the candidate, as the route or the pods have it."""
    return base.traffic.weights.get(candidate.hash, 0) > 0 or base.traffic.matched == candidate.hash
