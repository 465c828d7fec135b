"""Builds the inputs that a stage of a run is rendered from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.api.v1alpha1.retraining import (
    RetrainingPolicySpec,
)
from modelwright.api.v1alpha1.training import (
    RunState,
    TrainingRun,
)
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.core import versions
from modelwright.core.retraining.run_machine import (
    merge_parameters,
)
from modelwright.kube import kinds
from modelwright.reconcile.context import Context
from modelwright.reconcile.training_run.run_snapshot import RunSnapshot, trained_artifact
from modelwright.reconcile.training_run.runs import creation_order, list_runs
from modelwright.render import training_stages as renderers
from modelwright.render.gate_jobs import EvaluatedContent

Object = dict[str, Any]


def build_inputs(context: Context, snapshot: RunSnapshot, spec: RetrainingPolicySpec) -> renderers.StageInputs:
    """Build the inputs of a stage. `spec`: the policy of the run, whose data has been resolved."""
    status, template = snapshot.run.status, spec.run
    assert status.dataset is not None  # noqa: S101 - the table starts no stage without it
    return renderers.StageInputs(
        model=snapshot.model_name,
        template=template,
        parameters=merge_parameters(snapshot.run, template),
        # The status has URIs without their queries.
        dataset=status.dataset.model_copy(update={"uri": template.dataset.uri}),
        holdout=status.holdout.model_copy(update={"uri": template.holdout.uri})
        if status.holdout is not None and template.holdout is not None
        else None,
        serving=_serving_content(context, snapshot, status.compared_with),
        candidate=_trained_content(snapshot.run, spec),
        previous_profile=_previous_profile(context, snapshot),
        images=snapshot.helper_images(context.images),
    )


def _serving_content(context: Context, snapshot: RunSnapshot, name: str | None) -> EvaluatedContent | None:
    raw = context.store.get(kinds.MODEL_VERSION, snapshot.run.namespace, name) if name else None
    if raw is None or name is None:
        return None
    version = ModelVersion.parse(raw)
    pinned = version.status.artifact.digest if version.status.artifact is not None else None
    digest = versions.pinned_digest(version.spec.artifact, pinned)
    return EvaluatedContent(name, version.spec.artifact, digest) if digest is not None else None


def _trained_content(run: TrainingRun, spec: RetrainingPolicySpec) -> EvaluatedContent | None:
    result, artifact = run.status.result, trained_artifact(run, spec)
    if artifact is None or result is None or result.digest is None:
        return None
    return EvaluatedContent(run.name, artifact, result.digest)


def _previous_profile(context: Context, snapshot: RunSnapshot) -> Mapping[str, Any] | None:
    """The data profile of the last run before this one that succeeded."""
    if snapshot.policy_raw is None:
        return None
    profiles = [
        run.status.profile
        for run in list_runs(context, snapshot.policy_raw)
        if run.status.profile
        and run.status.state == RunState.SUCCEEDED
        and creation_order(run) < creation_order(snapshot.run)
    ]
    return profiles[-1] if profiles else None
