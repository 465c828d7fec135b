"""`kubectl modelwright import kserve`: turns InferenceServices (serving.kserve.io/v1beta1) into Models and versions,
and says what of them has no place here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.api.common import InvalidObject
from modelwright.api.names import API_VERSION
from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.version import ModelVersion

Json = dict[str, Any]

_FRAMEWORKS = (
    "sklearn",
    "xgboost",
    "lightgbm",
    "tensorflow",
    "pytorch",
    "onnx",
    "triton",
    "huggingface",
    "pmml",
    "paddle",
)
_OF_PODS = (
    "affinity", "imagePullSecrets", "nodeSelector", "priorityClassName", "runtimeClassName", "securityContext",
    "tolerations", "topologySpreadConstraints", "volumes",
)  # fmt: skip
_OF_CONTAINERS = ("args", "command", "env", "envFrom", "image", "ports", "securityContext", "volumeMounts")
_SPOKEN_V1 = ("sklearn", "xgboost", "lightgbm")
"""Formats that KServe serves by its protocol v1 unless told otherwise, and runtimes here by V2."""
_DEPLOYMENT_MODE = "serving.kserve.io/deploymentMode"
_UNDERSTOOD = {
    "model", "minReplicas", "maxReplicas", "scaleMetric", "scaleMetricType", "scaleTarget", "serviceAccountName",
    "timeout", *_FRAMEWORKS, *_OF_PODS,
}  # fmt: skip
_OF_MODEL = {"modelFormat", "name", "protocolVersion", "resources", "runtime", "storageUri", *_OF_CONTAINERS}
_ELSEWHERE = {
    "canaryTrafficPercent": "moving step by step is a RolloutPolicy: name one in spec.rolloutPolicyRef",
    "canary": "moving step by step is a RolloutPolicy: name one in spec.rolloutPolicyRef",
    "containers": "a container of your own is a ModelRuntime here: see the how-to on runtimes",
    "batcher": "batching is the runtime's matter",
    "logger": "requests are observed with spec.monitoring",
    "containerConcurrency": "concurrency is the runtime's matter",
    "storage": "only storageUri is turned into an address",
    "workerSpec": "models that span several nodes aren't served here",
}


class NotImported(ValueError):
    """What was given is no InferenceService as KServe's API has it; the text says which, and why."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an InferenceService becomes; `notes` name what of it has no place, and what has to be done by hand."""

    name: str
    objects: tuple[Json, ...]
    notes: tuple[str, ...]


def imported(service: Mapping[str, Any], gateway: str = "", domain: str = "") -> Imported:
    """A ModelVersion and a Model of one InferenceService; no objects when there is nothing that could be served.

    `gateway`: namespace/name of a Gateway, for an endpoint with the hostname <name>.<domain>. Raises NotImported.
    """
    try:
        return _imported(service, gateway, domain)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        # What is in a file was checked by no API server.
        metadata = service.get("metadata") if isinstance(service, Mapping) else None
        name = metadata.get("name") if isinstance(metadata, Mapping) else "without a name"
        why = f"{type(error).__name__}: {error}"
        raise NotImported(f"InferenceService {name} is not as serving.kserve.io/v1beta1 has it ({why})") from error


def _imported(service: Mapping[str, Any], gateway: str, domain: str) -> Imported:
    metadata, spec = service["metadata"], service.get("spec") or {}
    name, predictor = str(metadata["name"]), spec.get("predictor") or {}
    notes = [*_left_out(metadata, spec, predictor)]
    found = _model_of(predictor)
    if found is None:
        return Imported(name, (), (*notes, "spec.predictor has no model with a storageUri: nothing to import"))
    format_name, model = found
    if format_name in _SPOKEN_V1 and model.get("protocolVersion", "v1") == "v1":
        notes.append(
            f"callers use protocol v1 (/v1/models/{name}:predict): the runtime here speaks V2 (/v2/models/{name}/infer)"
        )
    artifact, more = _artifact(format_name, model, predictor)
    notes += more
    place = {key: metadata[key] for key in ("namespace",) if key in metadata}
    version: Json = {
        "apiVersion": API_VERSION,
        "kind": "ModelVersion",
        "metadata": {"name": f"{name}-1", **place},
        "spec": {"modelRef": {"name": name}, "artifact": artifact},
    }
    serving, more = _serving(model, predictor)
    notes += more
    wanted: Json = {"version": {"name": f"{name}-1"}}
    wanted |= {"serving": serving} if serving else {}
    if gateway:
        namespace, _, gateway_name = gateway.rpartition("/")
        parent = {"name": gateway_name, **({"namespace": namespace} if namespace else {})}
        wanted["endpoint"] = {"parentRefs": [parent], **({"hostnames": [f"{name}.{domain}"]} if domain else {})}
    else:
        notes.append("no endpoint: callers reach the Service of the Model; name a Gateway with --gateway")
    objects = (
        version,
        {"apiVersion": API_VERSION, "kind": "Model", "metadata": {"name": name, **place}, "spec": wanted},
    )
    return Imported(name, objects, (*notes, *_refused(objects)))


