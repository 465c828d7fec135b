"""The ModelRollouts of a Model: what a decision needs to know of them, and how they are begun, written and ended."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from modelwright.api import names
from modelwright.api.common import InvalidObject, list_problems, parse_duration
from modelwright.api.conditions import ConditionType, find_condition, with_condition
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.approval import Approval
from modelwright.api.v1alpha1.model import ChangeStatus, Model
from modelwright.api.v1alpha1.policy import RolloutPolicy, RolloutPolicySpec, Strategy
from modelwright.api.v1alpha1.rollout import ModelRollout, PolicySnapshot, RevisionRef, RolloutState
from modelwright.api.v1alpha1.runtime import ClusterModelRuntime, ModelRuntime, RuntimeMetrics
from modelwright.api.v1alpha1.version import ModelVersion, Stage
from modelwright.core import approvals, authors, commands
from modelwright.core.analysis.evidence import Measurement, Outcome, Verdict
from modelwright.core.gate_results import JOB_GATES
from modelwright.core.problem import Problem
from modelwright.core.revision import Revision
from modelwright.core.rollout import freeze, policy_lint, step_analysis
from modelwright.core.rollout.measured_step import STEP_STATES, MeasuredStep, select_measured_step
from modelwright.core.rollout.observation import Observation, RolloutInput
from modelwright.core.rollout.record import REVERTED_STATES, RolloutRecord
from modelwright.core.rollout.step_targets import baseline_revision
from modelwright.core.rollout.steps import RolloutStep, StepKind, compile_steps
from modelwright.core.runtime_choice import RuntimeChoice
from modelwright.kube import api_errors, kinds
from modelwright.kube.queue import Key
from modelwright.measurement.request import Gateway, MeasurementRequest, RevisionTarget
from modelwright.obs.read_child import read_child
from modelwright.reconcile import metric_updates, policy_snapshots
from modelwright.reconcile.children import is_controlled_by
from modelwright.reconcile.context import Context
from modelwright.reconcile.status_writer import write_status
from modelwright.render import comparer_pod
from modelwright.traffic.port import RoutingObjects, TrafficRequirements
from modelwright.traffic.port import TrafficRouter as TrafficPort

Object = dict[str, Any]

MAX_APPROVALS_READ = 200
"""So many of the newest Approvals of a Model are read in a pass at most."""
MANUAL_ROLLBACK_POLICY = RolloutPolicySpec(strategy=Strategy(preset="Rolling"), keep_previous="0s", rollback_window=0)
"""What a rollback by hand goes by on a Model without a policy: none of its steps are used."""


@dataclass(frozen=True)
class RolloutHistory:
    """The ModelRollouts of one Model. `newest` is the one in force; `raw` are all, by name."""

    newest: RolloutRecord | None
    raw: Mapping[str, Object]
    superseded: tuple[RolloutRecord, ...]
    """Older ones that have not ended: something newer has taken their place."""
    ended: tuple[RolloutRecord, ...]
    """Older ones that have ended, oldest first."""
    next_number: int
    """Of the next one that the operator makes."""
    invalid_rollbacks: tuple[tuple[RolloutRecord, str], ...] = ()
    """Rollbacks by hand that can't be, with why; nothing else ever looks at them."""

    @property
    def manual_rollback(self) -> RolloutRecord | None:
        """The rollback by hand that decides where the Model goes, if one does."""
        return self.newest if self.newest is not None and self.newest.pins_model else None


def load_history(context: Context, model: Model) -> RolloutHistory:
    """What the store has of this very Model; records of a former Model of the same name are left alone."""
    found, raws, numbers, refused = [], {}, [0], []
    served = [(entry.version, entry.revision) for entry in (model.status.serving, *model.status.history) if entry]
    for raw in context.store.by_model(kinds.MODEL_ROLLOUT, model.namespace, model.name):
        try:
            rollout = ModelRollout.parse(raw)
        except InvalidObject:
            continue
        created = rollout.metadata.creation_timestamp
        began = model.metadata.creation_timestamp
        if rollout.spec.model_uid not in (None, model.uid) or created is None:
            continue
        if rollout.spec.model_uid is None and began is not None and created < began:
            continue
        if (
            rollout.spec.rollback is not None
            and rollout.status.state is None
            and not _has_proven_author(context, model.namespace, created)
        ):
            # Nothing proves who made it.
            continue
        if rollout.spec.rollback is not None and rollout.status.started_at is None:
            why = commands.rollback_target_problem(rollout.spec.target, served)
            if why is not None or rollout.status.state is not None:
                raws[rollout.name] = raw
                if rollout.status.state is None and why is not None:
                    refused.append((RolloutRecord.from_rollout(rollout), why))
                continue
        numbers.append(rollout.spec.number or 0)
        if rollout.metadata.deletion_timestamp is None:
            found.append(RolloutRecord.from_rollout(rollout))
            raws[rollout.name] = raw
    found.sort(key=_creation_order)
    older = found[:-1]
    return RolloutHistory(
        newest=found[-1] if found else None,
        raw=raws,
        superseded=tuple(record for record in older if record.is_active),
        ended=tuple(record for record in older if not record.is_active),
        next_number=max(numbers) + 1,
        invalid_rollbacks=tuple(refused),
    )


