"""The ModelRollouts of a Model: what a decision needs to know of them, and how they are begun, written and ended."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from modelwright.analysis.port import Ask, Gateway, Target
from modelwright.api import names
from modelwright.api.common import InvalidObject, problems, seconds
from modelwright.api.conditions import ConditionType, find, with_condition
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.approval import Approval
from modelwright.api.v1alpha1.model import ChangeStatus, Model
from modelwright.api.v1alpha1.policy import RolloutPolicy, RolloutPolicySpec, Strategy
from modelwright.api.v1alpha1.rollout import ModelRollout, PolicySnapshot, RevisionRef, RolloutState
from modelwright.api.v1alpha1.runtime import ClusterModelRuntime, ModelRuntime, RuntimeMetrics
from modelwright.api.v1alpha1.version import ModelVersion, Stage
from modelwright.core import authors, people
from modelwright.core.analysis.evidence import Measurement, Outcome, Verdict
from modelwright.core.gates import IN_JOBS
from modelwright.core.revision import Revision
from modelwright.core.rollout import evaluation, freeze, lint
from modelwright.core.rollout.observed import Observed, Problem, Rolling
from modelwright.core.rollout.record import TAKEN_BACK, Record
from modelwright.core.rollout.steps import Step, StepKind, compiled
from modelwright.core.rollout.stepwise import baseline
from modelwright.core.rollout.watch import STEPPING, Watched, watched
from modelwright.core.runtimes import Choice
from modelwright.kube import errors, kinds
from modelwright.kube.queue import Key
from modelwright.obs.reading import guarded
from modelwright.reconcile import figures, snapshots
from modelwright.reconcile.children import controlled_by
from modelwright.reconcile.context import Context
from modelwright.reconcile.report import write_status
from modelwright.serving import comparer
from modelwright.traffic.port import Needs, Scene
from modelwright.traffic.port import Traffic as TrafficPort

Object = dict[str, Any]

READ_OF_APPROVALS = 200
"""So many of the newest Approvals of a Model are read in a pass at most."""
BY_HAND = RolloutPolicySpec(strategy=Strategy(preset="Rolling"), keep_previous="0s", rollback_window=0)
"""What a rollback by hand goes by on a Model without a policy: none of its steps are used."""


@dataclass(frozen=True)
class Records:
    """The ModelRollouts of one Model. `newest` is the one in force; `raw` are all, by name."""

    newest: Record | None
    raw: Mapping[str, Object]
    superseded: tuple[Record, ...]
    """Older ones that have not ended: something newer has taken their place."""
    ended: tuple[Record, ...]
    """Older ones that have ended, oldest first."""
    number: int
    """Of the next one that the operator makes."""
    refused: tuple[tuple[Record, str], ...] = ()
    """Rollbacks by hand that can't be, with why; nothing else ever looks at them."""

    @property
    def held_to(self) -> Record | None:
        """The rollback by hand that decides where the Model goes, if one does."""
        return self.newest if self.newest is not None and self.newest.holds else None


def records(context: Context, model: Model) -> Records:
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
            and not _proven(context, model.namespace, created)
        ):
            # Nothing proves who made it.
            continue
        if rollout.spec.rollback is not None and rollout.status.started_at is None:
            why = people.unserved(rollout.spec.target, served)
            if why is not None or rollout.status.state is not None:
                raws[rollout.name] = raw
                if rollout.status.state is None and why is not None:
                    refused.append((Record.of(rollout), why))
                continue
        numbers.append(rollout.spec.number or 0)
        if rollout.metadata.deletion_timestamp is None:
            found.append(Record.of(rollout))
            raws[rollout.name] = raw
    found.sort(key=_age)
    older = found[:-1]
    return Records(
        newest=found[-1] if found else None,
        raw=raws,
        superseded=tuple(record for record in older if record.live),
        ended=tuple(record for record in older if not record.live),
        number=max(numbers) + 1,
        refused=tuple(refused),
    )


