"""The generated CRDs on a real API server: they install whole, agree with the types, and work with kubectl."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from kubernetes import client as kubernetes
from kubernetes import config

from modelwright.api.common import InvalidObject
from modelwright.api.conditions import with_condition
from modelwright.api.crd.definition import KINDS
from modelwright.api.names import GROUP, VERSION
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1 import Model, ModelVersion
from modelwright.api.v1alpha1.model import (
    AnnouncedStatus,
    DriftFigure,
    DriftStatus,
    FailureStatus,
    ModelStatus,
    RolloutStatus,
    RuntimeStatus,
    ServingStatus,
    TargetStatus,
    TrafficStatus,
    UnwatchedFeature,
)
from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.api.v1alpha1.version import ArtifactStatus, ModelVersionStatus, SignatureStatus, Stage, VersionFailure
from tests.controlplane.objects import specs, whole
from tests.lib.control_plane import ROOT

pytestmark = pytest.mark.controlplane

NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
EVERY = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)

MODEL: dict[str, Any] = {
    "apiVersion": "modelwright.dev/v1alpha1",
    "kind": "Model",
    "metadata": {"name": "digits", "namespace": "default"},
    "spec": {
        "version": {"name": "digits-v2"},
        "serving": {"resources": {"requests": {"cpu": "500m"}}},
        "endpoint": {"parentRefs": [{"name": "models"}], "hostnames": ["models.example.com"]},
    },
}
MODEL_VERSION: dict[str, Any] = {
    "apiVersion": "modelwright.dev/v1alpha1",
    "kind": "ModelVersion",
    "metadata": {"name": "digits-v2", "namespace": "default"},
    "spec": {
        "modelRef": {"name": "digits"},
        "artifact": {"uri": "s3://models/digits/2", "format": {"name": "sklearn", "version": "1"}},
        "metrics": [
            {"name": "accuracy", "value": "0.98", "dataset": "test"},
            {"name": "accuracy", "value": "0.97", "dataset": "holdout"},
        ],
    },
}
RUNTIME: dict[str, Any] = {
    "apiVersion": "modelwright.dev/v1alpha1",
    "kind": "ClusterModelRuntime",
    "metadata": {"name": "mine"},
    "spec": {
        "protocol": "V2",
        "ports": {"http": 8080},
        "formats": [{"name": "sklearn"}],
        "container": {"image": "example.com/m", "args": ["--port=$(MODEL_HTTP_PORT)"]},
    },
}


@EVERY
def test_crds_are_established_and_structural(crd_server: Any, kind: Any) -> None:
    conditions = crd_server.get("crd", f"{kind.__crd__.plural}.{GROUP}")["status"]["conditions"]
    status = {condition["type"]: condition["status"] for condition in conditions}
    assert status == {"NamesAccepted": "True", "Established": "True"}


def test_a_second_kubectl_apply_of_crds_changes_nothing(crd_server: Any) -> None:
    for folder in ("crds", "manifests/policies"):
        answer = crd_server.ok("apply", "-k", str(ROOT / folder))
        assert all(line.endswith(" unchanged") for line in answer.splitlines()), answer


@pytest.fixture(scope="module")
def api(crd_server: Any) -> Any:
    return kubernetes.CustomObjectsApi(config.new_client_from_config(str(crd_server.plane.kubeconfig)))


def refusal_of_server(api: Any, kind: Any, obj: dict[str, Any]) -> str | None:
    """What the API server says against `obj`, without storing it; None when it would store it."""
    arguments = {"dry_run": "All", "field_validation": "Strict"}
    plural = kind.__crd__.plural
    try:
        if kind.__crd__.namespaced:
            api.create_namespaced_custom_object(GROUP, VERSION, "default", plural, obj, **arguments)
        else:
            api.create_cluster_custom_object(GROUP, VERSION, plural, obj, **arguments)
    except kubernetes.ApiException as error:
        if error.status == 403:
            # The schema is checked before the admission policies, which mind who writes.
            return None
        if error.status not in (400, 403, 422):
            raise
        message = str(json.loads(error.body)["message"])
        # Admission policies come after the schema, and ask who the writer is.
        return None if "ValidatingAdmissionPolicy" in message else message
    return None


def refusal_of_types(kind: Any, obj: dict[str, Any]) -> str | None:
    """What our types say against `obj`; None when they accept it."""
    try:
        kind.parse(obj)
    except InvalidObject as error:
        return error.message
    return None


@EVERY
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(data=st.data())
def test_types_and_api_server_accept_the_same_objects(api: Any, kind: Any, data: st.DataObject) -> None:
    obj = whole(kind, data.draw(specs(kind)))
    by_types, by_server = refusal_of_types(kind, obj), refusal_of_server(api, kind, obj)
    note(f"types: {by_types}")
    note(f"API server: {by_server}")
    assert (by_types is None) == (by_server is None)


@pytest.mark.parametrize("obj", [MODEL, MODEL_VERSION, RUNTIME], ids=lambda obj: obj["kind"])
def test_plain_kubectl_apply_twice_changes_nothing(crd_server: Any, obj: dict[str, Any]) -> None:
    try:
        crd_server.ok("apply", "-f", "-", objects=obj)
        assert crd_server.ok("apply", "-f", "-", objects=obj).endswith(" unchanged\n")
        stored = crd_server.get(obj["kind"], obj["metadata"]["name"])
        assert stored["metadata"]["generation"] == 1
        crd_server.ok("apply", "--server-side", "--force-conflicts", "-f", "-", objects=obj)
        assert crd_server.get(obj["kind"], obj["metadata"]["name"])["metadata"]["generation"] == 1
        assert crd_server.run("diff", "-f", "-", objects=obj).returncode == 0
    finally:
        crd_server.delete(obj)


def test_defaults_of_the_server_are_those_of_the_types(crd_server: Any) -> None:
    for kind, obj in ((Model, MODEL), (ModelVersion, MODEL_VERSION)):
        answer = crd_server.ok("create", "--dry-run=server", "-o", "json", "-f", "-", objects=obj)
        stored = json.loads(answer)
        assert kind.parse(stored).spec == kind.parse(obj).spec
        # Everything that has a default is in what the server stores; lists and maps may be absent instead of empty.
        written = kind.parse(obj).spec.wire()
        assert without_empty(stored["spec"]) == without_empty(written)


def test_the_largest_objects_are_accepted_and_can_be_changed(crd_server: Any) -> None:
    # Rules have a budget at the API server; it must not run out at the limits that the schema itself allows.
    metrics = [{"name": f"m{number:062}", "value": "0." + "9" * 30, "dataset": "d" * 253} for number in range(64)]
    content = {
        "artifact": {"uri": "s3://models/" + "x" * 2036, "digest": "sha256:" + "0" * 64, "format": {"name": "a" * 63}},
        "parameters": {f"p{number:0127}": "x" * 1024 for number in range(128)},
        "metrics": metrics,
        "card": {"summary": "é" * 4096, "intendedUse": "é" * 4096, "limitations": "é" * 4096, "license": "é" * 253},
    }
    labels = {f"{'l' * 30}-{number}": "v" * 63 for number in range(16)}
    model = {**MODEL, "spec": {"version": {"template": content}}}
    follower = {**MODEL, "spec": {"version": {"follow": {"selector": {"matchLabels": labels}}}}}
    version = {**MODEL_VERSION, "spec": {"modelRef": {"name": "m" * 50}, "author": "kubernetes-admin", **content}}
    first = {**version, "spec": {**version["spec"], "metrics": metrics[:63]}}
    for obj in (model, follower, largest_policy()):
        crd_server.ok("create", "--dry-run=server", "-f", "-", objects=obj)
    crd_server.ok("create", "-f", "-", objects=first)
    try:
        crd_server.ok("replace", "-f", "-", objects=version)
    finally:
        crd_server.delete(version)


def largest_policy() -> dict[str, Any]:
    headers = [{"name": f"{'x' * 250}-{number}", "value": "v" * 1024} for number in range(16)]
    limit = "0." + "9" * 30
    metrics = [
        {"name": f"{'m' * 60}-{n}", "prometheus": {"bad": "b" * 4096, "total": "t" * 4096}, "min": "0.1", "max": limit}
        for n in range(16)
    ]
    # At most 32 with their slices.
    figures = [{"name": f"{'f' * 60}-{n}", "min": "0", "max": limit, "slices": [f"{'s' * 60}-{n}"]} for n in range(16)]
    spec = {
        "strategy": {
            "steps": [{"match": {"headers": headers}}, *({"weight": n, "hold": "719h"} for n in range(1, 20))]
        },
        "gates": {"evaluation": {"template": {}, "metrics": figures}},
        "analysis": {"metrics": metrics},
        "surge": {"resources": {f"example.com/{'r' * 60}-{n}": "9" * 32 for n in range(16)}},
        "freeze": [{"schedule": "0 0 1 1 " + ",".join(["1"] * 60), "duration": "744h"}] * 16,
    }
    return {**MODEL, "kind": "RolloutPolicy", "spec": spec}


def without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_empty(item) for key, item in value.items() if item not in ([], {})}
    if isinstance(value, list):
        return [without_empty(item) for item in value]
    return value


def full_model_status() -> ModelStatus:
    conditions = ()
    for type_ in ("Ready", "Reconciling", "Stalled", "Available"):
        conditions = with_condition(conditions, type_, None, Reason.SERVING, "m" * 5000, generation=1, now=NOW)
    return ModelStatus(
        observed_generation=1,
        url="http://digits.default.svc",
        serving=ServingStatus(version="digits-v1", revision="abc", since=NOW),
        target=TargetStatus(version="digits-v2", revision="def"),
        rollout=RolloutStatus(state=RolloutState.PROGRESSING, reason=Reason.WAITING_FOR_PODS, message="m", since=NOW),
        traffic=(
            TrafficStatus(version="digits-v1", revision="abc", weight=100, ready=True),
            TrafficStatus(version="digits-v2", revision="def", weight=0),
        ),
        runtime=RuntimeStatus(kind="ClusterModelRuntime", name="mlserver", reason="r" * 9999),
        replicas=2,
        ready_replicas=1,
        selector="modelwright.dev/model=digits,modelwright.dev/role=serving",
        failure=FailureStatus(reason=Reason.MODEL_LOAD_FAILED, message="m", exit_code=137, pod="p", revision="def"),
        announced=AnnouncedStatus(version="digits-nightly", training_run="nightly"),
        outdated="runtime edited",
        drift=DriftStatus(
            version="digits-v1",
            drifted=True,
            at=NOW,
            worst=(
                DriftFigure(
                    kind="input",
                    feature="age",
                    drifted=True,
                    aspect="distance",
                    method="KolmogorovSmirnov",
                    value="0.31",
                    limit="0.1",
                    floor="0.1",
                    window="10m",
                    rows=500,
                ),
            ),
            unwatched=(UnwatchedFeature(kind="input", feature="comment"),),
        ),
        conditions=conditions,
    )


def write_status(crd_server: Any, obj: dict[str, Any], status: dict[str, Any]) -> Any:
    """Server-side apply of `status`, as the operator does it."""
    whole = {key: obj[key] for key in ("apiVersion", "kind", "metadata")} | {"status": status}
    arguments = ["apply", "--server-side", "--subresource=status", "--field-manager=modelwright-status"]
    return crd_server.run(*arguments, "--validate=strict", "-f", "-", objects=whole)


def test_every_member_of_a_status_can_be_written_and_read_back(crd_server: Any) -> None:
    version_status = ModelVersionStatus(
        observed_generation=1,
        artifact=ArtifactStatus(digest="sha256:" + "0" * 64, size_bytes=2**40),
        signature=SignatureStatus(
            digest="sha256:" + "0" * 64, keys="abc", verified=True, reason=Reason.SIGNATURE_VERIFIED, message="m" * 5000
        ),
        stage=Stage.QUARANTINED,
        failure=VersionFailure(reason=Reason.DIGEST_MISMATCH, message="m" * 5000),
        conditions=with_condition((), "Ready", True, Reason.DIGEST_PINNED, "", generation=1, now=NOW),
    )
    for kind, obj, status in ((Model, MODEL, full_model_status()), (ModelVersion, MODEL_VERSION, version_status)):
        assert all(value is not None for value in dict(status).values())
        crd_server.ok("create", "-f", "-", objects=obj)
        try:
            answer = write_status(crd_server, obj, status.wire())
            assert answer.returncode == 0, answer.stderr
            stored = crd_server.get(obj["kind"], obj["metadata"]["name"])
            assert stored["status"] == status.wire()
            assert kind.parse(stored).status == status
            before = stored["metadata"]["resourceVersion"]
            assert write_status(crd_server, obj, status.wire()).returncode == 0
            assert crd_server.get(obj["kind"], obj["metadata"]["name"])["metadata"]["resourceVersion"] == before
        finally:
            crd_server.delete(obj)


def test_a_user_cannot_write_status_through_the_object(crd_server: Any) -> None:
    try:
        crd_server.ok("create", "-f", "-", objects={**MODEL, "status": {"url": "http://evil"}})
        assert "status" not in crd_server.get("model", "digits")
    finally:
        crd_server.delete(MODEL)


def test_columns_short_names_category_and_field_selectors(crd_server: Any) -> None:
    try:
        crd_server.ok("create", "-f", "-", objects=[MODEL, MODEL_VERSION, RUNTIME])
        assert write_status(crd_server, MODEL, full_model_status().wire()).returncode == 0
        heading, row = crd_server.ok("get", "mdl").splitlines()
        assert heading.split() == ["NAME", "READY", "SERVING", "TARGET", "STATE", "URL", "AGE"]
        shown = ["digits", "Unknown", "digits-v1", "digits-v2", "Progressing", "http://digits.default.svc"]
        assert row.split()[:6] == shown
        wide = crd_server.ok("get", "mdl", "-o", "wide").splitlines()[0].split()
        assert [column for column in wide if column not in heading.split()] == ["RUNTIME", "ANNOUNCED", "REASON"]
        assert crd_server.ok("get", "mv").splitlines()[0].split() == [
            "NAME",
            "MODEL",
            "FORMAT",
            "STAGE",
            "READY",
            "AGE",
        ]
        assert crd_server.ok("get", "cmrt").splitlines()[0].split() == ["NAME", "FORMAT", "PROTOCOL", "DISABLED", "AGE"]
        assert "No resources" in crd_server.run("get", "mrt").stderr
        both = crd_server.ok("get", "modelwright", "-o", "name").split()
        assert f"model.{GROUP}/digits" in both
        assert f"modelversion.{GROUP}/digits-v2" in both

        def found(kind: str, selector: str) -> list[str]:
            return crd_server.ok("get", kind, "--field-selector", selector, "-o", "name").split()

        assert found("mdl", "spec.version.name=digits-v2") == [f"model.{GROUP}/digits"]
        assert found("mdl", "spec.version.name=digits-v1") == []
        assert found("mdl", "status.serving.version=digits-v1,status.rollout.state!=Succeeded") == [
            f"model.{GROUP}/digits"
        ]
        assert found("mv", "spec.modelRef.name=digits") == [f"modelversion.{GROUP}/digits-v2"]
        assert (
            "field label not supported" in crd_server.run("get", "mdl", "--field-selector", "spec.suspend=true").stderr
        )
    finally:
        for obj in (MODEL, MODEL_VERSION, RUNTIME):
            crd_server.delete(obj)


def test_kubectl_explain_tells_meaning_and_default(crd_server: Any) -> None:
    assert "Default: 10m" in crd_server.ok("explain", "model.spec.serving.startTimeout")
    assert "spec.version" not in crd_server.ok("explain", "clustermodelruntime.spec.container")
