"""TrainingRunReconciler: observe, decide, write the record, act."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from modelwright.api.common import InvalidObject
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.training import (
    RunState,
    TrainingRun,
    TrainingRunStatus,
)
from modelwright.core.problem import Problem
from modelwright.core.retraining.run_machine import (
    RUN_TERMINAL_STATES,
    RunDecision,
    RunObservation,
    decide_run,
)
from modelwright.core.status.readiness import ConditionSummary, build_conditions
from modelwright.kube import kinds
from modelwright.kube.queue import Key
from modelwright.kube.workers import ReconcileResult
from modelwright.obs import metrics
from modelwright.reconcile import policy_snapshots, watches
from modelwright.reconcile.children import BlockedError, remove
from modelwright.reconcile.context import Context
from modelwright.reconcile.status_writer import write_status
from modelwright.reconcile.training_run.act import execute_action
from modelwright.reconcile.training_run.observe import observe_run
from modelwright.reconcile.training_run.run_snapshot import read_snapshot
from modelwright.render.strategic_merge import MergeError

Object = dict[str, Any]


class TrainingRunReconciler:
    """Brings one TrainingRun a step further per reconciliation."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._registration_problems: dict[str, Problem] = {}
        """Run uid -> why its version could not be created at the last attempt."""

    async def reconcile(self, key: Key) -> ReconcileResult:
        """Reconcile the TrainingRun of this key."""
        context = self._context
        raw = context.store.get(kinds.TRAINING_RUN, key.namespace, key.name)
        if raw is None or raw["metadata"].get("deletionTimestamp"):
            return ReconcileResult()
        try:
            run = await self._parse_run(raw)
        except InvalidObject as error:
            await self._reject_spec(raw, error)
            return ReconcileResult()
        snapshot = read_snapshot(context, raw, run)
        if snapshot.is_expired(context.clock.now()):
            # A run that has not expired yet is enqueued again by each resync.
            await remove(context, raw)
            return ReconcileResult()
        observation = await observe_run(context, snapshot)
        problem = self._registration_problems.pop(run.uid, None)
        if problem is not None and observation.registered is False:
            observation = replace(observation, registered=problem)
        decision = decide_run(observation)
        if await self._write_status(raw, decision.status, run.status):
            self._emit_events(raw, run.status, decision.status)
            # The policy counts its runs, and runs wait for each other.
            for other in watches.affected_keys(kinds.TRAINING_RUN, raw, context.store):
                context.enqueue(other)
            # The actions follow from the status that was written.
            raw = context.store.get(kinds.TRAINING_RUN, key.namespace, key.name) or raw
        snapshot = read_snapshot(context, raw, await self._parse_run(raw))
        try:
            for action in decision.actions:
                await execute_action(context, snapshot, action)
        except BlockedError as blocked:
            return await self._report_problem(raw, observation, blocked.problem)
        except MergeError as error:
            problem = Problem(Reason.INVALID_POLICY, str(error), stalled=True)
            return await self._report_problem(raw, observation, problem)
        return _requeue(decision)

    async def _parse_run(self, raw: Object) -> TrainingRun:
        """Parse the run, with its whole policy. Raises InvalidObject."""
        run = TrainingRun.parse(raw)
        policy = await policy_snapshots.restore_spec(
            self._context, run.namespace, kinds.RETRAINING_POLICY, run.status.policy
        )
        return run.model_copy(update={"status": run.status.model_copy(update={"policy": policy})})

    async def _write_status(self, raw: Object, new: TrainingRunStatus, old: TrainingRunStatus) -> bool:
        if new == old:
            return False
        policy = await policy_snapshots.offload_spec(
            self._context, raw["metadata"]["namespace"], new.policy, old.policy
        )
        return await write_status(self._context, raw, new.model_copy(update={"policy": policy}), old)

    async def _report_problem(self, raw: Object, observation: RunObservation, problem: Problem) -> ReconcileResult:
        """Report that an object can't be created: the run has a copy of its policy, which can't change any more."""
        run = await self._parse_run(raw)
        if observation.state is RunState.REGISTERING and not problem.stalled:
            self._registration_problems[run.uid] = problem
        decision = decide_run(replace(observation, run=run, problem=problem, stage=None, child=None))
        if await self._write_status(raw, decision.status, run.status):
            self._emit_events(raw, run.status, decision.status)
        return _requeue(decision)

    async def _reject_spec(self, raw: Object, error: InvalidObject) -> None:
        """Report a spec that this operator can't parse (admission is older or newer than it)."""
        generation = raw["metadata"].get("generation", 0)
        old = TrainingRunStatus.model_validate(raw.get("status") or {})
        summary = ConditionSummary(Reason.INVALID_SPEC, error.message, stalled=True)
        conditions = build_conditions(
            old.conditions, summary, None, generation=generation, now=self._context.clock.now()
        )
        await write_status(
            self._context,
            raw,
            old.model_copy(update={"observed_generation": generation, "conditions": conditions}),
            old,
        )

    def _emit_events(self, raw: Object, old: TrainingRunStatus, new: TrainingRunStatus) -> None:
        if new.state == old.state:
            return
        has_failed = new.state == RunState.FAILED
        if new.state in RUN_TERMINAL_STATES:
            metrics.RUNS.labels(new.state, new.reason or "").inc()
        note = f"{new.state}: {new.message}" if new.message else str(new.state)
        self._context.events.record(raw, "Warning" if has_failed else "Normal", new.reason or str(new.state), note)


def _requeue(decision: RunDecision) -> ReconcileResult:
    return ReconcileResult(decision.requeue_after.total_seconds() if decision.requeue_after is not None else None)