async def with_policy(context: Context, found: Records, namespace: str) -> Records:
    """These records, where the one in force has its policy as a whole."""
    newest = found.newest
    if newest is None:
        return found
    kept = newest.status.policy
    policy = await snapshots.whole(context, namespace, kinds.ROLLOUT_POLICY, kept, ask=newest.live)
    return found if policy is newest.status.policy else replace(found, newest=newest.but(policy=policy))


def _proven(context: Context, namespace: str, created: datetime) -> bool:
    """Whether admission has checked the name of who wrote an object at that time."""
    admission = context.admission(namespace)
    return bool(admission.in_force) and (admission.since is None or created >= admission.since)


def _age(record: Record) -> tuple[datetime, datetime, int, str]:
    """Creation times have whole seconds: of two in the same second the one that was begun later is younger."""
    begun = record.status.started_at or datetime.max.replace(tzinfo=UTC)
    return record.created, begun, record.spec.number or 0, record.name


@dataclass(frozen=True)
class Looked:
    """What was measured for the step that is watched, and the verdicts on it."""

    step: Watched | None = None
    verdicts: tuple[Verdict, ...] = ()
    outcome: Outcome | None = None
    measured: Mapping[str, datetime] | None = None
    measurements: tuple[Measurement, ...] | None = None
    observed_weight: int | None = None
    ask: Ask | None = None


def rolling(
    context: Context, model: Model, found: Records, base: Observed, *, digest: str | None, version: ModelVersion | None,
    traffic: TrafficPort, scene: Scene, stored: Mapping[str, Object], choice: Choice | None = None,
    made: Object | None = None,
) -> tuple[Rolling | None, Looked]:  # fmt: skip
    """What a decision has to know beside pods and traffic; None for a Model that moves without a policy.

    `base`: the picture so far; its target is the one to go to. `digest`, `version`, `choice` (of a runtime) and `made`
    (its ControllerRevision): the target's, as far as known.
    """
    ref = model.spec.rollout_policy_ref
    record = found.newest
    if ref is None and (record is None or not (record.live or record.holds)):
        return None, Looked()
    present, problem = _policy(context, model)
    record = _initialised(record, model, base, present)
    policy, unread = _snapshot(record, present)
    changes = None
    if _asks_people(policy) or (present is not None and _asks_people(present.spec)):
        changes = _changes(model, found, base, present, version, digest, choice, stored)
        record = _with_authors(record, base, changes, made, stored)
    record = _with_content(record, version, digest, made)
    problem = unread or problem
    steps = compiled(policy.strategy)
    if record is None or not record.live or record.by_hand:
        unread = None
    elif unread is not None and record.status.step is not None:
        # It may be further on than any step of another policy.
        steps = (*steps, *steps[-1:] * (record.step + 1))
    refused = None
    if problem is None and ref is not None:
        refused = _refused(policy, steps, model, base, traffic, scene)
    elif _without_policy(record):
        refused = problem or Problem(Reason.WAITING_FOR_POLICY, "spec.rolloutPolicyRef names no RolloutPolicy any more")
    looked = guarded(
        found.raw.get(record.name, {}) if record is not None else {},
        functools.partial(_look, context, model, record, policy, steps, base, scene, stored),
        # What was measured decides nothing, in either direction; people and the deadline still do.
        lambda _: Looked(outcome=Outcome.ERROR),
    )
    step = _step(record, steps)
    longest = timedelta(seconds=model.spec.serving.max_request_seconds)
    hold = evaluation.least_hold(policy, step, longest) if step is not None else timedelta(0)
    record = noted(record, looked, base.now, hold=hold)
    own = looked.step is None or looked.step.own
    over = step is not None and step.kind is StepKind.AB_TEST and _held(record, hold, base.now)
    patient = not _held(record, hold + evaluation.WINNER_PATIENCE, base.now)
    won, text = _won(context, policy, step, looked, patient=patient) if over and step is not None else (None, "")
    history = model.status.history[: policy.rollback_window]
    frozen_until = freeze.frozen_until(policy.freeze, base.now)
    return (
        Rolling(
            policy=policy,
            steps=steps,
            record=record,
            number=found.number,
            problem=problem or refused,
            unread=unread,
            evidence=lint.evidence_asked(policy, steps) if policy is not BY_HAND and ref is not None else None,
            refused=refused,
            outcome=looked.outcome if own else _nothing_yet(policy, step),
            watched=None if own else looked.outcome,
            verdicts=looked.verdicts,
            changes=changes,
            people=_people(context, model, found, record, policy, step, version, base.now),
            command=_command(context, model.namespace, record, policy, steps, frozen_until, unread),
            longest_request=longest,
            frozen_until=frozen_until,
            comparer_ready=_comparer_ready(context, model, record),
            replica_weighted=model.spec.endpoint is None,
            surge=policy.surge.pods if policy.surge is not None else None,
            windowed=frozenset(entry.revision for entry in history),
            released_by_spec=released(record, model),
            led=ref is not None,
            wins=won,
            test_text=text,
            trouble=model.status.failure.message if model.status.failure is not None else "",
        ),
        looked,
    )


