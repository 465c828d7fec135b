"""People and the running operator: a rollout that waits, is approved, rejected and tried again, by real users."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster import ControlPlane
from tests.lib import objects
from tests.lib.control_plane import ROOT, Server
from tests.scale.operator_process import OperatorProcess

pytestmark = pytest.mark.kwok

Object = dict[str, Any]
NAMESPACE = "story"
RBAC = "rbac.authorization.k8s.io"
ROLES = {"alice": ("approve",), "carol": ("approve",), "dora": ("approve",), "sven": ("command",), "eve": ("edit",)}
POLICY = str(ROOT / "manifests/policies/approval.yaml")


class Story:
    """One Model, its people, and an operator that can be started anew."""

    def __init__(self, plane: ControlPlane, log: Path) -> None:
        self.server = Server(plane)
        self.log = log

    def operator(self) -> OperatorProcess:
        return OperatorProcess(self.server.plane.kubeconfig, self.log, settle_seconds=0)

    def ok(self, *arguments: str, objects: Any = None, user: str | None = None) -> str:
        return self.server.ok(*arguments, "-n", NAMESPACE, objects=objects, user=user)

    def want(self, version: str) -> None:
        spec = json.dumps({"spec": {"version": {"name": version}}})
        self.ok("patch", "model", "digits", "--type=merge", "-p", spec)

    def records(self) -> list[Object]:
        found: list[Object] = json.loads(self.ok("get", "mro", "-o", "json"))["items"]
        return sorted(found, key=lambda r: r["metadata"]["creationTimestamp"] + r["metadata"]["name"])

    def record(self, version: str) -> Object:
        """The newest record of a move to this version."""
        return [r for r in self.records() if r["spec"]["target"]["version"] == version][-1]

    def state(self, version: str) -> Object:
        records = [r for r in self.records() if r["spec"]["target"]["version"] == version]
        return dict(records[-1].get("status", {})) if records else {}

    def condition(self, type_: str) -> Object:
        """A condition of the Model."""
        found = self.server.get("model", "digits", NAMESPACE).get("status", {}).get("conditions", [])
        return next((dict(c) for c in found if c["type"] == type_), {"message": "", "reason": ""})

    def until(self, what: str, holds: Callable[[], Any], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                shown = self.ok("get", "mro,mdl", "-o", "yaml")
                tail = "\n".join(self.log.read_text().splitlines()[-10:])
                pytest.fail(f"{what}: not after {seconds} s\n{shown}\n{tail}")
            time.sleep(0.2)

    def serves(self, version: str) -> bool:
        model = self.server.get("model", "digits", NAMESPACE)
        return bool(model.get("status", {}).get("serving", {}).get("version") == version)

    def says(self, user: str, version: str, decision: str = "Approve", **changes: Any) -> str:
        """What the API server says against this person's word on the rollout to a version; nothing when it is taken."""
        record = self.record(version)
        spec = {
            "modelRef": {"name": "digits"},
            "rollout": {"name": record["metadata"]["name"], "uid": record["metadata"]["uid"]},
            "contentHash": record["status"]["contentHash"],
            "decision": decision,
            "approver": user,
            "reason": "looked at",
            **changes,
        }
        obj = {
            "apiVersion": objects.API_VERSION,
            "kind": "Approval",
            "metadata": {"generateName": f"{user}-", "namespace": NAMESPACE},
            "spec": spec,
        }
        return self.server.run("create", "-f", "-", objects=obj, user=user).stderr

    def command(self, user: str, version: str, name: str) -> Object:
        """Give a command; what the operator made of it."""
        record, token = self.record(version)["metadata"]["name"], f"{name}-{time.monotonic_ns()}"
        given = {"spec": {"command": {"name": name, "token": token, "by": user, "reason": "as agreed"}}}
        self.ok("patch", "mro", record, "--type=merge", "-p", json.dumps(given), user=user)
        handled: list[Object] = []

        def taken_up() -> bool:
            status = self.server.get("mro", record, NAMESPACE).get("status", {})
            handled[:] = [entry for entry in status.get("commands", []) if entry["token"] == token]
            return bool(handled)

        self.until(f"{name} is taken up", taken_up)
        return handled[0]


