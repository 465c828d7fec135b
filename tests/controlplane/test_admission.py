"""The admission policy for authors on a real API server: own name, no name, or the verb `attribute` on the Model."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.controlplane

NAMESPACE = "default"


def version(name: str, model: str, author: str | None) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "modelRef": {"name": model},
        "artifact": {"uri": "s3://models/1", "format": {"name": "sklearn"}},
    }
    if author is not None:
        spec["author"] = author
    return {
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "ModelVersion",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }


def role(name: str, user: str, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    metadata = {"name": name, "namespace": NAMESPACE}
    api = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": api, "kind": "Role", "name": name},
            "subjects": [{"kind": "User", "name": user, "apiGroup": api}],
        },
    ]


WRITE = {
    "apiGroups": ["modelwright.dev"],
    "resources": ["modelversions"],
    "verbs": ["create", "get", "patch", "update"],
}
ATTRIBUTE = {
    "apiGroups": ["modelwright.dev"],
    "resources": ["models"],
    "resourceNames": ["digits"],
    "verbs": ["attribute"],
}


@pytest.fixture(scope="module", autouse=True)
def users(crd_server: Any) -> None:
    crd_server.ok("apply", "-f", "-", objects=[*role("alice", "alice", [WRITE]), *role("ci", "ci", [WRITE, ATTRIBUTE])])


@pytest.mark.parametrize(
    ("user", "model", "author", "allowed"),
    [
        ("alice", "digits", "alice", True),
        ("alice", "digits", None, True),
        ("alice", "digits", "bob", False),
        ("alice", "digits", "ci", False),
        ("ci", "digits", "alice", True),
        ("ci", "digits", "ci", True),
        ("ci", "letters", "alice", False),
        ("ci", "letters", "ci", True),
    ],
)
def test_authors(crd_server: Any, user: str, model: str, author: str | None, allowed: bool) -> None:
    obj = version("authored", model, author)
    answer = crd_server.run("create", "--dry-run=server", "-f", "-", objects=obj, user=user)
    assert (answer.returncode == 0) == allowed, answer.stderr
    if not allowed:
        assert f'spec.author is "{author}", but you are "{user}"' in answer.stderr
        assert f'verb "attribute" on the Model "{model}"' in answer.stderr


def test_an_author_cannot_be_forged_by_an_update(crd_server: Any) -> None:
    obj = version("updated", "digits", None)
    crd_server.ok("create", "-f", "-", objects=obj, user="alice")
    try:
        patch = ["--type=merge", "-p", '{"spec":{"author":"bob"}}']
        answer = crd_server.run("patch", "mv", "updated", *patch, user="alice")
        assert "spec.author is immutable" in answer.stderr
    finally:
        crd_server.delete(obj)


def test_server_side_apply_is_asked_too(crd_server: Any) -> None:
    obj = version("applied", "digits", "bob")
    answer = crd_server.run("apply", "--server-side", "-f", "-", objects=obj, user="alice")
    assert 'spec.author is "bob", but you are "alice"' in answer.stderr
