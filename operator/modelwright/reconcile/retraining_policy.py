"""RetrainingPolicy: evaluates its triggers, starts runs, and records why a trigger started none."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from modelwright.api import names
from modelwright.api.common import InvalidObject, parse_duration
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.retraining import (
    RetrainingPolicy,
    RetrainingPolicyStatus,
)
from modelwright.api.v1alpha1.training import RunState, TrainingRun
from modelwright.core import gate_results, pod_failures, pod_trust
from modelwright.core.retraining import schedule, throttle, triggers
from modelwright.core.retraining.policy_status import BackoffState, TriggerDecision, anchor_status, build_policy_status
from modelwright.core.retraining.throttle import PolicyRun, StartRun, SuppressFiring
from modelwright.core.retraining.triggers import Firing
from modelwright.core.status.readiness import ConditionSummary, build_conditions
from modelwright.engines.providers import choose_engine
from modelwright.kube import api_errors, kinds
from modelwright.kube.queue import Key
from modelwright.kube.workers import ReconcileResult
from modelwright.measurement import queries
from modelwright.measurement.json_client import MeasurementError
from modelwright.measurement.trigger_poller import BreachStreak, PolledTrigger
from modelwright.obs import metrics
from modelwright.obs.read_child import read_child
from modelwright.reconcile.children import BlockedError, ensure, is_controlled_by, remove
from modelwright.reconcile.context import Context
from modelwright.reconcile.status_writer import write_status
from modelwright.reconcile.training_run.runs import has_ended, list_runs
from modelwright.reconcile.webhook_queue import WebhookEvent
from modelwright.render import helper_pod_placement
from modelwright.render import training_stages as renderers
from modelwright.render.fetch_container import FETCH_CONTAINER
from modelwright.render.strategic_merge import MergeError
from modelwright.sandbox.limits import BUSY_RETRY_SECONDS
from modelwright.sandbox.process import SANDBOX, SandboxBusy

Object = dict[str, Any]

QUERY_PLACEHOLDERS = ("NAMESPACE", "MODEL", "VERSION")
"""Placeholders of a trigger's query."""
MAX_FINGERPRINT = 253
"""Characters of a fingerprint that the API takes."""
FAILED_OUTCOMES = frozenset({"RolledBack", "Undecided"})
"""Version outcomes after which triggers back off: else the same failing version would be trained again endlessly."""


