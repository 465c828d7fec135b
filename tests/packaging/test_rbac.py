"""What the operator may do is this list and nothing else, in both installs and both scopes."""

from __future__ import annotations

from itertools import product

import pytest

from modelwright.kube import kinds
from tests.packaging.render import INSTALL, ROOT, Object, kustomize, objects, template

pytestmark = pytest.mark.chart

READ = {"get", "list", "watch"}
OWN = READ | {"create", "patch", "delete"}
IN_NAMESPACES = {
    ("modelwright.dev", "models"): READ | {"attribute"},
    ("modelwright.dev", "modelversions"): READ | {"create"},
    ("modelwright.dev", "modelruntimes"): READ,
    ("modelwright.dev", "rolloutpolicies"): READ,
    ("modelwright.dev", "rolloutpolicies/status"): {"patch"},
    ("modelwright.dev", "approvals"): READ | {"create"},
    ("modelwright.dev", "modelrollouts"): READ | {"create", "delete"},
    ("modelwright.dev", "modelrollouts/status"): {"patch"},
    ("modelwright.dev", "modelrollouts/finalizers"): {"update"},
    ("modelwright.dev", "retrainingpolicies"): READ,
    ("modelwright.dev", "retrainingpolicies/status"): {"patch"},
    ("modelwright.dev", "retrainingpolicies/finalizers"): {"update"},
    ("modelwright.dev", "trainingruns"): READ | {"create", "delete"},
    ("modelwright.dev", "trainingruns/status"): {"patch"},
    ("modelwright.dev", "trainingruns/finalizers"): {"update"},
    ("modelwright.dev", "models/status"): {"patch"},
    ("modelwright.dev", "modelversions/status"): {"patch"},
    ("modelwright.dev", "models/finalizers"): {"update"},
    ("modelwright.dev", "modelversions/finalizers"): {"update"},
    ("apps", "deployments"): OWN,
    ("apps", "controllerrevisions"): OWN,
    ("", "services"): OWN,
    ("policy", "poddisruptionbudgets"): OWN,
    ("autoscaling", "horizontalpodautoscalers"): OWN,
    ("gateway.networking.k8s.io", "httproutes"): OWN,
    ("gateway.networking.k8s.io", "grpcroutes"): OWN,
    ("traefik.io", "traefikservices"): OWN,
    ("gateway.networking.k8s.io", "gateways"): READ,
    ("batch", "jobs"): READ | {"create", "delete"},
    ("batch", "cronjobs"): OWN,
    ("kueue.x-k8s.io", "workloads"): {"list"},
    ("", "pods"): READ | {"create", "delete"},
    ("events.k8s.io", "events"): {"create"},
}
IN_CLUSTER = IN_NAMESPACES | {
    ("modelwright.dev", "clustermodelruntimes"): READ,
    ("gateway.networking.k8s.io", "gatewayclasses"): READ,
    ("authentication.k8s.io", "tokenreviews"): {"create"},
    ("authorization.k8s.io", "subjectaccessreviews"): {"create"},
}
SHARDED = {("", "namespaces"): {"list", "watch"}}
JOBSET = {"group": "jobset.x-k8s.io", "version": "v1alpha2", "kind": "JobSet", "plural": "jobsets"}
WORKFLOW = {"group": "argoproj.io", "version": "v1alpha1", "kind": "Workflow", "plural": "workflows"}
TRAINING = {("jobset.x-k8s.io", "jobsets"): OWN, ("argoproj.io", "workflows"): OWN}
LEASE = {
    ("coordination.k8s.io", "leases", None): {"create"},
    ("coordination.k8s.io", "leases", "modelwright-operator"): {"get", "update", "patch"},
}


def granted(role: Object) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for rule in role["rules"]:
        assert set(rule) == {"apiGroups", "resources", "verbs"}, rule
        for group, resource in product(rule["apiGroups"], rule["resources"]):
            found.setdefault((group, resource), set()).update(rule["verbs"])
    return found


def lease_rules(role: Object) -> dict[tuple[str, str, str | None], set[str]]:
    found: dict[tuple[str, str, str | None], set[str]] = {}
    for rule in role["rules"]:
        for place in product(rule["apiGroups"], rule["resources"], rule.get("resourceNames", [None])):
            found.setdefault(place, set()).update(rule["verbs"])
    return found


def roles(found: list[Object]) -> dict[tuple[str, str, str], Object]:
    return {
        (o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]): o
        for o in found
        if o["kind"] in {"Role", "ClusterRole"}
    }


@pytest.mark.parametrize("source", ["chart", "kustomize"])
def test_cluster_install_grants_exactly_the_list(source: str) -> None:
    found = roles(template() if source == "chart" else kustomize(INSTALL / "cluster"))
    assert set(found) == {
        ("ClusterRole", "", "modelwright"),
        ("ClusterRole", "", "modelwright-metrics-reader"),
        ("Role", "modelwright-system", "modelwright-lease"),
    }
    assert granted(found["ClusterRole", "", "modelwright"]) == IN_CLUSTER
    assert lease_rules(found["Role", "modelwright-system", "modelwright-lease"]) == LEASE


