"""RetrainingPolicy: finds out what has fired, starts runs or says why not, and keeps the record of it."""

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
    SuppressedStatus,
    TriggerStatus,
)
from modelwright.api.v1alpha1.training import RunState, TrainingRun
from modelwright.core import gate_results, pod_failures, pod_trust
from modelwright.core.retraining import schedule, throttle, triggers
from modelwright.core.retraining.throttle import AlreadyStarted, PolicyRun, StartRun, SuppressFiring
from modelwright.core.retraining.triggers import Firing
from modelwright.core.status.readiness import ConditionSummary, build_conditions
from modelwright.engines.port import choose_engine
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
TriggerDecision = StartRun | SuppressFiring | AlreadyStarted

QUERY_PLACEHOLDERS = ("NAMESPACE", "MODEL", "VERSION")
"""Of a trigger's query."""
FAILED_OUTCOMES = frozenset({"RolledBack", "Undecided"})
"""Of versions after which triggers back off: one that was not promoted would be trained again at once, and for ever."""
MAX_COUNT = 2**31 - 1


class RetrainingPolicyReconciler:
    """Brings one RetrainingPolicy a step further per pass."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._checked_expressions: dict[Key, tuple[str, int]] = {}
        """Policies whose expressions can be compiled, with uid and generation: it takes time."""

    async def reconcile(self, key: Key) -> ReconcileResult:
        """One pass over the RetrainingPolicy of this key."""
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
            refused = await _rejected_queries(policy)
        except SandboxBusy:
            return ReconcileResult(BUSY_RETRY_SECONDS)
        runs = list_runs(context, raw)
        views = [_build_run_view(run) for run in runs]
        rows = self._read_streaks(key, policy, model if problem is None else None, refused)
        messages = context.webhook_queue.pending_events(key) if context.webhook_queue is not None else ()
        looks, trouble = await self._read_fingerprints(raw, policy)
        firings, baselines = self._list_firings(policy, model, runs, rows, messages, looks, now)
        if model is None or problem is not None:
            # Nothing can follow; times of schedules are taken up later, and senders send again.
            firings, messages = [], ()
        failures, last_failed = throttle.count_failures(views, policy.status.failures or 0, policy.status.last_run)
        retry_at = throttle.compute_retry_time(policy.spec.guard.backoff, failures, last_failed)
        decisions = throttle.judge_firings(
            firings,
            policy.spec.guard,
            views,
            policy=policy.name,
            policy_uid=policy.uid,
            suspended=policy.spec.suspend,
            now=now,
            retry_at=retry_at,
        )
        for decision in decisions:
            if isinstance(decision, StartRun):
                await self._create_run(policy, decision)
        for name, row in rows.items():
            trigger = next(t for t in policy.spec.triggers if t.name == name)
            if (
                context.trigger_poller is not None
                and trigger.prometheus
                and triggers.is_breached(trigger.prometheus, row.count)
            ):
                context.trigger_poller.reset_streak(key, name)
        verdict = self._build_verdict(policy, model, problem or trouble, rows)
        runs = list_runs(context, raw)
        status = self._build_status(policy, verdict, decisions, baselines, runs, failures, retry_at, now)
        if await write_status(context, raw, status, policy.status):
            self._emit_events(raw, decisions)
        if context.webhook_queue is not None:
            context.webhook_queue.acknowledge(key, messages)
        await self._prune_runs(policy, runs, throttle.list_counted_runs(policy.spec.guard, views, now))
        for run in runs:
            if not has_ended(run) and any(
                isinstance(decision, StartRun) and decision.replaces for decision in decisions
            ):
                context.enqueue(Key(kinds.TRAINING_RUN.kind, run.namespace, run.name))
        return ReconcileResult(self._requeue_after(policy, model, now))

    async def _expression_problem(self, key: Key, policy: RetrainingPolicy) -> str | None:
        """What is wrong with the expressions of the stages. Raises Busy."""
        template, edit = policy.spec.run, (policy.uid, policy.generation)
        works = {"dataCheck": template.data_check, "train": template.train, "evaluate": template.evaluate}
        resources = {name: work for name, work in works.items() if work and work.resource and work.resource.expressions}
        if not resources or self._checked_expressions.get(key) == edit:
            return None
        for name, work in resources.items():
            wrong = await SANDBOX.run_if_free(policy.namespace, choose_engine(work).validate_work, work)
            if wrong is not None:
                return f"spec.run.{name}.{wrong}"
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
        self, key: Key, policy: RetrainingPolicy, model: Model | None, refused: Mapping[str, BreachStreak]
    ) -> Mapping[str, BreachStreak]:
        """Looks of the prometheus triggers but `refused` ones; none are made while nothing could follow from them."""
        if model is None or policy.spec.suspend:
            return self._poll_triggers(key, policy.uid, {})
        serving = model.status.serving.version if model.status.serving is not None else ""
        known = dict(zip(QUERY_PLACEHOLDERS, (policy.namespace, model.name, serving), strict=True))
        asked = {t.name: t.prometheus for t in policy.spec.triggers if t.prometheus is not None}
        wanted = {name: PolledTrigger(trigger, known) for name, trigger in asked.items() if name not in refused}
        return {**refused, **self._poll_triggers(key, policy.uid, wanted)}

    def _list_firings(
        self,
        policy: RetrainingPolicy,
        model: Model | None,
        runs: Sequence[TrainingRun],
        rows: Mapping[str, BreachStreak],
        messages: Sequence[WebhookEvent],
        looks: Mapping[str, str],
        now: datetime,
    ) -> tuple[list[Firing], dict[str, str]]:
        """What has fired, in order of time; and the first state of data of triggers that had none yet."""
        spec, created = policy.spec, policy.metadata.creation_timestamp or now
        status = _anchored_status(policy, now)
        found = list(triggers.fire_schedules(spec, status, created, now))
        serving = model.status.serving if model is not None else None
        if serving is not None and serving.since is not None:
            found += triggers.fire_ages(spec, status, serving.version, serving.since, now)
        last = {entry.name: entry for entry in status.triggers}
        baselines = {}
        for trigger in spec.triggers:
            row = rows.get(trigger.name)
            if trigger.prometheus is not None and row is not None:
                if triggers.is_breached(trigger.prometheus, row.count) and row.value is not None:
                    entry = last.get(trigger.name)
                    count = _last_count(trigger.name, entry.identity if entry is not None else None, runs) + 1
                    found.append(triggers.fire_breach(trigger.name, trigger.prometheus, row.value, count, now))
            elif trigger.data is not None and trigger.name in looks:
                fingerprint = looks[trigger.name]
                firing = triggers.fire_data_change(trigger.name, trigger.data, fingerprint, last.get(trigger.name), now)
                if firing is not None:
                    found.append(firing)
                elif trigger.name not in last:
                    baselines[trigger.name] = fingerprint
        known = {trigger.name for trigger in spec.triggers if trigger.webhook is not None}
        found += [
            Firing(message.trigger, "webhook", message.identity, now, message.text)
            for message in dict.fromkeys(messages)
            if message.trigger in known
        ]
        return sorted(found, key=lambda firing: (firing.at, firing.trigger, firing.identity)), baselines

    async def _read_fingerprints(self, raw: Object, policy: RetrainingPolicy) -> tuple[dict[str, str], str | None]:
        """Fingerprints that the looks of the data triggers have left, by trigger; and what is in their way."""
        wanted, wrong = {}, []
        model = self._context.store.get(kinds.MODEL, policy.namespace, policy.spec.model_ref.name)
        images = helper_pod_placement.with_model_placement(self._context.images, model)
        for trigger in policy.spec.triggers:
            if trigger.data is not None:
                try:
                    cron_job = renderers.data_poll_cron_job(raw, trigger, images)
                except MergeError as error:
                    wrong.append(str(error))
                    continue
                wanted[cron_job["metadata"]["name"]] = (trigger, cron_job)
        for live in self._context.store.by_owner(kinds.CRON_JOB, policy.uid):
            if is_controlled_by(live, policy.uid) and (live["metadata"]["name"] not in wanted or policy.spec.suspend):
                await remove(self._context, live)
        if not wanted or policy.spec.suspend:
            return {}, "; ".join(wrong) or None
        found = {}
        known = {entry.name: entry.identity for entry in policy.status.triggers}
        for trigger, cron_job in wanted.values():
            try:
                live, _ = await ensure(self._context, cron_job)
            except BlockedError as refused:
                wrong.append(refused.problem.message)
                continue
            fingerprint = read_child(
                live, functools.partial(self._latest_fingerprint, live, cron_job), lambda text: (text,)
            )
            if isinstance(fingerprint, str):
                found[trigger.name] = fingerprint
                if fingerprint == known.get(trigger.name):
                    await self._remove_stuck_polls(live, None)
            elif fingerprint is not None:
                wrong.append(f"spec.triggers[{trigger.name}].data: {fingerprint[0]}")
                assert trigger.data is not None  # noqa: S101 - others have no CronJob
                await self._remove_stuck_polls(live, timedelta(seconds=parse_duration(trigger.data.every)))
        return found, "; ".join(wrong) or None

    async def _remove_stuck_polls(self, cron_job: Object, age: timedelta | None) -> None:
        """Remove Jobs whose look has ended and whose pod another container keeps running: the next look would wait for
        them. `age`: those that are older only."""
        uid = cron_job["metadata"]["uid"]
        for job in self._context.store.by_owner(kinds.JOB, uid):
            if not is_controlled_by(job, uid) or gate_results.has_ended(job):
                continue
            if age is not None and not gate_results.is_stuck(job, self._context.clock.now(), age):
                continue
            mine = self._context.store.by_owner(kinds.POD, job["metadata"]["uid"])
            if mine and all(_has_polled(pod) for pod in mine):
                await remove(self._context, job)

    def _latest_fingerprint(self, live: Object, wanted: Object) -> str | tuple[str] | None:
        """What the newest look that has ended says: a fingerprint, or (what went wrong,). `live`: the CronJob;
        `wanted`: the same as it is rendered. Only pods of its own Jobs are believed, and only as they are rendered."""
        template = wanted["spec"]["jobTemplate"]["spec"]["template"]
        mine: list[Object] = []
        others: list[str] = []
        for job in self._context.store.by_owner(kinds.JOB, live["metadata"]["uid"]):
            if is_controlled_by(job, live["metadata"]["uid"]):
                uid = job["metadata"]["uid"]
                heard = pod_trust.trust_pods(uid, template, self._context.store.by_owner(kinds.POD, uid))
                mine += heard.pods
                others += heard.refusals
        mine.sort(key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)
        for pod in mine:
            status = pod_trust.container_status(pod, FETCH_CONTAINER)
            done = status.get("state", {}).get("terminated", {})
            if done.get("exitCode") == 0:
                report = pod_failures.parse_termination_report(done.get("message", "")) or {}
                said = report.get("fingerprint")
                return said if isinstance(said, str) and 0 < len(said) <= 253 else ("the look ended without a result",)
            told = pod_failures.read_fetch_failure(status)
            failure = pod_failures.diagnose_pods([pod])
            if told is not None or failure is not None:
                return (told[1] if told is not None else failure.message if failure is not None else "",)
        return (others[0],) if others else None

    async def _create_run(self, policy: RetrainingPolicy, decision: StartRun) -> None:
        """Make the TrainingRun. Its name follows from what has fired: made already, it is this very run."""
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
            made = await self._context.client.create(body)
        except api_errors.AlreadyExists:
            found = await self._context.client.get(kinds.TRAINING_RUN, policy.namespace, decision.run)
            asked = ((found or {}).get("spec") or {}).get("trigger") or {}
            if found is None or (asked.get("name"), asked.get("identity")) != (firing.trigger, firing.identity):
                raise
            made = {**found, "apiVersion": names.API_VERSION, "kind": kinds.TRAINING_RUN.kind}
        self._context.store.put(made)

    def _build_verdict(
        self, policy: RetrainingPolicy, model: Model | None, trouble: str | None, rows: Mapping[str, BreachStreak]
    ) -> ConditionSummary:
        if trouble is not None:
            return ConditionSummary(Reason.INVALID_POLICY, trouble, stalled=True)
        if model is None:
            text = f"spec.modelRef: there is no Model {policy.spec.model_ref.name}"
            return ConditionSummary(Reason.WAITING_FOR_MODEL, text, reconciling=True)
        if policy.spec.suspend:
            return ConditionSummary(Reason.SUSPENDED, "spec.suspend is true: triggers are let go")
        failing = sorted((name, row.problem) for name, row in rows.items() if row.problem is not None)
        if failing:
            name, told = failing[0]
            assert told is not None  # noqa: S101 - only those that have a problem are listed
            return ConditionSummary(told[0], f"spec.triggers[{name}].prometheus: {told[1]}", stalled=True)
        return ConditionSummary(Reason.POLICY_ACCEPTED, "triggers are being looked at")

    def _build_status(
        self,
        policy: RetrainingPolicy,
        verdict: ConditionSummary,
        decisions: Sequence[TriggerDecision],
        baselines: Mapping[str, str],
        runs: Sequence[TrainingRun],
        failures: int,
        retry_at: datetime | None,
        now: datetime,
    ) -> RetrainingPolicyStatus:
        old = policy.status
        known = {trigger.name for trigger in policy.spec.triggers}
        fired = {entry.name: entry for entry in _anchored_status(policy, now).triggers if entry.name in known}
        for name, fingerprint in baselines.items():
            fired[name] = TriggerStatus(name=name, identity=fingerprint)
        counted = {(entry.trigger, entry.reason): entry for entry in old.suppressed if entry.trigger in known}
        for decision in decisions:
            firing = decision.firing
            outcome, run = _trigger_outcome(decision)
            identity = firing.fingerprint or firing.identity
            entry = fired.get(firing.trigger)
            fired[firing.trigger] = TriggerStatus(
                name=firing.trigger,
                identity=identity,
                at=firing.at,
                outcome=outcome,
                run=run,
                schedule=entry.schedule if entry is not None else None,
                since=entry.since if entry is not None else None,
            )
            if isinstance(decision, SuppressFiring):
                place = (firing.trigger, decision.reason)
                before = counted[place].count if place in counted else 0
                counted[place] = SuppressedStatus(
                    trigger=firing.trigger,
                    reason=decision.reason,
                    count=min(before + 1, MAX_COUNT),
                    last_at=now,
                    message=decision.message,
                )
        active = [run.name for run in runs if not has_ended(run)]
        ended = sorted((run for run in runs if has_ended(run)), key=lambda run: run.status.finished_at or now)
        made = [run.status.version for run in ended if run.status.version]
        waits = retry_at is not None and retry_at > now
        return RetrainingPolicyStatus(
            observed_generation=policy.generation,
            triggers=tuple(fired[name] for name in sorted(fired)),
            suppressed=tuple(counted[place] for place in sorted(counted))[:128],
            active_run=active[0] if active else None,
            last_run=ended[-1].name if ended else old.last_run,
            last_version=made[-1] if made else old.last_version,
            failures=failures or None,
            retry_at=retry_at if waits else None,
            conditions=build_conditions(old.conditions, verdict, None, generation=policy.generation, now=now),
        )

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
        """Ended runs beyond the limit go, oldest first. The last one that succeeded stays, what follows compares with
        it; so do those that the guard still counts."""
        ended = sorted(
            (run for run in runs if has_ended(run)),
            key=lambda run: run.status.finished_at or datetime.min.replace(tzinfo=UTC),
        )
        good = [run.name for run in ended if run.status.state == RunState.SUCCEEDED]
        for run in ended[: max(0, len(ended) - policy.spec.history_limit)]:
            raw = self._context.store.get(kinds.TRAINING_RUN, run.namespace, run.name)
            if raw is not None and run.name not in needed and run.name not in good[-1:]:
                await remove(self._context, raw)

    def _requeue_after(self, policy: RetrainingPolicy, model: Model | None, now: datetime) -> float | None:
        serving = model.status.serving if model is not None else None
        since = serving.since if serving is not None else None
        following = triggers.next_firing_time(
            policy.spec, policy.status, since, policy.metadata.creation_timestamp or now, now
        )
        return max((following - now).total_seconds(), 0.0) + 0.05 if following is not None else None

    async def _reject_spec(self, raw: Object, error: InvalidObject) -> None:
        """A spec that this operator can't read (admission is older or newer than it)."""
        generation = raw["metadata"].get("generation", 0)
        old = RetrainingPolicyStatus.model_validate(raw.get("status") or {})
        verdict = ConditionSummary(Reason.INVALID_POLICY, error.message, stalled=True)
        told = build_conditions(old.conditions, verdict, None, generation=generation, now=self._context.clock.now())
        await write_status(
            self._context, raw, old.model_copy(update={"observed_generation": generation, "conditions": told}), old
        )


