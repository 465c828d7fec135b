"""Builds the ModelVersion that a run creates."""

from __future__ import annotations

from typing import Any

from modelwright.api import names
from modelwright.api.v1alpha1.retraining import (
    RetrainingPolicySpec,
)
from modelwright.api.v1alpha1.training import (
    TrainingRun,
    TrainingRunStatus,
)
from modelwright.core import authors
from modelwright.core.retraining.run_machine import (
    merge_parameters,
)
from modelwright.kube import kinds
from modelwright.net import addresses
from modelwright.reconcile.training_run.run_snapshot import trained_artifact

Object = dict[str, Any]


def build_version(run: TrainingRun, spec: RetrainingPolicySpec, serving_version: str | None) -> Object:
    """Build the ModelVersion of a run that has a result.

    `spec`: the run's policy. `serving_version`: the version that its Model serves.
    """
    template, result = spec.run, run.status.result
    artifact, dataset = trained_artifact(run, spec), run.status.dataset
    assert artifact is not None and result is not None and dataset is not None  # noqa: S101, PT018
    made_by = authors.training_authors(spec, run.spec.manual.by if run.spec.manual is not None else None)
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
        "parent": run.status.compared_with or serving_version,
    }
    version_spec = {
        "modelRef": {"name": spec.model_ref.name},
        "author": made_by[-1],
        "authors": list(made_by[:-1]),
        "artifact": artifact.wire(),
        "parameters": dict(result.parameters) or dict(merge_parameters(run, template)),
        "metrics": _version_metrics(run.status),
        "samples": [sample.wire() for sample in template.version.samples],
        "lineage": {key: value for key, value in lineage.items() if value},
        "card": template.version.card.wire() if template.version.card is not None else None,
        "reference": result.reference.wire() if result.reference is not None else None,
    }
    return {
        "apiVersion": names.API_VERSION,
        "kind": kinds.MODEL_VERSION.kind,
        "metadata": {"name": run.name, "namespace": run.namespace, "labels": dict(template.version.labels)},
        "spec": {key: value for key, value in version_spec.items() if value},
    }


def _version_metrics(status: TrainingRunStatus) -> list[Object]:
    """The figures of the evaluation, where there was one, else those of the training."""
    data = status.holdout or status.dataset
    source = f"{addresses.redact_uri(data.uri)[:200]}@{data.digest[:32]}" if data is not None else "-"
    evaluated = [
        {"name": figure.name, "value": figure.candidate, "dataset": (f"{source} {figure.slice}".strip())[:253]}
        for figure in status.figures
    ]
    if evaluated:
        return evaluated[:64]
    result = status.result
    return [
        {"name": metric.name, "value": metric.value, "dataset": "training"}
        for metric in (result.metrics if result is not None else ())
    ]