def _policy(context: Context, model: Model) -> tuple[RolloutPolicy | None, Problem | None]:
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


def _snapshot(record: Record | None, present: RolloutPolicy | None) -> tuple[RolloutPolicySpec, Problem | None]:
    """The policy that counts: what a live record began with, else the present one."""
    kept = record.status.policy if record is not None else None
    if record is not None and kept is not None and (record.live or present is None):
        if kept.lost:
            text = (
                f"status.policy of {record.name}: ControllerRevision {kept.stored_in}, which holds the policy that it "
                "began with, is gone or holds something else: put it back, or abort the rollout"
            )
            return BY_HAND, Problem(Reason.INVALID_POLICY, text, stalled=True)
        try:
            return RolloutPolicySpec.model_validate(kept.spec, by_alias=True, by_name=False), None
        except ValidationError as error:
            text = "; ".join(f"{path}: {what}" for path, what in problems(error))
            return BY_HAND, Problem(Reason.INVALID_POLICY, f"status.policy of {record.name}: {text}", stalled=True)
    if record is not None and _without_policy(record) and record.state is not RolloutState.PENDING:
        text = f"{record.name} has no status.policy, so nobody knows what evidence it asks for: abort it"
        return BY_HAND, Problem(Reason.INVALID_POLICY, text, stalled=True)
    return (present.spec if present is not None else BY_HAND), None


def _without_policy(record: Record | None) -> bool:
    """Whether a rollout goes on that never kept the policy that it was made for: it was deleted, or broken, first."""
    return record is not None and record.live and not record.by_hand and record.status.policy is None


def _initialised(record: Record | None, model: Model, base: Observed, policy: RolloutPolicy | None) -> Record | None:
    """A record that was only just made, with what it has to remember of this moment."""
    if record is None or record.status.state is not None or base.target is None:
        return record
    serving = base.serving.revision if base.serving is not None else None
    asked = record.spec.target
    # One of the operator's own that it died on moves to what was wanted then; the table sees that this has changed.
    target = Revision(asked.version, asked.revision) if asked.revision and not record.by_hand else base.target
    snapshot = None
    if policy is not None:
        snapshot = PolicySnapshot(name=policy.name, generation=policy.generation, spec=policy.spec.wire())
    if serving == target and base.target_serves and not record.by_hand:
        # It has ended, and its status was lost since: steps from a revision to itself would take pods from callers.
        return record.but(
            state=RolloutState.SUCCEEDED,
            reason=str(Reason.SERVING),
            message=f"version {target.version} serves already",
            since=base.now,
            started_at=base.now,
            finished_at=base.now,
            to=RevisionRef(version=target.version, revision=target.hash),
            policy=snapshot,
        )
    return record.but(
        state=RolloutState.PENDING,
        reason=str(Reason.ROLLOUT_IN_PROGRESS),
        message=f"a rollout to version {target.version}",
        since=base.now,
        started_at=base.now,
        from_=RevisionRef(version=serving.version, revision=serving.hash) if serving is not None else None,
        to=RevisionRef(version=target.version, revision=target.hash),
        policy=snapshot,
        held_from=wanted_hash(model) if record.by_hand else None,
        preview=f"http://{names.revision_name(model.name, target.hash)}.{model.namespace}.svc",
    )


