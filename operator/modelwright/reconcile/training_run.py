"""TrainingRun: brings a run a step further per pass: data, stages, the version it makes, what became of that."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import ValidationError

from modelwright.api import names
from modelwright.api.common import InvalidObject, list_problems, parse_duration
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.retraining import (
    DatasetSource,
    RetrainingPolicy,
    RetrainingPolicySpec,
    Work,
)
from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.api.v1alpha1.training import (
    RunState,
    StageName,
    StageState,
    StageStatus,
    TrainingRun,
    TrainingRunStatus,
)
from modelwright.api.v1alpha1.version import Artifact, ModelFormat, ModelVersion
from modelwright.core import authors, gate_results, pod_failures, pod_trust, versions
from modelwright.core.problem import Problem
from modelwright.core.resolve_queue import RANK_WANTED, ResolveTicket
from modelwright.core.retraining.run_machine import (
    RUN_TERMINAL_STATES,
    ChildRef,
    RegisterVersion,
    ResolveData,
    ResolvedData,
    RunObservation,
    StartStage,
    StopStage,
    current_stage,
    decide_run,
    merge_parameters,
)
from modelwright.core.retraining.stage_reading import ENDED_STAGE_STATES, StageReading
from modelwright.core.rollout.record import is_undecided_ending
from modelwright.core.status.readiness import ConditionSummary, build_conditions
from modelwright.engines import kueue
from modelwright.engines.port import Engine
from modelwright.engines.profiles import PROFILES
from modelwright.engines.providers import choose_engine
from modelwright.kube import api_errors, kinds
from modelwright.kube.kinds import Kind
from modelwright.kube.queue import Key
from modelwright.kube.store import Store
from modelwright.kube.workers import ReconcileResult
from modelwright.net import addresses
from modelwright.obs import metrics
from modelwright.obs.read_child import read_child
from modelwright.reconcile import policy_snapshots, watches
from modelwright.reconcile.children import BlockedError, ensure, has_other_placement, is_controlled_by, remove
from modelwright.reconcile.context import Context
from modelwright.reconcile.model_rollout import DEFAULT_HISTORY_TTL
from modelwright.reconcile.status_writer import write_status
from modelwright.render import helper_pod_placement
from modelwright.render import training_stages as renderers
from modelwright.render.fetch_container import FETCH_CONTAINER
from modelwright.render.gate_jobs import EvaluatedContent
from modelwright.render.images import Images
from modelwright.render.strategic_merge import MergeError
from modelwright.sandbox.process import SANDBOX, SandboxBusy

Object = dict[str, Any]
MAX_LIVE_RUNS, MAX_ENDED_RUNS = 100, 200
"""So many runs of a policy are read in a pass at most: the oldest that go on, the newest that have ended. Others that
go on wait; what ended before that counts for no guard."""
DatasetName = Literal["dataset", "holdout"]

UNDECIDED = "Undecided"
"""Outcome of a version whose rollout ended although nothing was found against it."""
MAX_CONTROLLERS_READ = 16
"""Controllers of pods that are looked up at a look, those of the newest pods."""


def list_runs(context: Context, policy: Object) -> list[TrainingRun]:
    """The runs of this very policy, oldest first; those of a former policy of the same name are left alone. Of very
    many, the oldest that go on, and the newest that have ended."""
    metadata = policy["metadata"]
    found = []
    for place in _list_names(context.store, f"{metadata['namespace']}/{metadata['name']}"):
        raw = context.store.get(kinds.TRAINING_RUN, *place)
        try:
            run = TrainingRun.parse(raw or {})
        except InvalidObject:
            continue
        created = run.metadata.creation_timestamp
        if created is None or run.metadata.deletion_timestamp is not None:
            continue
        if run.spec.policy_uid is None:
            if created.isoformat() < str(metadata.get("creationTimestamp", "")).replace("Z", "+00:00"):
                continue
        elif run.spec.policy_uid != metadata["uid"]:
            continue
        found.append(run)
    return sorted(found, key=_creation_order)


def _list_names(store: Store, policy: str) -> list[tuple[str, str]]:
    live = store.sort_newest_first(
        kinds.TRAINING_RUN, store.list_places("retraining", kinds.TRAINING_RUN, f"{policy} live")
    )
    ended = store.sort_newest_first(
        kinds.TRAINING_RUN, store.list_places("retraining", kinds.TRAINING_RUN, f"{policy} ended")
    )
    return [*live[-MAX_LIVE_RUNS:], *ended[:MAX_ENDED_RUNS]]


def has_ended(run: TrainingRun) -> bool:
    """Whether nothing more is done for a run."""
    return run.status.state in RUN_TERMINAL_STATES


class TrainingRunReconciler:
    """Brings one TrainingRun a step further per pass."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._registration_problems: dict[str, Problem] = {}
        """Why the versions of runs could not be made at the last try, by uid."""

    async def reconcile(self, key: Key) -> ReconcileResult:
        """One pass over the TrainingRun of this key."""
        context = self._context
        raw = context.store.get(kinds.TRAINING_RUN, key.namespace, key.name)
        if raw is None or raw["metadata"].get("deletionTimestamp"):
            return ReconcileResult()
        try:
            run = await self._parse_run(raw)
        except InvalidObject as error:
            await self._reject_spec(raw, error)
            return ReconcileResult()
        picture = _RunSnapshot(context, raw, run)
        if picture.is_expired:
            # The sweep comes by again and again.
            await remove(context, raw)
            return ReconcileResult()
        observed = await picture.build_observation()
        problem = self._registration_problems.pop(run.uid, None)
        if problem is not None and observed.registered is False:
            observed = replace(observed, registered=problem)
        decision = decide_run(observed)
        status, look = decision.status, decision.requeue_after
        if await self._write_status(raw, status, run.status):
            self._emit_events(raw, run.status, status)
            # The policy keeps account of its runs, and runs wait for each other.
            for other in watches.affected_keys(kinds.TRAINING_RUN, raw, context.store):
                context.enqueue(other)
            # What follows is based on what is written, and is begun by the pass that this wakes.
            raw = context.store.get(kinds.TRAINING_RUN, key.namespace, key.name) or raw
        picture = _RunSnapshot(context, raw, await self._parse_run(raw))
        try:
            for action in decision.actions:
                await picture.execute(action)
        except BlockedError as refused:
            return await self._report_problem(raw, observed, refused.problem)
        except MergeError as error:
            return await self._report_problem(raw, observed, Problem(Reason.INVALID_POLICY, str(error), stalled=True))
        return ReconcileResult(look.total_seconds() if look is not None else None)

    async def _parse_run(self, raw: Object) -> TrainingRun:
        """The run, with its policy as a whole. Raises InvalidObject."""
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

    async def _report_problem(self, raw: Object, observed: RunObservation, problem: Problem) -> ReconcileResult:
        """An object can't be made until somebody changes the policy, of which the run has a copy."""
        run = await self._parse_run(raw)
        if observed.state is RunState.REGISTERING and not problem.stalled:
            self._registration_problems[run.uid] = problem
        decision = decide_run(replace(observed, run=run, problem=problem, stage=None, child=None))
        if await self._write_status(raw, decision.status, run.status):
            self._emit_events(raw, run.status, decision.status)
        return ReconcileResult(decision.requeue_after.total_seconds() if decision.requeue_after is not None else None)

    async def _reject_spec(self, raw: Object, error: InvalidObject) -> None:
        """A spec that this operator can't read (admission is older or newer than it)."""
        generation = raw["metadata"].get("generation", 0)
        old = TrainingRunStatus.model_validate(raw.get("status") or {})
        verdict = ConditionSummary(Reason.INVALID_SPEC, error.message, stalled=True)
        told = build_conditions(old.conditions, verdict, None, generation=generation, now=self._context.clock.now())
        await write_status(
            self._context, raw, old.model_copy(update={"observed_generation": generation, "conditions": told}), old
        )

    def _emit_events(self, raw: Object, old: TrainingRunStatus, new: TrainingRunStatus) -> None:
        if new.state == old.state:
            return
        bad = new.state == RunState.FAILED
        if new.state in RUN_TERMINAL_STATES:
            metrics.RUNS.labels(new.state, new.reason or "").inc()
        note = f"{new.state}: {new.message}" if new.message else str(new.state)
        self._context.events.record(raw, "Warning" if bad else "Normal", new.reason or str(new.state), note)