async def restore_policy(context: Context, found: RolloutHistory, namespace: str) -> RolloutHistory:
    """These records, where the one in force has its policy as a whole."""
    newest = found.newest
    if newest is None:
        return found
    kept = newest.status.policy
    policy = await policy_snapshots.restore_spec(context, namespace, kinds.ROLLOUT_POLICY, kept, ask=newest.is_active)
    return found if policy is newest.status.policy else replace(found, newest=newest.with_status(policy=policy))


def _has_proven_author(context: Context, namespace: str, created: datetime) -> bool:
    """Whether admission has checked the name of who wrote an object at that time."""
    admission = context.admission(namespace)
    return bool(admission.in_force) and (admission.since is None or created >= admission.since)


def _creation_order(record: RolloutRecord) -> tuple[datetime, datetime, int, str]:
    """Creation times have whole seconds: of two in the same second the one that was begun later is younger."""
    begun = record.status.started_at or datetime.max.replace(tzinfo=UTC)
    return record.created, begun, record.spec.number or 0, record.name


@dataclass(frozen=True)
class StepAnalysis:
    """What was measured for the step that is watched, and the verdicts on it."""

    step: MeasuredStep | None = None
    verdicts: tuple[Verdict, ...] = ()
    outcome: Outcome | None = None
    measured_at: Mapping[str, datetime] | None = None
    measurements: tuple[Measurement, ...] | None = None
    observed_weight: int | None = None
    request: MeasurementRequest | None = None


def build_input(
    context: Context,
    model: Model,
    found: RolloutHistory,
    base: Observation,
    *,
    digest: str | None,
    version: ModelVersion | None,
    traffic: TrafficPort,
    scene: RoutingObjects,
    stored: Mapping[str, Object],
    choice: RuntimeChoice | None = None,
    made: Object | None = None,
) -> tuple[RolloutInput | None, StepAnalysis]:
    """What a decision has to know beside pods and traffic; None for a Model that moves without a policy.

    `base`: the picture so far; its target is the one to go to. `digest`, `version`, `choice` (of a runtime) and `made`
    (its ControllerRevision): the target's, as far as known.
    """
    ref = model.spec.rollout_policy_ref
    record = found.newest
    if ref is None and (record is None or not (record.is_active or record.pins_model)):
        return None, StepAnalysis()
    present, problem = _read_policy(context, model)
    record = _initialize_record(record, model, base, present)
    policy, unread = _effective_policy(record, present)
    changes = None
    if _needs_approval(policy) or (present is not None and _needs_approval(present.spec)):
        changes = _list_changes(model, found, base, present, version, digest, choice, stored)
        record = _with_authors(record, base, changes, made, stored)
    record = _with_content_hash(record, version, digest, made)
    problem = unread or problem
    steps = compile_steps(policy.strategy)
    if record is None or not record.is_active or record.is_manual:
        unread = None
    elif unread is not None and record.status.step is not None:
        # It may be further on than any step of another policy.
        steps = (*steps, *steps[-1:] * (record.step_index + 1))
    refused = None
    if problem is None and ref is not None:
        refused = _policy_problem(policy, steps, model, base, traffic, scene)
    elif _lacks_policy(record):
        refused = problem or Problem(Reason.WAITING_FOR_POLICY, "spec.rolloutPolicyRef names no RolloutPolicy any more")
    looked = read_child(
        found.raw.get(record.name, {}) if record is not None else {},
        functools.partial(_analyze_step, context, model, record, policy, steps, base, scene, stored),
        # What was measured decides nothing, in either direction; people and the deadline still do.
        lambda _: StepAnalysis(outcome=Outcome.ERROR),
    )
    step = _current_step(record, steps)
    longest = timedelta(seconds=model.spec.serving.max_request_seconds)
    hold = step_analysis.minimum_hold(policy, step, longest) if step is not None else timedelta(0)
    record = with_verdicts(record, looked, base.now, hold=hold)
    own = looked.step is None or looked.step.is_current
    over = step is not None and step.kind is StepKind.AB_TEST and _has_hold_ended(record, hold, base.now)
    patient = not _has_hold_ended(record, hold + step_analysis.WINNER_TIMEOUT, base.now)
    won, text = (
        _ab_test_won(context, policy, step, looked, patient=patient) if over and step is not None else (None, "")
    )
    history = model.status.history[: policy.rollback_window]
    frozen_until = freeze.find_freeze_end(policy.freeze, base.now)
    return (
        RolloutInput(
            policy=policy,
            steps=steps,
            record=record,
            next_number=found.next_number,
            problem=problem or refused,
            snapshot_problem=unread,
            evidence_condition=policy_lint.evidence_condition(policy, steps)
            if policy is not MANUAL_ROLLBACK_POLICY and ref is not None
            else None,
            policy_problem=refused,
            outcome=looked.outcome if own else _initial_outcome(policy, step),
            earlier_outcome=None if own else looked.outcome,
            verdicts=looked.verdicts,
            changes=changes,
            approval=_evaluate_approval(context, model, found, record, policy, step, version, base.now),
            command=_evaluate_command(context, model.namespace, record, policy, steps, frozen_until, unread),
            longest_request=longest,
            frozen_until=frozen_until,
            comparer_ready=_is_comparer_ready(context, model, record),
            replica_weighted=model.spec.endpoint is None,
            surge=policy.surge.pods if policy.surge is not None else None,
            rollback_window=frozenset(entry.revision for entry in history),
            released_by_spec=is_released_by_spec(record, model),
            has_policy=ref is not None,
            ab_test_won=won,
            ab_test_message=text,
            last_failure=model.status.failure.message if model.status.failure is not None else "",
        ),
        looked,
    )


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


