"""Pods that `doctor` creates in a dry run: like those that resolve a digest, in each namespace."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from modelwright.api.v1alpha1.helper_pods import HelperPods
from modelwright.cli.doctor.facts import Facts, Json
from modelwright.render import helper_pod_placement
from modelwright.render.fetch_container import digest_pod
from modelwright.render.images import Images


@dataclass(frozen=True, slots=True)
class _PlaceholderArtifact:
    """An artifact whose address is never contacted."""

    uri: str = "https://example.com/model"
    service_account_name: str | None = None
    credentials_secret_ref: None = None


def build_trial_pods(facts: Facts) -> list[Json]:
    """Build a pod for each namespace and each placement of its Models. The pods carry none of our labels, which
    admission reserves for the operator."""
    images = _operator_images(facts)
    pods: dict[str, Json] = {}
    for namespace in facts.namespaces:
        for model in (None, *facts.readable_in_namespace("models", namespace)):
            body = _build_pod(namespace, model, images)
            pods.setdefault(json.dumps(body, sort_keys=True), body)
    return list(pods.values())


def _build_pod(namespace: str, model: Json | None, images: Images) -> Json:
    metadata: dict[str, Any] = {"generateName": "modelwright-doctor-", "namespace": namespace, "labels": {}}
    return digest_pod(metadata, _PlaceholderArtifact(), helper_pod_placement.with_model_placement(images, model))


def _operator_images(facts: Facts) -> Images:
    """Return the images of the operator's Deployment where it was read; else the shipped ones."""
    for deployment in facts.objects.get("operator-deployments", ()):
        variables = container_environment(deployment)
        try:
            return Images(
                variables.get("MODELWRIGHT_FETCH_IMAGE", "modelwright/fetch"),
                helper_pods=HelperPods.model_validate_json(
                    variables.get("MODELWRIGHT_HELPER_PODS", "{}"), by_alias=True
                ),
                platform_ids=variables.get("MODELWRIGHT_POD_SECURITY") == "Platform",
            )
        except ValidationError:
            break
    return Images("modelwright/fetch")


def container_environment(deployment: Json) -> dict[str, str]:
    """Return the variables with a literal value of the operator's container."""
    containers = deployment["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry["value"] for entry in containers[0].get("env") or () if "value" in entry}