def binding(user: str, role: str) -> Object:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"{user}-{role}", "namespace": NAMESPACE},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": f"modelwright-{role}"},
        "subjects": [{"kind": "User", "name": user, "apiGroup": RBAC}],
    }


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    with ControlPlane(kwok_nodes=2) as plane:
        here = Story(plane, tmp_path / "operator.log")
        server = here.server
        server.ok("apply", "-k", str(ROOT / "manifests/install/crds"), "--server-side")
        server.ok("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
        server.wait_for_policies()
        server.ok("create", "namespace", NAMESPACE)
        policy = {
            "apiVersion": objects.API_VERSION,
            "kind": "RolloutPolicy",
            "metadata": {"name": "asked", "namespace": NAMESPACE},
            "spec": {
                "changedBy": "dora",
                "strategy": {"steps": [{"weight": 50}, {"approval": {"required": 1}}]},
                "gates": {"approval": {"required": 2}},
            },
        }
        versions = [objects.version(NAMESPACE, f"v{n}") for n in range(1, 5)]
        for version in versions:
            version["spec"]["author"] = "dora"
        model = objects.model(
            NAMESPACE,
            version="v1",
            rolloutPolicyRef={"name": "asked"},
            serving={"replicas": 2, "drainSeconds": 0},
            changedBy="dora",
        )
        bindings = [binding(user, role) for user, roles in ROLES.items() for role in (*roles, "view")]
        server.ok("apply", "-f", "-", objects=[objects.runtime(changedBy="dora"), policy, *versions, model, *bindings])
        yield here


def test_people_decide_by_name_and_nobody_else_does(story: Story) -> None:
    with story.operator() as operator:
        operator.wait_ready()
        # The first revision has gates too.
        story.until("v1 waits", lambda: story.state("v1").get("state") == "AwaitingApproval")
        assert story.says("alice", "v1") == ""
        assert story.says("carol", "v1") == ""
        story.until("v1 serves", lambda: story.serves("v1"))

        story.want("v2")
        story.until("v2 waits", lambda: story.state("v2").get("state") == "AwaitingApproval")
        assert 'spec.approver is "carol", but you are "alice"' in story.says("alice", "v2", approver="carol")
        assert 'cannot create resource "approvals"' in story.says("eve", "v2")
        assert story.says("dora", "v2") == ""
        assert story.says("carol", "v2", contentHash="what-was-before") == ""
        assert story.says("alice", "v2") == ""
        told = ("1 of 2 different approvers: approved by alice; 1 missing", "an author's own", "for another content")
        story.until("it is told", lambda: all(text in story.condition("Ready")["message"] for text in told))
        refused = story.command("sven", "v2", "promote")
        assert not refused["accepted"]
        assert "an approval, and one is missing at the approval gate, step 2" in refused["message"]
        assert story.says("carol", "v2") == ""
        story.until("the step asks again", lambda: story.state("v2").get("step") == 1)
        story.until("the step waits", lambda: story.state("v2").get("state") == "AwaitingApproval")
        assert story.serves("v1")
        assert story.says("alice", "v2") == ""
        story.until("v2 serves", lambda: story.serves("v2"))
        story.until("it is over", lambda: story.state("v2").get("state") == "Succeeded")
        counted = [(a["approver"], a["place"]) for a in story.state("v2")["approvals"]]
        assert sorted(who for who, _ in counted) == ["alice", "alice", "carol"]

        story.want("v3")
        story.until("v3 waits", lambda: story.state("v3").get("state") == "AwaitingApproval")
        assert story.says("carol", "v3", "Reject") == ""
        story.until("v3 is rejected", lambda: story.state("v3").get("state") == "RolledBack")
        assert story.state("v3")["reason"] == "ApprovalRejected"
        assert story.serves("v2")
        assert story.command("sven", "v3", "retry")["accepted"]
        story.until("v3 is asked for again", lambda: story.state("v3").get("state") == "AwaitingApproval")
        assert story.says("alice", "v3") == ""
        assert story.says("carol", "v3") == ""
        story.until("the retry goes on", lambda: story.state("v3").get("step") == 1)


def test_without_the_policy_nobody_is_obeyed_and_what_was_written_meanwhile_never_counts(story: Story) -> None:
    with story.operator() as operator:
        operator.wait_ready()
        story.until("v1 waits", lambda: story.state("v1").get("state") == "AwaitingApproval")
        assert operator.stop() == 0
    story.server.ok("delete", "-f", POLICY)
    story.until("anybody may forge", lambda: story.says("alice", "v1", approver="carol") == "")
    assert story.says("alice", "v1") == ""
    with story.operator() as operator:
        operator.wait_ready()
        story.until("it is told", lambda: story.condition("Stalled")["reason"] == "AdmissionPolicyMissing")
        story.server.ok("apply", "-f", POLICY)
        story.server.wait_for_policies()
        before = ("0 of 2 different approvers", "was given before it was requested")
        story.until("it came back", lambda: all(text in story.condition("Ready")["message"] for text in before), 90)
        # Creation times have whole seconds: what was written within the second of the proof may be older than it.
        proven = time.time()
        story.until("the second is over", lambda: time.time() >= proven + 1)
        assert story.says("alice", "v1") == ""
        assert story.says("carol", "v1") == ""
        story.until("v1 serves", lambda: story.serves("v1"))
