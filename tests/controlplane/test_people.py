"""Who may approve, command and go back by hand, on a real API server; and what the operator makes of their words."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelwright.api.v1alpha1 import Approval, ModelRollout, ModelVersion
from modelwright.core import approvals
from modelwright.core.authors import Authors
from modelwright.core.revision import Revision
from modelwright.kube.client import KubeClient, load_configuration
from modelwright.obs.clock import SystemClock
from modelwright.reconcile.admission_check import FORGED_USER, AdmissionCheck
from tests.lib import objects
from tests.lib.control_plane import ROOT, Server
from tests.lib.people_rights import RBAC, Object, tried
from tests.packaging.render import objects as documents

pytestmark = pytest.mark.controlplane

NAMESPACE = "people"
COMMANDS = ("pause", "resume", "promote", "abort", "retry", "release")
OPERATOR = "system:serviceaccount:people:modelwright"
ROBIN = ("view", "approve", "command", "edit")


def role(user: str, *rules: Object) -> list[Object]:
    metadata = {"name": user.rsplit(":", 1)[-1], "namespace": NAMESPACE}
    return [
        {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": metadata, "rules": list(rules)},
        binding(user, "Role", metadata["name"]),
    ]


def binding(user: str, kind: str, name: str) -> Object:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"{user.rsplit(':', 1)[-1]}-{name}", "namespace": NAMESPACE},
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": name},
        "subjects": [{"kind": "User", "name": user, "apiGroup": RBAC}],
    }


def rule(resource: str, *verbs: str, names: tuple[str, ...] = ()) -> Object:
    found: Object = {"apiGroups": ["modelwright.dev"], "resources": [resource], "verbs": list(verbs)}
    return found | ({"resourceNames": list(names)} if names else {})


@pytest.fixture(scope="module", autouse=True)
def users(crd_server: Server) -> None:
    """alice approves for fraud, carol for all; sven steers; pat may only pause fraud; eve edits; the operator."""
    server = crd_server
    server.ok("create", "namespace", NAMESPACE)
    server.ok("apply", "-k", str(ROOT / "manifests/rbac"))
    installed = documents((ROOT / "manifests/install/namespaced/rbac.yaml").read_text())
    operator = next(o for o in installed if o["kind"] == "Role")
    server.ok(
        "apply",
        "-f",
        "-",
        objects=[
            *role("alice", rule("models", "approve", names=("fraud",)), rule("approvals", "create", "get", "patch")),
            binding("carol", "ClusterRole", "modelwright-approve"),
            binding("sven", "ClusterRole", "modelwright-command"),
            *role("pat", rule("models", "pause", names=("fraud",)), rule("modelrollouts", "get", "patch", "create")),
            binding("eve", "ClusterRole", "modelwright-edit"),
            binding("eve", "ClusterRole", "modelwright-view"),
            binding("ann", "ClusterRole", "modelwright-admin"),
            *role(OPERATOR, *operator["rules"]),
        ],
    )


def approval(name: str = "looked-at", *, approver: str, model: str = "fraud", **spec: Any) -> Object:
    return {
        "apiVersion": objects.API_VERSION,
        "kind": "Approval",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "modelRef": {"name": model},
            "rollout": {"name": f"{model}-1", "uid": "u"},
            "contentHash": "abc",
            "decision": "Approve",
            "approver": approver,
            "reason": "figures are good",
            **spec,
        },
    }


def rollout(name: str = "fraud-1", *, model: str = "fraud", **spec: Any) -> Object:
    return {
        "apiVersion": objects.API_VERSION,
        "kind": "ModelRollout",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"modelRef": {"name": model}, "target": {"version": f"{model}-v2"}, **spec},
    }


def command(name: str, by: str, token: str = "1") -> Object:
    return {"name": name, "token": token, "by": by, "reason": "as agreed"}


def patched(server: Server, patch: Object, user: str | None, *arguments: str, name: str = "fraud-1") -> str:
    """What the API server says against this merge patch of a ModelRollout; nothing when it was done."""
    line = ["patch", "mro", name, "-n", NAMESPACE, "--type=merge", "-p", json.dumps(patch), *arguments]
    answer = server.run(*line, user=user)
    return "" if answer.returncode == 0 else answer.stderr


@pytest.fixture
def record(crd_server: Server) -> Iterator[Object]:
    """A ModelRollout as the operator makes it."""
    crd_server.ok("create", "-f", "-", objects=rollout(number=1, modelUid="m"), user=OPERATOR)
    yield crd_server.get("mro", "fraud-1", NAMESPACE)
    crd_server.ok("delete", "mro", "--all", "-n", NAMESPACE)


@pytest.mark.parametrize(
    ("user", "written", "model", "refusal"),
    [
        ("alice", "alice", "fraud", ""),
        ("carol", "carol", "digits", ""),
        ("alice", "carol", "fraud", 'spec.approver is "carol", but you are "alice"'),
        ("alice", "alice", "digits", 'for the Model "digits", you ("alice") need the verb "approve" on it'),
        ("sven", "sven", "fraud", 'cannot create resource "approvals"'),
        ("eve", "eve", "fraud", 'cannot create resource "approvals"'),
        (None, "alice", "fraud", 'spec.approver is "alice", but you are'),
        (OPERATOR, OPERATOR, "fraud", 'need the verb "approve" on it'),
    ],
)
def test_an_approval_is_the_approvers_own_and_needs_the_verb(
    crd_server: Server, user: str | None, written: str, model: str, refusal: str
) -> None:
    said = tried(crd_server, approval(approver=written, model=model), user)
    assert refusal in said
    assert bool(said) == bool(refusal), said


def test_an_approval_is_never_changed(crd_server: Server) -> None:
    obj = approval(approver="alice")
    crd_server.ok("create", "-f", "-", objects=obj, user="alice")
    try:
        for patch in ({"decision": "Reject"}, {"contentHash": "other"}, {"approver": "carol"}):
            line = ["patch", "apv", "looked-at", "-n", NAMESPACE, "--type=merge", "-p", json.dumps({"spec": patch})]
            assert "spec of an Approval is immutable" in crd_server.run(*line, user="alice").stderr
    finally:
        crd_server.delete(obj)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_given_by_who_has_its_verb(crd_server: Server, record: Object, name: str) -> None:
    assert patched(crd_server, {"spec": {"command": command(name, "sven")}}, "sven") == ""
    said = patched(crd_server, {"spec": {"command": command(name, "pat", "2")}}, "pat")
    if name == "pause":
        assert said == ""
    else:
        assert f'to {name} a rollout of the Model "fraud", you ("pat") need the verb "{name}" on it' in said


@pytest.mark.parametrize(
    ("user", "spec", "refusal"),
    [
        ("sven", {"command": command("abort", "pat", "2")}, 'spec.command.by is "pat", but you are "sven"'),
        (None, {"command": command("abort", "sven", "2")}, 'spec.command.by is "sven", but you are'),
        ("sven", {"command": command("abort", "sven", "1")}, 'spec.command.token "1" was used before'),
        ("sven", {"command": command("abort", "sven", "0")}, 'spec.command.token "0" was used before'),
        ("sven", {"command": {"reason": "reworded"}}, 'spec.command.token "1" was used before'),
        ("sven", {"command": None}, "spec.command is a person's request"),
        ("sven", {"target": {"version": "fraud-v9"}}, "spec of a ModelRollout is immutable, but for spec.command"),
        (OPERATOR, {"command": command("abort", OPERATOR, "2")}, 'cannot patch resource "modelrollouts"'),
        ("eve", {"command": command("abort", "eve", "2")}, 'cannot patch resource "modelrollouts"'),
    ],
)
def test_a_record_takes_nothing_but_commands_in_ones_own_name(
    crd_server: Server, record: Object, user: str | None, spec: Object, refusal: str
) -> None:
    assert patched(crd_server, {"spec": {"command": command("pause", "sven")}}, "sven") == ""
    handled = {"name": "pause", "token": "0", "by": "sven", "at": "2026-11-21T00:00:00Z", "accepted": True}
    assert patched(crd_server, {"status": {"commands": [handled]}}, None, "--subresource=status") == ""
    assert refusal in patched(crd_server, {"spec": spec}, user)


def test_the_same_command_applied_again_is_no_new_one(crd_server: Server, record: Object) -> None:
    given = {"spec": {"command": command("pause", "sven")}}
    assert patched(crd_server, given, "sven") == ""
    assert patched(crd_server, {**given, "metadata": {"labels": {"seen": "yes"}}}, "pat") == ""


def test_only_who_may_delete_a_record_may_have_it_collected(crd_server: Server, record: Object) -> None:
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "gone"}
    for metadata in ({"ownerReferences": [owner]}, {"finalizers": ["example.com/never"]}):
        said = patched(crd_server, {"metadata": metadata}, "sven")
        assert "only users who may delete this ModelRollout" in said
    assert patched(crd_server, {"metadata": {"labels": {"mine": "yes"}}}, "sven") == ""
    assert patched(crd_server, {"metadata": {"ownerReferences": [owner]}}, None) == ""


@pytest.mark.parametrize("verb", ["delete", "deletecollection"])
def test_neither_edit_nor_command_can_end_a_quarantine_by_deleting_its_record(crd_server: Server, verb: str) -> None:
    for user, may in (("eve", "no"), ("sven", "no"), ("carol", "no"), ("ann", "yes")):
        for resource in ("modelrollouts", "approvals"):
            asked = ["auth", "can-i", verb, f"{resource}.modelwright.dev", "-n", NAMESPACE]
            assert crd_server.run(*asked, user=user).stdout.strip() == may, (user, resource)


@pytest.mark.parametrize("user", ["alice", "carol", "sven", "pat", "eve", "ann"])
def test_status_is_the_operators_alone(crd_server: Server, record: Object, user: str) -> None:
    said = patched(crd_server, {"status": {"state": "Succeeded"}}, user, "--subresource=status")
    assert "Forbidden" in said
    assert patched(crd_server, {"status": {"state": "Succeeded"}}, user) != "" or not crd_server.get(
        "mro", "fraud-1", NAMESPACE
    ).get("status", {}).get("state")


def test_a_status_that_comes_with_a_new_record_is_dropped(crd_server: Server) -> None:
    by_hand = rollout("back", rollback={"by": "sven", "reason": "errors"}) | {"status": {"state": "RolledBack"}}
    crd_server.ok("create", "-f", "-", objects=by_hand, user="sven")
    try:
        assert "status" not in crd_server.get("mro", "back", NAMESPACE)
    finally:
        crd_server.delete(by_hand)


@pytest.mark.parametrize(
    ("user", "spec", "refusal"),
    [
        ("sven", {"rollback": {"by": "sven", "reason": "errors"}}, ""),
        ("sven", {"rollback": {"by": "pat", "reason": "errors"}}, 'spec.rollback.by is "pat", but you are "sven"'),
        (None, {"rollback": {"by": "sven", "reason": "errors"}}, 'spec.rollback.by is "sven", but you are'),
        ("pat", {"rollback": {"by": "pat", "reason": "errors"}}, 'you ("pat") need the verb "rollback" on it'),
        ("eve", {"rollback": {"by": "eve", "reason": "errors"}}, 'cannot create resource "modelrollouts"'),
        (
            "sven",
            {"rollback": {"by": "sven", "reason": "errors"}, "command": command("release", "pat")},
            'spec.command.by is "pat", but you are "sven"',
        ),
        ("sven", {"number": 7}, "spec.number and spec.modelUid are the operator's"),
        ("sven", {"rollback": {"by": "sven", "reason": "x"}, "modelUid": "m"}, "spec.number and spec.modelUid are"),
        ("sven", {}, "spec.rollback (who goes back, and why) is needed"),
        (OPERATOR, {"number": 7, "modelUid": "m"}, ""),
        (OPERATOR, {"rollback": {"by": OPERATOR, "reason": "x"}}, 'need the verb "rollback" on it'),
        (OPERATOR, {"number": 7, "command": command("promote", OPERATOR)}, 'need the verb "promote" on it'),
    ],
)
def test_a_manual_rollback_is_in_the_users_own_name(
    crd_server: Server, user: str | None, spec: Object, refusal: str
) -> None:
    said = tried(crd_server, rollout("by-hand", **spec), user)
    assert refusal in said
    assert bool(said) == bool(refusal), said


def words(server: Server, rollout: Object, content_hash: str, *, author: str = "dora") -> Any:
    """What the operator makes of the Approvals that the API server holds."""
    found = json.loads(server.ok("get", "apv", "-n", NAMESPACE, "-o", "json"))["items"]
    record = ModelRollout.parse(rollout)
    now = record.metadata.creation_timestamp
    assert now is not None
    return approvals.evaluate_approvals(
        [Approval.parse(obj) for obj in found],
        rollout=record,
        content_hash=content_hash,
        authors=Authors((author,)),
        required=2,
        now=SystemClock().now(),
        since=now,
    )


def test_two_people_approve_and_an_edited_version_asks_them_again(crd_server: Server, record: Object) -> None:
    version = objects.version(NAMESPACE, "fraud-v2", "fraud")
    edited = objects.version(NAMESPACE, "fraud-v2", "fraud", digest="sha256:" + "1" * 64)
    before, after = (hash_of(obj) for obj in (version, edited))
    bound = {"rollout": {"name": "fraud-1", "uid": record["metadata"]["uid"]}, "contentHash": before}
    try:
        crd_server.ok("create", "-f", "-", objects=approval("one", approver="alice", **bound), user="alice")
        waiting = words(crd_server, record, before)
        assert "1 of 2 different approvers: approved by alice; 1 missing" in waiting.message
        crd_server.ok("create", "-f", "-", objects=approval("two", approver="alice", **bound), user="alice")
        assert isinstance(words(crd_server, record, before), approvals.ApprovalsMissing)
        crd_server.ok("create", "-f", "-", objects=approval("three", approver="carol", **bound), user="carol")
        assert isinstance(words(crd_server, record, before), approvals.Approved)
        own = words(crd_server, record, before, author="carol")
        assert "three of carol is an author's own" in own.message
        assert "one of alice was given for another content" in words(crd_server, record, after).message
        rejection = approval("four", approver="carol", **bound, decision="Reject")
        crd_server.ok("create", "-f", "-", objects=rejection, user="carol")
        assert isinstance(words(crd_server, record, before), approvals.Rejected)
    finally:
        crd_server.ok("delete", "apv", "--all", "-n", NAMESPACE)


def hash_of(version: Object) -> str:
    spec = ModelVersion.parse(version).spec
    return approvals.approval_content_hash(Revision("fraud-v2", "r"), spec, spec.artifact.digest, {"deadline": "1h"})


async def eventually(check: AdmissionCheck, holds: Callable[[], bool], seconds: float = 30) -> None:
    """Policies come into force, and go, a moment after they are written."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, check.admission(NAMESPACE)
        await check.check_cluster()