def _model_of(predictor: Mapping[str, Any]) -> tuple[str, Json] | None:
    model = predictor.get("model")
    if isinstance(model, Mapping) and model.get("storageUri"):
        return str((model.get("modelFormat") or {}).get("name", "")), dict(model)
    for framework in _FRAMEWORKS:
        old = predictor.get(framework)
        if isinstance(old, Mapping) and old.get("storageUri"):
            return framework, dict(old)
    return None


def _artifact(format_name: str, model: Json, predictor: Mapping[str, Any]) -> tuple[Json, list[str]]:
    format_: Json = {"name": format_name}
    told = (model.get("modelFormat") or {}).get("version")
    format_ |= {"version": str(told)} if told is not None else {}
    artifact: Json = {"uri": str(model["storageUri"]), "format": format_}
    notes = []
    blob = re.fullmatch(r"https://([a-z0-9]+)\.blob\.core\.windows\.net/(.+)", artifact["uri"])
    if blob:
        artifact["uri"] = f"az://{blob[1]}/{blob[2]}"
    if artifact["uri"].startswith("oci://"):
        artifact["path"] = "models"
        notes.append(
            "spec.artifact.path is models, where KServe's images (modelcars) have their model; leave it out for an "
            "artifact that was pushed as files"
        )
    account = predictor.get("serviceAccountName")
    if account:
        artifact["serviceAccountName"] = str(account)
        notes.append(
            f"ServiceAccount {account}: its identity in a cloud is used to fetch; Secrets bound to it are not read, so "
            "name the one with the store's keys in spec.artifact.credentialsSecretRef"
        )
    return artifact, notes


def _serving(model: Json, predictor: Mapping[str, Any]) -> tuple[Json, list[str]]:
    serving: Json = {}
    notes: list[str] = []
    least, most = predictor.get("minReplicas"), predictor.get("maxReplicas")
    if least == 0:
        notes.append("spec.predictor.minReplicas: 0 is taken as 1: there is no scaling to zero by itself")
    least = max(int(least if least is not None else 1), 1)
    if most is not None and int(most) > least:
        serving["autoscaling"] = {"minReplicas": least, "maxReplicas": int(most), **_metrics(predictor, notes)}
    elif least > 1:
        serving["replicas"] = least
    if model.get("runtime"):
        notes.append(
            f"spec.predictor.model.runtime {model['runtime']}: runtimes are chosen by format; where another is meant, "
            "name a ClusterModelRuntime in spec.serving.runtimeRef"
        )
    if predictor.get("timeout"):
        serving["maxRequestSeconds"] = int(predictor["timeout"])
    if model.get("resources"):
        serving["resources"] = {
            k: {n: str(q) for n, q in v.items()} for k, v in model["resources"].items() if k != "claims"
        }
    container = {key: model[key] for key in _OF_CONTAINERS if model.get(key)}
    pod = {key: predictor[key] for key in _OF_PODS if predictor.get(key)}
    pod |= {"containers": [{"name": "model", **container}]} if container else {}
    if pod:
        serving["podTemplate"] = {"spec": pod}
    if container.keys() & {"args", "command", "image"}:
        notes.append(
            "spec.serving.podTemplate changes the runtime's container: its arguments and image may be others here"
        )
    return serving, notes


def _metrics(predictor: Mapping[str, Any], notes: list[str]) -> Json:
    metric, target = predictor.get("scaleMetric"), predictor.get("scaleTarget")
    if metric in ("cpu", "memory") and target is not None:
        resource = {"name": metric, "target": {"type": "Utilization", "averageUtilization": int(target)}}
        return {"metrics": [{"type": "Resource", "resource": resource}]}
    if metric is not None or target is not None:
        notes.append(
            f"spec.predictor.scaleMetric {metric or 'concurrency'}: pods are scaled by CPU; "
            "see spec.serving.autoscaling.metrics"
        )
    return {}


def _left_out(metadata: Mapping[str, Any], spec: Mapping[str, Any], predictor: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted(metadata.get("annotations") or {}):
        if key.startswith("serving.kserve.io/") and key != _DEPLOYMENT_MODE:
            yield f"metadata.annotations: {key} has no place here"
    for part in ("transformer", "explainer"):
        if spec.get(part):
            yield f"spec.{part} has no place here: it stays with KServe, or becomes a service of its own"
    for key in sorted(predictor.keys() - _UNDERSTOOD):
        yield f"spec.predictor.{key}: {_ELSEWHERE.get(key, 'has no place here')}"
    written = next((key for key in ("model", *_FRAMEWORKS) if isinstance(predictor.get(key), Mapping)), None)
    if written is not None:
        for key in sorted(predictor[written].keys() - _OF_MODEL):
            yield f"spec.predictor.{written}.{key}: {_ELSEWHERE.get(key, 'has no place here')}"


def _refused(objects: Iterable[Json]) -> Iterator[str]:
    """What the API would refuse of them: to be mended by hand."""
    for obj in objects:
        try:
            (Model if obj["kind"] == "Model" else ModelVersion).parse(obj)
        except InvalidObject as error:
            yield f"{obj['kind']} {obj['metadata']['name']} would be refused: {error.message}"