class RetrainingPolicyReconciler:
    """Brings one RetrainingPolicy a step further per reconciliation."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._checked_expressions: dict[Key, tuple[str, int]] = {}
        """Policies whose expressions compile, with uid and generation: compiling takes time."""

    async def reconcile(self, key: Key) -> ReconcileResult:
        """Reconcile the RetrainingPolicy of this key."""
        context = self._context
        raw = context.store.get(kinds.RETRAINING_POLICY, key.namespace, key.name)
        if raw is None or raw["metadata"].get("deletionTimestamp"):
            self._poll_triggers(key, "", {})
            self._checked_expressions.pop(key, None)
            return ReconcileResult()
        try:
            policy = RetrainingPolicy.parse(raw)
        except InvalidObject as error:
            self._poll_triggers(key, "", {})
            await self._reject_spec(raw, error)
            return ReconcileResult()
        now, model = context.clock.now(), self._read_model(policy)
        try:
            problem = _schedule_problem(policy, now) or await self._expression_problem(key, policy)
            rejected = await _rejected_queries(policy)
        except SandboxBusy:
            return ReconcileResult(BUSY_RETRY_SECONDS)
        runs = list_runs(context, raw)
        run_views = [_build_run_view(run) for run in runs]
        streaks = self._read_streaks(key, policy, model if problem is None else None, rejected)
        events = context.webhook_queue.pending_events(key) if context.webhook_queue is not None else ()
        fingerprints, poll_problem = await self._read_fingerprints(raw, policy)
        firings, baselines = self._list_firings(policy, model, runs, streaks, events, fingerprints, now)
        if model is None or problem is not None:
            # No run can start; due times of schedules are caught up later, and senders send their events again.
            firings, events = [], ()
        failures, last_failed = throttle.count_failures(run_views, policy.status.failures or 0, policy.status.last_run)
        retry_at = throttle.compute_retry_time(policy.spec.guard.backoff, failures, last_failed)
        decisions = throttle.judge_firings(
            firings,
            policy.spec.guard,
            run_views,
            policy=policy.name,
            policy_uid=policy.uid,
            suspended=policy.spec.suspend,
            now=now,
            retry_at=retry_at,
        )
        for decision in decisions:
            if isinstance(decision, StartRun):
                await self._create_run(policy, decision)
        for name, streak in streaks.items():
            trigger = next(t for t in policy.spec.triggers if t.name == name)
            if (
                context.trigger_poller is not None
                and trigger.prometheus
                and triggers.is_breached(trigger.prometheus, streak.count)
            ):
                context.trigger_poller.reset_streak(key, name)
        summary = self._build_verdict(policy, model, problem or poll_problem, streaks)
        runs = list_runs(context, raw)
        status = build_policy_status(policy, summary, decisions, baselines, runs, BackoffState(failures, retry_at), now)
        if await write_status(context, raw, status, policy.status):
            self._emit_events(raw, decisions)
        if context.webhook_queue is not None:
            context.webhook_queue.acknowledge(key, events)
        await self._prune_runs(policy, runs, throttle.list_counted_runs(policy.spec.guard, run_views, now))
        for run in runs:
            if not has_ended(run) and any(
                isinstance(decision, StartRun) and decision.replaces for decision in decisions
            ):
                context.enqueue(Key(kinds.TRAINING_RUN.kind, run.namespace, run.name))
        return ReconcileResult(self._requeue_after(policy, model, now))

    async def _expression_problem(self, key: Key, policy: RetrainingPolicy) -> str | None:
        """Why the expressions of a stage can't be compiled. Raises SandboxBusy."""
        template, edit = policy.spec.run, (policy.uid, policy.generation)
        works = {"dataCheck": template.data_check, "train": template.train, "evaluate": template.evaluate}
        resources = {name: work for name, work in works.items() if work and work.resource and work.resource.expressions}
        if not resources or self._checked_expressions.get(key) == edit:
            return None
        for name, work in resources.items():
            problem = await SANDBOX.run_if_free(policy.namespace, choose_engine(work).validate_work, work)
            if problem is not None:
                return f"spec.run.{name}.{problem}"
        self._checked_expressions[key] = edit
        return None

    def _poll_triggers(self, key: Key, uid: str, wanted: Mapping[str, PolledTrigger]) -> Mapping[str, BreachStreak]:
        return (
            self._context.trigger_poller.sync_triggers(key, uid, wanted)
            if self._context.trigger_poller is not None
            else {}
        )

    def _read_model(self, policy: RetrainingPolicy) -> Model | None:
        raw = self._context.store.get(kinds.MODEL, policy.namespace, policy.spec.model_ref.name)
        if raw is None or raw["metadata"].get("deletionTimestamp"):
            return None
        try:
            return Model.parse(raw)
        except InvalidObject:
            return None

    def _read_streaks(
        self, key: Key, policy: RetrainingPolicy, model: Model | None, rejected: Mapping[str, BreachStreak]
    ) -> Mapping[str, BreachStreak]:
        """Breach streaks of the Prometheus triggers. `rejected`: those of triggers whose query is not polled.

        Nothing is polled while no run could start.
        """
        if model is None or policy.spec.suspend:
            return self._poll_triggers(key, policy.uid, {})
        serving = model.status.serving.version if model.status.serving is not None else ""
        values = dict(zip(QUERY_PLACEHOLDERS, (policy.namespace, model.name, serving), strict=True))
        by_name = {t.name: t.prometheus for t in policy.spec.triggers if t.prometheus is not None}
        wanted = {name: PolledTrigger(trigger, values) for name, trigger in by_name.items() if name not in rejected}
        return {**rejected, **self._poll_triggers(key, policy.uid, wanted)}

    def _list_firings(
        self,
        policy: RetrainingPolicy,
        model: Model | None,
        runs: Sequence[TrainingRun],
        streaks: Mapping[str, BreachStreak],
        events: Sequence[WebhookEvent],
        fingerprints: Mapping[str, str],
        now: datetime,
    ) -> tuple[list[Firing], dict[str, str]]:
        """The firings, in order of time; and the first fingerprints of data triggers that had none yet."""
        spec, created = policy.spec, policy.metadata.creation_timestamp or now
        status = anchor_status(policy, now)
        firings = list(triggers.fire_schedules(spec, status, created, now))
        serving = model.status.serving if model is not None else None
        if serving is not None and serving.since is not None:
            firings += triggers.fire_ages(spec, status, serving.version, serving.since, now)
        last = {entry.name: entry for entry in status.triggers}
        baselines = {}
        for trigger in spec.triggers:
            streak = streaks.get(trigger.name)
            if trigger.prometheus is not None and streak is not None:
                if triggers.is_breached(trigger.prometheus, streak.count) and streak.value is not None:
                    entry = last.get(trigger.name)
                    count = _last_count(trigger.name, entry.identity if entry is not None else None, runs) + 1
                    firings.append(triggers.fire_breach(trigger.name, trigger.prometheus, streak.value, count, now))
            elif trigger.data is not None and trigger.name in fingerprints:
                fingerprint = fingerprints[trigger.name]
                firing = triggers.fire_data_change(trigger.name, trigger.data, fingerprint, last.get(trigger.name), now)
                if firing is not None:
                    firings.append(firing)
                elif trigger.name not in last:
                    baselines[trigger.name] = fingerprint
        known = {trigger.name for trigger in spec.triggers if trigger.webhook is not None}
        firings += [
            Firing(event.trigger, "webhook", event.identity, now, event.text)
            for event in dict.fromkeys(events)
            if event.trigger in known
        ]
        return sorted(firings, key=lambda firing: (firing.at, firing.trigger, firing.identity)), baselines

    async def _read_fingerprints(self, raw: Object, policy: RetrainingPolicy) -> tuple[dict[str, str], str | None]:
        """The fingerprints that the polls of the data triggers report, by trigger; and why others can't be had."""
        wanted, problems = {}, []
        model = self._context.store.get(kinds.MODEL, policy.namespace, policy.spec.model_ref.name)
        images = helper_pod_placement.with_model_placement(self._context.images, model)
        for trigger in policy.spec.triggers:
            if trigger.data is not None:
                try:
                    cron_job = renderers.data_poll_cron_job(raw, trigger, images)
                except MergeError as error:
                    problems.append(str(error))
                    continue
                wanted[cron_job["metadata"]["name"]] = (trigger, cron_job)
        for live in self._context.store.by_owner(kinds.CRON_JOB, policy.uid):
            if is_controlled_by(live, policy.uid) and (live["metadata"]["name"] not in wanted or policy.spec.suspend):
                await remove(self._context, live)
        if not wanted or policy.spec.suspend:
            return {}, "; ".join(problems) or None
        fingerprints = {}
        known = {entry.name: entry.identity for entry in policy.status.triggers}
        for trigger, cron_job in wanted.values():
            try:
                live, _ = await ensure(self._context, cron_job)
            except BlockedError as blocked:
                problems.append(blocked.problem.message)
                continue
            fingerprint = read_child(
                live, functools.partial(self._latest_fingerprint, live, cron_job), lambda text: (text,)
            )
            if isinstance(fingerprint, str):
                fingerprints[trigger.name] = fingerprint
                if fingerprint == known.get(trigger.name):
                    await self._remove_stuck_polls(live, None)
            elif fingerprint is not None:
                problems.append(f"spec.triggers[{trigger.name}].data: {fingerprint[0]}")
                assert trigger.data is not None  # noqa: S101 - others have no CronJob
                await self._remove_stuck_polls(live, timedelta(seconds=parse_duration(trigger.data.every)))
        return fingerprints, "; ".join(problems) or None

    async def _remove_stuck_polls(self, cron_job: Object, age: timedelta | None) -> None:
        """Remove Jobs whose poll has ended and whose pod an injected container keeps running: the next poll would wait
        for them. `age`: only those that are older."""
        uid = cron_job["metadata"]["uid"]
        for job in self._context.store.by_owner(kinds.JOB, uid):
            if not is_controlled_by(job, uid) or gate_results.has_ended(job):
                continue
            if age is not None and not gate_results.is_stuck(job, self._context.clock.now(), age):
                continue
            pods = self._context.store.by_owner(kinds.POD, job["metadata"]["uid"])
            if pods and all(_has_polled(pod) for pod in pods):
                await remove(self._context, job)

    def _latest_fingerprint(self, live: Object, wanted: Object) -> str | tuple[str] | None:
        """The report of the newest poll that has ended: a fingerprint, or a tuple with the error message.

        `live`: the CronJob; `wanted`: the same as it is rendered. Only pods of its own Jobs are trusted, and only those
        that are as rendered.
        """
        template = wanted["spec"]["jobTemplate"]["spec"]["template"]
        pods: list[Object] = []
        refusals: list[str] = []
        for job in self._context.store.by_owner(kinds.JOB, live["metadata"]["uid"]):
            if is_controlled_by(job, live["metadata"]["uid"]):
                uid = job["metadata"]["uid"]
                trusted = pod_trust.trust_pods(uid, template, self._context.store.by_owner(kinds.POD, uid))
                pods += trusted.pods
                refusals += trusted.refusals
        pods.sort(key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)
        for pod in pods:
            status = pod_trust.container_status(pod, FETCH_CONTAINER)
            terminated = status.get("state", {}).get("terminated", {})
            if terminated.get("exitCode") == 0:
                report = pod_failures.parse_termination_report(terminated.get("message", "")) or {}
                fingerprint = report.get("fingerprint")
                is_valid = isinstance(fingerprint, str) and 0 < len(fingerprint) <= MAX_FINGERPRINT
                return str(fingerprint) if is_valid else ("the poll ended without a result",)
            fetch_failure = pod_failures.read_fetch_failure(status)
            failure = pod_failures.diagnose_pods([pod])
            if fetch_failure is not None or failure is not None:
                message = failure.message if failure is not None else ""
                return (fetch_failure[1] if fetch_failure is not None else message,)
        return (refusals[0],) if refusals else None

    async def _create_run(self, policy: RetrainingPolicy, decision: StartRun) -> None:
        """Create the TrainingRun. Its name follows from the firing: an existing one of that name is this very run."""
        firing = decision.firing
        body = {
            "apiVersion": names.API_VERSION,
            "kind": kinds.TRAINING_RUN.kind,
            "metadata": {
                "name": decision.run,
                "namespace": policy.namespace,
                "labels": {names.LABEL_MODEL: names.label_value(policy.spec.model_ref.name)},
            },
            "spec": {
                "policyRef": {"name": policy.name},
                "policyUid": policy.uid,
                "trigger": {
                    "name": firing.trigger,
                    "identity": firing.identity,
                    "message": firing.message[:1024] or "-",
                },
            },
        }
        try:
            run = await self._context.client.create(body)
        except api_errors.AlreadyExists:
            existing = await self._context.client.get(kinds.TRAINING_RUN, policy.namespace, decision.run)
            trigger = ((existing or {}).get("spec") or {}).get("trigger") or {}
            if existing is None or (trigger.get("name"), trigger.get("identity")) != (firing.trigger, firing.identity):
                raise
            run = {**existing, "apiVersion": names.API_VERSION, "kind": kinds.TRAINING_RUN.kind}
        self._context.store.put(run)

    def _build_verdict(
        self, policy: RetrainingPolicy, model: Model | None, problem: str | None, streaks: Mapping[str, BreachStreak]
    ) -> ConditionSummary:
        if problem is not None:
            return ConditionSummary(Reason.INVALID_POLICY, problem, stalled=True)
        if model is None:
            text = f"spec.modelRef: there is no Model {policy.spec.model_ref.name}"
            return ConditionSummary(Reason.WAITING_FOR_MODEL, text, reconciling=True)
        if policy.spec.suspend:
            return ConditionSummary(Reason.SUSPENDED, "spec.suspend is true: triggers are suppressed")
        failing = sorted((name, *streak.problem) for name, streak in streaks.items() if streak.problem is not None)
        if failing:
            name, reason, message = failing[0]
            return ConditionSummary(reason, f"spec.triggers[{name}].prometheus: {message}", stalled=True)
        return ConditionSummary(Reason.POLICY_ACCEPTED, "triggers are being evaluated")

    def _emit_events(self, raw: Object, decisions: Iterable[TriggerDecision]) -> None:
        for decision in decisions:
            firing = decision.firing
            if isinstance(decision, StartRun):
                note = f"trigger {firing.trigger}: {firing.message}: run {decision.run}"
                self._context.events.record(raw, "Normal", Reason.RUN_STARTED, note)
                metrics.TRIGGERS.labels(firing.kind, "Started").inc()
            elif isinstance(decision, SuppressFiring):
                note = f"trigger {firing.trigger}: {firing.message}: no run: {decision.message}"
                self._context.events.record(raw, "Normal", decision.reason, note)
                metrics.TRIGGERS.labels(firing.kind, decision.reason).inc()

    async def _prune_runs(self, policy: RetrainingPolicy, runs: Sequence[TrainingRun], needed: frozenset[str]) -> None:
        """Delete ended runs beyond the history limit, oldest first.

        The last one that succeeded stays, since later runs are compared with it; so do those that a limit counts.
        """
        ended = sorted(
            (run for run in runs if has_ended(run)),
            key=lambda run: run.status.finished_at or datetime.min.replace(tzinfo=UTC),
        )
        succeeded = [run.name for run in ended if run.status.state == RunState.SUCCEEDED]
        for run in ended[: max(0, len(ended) - policy.spec.history_limit)]:
            raw = self._context.store.get(kinds.TRAINING_RUN, run.namespace, run.name)
            if raw is not None and run.name not in needed and run.name not in succeeded[-1:]:
                await remove(self._context, raw)

    def _requeue_after(self, policy: RetrainingPolicy, model: Model | None, now: datetime) -> float | None:
        serving = model.status.serving if model is not None else None
        since = serving.since if serving is not None else None
        following = triggers.next_firing_time(
            policy.spec, policy.status, since, policy.metadata.creation_timestamp or now, now
        )
        return max((following - now).total_seconds(), 0.0) + 0.05 if following is not None else None

    async def _reject_spec(self, raw: Object, error: InvalidObject) -> None:
        """Report a spec that this operator can't parse (admission is older or newer than it)."""
        generation = raw["metadata"].get("generation", 0)
        old = RetrainingPolicyStatus.model_validate(raw.get("status") or {})
        summary = ConditionSummary(Reason.INVALID_POLICY, error.message, stalled=True)
        conditions = build_conditions(
            old.conditions, summary, None, generation=generation, now=self._context.clock.now()
        )
        await write_status(
            self._context,
            raw,
            old.model_copy(update={"observed_generation": generation, "conditions": conditions}),
            old,
        )