def _effective_policy(
    record: RolloutRecord | None, present: RolloutPolicy | None
) -> tuple[RolloutPolicySpec, Problem | None]:
    """The policy that counts: what a live record began with, else the present one."""
    kept = record.status.policy if record is not None else None
    if record is not None and kept is not None and (record.is_active or present is None):
        if kept.is_lost:
            text = (
                f"status.policy of {record.name}: ControllerRevision {kept.stored_in}, which holds the policy that it "
                "began with, is gone or holds something else: put it back, or abort the rollout"
            )
            return MANUAL_ROLLBACK_POLICY, Problem(Reason.INVALID_POLICY, text, stalled=True)
        try:
            return RolloutPolicySpec.model_validate(kept.spec, by_alias=True, by_name=False), None
        except ValidationError as error:
            text = "; ".join(f"{path}: {what}" for path, what in list_problems(error))
            return MANUAL_ROLLBACK_POLICY, Problem(
                Reason.INVALID_POLICY, f"status.policy of {record.name}: {text}", stalled=True
            )
    if record is not None and _lacks_policy(record) and record.state is not RolloutState.PENDING:
        text = f"{record.name} has no status.policy, so nobody knows what evidence it asks for: abort it"
        return MANUAL_ROLLBACK_POLICY, Problem(Reason.INVALID_POLICY, text, stalled=True)
    return (present.spec if present is not None else MANUAL_ROLLBACK_POLICY), None


def _lacks_policy(record: RolloutRecord | None) -> bool:
    """Whether a rollout goes on that never kept the policy that it was made for: it was deleted, or broken, first."""
    return record is not None and record.is_active and not record.is_manual and record.status.policy is None


def _initialize_record(
    record: RolloutRecord | None, model: Model, base: Observation, policy: RolloutPolicy | None
) -> RolloutRecord | None:
    """A record that was only just made, with what it has to remember of this moment."""
    if record is None or record.status.state is not None or base.target is None:
        return record
    serving = base.serving.revision if base.serving is not None else None
    asked = record.spec.target
    # One of the operator's own that it died on moves to what was wanted then; the table sees that this has changed.
    target = Revision(asked.version, asked.revision) if asked.revision and not record.is_manual else base.target
    snapshot = None
    if policy is not None:
        snapshot = PolicySnapshot(name=policy.name, generation=policy.generation, spec=policy.spec.wire())
    if serving == target and base.target_serves and not record.is_manual:
        # It has ended, and its status was lost since: steps from a revision to itself would take pods from callers.
        return record.with_status(
            state=RolloutState.SUCCEEDED,
            reason=str(Reason.SERVING),
            message=f"version {target.version} serves already",
            since=base.now,
            started_at=base.now,
            finished_at=base.now,
            to=RevisionRef(version=target.version, revision=target.hash),
            policy=snapshot,
        )
    return record.with_status(
        state=RolloutState.PENDING,
        reason=str(Reason.ROLLOUT_IN_PROGRESS),
        message=f"a rollout to version {target.version}",
        since=base.now,
        started_at=base.now,
        from_=RevisionRef(version=serving.version, revision=serving.hash) if serving is not None else None,
        to=RevisionRef(version=target.version, revision=target.hash),
        policy=snapshot,
        held_from=target_spec_hash(model) if record.is_manual else None,
        preview=f"http://{names.revision_name(model.name, target.hash)}.{model.namespace}.svc",
    )


