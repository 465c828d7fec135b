"""The reads of the end-to-end tests: what this process asks the API server itself is what kubectl gives."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from demo.kubectl import Json, Kubectl, KubectlError
from tests.e2e.lib.reader import Reader
from tests.lib import objects
from tests.lib.control_plane import Server

pytestmark = pytest.mark.controlplane

NAMESPACE = "reader"


@pytest.fixture(scope="module")
def pair(crd_server: Server) -> tuple[Kubectl, Reader]:
    crd_server.ok("create", "namespace", NAMESPACE)
    crd_server.ok("create", "configmap", "plain", "-n", NAMESPACE, "--from-literal=a=b")
    crd_server.ok("label", "configmap", "plain", "-n", NAMESPACE, "team=vision")
    crd_server.ok("create", "configmap", "other", "-n", NAMESPACE)
    crd_server.ok("apply", "-f", "-", objects=[objects.version(NAMESPACE, "v1"), objects.model(NAMESPACE)])
    where = (crd_server.plane.kubectl, crd_server.plane.kubeconfig)
    return Kubectl(*where), Reader(*where)


@pytest.fixture
def no_kubectl() -> object:
    with mock.patch.object(Kubectl, "run", side_effect=AssertionError("kubectl was started")) as run:
        yield run


@pytest.mark.parametrize(
    ("kind", "name", "namespace"),
    [
        ("models.modelwright.dev", "digits", NAMESPACE),
        ("models.modelwright.dev", "nobody", NAMESPACE),
        ("configmaps", "plain", NAMESPACE),
        ("configmaps", "plain", "no-such-namespace"),
        ("namespaces", NAMESPACE, None),
    ],
)
def test_an_object_is_what_kubectl_says(
    pair: tuple[Kubectl, Reader], kind: str, name: str, namespace: str | None, request: pytest.FixtureRequest
) -> None:
    said = pair[0].get(kind, name, namespace)
    request.getfixturevalue("no_kubectl")
    assert pair[1].get(kind, name, namespace) == said
    assert (said is None) is (name == "nobody" or namespace == "no-such-namespace")


@pytest.mark.parametrize(
    ("kind", "namespace", "labels", "some"),
    [
        ("modelversions.modelwright.dev", NAMESPACE, None, True),
        ("configmaps", NAMESPACE, "team=vision", True),
        ("configmaps", NAMESPACE, "team in (nobody)", False),
        ("configmaps", "no-such-namespace", None, False),
        ("models.modelwright.dev", None, None, True),
    ],
)
def test_a_list_is_what_kubectl_says(
    pair: tuple[Kubectl, Reader],
    kind: str,
    namespace: str | None,
    labels: str | None,
    some: bool,
    request: pytest.FixtureRequest,
) -> None:
    said = pair[0].items(kind, namespace, labels)
    request.getfixturevalue("no_kubectl")
    found = pair[1].items(kind, namespace, labels)
    assert [_named(each) for each in found] == [_named(each) for each in said]
    assert found == said
    assert bool(found) is some


def _named(obj: Json) -> str:
    return f"{obj['apiVersion']} {obj['kind']} {obj['metadata']['name']}"


def test_short_names_are_asked_of_kubectl_and_its_refusals_stay(pair: tuple[Kubectl, Reader]) -> None:
    _, reader = pair
    assert (reader.get("cm", "plain", NAMESPACE) or {})["data"] == {"a": "b"}
    with pytest.raises(KubectlError, match="the server doesn't have a resource type"):
        reader.get("nothings.example.com", "x", NAMESPACE)
    with pytest.raises(KubectlError, match="BadRequest"):
        reader.items("configmaps", NAMESPACE, "a=b=c")


def test_without_a_client_certificate_kubectl_is_asked(pair: tuple[Kubectl, Reader], tmp_path: Path) -> None:
    other = tmp_path / "kubeconfig"
    text = pair[1].kubeconfig.read_text().replace("client-certificate-data", "username")
    other.write_text(text)
    with mock.patch.object(Kubectl, "run", return_value="") as run:
        assert Reader(pair[1].binary, other).get("configmaps", "plain", NAMESPACE) is None
    run.assert_called_once()