def _has_polled(pod: Object) -> bool:
    """Whether the container that polls has ended while another one keeps running."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    running = [entry for entry in statuses if "terminated" not in (entry.get("state") or {})]
    return bool(running) and "terminated" in (pod_trust.container_status(pod, FETCH_CONTAINER).get("state") or {})


def _schedule_problem(policy: RetrainingPolicy, now: datetime) -> str | None:
    """Why the first trigger that can never fire does not, naming the field."""
    for trigger in policy.spec.triggers:
        if trigger.schedule is not None:
            problem = schedule.find_schedule_problem(trigger.schedule, now)
            if problem is not None:
                return f"spec.triggers[{trigger.name}].{problem}"
    return None


async def _rejected_queries(policy: RetrainingPolicy) -> dict[str, BreachStreak]:
    """Triggers whose query is never sent, by name, with the reason; the others are polled. Raises SandboxBusy."""
    rejected = {}
    for trigger in policy.spec.triggers:
        if trigger.prometheus is not None:
            try:
                text = queries.fill_placeholders(trigger.prometheus.query, dict.fromkeys(QUERY_PLACEHOLDERS, "x"))
                await queries.parse_query(text, "query", policy.namespace, wait=False)
            except MeasurementError as error:
                rejected[trigger.name] = BreachStreak(problem=(error.failure.reason, error.failure.message))
    return rejected


def _build_run_view(run: TrainingRun) -> PolicyRun:
    status, trigger = run.status, run.spec.trigger
    created = run.metadata.creation_timestamp
    assert created is not None  # noqa: S101 - the API server sets it
    state = RunState(status.state) if status.state in set(RunState) else None
    return PolicyRun(
        name=run.name,
        trigger=trigger.name if trigger is not None else "",
        identity=trigger.identity if trigger is not None else "",
        manual=run.spec.manual is not None,
        created=created,
        ended=status.finished_at,
        state=state,
        failed=state is RunState.FAILED or status.outcome in FAILED_OUTCOMES,
    )


def _last_count(trigger: str, identity: str | None, runs: Iterable[TrainingRun]) -> int:
    """How often a counting trigger has fired, by the policy's status and by the existing runs."""
    identities = [identity] if identity is not None else []
    identities += [run.spec.trigger.identity for run in runs if run.spec.trigger and run.spec.trigger.name == trigger]
    return max((int(text) for text in identities if text.isdecimal()), default=0)