def _asks_people(policy: RolloutPolicySpec) -> bool:
    gate = policy.gates is not None and policy.gates.approval is not None
    return gate or any(step.kind is StepKind.APPROVAL for step in compiled(policy.strategy))


def _changes(
    model: Model, found: Records, base: Observed, policy: RolloutPolicy | None, version: ModelVersion | None,
    digest: str | None, choice: Choice | None, stored: Mapping[str, Object],
) -> tuple[ChangeStatus, ...]:  # fmt: skip
    """Who has changed what the target is made of since what serves was made."""
    serving = base.serving.revision if base.serving is not None else None
    kept = stored.get(serving.hash) if serving is not None else None
    signed = model.spec.changed_by
    parts = [authors.Part("Model", model.name, authors.content_of_model(model.spec), (signed,) if signed else ())]
    if policy is not None:
        by = (policy.spec.changed_by,) if policy.spec.changed_by else ()
        parts.append(authors.Part("RolloutPolicy", policy.name, authors.content_of(policy.spec), by))
    if version is not None:
        now = serving.version if serving is not None else None
        parts.append(authors.version_part(version.name, version.spec, digest, now))
    if choice is not None:
        made = kept["data"] if kept is not None else None
        runtime = choice.runtime
        parts.append(authors.runtime_part(runtime.spec, runtime.kind, runtime.name, runtime.generation, made))
    newest = [*found.ended, *([found.newest] if found.newest is not None else [])]
    told = [r for r in newest if r.state is RolloutState.SUCCEEDED and serving is not None and r.to == serving]
    served = {entry.kind: entry.content for entry in told[-1].status.authors} if told else {}
    live = found.newest is not None and found.newest.live
    settled = serving is not None and base.target == serving and not live
    return authors.followed(model.status.changes, parts, served, settled=settled)


def _with_authors(
    record: Record | None, base: Observed, changes: Iterable[ChangeStatus], made: Object | None,
    stored: Mapping[str, Object],
) -> Record | None:  # fmt: skip
    """The record with the authors of its candidate."""
    if record is None or not record.live or record.by_hand or record.to is None or record.to != base.target:
        return record
    kept = stored.get(record.source.hash) if record.source is not None else None
    rendered, served = made["data"] if made is not None else None, kept["data"] if kept is not None else None
    found = authors.recorded(record.status.authors, changes, rendered, served)
    return record if found == record.status.authors else record.but(authors=found)


def approved_runtime(record: Record | None, revision: Revision) -> str | None:
    """The content of the runtime that people have approved for `revision`, whose rollout is under way."""
    if record is None or not record.live or record.to != revision:
        return None
    gates = any(gate.name == "approval" and gate.outcome == Outcome.PASS for gate in record.status.gates)
    if not gates and not record.status.approvals:
        return None
    return next((entry.content for entry in record.status.authors if entry.kind in authors.RUNTIMES), None)


def _content_of(record: Record, version: ModelVersion, digest: str | None, made: Object | None) -> str:
    snapshot = record.status.policy.spec if record.status.policy is not None else None
    runtime = made["data"].get("runtime", {}).get("content") if made is not None else None
    assert record.to is not None  # noqa: S101 - callers have looked
    return people.content_hash_of(record.to, version.spec, digest, snapshot, runtime)


def _with_content(
    record: Record | None, version: ModelVersion | None, digest: str | None, made: Object | None
) -> Record | None:
    """The record with the hash of what people would approve now: a version made anew under its name is another one."""
    if record is None or not record.live or record.to is None or version is None or version.name != record.to.version:
        return record
    if record.status.policy is not None and record.status.policy.lost:
        return record
    content = _content_of(record, version, digest, made)
    return record if record.status.content_hash == content else record.but(content_hash=content)


