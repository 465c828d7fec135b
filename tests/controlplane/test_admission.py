"""The admission policy for authors on a real API server: own name, no name, or the verb `attribute` on the Model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.lib import objects

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


KINDS = ("models", "modelruntimes", "rolloutpolicies", "retrainingpolicies")
EDIT = {"apiGroups": ["modelwright.dev"], "resources": [*KINDS, "clustermodelruntimes", "modelversions"]}
VERBS = ["create", "get", "list", "patch", "update", "delete"]
TRAINING = {
    "dataset": {"uri": "s3://data/digits"},
    "train": {"job": {"template": {"spec": {"containers": [{"name": "train", "image": "x"}]}}}},
    "output": {"uri": "s3://models/digits", "format": {"name": "plain"}},
}
OBJECTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "models": (
        objects.model(NAMESPACE),
        {"serving": {"drainSeconds": 7}},
        {"suspend": True, "serving": {"replicas": 3}},
    ),
    "modelruntimes": (objects.runtime(namespace=NAMESPACE), {"modelPath": "/mnt/other"}, {}),
    "clustermodelruntimes": (objects.runtime(), {"modelPath": "/mnt/other"}, {}),
    "rolloutpolicies": (
        {"kind": "RolloutPolicy", "metadata": {"name": "p"}, "spec": {"strategy": {"preset": "Rolling"}}},
        {"deadline": "2h"},
        {},
    ),
    "retrainingpolicies": (
        {"kind": "RetrainingPolicy", "metadata": {"name": "p"}, "spec": {"modelRef": {"name": "d"}, "run": TRAINING}},
        {"run": {"seed": 7}},
        {"suspend": True},
    ),
}
"""Of each kind an object, an edit of what approvals are about, and one of something else."""


@pytest.fixture(scope="module")
def editors(crd_server: Any) -> None:
    rules = [
        EDIT | {"verbs": VERBS},
        {"apiGroups": ["apps", "batch", ""], "resources": ["deployments", "jobs", "pods"], "verbs": ["create"]},
    ]
    attribute = EDIT | {"verbs": [*VERBS, "attribute"]}
    api = "rbac.authorization.k8s.io"
    found: list[dict[str, Any]] = []
    for name, users, first in (("edits", ("ann", "ben"), rules[0]), ("attributes", ("argo",), attribute)):
        found.append(
            {"apiVersion": f"{api}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": [first, rules[1]]}
        )
        found.append(
            {
                "apiVersion": f"{api}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": name},
                "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": name},
                "subjects": [{"kind": "User", "name": user, "apiGroup": api} for user in users],
            }
        )
    crd_server.ok("apply", "-f", "-", objects=found)


@pytest.mark.parametrize("plural", OBJECTS)
def test_who_changes_something_is_who_it_says_or_nobody(crd_server: Any, editors: None, plural: str) -> None:
    body, covered, other = OBJECTS[plural]
    obj = {"apiVersion": "modelwright.dev/v1alpha1", **body}
    if plural != "clustermodelruntimes":
        obj["metadata"] = {**obj["metadata"], "namespace": NAMESPACE}
    place = [] if plural == "clustermodelruntimes" else ["-n", NAMESPACE]
    name = obj["metadata"]["name"]

    def edit(user: str, **spec: Any) -> str:
        line = ["patch", f"{plural}.modelwright.dev", name, *place, "--type=merge", "-p", json.dumps({"spec": spec})]
        answer = crd_server.run(*line, user=user)
        return "" if answer.returncode == 0 else str(answer.stderr)

    forged = {**obj, "spec": {**obj["spec"], "changedBy": "ben"}}
    answer = crd_server.run("create", "-f", "-", objects=forged, user="ann")
    assert 'spec.changedBy is "ben", but you are "ann"' in answer.stderr
    signed = {**obj, "spec": {**obj["spec"], "changedBy": "ann"}}
    crd_server.ok("create", "-f", "-", objects=signed, user="ann")
    try:
        # An edit of what approvals are about needs the editor's own name, or none.
        assert 'spec.changedBy is "ann", but you are "ben"' in edit("ben", **covered)
        assert edit("ann", **covered) == ""
        assert not other or edit("ben", **other) == ""
        crd_server.ok("label", f"{plural}.modelwright.dev", name, *place, "a=b", user="ben")
        assert edit("ben", changedBy=None) == ""
        assert 'spec.changedBy is "ann", but you are "ben"' in edit("ben", changedBy="ann")
        assert edit("ben", changedBy="ben") == ""
        # Who may attribute writes what comes from elsewhere, such as Git.
        assert edit("argo", changedBy="dora") == ""
        assert "modelwright:nobody" in edit("argo", changedBy="modelwright:nobody")
    finally:
        crd_server.run("delete", f"{plural}.modelwright.dev", name, *place)


def test_further_authors_are_the_writers_own_name_too(crd_server: Any) -> None:
    for user, names, allowed in (
        ("alice", ["alice"], True),
        ("alice", ["alice", "bob"], False),
        ("ci", ["alice", "bob"], True),
    ):
        obj = version("authored", "digits", "alice")
        obj["spec"]["authors"] = names
        answer = crd_server.run("create", "--dry-run=server", "-f", "-", objects=obj, user=user)
        assert (answer.returncode == 0) == allowed, answer.stderr
        if not allowed:
            assert 'spec.authors names "bob", but you are "alice"' in answer.stderr