def _needs_approval(policy: RolloutPolicySpec) -> bool:
    gate = policy.gates is not None and policy.gates.approval is not None
    return gate or any(step.kind is StepKind.APPROVAL for step in compile_steps(policy.strategy))


def _list_changes(
    model: Model,
    found: RolloutHistory,
    base: Observation,
    policy: RolloutPolicy | None,
    version: ModelVersion | None,
    digest: str | None,
    choice: RuntimeChoice | None,
    stored: Mapping[str, Object],
) -> tuple[ChangeStatus, ...]:
    """Who has changed what the target is made of since what serves was made."""
    serving = base.serving.revision if base.serving is not None else None
    kept = stored.get(serving.hash) if serving is not None else None
    signed = model.spec.changed_by
    parts = [
        authors.AuthoredPart("Model", model.name, authors.hash_model_spec(model.spec), (signed,) if signed else ())
    ]
    if policy is not None:
        by = (policy.spec.changed_by,) if policy.spec.changed_by else ()
        parts.append(authors.AuthoredPart("RolloutPolicy", policy.name, authors.hash_spec(policy.spec), by))
    if version is not None:
        now = serving.version if serving is not None else None
        parts.append(authors.build_version_part(version.name, version.spec, digest, now))
    if choice is not None:
        made = kept["data"] if kept is not None else None
        runtime = choice.runtime
        parts.append(authors.build_runtime_part(runtime.spec, runtime.kind, runtime.name, runtime.generation, made))
    newest = [*found.ended, *([found.newest] if found.newest is not None else [])]
    told = [r for r in newest if r.state is RolloutState.SUCCEEDED and serving is not None and r.candidate == serving]
    served = {entry.kind: entry.content for entry in told[-1].status.authors} if told else {}
    live = found.newest is not None and found.newest.is_active
    settled = serving is not None and base.target == serving and not live
    return authors.track_changes(model.status.changes, parts, served, settled=settled)


def _with_authors(
    record: RolloutRecord | None,
    base: Observation,
    changes: Iterable[ChangeStatus],
    made: Object | None,
    stored: Mapping[str, Object],
) -> RolloutRecord | None:
    """The record with the authors of its candidate."""
    if (
        record is None
        or not record.is_active
        or record.is_manual
        or record.candidate is None
        or record.candidate != base.target
    ):
        return record
    kept = stored.get(record.from_revision.hash) if record.from_revision is not None else None
    rendered, served = made["data"] if made is not None else None, kept["data"] if kept is not None else None
    found = authors.record_authors(record.status.authors, changes, rendered, served)
    return record if found == record.status.authors else record.with_status(authors=found)


def approved_runtime(record: RolloutRecord | None, revision: Revision) -> str | None:
    """The content of the runtime that people have approved for `revision`, whose rollout is under way."""
    if record is None or not record.is_active or record.candidate != revision:
        return None
    gates = any(gate.name == "approval" and gate.outcome == Outcome.PASS for gate in record.status.gates)
    if not gates and not record.status.approvals:
        return None
    return next((entry.content for entry in record.status.authors if entry.kind in authors.RUNTIME_KINDS), None)


def _approval_hash(record: RolloutRecord, version: ModelVersion, digest: str | None, made: Object | None) -> str:
    snapshot = record.status.policy.spec if record.status.policy is not None else None
    runtime = made["data"].get("runtime", {}).get("content") if made is not None else None
    assert record.candidate is not None  # noqa: S101 - callers have looked
    return approvals.approval_content_hash(record.candidate, version.spec, digest, snapshot, runtime)


def _with_content_hash(
    record: RolloutRecord | None, version: ModelVersion | None, digest: str | None, made: Object | None
) -> RolloutRecord | None:
    """The record with the hash of what people would approve now: a version made anew under its name is another one."""
    if (
        record is None
        or not record.is_active
        or record.candidate is None
        or version is None
        or version.name != record.candidate.version
    ):
        return record
    if record.status.policy is not None and record.status.policy.is_lost:
        return record
    content = _approval_hash(record, version, digest, made)
    return record if record.status.content_hash == content else record.with_status(content_hash=content)


def target_spec_hash(model: Model) -> str:
    """Names what spec.version asks for, so that a change of it is seen."""
    return names.content_hash(model.spec.version.wire())


def is_released_by_spec(record: RolloutRecord | None, model: Model) -> bool:
    """Whether spec.version was changed since a person's rollback began."""
    held = record.status.held_from if record is not None else None
    return held is not None and held != target_spec_hash(model)


