"""Builds the observation of a run: its data, its stage, and its version."""

from __future__ import annotations

import functools
from typing import Any

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.retraining import (
    DatasetSource,
)
from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.api.v1alpha1.training import (
    TrainingRun,
)
from modelwright.api.v1alpha1.version import Artifact, ModelFormat
from modelwright.core import pod_failures, pod_trust, versions
from modelwright.core.problem import Problem
from modelwright.core.retraining.run_machine import (
    DataRole,
    ResolvedData,
    RunObservation,
)
from modelwright.core.rollout.record import is_undecided_ending
from modelwright.kube import kinds
from modelwright.obs.read_child import read_child
from modelwright.reconcile.context import Context
from modelwright.reconcile.training_run.run_snapshot import RunSnapshot, missing_kind_problem
from modelwright.reconcile.training_run.runs import creation_order, has_ended, last_inputs_hash, list_runs
from modelwright.reconcile.training_run.stage import is_stage_kept_running, observe_stage
from modelwright.render import training_stages as renderers
from modelwright.render.fetch_container import FETCH_CONTAINER

Object = dict[str, Any]


UNDECIDED = "Undecided"
"""Outcome of a version whose rollout ended without a finding against it."""


async def observe_run(context: Context, snapshot: RunSnapshot) -> RunObservation:
    """Build the whole input of the decision."""
    run, spec = snapshot.run, snapshot.spec
    others = list_runs(context, snapshot.policy_raw) if snapshot.policy_raw is not None else []
    earlier_runs = tuple(
        other.name
        for other in others
        if not has_ended(other) and creation_order(other) < creation_order(run) and other.uid != run.uid
    )
    child, reading = await observe_stage(context, snapshot)
    return RunObservation(
        now=context.clock.now(),
        run=run,
        policy=spec,
        policy_name=run.spec.policy_ref.name,
        policy_generation=snapshot.policy_raw["metadata"].get("generation", 0) if snapshot.policy_raw else 0,
        problem=snapshot.problem or missing_kind_problem(context, snapshot),
        earlier_runs=earlier_runs,
        serving=snapshot.serving_version,
        dataset=_resolve_dataset(context, snapshot, "dataset", spec.run.dataset) if spec is not None else None,
        holdout=_resolve_dataset(context, snapshot, "holdout", spec.run.holdout)
        if spec is not None and spec.run.holdout
        else None,
        stage=reading,
        child=child,
        last_inputs=last_inputs_hash(others, run),
        registered=_registration_state(context, snapshot),
        version_outcome=_version_outcome(context, snapshot),
        cancelled_by=_find_replacement(snapshot, others),
        kept_running=is_stage_kept_running(context, snapshot, reading),
    )


def _find_replacement(snapshot: RunSnapshot, others: list[TrainingRun]) -> str | None:
    """The newer run that replaces this one, where the policy's concurrency is Replace."""
    if snapshot.spec is None or snapshot.spec.guard.concurrency != "Replace":
        return None
    order = creation_order(snapshot.run)
    newer = [other.name for other in others if other.spec.trigger is not None and creation_order(other) > order]
    return newer[-1] if newer and not has_ended(snapshot.run) else None


def _resolve_dataset(context: Context, snapshot: RunSnapshot, which: DataRole, source: DatasetSource) -> ResolvedData:
    """The digest of data, from the policy, the run's status, or the resolve pod."""
    status = snapshot.run.status
    known = status.dataset if which == "dataset" else status.holdout
    digest = versions.pinned_digest(_dataset_artifact(source), known.digest if known is not None else None)
    if digest is not None:
        return ResolvedData(digest)
    wanted = renderers.dataset_resolve_pod(
        snapshot.raw, which, source, snapshot.model_name, snapshot.helper_images(context.images)
    )
    pod = context.store.get(kinds.POD, snapshot.run.namespace, wanted["metadata"]["name"])
    if pod is None or pod_trust.find_pod_mismatch(pod, snapshot.run.uid, wanted) is not None:
        return ResolvedData(None)
    return read_child(
        pod,
        functools.partial(_read_resolve_pod, pod, which),
        lambda text: ResolvedData(None, Problem(Reason.INTERNAL_ERROR, text, stalled=True)),
    )


def _read_resolve_pod(pod: Object, which: DataRole) -> ResolvedData:
    container = pod_trust.container_status(pod, FETCH_CONTAINER)
    terminated = container.get("state", {}).get("terminated", {})
    if terminated.get("exitCode") == 0:
        artifact = versions.parse_artifact_report(pod_failures.parse_termination_report(terminated.get("message", "")))
        if artifact is not None:
            return ResolvedData(artifact.digest)
        return ResolvedData(
            None, Problem(Reason.INTERNAL_ERROR, "the resolve pod ended without a digest", stalled=True)
        )
    fetch_failure = pod_failures.read_fetch_failure(container)
    failure = pod_failures.diagnose_pods([pod])
    if fetch_failure is not None:
        reason, message = fetch_failure
        return ResolvedData(None, Problem(reason, f"spec.run.{which}.uri: {message}", stalled=True))
    if failure is not None:
        return ResolvedData(None, Problem(failure.reason, failure.message, stalled=True))
    return ResolvedData(None)


def _registration_state(context: Context, snapshot: RunSnapshot) -> bool | Problem:
    """Whether the run's ModelVersion exists, or why it can't be created."""
    raw = context.store.get(kinds.MODEL_VERSION, snapshot.run.namespace, snapshot.run.name)
    if raw is None:
        return False
    lineage = (raw.get("spec") or {}).get("lineage") or {}
    if lineage.get("trainingRun") == snapshot.run.name:
        return True
    text = f"ModelVersion {snapshot.run.name} exists already and was not made by this run; it is left as it is"
    return Problem(Reason.NAME_TAKEN, text, stalled=True)


def _version_outcome(context: Context, snapshot: RunSnapshot) -> str | None:
    """The outcome of the run's version, by the Model and its rollouts."""
    version, model = snapshot.run.status.version, snapshot.model
    if version is None or model is None:
        return snapshot.run.status.outcome
    if model.status.serving is not None and model.status.serving.version == version:
        return "Serving"
    states = []
    for raw in context.store.by_model(kinds.MODEL_ROLLOUT, snapshot.run.namespace, model.name):
        spec, status = raw.get("spec") or {}, raw.get("status") or {}
        if (spec.get("target") or {}).get("version") == version and spec.get("rollback") is None:
            state = str(status.get("state") or RolloutState.PENDING)
            is_undecided = is_undecided_ending(state, status.get("reason"))
            states.append((int(spec.get("number") or 0), UNDECIDED if is_undecided else state))
    if not states:
        follows = model.spec.version.follow is not None
        return snapshot.run.status.outcome or (None if follows else "Announced")
    state = max(states)[1]
    if state in (RolloutState.ROLLED_BACK, RolloutState.ABORTED):
        return "RolledBack"
    if state in (RolloutState.SUPERSEDED, UNDECIDED):
        return state
    return "RollingOut" if state != RolloutState.SUCCEEDED else (snapshot.run.status.outcome or "Serving")


def _dataset_artifact(source: DatasetSource) -> Artifact:
    """The data as an artifact, which the fetcher can read."""
    return Artifact(
        uri=source.uri,
        digest=source.digest,
        format=ModelFormat(name="dataset"),
        service_account_name=source.service_account_name,
        credentials_secret_ref=source.credentials_secret_ref,
    )