class _RunSnapshot:
    """A run and all that its decision is made from."""

    def __init__(self, context: Context, raw: Object, run: TrainingRun) -> None:
        self._context = context
        self._raw = raw
        self._run = run
        self._policy_raw = context.store.get(kinds.RETRAINING_POLICY, run.namespace, run.spec.policy_ref.name)
        self._spec, self._problem = self._read_policy()
        self._model = self._read_model()

    def _read_policy(self) -> tuple[RetrainingPolicySpec | None, Problem | None]:
        """What the run goes by: the policy as it was when it began, else as it is."""
        kept = self._run.status.policy
        if kept is not None and kept.is_lost:
            text = (
                f"status.policy: ControllerRevision {kept.stored_in}, which holds the policy that the run began with, "
                "is gone or holds something else: start another run"
            )
            return None, Problem(Reason.INVALID_POLICY, text, stalled=True)
        if kept is not None:
            try:
                return RetrainingPolicySpec.model_validate(kept.spec, by_alias=True, by_name=False), None
            except ValidationError as error:
                text = "; ".join(f"{path}: {what}" for path, what in list_problems(error))
                return None, Problem(Reason.INVALID_POLICY, f"status.policy: {text}", stalled=True)
        name = self._run.spec.policy_ref.name
        if self._policy_raw is None:
            return None, Problem(Reason.WAITING_FOR_POLICY, f"spec.policyRef: there is no RetrainingPolicy {name}")
        try:
            return RetrainingPolicy.parse(self._policy_raw).spec, self._manual_start_problem()
        except InvalidObject as error:
            return None, Problem(Reason.INVALID_POLICY, f"RetrainingPolicy {name}: {error.message}", stalled=True)

    def _manual_start_problem(self) -> Problem | None:
        """Why the word of the person who asks for the run does not count."""
        if self._run.spec.manual is None:
            return None
        admission, created = self._context.admission(self._run.namespace), self._run.metadata.creation_timestamp
        if admission.in_force and (admission.since is None or (created is not None and created >= admission.since)):
            return None
        text = admission.problem or "admission has not proved who asks for this run; create it anew"
        return Problem(Reason.ADMISSION_POLICY_MISSING, text, stalled=admission.in_force is not None)

    @property
    def is_expired(self) -> bool:
        """Whether it has ended, and its policy has been gone for historyTTL."""
        ended, policy = self._run.status.finished_at, self._policy_raw
        if ended is None or (policy is not None and self._run.spec.policy_uid in (None, policy["metadata"]["uid"])):
            return False
        ttl = (
            timedelta(seconds=parse_duration(self._spec.history_ttl)) if self._spec is not None else DEFAULT_HISTORY_TTL
        )
        return self._context.clock.now() - ended >= ttl

    def _read_model(self) -> Model | None:
        if self._spec is None:
            return None
        raw = self._context.store.get(kinds.MODEL, self._run.namespace, self._spec.model_ref.name)
        try:
            return Model.parse(raw) if raw is not None else None
        except InvalidObject:
            return None

    async def build_observation(self) -> RunObservation:
        """The whole input of the decision."""
        run, spec = self._run, self._spec
        others = list_runs(self._context, self._policy_raw) if self._policy_raw is not None else []
        before = tuple(
            other.name
            for other in others
            if not has_ended(other) and _creation_order(other) < _creation_order(run) and other.uid != run.uid
        )
        child, reading = await self._observe_stage()
        return RunObservation(
            now=self._context.clock.now(),
            run=run,
            policy=spec,
            policy_name=run.spec.policy_ref.name,
            policy_generation=self._policy_raw["metadata"].get("generation", 0) if self._policy_raw else 0,
            problem=self._problem or self._missing_kind_problem(),
            earlier_runs=before,
            serving=self._serving_version(),
            dataset=self._resolved_dataset("dataset", spec.run.dataset) if spec is not None else None,
            holdout=self._resolved_dataset("holdout", spec.run.holdout)
            if spec is not None and spec.run.holdout
            else None,
            stage=reading,
            child=child,
            last_inputs=_last_inputs_hash(others, run),
            registered=self._registration_state(),
            version_outcome=self._version_outcome(),
            cancelled_by=self._find_replacement(others),
            kept_running=self._is_stage_kept_running(reading),
        )

    def _serving_version(self) -> str | None:
        serving = self._model.status.serving if self._model is not None else None
        return serving.version if serving is not None else None

    def _find_replacement(self, others: list[TrainingRun]) -> str | None:
        """The newer run that takes this one's place, where the policy has it so."""
        if self._spec is None or self._spec.guard.concurrency != "Replace":
            return None
        newer = [
            o.name for o in others if o.spec.trigger is not None and _creation_order(o) > _creation_order(self._run)
        ]
        return newer[-1] if newer and not has_ended(self._run) else None

    def _resolved_dataset(self, which: DatasetName, source: DatasetSource) -> ResolvedData:
        """The digest of data, from the policy, the record, or the pod that finds it out."""
        status = self._run.status
        known = status.dataset if which == "dataset" else status.holdout
        digest = versions.pinned_digest(_dataset_artifact(source), known.digest if known is not None else None)
        if digest is not None:
            return ResolvedData(digest)
        wanted = renderers.dataset_resolve_pod(self._raw, which, source, self._model_name(), self._helper_images())
        pod = self._context.store.get(kinds.POD, self._run.namespace, wanted["metadata"]["name"])
        if pod is None or pod_trust.find_pod_mismatch(pod, self._run.uid, wanted) is not None:
            return ResolvedData(None)
        return read_child(
            pod,
            functools.partial(self._read_resolve_pod, pod, which),
            lambda text: ResolvedData(None, Problem(Reason.INTERNAL_ERROR, text, stalled=True)),
        )

    def _read_resolve_pod(self, pod: Object, which: DatasetName) -> ResolvedData:
        container = pod_trust.container_status(pod, FETCH_CONTAINER)
        done = container.get("state", {}).get("terminated", {})
        if done.get("exitCode") == 0:
            told_content = versions.parse_artifact_report(
                pod_failures.parse_termination_report(done.get("message", ""))
            )
            if told_content is not None:
                return ResolvedData(told_content.digest)
            return ResolvedData(
                None, Problem(Reason.INTERNAL_ERROR, "the resolve pod ended without a digest", stalled=True)
            )
        told = pod_failures.read_fetch_failure(container)
        failure = pod_failures.diagnose_pods([pod])
        if told is not None:
            return ResolvedData(None, Problem(told[0], f"spec.run.{which}.uri: {told[1]}", stalled=True))
        if failure is not None:
            return ResolvedData(None, Problem(failure.reason, failure.message, stalled=True))
        return ResolvedData(None)

    def _helper_images(self) -> Images:
        model = self._context.store.get(kinds.MODEL, self._run.namespace, self._model_name())
        return helper_pod_placement.with_model_placement(self._context.images, model)

    def _model_name(self) -> str:
        return self._spec.model_ref.name if self._spec is not None else ""

    def _stage_work(self, stage: str) -> Work | None:
        template = self._spec.run if self._spec is not None else None
        if template is None:
            return None
        return {"dataCheck": template.data_check, "train": template.train, "evaluate": template.evaluate}[stage]

    def _current_stage(self) -> tuple[StageStatus, Work] | None:
        """The stage whose object matters now."""
        entry = current_stage(self._run.status)
        work = self._stage_work(entry.name) if entry is not None else None
        return (entry, work) if entry is not None and work is not None else None

    def _work_kind(self, work: Work) -> Kind | None:
        """The kind that does a stage; None when the operator may not make it."""
        if work.job is not None:
            return kinds.JOB
        api_version, kind = choose_engine(work).resolve_kind(work)
        group = api_version.rpartition("/")[0]
        return next((k for k in self._context.training_kinds if (k.group, k.kind) == (group, kind)), None)

    def _missing_kind_problem(self) -> Problem | None:
        """The kind of the present stage is allowed, and its controller has not been installed (yet)."""
        now = self._current_stage()
        kind = self._work_kind(now[1]) if now is not None else None
        if kind is None or kind in (kinds.JOB, *self._context.served_kinds):
            return None
        return Problem(Reason.KIND_NOT_INSTALLED, f"the cluster has no kind {kind} ({kind.api_version}) now")

    def _live_child(self) -> Object | None:
        """The live object of the present stage; one that is being deleted counts as gone."""
        now = self._current_stage()
        kind = self._work_kind(now[1]) if now is not None else None
        if now is None or kind is None:
            return None
        name = renderers.stage_name(self._raw, now[0].name)
        live = self._context.store.get(kind, self._run.namespace, name)
        return live if live is not None and is_controlled_by(live, self._run.uid) else None

    async def _observe_stage(self) -> tuple[ChildRef | None, StageReading | None]:
        """The object of the present stage, and what it says. One that is gone still counts when a pod of it is there
        that has left its result."""
        now, live = self._current_stage(), self._live_child()
        if now is None:
            return None, None
        entry, work = now
        engine = choose_engine(work)
        if live is None:
            left = self._remaining_pods(entry, work)
            gone = {"kind": "Job", "metadata": {"name": entry.child, "uid": entry.uid}}
            reading = self._read_stage(gone, engine, left, work) if left else None
            if reading is None or reading.report is None or not self._context.admission(self._run.namespace).in_force:
                return None, None
            return ChildRef(entry.child, entry.uid, entry.kind), reading
        metadata = live["metadata"]
        child = ChildRef(metadata["name"], metadata["uid"], live["kind"])
        selector = engine.pod_selector(live, work)
        heard = pod_trust.TrustedPods(())
        if work.job is not None:
            heard = pod_trust.trust_job_pods(live, self._context.store.by_owner(kinds.POD, metadata["uid"]))
        # The watch of pods may be behind that of Jobs, so that a Job's end is judged by what its pods say now.
        behind = (
            work.job is not None
            and gate_results.has_ended(live)
            and self._read_stage(live, engine, heard.pods, work).report is None
        )
        if selector is not None and (behind or work.job is None):
            try:
                found = await self._context.client.list(kinds.POD, self._run.namespace, labels=selector)
            except api_errors.ApiError:
                # Without its pods nothing is known of it now: the next look tells.
                return child, None
            if work.job is not None:
                heard = pod_trust.trust_job_pods(live, found)
            else:
                try:
                    heard = await self._trusted_pods(metadata["uid"], found, work)
                except api_errors.ApiError:
                    return child, None
        if work.resource is None or not work.resource.expressions:
            reading = self._read_stage(live, engine, heard.pods, work)
        else:
            try:
                reading = await SANDBOX.run_if_free(
                    self._run.namespace, self._read_stage, live, engine, heard.pods, work
                )
            except SandboxBusy:
                # Another run of this namespace is being read: the next look tells.
                return child, None
        if reading.state is StageState.SUCCEEDED and reading.report is None and heard.refusal_text:
            reading = replace(reading, problem=f"{reading.problem or reading.message}; {heard.refusal_text}")
        return child, await self._with_queue_reason(self._unless_untrusted(reading), metadata["uid"])

    def _is_stage_kept_running(self, reading: StageReading | None) -> bool:
        """Whether the stage is over, and its Job is not."""
        live = self._live_child()
        over = reading is not None and reading.state in ENDED_STAGE_STATES
        return over and live is not None and live["kind"] == kinds.JOB.kind and self._is_kept_running(live)

    def _is_kept_running(self, job: Object) -> bool:
        """Whether a container of others keeps a pod of the Job, whose own have ended, and so the Job from ending."""
        if gate_results.has_ended(job):
            return False
        heard = pod_trust.trust_job_pods(job, self._context.store.by_owner(kinds.POD, job["metadata"]["uid"]))
        return any((pod.get("status") or {}).get("reason") == pod_trust.KEPT_RUNNING for pod in heard.pods)

    async def _trusted_pods(self, root: str, found: Sequence[Object], work: Work) -> pod_trust.TrustedPods:
        """Pods of another controller's object: those that have left something must lead to it."""
        speaking = [pod for pod in found if pod_failures.has_left_report(pod)]
        speaking.sort(key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)
        heard = pod_trust.trust_tree_pods(root, speaking, await self._controllers_between(root, speaking, work))
        silent = tuple(pod for pod in found if not pod_failures.has_left_report(pod))
        return replace(heard, pods=(*heard.pods, *silent))

    async def _controllers_between(self, root: str, found: Sequence[Object], work: Work) -> dict[str, Object | None]:
        """The controllers between pods and the object of the stage, by the uid that is said of them; None for those of
        kinds that the operator has no right to read, where such may be."""
        profile = work.resource.profile if work.resource is not None and work.resource.pod_selector is None else None
        hidden = PROFILES[profile].intermediate_kinds if profile is not None else None
        below, between = list(found), dict[str, Object | None]()
        pods_by_uid = {str(pod["metadata"].get("uid")) for pod in found}
        for _ in range(pod_trust.MAX_CONTROLLERS_BETWEEN):
            owners = {str(ref.get("uid")): ref for obj in below if (ref := pod_trust.find_controller(obj)) is not None}
            new = [uid for uid in owners if uid != root and uid not in between and uid not in pods_by_uid]
            below = []
            for uid in new[: MAX_CONTROLLERS_READ - len(between)]:
                kind, name = self._readable_kind(owners[uid]), str(owners[uid].get("name"))
                if kind is None:
                    if hidden is None or owners[uid].get("kind") in hidden:
                        between[uid] = None
                    continue
                above = await self._context.client.get(kind, self._run.namespace, name)
                if above is not None and above["metadata"]["uid"] == uid:
                    between[uid] = above
                    below.append(above)
        return between

    def _readable_kind(self, owner: Mapping[str, Any]) -> Kind | None:
        """The kind that an ownerReference names, of those that the operator may read."""
        group, kind = str(owner.get("apiVersion", "")).rpartition("/")[0], owner.get("kind")
        readable = (kinds.JOB, kinds.POD, *self._context.training_kinds)
        return next((one for one in readable if (one.group, one.kind) == (group, kind)), None)

    def _read_stage(self, live: Object, engine: Engine, found: Sequence[Object], work: Work) -> StageReading:
        """What the object of a stage and its pods say."""
        return read_child(
            live,
            functools.partial(engine.read_stage, live, found, work, self._context.clock.now()),
            functools.partial(StageReading, StageState.FAILED, Reason.INTERNAL_ERROR),
        )

    def _remaining_pods(self, entry: StageStatus, work: Work) -> Sequence[Object]:
        """Pods of a Job that is gone, which are believed when they are as it would be rendered."""
        left = self._context.store.by_owner(kinds.POD, entry.uid) if entry.uid and work.job is not None else []
        if not left or self._run.status.dataset is None:
            return ()
        try:
            template = choose_engine(work).render_manifest(self._raw, entry.name, work, self._build_inputs())["spec"][
                "template"
            ]
        except (MergeError, ValueError):
            return ()
        return pod_trust.trust_pods(entry.uid, template, left).pods

    def _unless_untrusted(self, reading: StageReading) -> StageReading:
        """The reading, unless others may have forged a result: then it stands still, and says why."""
        admission = self._context.admission(self._run.namespace)
        if reading.state is not StageState.SUCCEEDED or admission.in_force:
            return reading
        text = admission.problem or "whether the admission policies are in force is being found out"
        return StageReading(StageState.RUNNING, Reason.ADMISSION_POLICY_MISSING, f"its result does not count: {text}")

    async def _with_queue_reason(self, reading: StageReading, uid: str) -> StageReading:
        """A queued stage with Kueue's own reason, where it can be had."""
        if reading.state is not StageState.QUEUED:
            return reading
        try:
            found = await self._context.client.list(
                kinds.WORKLOAD, self._run.namespace, labels=kueue.workload_selector(uid)
            )
        except api_errors.ApiError:
            return reading
        why = kueue.explain_waiting(found)
        return replace(reading, message=f"{reading.message}: {why}") if why else reading

    def _registration_state(self) -> bool | Problem:
        """Whether the version that this run makes is there."""
        raw = self._context.store.get(kinds.MODEL_VERSION, self._run.namespace, self._run.name)
        if raw is None:
            return False
        lineage = (raw.get("spec") or {}).get("lineage") or {}
        if lineage.get("trainingRun") == self._run.name:
            return True
        text = f"ModelVersion {self._run.name} exists already and was not made by this run; it is left as it is"
        return Problem(Reason.NAME_TAKEN, text, stalled=True)

    def _version_outcome(self) -> str | None:
        """What became of the version, by the Model and its rollouts."""
        version, model = self._run.status.version, self._model
        if version is None or model is None:
            return self._run.status.outcome
        if model.status.serving is not None and model.status.serving.version == version:
            return "Serving"
        found = []
        for raw in self._context.store.by_model(kinds.MODEL_ROLLOUT, self._run.namespace, model.name):
            spec, status = raw.get("spec") or {}, raw.get("status") or {}
            if (spec.get("target") or {}).get("version") == version and spec.get("rollback") is None:
                state = str(status.get("state") or RolloutState.PENDING)
                undecided = is_undecided_ending(state, status.get("reason"))
                found.append((int(spec.get("number") or 0), UNDECIDED if undecided else state))
        if not found:
            follows = model.spec.version.follow is not None
            return self._run.status.outcome or (None if follows else "Announced")
        state = max(found)[1]
        if state in (RolloutState.ROLLED_BACK, RolloutState.ABORTED):
            return "RolledBack"
        if state in (RolloutState.SUPERSEDED, UNDECIDED):
            return state
        return "RollingOut" if state != RolloutState.SUCCEEDED else (self._run.status.outcome or "Serving")

    async def execute(self, action: ResolveData | StartStage | RegisterVersion | StopStage) -> None:
        """Do one action. Raises Refused, MergeError, or what the API server said."""
        if self._spec is None:
            return
        if isinstance(action, ResolveData):
            await self._ensure_resolve_pod(action.which)
        elif isinstance(action, StartStage):
            await self._start_stage(action.stage)
        elif isinstance(action, StopStage):
            await self._stop_stage()
        else:
            await self._create_version()

    async def _ensure_resolve_pod(self, which: DatasetName) -> None:
        assert self._spec is not None  # noqa: S101 - carry_out has looked
        source = self._spec.run.dataset if which == "dataset" else self._spec.run.holdout
        if source is None:
            return
        wanted = renderers.dataset_resolve_pod(self._raw, which, source, self._model_name(), self._helper_images())
        live = self._context.store.get(kinds.POD, self._run.namespace, wanted["metadata"]["name"])
        if live is None:
            turns, clock = self._context.turns, self._context.clock
            claim = ResolveTicket(
                RANK_WANTED, self._raw["metadata"].get("creationTimestamp", ""), "TrainingRun", self._run.name
            )
            under_way = watches.count_resolve_pods(self._context.store, self._run.namespace)
            if turns.request_turn(self._run.namespace, claim, under_way, clock.monotonic()) is not None:
                # The next look asks again.
                return
            try:
                live, made = await ensure(self._context, wanted)
            finally:
                turns.finish_making(self._run.namespace, claim.kind, claim.name)
            why = pod_trust.find_pod_mismatch(live, self._run.uid, wanted) if made else None
            if why is not None:
                # Admission has changed it as it was made, and would change another one too.
                text = f"the resolve pod of spec.run.{which} is not as it was rendered: {why}"
                raise BlockedError(Problem(Reason.RESOLVE_POD_CHANGED, text, stalled=True))
        elif is_controlled_by(live, self._run.uid) and (
            live.get("status", {}).get("phase") == "Failed"
            or pod_trust.find_pod_mismatch(live, self._run.uid, wanted) is not None
            or has_other_placement(wanted, live)
        ):
            # Evicted, or its node is lost: a pod never comes back from that by itself. Or it is not what was rendered.
            await remove(self._context, live)

    async def _start_stage(self, stage: StageName) -> None:
        work = self._stage_work(stage)
        if work is None:
            return
        kind = self._work_kind(work)
        if kind is None:
            name = choose_engine(work).resolve_kind(work)[1]
            text = (
                f"spec.run.{stage}.resource.manifest: the operator may not create a {name}; an administrator can add "
                "its kind to training.kinds of the chart"
            )
            raise BlockedError(Problem(Reason.KIND_NOT_ALLOWED, text, stalled=True))
        if self._missing_kind_problem() is not None:
            return
        await self._remove_resolve_pods()
        name = renderers.stage_name(self._raw, stage)
        for job in self._context.store.by_owner(kinds.JOB, self._run.uid):
            if job["metadata"]["name"] != name and is_controlled_by(job, self._run.uid) and self._is_kept_running(job):
                await remove(self._context, job)
        there = self._context.store.get(kind, self._run.namespace, name)
        if there is not None and is_controlled_by(there, self._run.uid):
            return
        await ensure(self._context, choose_engine(work).render_manifest(self._raw, stage, work, self._build_inputs()))

    async def _remove_resolve_pods(self) -> None:
        for pod in self._context.store.by_owner(kinds.POD, self._run.uid):
            if is_controlled_by(pod, self._run.uid):
                await remove(self._context, pod)

    def _build_inputs(self) -> renderers.StageInputs:
        assert self._spec is not None  # noqa: S101 - carry_out has looked
        status, template = self._run.status, self._spec.run
        assert status.dataset is not None  # noqa: S101 - the machine begins no stage without it
        return renderers.StageInputs(
            model=self._model_name(),
            template=template,
            parameters=merge_parameters(self._run, template),
            # The status has addresses without their queries.
            dataset=status.dataset.model_copy(update={"uri": template.dataset.uri}),
            holdout=status.holdout.model_copy(update={"uri": template.holdout.uri})
            if status.holdout is not None and template.holdout is not None
            else None,
            serving=self._serving_content(status.compared_with),
            candidate=self._candidate_content(),
            previous_profile=self._previous_profile(),
            images=self._helper_images(),
        )

    def _serving_content(self, name: str | None) -> EvaluatedContent | None:
        raw = self._context.store.get(kinds.MODEL_VERSION, self._run.namespace, name) if name else None
        if raw is None or name is None:
            return None
        version = ModelVersion.parse(raw)
        pinned = version.status.artifact.digest if version.status.artifact is not None else None
        digest = versions.pinned_digest(version.spec.artifact, pinned)
        return EvaluatedContent(name, version.spec.artifact, digest) if digest is not None else None

    def _candidate_content(self) -> EvaluatedContent | None:
        result = self._run.status.result
        artifact = self._trained_artifact()
        if artifact is None or result is None or result.digest is None:
            return None
        return EvaluatedContent(self._run.name, artifact, result.digest)

    def _trained_artifact(self) -> Artifact | None:
        result = self._run.status.result
        if result is None or self._spec is None:
            return None
        output = self._spec.run.output
        named = result.format or output.format.name
        version = result.format_version or (output.format.version if named == output.format.name else None)
        return Artifact(
            uri=result.uri,
            digest=result.digest,
            format=ModelFormat(name=named, version=version),
            service_account_name=output.service_account_name,
            credentials_secret_ref=output.credentials_secret_ref,
        )

    def _previous_profile(self) -> Mapping[str, Any] | None:
        if self._policy_raw is None:
            return None
        found = [
            run.status.profile
            for run in list_runs(self._context, self._policy_raw)
            if run.status.profile
            and run.status.state == RunState.SUCCEEDED
            and _creation_order(run) < _creation_order(self._run)
        ]
        return found[-1] if found else None

    async def _stop_stage(self) -> None:
        live = self._live_child()
        if live is not None:
            await remove(self._context, live)

    async def _create_version(self) -> None:
        """Make the ModelVersion of this run. One of that name that somebody else has made is seen by the next pass."""
        body = self._build_version()
        try:
            made = await self._context.client.create(body)
        except api_errors.AlreadyExists:
            return
        except api_errors.Invalid as error:
            text = f"the API server refuses the ModelVersion: {error.message}"
            raise BlockedError(Problem(Reason.INVALID_SPEC, text, stalled=True)) from error
        except api_errors.Denied as error:
            # What was trained is kept: rights can be given until the deadline.
            text = f"the API server does not let the operator make the ModelVersion: {error.message}"
            raise BlockedError(Problem(Reason.ACCESS_DENIED, text)) from error
        self._context.store.put(made)

    def _build_version(self) -> Object:
        assert self._spec is not None  # noqa: S101 - carry_out has looked
        run, template, result = self._run, self._spec.run, self._run.status.result
        artifact, dataset = self._trained_artifact(), self._run.status.dataset
        assert artifact is not None and result is not None and dataset is not None  # noqa: S101, PT018
        made = authors.training_authors(self._spec, run.spec.manual.by if run.spec.manual is not None else None)
        code = template.version.code
        if result.repository and result.commit:
            lineage_code: Object | None = {"repository": result.repository, "commit": result.commit}
        else:
            lineage_code = code.wire() if code is not None else None
        lineage = {
            "dataset": {"uri": addresses.redact_uri(dataset.uri)[:1024], "digest": dataset.digest},
            "code": lineage_code,
            "image": result.image,
            "trainingRun": run.name,
            "parent": run.status.compared_with or self._serving_version(),
        }
        spec = {
            "modelRef": {"name": self._model_name()},
            "author": made[-1],
            "authors": list(made[:-1]),
            "artifact": artifact.wire(),
            "parameters": dict(result.parameters) or dict(merge_parameters(run, template)),
            "metrics": self._version_metrics(),
            "samples": [sample.wire() for sample in template.version.samples],
            "lineage": {key: value for key, value in lineage.items() if value},
            "card": template.version.card.wire() if template.version.card is not None else None,
            "reference": result.reference.wire() if result.reference is not None else None,
        }
        return {
            "apiVersion": names.API_VERSION,
            "kind": kinds.MODEL_VERSION.kind,
            "metadata": {"name": run.name, "namespace": run.namespace, "labels": dict(template.version.labels)},
            "spec": {key: value for key, value in spec.items() if value},
        }

    def _version_metrics(self) -> list[Object]:
        """Figures of the evaluation, where there was one, else of the training."""
        status = self._run.status
        data = status.holdout or status.dataset
        where = f"{addresses.redact_uri(data.uri)[:200]}@{data.digest[:32]}" if data is not None else "-"
        found = [
            {"name": figure.name, "value": figure.candidate, "dataset": (f"{where} {figure.slice}".strip())[:253]}
            for figure in status.figures
        ]
        if found:
            return found[:64]
        result = status.result
        return [
            {"name": metric.name, "value": metric.value, "dataset": "training"}
            for metric in (result.metrics if result is not None else ())
        ]


def _creation_order(run: TrainingRun) -> tuple[datetime, str]:
    created = run.metadata.creation_timestamp
    assert created is not None  # noqa: S101 - the API server sets it
    return created, run.name


def _last_inputs_hash(others: list[TrainingRun], run: TrainingRun) -> str | None:
    """inputsHash of the last run before this one that succeeded."""
    done = [o for o in others if o.status.state == RunState.SUCCEEDED and o.uid != run.uid]
    done.sort(key=lambda o: o.status.finished_at or _creation_order(o)[0])
    return done[-1].status.inputs_hash if done else None


def _dataset_artifact(source: DatasetSource) -> Artifact:
    """Data as the fetch image takes it."""
    return Artifact(
        uri=source.uri,
        digest=source.digest,
        format=ModelFormat(name="dataset"),
        service_account_name=source.service_account_name,
        credentials_secret_ref=source.credentials_secret_ref,
    )