def _policy_problem(
    policy: RolloutPolicySpec,
    steps: tuple[RolloutStep, ...],
    model: Model,
    base: Observation,
    traffic: TrafficPort,
    scene: RoutingObjects,
) -> Problem | None:
    """What the policy asks for and can't be had by this Model."""
    needs = TrafficRequirements.from_steps(
        steps,
        ab_test=policy.strategy.ab_test is not None,
        replicas=base.replicas,
        autoscaling=model.spec.serving.autoscaling is not None,
    )
    texts = list(traffic.list_unsupported_needs(scene, needs)) if base.serving is not None else []
    longest = timedelta(seconds=model.spec.serving.max_request_seconds)
    texts += policy_lint.find_deadline_problems(policy, steps, longest)
    if policy.analysis is not None and policy.analysis.baseline == "Fresh" and model.spec.endpoint is None:
        texts.append("spec.analysis.baseline: Fresh needs a gateway (spec.endpoint of the Model)")
    bounded = policy.surge is not None and policy.surge.pods is not None
    if bounded and model.spec.serving.scaled_externally and base.serving is not None:
        texts.append(
            "spec.surge.pods: pods and traffic can't move in turns while the Model's spec.serving.autoscaling.external "
            "leaves the number of pods to others; leave it out, or have the autoscaler scale the Model itself"
        )
    wrong = policy_lint.find_problems(policy)
    if not texts and not wrong:
        return None
    ref = model.spec.rollout_policy_ref
    name = ref.name if ref is not None else ""
    reason = Reason.INVALID_POLICY if wrong else Reason.POLICY_NOT_SUPPORTED
    return Problem(reason, f"RolloutPolicy {name}: {'; '.join((*wrong, *texts))}", stalled=True)


def _current_step(record: RolloutRecord | None, steps: tuple[RolloutStep, ...]) -> RolloutStep | None:
    """The step that goes on; none once the record turns back or is being promoted."""
    if (
        record is None
        or record.state not in STEP_STATES
        or record.status.step is None
        or record.step_index >= len(steps)
    ):
        return None
    return steps[record.step_index]


def _has_hold_ended(record: RolloutRecord | None, hold: timedelta, now: datetime) -> bool:
    entry = record.step_status if record is not None else None
    return entry is not None and entry.confirmed_at is not None and now - entry.confirmed_at >= hold


def _analyze_step(
    context: Context,
    model: Model,
    record: RolloutRecord | None,
    policy: RolloutPolicySpec,
    steps: tuple[RolloutStep, ...],
    base: Observation,
    scene: RoutingObjects,
    stored: Mapping[str, Object],
) -> StepAnalysis:
    """The latest measurements of the step that is watched, judged. Asks the desk, which never makes a pass wait."""
    if record is None or record.candidate is None or policy.analysis is None:
        return StepAnalysis()
    at = select_measured_step(record, steps, exposed=_is_exposed(base, record.candidate))
    if at is None:
        return StepAnalysis(outcome=_initial_outcome(policy, _current_step(record, steps)))
    step, metrics = at.step, step_analysis.metrics_for_step(policy, at.step)
    if not metrics or context.measurements is None:
        return StepAnalysis(at, outcome=_initial_outcome(policy, step) if at.is_current else None)
    ask = MeasurementRequest(
        key=f"{record.uid}/{at.index}",
        notify_key=Key("Model", model.namespace, model.name),
        namespace=model.namespace,
        model=model.name,
        candidate=_measured_target(context, model, record.candidate, stored),
        serving=_comparison_target(context, model, record, policy, step, stored),
        since=at.since,
        interval=timedelta(seconds=parse_duration(policy.analysis.interval)),
        metrics=metrics,
        mirror=step.mirror > 0,
        gateway=_find_gateway(context, scene),
        pods_requested_at=next((entry.started_at for entry in record.status.steps if entry.index == at.index), None),
    )
    found = context.measurements.get_measurements(ask)
    complete_at = at.since + timedelta(seconds=model.spec.serving.max_request_seconds)
    outcome, verdicts = step_analysis.evaluate_step(
        policy, steps, step, found, record, index=at.index, early=at.early, complete_at=complete_at
    )
    measured = {measurement.metric: measurement.at for measurement in found or ()}
    counted = at.is_current and baseline_revision(policy, record, step) is None
    weight = context.measurements.get_observed_weight(ask) if counted else None
    return StepAnalysis(at, verdicts, outcome, measured, found, weight, ask)


def _is_exposed(base: Observation, candidate: Revision) -> bool:
    """Whether callers' requests are sent to the candidate, as the route or the pods have it."""
    return base.traffic.weights.get(candidate.hash, 0) > 0 or base.traffic.matched == candidate.hash


def _initial_outcome(policy: RolloutPolicySpec, step: RolloutStep | None) -> Outcome | None:
    return step_analysis.initial_outcome(policy, step) if step is not None else None


