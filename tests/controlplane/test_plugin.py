"""The plugin as people run it: a process with their own kubeconfig, on a real API server with roles and policies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import pki
from tests.lib.control_plane import ROOT, Server
from tests.unit.cli import world

pytestmark = pytest.mark.controlplane

Object = dict[str, Any]
RBAC = "rbac.authorization.k8s.io"
PEOPLE = {
    "ann": ("approve",),
    "sven": ("command",),
    "tara": ("view", "edit"),
    "vic": ("view",),
    "zoe": (),
}
"""Who has which of the shipped roles, and nothing else."""
HASH = world.HASH
INFERENCE_SERVICES = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "inferenceservices.serving.kserve.io"},
    "spec": {
        "group": "serving.kserve.io",
        "names": {"kind": "InferenceService", "plural": "inferenceservices"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
IRIS = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "iris", "namespace": world.NS},
    "spec": {
        "predictor": {
            "minReplicas": 2,
            "maxReplicas": 4,
            "canaryTrafficPercent": 10,
            "model": {
                "modelFormat": {"name": "sklearn", "version": "1"},
                "storageUri": "gs://models/iris/1",
                "resources": {"requests": {"cpu": 1, "memory": "1Gi"}},
            },
        }
    },
}


def binding(user: str, role: str) -> Object:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"{user}-{role}", "namespace": world.NS},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": f"modelwright-{role}"},
        "subjects": [{"kind": "User", "name": user, "apiGroup": RBAC}],
    }


class People:
    """The plugin in the hands of each of them."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.authority = pki.Authority(server.plane.folder / "pki")

    def kubeconfig(self, user: str) -> Path:
        """One with a certificate of the user's own."""
        file = self.folder / user
        if not file.exists():
            pki.kubeconfig(file, self.server.plane.url, self.authority, self.authority.sign(user, user))
        return file

    def start(self, user: str, *arguments: str) -> subprocess.Popen[str]:
        command = [
            *(sys.executable, "-m", "modelwright.cli.plugin", *arguments),
            *("--kubeconfig", str(self.kubeconfig(user)), "--namespace", world.NS),
        ]
        environment = {
            **{key: value for key, value in os.environ.items() if key != "KUBECONFIG"},
            "KUBECTL": str(self.server.plane.kubectl),
            "PYTHONPATH": str(ROOT / "operator"),
        }
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def runs(self, user: str, *arguments: str) -> str:
        """What it prints; fails the test when it fails."""
        with self.start(user, *arguments) as process:
            out, err = process.communicate(timeout=120)
        assert process.returncode == 0, f"{user}: {arguments}\n{out}\n{err}"
        return out

    def refused(self, user: str, *arguments: str) -> str:
        """What it says when it is refused, which must be for people: no traceback, and no talk of standard input."""
        with self.start(user, *arguments) as process:
            out, err = process.communicate(timeout=120)
        assert process.returncode == 1, f"{user}: {arguments}\n{out}\n{err}"
        assert err.startswith("error: ")
        assert "Traceback" not in err
        assert "STDIN" not in err
        return err