@pytest.mark.parametrize(
    ("policy", "named"),
    [
        ("approval", "Approvals"),
        ("rollout", "ModelRollouts"),
        ("author", "ModelVersions"),
        ("children", "ControllerRevisions"),
    ],
)
async def test_the_operator_sees_a_policy_go_and_come_back(
    crd_server: Server, client: KubeClient, policy: str, named: str
) -> None:
    changes = []
    check = AdmissionCheck(client, SystemClock(), ["no-such", NAMESPACE], changed=lambda _: changes.append(1))
    assert check.admission(NAMESPACE).in_force is None
    await eventually(check, lambda: check.admission(NAMESPACE).in_force is True)
    assert check.admission(NAMESPACE).since is None
    file = str(ROOT / f"manifests/policies/{policy}.yaml")
    try:
        crd_server.ok("delete", "-f", file)
        await eventually(check, lambda: check.admission(NAMESPACE).in_force is False)
        assert f"lets any user write {named} in the name of others" in check.admission(NAMESPACE).problem
    finally:
        crd_server.ok("apply", "-f", file)
        await eventually(check, lambda: check.admission(NAMESPACE).in_force is True)
    assert check.admission(NAMESPACE).since is not None
    assert len(changes) == 3
    assert not json.loads(crd_server.ok("get", "apv,mro,mv", "-n", NAMESPACE, "-o", "json"))["items"]