def with_verdicts(
    record: RolloutRecord | None,
    looked: StepAnalysis,
    now: datetime,
    *,
    hold: timedelta = timedelta(0),
    fresh: bool = False,
) -> RolloutRecord | None:
    """`record` with what the looks of the watched step have found, as far as it is worth a write; see
    `evaluation.noted`."""
    if record is None or looked.step is None or not looked.verdicts:
        return record
    measured = looked.measured_at or {}
    if not looked.step.is_current:
        return step_analysis.record_late_failures(record, looked.step.index, looked.verdicts, measured, now)
    weight = looked.observed_weight
    return step_analysis.record_verdicts(
        record, looked.verdicts, looked.outcome, measured, now, hold=hold, weight=weight, fresh=fresh
    )


def _ab_test_won(
    context: Context, policy: RolloutPolicySpec, step: RolloutStep, looked: StepAnalysis, *, patient: bool
) -> tuple[bool | None, str]:
    """Whether the candidate has won the A/B test, whose end has come; None while its values are being asked for, and
    while it is worth to be `patient` with a look that has not come or that failed."""
    metric = step_analysis.winner_metric(policy)
    if patient and metric is not None and step_analysis.is_worth_waiting(metric, looked.measurements):
        return None, ""
    if (
        metric is None
        or looked.request is None
        or context.measurements is None
        or not step_analysis.is_query_metric(metric)
    ):
        return step_analysis.decide_ab_test(policy, looked.measurements)
    points = context.measurements.get_range_points(looked.request, metric, looked.request.since + step.hold)
    return (None, "") if points is None else step_analysis.decide_ab_test(policy, None, points)


def _comparison_target(
    context: Context,
    model: Model,
    record: RolloutRecord,
    policy: RolloutPolicySpec,
    step: RolloutStep,
    stored: Mapping[str, Object],
) -> RevisionTarget | None:
    """What the candidate is compared with: all of the serving revision, or fresh pods of it."""
    if record.from_revision is None:
        return None
    serving, fresh = (
        _measured_target(context, model, record.from_revision, stored),
        baseline_revision(policy, record, step),
    )
    return RevisionTarget.for_revision(model.name, fresh, serving.metrics) if fresh is not None else serving


def _measured_target(
    context: Context, model: Model, revision: Revision, stored: Mapping[str, Object]
) -> RevisionTarget:
    kept = stored.get(revision.hash)
    runtime = kept["data"].get("runtime", {}) if kept is not None else {}
    return RevisionTarget.for_revision(model.name, revision, _runtime_metrics(context, model, runtime))


def _runtime_metrics(context: Context, model: Model, runtime: Mapping[str, Any]) -> RuntimeMetrics | None:
    clusterwide = runtime.get("kind") == "ClusterModelRuntime"
    kind = kinds.CLUSTER_MODEL_RUNTIME if clusterwide else kinds.MODEL_RUNTIME
    raw = context.store.get(kind, None if clusterwide else model.namespace, str(runtime.get("name")))
    if raw is None:
        return None
    try:
        return (ClusterModelRuntime if clusterwide else ModelRuntime).parse(raw).spec.metrics
    except InvalidObject:
        return None


def _find_gateway(context: Context, scene: RoutingObjects) -> Gateway | None:
    if scene.endpoint is None:
        return None
    for gateway in scene.gateways.values():
        found = context.store.get(kinds.GATEWAY_CLASS, None, gateway["spec"].get("gatewayClassName", "")) or {}
        controller = found.get("spec", {}).get("controllerName")
        if controller:
            return Gateway(str(controller), scene.endpoint.protocol == "GRPC")
    return None


def _comparer_deployment(context: Context, model: Model) -> Object | None:
    found = context.store.get(kinds.DEPLOYMENT, model.namespace, names.comparer_name(model.name))
    return found if found is not None and is_controlled_by(found, model.uid) else None


def _is_comparer_ready(context: Context, model: Model, record: RolloutRecord | None) -> bool:
    if record is None or record.from_revision is None or record.candidate is None:
        return False
    return comparer_pod.is_comparer_ready(_comparer_deployment(context, model), record.from_revision, record.candidate)


