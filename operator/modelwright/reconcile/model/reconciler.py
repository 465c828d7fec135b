"""ModelReconciler: one reconciliation of a Model is observe -> decide -> act -> report, with one status write."""

from dataclasses import dataclass, replace
from typing import Any

from modelwright.api import names
from modelwright.api.common import InvalidObject
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.rollout import ModelRolloutStatus, RolloutState
from modelwright.core import versions
from modelwright.core.problem import Problem
from modelwright.core.rollout.decision import Decision
from modelwright.core.rollout.machine import apply_transitions, decide_actions, determine_state
from modelwright.core.rollout.record import TERMINAL_STATES, RolloutRecord
from modelwright.core.status.model_status import requeue_seconds, with_recorded_message
from modelwright.kube import api_errors, kinds
from modelwright.kube.queue import Key
from modelwright.kube.workers import ReconcileResult
from modelwright.reconcile.children import BlockedError, ensure
from modelwright.reconcile.context import Context
from modelwright.reconcile.model import drift_monitor, gate_jobs, metric_updates, rollout_history
from modelwright.reconcile.model.act import execute_actions
from modelwright.reconcile.model.confirmed_routes import ConfirmedRoutes
from modelwright.reconcile.model.observe import observe_model
from modelwright.reconcile.model.report import ModelReporter, emit_rollout_event
from modelwright.reconcile.model.snapshot import ModelSnapshot
from modelwright.reconcile.model.step_measurements import with_verdicts
from modelwright.render.child_metadata import owner_reference

Object = dict[str, Any]

DENIED_RETRY_SECONDS = 30.0
"""Seconds until a write that the API server denied is tried again: the right may have been granted."""
_TRANSIENT_REFUSALS = (Reason.ACCESS_DENIED, Reason.QUOTA_EXCEEDED)
"""Refusals that end without a watch event: a right is granted, a quota has room."""


@dataclass(frozen=True)
class ActionOutcome:
    """The result of acting."""

    changed: bool = False
    """Something was written."""
    version_created: bool = False
    """A ModelVersion was created, and another reconciliation follows at once."""
    problem: Problem | None = None
    error: api_errors.ApiError | None = None
    """The error that the work queue must handle."""
    monitoring_problem: Problem | None = None
    """Why there is no drift monitor; nothing but its condition depends on that."""


