"""Who may make what the operator makes, on a real API server: nobody else, and nobody is refused by mistake."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lib.control_plane import Server

pytestmark = pytest.mark.controlplane

Object = dict[str, Any]
NAMESPACE = "children"
RBAC = "rbac.authorization.k8s.io"
EVE = "eve"
"""Has `edit`, and may write ControllerRevisions as well."""
KUBE = "system:serviceaccount:kube-system:"
CONTAINER: Object = {"name": "c", "image": "example.com/evil:1"}
GROUP = "modelwright.dev"


def labels(**ours: str) -> dict[str, str]:
    return {"app": "x", **{f"{GROUP}/{key}": value for key, value in ours.items()}}


SERVING = labels(model="fraud", revision="abc", role="serving")
MODEL = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "Model", "name": "fraud", "uid": "u"}
JOB = {"apiVersion": "batch/v1", "kind": "Job", "name": "train", "uid": "j", "controller": True}
RAY_JOB = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": "train", "uid": "r", "controller": True}
CRON_JOB = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "look", "uid": "k", "controller": True}


def meta(labels: Object | None = None, *owners: Object, name: str = "mine") -> Object:
    return {"name": name, "namespace": NAMESPACE, "labels": labels or {"app": "x"}, "ownerReferences": list(owners)}


def pod(labels: Object | None = None, *owners: Object, name: str = "mine") -> Object:
    spec = {"containers": [CONTAINER], "restartPolicy": "Never"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta(labels, *owners, name=name), "spec": spec}


def template(labels: Object | None, restart: str = "Always") -> Object:
    given = {"app": "x", **(labels or {})}
    return {"metadata": {"labels": given}, "spec": {"restartPolicy": restart, "containers": [CONTAINER]}}


def workload(kind: str, labels: Object | None = None, *owners: Object, name: str = "mine") -> Object:
    """An object that makes pods with these labels."""
    spec: Object = {"selector": {"matchLabels": {"app": "x"}}, "template": template(labels)}
    if kind == "StatefulSet":
        spec["serviceName"] = "x"
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": meta(None, *owners, name=name), "spec": spec}


def job(labels: Object | None = None, *owners: Object, name: str = "mine") -> Object:
    spec = {"template": template(labels, "Never")}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta(labels, *owners, name=name), "spec": spec}


def cron_job(labels: Object | None = None, *owners: Object, name: str = "mine") -> Object:
    spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template(labels, "Never")}}}
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta(None, *owners, name=name), "spec": spec}


def controllers(labels: Object) -> Object:
    spec = {"selector": {"app": "x"}, "template": template(labels)}
    return {"apiVersion": "v1", "kind": "ReplicationController", "metadata": meta(), "spec": spec}


def service(labels: Object | None = None, *owners: Object, name: str = "mine") -> Object:
    spec = {"selector": SERVING, "ports": [{"name": "http", "port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta(labels, *owners, name=name), "spec": spec}


def revision(*owners: Object) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": meta(None, *owners),
        "revision": 1,
        "data": {"template": {}},
    }


OWNED = MODEL | {"controller": True}
ROLES = ("serving", "resolve", "comparer", "observer", "gate", "metric", "look")
FORGED: dict[str, Object] = {
    **{f"a pod with the role {role}": pod(labels(role=role)) for role in ROLES},
    "a pod with a revision": pod(labels(revision="abc")),
    "a pod of a look": pod(labels(look="digits-new")),
    "a pod that a version controls": pod(None, OWNED | {"kind": "ModelVersion"}),
    "a pod of a training's Job": pod(labels(role="training"), JOB),
    "a pod that kubectl debug copies with its labels": pod(SERVING, name="fraud-abc-debug"),
    **{
        f"a {kind} whose pods have the labels of a revision": workload(kind, SERVING)
        for kind in ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet")
    },
    "a ReplicationController whose pods have them": controllers(SERVING),
    "a Job whose pods pass for the comparer": job(labels(model="fraud", role="comparer")),
    "a Job whose pods pass for a gate": job(labels(model="fraud", role="gate")),
    "a CronJob whose pods pass for the observer": cron_job(labels(model="fraud", role="observer")),
    "a Deployment that a Model controls": workload("Deployment", None, OWNED),
    "a Job that a rollout controls": job(None, OWNED | {"kind": "ModelRollout"}),
    "a CronJob that a policy controls": cron_job(None, OWNED | {"kind": "RetrainingPolicy"}),
    "a Service that a Model controls": service(None, OWNED),
    "a stored revision of a Model": revision(OWNED),
}
ALLOWED: dict[str, Object] = {
    "a pod": pod(),
    "a pod that is labelled with a Model": pod(labels(model="fraud")),
    "a pod that a training's other controller makes": pod(labels(role="training", run="r"), RAY_JOB),
    "a Service that selects pods of a Model": service(),
    "a Service that kubectl expose makes": service(SERVING | {"app.kubernetes.io/managed-by": "modelwright"}),
    "a Deployment with the labels of a Model on itself": workload("Deployment") | {"metadata": meta(SERVING)},
    "a Deployment that goes with a Model": workload("Deployment", None, MODEL),
    "a Job of a JobSet's template": job(labels(role="training", run="r")),
    "a Job that kubectl makes from a look's CronJob": job(labels(role="look", look="l"), CRON_JOB),
    "a stored revision of a StatefulSet": revision(),
}
OF_CONTROLLERS: dict[str, tuple[str, Object]] = {
    "pods of a Deployment": ("replicaset-controller", pod(SERVING)),
    "pods of a Job": ("job-controller", pod(labels(role="gate"), JOB)),
    "the ReplicaSet of a Deployment": ("deployment-controller", workload("ReplicaSet", SERVING)),
    "the Job of a CronJob": ("cronjob-controller", job(labels(role="look", look="l"), CRON_JOB)),
}


@pytest.fixture(scope="module", autouse=True)
def namespace(crd_server: Server) -> None:
    crd_server.ok("create", "namespace", NAMESPACE)
    rules = [{"apiGroups": ["apps"], "resources": ["controllerrevisions"], "verbs": ["*"]}]
    subject = {"kind": "User", "name": EVE, "apiGroup": RBAC}

    def binding(kind: str, name: str) -> Object:
        return {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"{EVE}-{name}".replace(":", "-"), "namespace": NAMESPACE},
            "roleRef": {"apiGroup": RBAC, "kind": kind, "name": name},
            "subjects": [subject],
        }

    role = {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": {"name": "revisions", "namespace": NAMESPACE}}
    crd_server.ok(
        "apply",
        "-f",
        "-",
        # What `edit` is put together from; nobody does that here.
        objects=[
            role | {"rules": rules},
            binding("Role", "revisions"),
            *(binding("ClusterRole", f"system:aggregate-to-{name}") for name in ("view", "edit")),
        ],
    )


def tried(server: Server, obj: Object, user: str | None) -> str:
    """What the API server says against creating `obj` as `user`; nothing when it would."""
    answer = server.run("create", "--dry-run=server", "-f", "-", objects=obj, user=user)
    return "" if answer.returncode == 0 else answer.stderr


@pytest.mark.parametrize("obj", FORGED.values(), ids=FORGED.keys())
def test_nobody_makes_what_passes_for_the_operators(crd_server: Server, obj: Object) -> None:
    said = tried(crd_server, obj, EVE)
    assert "ValidatingAdmissionPolicy 'modelwright-children'" in said
    assert "would imitate one of Modelwright" in said
    assert 'you are "eve"' in said
    assert tried(crd_server, obj, None) == "", "who may patch modelrollouts/status is taken for the operator"


@pytest.mark.parametrize("obj", ALLOWED.values(), ids=ALLOWED.keys())
def test_nobodys_own_objects_are_refused(crd_server: Server, obj: Object) -> None:
    assert tried(crd_server, obj, EVE) == ""


@pytest.mark.parametrize(("controller", "obj"), OF_CONTROLLERS.values(), ids=OF_CONTROLLERS.keys())
def test_the_controllers_of_kubernetes_go_on(crd_server: Server, controller: str, obj: Object) -> None:
    assert tried(crd_server, obj, KUBE + controller) == ""


@pytest.fixture(scope="module")
def made(crd_server: Server) -> Iterator[None]:
    """What an operator and the controllers have made."""
    look = labels(role="look", look="l")
    crd_server.ok(
        "create",
        "-f",
        "-",
        objects=[
            pod(SERVING, name="serves"),
            pod(None, name="own"),
            workload("Deployment", SERVING, OWNED, name="serves"),
            service(SERVING, OWNED, name="serves"),
            job(labels(role="gate"), OWNED | {"kind": "ModelRollout"}, name="gates"),
            cron_job(look, OWNED | {"kind": "RetrainingPolicy"}, name="looks"),
        ],
    )
    yield
    crd_server.ok("delete", "pods,deployments,services,jobs,cronjobs", "--all", "-n", NAMESPACE, "--wait=false")


IMAGE = json.dumps({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "example.com/other:1"}]}}}})
LIFECYCLE: dict[str, tuple[str, ...]] = {
    "a pod is annotated": ("annotate", "pod/serves", "looked-at=yes"),
    "a pod is given a label of one's own": ("label", "pod/serves", "team=risk"),
    "a Deployment is restarted": ("rollout", "restart", "deployment/serves"),
    "a Deployment is scaled": ("scale", "deployment/serves", "--replicas=3"),
    "a Deployment is scaled by an autoscaler": ("autoscale", "deployment/serves", "--max=4"),
    "a Deployment is paused": ("rollout", "pause", "deployment/serves"),
    "a Service is annotated": ("annotate", "service/serves", "prometheus.io/scrape=true"),
    "a Deployment is exposed": ("expose", "deployment/serves", "--name=exposed", "--port=80"),
    "a queue suspends a Job": ("patch", "job/gates", "--type=merge", "-p", '{"spec": {"suspend": true}}'),
    "a CronJob is suspended": ("patch", "cronjob/looks", "--type=merge", "-p", '{"spec": {"suspend": true}}'),
    "a CronJob is run now": ("create", "job", "now", "--from=cronjob/looks"),
    "a pod is taken out of its Service": ("label", "pod/serves", f"{GROUP}/revision-", f"{GROUP}/role-"),
    "a pod is deleted": ("delete", "pod/serves", "--wait=false"),
}
TAKEN: dict[str, tuple[str, ...]] = {
    "a pod of one's own is given the labels of a revision": ("label", "pod/own", f"{GROUP}/revision=abc"),
    "a pod of one's own is given a role": ("label", "pod/own", f"{GROUP}/role=comparer"),
    "a pod's image is changed": ("set", "image", "pod/serves", "c=example.com/other:1"),
    "a pod is moved to another revision": ("label", "--overwrite", "pod/serves", f"{GROUP}/revision=other"),
    "a Deployment's image is changed": ("patch", "deployment/serves", "-p", IMAGE),
    "a CronJob's image is changed": ("patch", "cronjob/looks", "-p", f'{{"spec": {{"jobTemplate": {IMAGE}}}}}'),
    "a Service selects other pods": ("patch", "service/serves", "-p", '{"spec": {"selector": {"app": "mine"}}}'),
    "a Service leads elsewhere": (
        "patch",
        "service/serves",
        "-p",
        '{"spec": {"type": "ExternalName", "externalName": "evil.example"}}',
    ),
}


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("line", TAKEN.values(), ids=TAKEN.keys())
def test_nobody_changes_what_runs_or_who_is_sent_requests(crd_server: Server, line: tuple[str, ...]) -> None:
    answer = crd_server.run(*line, "-n", NAMESPACE, user=EVE)
    assert answer.returncode != 0
    assert "would imitate one of Modelwright" in answer.stderr


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("line", LIFECYCLE.values(), ids=LIFECYCLE.keys())
def test_whoever_may_still_operates_what_the_operator_makes(crd_server: Server, line: tuple[str, ...]) -> None:
    crd_server.ok(*line, "-n", NAMESPACE, user=EVE)


def test_the_name_of_the_check_is_refused_to_everybody(crd_server: Server) -> None:
    obj = copy.deepcopy(revision())
    obj["metadata"]["name"] = "modelwright-admission-check"
    for user in (None, EVE):
        assert 'metadata.name is "modelwright-admission-check", but you are' in tried(crd_server, obj, user)