def _evaluate_approval(
    context: Context,
    model: Model,
    found: RolloutHistory,
    record: RolloutRecord | None,
    policy: RolloutPolicySpec,
    step: RolloutStep | None,
    version: ModelVersion | None,
    now: datetime,
) -> approvals.ApprovalDecision | None:
    """What people say to the approval that is waited for now; None when none is."""
    if record is None or not record.is_active or record.candidate is None:
        return None
    gate = policy.gates.approval if policy.gates is not None and record.status.step is None else None
    if gate is not None:
        required, since, accounts = gate.required, record.status.since or now, gate.service_accounts
    elif step is not None and step.kind is StepKind.APPROVAL:
        entry = record.step_status
        required, since = step.required, entry.started_at if entry is not None else now
        accounts = step.service_accounts
    else:
        return None
    admission = context.admission(model.namespace)
    if not admission.in_force:
        text = admission.problem or "whether the admission policies are in force is being looked at"
        stalled = admission.in_force is False
        return approvals.ApprovalsMissing((), required, str(Reason.ADMISSION_POLICY_MISSING), text, stalled)
    raw = found.raw[record.name]
    rollout = ModelRollout.parse(raw)
    given = _read_approvals(context, model)
    content = record.status.content_hash
    if version is None or record.candidate.version != version.name or content is None or not record.status.authors:
        text = f"ModelVersion {record.candidate.version} can't be looked at, so nothing can be approved"
        return approvals.ApprovalsMissing((), required, str(Reason.AWAITING_APPROVAL), text)
    known_since = admission.since
    return approvals.evaluate_approvals(
        given,
        rollout=rollout,
        content_hash=content,
        authors=authors.collect_authors(record.status.authors, service_accounts=accounts),
        service_accounts=accounts,
        required=required,
        now=now,
        since=max(since, known_since) if known_since is not None else since,
    )


def _read_approvals(context: Context, model: Model) -> Iterable[Approval]:
    """The newest: a rollout that is under way is younger than what was given for those before it."""
    store = context.store
    given = store.sort_newest_first(
        kinds.APPROVAL, store.list_places("model", kinds.APPROVAL, model.name, model.namespace)
    )
    for place in given[:MAX_APPROVALS_READ]:
        try:
            yield Approval.parse(store.get(kinds.APPROVAL, *place) or {})
        except InvalidObject:
            continue


def _evaluate_command(
    context: Context,
    namespace: str,
    record: RolloutRecord | None,
    policy: RolloutPolicySpec,
    steps: tuple[RolloutStep, ...],
    frozen_until: datetime | None,
    unread: Problem | None,
) -> commands.CommandDecision | None:
    if record is None or record.spec.command is None:
        return None
    frozen = frozen_until is not None and not record.status.freeze_overridden
    gates = policy.gates
    passed = {gate.name for gate in record.status.gates if gate.outcome == Outcome.PASS}
    wanted = [name for name in JOB_GATES if gates is not None and getattr(gates, name) is not None]
    open_gates = tuple(name for name in wanted if name not in passed) if not record.is_manual else ()
    if unread is not None:
        open_gates = ("those of the policy that it began with, which can't be read,",)
    places = []
    if gates is not None and gates.approval is not None and "approval" not in passed:
        places.append("the approval gate")
    done = {entry.index for entry in record.status.steps if entry.outcome == "Pass"}
    places += [f"step {n + 1}" for n, step in enumerate(steps) if step.kind is StepKind.APPROVAL and n not in done]
    standing = commands.CommandContext(
        state=record.state,
        newest=True,
        paused=bool(record.status.paused),
        frozen=frozen,
        manual=record.is_manual,
        released=bool(record.status.released),
        retried=bool(record.status.retried),
        gates_open=open_gates,
        approvals_open=() if record.is_manual else tuple(places),
    )
    handled = {entry.token for entry in record.status.commands}
    return commands.evaluate_command(record.spec.command, handled, standing, context.admission(namespace))


def failed_stage(context: Context, namespace: str, model: str, version: str) -> Stage | None:
    """What the last rollout to a version made of it: Rejected by a gate or by people, Quarantined when it was rolled
    back or aborted; None when it goes on, ended well, may be tried again, or when a gate decided nothing."""
    found = []
    for raw in context.store.by_model(kinds.MODEL_ROLLOUT, namespace, model):
        try:
            found.append(RolloutRecord.from_rollout(ModelRollout.parse(raw)))
        except InvalidObject:
            continue
    last = max((record for record in found if record.spec.target.version == version), key=_creation_order, default=None)
    if last is None or last.state not in REVERTED_STATES or last.status.retried or last.ended_undecided:
        return None
    refused = last.status.reason in (Reason.GATE_FAILED, Reason.APPROVAL_REJECTED)
    return Stage.REJECTED if refused else Stage.QUARANTINED


