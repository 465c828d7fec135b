"""Model: observe, decide, act, report. One pass, one status write."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from modelwright.api import names
from modelwright.api.common import InvalidObject
from modelwright.api.conditions import is_true
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import (
    AnnouncedStatus,
    ChangeStatus,
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
from modelwright.api.v1alpha1.rollout import ModelRolloutStatus, RolloutState
from modelwright.core import endpoint_conflicts, versions
from modelwright.core.problem import Problem
from modelwright.core.rollout.machine import Assessment, Decision, apply_transitions, decide_actions, determine_state
from modelwright.core.rollout.observation import Observation
from modelwright.core.rollout.record import TERMINAL_STATES, RolloutRecord
from modelwright.core.status import drift_status, readiness
from modelwright.core.status.readiness import ConditionSummary
from modelwright.kube import api_errors, kinds
from modelwright.kube.queue import Key
from modelwright.kube.workers import ReconcileResult
from modelwright.reconcile import drift_monitor, gates, metric_updates, rollout_records, watches
from modelwright.reconcile.actions import execute_actions
from modelwright.reconcile.children import BlockedError, ensure
from modelwright.reconcile.context import Context
from modelwright.reconcile.observe import observe_model, route_state
from modelwright.reconcile.snapshot import ModelSnapshot
from modelwright.reconcile.status_writer import write_status
from modelwright.render import routes
from modelwright.render.child_metadata import owner_reference

Object = dict[str, Any]

UNHEALTHY_POLL_SECONDS = 10.0
"""Seconds between two looks at the pods of a revision that serves and isn't whole."""
DENIED_RETRY_SECONDS = 30.0
"""Seconds until what the API server didn't let the operator write is tried again: a right may be given back."""
_TRANSIENT_REFUSALS = (Reason.ACCESS_DENIED, Reason.QUOTA_EXCEEDED)
"""Refusals that end without an Event: a right is given, a quota has room."""
PROGRESS_DELAY_SECONDS, BUSY_PROGRESS_DELAY_SECONDS = 3.0, 30.0
"""How long a status that only reports progress waits, so that what comes next makes one write of it: usually, and while
many objects are worked on."""


@dataclass(frozen=True)
class ActionOutcome:
    """How acting ended: whether something was written, what stands in the way, the error the queue must hear of; and
    what stands in the way of the observer, which is nobody else's matter. `stamped`: a ModelVersion was made, and
    another pass follows at once."""

    changed: bool = False
    version_created: bool = False
    problem: Problem | None = None
    error: api_errors.ApiError | None = None
    monitoring_problem: Problem | None = None