async def test_a_policy_that_only_warns_is_as_good_as_none(crd_server: Server, client: KubeClient) -> None:
    check = AdmissionCheck(client, SystemClock(), [NAMESPACE])
    binding_ = "validatingadmissionpolicybinding/modelwright-approval"
    crd_server.ok("patch", binding_, "--type=merge", "-p", '{"spec":{"validationActions":["Warn"]}}')
    try:
        await eventually(check, lambda: check.admission(NAMESPACE).in_force is False)
    finally:
        crd_server.ok("patch", binding_, "--type=merge", "-p", '{"spec":{"validationActions":["Deny"]}}')
        await eventually(check, lambda: check.admission(NAMESPACE).in_force is True)


async def test_an_operator_that_may_not_ask_honours_nobody(crd_server: Server) -> None:
    configuration = await load_configuration(str(crd_server.plane.kubeconfig))
    client = KubeClient(configuration, qps=1000, burst=1000)
    client._api.default_headers["Impersonate-User"] = "eve"
    try:
        check = AdmissionCheck(client, SystemClock(), [NAMESPACE])
        assert await check.check_cluster()
        assert check.admission(NAMESPACE).in_force is False
        assert 'cannot create resource "approvals"' in check.admission(NAMESPACE).problem
    finally:
        await client.close()