async def create_record(context: Context, model: Model, target: Revision, number: int) -> bool:
    """Make the record of the move to `target`. One of that name that is there already is taken as it is."""
    body = {
        "apiVersion": names.API_VERSION,
        "kind": "ModelRollout",
        "metadata": {
            "name": f"{model.name}-{number}",
            "namespace": model.namespace,
            "labels": names.model_labels(model.name),
        },
        "spec": {
            "modelRef": {"name": model.name},
            "modelUid": model.uid,
            "number": number,
            "target": {"version": target.version, "revision": target.hash},
        },
    }
    try:
        live = await context.client.create(body)
    except api_errors.AlreadyExists:
        found = await context.client.get(kinds.MODEL_ROLLOUT, model.namespace, f"{model.name}-{number}")
        if found is None:
            raise
        live = {**found, "apiVersion": names.API_VERSION, "kind": "ModelRollout"}
    context.store.put(live, quiet=True)
    context.enqueue(Key("Model", model.namespace, model.name))
    return True


async def write_record(
    context: Context,
    raw: Object,
    old: RolloutRecord,
    new: RolloutRecord,
    now: datetime,
    *,
    stalled: bool = False,
    evidence: tuple[bool, Reason, str] | None = None,
) -> bool:
    """Write the record when it has changed; the one status write of a pass for this object. `stalled`: it goes on only
    once a person has done something. `evidence`: what its policy asks for."""
    status = new.status.model_copy(update={"observed_generation": new.generation})
    status = status.model_copy(
        update={"conditions": _record_conditions(replace(new, status=status), stalled, evidence, now)}
    )
    if status == old.status:
        return False
    policy = await policy_snapshots.offload_spec(
        context, raw["metadata"]["namespace"], status.policy, old.status.policy
    )
    status = status.model_copy(update={"policy": policy})
    written = await write_status(context, raw, status, old.status)
    if written:
        metric_updates.count_finished(old, new)
        # The run that made the version, which bears its name, tells what became of it.
        run = (raw["metadata"]["namespace"], new.spec.target.version)
        if new.state != old.state and context.store.get(kinds.TRAINING_RUN, *run) is not None:
            context.enqueue(Key(kinds.TRAINING_RUN.kind, *run))
    return written


def _record_conditions(
    record: RolloutRecord, stuck: bool, evidence: tuple[bool, Reason, str] | None, now: datetime
) -> Any:
    stalled = record.state in REVERTED_STATES or (record.is_active and stuck)
    ready, moving = not record.is_active and not stalled, record.is_active and not stalled
    reason, message = record.status.reason or str(Reason.ROLLOUT_IN_PROGRESS), record.status.message or ""
    told = record.status.conditions
    quiet = (str(Reason.UP_TO_DATE), "")
    known = find_condition(record.status.conditions, ConditionType.EVIDENCE_ASKED)
    if known is not None and evidence is None:
        evidence = (known.status == "True", Reason(known.reason), known.message)
    asked = () if evidence is None or record.is_manual else ((ConditionType.EVIDENCE_ASKED, *evidence),)
    rows = (
        (ConditionType.READY, ready, reason, message),
        (ConditionType.RECONCILING, moving, *((reason, message) if moving else quiet)),
        (ConditionType.STALLED, stalled, *((reason, message) if stalled else quiet)),
        *asked,
    )
    for type_, value, why, text in rows:
        told = with_condition(told, type_, value, why, text, generation=record.generation, now=now)
    return told


async def finish_superseded(context: Context, found: RolloutHistory, now: datetime) -> bool:
    """Records that something newer has taken the place of come to their end; so do rollbacks that can't be."""
    changed = False
    for record, why in found.invalid_rollbacks:
        ended = record.with_status(
            state=RolloutState.SUPERSEDED, reason=str(Reason.INVALID_SPEC), message=why, since=now, finished_at=now
        )
        changed |= await write_record(context, found.raw[record.name], record, ended, now)
    for record in found.superseded:
        newest = found.newest.name if found.newest is not None else ""
        text = f"ModelRollout {newest} has taken its place"
        ended = record.with_status(
            state=RolloutState.SUPERSEDED,
            reason=str(Reason.SUPERSEDED),
            message=text,
            since=now,
            # One that never began, or forgot it, must not come out as the younger of two of the same second.
            started_at=record.status.started_at or record.created,
            finished_at=now,
        )
        changed |= await write_record(context, found.raw[record.name], record, ended, now)
    return changed


async def prune_history(context: Context, found: RolloutHistory, limit: int) -> None:
    """Delete ended records beyond the policy's historyLimit, the oldest first."""
    kept = limit - (1 if found.newest is not None and not found.newest.is_active else 0)
    for record in found.ended[: max(0, len(found.ended) - max(kept, 0))]:
        raw = found.raw[record.name]
        metadata = raw["metadata"]
        await context.client.delete(
            kinds.MODEL_ROLLOUT, metadata["namespace"], metadata["name"], uid=metadata["uid"], resource_version=None
        )
        context.store.forget(kinds.MODEL_ROLLOUT, metadata["namespace"], metadata["name"], metadata["uid"], quiet=True)
