"""Parsing of objects as the API server gives them: strict on the spec, tolerant on the status, exact in round trips."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from modelwright.api.common import InvalidObject, parse_duration
from modelwright.api.crd.definition import KINDS
from modelwright.api.v1alpha1 import ClusterModelRuntime, Model, ModelVersion
from modelwright.api.v1alpha1.model import initial_replicas, pod_template_patch
from tests.controlplane.objects import specs, whole


def model(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": "digits", "namespace": "vision", "uid": "u", "generation": 4, "managedFields": [{}]},
        "spec": {"version": {"name": "digits-v1"}, **spec},
    }


def runtime(**spec: Any) -> ClusterModelRuntime:
    base = {"protocol": "V2", "ports": {"http": 8080}, "formats": [{"name": "a"}], "container": {"image": "i"}}
    return ClusterModelRuntime.parse({"metadata": {"name": "r"}, "spec": {**base, **spec}})


def test_defaults() -> None:
    parsed = Model.parse(model())
    assert parsed.spec.serving.start_timeout_seconds == 600
    assert (parsed.spec.serving.drain_seconds, parsed.spec.serving.max_request_seconds) == (15, 60)
    assert initial_replicas(parsed.spec.serving) == 1
    assert not parsed.spec.suspend
    assert parsed.status.conditions == ()
    assert (parsed.name, parsed.namespace, parsed.uid, parsed.generation) == ("digits", "vision", "u", 4)


def test_replicas_of_a_new_revision() -> None:
    assert initial_replicas(Model.parse(model(serving={"replicas": 0})).spec.serving) == 0
    autoscaled = Model.parse(model(serving={"autoscaling": {"minReplicas": 3, "maxReplicas": 9}}))
    assert initial_replicas(autoscaled.spec.serving) == 3
    external = Model.parse(model(serving={"autoscaling": {"external": {}}}))
    assert initial_replicas(external.spec.serving) == 1
    assert external.spec.serving.scaled_externally


AUTOSCALING: list[tuple[str, dict[str, Any], str]] = [
    ("external alone", {"external": {}}, ""),
    ("external with the API server's default", {"external": {}, "minReplicas": 1}, ""),
    ("neither external nor a largest number", {"minReplicas": 2}, "exactly one of maxReplicas and external"),
    ("external and a largest number", {"external": {}, "maxReplicas": 3}, "exactly one of maxReplicas and external"),
    ("external and a fewest number", {"external": {}, "minReplicas": 2}, "have no effect with external"),
    ("external and metrics", {"external": {}, "metrics": [{"type": "Resource"}]}, "have no effect with external"),
    ("external and behavior", {"external": {}, "behavior": {"scaleUp": {}}}, "have no effect with external"),
]


@pytest.mark.parametrize(("case", "autoscaling", "says"), AUTOSCALING, ids=[row[0] for row in AUTOSCALING])
def test_autoscaling_has_exactly_one_scaler(case: str, autoscaling: dict[str, Any], says: str) -> None:
    if not says:
        Model.parse(model(serving={"autoscaling": autoscaling}))
        return
    with pytest.raises(InvalidObject, match=says):
        Model.parse(model(serving={"autoscaling": autoscaling}))


def header(name: str, value: str = "x") -> dict[str, Any]:
    changes = {"set": [{"name": name, "value": value}]}
    return {"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": changes}]}


def without(name: str) -> dict[str, Any]:
    return {"filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": [name]}}]}


ALIEN = {"type": "ExtensionRef", "extensionRef": {"group": "core", "kind": "Secret", "name": "s"}}
ENDPOINTS: list[tuple[str, dict[str, Any], str]] = [
    ("a header", header("X-Team"), ""),
    ("a long request", {"requestTimeout": "10m"}, ""),
    ("the mark", without("Modelwright-Route"), "is the operator's own"),
    ("the token, in another case", header("modelwright-COPY-token"), "is the operator's own"),
    ("the cookie of sticky callers", without("set-cookie"), "is the operator's own"),
    ("the length of an answer", without("content-Length"), "or the connection's"),
    ("how a body is sent", header("Transfer-Encoding", "chunked"), "or the connection's"),
    ("a value of several words", header("X-Team", 'a b;c="d"'), ""),
    ("a second header in a value", header("X-Team", "x\r\nX-Admin: yes"), "value"),
    ("a line end behind a value", header("X-Team", "x\n"), "value"),
    ("a zero byte", header("X-Team", "a\0b"), "value"),
    ("a letter that is no ASCII", header("X-Team", "ä"), "value"),
    ("a redirect", {"filters": [{"type": "RequestRedirect", "requestRedirect": {}}]}, r"filters\[0\]"),
    (
        "a member of another type",
        {"filters": [{**header("X-Team")["filters"][0], "type": "CORS"}]},
        "the member that its type",
    ),
    ("one type twice", {"filters": 2 * header("X-Team")["filters"]}, "can be there once"),
    ("an object of the core", {"filters": [ALIEN]}, "the API group of a custom resource"),
    ("a timeout of gRPC", {"protocol": "GRPC", "requestTimeout": "10m"}, "a GRPCRoute has none"),
    ("responses of gRPC", {"protocol": "GRPC", **without("X-Old")}, "of protocol GRPC can be"),
    ("a timeout of nothing", {"requestTimeout": "0s"}, "at least 1s"),
]


@pytest.mark.parametrize(("case", "more", "says"), ENDPOINTS, ids=[row[0] for row in ENDPOINTS])
def test_route_filters_are_validated(case: str, more: dict[str, Any], says: str) -> None:
    whole_model = model(endpoint={"parentRefs": [{"name": "g"}], **more})
    if not says:
        Model.parse(whole_model)
        return
    with pytest.raises(InvalidObject, match=says):
        Model.parse(whole_model)


def test_python_names_are_refused_in_json() -> None:
    with pytest.raises(InvalidObject, match=r"spec\.serving\.start_timeout"):
        Model.parse(model(serving={"start_timeout": "1m"}))


def test_refusals_name_the_object_and_every_field() -> None:
    with pytest.raises(InvalidObject) as refusal:
        Model.parse(model(serving={"replicas": "2"}, suspend=1))
    assert str(refusal.value).startswith("Model vision/digits: spec.serving.replicas: ")
    assert [path for path, _ in refusal.value.problems] == ["spec.serving.replicas", "spec.suspend"]


def test_objects_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Model.parse(model()).spec.suspend = True  # type: ignore[misc]


def test_nulls_of_a_pod_template_are_kept() -> None:
    patch = {"metadata": {"labels": {"a": None}}, "spec": {"nodeSelector": None, "containers": [{"name": "model"}]}}
    parsed = Model.parse(model(serving={"podTemplate": patch}))
    assert pod_template_patch(parsed.spec.serving) == patch
    assert parsed.spec.wire()["serving"]["podTemplate"] == patch
    assert pod_template_patch(Model.parse(model()).spec.serving) == {}


def test_a_status_of_a_newer_operator_is_read() -> None:
    obj = model()
    obj["status"] = {
        "observedGeneration": 3,
        "serving": {"version": "digits-v1", "revision": "abc", "steps": [1]},
        "rollout": {"state": "AwaitingApproval"},
        "runtime": "mlserver",
        "failure": {"message": "no reason"},
        "gates": {},
    }
    status = Model.parse(obj).status
    assert status.serving is not None
    assert status.serving.revision == "abc"
    assert status.rollout is not None
    assert status.rollout.state == "AwaitingApproval"
    assert status.runtime is None
    assert status.failure is None


def test_status_that_is_not_an_object_is_refused() -> None:
    with pytest.raises(InvalidObject, match="status"):
        Model.parse({**model(), "status": "x"})


def test_written_objects_are_read_back() -> None:
    version = ModelVersion.parse(
        {
            "metadata": {"name": "digits-v1", "namespace": "vision"},
            "spec": {
                "modelRef": {"name": "digits"},
                "artifact": {"uri": "hf://org/digits@main", "format": {"name": "sklearn", "version": "1"}},
                "metrics": [{"name": "accuracy", "value": "0.98", "dataset": "holdout"}],
            },
            "status": {"artifact": {"digest": "git:" + "0" * 40, "sizeBytes": 12}, "stage": "Serving"},
        }
    )
    again = ModelVersion.parse(
        {"metadata": {"name": "digits-v1"}, "spec": version.spec.wire(), "status": version.status.wire()}
    )
    assert (again.spec, again.status) == (version.spec, version.status)


def test_a_container_is_kept_as_it_was_written() -> None:
    container = {"image": "i", "args": ["--x"], "resources": {"limits": {"cpu": "1"}}}
    assert runtime(container={"name": "model", **container}).spec.container_manifest() == container


def test_readiness_of_a_runtime() -> None:
    default = runtime().spec.effective_readiness
    assert default is not None
    assert default.http_get.path == "/v2/models/$(MODEL_NAME)/ready"
    own = runtime(container={"image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}})
    assert own.spec.effective_readiness is None
    assert own.spec.container_manifest()["readinessProbe"] == {"tcpSocket": {"port": 1}}
    assert runtime().spec.find_format("a") is not None
    assert runtime().spec.find_format("b") is None


@pytest.mark.parametrize(("text", "value"), [("10m", 600), ("1h30m", 5400), ("500ms", 0.5), ("2s", 2)])
def test_durations(text: str, value: float) -> None:
    assert parse_duration(text) == value


@pytest.mark.parametrize("text", ["", "10", "m", "1d", "-1s", "1h 30m", "1s\n"])
def test_invalid_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_good_spec_is_written_as_it_was_read(kind: Any, data: st.DataObject) -> None:
    obj = whole(kind, data.draw(specs(kind)))
    try:
        parsed = kind.parse(obj)
    except InvalidObject:
        assume(False)
    again = kind.parse(whole(kind, parsed.spec.wire()))
    assert again.spec == parsed.spec
    assert again.spec.wire() == parsed.spec.wire()