class ModelReconciler:
    """Brings one Model a step further per pass."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._confirmed_routes: dict[str, str] = {}
        """Model uid -> the state of its route that the gateway was last seen to follow."""
        self._deferred_since: dict[str, float] = {}
        """Model uid -> since when a status that only reports progress waits."""

    async def reconcile(self, key: Key) -> ReconcileResult:
        """One pass over the Model of this key."""
        raw = self._context.store.get(kinds.MODEL, key.namespace, key.name)
        if raw is None or raw["metadata"].get("deletionTimestamp"):
            if raw is not None:
                self._confirmed_routes.pop(raw["metadata"]["uid"], None)
                self._deferred_since.pop(raw["metadata"]["uid"], None)
            metric_updates.forget_model(key.namespace, key.name)
            drift_monitor.forget_observer(self._context, key)
            return ReconcileResult()
        try:
            model = Model.parse(raw)
        except InvalidObject as error:
            await self._reject_spec(raw, error)
            return ReconcileResult()
        if self._context.is_backlogged() and _can_wait(model):
            await self._acknowledge_edit(raw, model)
            return ReconcileResult()
        picture = await observe_model(self._context, raw, model, self._confirmed_route_state(model))
        self._cache_route(picture)
        picture = _with_transitions(picture)
        failed = await self._persist_record(picture)
        decision = decide_actions(picture.observation)
        outcome = await self._execute(picture, decision)
        if outcome.version_created and model.status.observed_generation is None:
            # The next pass, which follows at once, has something to report.
            return ReconcileResult()
        if outcome.changed:
            # What is told is what is so now, not what was so before the writes.
            before = picture
            self._carry_route_confirmation(picture)
            picture = await observe_model(self._context, raw, model, self._confirmed_route_state(model))
            self._cache_route(picture)
            picture = _with_transitions(picture)
            decision = decide_actions(picture.observation)
            if _record_status(picture.observation.record) != _record_status(before.observation.record):
                # One status write a pass: what has just changed is written down by the next one, which follows at once.
                self._context.enqueue(key)
                ended = before.observation.active_record is not None and picture.observation.active_record is None
                if ended and outcome.problem is None and outcome.error is None and failed is None:
                    # Who reads that the Model is ready may edit it: a record that went on would end as superseded.
                    return ReconcileResult()
        observed = _with_problem(picture.observation, outcome)
        assessment = _with_recorded_message(observed, determine_state(observed))
        deferred = await self._report_status(picture, observed, assessment, outcome.monitoring_problem)
        failure = outcome.error or failed
        if failure is not None:
            raise failure
        refused = (
            DENIED_RETRY_SECONDS
            if outcome.problem is not None and outcome.problem.reason in _TRANSIENT_REFUSALS
            else None
        )
        requeues = (deferred, refused, _requeue_after(observed, decision, assessment))
        return ReconcileResult(min((seconds for seconds in requeues if seconds is not None), default=None))

    async def _persist_record(self, picture: ModelSnapshot) -> api_errors.ApiError | None:
        """Write the record before anything is done about it. Turning back doesn't wait for that: nothing must stand
        between a bad version and its callers."""
        found, record = picture.history, picture.observation.record
        try:
            await rollout_records.finish_superseded(self._context, found, picture.observation.now)
            rolling = picture.observation.rollout
            if found.newest is None or record is None or rolling is None or picture.observation.suspended:
                return None
            if record.status != found.newest.status or record.generation != record.status.observed_generation:
                raw = found.raw[record.name]
                told = determine_state(picture.observation)
                # Of a route that can't be written, say, the Model tells alone: why the record turned back stays there.
                stuck = told.stalled and told.reason == record.status.reason
                now, evidence = picture.observation.now, rolling.evidence_condition
                if await rollout_records.write_record(
                    self._context, raw, found.newest, record, now, stalled=stuck, evidence=evidence
                ):
                    self._emit_rollout_event(picture.raw, found.newest, record)
                    if (record.state, record.status.retried) != (found.newest.state, found.newest.status.retried):
                        # Its stage follows from how the rollout ended.
                        version = Key("ModelVersion", picture.model.namespace, record.spec.target.version)
                        self._context.enqueue(version)
            await gates.remove_spent_jobs(self._context, found)
            await rollout_records.prune_history(self._context, found, rolling.policy.history_limit)
        except api_errors.NotFound:
            return None
        except api_errors.ApiError as error:
            if record is None or record.state is not RolloutState.ROLLING_BACK:
                raise
            return error
        return None

    def _emit_rollout_event(self, raw: Object, old: RolloutRecord, new: RolloutRecord) -> None:
        if new.state is old.state and old.status.state is not None:
            return
        bad = new.state in (RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK, RolloutState.ABORTED)
        to = new.candidate.version if new.candidate is not None else new.spec.target.version
        note = f"rollout {new.name} to {to}: {new.state}: {new.status.message}"
        self._context.events.record(raw, "Warning" if bad else "Normal", new.status.reason or str(new.state), note)

    def _confirmed_route_state(self, model: Model) -> str | None:
        """What is remembered; after a restart, what a Model that is ready tells about its route."""
        known = self._confirmed_routes.get(model.uid)
        status = model.status
        if (
            known is not None
            or status.observed_generation != model.generation
            or not is_true(status.conditions, "Ready")
        ):
            return known
        route = self._live_route(model)
        return route_state(route) if route is not None else None

    def _live_route(self, model: Model) -> Object | None:
        grpc = model.spec.endpoint is not None and model.spec.endpoint.protocol == "GRPC"
        return self._context.store.get(kinds.GRPC_ROUTE if grpc else kinds.HTTP_ROUTE, model.namespace, model.name)

    def _cache_route(self, picture: ModelSnapshot) -> None:
        if picture.observation.traffic.confirmed and picture.routing.route is not None:
            self._confirmed_routes[picture.model.uid] = route_state(picture.routing.route)

    def _carry_route_confirmation(self, before: ModelSnapshot) -> None:
        """A route that the gateway was seen to follow counts as followed when copies for the observer are all that its
        next generation adds or takes away: callers get the same by both."""
        old, new = before.routing.route, self._live_route(before.model)
        if not before.observation.traffic.confirmed or old is None or new is None:
            return
        one, other = (route["metadata"].get("generation", 0) for route in (old, new))
        name = before.model.name
        if other == one + 1 and routes.hash_for_callers(old, name) == routes.hash_for_callers(new, name):
            self._confirmed_routes[before.model.uid] = route_state(new)

    async def _execute(self, picture: ModelSnapshot, decision: Decision) -> ActionOutcome:
        """Carry out the decision. Whatever fails, the rest of the pass still tells about it."""
        try:
            stamps = picture.version_to_create is not None and not picture.observation.suspended
            if picture.version_to_create is not None and stamps:
                await self._create_version(picture, picture.version_to_create)
            changed = await execute_actions(self._context, picture, decision.actions)
            watched, unobserved = await drift_monitor.ensure_observer(self._context, picture)
            return ActionOutcome(changed or watched, stamps, monitoring_problem=unobserved)
        except BlockedError as refused:
            return ActionOutcome(problem=refused.problem)
        except (api_errors.Conflict, api_errors.AlreadyExists, api_errors.NotFound) as error:
            # The picture was old: another look follows at once, and there is nothing to tell.
            return ActionOutcome(error=error)
        except api_errors.ApiError as error:
            return ActionOutcome(problem=Problem(Reason.PROGRESSING_WITH_RETRY, f"trying again: {error}"), error=error)

    async def _create_version(self, picture: ModelSnapshot, stamp: versions.VersionToCreate) -> None:
        version = {
            "apiVersion": names.API_VERSION,
            "kind": "ModelVersion",
            "metadata": {
                "name": stamp.name,
                "namespace": picture.model.namespace,
                "labels": names.model_labels(picture.model.name),
                "ownerReferences": [owner_reference(picture.raw)],
            },
            "spec": dict(stamp.spec),
        }
        await ensure(self._context, version)
        self._context.enqueue(Key("ModelVersion", picture.model.namespace, stamp.name))
        self._context.enqueue(Key("Model", picture.model.namespace, picture.model.name))

    async def _report_status(
        self, picture: ModelSnapshot, observed: Observation, assessment: Assessment, unobserved: Problem | None
    ) -> float | None:
        """Write the status. Returns in how many seconds a status that only reports progress is due, if deferred."""
        old, model = picture.model.status, picture.model
        rollout = _rollout_status(old.rollout, assessment, observed)
        problem = Problem(assessment.reason, assessment.message, assessment.stalled)
        if rollout.since is not None:
            problem = readiness.escalate_problem(problem, rollout.since, observed.now)
        verdict = readiness.assess_readiness(
            observed, Assessment(assessment.state, problem.reason, problem.message, problem.stalled)
        )
        drifted = drift_monitor.read_drift(self._context, picture)
        status = ModelStatus(
            observed_generation=model.generation,
            url=_model_url(picture, observed, old.url),
            serving=ServingStatus(
                version=observed.serving.revision.version,
                revision=observed.serving.revision.hash,
                since=observed.serving.since,
            )
            if observed.serving
            else None,
            target=_target_status(picture, model),
            rollout=rollout,
            traffic=_traffic_status(observed, old.traffic),
            runtime=_runtime_status(picture, old),
            replicas=_serving_pod_count(observed, "replicas"),
            ready_replicas=_serving_pod_count(observed, "ready"),
            selector=_scale_selector(model),
            history=_serving_history(old, observed),
            failure=_failure_status(observed, verdict),
            announced=_latest_trained(self._context, model),
            outdated=picture.plan.outdated if picture.plan else None,
            changes=_change_statuses(old, observed),
            drift=drifted if drift_status.is_worth_writing(old.drift, drifted) else old.drift,
            conditions=readiness.build_conditions(
                old.conditions,
                verdict,
                readiness.assess_availability(observed),
                monitored=drift_monitor.monitored_condition(self._context, picture, unobserved),
                evidence=observed.rollout.evidence_condition if observed.rollout is not None else None,
                endpoint=_endpoint_condition(picture),
                generation=model.generation,
                now=observed.now,
            ),
        )
        metric_updates.record_model(
            model.namespace, model.name, status, observed.active_record, picture.analysis.verdicts
        )
        if readiness.reports_progress_only(old, status):
            now = self._context.clock.monotonic()
            waits = BUSY_PROGRESS_DELAY_SECONDS if self._context.is_busy() else PROGRESS_DELAY_SECONDS
            due = self._deferred_since.setdefault(model.uid, now) + waits
            if due > now:
                return due - now
        self._deferred_since.pop(model.uid, None)
        if status != old:
            # It is written anyway: with the numbers of now.
            status = status.model_copy(update={"drift": drifted})
        if await write_status(self._context, picture.raw, status, old):
            self._emit_events(picture.raw, old, status, verdict)
            if status.serving != old.serving:
                self._enqueue_runs(model, old, status)
        return None

    def _enqueue_runs(self, model: Model, old: ModelStatus, new: ModelStatus) -> None:
        """The runs that made what serves, or served, report what became of it."""
        for version in {served.version for served in (old.serving, new.serving) if served is not None}:
            for key in watches.producing_run(self._context.store.get(kinds.MODEL_VERSION, model.namespace, version)):
                self._context.enqueue(key)

    def _emit_events(self, raw: Object, old: ModelStatus, new: ModelStatus, verdict: ConditionSummary) -> None:
        """Events speak of transitions: who serves, and what a person has to look at."""
        if new.serving is not None and (old.serving is None or old.serving.revision != new.serving.revision):
            before = f" (before: {old.serving.version})" if old.serving else ""
            note = f"version {new.serving.version} takes all traffic{before}"
            self._context.events.record(raw, "Normal", Reason.SERVING, note)
        if new.announced is not None and new.announced != old.announced:
            note = (
                f"ModelVersion {new.announced.version} was made by TrainingRun {new.announced.training_run}; it serves "
                "once spec.version names it"
            )
            self._context.events.record(raw, "Normal", Reason.VERSION_ANNOUNCED, note)
        was = next((c.reason for c in old.conditions if c.type == "Stalled" and c.status == "True"), None)
        if verdict.stalled and verdict.reason != was:
            self._context.events.record(raw, "Warning", verdict.reason, verdict.message)

    async def _reject_spec(self, raw: Object, error: InvalidObject) -> None:
        """A spec that this operator can't read (admission is older or newer than it): say so, touch nothing."""
        old = ModelStatus.model_validate(raw.get("status") or {})
        verdict = ConditionSummary(Reason.INVALID_SPEC, error.message, stalled=True)
        generation = raw["metadata"].get("generation", 0)
        told = readiness.set_readiness(old.conditions, verdict, generation=generation, now=self._context.clock.now())
        status = old.model_copy(update={"observed_generation": generation, "conditions": told})
        metric_updates.record_model(raw["metadata"]["namespace"], raw["metadata"]["name"], status, None, ())
        if await write_status(self._context, raw, status, old):
            self._emit_events(raw, old, status, verdict)

    async def _acknowledge_edit(self, raw: Object, model: Model) -> None:
        """One write, where a pass takes several: who has edited hears at once that it was seen, however many others
        have edited."""
        told = readiness.acknowledge_edit(
            model.status.conditions, generation=model.generation, now=self._context.clock.now()
        )
        changes = {"observed_generation": model.generation, "conditions": told, "failure": None}
        await write_status(self._context, raw, model.status.model_copy(update=changes), model.status)
        self._context.enqueue(Key("Model", model.namespace, model.name))


