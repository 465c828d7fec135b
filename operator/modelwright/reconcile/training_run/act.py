"""Carries out the actions of a decision about a run."""

from __future__ import annotations

from typing import Any

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.retraining import (
    RetrainingPolicySpec,
)
from modelwright.api.v1alpha1.training import (
    StageName,
)
from modelwright.core import pod_trust
from modelwright.core.problem import Problem
from modelwright.core.resolve_queue import RANK_WANTED, ResolveTicket
from modelwright.core.retraining.run_machine import (
    DataRole,
    ResolveData,
    RunAction,
    StartStage,
    StopStage,
)
from modelwright.engines.providers import choose_engine
from modelwright.kube import api_errors, kinds
from modelwright.reconcile import watches
from modelwright.reconcile.children import BlockedError, ensure, has_other_placement, is_controlled_by, remove
from modelwright.reconcile.context import Context
from modelwright.reconcile.training_run.produced_version import build_version
from modelwright.reconcile.training_run.run_snapshot import RunSnapshot, find_kind, missing_kind_problem
from modelwright.reconcile.training_run.stage import is_kept_running, live_child
from modelwright.reconcile.training_run.stage_inputs import build_inputs
from modelwright.render import training_stages as renderers

Object = dict[str, Any]


async def execute_action(context: Context, snapshot: RunSnapshot, action: RunAction) -> None:
    """Carry out one action. Raises BlockedError, MergeError or ApiError."""
    spec = snapshot.spec
    if spec is None:
        return
    if isinstance(action, ResolveData):
        await _ensure_resolve_pod(context, snapshot, spec, action.which)
    elif isinstance(action, StartStage):
        await _start_stage(context, snapshot, spec, action.stage)
    elif isinstance(action, StopStage):
        await _stop_stage(context, snapshot)
    else:
        await _create_version(context, build_version(snapshot.run, spec, snapshot.serving_version))


async def _ensure_resolve_pod(
    context: Context, snapshot: RunSnapshot, spec: RetrainingPolicySpec, which: DataRole
) -> None:
    """Create the pod that resolves the digest of data, or remove one that will never report it."""
    source = spec.run.dataset if which == "dataset" else spec.run.holdout
    if source is None:
        return
    run = snapshot.run
    wanted = renderers.dataset_resolve_pod(
        snapshot.raw, which, source, snapshot.model_name, snapshot.helper_images(context.images)
    )
    live = context.store.get(kinds.POD, run.namespace, wanted["metadata"]["name"])
    if live is None:
        turns, clock = context.turns, context.clock
        ticket = ResolveTicket(
            RANK_WANTED, snapshot.raw["metadata"].get("creationTimestamp", ""), "TrainingRun", run.name
        )
        pods_under_way = watches.count_resolve_pods(context.store, run.namespace)
        if turns.request_turn(run.namespace, ticket, pods_under_way, clock.monotonic()) is not None:
            # The next reconciliation requests a turn again.
            return
        try:
            live, is_new = await ensure(context, wanted)
        finally:
            turns.finish_making(run.namespace, ticket.kind, ticket.name)
        mismatch = pod_trust.find_pod_mismatch(live, run.uid, wanted) if is_new else None
        if mismatch is not None:
            # Admission has changed it at its creation, and would change another one too.
            text = f"the resolve pod of spec.run.{which} is not as it was rendered: {mismatch}"
            raise BlockedError(Problem(Reason.RESOLVE_POD_CHANGED, text, stalled=True))
    elif is_controlled_by(live, run.uid) and (
        live.get("status", {}).get("phase") == "Failed"
        or pod_trust.find_pod_mismatch(live, run.uid, wanted) is not None
        or has_other_placement(wanted, live)
    ):
        # It was evicted, its node is lost, or it is not as rendered: it will never report a digest.
        await remove(context, live)


async def _start_stage(context: Context, snapshot: RunSnapshot, spec: RetrainingPolicySpec, stage: StageName) -> None:
    work = snapshot.stage_work(stage)
    if work is None:
        return
    kind = find_kind(context, work)
    if kind is None:
        name = choose_engine(work).resolve_kind(work)[1]
        text = (
            f"spec.run.{stage}.resource.manifest: the operator may not create a {name}; an administrator can add "
            "its kind to training.kinds of the chart"
        )
        raise BlockedError(Problem(Reason.KIND_NOT_ALLOWED, text, stalled=True))
    if missing_kind_problem(context, snapshot) is not None:
        return
    await _remove_resolve_pods(context, snapshot)
    name = renderers.stage_name(snapshot.raw, stage)
    for job in context.store.by_owner(kinds.JOB, snapshot.run.uid):
        is_earlier = job["metadata"]["name"] != name and is_controlled_by(job, snapshot.run.uid)
        if is_earlier and is_kept_running(context, job):
            await remove(context, job)
    live = context.store.get(kind, snapshot.run.namespace, name)
    if live is not None and is_controlled_by(live, snapshot.run.uid):
        return
    inputs = build_inputs(context, snapshot, spec)
    await ensure(context, choose_engine(work).render_manifest(snapshot.raw, stage, work, inputs))


async def _remove_resolve_pods(context: Context, snapshot: RunSnapshot) -> None:
    for pod in context.store.by_owner(kinds.POD, snapshot.run.uid):
        if is_controlled_by(pod, snapshot.run.uid):
            await remove(context, pod)


async def _stop_stage(context: Context, snapshot: RunSnapshot) -> None:
    live = live_child(context, snapshot)
    if live is not None:
        await remove(context, live)


async def _create_version(context: Context, body: Object) -> None:
    """Create the run's ModelVersion. A foreign one of that name is found by the next reconciliation."""
    try:
        created = await context.client.create(body)
    except api_errors.AlreadyExists:
        return
    except api_errors.Invalid as error:
        text = f"the API server refuses the ModelVersion: {error.message}"
        raise BlockedError(Problem(Reason.INVALID_SPEC, text, stalled=True)) from error
    except api_errors.Denied as error:
        # The result is kept: the right can be granted until the deadline.
        text = f"the API server does not let the operator make the ModelVersion: {error.message}"
        raise BlockedError(Problem(Reason.ACCESS_DENIED, text)) from error
    context.store.put(created)