def wanted_hash(model: Model) -> str:
    """Names what spec.version asks for, so that a change of it is seen."""
    return names.content_hash(model.spec.version.wire())


def released(record: Record | None, model: Model) -> bool:
    """Whether spec.version was changed since a person's rollback began."""
    held = record.status.held_from if record is not None else None
    return held is not None and held != wanted_hash(model)


def _refused(
    policy: RolloutPolicySpec, steps: tuple[Step, ...], model: Model, base: Observed, traffic: TrafficPort, scene: Scene
) -> Problem | None:
    """What the policy asks for and can't be had by this Model."""
    needs = Needs.of_steps(
        steps,
        ab_test=policy.strategy.ab_test is not None,
        replicas=base.replicas,
        autoscaling=model.spec.serving.autoscaling is not None,
    )
    texts = list(traffic.refusals(scene, needs)) if base.serving is not None else []
    longest = timedelta(seconds=model.spec.serving.max_request_seconds)
    texts += lint.too_long(policy, steps, longest)
    if policy.analysis is not None and policy.analysis.baseline == "Fresh" and model.spec.endpoint is None:
        texts.append("spec.analysis.baseline: Fresh needs a gateway (spec.endpoint of the Model)")
    bounded = policy.surge is not None and policy.surge.pods is not None
    if bounded and model.spec.serving.scaled_by_others and base.serving is not None:
        texts.append(
            "spec.surge.pods: pods and traffic can't move in turns while the Model's spec.serving.autoscaling.external "
            "leaves the number of pods to others; leave it out, or have the autoscaler scale the Model itself"
        )
    wrong = lint.problems(policy)
    if not texts and not wrong:
        return None
    ref = model.spec.rollout_policy_ref
    name = ref.name if ref is not None else ""
    reason = Reason.INVALID_POLICY if wrong else Reason.POLICY_NOT_SUPPORTED
    return Problem(reason, f"RolloutPolicy {name}: {'; '.join((*wrong, *texts))}", stalled=True)


def _step(record: Record | None, steps: tuple[Step, ...]) -> Step | None:
    """The step that goes on; none once the record turns back or is being promoted."""
    if record is None or record.state not in STEPPING or record.status.step is None or record.step >= len(steps):
        return None
    return steps[record.step]


def _held(record: Record | None, hold: timedelta, now: datetime) -> bool:
    entry = record.step_status if record is not None else None
    return entry is not None and entry.confirmed_at is not None and now - entry.confirmed_at >= hold


def _look(
    context: Context, model: Model, record: Record | None, policy: RolloutPolicySpec, steps: tuple[Step, ...],
    base: Observed, scene: Scene, stored: Mapping[str, Object],
) -> Looked:  # fmt: skip
    """The latest measurements of the step that is watched, judged. Asks the desk, which never makes a pass wait."""
    if record is None or record.to is None or policy.analysis is None:
        return Looked()
    at = watched(record, steps, exposed=_exposed(base, record.to))
    if at is None:
        return Looked(outcome=_nothing_yet(policy, _step(record, steps)))
    step, metrics = at.step, evaluation.asked(policy, at.step)
    if not metrics or context.desk is None:
        return Looked(at, outcome=_nothing_yet(policy, step) if at.own else None)
    ask = Ask(
        key=f"{record.uid}/{at.index}",
        wake=Key("Model", model.namespace, model.name),
        namespace=model.namespace,
        model=model.name,
        candidate=_target(context, model, record.to, stored),
        serving=_compared(context, model, record, policy, step, stored),
        since=at.since,
        interval=timedelta(seconds=seconds(policy.analysis.interval)),
        metrics=metrics,
        mirror=step.mirror > 0,
        gateway=_gateway(context, scene),
        began=next((entry.started_at for entry in record.status.steps if entry.index == at.index), None),
    )
    found = context.desk.look(ask)
    complete_at = at.since + timedelta(seconds=model.spec.serving.max_request_seconds)
    outcome, verdicts = evaluation.outcome_of(
        policy, steps, step, found, record, index=at.index, early=at.early, complete_at=complete_at
    )
    measured = {measurement.metric: measurement.at for measurement in found or ()}
    counted = at.own and baseline(policy, record, step) is None
    weight = context.desk.observed_weight(ask) if counted else None
    return Looked(at, verdicts, outcome, measured, found, weight, ask)