def _can_wait(model: Model) -> bool:
    """Whether this is about an edit only: a rollout that is on its way is never kept waiting, nor is a Model that was
    just made. A suspended Model has no work that an acknowledgement could announce."""
    if model.spec.suspend:
        return False
    status = model.status
    edited = status.observed_generation is not None and status.observed_generation < model.generation
    return edited and status.rollout is not None and status.rollout.state in TERMINAL_STATES


def _latest_trained(context: Context, model: Model) -> AnnouncedStatus | None:
    source = model.spec.version
    name = source.name or versions.generated_name(model.name, source)
    wanted = context.store.get(kinds.MODEL_VERSION, model.namespace, name) if name else None
    if wanted is None:
        return None
    # The newest of them decides: the others are older, and a Model may have many.
    places = watches.eligible_trained_versions(context.store, model.namespace, model.name)[:1]
    newest = [raw for place in places if (raw := context.store.get(kinds.MODEL_VERSION, *place)) is not None]
    found = versions.newest_trained(model.name, wanted, newest)
    if found is None:
        return None
    return AnnouncedStatus(version=found["metadata"]["name"], training_run=found["spec"]["lineage"]["trainingRun"])


def _with_problem(observed: Observation, outcome: ActionOutcome) -> Observation:
    return replace(observed, problem=outcome.problem) if outcome.problem is not None else observed