def _has_polled(pod: Object) -> bool:
    """Whether the container that looks has ended, for good, and another one runs."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    going = [entry for entry in statuses if "terminated" not in (entry.get("state") or {})]
    return bool(going) and "terminated" in (pod_trust.container_status(pod, FETCH_CONTAINER).get("state") or {})


def _schedule_problem(policy: RetrainingPolicy, now: datetime) -> str | None:
    """What is wrong with the first trigger that can never fire, naming the field."""
    for trigger in policy.spec.triggers:
        if trigger.schedule is not None:
            wrong = schedule.find_schedule_problem(trigger.schedule, now)
            if wrong is not None:
                return f"spec.triggers[{trigger.name}].{wrong}"
    return None


async def _rejected_queries(policy: RetrainingPolicy) -> dict[str, BreachStreak]:
    """Triggers whose query nothing will send, by name. The others are evaluated. Raises Busy."""
    found = {}
    for trigger in policy.spec.triggers:
        if trigger.prometheus is not None:
            try:
                text = queries.fill_placeholders(trigger.prometheus.query, dict.fromkeys(QUERY_PLACEHOLDERS, "x"))
                await queries.parse_query(text, "query", policy.namespace, wait=False)
            except MeasurementError as fault:
                found[trigger.name] = BreachStreak(problem=(fault.failure.reason, fault.failure.message))
    return found


def _anchored_status(policy: RetrainingPolicy, now: datetime) -> RetrainingPolicyStatus:
    created = policy.metadata.creation_timestamp
    since = created if policy.status.observed_generation is None and created is not None else now
    return triggers.anchor_schedules(policy.spec, policy.status, since, now)


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
    """How often a trigger that counts has fired, by the policy's record and by the runs that are there."""
    told = [identity] if identity is not None else []
    told += [run.spec.trigger.identity for run in runs if run.spec.trigger and run.spec.trigger.name == trigger]
    return max((int(one) for one in told if one.isdecimal()), default=0)


def _trigger_outcome(decision: TriggerDecision) -> tuple[str, str | None]:
    if isinstance(decision, StartRun):
        return ("Replaced" if decision.replaces else "Started"), decision.run
    if isinstance(decision, AlreadyStarted):
        return "Started", decision.run
    return decision.reason, None
