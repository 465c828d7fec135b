"""Observes the current stage of a run: its object, the pods that belong to it, and their report."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.retraining import (
    Work,
)
from modelwright.api.v1alpha1.training import (
    StageState,
    StageStatus,
)
from modelwright.core import gate_results, pod_failures, pod_trust
from modelwright.core.retraining.run_machine import (
    ChildRef,
)
from modelwright.core.retraining.stage_reading import ENDED_STAGE_STATES, StageReading
from modelwright.engines import kueue
from modelwright.engines.port import Engine
from modelwright.engines.profiles import PROFILES
from modelwright.engines.providers import choose_engine
from modelwright.kube import api_errors, kinds
from modelwright.kube.kinds import Kind
from modelwright.obs.read_child import read_child
from modelwright.reconcile.children import is_controlled_by
from modelwright.reconcile.context import Context
from modelwright.reconcile.training_run.run_snapshot import RunSnapshot, find_kind
from modelwright.reconcile.training_run.stage_inputs import build_inputs
from modelwright.render import training_stages as renderers
from modelwright.render.strategic_merge import MergeError
from modelwright.sandbox.process import SANDBOX, SandboxBusy

Object = dict[str, Any]


MAX_CONTROLLERS_READ = 16
"""Controllers of pods that one reconciliation reads at most, those of the newest pods first."""


async def observe_stage(context: Context, snapshot: RunSnapshot) -> tuple[ChildRef | None, StageReading | None]:
    """The object of the current stage, and its state; the state is None while it can't be read."""
    stage, live = snapshot.current_stage, live_child(context, snapshot)
    if stage is None:
        return None, None
    entry, work = stage
    if live is None:
        return _observe_deleted_job(context, snapshot, entry, work)
    engine = choose_engine(work)
    metadata = live["metadata"]
    child = ChildRef(metadata["name"], metadata["uid"], live["kind"])
    selector = engine.pod_selector(live, work)
    trusted = pod_trust.TrustedPods(())
    if work.job is not None:
        trusted = pod_trust.trust_job_pods(live, context.store.by_owner(kinds.POD, metadata["uid"]))
    # The watch of pods may lag behind that of Jobs: if a Job has ended without a report, list its pods.
    lags_behind = (
        work.job is not None
        and gate_results.has_ended(live)
        and _read_stage(context, live, engine, trusted.pods, work).report is None
    )
    if selector is not None and (lags_behind or work.job is None):
        try:
            pods = await context.client.list(kinds.POD, snapshot.run.namespace, labels=selector)
            if work.job is not None:
                trusted = pod_trust.trust_job_pods(live, pods)
            else:
                trusted = await _trusted_pods(context, snapshot, metadata["uid"], pods, work)
        except api_errors.ApiError:
            # Without its pods its state is unknown: the next reconciliation reads them.
            return child, None
    if work.resource is None or not work.resource.expressions:
        reading = _read_stage(context, live, engine, trusted.pods, work)
    else:
        try:
            reading = await SANDBOX.run_if_free(
                snapshot.run.namespace, functools.partial(_read_stage, context), live, engine, trusted.pods, work
            )
        except SandboxBusy:
            # Another run of this namespace is being read: the next reconciliation reads this one.
            return child, None
    if reading.state is StageState.SUCCEEDED and reading.report is None and trusted.refusal_text:
        reading = replace(reading, problem=f"{reading.problem or reading.message}; {trusted.refusal_text}")
    reading = _unless_untrusted(context, snapshot, reading)
    return child, await _with_queue_reason(context, snapshot, reading, metadata["uid"])


def _observe_deleted_job(
    context: Context, snapshot: RunSnapshot, entry: StageStatus, work: Work
) -> tuple[ChildRef | None, StageReading | None]:
    """The state of a stage whose object is gone: it still counts while a pod of it is there that has left a report."""
    pods = _remaining_pods(context, snapshot, entry, work)
    job = {"kind": "Job", "metadata": {"name": entry.child, "uid": entry.uid}}
    reading = _read_stage(context, job, choose_engine(work), pods, work) if pods else None
    if reading is None or reading.report is None or not context.admission(snapshot.run.namespace).in_force:
        return None, None
    return ChildRef(entry.child, entry.uid, entry.kind), reading


def live_child(context: Context, snapshot: RunSnapshot) -> Object | None:
    """The live object of the current stage, if it is this run's."""
    stage = snapshot.current_stage
    kind = find_kind(context, stage[1]) if stage is not None else None
    if stage is None or kind is None:
        return None
    name = renderers.stage_name(snapshot.raw, stage[0].name)
    live = context.store.get(kind, snapshot.run.namespace, name)
    return live if live is not None and is_controlled_by(live, snapshot.run.uid) else None


def is_stage_kept_running(context: Context, snapshot: RunSnapshot, reading: StageReading | None) -> bool:
    """Whether the current stage has ended while its Job has not."""
    live = live_child(context, snapshot)
    has_stage_ended = reading is not None and reading.state in ENDED_STAGE_STATES
    return has_stage_ended and live is not None and live["kind"] == kinds.JOB.kind and is_kept_running(context, live)