def _requeue_after(observed: Observation, decision: Decision, assessment: Assessment) -> float | None:
    under_way = (
        observed.active_record is not None
        or bool(observed.obsolete_revisions)
        or assessment.state is RolloutState.PROGRESSING
    )
    if assessment.stalled and not under_way:
        return 30.0
    if decision.requeue_after is not None:
        return decision.requeue_after.total_seconds()
    view = observed.target_view
    if view is not None and view.replicas is not None and view.available < view.replicas:
        return UNHEALTHY_POLL_SECONDS
    return None


def _with_transitions(picture: ModelSnapshot) -> ModelSnapshot:
    """`picture` with its record as it is to be written; at a transition with the numbers that decided."""
    observed = apply_transitions(picture.observation)
    before, after = picture.observation.record, observed.record
    moved = (
        before is not None
        and after is not None
        and (before.state, before.step_index) != (after.state, after.step_index)
    )
    if moved and picture.observation.rollout is not None and picture.analysis.verdicts:
        record = rollout_records.with_verdicts(before, picture.analysis, picture.observation.now, fresh=True)
        rolling = replace(picture.observation.rollout, record=record)
        observed = apply_transitions(replace(picture.observation, rollout=rolling))
    return replace(picture, observation=observed)


def _with_recorded_message(observed: Observation, assessment: Assessment) -> Assessment:
    """The record's own words for a state that goes on: its numbers would be a write of the Model at each look."""
    live = observed.active_record
    if live is None or (live.state, live.status.reason) != (assessment.state, assessment.reason):
        return assessment
    return replace(assessment, message=live.status.message or assessment.message)