async def test_the_installed_role_is_enough_to_ask(crd_server: Server) -> None:
    configuration = await load_configuration(str(crd_server.plane.kubeconfig))
    client = KubeClient(configuration, qps=1000, burst=1000)
    client._api.default_headers["Impersonate-User"] = OPERATOR
    try:
        check = AdmissionCheck(client, SystemClock(), [NAMESPACE])
        await eventually(check, lambda: check.admission(NAMESPACE).in_force is True)
    finally:
        await client.close()


def test_the_reserved_name_is_nobodys(crd_server: Server) -> None:
    obj = objects.version(NAMESPACE, "forged", "fraud")
    obj["spec"]["author"] = FORGED_USER
    assert f'spec.author is "{FORGED_USER}"' in tried(crd_server, obj, None)
    model = objects.model(NAMESPACE, changedBy=FORGED_USER)
    assert f'spec.changedBy is "{FORGED_USER}"' in tried(crd_server, model, None)


def test_every_line_of_the_how_to_works_as_it_is_written(crd_server: Server, tmp_path: Path) -> None:
    text = (ROOT / "docs/how-to/approvals.md").read_text()
    roles = [obj for block in blocks(text, "yaml") for obj in documents(block)]
    crd_server.ok("create", "--dry-run=server", "-n", NAMESPACE, "-f", "-", objects=roles)
    crd_server.ok("apply", "-f", "-", objects=[binding("robin", "ClusterRole", f"modelwright-{n}") for n in ROBIN])
    crd_server.ok("create", "-f", "-", objects=rollout("digits-3", model="digits", number=3), user=OPERATOR)
    crd_server.ok("create", "-f", "-", objects=objects.version(NAMESPACE, "digits-v2"))
    crd_server.ok("create", "-f", "-", objects=objects.model(NAMESPACE))
    status = {"status": {"contentHash": "abc"}}
    assert patched(crd_server, status, None, "--subresource=status", name="digits-3") == ""
    kubectl = tmp_path / "kubectl"
    plane = crd_server.plane
    kubectl.write_text(
        f'#!/bin/sh\nexec {plane.kubectl} --kubeconfig {plane.kubeconfig} -n {NAMESPACE} --as robin "$@"\n'
    )
    kubectl.chmod(0o755)
    try:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(blocks(text, "sh"))],
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        given = json.loads(crd_server.ok("get", "apv", "-n", NAMESPACE, "-o", "json"))["items"]
        uid = crd_server.get("mro", "digits-3", NAMESPACE)["metadata"]["uid"]
        assert {a["spec"]["decision"] for a in given} == {"Approve", "Reject"}
        assert {(a["spec"]["contentHash"], a["spec"]["rollout"]["uid"]) for a in given} == {("abc", uid)}
        records = json.loads(crd_server.ok("get", "mro", "-n", NAMESPACE, "-o", "json"))["items"]
        assert sorted(r["spec"]["command"]["name"] for r in records) == ["release", "retry"]
        assert crd_server.get("mdl", "digits", NAMESPACE)["spec"]["changedBy"] == "robin"
    finally:
        crd_server.ok("delete", "apv,mro,mv,mdl", "--all", "-n", NAMESPACE)


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return [part.split("```")[0] for part in text.split(f"```{language}\n")[1:]]