@pytest.fixture(scope="module")
def people(crd_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    """A Model whose rollout waits for an approval, with a RetrainingPolicy, in a namespace with these people."""
    server = crd_server
    server.ok("create", "namespace", world.NS)
    server.ok("apply", "-k", str(ROOT / "manifests/rbac"))
    server.ok("apply", "-f", "-", objects=[binding(user, role) for user, roles in PEOPLE.items() for role in roles])
    waits = {**world.ON_ITS_WAY, "status": {**world.ON_ITS_WAY["status"], "state": "AwaitingApproval"}}
    for obj in world.namespace(waits):
        if obj["kind"] in ("Pod", "TrainingRun"):
            continue
        made = {**obj, "metadata": {"name": obj["metadata"]["name"], "namespace": world.NS}}
        status = made.pop("status", None)
        server.ok("create", "-f", "-", objects=made)
        if status is not None:
            line = ["patch", obj["kind"].lower(), made["metadata"]["name"], "-n", world.NS, "--subresource=status"]
            server.ok(*line, "--type=merge", "-p", json.dumps({"status": status}))
    yield People(server, tmp_path_factory.mktemp("kubeconfigs"))
    server.ok("delete", "mdl,mv,mro,apv,retrainingpolicies,trainingruns", "--all", "-n", world.NS)


def written(people: People, kind: str) -> list[Object]:
    found: list[Object] = json.loads(people.server.ok("get", kind, "-n", world.NS, "-o", "json"))["items"]
    return found


def test_who_approves_and_nothing_else_may_look_and_say_so(people: People) -> None:
    assert people.runs("ann", "why", "digits").endswith("reject digits.\n")
    assert "rollout digits-2  AwaitingApproval" in people.runs("ann", "status", "digits")
    name = json.loads(
        people.runs("ann", "approve", "digits", "--hash", HASH, "--reason", "figures", "--expires", "48h", "-o", "json")
    )["name"]
    given = next(obj for obj in written(people, "apv") if obj["metadata"]["name"] == name)
    record = people.server.get("mro", "digits-2", world.NS)["metadata"]
    assert given["spec"]["approver"] == "ann"
    assert given["spec"]["rollout"] == {"name": "digits-2", "uid": record["uid"]}
    assert given["metadata"]["ownerReferences"][0]["uid"] == record["uid"]
    assert "says Reject to digits-2" in people.runs("ann", "reject", "digits", "--hash", HASH, "--reason", "abroad")
    assert {obj["spec"]["decision"] for obj in written(people, "apv")} == {"Approve", "Reject"}


def test_what_was_not_looked_at_is_not_approved(people: People) -> None:
    before = written(people, "apv")
    said = people.refused("ann", "approve", "digits", "--hash", "another", "--reason", "x")
    assert f"has changed since it was reviewed: its content hash is {HASH}" in said
    assert f"--hash {HASH}" in people.refused("ann", "approve", "digits", "--reason", "x")
    assert written(people, "apv") == before


@pytest.mark.parametrize("word", ["approve", "reject"])
@pytest.mark.parametrize("user", ["sven", "tara", "vic"])
def test_who_has_not_the_role_is_told_which(people: People, user: str, word: str) -> None:
    said = people.refused(user, word, "digits", "--hash", HASH, "--reason", "x")
    assert f'User "{user}" cannot create resource "approvals"' in said
    assert f"{word} needs the role modelwright-approve" in said


def test_an_approver_without_the_verb_is_refused_by_the_policy(people: People) -> None:
    rules = [{"apiGroups": ["modelwright.dev"], "resources": ["approvals"], "verbs": ["create"]}]
    place = {"name": "half", "namespace": world.NS}
    role = {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": place, "rules": rules}
    bound = binding("hal", "view")
    half = {**binding("hal", "half"), "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "half"}}
    people.server.ok("apply", "-f", "-", objects=[role, bound, half])
    said = people.refused("hal", "approve", "digits", "--hash", HASH, "--reason", "x")
    assert 'for the Model "digits", you ("hal") need the verb "approve" on it' in said


def test_a_run_is_asked_for_in_the_users_own_name(people: People) -> None:
    name = json.loads(people.runs("tara", "retrain", "digits", "--reason", "labels are in", "-o", "json"))["name"]
    run = people.server.get("trainingrun", name, world.NS)
    assert run["spec"]["manual"] == {"by": "tara", "reason": "labels are in"}
    assert run["spec"]["policyRef"] == {"name": "digits"}
    assert name in people.runs("vic", "status", "digits")


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ("vic", 'User "vic" cannot create resource "trainingruns"'),
        ("sven", 'User "sven" cannot list resource "retrainingpolicies"'),
    ],
)
def test_who_may_not_train_is_told(people: People, user: str, says: str) -> None:
    said = people.refused(user, "retrain", "digits", "--reason", "x")
    assert says in said
    assert "retrain needs the roles modelwright-view and modelwright-edit" in said


def test_a_command_is_written_and_its_answer_told(people: People) -> None:
    """The operator is played here: it answers what it finds in the record."""
    with people.start("sven", "pause", "digits", "--reason", "a complaint") as process:
        end = time.monotonic() + 60
        while (given := people.server.get("mro", "digits-2", world.NS)["spec"].get("command")) is None:
            assert time.monotonic() < end, "no command was written"
            assert process.poll() is None, process.communicate()
        answer = {**given, "at": "2026-11-26T12:00:00Z", "accepted": True, "message": "paused at step 1"}
        people.server.ok(
            *("patch", "mro", "digits-2", "-n", world.NS, "--subresource=status", "--type=merge"),
            *("-p", json.dumps({"status": {"commands": [answer]}})),
        )
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "pause of digits-2: paused at step 1\n", "")
    assert given["by"] == "sven"
    said = people.refused("vic", "abort", "digits", "--reason", "x")
    assert 'User "vic" cannot patch resource "modelrollouts"' in said
    assert "abort needs the role modelwright-command" in said


def test_going_back_by_hand_is_for_who_commands(people: People) -> None:
    told = json.loads(people.runs("sven", "rollback", "digits", "--reason", "wrong answers", "-o", "json"))
    assert people.server.get("mro", told["name"], world.NS)["spec"]["rollback"]["by"] == "sven"
    people.server.ok("delete", "mro", told["name"], "-n", world.NS)
    assert "cannot create resource" in people.refused("tara", "rollback", "digits", "--reason", "x")


def test_who_may_see_nothing_is_told_what_looking_needs(people: People) -> None:
    said = people.refused("zoe", "status", "digits")
    assert 'User "zoe" cannot list resource "models"' in said
    assert "status needs the role modelwright-view" in said


def test_what_is_imported_from_kserve_is_what_the_server_accepts(people: People, tmp_path: Path) -> None:
    server = people.server
    server.ok("create", "-f", "-", objects=INFERENCE_SERVICES)
    server.ok("wait", "--for=condition=Established", "--timeout=30s", "crd/inferenceservices.serving.kserve.io")
    reader = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "Role",
        "metadata": {"name": "kserve", "namespace": world.NS},
        "rules": [{"apiGroups": ["serving.kserve.io"], "resources": ["inferenceservices"], "verbs": ["get", "list"]}],
    }
    bound = {**binding("tara", "kserve"), "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "kserve"}}
    server.ok("apply", "-f", "-", objects=[reader, bound, IRIS])
    file = tmp_path / "iris.yaml"
    file.write_text(yaml.safe_dump(IRIS))
    gateway = ("--gateway", "gateways/models", "--domain", "example.com")
    for arguments in (["iris", *gateway], [str(file)], [str(file), "-o", "json"]):
        manifests = people.runs("tara", "import", "kserve", *arguments)
        applied = subprocess.run(
            [server.plane.kubectl, "--kubeconfig", people.kubeconfig("tara"), "apply", "--dry-run=server", "-f", "-"],
            input=manifests,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert applied.returncode == 0, applied.stderr
        assert applied.stdout.splitlines() == [
            "modelversion.modelwright.dev/iris-1 created (server dry run)",
            "rolloutpolicy.modelwright.dev/iris created (server dry run)",
            "model.modelwright.dev/iris created (server dry run)",
        ]
    said = people.refused("vic", "import", "kserve")
    assert 'cannot list resource "inferenceservices"' in said
    assert "import needs get and list on inferenceservices.serving.kserve.io" in said
