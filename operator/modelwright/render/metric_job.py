"""Renders the Job of a metric from the pod template of the policy's author, with the revisions to measure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.api import names
from modelwright.api.common import parse_duration
from modelwright.api.v1alpha1.policy import JobMetric
from modelwright.render import helper_pod_placement, user_pod_template
from modelwright.render.child_metadata import owner_reference
from modelwright.render.images import Images
from modelwright.render.strategic_merge import MergeError, strategic_merge

Json = dict[str, Any]

LABEL_MEASURES = f"{names.GROUP}/measures"
"""On a metric's Job: a hash of the metric and step that it measures."""
ROLE_METRIC = "metric"


def measured_label(key: str, metric: str) -> str:
    """Return the value of LABEL_MEASURES for a metric of the rollout and step identified by `key`."""
    return names.short_hash(f"{key}{chr(0)}{metric}")


@dataclass(frozen=True, slots=True)
class JobMeasurement:
    """One measurement of a metric by a Job."""

    metric: str
    job: JobMetric
    key: str
    """Identifies the rollout and its step."""
    version: str
    """Version of the candidate."""
    attempt: str
    """Distinguishes this measurement from earlier ones."""


def render_metric_job(
    rollout: Json, measurement: JobMeasurement, environment: Mapping[str, str], images: Images
) -> Json:
    """Render the Job that measures a metric once. `environment` precedes the containers' own variables.

    It has one attempt, and is owned by the ModelRollout. Security contexts default to the restricted Pod Security
    Standard. Raises MergeError, naming the field, for an invalid pod template.
    """
    model, metric, template = rollout["spec"]["modelRef"]["name"], measurement.metric, measurement.job.template
    labels = names.child_labels(role=ROLE_METRIC, model=model, version=measurement.version) | {
        LABEL_MEASURES: measured_label(measurement.key, metric)
    }
    path = f"metric {metric}: job.template"
    metadata = user_pod_template.typed_member(template, "metadata", dict, path)
    spec = strategic_merge(
        user_pod_template.default_pod_spec(images),
        user_pod_template.typed_member(template, "spec", dict, path),
        f"{path}.spec",
    )
    containers = spec.get("containers")
    if not isinstance(containers, list) or not containers:
        raise MergeError(f"{path}.spec.containers: at least one container is needed, which writes the report")
    spec["containers"] = [
        user_pod_template.merge_container(entry, environment, f"{path}.spec.containers[{index}]")
        for index, entry in enumerate(containers)
    ]
    authored_labels = {
        key: value for key, value in (metadata.get("labels") or {}).items() if not key.startswith(f"{names.GROUP}/")
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.cut_with_hash(
                f"{model}-{metric}",
                names.LABEL_VALUE_MAX,
                rollout["metadata"]["uid"],
                measurement.key,
                metric,
                measurement.attempt,
            ),
            "namespace": rollout["metadata"]["namespace"],
            "labels": labels,
            "ownerReferences": [owner_reference(rollout)],
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": math.ceil(parse_duration(measurement.job.timeout)),
            # Keeps a failed Job for debugging; a successful one is deleted at once.
            "ttlSecondsAfterFinished": 600,
            "template": helper_pod_placement.place_template(
                {**metadata, "labels": {**authored_labels, **labels}},
                spec,
                images,
                ROLE_METRIC,
                template.get("spec"),
            ),
        },
    }