def _record_status(record: RolloutRecord | None) -> ModelRolloutStatus | None:
    return record.status if record is not None else None


def _rollout_status(old: RolloutStatus | None, assessment: Assessment, observed: Observation) -> RolloutStatus:
    record = observed.record
    name = record.name if record is not None else None
    same = old is not None and (old.state, old.reason, old.name) == (assessment.state, assessment.reason, name)
    since = old.since if old is not None and same else observed.now
    return RolloutStatus(
        name=name, state=assessment.state, reason=assessment.reason, message=assessment.message or None, since=since
    )


def _change_statuses(old: ModelStatus, observed: Observation) -> tuple[ChangeStatus, ...]:
    """Who has changed what. Without a policy that asks for approval nothing is added, and nothing forgotten."""
    found = observed.rollout.changes if observed.rollout is not None else None
    return old.changes if found is None else found


def _serving_history(old: ModelStatus, observed: Observation) -> tuple[ServedStatus, ...]:
    """Who served before, the latest first."""
    now, before = observed.serving, old.serving
    if now is None or before is None or before.revision == now.revision.hash:
        return old.history
    left = ServedStatus(version=before.version, revision=before.revision, until=observed.now)
    kept = [entry for entry in old.history if entry.revision not in (now.revision.hash, left.revision)]
    return (left, *kept)[:10]


def _target_status(picture: ModelSnapshot, model: Model) -> TargetStatus | None:
    if picture.plan is not None:
        return TargetStatus(version=picture.plan.revision.version, revision=picture.plan.revision.hash)
    name = model.spec.version.name or (picture.version_to_create.name if picture.version_to_create else None)
    return TargetStatus(version=name) if name else None


