"""Training that other controllers do: a JobSet, and Jobs that Kueue lets start, stops and lets go on. Both are real."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from demo.kubectl import Json
from demo.platform import SECRET
from devcluster.cluster import Cluster
from devcluster.engines import MANAGED
from tests.e2e.lib.retrain import LEARN, READ, READ_BY_ADDRESS, WAIT_FOR_GO, Team
from tests.e2e.lib.space import Space, eventually

QUEUE, PRIORITY = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"
JOBS, JOB_SETS = "jobs.batch", "jobsets.jobset.x-k8s.io"
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
BLOCKERS = ("takes-all", "urgent")
# Nothing begins by itself here.
BY_HAND = [{"name": "alert", "webhook": {"source": "Alertmanager"}}]


@pytest.fixture(scope="module")
def team(shared_space: Space, cluster: Cluster) -> Iterator[Team]:
    """A namespace that Kueue looks after, with one CPU for what is queued."""
    if not cluster.engines():
        pytest.skip("JobSet and Kueue are installed by the tests in the embedded cluster only")
    space = shared_space
    space.kubectl.run("label", "namespace", space.name, *(f"{key}={value}" for key, value in MANAGED.items()))
    flavor, quota = (
        {"name": space.name},
        [{"name": "cpu", "nominalQuota": "1"}, {"name": "memory", "nominalQuota": "8Gi"}],
    )
    kueue = "kueue.x-k8s.io/v1beta1"
    group = {"coveredResources": ["cpu", "memory"], "flavors": [{"name": space.name, "resources": quota}]}
    cluster_queue = {
        "namespaceSelector": {},
        "preemption": {"withinClusterQueue": "LowerPriority"},
        "resourceGroups": [group],
    }
    local = {"name": "training", "namespace": space.name}
    objects: list[Json] = [
        {"apiVersion": kueue, "kind": "ResourceFlavor", "metadata": flavor},
        {"apiVersion": kueue, "kind": "WorkloadPriorityClass", "metadata": flavor, "value": 1000, "description": "-"},
        {"apiVersion": kueue, "kind": "ClusterQueue", "metadata": flavor, "spec": cluster_queue},
        {"apiVersion": kueue, "kind": "LocalQueue", "metadata": local, "spec": {"clusterQueue": space.name}},
    ]
    space.apply(*objects)
    yield Team(space)
    for made in objects[2::-1]:
        space.kubectl.delete(f"{made['kind'].lower()}.kueue.x-k8s.io", made["metadata"]["name"])


@pytest.fixture(autouse=True)
def _quota_is_free(team: Team) -> Iterator[None]:
    """No blocker outlives its test."""
    yield
    for name in BLOCKERS:
        team.space.delete(JOBS, name, wait=True)


def job_set(team: Team, script: str, **labels: str) -> Json:
    """Two workers, of which the first leaves a result."""
    names = ("RUN", "OUTPUT_URI", "DATASET_URI", "INPUTS")
    container = {
        "name": "train",
        "image": team.space.world.images["trainer"],
        "command": ["python3", "-c", f"import os\nif os.environ['JOB_COMPLETION_INDEX'] == '0':\n    exec({script!r})"],
        "env": [{"name": name, "value": f"$({name})"} for name in names],
        "envFrom": [{"secretRef": {"name": SECRET}}],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
        "securityContext": RESTRICTED,
    }
    pod = {"restartPolicy": "Never", "containers": [container]}
    job = {"parallelism": 2, "completions": 2, "backoffLimit": 0, "template": {"spec": pod}}
    spec = {"failurePolicy": {"maxRestarts": 0}, "replicatedJobs": [{"name": "workers", "template": {"spec": job}}]}
    manifest = {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "spec": spec}
    if labels:
        manifest["metadata"] = {"labels": labels}
    return {"resource": {"profile": "JobSet", "manifest": manifest}}


def blocker(team: Team, name: str, **labels: str) -> None:
    """A Job that takes nearly all of the quota, and does nothing, until it is deleted."""
    container = {
        "name": "sleep",
        "image": team.space.world.images["trainer"],
        "command": ["sleep", "600"],
        "resources": {"requests": {"cpu": "900m", "memory": "16Mi"}},
        "securityContext": RESTRICTED,
    }
    pod = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]}
    metadata = {"name": name, "namespace": team.space.name, "labels": {QUEUE: "training", **labels}}
    team.space.apply(
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": {"spec": pod}}}
    )


def admitted(team: Team, kind: str, name: str) -> bool:
    found = team.space.get(kind, name)
    return found is not None and not found["spec"].get("suspend")


def test_a_job_set_trains_a_version_that_serves(team: Team) -> None:
    team.policy(train=job_set(team, READ_BY_ADDRESS + LEARN), triggers=BY_HAND)
    team.data([4, 5, 6])
    team.ask("by-job-set")
    status = team.until("by-job-set", "Succeeded", "Failed")["status"]
    assert (status["state"], status["reason"]) == ("Succeeded", "VersionRegistered"), status["message"]
    stage = team.stage("by-job-set", "train")
    assert (stage["kind"], stage["state"]) == ("JobSet", "Succeeded")
    eventually(lambda: team.serving() == "by-job-set", "what it trained serves", timeout=180)
    team.space.asks("by-job-set")
    version = team.space.get("modelversions.modelwright.dev", "by-job-set") or {}
    assert version["spec"]["lineage"]["image"].startswith(team.space.world.images["trainer"].partition("@")[0])


def test_a_job_set_that_fails_says_why_and_serving_goes_on(team: Team) -> None:
    before = team.serving()
    team.policy(train=job_set(team, "raise SystemExit('no labels in this data')"), triggers=BY_HAND)
    team.data([6, 7, 8])
    team.ask("fails")
    status = team.until("fails", "Succeeded", "Failed")["status"]
    assert (status["state"], status["reason"]) == ("Failed", "StageFailed")
    assert "first failed job" in status["message"]
    assert team.serving() == before


def test_a_queued_job_set_begins_when_there_is_quota(team: Team) -> None:
    blocker(team, "takes-all")
    eventually(lambda: admitted(team, JOBS, "takes-all"), "Kueue lets it begin")
    team.policy(train=job_set(team, READ_BY_ADDRESS + LEARN, **{QUEUE: "training"}), triggers=BY_HAND)
    team.data([7, 8, 9])
    team.ask("in-a-queue")
    eventually(lambda: team.stage("in-a-queue", "train").get("state") == "Queued", "it is queued", timeout=120)
    eventually(lambda: _why(team, "in-a-queue", "insufficient unused quota for cpu"), "Kueue's reason is told")
    team.space.delete(JOBS, "takes-all")
    status = team.until("in-a-queue", "Succeeded", "Failed")["status"]
    assert status["state"] == "Succeeded", status["message"]


def test_a_queued_and_preempted_training_succeeds(team: Team) -> None:
    blocker(team, "takes-all")
    eventually(lambda: admitted(team, JOBS, "takes-all"), "Kueue lets it begin")
    work = team.work(WAIT_FOR_GO + READ + LEARN)
    work["job"]["labels"] = {QUEUE: "training"}
    (container,) = work["job"]["template"]["spec"]["containers"]
    container["resources"] = {"requests": {"cpu": "500m"}}
    team.policy(train={**work, "timeout": "60s"}, triggers=BY_HAND)
    team.data([10, 11, 12])
    team.ask("preempted")
    eventually(lambda: team.stage("preempted", "train").get("state") == "Queued", "it is queued", timeout=120)
    began = time.monotonic()
    eventually(lambda: _why(team, "preempted", "insufficient unused quota for cpu"), "Kueue's reason is told")
    eventually(lambda: time.monotonic() - began > 65, "more than its timeout has passed", timeout=70)
    assert team.stage("preempted", "train")["state"] == "Queued"
    team.space.delete(JOBS, "takes-all")
    eventually(lambda: team.stage("preempted", "train").get("state") == "Running", "it runs", timeout=60)

    blocker(team, "urgent", **{PRIORITY: team.space.name})
    eventually(lambda: _why(team, "preempted", "reempted"), "it is preempted, and says so")
    eventually(lambda: admitted(team, JOBS, "urgent"), "what preempted it is let begin")
    team.go("preempted")
    team.space.delete(JOBS, "urgent")
    status = team.until("preempted", "Succeeded", "Failed")["status"]
    assert status["state"] == "Succeeded", status["message"]
    assert len([job for job in team.space.items(JOBS) if job["metadata"]["name"] == _child(team, "preempted")]) <= 1
    eventually(lambda: team.serving() == "preempted", "what it trained serves", timeout=180)


def _why(team: Team, run: str, text: str) -> bool:
    stage = team.stage(run, "train")
    return stage.get("state") == "Queued" and text in stage.get("message", "")


def _child(team: Team, run: str) -> Any:
    return team.stage(run, "train").get("child")