def _exposed(base: Observed, candidate: Revision) -> bool:
    """Whether callers' requests are sent to the candidate, as the route or the pods have it."""
    return base.traffic.weights.get(candidate.hash, 0) > 0 or base.traffic.matched == candidate.hash


def _nothing_yet(policy: RolloutPolicySpec, step: Step | None) -> Outcome | None:
    return evaluation.before_any(policy, step) if step is not None else None


def noted(
    record: Record | None, looked: Looked, now: datetime, *, hold: timedelta = timedelta(0), fresh: bool = False
) -> Record | None:
    """`record` with what the looks of the watched step have found, as far as it is worth a write; see
    `evaluation.noted`."""
    if record is None or looked.step is None or not looked.verdicts:
        return record
    measured = looked.measured or {}
    if not looked.step.own:
        return evaluation.noted_harm(record, looked.step.index, looked.verdicts, measured, now)
    weight = looked.observed_weight
    return evaluation.noted(
        record, looked.verdicts, looked.outcome, measured, now, hold=hold, weight=weight, fresh=fresh
    )


def _won(
    context: Context, policy: RolloutPolicySpec, step: Step, looked: Looked, *, patient: bool
) -> tuple[bool | None, str]:
    """Whether the candidate has won the A/B test, whose end has come; None while its values are being asked for, and
    while it is worth to be `patient` with a look that has not come or that failed."""
    metric = evaluation.winner(policy)
    if patient and metric is not None and evaluation.worth_waiting_for(metric, looked.measurements):
        return None, ""
    if metric is None or looked.ask is None or context.desk is None or not evaluation.is_query(metric):
        return evaluation.wins(policy, looked.measurements)
    points = context.desk.series(looked.ask, metric, looked.ask.since + step.hold)
    return (None, "") if points is None else evaluation.wins(policy, None, points)


def _compared(
    context: Context, model: Model, record: Record, policy: RolloutPolicySpec, step: Step, stored: Mapping[str, Object]
) -> Target | None:
    """What the candidate is compared with: all of the serving revision, or fresh pods of it."""
    if record.source is None:
        return None
    serving, fresh = _target(context, model, record.source, stored), baseline(policy, record, step)
    return Target.of(model.name, fresh, serving.metrics) if fresh is not None else serving


def _target(context: Context, model: Model, revision: Revision, stored: Mapping[str, Object]) -> Target:
    kept = stored.get(revision.hash)
    runtime = kept["data"].get("runtime", {}) if kept is not None else {}
    return Target.of(model.name, revision, _runtime_metrics(context, model, runtime))


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


def _gateway(context: Context, scene: Scene) -> Gateway | None:
    if scene.endpoint is None:
        return None
    for gateway in scene.gateways.values():
        found = context.store.get(kinds.GATEWAY_CLASS, None, gateway["spec"].get("gatewayClassName", "")) or {}
        controller = found.get("spec", {}).get("controllerName")
        if controller:
            return Gateway(str(controller), scene.endpoint.protocol == "GRPC")
    return None


def _comparer(context: Context, model: Model) -> Object | None:
    found = context.store.get(kinds.DEPLOYMENT, model.namespace, names.comparer_name(model.name))
    return found if found is not None and controlled_by(found, model.uid) else None


def _comparer_ready(context: Context, model: Model, record: Record | None) -> bool:
    if record is None or record.source is None or record.to is None:
        return False
    return comparer.ready(_comparer(context, model), record.source, record.to)