class ModelReconciler:
    """Brings one Model a step further per reconciliation."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._routes = ConfirmedRoutes(context.store)
        self._reporter = ModelReporter(context)

    async def reconcile(self, key: Key) -> ReconcileResult:
        """Reconcile the Model of this key."""
        raw = self._context.store.get(kinds.MODEL, key.namespace, key.name)
        if raw is None or raw["metadata"].get("deletionTimestamp"):
            self._forget(key, raw)
            return ReconcileResult()
        try:
            model = Model.parse(raw)
        except InvalidObject as error:
            await self._reporter.reject_spec(raw, error)
            return ReconcileResult()
        if self._context.has_waiting_edits() and _can_wait(model):
            await self._reporter.acknowledge_edit(raw, model)
            return ReconcileResult()

        snapshot = await self._observe(raw, model)
        write_error = await self._persist_record(snapshot)
        decision = decide_actions(snapshot.observation)
        outcome = await self._act(snapshot, decision)
        if outcome.version_created and model.status.observed_generation is None:
            # The next reconciliation, which follows at once, has something to report.
            return ReconcileResult()
        if outcome.changed:
            # The status describes the state after the writes, not the one before them.
            before = snapshot
            self._routes.carry_over(before)
            snapshot = await self._observe(raw, model)
            decision = decide_actions(snapshot.observation)
            if _record_status(snapshot.observation.record) != _record_status(before.observation.record):
                # One status write per object: the next reconciliation, which follows at once, writes the new record.
                self._context.enqueue(key)
                has_ended = before.observation.active_record is not None and snapshot.observation.active_record is None
                if has_ended and outcome.problem is None and outcome.error is None and write_error is None:
                    # A user who reads that the Model is ready may edit it: a record still active would be superseded.
                    return ReconcileResult()
        return await self._report(snapshot, decision, outcome, write_error)

    def _forget(self, key: Key, raw: Object | None) -> None:
        if raw is not None:
            self._routes.forget(raw["metadata"]["uid"])
            self._reporter.forget(raw["metadata"]["uid"])
        metric_updates.forget_model(key.namespace, key.name)
        drift_monitor.forget_observer(self._context, key)

    async def _observe(self, raw: Object, model: Model) -> ModelSnapshot:
        """The snapshot, with its record as it is to be written."""
        snapshot = await observe_model(self._context, raw, model, self._routes.confirmed_state(model))
        self._routes.remember(snapshot)
        return _with_transitions(snapshot)

    async def _persist_record(self, snapshot: ModelSnapshot) -> api_errors.ApiError | None:
        """Write the record before anything is done about it.

        A rollback doesn't wait for that, and returns the error instead: nothing may stand between a bad version and the
        users' way back.
        """
        history, record = snapshot.history, snapshot.observation.record
        try:
            await rollout_history.finish_superseded(self._context, history, snapshot.observation.now)
            rollout = snapshot.observation.rollout
            if history.newest is None or record is None or rollout is None or snapshot.observation.suspended:
                return None
            if record.status != history.newest.status or record.generation != record.status.observed_generation:
                await self._write_record(snapshot, history.newest, record)
            await gate_jobs.remove_spent_jobs(self._context, history)
            await rollout_history.prune_history(self._context, history, rollout.policy.history_limit)
        except api_errors.NotFound:
            return None
        except api_errors.ApiError as error:
            if record is None or record.state is not RolloutState.ROLLING_BACK:
                raise
            return error
        return None

    async def _write_record(self, snapshot: ModelSnapshot, old: RolloutRecord, new: RolloutRecord) -> None:
        observation = snapshot.observation
        state = determine_state(observation)
        # A problem such as an unwritable route is reported by the Model alone: the record keeps why it rolled back.
        stalled = state.stalled and state.reason == new.status.reason
        evidence = observation.rollout.evidence_condition if observation.rollout is not None else None
        raw = snapshot.history.raw[new.name]
        if await rollout_history.write_record(
            self._context, raw, old, new, observation.now, stalled=stalled, evidence=evidence
        ):
            emit_rollout_event(self._context.events, snapshot.raw, old, new)
            if (new.state, new.status.retried) != (old.state, old.status.retried):
                # The version's stage follows from how the rollout ended.
                self._context.enqueue(Key("ModelVersion", snapshot.model.namespace, new.spec.target.version))

    async def _act(self, snapshot: ModelSnapshot, decision: Decision) -> ActionOutcome:
        """Carry out the decision. A failure is an outcome too: the status reports it."""
        try:
            version = snapshot.goal.version_to_create
            creates_version = version is not None and not snapshot.observation.suspended
            if version is not None and creates_version:
                await self._create_version(snapshot, version)
            changed = await execute_actions(self._context, snapshot, decision.actions)
            monitor_changed, monitoring_problem = await drift_monitor.ensure_observer(self._context, snapshot)
            return ActionOutcome(changed or monitor_changed, creates_version, monitoring_problem=monitoring_problem)
        except BlockedError as blocked:
            return ActionOutcome(problem=blocked.problem)
        except (api_errors.Conflict, api_errors.AlreadyExists, api_errors.NotFound) as error:
            # The snapshot was outdated: the queue retries at once, and there is nothing to report.
            return ActionOutcome(error=error)
        except api_errors.ApiError as error:
            return ActionOutcome(problem=Problem(Reason.PROGRESSING_WITH_RETRY, f"trying again: {error}"), error=error)

    async def _create_version(self, snapshot: ModelSnapshot, version: versions.VersionToCreate) -> None:
        body = {
            "apiVersion": names.API_VERSION,
            "kind": "ModelVersion",
            "metadata": {
                "name": version.name,
                "namespace": snapshot.model.namespace,
                "labels": names.model_labels(snapshot.model.name),
                "ownerReferences": [owner_reference(snapshot.raw)],
            },
            "spec": dict(version.spec),
        }
        await ensure(self._context, body)
        self._context.enqueue(Key("ModelVersion", snapshot.model.namespace, version.name))
        self._context.enqueue(Key("Model", snapshot.model.namespace, snapshot.model.name))

    async def _report(
        self,
        snapshot: ModelSnapshot,
        decision: Decision,
        outcome: ActionOutcome,
        write_error: api_errors.ApiError | None,
    ) -> ReconcileResult:
        """Write the status. Raises the error that the work queue must handle, if there was one."""
        observation = snapshot.observation
        if outcome.problem is not None:
            observation = replace(observation, problem=outcome.problem)
        assessment = with_recorded_message(observation, determine_state(observation))
        deferred = await self._reporter.report_status(snapshot, observation, assessment, outcome.monitoring_problem)
        error = outcome.error or write_error
        if error is not None:
            raise error
        is_transient = outcome.problem is not None and outcome.problem.reason in _TRANSIENT_REFUSALS
        delays = (
            deferred,
            DENIED_RETRY_SECONDS if is_transient else None,
            requeue_seconds(observation, decision, assessment),
        )
        return ReconcileResult(min((delay for delay in delays if delay is not None), default=None))


def _can_wait(model: Model) -> bool:
    """Whether only an edit waits for this reconciliation.

    An active rollout never waits behind other edits, nor does a Model that was just created. A suspended Model has no
    work that an acknowledgement could announce.
    """
    if model.spec.suspend:
        return False
    status = model.status
    is_edited = status.observed_generation is not None and status.observed_generation < model.generation
    return is_edited and status.rollout is not None and status.rollout.state in TERMINAL_STATES


def _with_transitions(snapshot: ModelSnapshot) -> ModelSnapshot:
    """The snapshot with its record as it is to be written; at a transition with the numbers that decided it."""
    observation = apply_transitions(snapshot.observation)
    before, after, rollout = snapshot.observation.record, observation.record, snapshot.observation.rollout
    if before is None or after is None or rollout is None or not snapshot.analysis.verdicts:
        return replace(snapshot, observation=observation)
    if (before.state, before.step_index) != (after.state, after.step_index):
        record = with_verdicts(before, snapshot.analysis, snapshot.observation.now, fresh=True)
        with_numbers = replace(snapshot.observation, rollout=replace(rollout, record=record))
        observation = apply_transitions(with_numbers)
    return replace(snapshot, observation=observation)


def _record_status(record: RolloutRecord | None) -> ModelRolloutStatus | None:
    return record.status if record is not None else None