def _runtime_status(picture: ModelSnapshot, old: ModelStatus) -> RuntimeStatus | None:
    if picture.plan is None:
        return old.runtime
    choice = picture.plan.choice
    return RuntimeStatus(
        kind=choice.runtime.kind, name=choice.runtime.name, reason=choice.reason, code=choice.format.code
    )


def _traffic_status(observed: Observation, old: tuple[TrafficStatus, ...]) -> tuple[TrafficStatus, ...]:
    """Weights as they are configured. Between the writes of a switch the Service and the route name two revisions."""
    named = [view for key, view in sorted(observed.revisions.items()) if key in observed.traffic.named]
    target = observed.target.hash if observed.target else None
    alone = {named[0].revision.hash: 100} if len(named) == 1 else {target: 100}
    weights = observed.traffic.weights if observed.active_record is not None else alone
    seen = _observed_weights(observed, {entry.revision: entry.observed_weight for entry in old})
    return tuple(
        TrafficStatus(
            version=view.revision.version,
            revision=view.revision.hash,
            weight=max(0, min(100, weights.get(view.revision.hash, 0))),
            observed_weight=seen.get(view.revision.hash),
            ready=view.available > 0,
        )
        for view in named
    )


MIN_WEIGHT_CHANGE = 3
"""Points by which an observed share must have moved to be written again."""


def _observed_weights(observed: Observation, old: Mapping[str, int | None]) -> dict[str, int]:
    """Shares of the requests as they were counted since the step began, where they were."""
    live = observed.active_record
    if live is None or live.status.observed_weight is None or live.candidate is None or live.from_revision is None:
        return {}
    share, before = live.status.observed_weight, old.get(live.candidate.hash)
    if before is not None and abs(before - share) < MIN_WEIGHT_CHANGE:
        share = before
    return {live.candidate.hash: share, live.from_revision.hash: 100 - share}


def _serving_pod_count(observed: Observation, field: str) -> int | None:
    if observed.serving is None:
        return None
    view = observed.revisions.get(observed.serving.revision.hash)
    return int(getattr(view, field) or 0) if view is not None else 0


def _failure_status(observed: Observation, verdict: ConditionSummary) -> FailureStatus | None:
    view = observed.target_view
    if view is not None and view.failure is not None and view.available < (view.replicas or 0):
        failure = view.failure
        return FailureStatus(
            reason=failure.reason,
            message=failure.message,
            exit_code=failure.exit_code,
            pod=failure.pod,
            revision=view.revision.hash,
        )
    return FailureStatus(reason=verdict.reason, message=verdict.message) if verdict.stalled else None


def _endpoint_condition(picture: ModelSnapshot) -> tuple[bool, Reason, str] | None:
    """The condition EndpointApplied; None when nothing is asked for that a gateway may lack."""
    endpoint = picture.model.spec.endpoint
    if endpoint is None or (endpoint.request_timeout is None and not endpoint.filters):
        return None
    lacking = picture.traffic.list_unsupported_settings(picture.routing)
    if lacking:
        return False, Reason.ENDPOINT_NOT_SUPPORTED, "; ".join(lacking)
    hint = endpoint_conflicts.describe_short_timeout(endpoint, picture.model.spec.serving.max_request_seconds)
    return True, Reason.ENDPOINT_APPLIED, hint or "the route has what spec.endpoint asks for"


def _scale_selector(model: Model) -> str | None:
    """Pods of all revisions: while a rollout divides the requests, only all of them tell how many are needed."""
    if model.spec.serving.replicas is None:
        return None
    labels = {names.LABEL_MODEL: names.label_value(model.name), names.LABEL_ROLE: names.ROLE_SERVING}
    return ",".join(f"{key}={value}" for key, value in labels.items())


def _model_url(picture: ModelSnapshot, observed: Observation, before: str | None) -> str | None:
    """Through the endpoint once that was programmed, else inside the cluster; none while nothing serves."""
    if observed.serving is None:
        return None
    outside = picture.traffic.resolve_url(picture.routing)
    if outside is not None and (observed.traffic.confirmed or outside == before):
        return outside
    metadata = picture.raw["metadata"]
    return f"http://{metadata['name']}.{metadata['namespace']}.svc"