def _people(
    context: Context, model: Model, found: Records, record: Record | None, policy: RolloutPolicySpec, step: Step | None,
    version: ModelVersion | None, now: datetime,
) -> people.PeopleDecision | None:  # fmt: skip
    """What people say to the approval that is waited for now; None when none is."""
    if record is None or not record.live or record.to is None:
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
        return people.Waiting((), required, str(Reason.ADMISSION_POLICY_MISSING), text, stalled)
    raw = found.raw[record.name]
    rollout = ModelRollout.parse(raw)
    given = _approvals(context, model)
    content = record.status.content_hash
    if version is None or record.to.version != version.name or content is None or not record.status.authors:
        text = f"ModelVersion {record.to.version} can't be looked at, so nothing can be approved"
        return people.Waiting((), required, str(Reason.AWAITING_APPROVAL), text)
    known_since = admission.since
    return people.approvals(
        given,
        rollout=rollout,
        content_hash=content,
        authors=authors.authors(record.status.authors, service_accounts=accounts),
        service_accounts=accounts,
        required=required,
        now=now,
        since=max(since, known_since) if known_since is not None else since,
    )


def _approvals(context: Context, model: Model) -> Iterable[Approval]:
    """The newest: a rollout that is under way is younger than what was given for those before it."""
    store = context.store
    given = store.newest_first(kinds.APPROVAL, store.places("model", kinds.APPROVAL, model.name, model.namespace))
    for place in given[:READ_OF_APPROVALS]:
        try:
            yield Approval.parse(store.get(kinds.APPROVAL, *place) or {})
        except InvalidObject:
            continue


def _command(
    context: Context,
    namespace: str,
    record: Record | None,
    policy: RolloutPolicySpec,
    steps: tuple[Step, ...],
    frozen_until: datetime | None,
    unread: Problem | None,
) -> people.CommandDecision | None:
    if record is None or record.spec.command is None:
        return None
    frozen = frozen_until is not None and not record.status.freeze_overridden
    gates = policy.gates
    passed = {gate.name for gate in record.status.gates if gate.outcome == Outcome.PASS}
    wanted = [name for name in IN_JOBS if gates is not None and getattr(gates, name) is not None]
    open_gates = tuple(name for name in wanted if name not in passed) if not record.by_hand else ()
    if unread is not None:
        open_gates = ("those of the policy that it began with, which can't be read,",)
    places = []
    if gates is not None and gates.approval is not None and "approval" not in passed:
        places.append("the approval gate")
    done = {entry.index for entry in record.status.steps if entry.outcome == "Pass"}
    places += [f"step {n + 1}" for n, step in enumerate(steps) if step.kind is StepKind.APPROVAL and n not in done]
    standing = people.Standing(
        state=record.state,
        newest=True,
        paused=bool(record.status.paused),
        frozen=frozen,
        by_hand=record.by_hand,
        released=bool(record.status.released),
        retried=bool(record.status.retried),
        gates_open=open_gates,
        approvals_open=() if record.by_hand else tuple(places),
    )
    handled = {entry.token for entry in record.status.commands}
    return people.command(record.spec.command, handled, standing, context.admission(namespace))


def taken_back(context: Context, namespace: str, model: str, version: str) -> Stage | None:
    """What the last rollout to a version made of it: Rejected by a gate or by people, Quarantined when it was rolled
    back or aborted; None when it goes on, ended well, may be tried again, or when a gate decided nothing."""
    found = []
    for raw in context.store.by_model(kinds.MODEL_ROLLOUT, namespace, model):
        try:
            found.append(Record.of(ModelRollout.parse(raw)))
        except InvalidObject:
            continue
    last = max((record for record in found if record.spec.target.version == version), key=_age, default=None)
    if last is None or last.state not in TAKEN_BACK or last.status.retried or last.undecided:
        return None
    refused = last.status.reason in (Reason.GATE_FAILED, Reason.APPROVAL_REJECTED)
    return Stage.REJECTED if refused else Stage.QUARANTINED


async def begin(context: Context, model: Model, target: Revision, number: int) -> bool:
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
    except errors.AlreadyExists:
        found = await context.client.get(kinds.MODEL_ROLLOUT, model.namespace, f"{model.name}-{number}")
        if found is None:
            raise
        live = {**found, "apiVersion": names.API_VERSION, "kind": "ModelRollout"}
    context.store.put(live, quiet=True)
    context.wake(Key("Model", model.namespace, model.name))
    return True