def test_a_shard_additionally_reads_only_namespaces_and_leases() -> None:
    found = roles(template(release="modelwright-red", sharding={"shard": "red"}))
    name = "modelwright-red"
    assert set(found) == {
        ("ClusterRole", "", name),
        ("ClusterRole", "", f"{name}-metrics-reader"),
        ("Role", "modelwright-system", f"{name}-lease"),
    }
    assert granted(found["ClusterRole", "", name]) == IN_CLUSTER | SHARDED
    assert lease_rules(found["Role", "modelwright-system", f"{name}-lease"]) == {
        ("coordination.k8s.io", "leases", None): {"create", "list"},
        ("coordination.k8s.io", "leases", f"{name}-operator"): {"get", "update", "patch"},
    }


def test_namespaced_chart_grants_nothing_in_the_cluster() -> None:
    found = roles(template(watchNamespaces=["vision", "fraud"]))
    assert set(found) == {
        ("Role", "vision", "modelwright"),
        ("Role", "fraud", "modelwright"),
        ("Role", "modelwright-system", "modelwright-lease"),
    }
    for namespace in ("vision", "fraud"):
        assert granted(found["Role", namespace, "modelwright"]) == IN_NAMESPACES


def test_namespaced_kustomize_grants_nothing_in_the_cluster() -> None:
    found = roles(kustomize(INSTALL / "namespaced"))
    assert set(found) == {
        ("Role", "modelwright-system", "modelwright"),
        ("Role", "modelwright-system", "modelwright-lease"),
    }
    assert granted(found["Role", "modelwright-system", "modelwright"]) == IN_NAMESPACES


def test_training_kinds_add_only_their_rights_in_each_scope() -> None:
    for watched, kind, expected in (([], "ClusterRole", IN_CLUSTER), (["vision"], "Role", IN_NAMESPACES)):
        found = roles(template(training={"kinds": [JOBSET, WORKFLOW]}, watchNamespaces=watched))
        assert granted(found[kind, "vision" if watched else "", "modelwright"]) == expected | TRAINING


def test_the_list_holds_nothing_that_could_become_more() -> None:
    verbs = set().union(*IN_CLUSTER.values(), *LEASE.values())
    resources = {resource for _, resource in IN_CLUSTER}
    assert not verbs & {"*", "escalate", "bind", "impersonate", "deletecollection", "approve", "sign"}
    assert not resources & {"*", "secrets", "pods/exec", "pods/attach", "pods/portforward", "serviceaccounts/token"}
    assert not {group for group, _ in IN_CLUSTER} & {"*", "rbac.authorization.k8s.io", "admissionregistration.k8s.io"}


def test_every_kind_the_operator_knows_may_be_read() -> None:
    for kind in set(kinds.ALL_KINDS) - {kinds.LEASE, kinds.EVENT}:
        assert IN_CLUSTER[kind.group, kind.plural] >= READ, kind


def test_bindings_name_the_operator_and_its_own_roles() -> None:
    for found in (
        template(),
        template(watchNamespaces=["vision"]),
        *(kustomize(INSTALL / n) for n in ("cluster", "namespaced")),
    ):
        present = roles(found)
        # Bound to whoever scrapes, and not to the operator.
        present.pop(("ClusterRole", "", "modelwright-metrics-reader"), None)
        bindings = [o for o in found if o["kind"] in {"RoleBinding", "ClusterRoleBinding"}]
        assert len(bindings) == len(present)
        for binding in bindings:
            reference = binding["roleRef"]
            namespace = binding["metadata"].get("namespace", "")
            assert (reference["kind"], namespace, reference["name"]) in present
            assert binding["subjects"] == [
                {"kind": "ServiceAccount", "name": "modelwright", "namespace": "modelwright-system"}
            ]


PEOPLE = {
    "view": {"view", "edit", "admin"},
    "edit": {"edit", "admin"},
    "command": {"admin"},
    "admin": {"admin"},
    "approve": set(),
}


def test_approvers_are_named_and_only_administrators_delete() -> None:
    found = {o["metadata"]["name"]: o for o in objects((ROOT / "manifests/rbac/user-roles.yaml").read_text())}
    assert set(found) == {f"modelwright-{name}" for name in PEOPLE}
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    for name, into in PEOPLE.items():
        role = found[f"modelwright-{name}"]
        assert {key.removeprefix(prefix) for key in role["metadata"].get("labels", {})} == into, name
        verbs = granted(role)
        models, records = verbs.get(("modelwright.dev", "models"), set()), ("modelrollouts", "approvals")
        removes = {r for r in records if "delete" in verbs.get(("modelwright.dev", r), set())}
        assert removes == (set(records) if name == "admin" else set()), name
        assert ("approve" in models) == (name == "approve")
        assert ("promote" in models) == (name == "command")
        assert "attribute" not in models
        policies = verbs.get(("modelwright.dev", "retrainingpolicies"), set())
        assert ("trigger" in policies) == ({"create", "update"} <= policies) == (name == "edit")
        runs = verbs.get(("modelwright.dev", "trainingruns"), set())
        assert ("create" in runs) == (name == "edit")
        assert ("deletecollection" in runs) == (name == "admin")


def test_users_never_write_status_or_the_platforms_runtimes() -> None:
    for role in objects((ROOT / "manifests" / "rbac" / "user-roles.yaml").read_text()):
        for (group, resource), verbs in granted(role).items():
            assert group == "modelwright.dev"
            assert "*" not in verbs
            if ("/" in resource and resource != "models/scale") or resource == "clustermodelruntimes":
                assert verbs <= READ, (role["metadata"]["name"], resource)