def is_kept_running(context: Context, job: Object) -> bool:
    """Whether an injected container keeps a pod running whose own containers have ended, and so its Job too."""
    if gate_results.has_ended(job):
        return False
    trusted = pod_trust.trust_job_pods(job, context.store.by_owner(kinds.POD, job["metadata"]["uid"]))
    return any((pod.get("status") or {}).get("reason") == pod_trust.KEPT_RUNNING for pod in trusted.pods)


async def _trusted_pods(
    context: Context, snapshot: RunSnapshot, root: str, pods: Sequence[Object], work: Work
) -> pod_trust.TrustedPods:
    """The pods of another controller's object; pods with a report count only if their owners lead to that object."""
    reporting = [pod for pod in pods if pod_failures.has_left_report(pod)]
    reporting.sort(key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)
    controllers = await _controllers_between(context, snapshot, root, reporting, work)
    trusted = pod_trust.trust_tree_pods(root, reporting, controllers)
    silent = tuple(pod for pod in pods if not pod_failures.has_left_report(pod))
    return replace(trusted, pods=(*trusted.pods, *silent))


async def _controllers_between(
    context: Context, snapshot: RunSnapshot, root: str, pods: Sequence[Object], work: Work
) -> dict[str, Object | None]:
    """The controllers between pods and the object of the stage, by the uid that an ownerReference names.

    None stands for a controller of a kind that the operator may not read, where the engine may have such.
    """
    profile = work.resource.profile if work.resource is not None and work.resource.pod_selector is None else None
    hidden = PROFILES[profile].intermediate_kinds if profile is not None else None
    below, between = list(pods), dict[str, Object | None]()
    pod_uids = {str(pod["metadata"].get("uid")) for pod in pods}
    for _ in range(pod_trust.MAX_CONTROLLERS_BETWEEN):
        owners = {str(ref.get("uid")): ref for obj in below if (ref := pod_trust.find_controller(obj)) is not None}
        new = [uid for uid in owners if uid != root and uid not in between and uid not in pod_uids]
        below = []
        for uid in new[: MAX_CONTROLLERS_READ - len(between)]:
            kind, name = _readable_kind(context, owners[uid]), str(owners[uid].get("name"))
            if kind is None:
                if hidden is None or owners[uid].get("kind") in hidden:
                    between[uid] = None
                continue
            above = await context.client.get(kind, snapshot.run.namespace, name)
            if above is not None and above["metadata"]["uid"] == uid:
                between[uid] = above
                below.append(above)
    return between


def _readable_kind(context: Context, owner: Mapping[str, Any]) -> Kind | None:
    """The kind that an ownerReference names, if the operator may read it."""
    group, name = str(owner.get("apiVersion", "")).rpartition("/")[0], owner.get("kind")
    readable = (kinds.JOB, kinds.POD, *context.training_kinds)
    return next((kind for kind in readable if (kind.group, kind.kind) == (group, name)), None)


def _read_stage(context: Context, live: Object, engine: Engine, pods: Sequence[Object], work: Work) -> StageReading:
    """The state of a stage by its object and pods."""
    return read_child(
        live,
        functools.partial(engine.read_stage, live, pods, work, context.clock.now()),
        functools.partial(StageReading, StageState.FAILED, Reason.INTERNAL_ERROR),
    )


def _remaining_pods(context: Context, snapshot: RunSnapshot, entry: StageStatus, work: Work) -> Sequence[Object]:
    """Pods of a deleted Job, trusted if they are as the Job would be rendered."""
    pods = context.store.by_owner(kinds.POD, entry.uid) if entry.uid and work.job is not None else []
    if not pods or snapshot.spec is None or snapshot.run.status.dataset is None:
        return ()
    try:
        inputs = build_inputs(context, snapshot, snapshot.spec)
        job = choose_engine(work).render_manifest(snapshot.raw, entry.name, work, inputs)
    except (MergeError, ValueError):
        return ()
    return pod_trust.trust_pods(entry.uid, job["spec"]["template"], pods).pods


def _unless_untrusted(context: Context, snapshot: RunSnapshot, reading: StageReading) -> StageReading:
    """The reading; while others could have forged a result, a success waits, with the reason."""
    admission = context.admission(snapshot.run.namespace)
    if reading.state is not StageState.SUCCEEDED or admission.in_force:
        return reading
    text = admission.problem or "whether the admission policies are in force is being checked"
    return StageReading(StageState.RUNNING, Reason.ADMISSION_POLICY_MISSING, f"its result does not count: {text}")


async def _with_queue_reason(context: Context, snapshot: RunSnapshot, reading: StageReading, uid: str) -> StageReading:
    """The reading of a queued stage with Kueue's own reason, where that can be read."""
    if reading.state is not StageState.QUEUED:
        return reading
    try:
        workloads = await context.client.list(
            kinds.WORKLOAD, snapshot.run.namespace, labels=kueue.workload_selector(uid)
        )
    except api_errors.ApiError:
        return reading
    why = kueue.explain_waiting(workloads)
    return replace(reading, message=f"{reading.message}: {why}") if why else reading