async def write(
    context: Context, raw: Object, old: Record, new: Record, now: datetime, *, stalled: bool = False,
    evidence: tuple[bool, Reason, str] | None = None,
) -> bool:  # fmt: skip
    """Write the record when it has changed; the one status write of a pass for this object. `stalled`: it goes on only
    once a person has done something. `evidence`: what its policy asks for."""
    status = new.status.model_copy(update={"observed_generation": new.generation})
    status = status.model_copy(update={"conditions": _conditions(replace(new, status=status), stalled, evidence, now)})
    if status == old.status:
        return False
    policy = await snapshots.kept(context, raw["metadata"]["namespace"], status.policy, old.status.policy)
    status = status.model_copy(update={"policy": policy})
    written = await write_status(context, raw, status, old.status)
    if written:
        figures.count(old, new)
        # The run that made the version, which bears its name, tells what became of it.
        run = (raw["metadata"]["namespace"], new.spec.target.version)
        if new.state != old.state and context.store.get(kinds.TRAINING_RUN, *run) is not None:
            context.wake(Key(kinds.TRAINING_RUN.kind, *run))
    return written


def _conditions(record: Record, stuck: bool, evidence: tuple[bool, Reason, str] | None, now: datetime) -> Any:
    stalled = record.state in TAKEN_BACK or (record.live and stuck)
    ready, moving = not record.live and not stalled, record.live and not stalled
    reason, message = record.status.reason or str(Reason.ROLLOUT_IN_PROGRESS), record.status.message or ""
    told = record.status.conditions
    quiet = (str(Reason.UP_TO_DATE), "")
    known = find(record.status.conditions, ConditionType.EVIDENCE_ASKED)
    if known is not None and evidence is None:
        evidence = (known.status == "True", Reason(known.reason), known.message)
    asked = () if evidence is None or record.by_hand else ((ConditionType.EVIDENCE_ASKED, *evidence),)
    rows = (
        (ConditionType.READY, ready, reason, message),
        (ConditionType.RECONCILING, moving, *((reason, message) if moving else quiet)),
        (ConditionType.STALLED, stalled, *((reason, message) if stalled else quiet)),
        *asked,
    )
    for type_, value, why, text in rows:
        told = with_condition(told, type_, value, why, text, generation=record.generation, now=now)
    return told


async def end_superseded(context: Context, found: Records, now: datetime) -> bool:
    """Records that something newer has taken the place of come to their end; so do rollbacks that can't be."""
    changed = False
    for record, why in found.refused:
        ended = record.but(
            state=RolloutState.SUPERSEDED, reason=str(Reason.INVALID_SPEC), message=why, since=now, finished_at=now
        )
        changed |= await write(context, found.raw[record.name], record, ended, now)
    for record in found.superseded:
        newest = found.newest.name if found.newest is not None else ""
        text = f"ModelRollout {newest} has taken its place"
        ended = record.but(
            state=RolloutState.SUPERSEDED,
            reason=str(Reason.SUPERSEDED),
            message=text,
            since=now,
            # One that never began, or forgot it, must not come out as the younger of two of the same second.
            started_at=record.status.started_at or record.created,
            finished_at=now,
        )
        changed |= await write(context, found.raw[record.name], record, ended, now)
    return changed


async def forget_old(context: Context, found: Records, limit: int) -> None:
    """Delete ended records beyond the policy's historyLimit, the oldest first."""
    kept = limit - (1 if found.newest is not None and not found.newest.live else 0)
    for record in found.ended[: max(0, len(found.ended) - max(kept, 0))]:
        raw = found.raw[record.name]
        metadata = raw["metadata"]
        await context.client.delete(
            kinds.MODEL_ROLLOUT, metadata["namespace"], metadata["name"], uid=metadata["uid"], resource_version=None
        )
        context.store.forget(kinds.MODEL_ROLLOUT, metadata["namespace"], metadata["name"], metadata["uid"], quiet=True)
