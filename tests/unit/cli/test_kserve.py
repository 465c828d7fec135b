"""InferenceServices become Models: what is taken over, and what is said of the rest."""

from __future__ import annotations

from typing import Any

import pytest

from modelwright.api.v1alpha1 import Model, ModelVersion
from modelwright.cli.kserve import imported

Json = dict[str, Any]


def service(predictor: Json, **spec: Any) -> Json:
    return {
        "apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService",
        "metadata": {"name": "iris", "namespace": "vision", "resourceVersion": "7", "uid": "u"},
        "spec": {"predictor": predictor, **spec},
    }  # fmt: skip


def sklearn(uri: str = "gs://models/iris/1", predictor: Json | None = None, **model: Any) -> Json:
    format_ = {"name": "sklearn", "version": "1"}
    model = {"modelFormat": format_, "protocolVersion": "v2", "storageUri": uri, **model}
    return service({"model": model, **(predictor or {})})


def test_the_usual_one_needs_nothing_by_hand() -> None:
    found = imported(sklearn(), "gateways/models", "example.com")
    version, model = found.objects
    assert found.notes == ()
    assert ModelVersion.parse(version).spec.artifact.uri == "gs://models/iris/1"
    assert version["metadata"] == {"name": "iris-1", "namespace": "vision"}
    assert Model.parse(model).spec.endpoint is not None
    assert model["spec"]["endpoint"] == {
        "parentRefs": [{"name": "models", "namespace": "gateways"}], "hostnames": ["iris.example.com"],
    }  # fmt: skip


def test_a_service_of_the_old_form_is_read_too() -> None:
    version, _ = imported(service({"xgboost": {"storageUri": "s3://models/iris"}})).objects
    assert version["spec"]["artifact"]["format"] == {"name": "xgboost"}


def test_pods_resources_and_numbers_are_taken_over() -> None:
    found = imported(
        sklearn(
            predictor={
                "minReplicas": 2, "maxReplicas": 5, "scaleMetric": "cpu", "scaleTarget": 60, "timeout": 30,
                "nodeSelector": {"pool": "cpu"}, "serviceAccountName": "reader",
            },
            resources={"requests": {"cpu": 1}}, env=[{"name": "A", "value": "b"}],
        )
    )  # fmt: skip
    serving = Model.parse(found.objects[1]).spec.serving
    assert serving.autoscaling is not None
    assert (serving.autoscaling.min_replicas, serving.autoscaling.max_replicas) == (2, 5)
    assert serving.max_request_seconds == 30
    pod = found.objects[1]["spec"]["serving"]["podTemplate"]["spec"]
    assert pod == {
        "nodeSelector": {"pool": "cpu"},
        "containers": [{"name": "model", "env": [{"name": "A", "value": "b"}]}],
    }
    assert found.objects[0]["spec"]["artifact"]["serviceAccountName"] == "reader"
    assert any("credentialsSecretRef" in note for note in found.notes)


NOTED = [
    ("a canary", sklearn(predictor={"canaryTrafficPercent": 10}), "rolloutPolicyRef"),
    ("a transformer", service({"model": sklearn()["spec"]["predictor"]["model"]}, transformer={"containers": []}),
     "spec.transformer has no place"),
    ("scaling to zero", sklearn(predictor={"minReplicas": 0}), "minReplicas: 0 is taken as 1"),
    ("a runtime by name", sklearn(runtime="kserve-sklearnserver"), "spec.serving.runtimeRef"),
    ("a field that nobody knows here", sklearn(predictor={"deploymentStrategy": {}}),
     "deploymentStrategy: has no place here"),
    ("an address that isn't one", sklearn("hdfs://x/y"), "would be refused: spec.artifact.uri"),
    ("a protocol that the runtimes here don't speak", sklearn(protocolVersion="v1"), "/v2/models/iris/infer"),
    ("KServe's default protocol", service({"xgboost": {"storageUri": "s3://m/1"}}), "/v2/models/iris/infer"),
    ("a storage without an address", service({"model": {"modelFormat": {"name": "onnx"}, "storage": {"key": "k"}}}),
     "spec.predictor.model.storage: only storageUri"),
    ("a target for the metric that is KServe's default", sklearn(predictor={"maxReplicas": 3, "scaleTarget": 5}),
     "scaleMetric concurrency"),
    ("an annotation that KServe acts on", {**sklearn(), "metadata": {
        "name": "iris", "annotations": {"serving.kserve.io/stop": "true"}}}, "serving.kserve.io/stop has no place"),
    ("an image with the model in it", sklearn("oci://reg.io/acme/digits:1"), "spec.artifact.path is models"),
    ("an image of its own", sklearn(image="example.com/x:1"), "may be others here"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "says"), [c[1:] for c in NOTED], ids=[c[0] for c in NOTED])
def test_what_has_no_place_is_said(given: Json, says: str) -> None:
    assert any(says in note for note in imported(given).notes), imported(given).notes


def test_azure_addresses_are_turned_into_ours() -> None:
    version, _ = imported(sklearn("https://account.blob.core.windows.net/models/iris")).objects
    assert version["spec"]["artifact"]["uri"] == "az://account/models/iris"


def test_of_a_modelcar_the_models_folder_is_taken() -> None:
    version, _ = imported(sklearn("oci://reg.io/acme/digits:1")).objects
    assert version["spec"]["artifact"]["path"] == "models"


def test_a_container_of_ones_own_is_not_imported() -> None:
    found = imported(service({"containers": [{"image": "example.com/mine:1"}]}))
    assert found.objects == ()
    assert any("ModelRuntime" in note for note in found.notes)
