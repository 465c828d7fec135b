"""Where each kind lives in the API."""

import pytest

from modelwright.kube import kinds


@pytest.mark.parametrize(
    ("found", "path"),
    [
        (kinds.SERVICE.path("ns", "a"), "/api/v1/namespaces/ns/services/a"),
        (kinds.SERVICE.path(), "/api/v1/services"),
        (kinds.MODEL.path("ns", "a", "status"), "/apis/modelwright.dev/v1alpha1/namespaces/ns/models/a/status"),
        (kinds.CLUSTER_MODEL_RUNTIME.path("ignored", "a"), "/apis/modelwright.dev/v1alpha1/clustermodelruntimes/a"),
        (kinds.DEPLOYMENT.path("ns"), "/apis/apps/v1/namespaces/ns/deployments"),
        (kinds.SERVICE.path("ns", "../x?y"), "/api/v1/namespaces/ns/services/..%2Fx%3Fy"),
    ],
)
def test_paths(found: str, path: str) -> None:
    assert found == path


@pytest.mark.parametrize("kind", kinds.ALL_KINDS, ids=str)
def test_an_object_tells_its_kind(kind: kinds.Kind) -> None:
    assert kinds.kind_of({"apiVersion": kind.api_version, "kind": kind.kind}) is kind


def test_an_older_version_of_a_group_is_the_same_kind() -> None:
    assert kinds.kind_of({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler"}).version == "v2"


@pytest.mark.parametrize("obj", [{}, {"apiVersion": "v1", "kind": "Secret"}, {"kind": "Model"}])
def test_an_unknown_kind_is_named(obj: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=repr(obj.get("kind", ""))):
        kinds.kind_of(obj)
