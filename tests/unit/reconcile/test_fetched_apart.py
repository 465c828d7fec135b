"""Models that serve as another ServiceAccount than the one that fetches: pods of their own fill the cache."""

import json
from typing import Any

import pytest

from modelwright.api import names
from modelwright.kube import kinds
from tests.lib import objects
from tests.lib.gate_harness import EVALUATION, GOOD
from tests.lib.monitoring_harness import REFERENCE, MonitoringHarness
from tests.lib.rollout_harness import NS, RolloutHarness, policy

Object = dict[str, Any]
APART = {"replicas": 1, "cache": {"persistentVolumeClaim": "models"}, "serviceAccountName": "digits-server"}
ROLLOUT = policy({"weight": 50, "hold": "20s"}, {"weight": 100}, keepPrevious="30s")
LOST = {"reason": "NotCached", "message": "The shared cache doesn't hold it"}
DENIED = {"reason": "AccessDenied", "message": "s3://models/digits/v2: access denied"}


class Apart(RolloutHarness):
    """A RolloutHarness whose kubelet runs pods that fetch. `filled`: those that filled the cache, by version, claim."""

    def __init__(self, rollout: Object | None = None, **more: Any) -> None:
        self.filled: list[tuple[str, str]] = []
        self.fails: dict[str, Object] = {}
        """What the fetch of a version's pods ends with."""
        super().__init__(rollout, **{"endpoint": False, "serving": APART, **more})

    def look(self, seconds: float = 5) -> None:
        for pod in self.fetching():
            version = pod["metadata"]["annotations"][names.ANNOTATION_VERSION_NAME]
            if pod.get("status") is None:
                self.end(pod, *((self.fails[version], 1) if version in self.fails else (self.report(pod), 0)))
        super().look(seconds)

    def report(self, pod: Object) -> Object:
        container = pod["spec"]["containers"][0]
        if container["args"][0] == "get":
            version = pod["metadata"]["annotations"][names.ANNOTATION_VERSION_NAME]
            self.filled.append((version, claim(pod["spec"])))
        return {"digest": objects.DIGEST, "sizeBytes": 7}

    def end(self, pod: Object, report: Object, code: int = 0) -> None:
        state = {"terminated": {"exitCode": code, "message": json.dumps(report)}}
        self.api.set_status(pod, {"containerStatuses": [{"name": "fetch", "state": state}]})

    def fetching(self) -> list[Object]:
        """The pods of versions."""
        found = [o for (kind, _, _), o in self.api.objects.items() if kind == kinds.POD]
        return [pod for pod in found if pod["metadata"]["labels"].get(names.LABEL_ROLE) == names.ROLE_RESOLVE]

    def template(self, version: str) -> Object:
        """The spec of the pods that serve a version."""
        (found,) = [
            o["spec"]["template"]["spec"]
            for (kind, _, _), o in self.api.objects.items()
            if kind == kinds.DEPLOYMENT and o["metadata"]["annotations"][names.ANNOTATION_VERSION_NAME] == version
        ]
        return dict(found)

    def serving_pod_says(self, report: Object | None) -> None:
        """A pod of the revision that serves fails, or is well again."""
        key = (kinds.POD, NS, "digits-server-pod")
        if key in self.api.objects:
            self.api.user_delete(*key)
        if report is None:
            self.broken.discard("v1")
            return
        self.broken.add("v1")
        labels = next(
            o["spec"]["template"]["metadata"]["labels"]
            for (kind, _, _), o in self.api.objects.items()
            if kind == kinds.DEPLOYMENT
        )
        pod = self.api.user_create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "spec": {},
                "metadata": {"name": key[2], "namespace": NS, "labels": labels},
            }
        )
        state = {"terminated": {"exitCode": 1, "message": json.dumps(report)}}
        self.api.set_status(pod, {"initContainerStatuses": [{"name": "fetch", "lastState": state}]})

    def version(self, name: str) -> Object:
        return self.api.objects[kinds.MODEL_VERSION, NS, name]

    def told(self, obj: Object, type_: str) -> tuple[str, str] | None:
        found = [c for c in obj["status"]["conditions"] if c["type"] == type_]
        return (found[0]["status"], found[0]["reason"]) if found else None

    def settle(self, looks: int = 6) -> None:
        for _ in range(looks):
            self.look()


def claim(spec: Object) -> str:
    return next(
        str(volume["persistentVolumeClaim"]["claimName"])
        for volume in spec["volumes"]
        if volume["name"] == "modelwright-cache"
    )


def test_cache_is_filled_before_any_pod_serves_from_it() -> None:
    world = Apart()
    assert world.filled == [("v1", "models")]
    assert world.version("v1")["status"]["artifact"]["cached"] == "models"
    assert world.told(world.version("v1"), "Ready") == ("True", "DigestPinned")
    assert world.fetching() == [], "what it found out is written down, so it is gone"
    served = world.template("v1")
    assert served["serviceAccountName"] == "digits-server"
    assert "--only-cached" in served["initContainers"][0]["args"]
    world.settle()
    assert world.filled == [("v1", "models")], "and once is enough"


def test_uncached_version_creates_nothing_and_serving_continues() -> None:
    world = Apart()
    world.fails["v2"] = DENIED
    world.want("v2")
    world.go(lambda: world.told(world.model, "Stalled") == ("True", "AccessDenied"))
    world.settle()
    assert "ModelVersion v2" in world.model["status"]["failure"]["message"]
    assert world.pods("v2") is None
    assert world.serving == "v1"
    del world.fails["v2"]
    (pod,) = world.fetching()
    world.end(pod, world.report(pod))
    world.go(lambda: world.serving == "v2")
    assert world.filled == [("v1", "models"), ("v2", "models")]


def test_while_it_is_brought_model_and_version_say_so() -> None:
    world = Apart()
    world.fails["v2"] = {}
    world.want("v2")
    world.look()
    for pod in world.fetching():
        world.api.set_status(pod, {"phase": "Running"})
    world.settle(2)
    assert world.told(world.model, "Reconciling") == ("True", "WaitingForCache")
    assert world.told(world.version("v2"), "Reconciling") == ("True", "WaitingForCache")


def test_lost_cache_content_is_fetched_once_more() -> None:
    world = Apart()
    world.serving_pod_says(LOST)
    world.go(lambda: len(world.filled) == 2)
    world.settle(30)
    assert world.filled == [("v1", "models")] * 2, "the kubelet starts the pod again later; until then it says the same"
    assert world.fetching() == []
    assert world.told(world.version("v1"), "Ready") == ("True", "DigestPinned")
    world.serving_pod_says(None)
    world.go(lambda: world.told(world.model, "Ready") == ("True", "Serving"))
    world.serving_pod_says(LOST)
    world.go(lambda: len(world.filled) == 3, looks=120)


def test_after_a_restart_of_the_operator_a_loss_is_still_seen() -> None:
    world = Apart()
    world.serving_pod_says(LOST)
    world.restart()
    world.go(lambda: len(world.filled) == 2)


def test_another_claim_is_filled_before_pods_mount_it() -> None:
    world = Apart()
    other = {**APART, "cache": {"persistentVolumeClaim": "others"}}
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"serving": other}})
    world.go(lambda: world.filled[-1] == ("v1", "others"))
    world.go(lambda: world.told(world.model, "Ready") == ("True", "Serving"))
    assert world.version("v1")["status"]["artifact"]["cached"] == "others"


def test_a_pod_that_brought_something_else_fills_nothing() -> None:
    world = Apart()
    world.fails["v2"] = {}
    world.want("v2")
    world.go(lambda: bool(world.fetching()))
    (pod,) = world.fetching()
    world.end(pod, {"digest": "sha256:" + "9" * 64, "sizeBytes": 7})
    world.go(lambda: world.told(world.model, "Stalled") == ("True", "InternalError"))
    assert world.pods("v2") is None


def test_model_with_the_artifacts_account_has_no_fill_pod() -> None:
    world = Apart(serving={"replicas": 1, "cache": {"persistentVolumeClaim": "models"}})
    world.want("v2")
    world.go(lambda: world.serving == "v2")
    assert world.filled == []
    assert "cached" not in world.version("v2").get("status", {}).get("artifact", {})


def test_evaluation_uses_the_serving_account_and_the_cache() -> None:
    world = Apart(ROLLOUT)
    world.set_policy(ROLLOUT | {"gates": {"evaluation": EVALUATION}, "deadline": "10m"})
    world.want("v2")

    def jobs() -> list[Object]:
        return [o for (kind, _, _), o in world.api.objects.items() if kind == kinds.JOB]

    world.go(lambda: bool(jobs()))
    (job,) = jobs()
    spec = job["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == "digits-server"
    assert all("--only-cached" in container["args"] for container in spec["initContainers"])
    pod = world.api.user_create(objects.pod_of(job, "evaluation-pod"))
    state = {"terminated": {"exitCode": 0, "message": json.dumps(GOOD)}}
    name = spec["containers"][0]["name"]
    world.api.set_status(
        pod,
        {
            "phase": "Succeeded",
            "containerStatuses": [{"name": name, "image": "i", "state": state}],
        },
    )
    world.api.set_status(job, {"conditions": [{"type": "Complete", "status": "True"}]})
    world.go(lambda: world.record.get("state") == "Succeeded")


def test_serving_version_is_cached_before_an_evaluation() -> None:
    world = Apart(ROLLOUT, serving={"replicas": 1, "cache": {"persistentVolumeClaim": "models"}})
    world.set_policy(ROLLOUT | {"gates": {"evaluation": EVALUATION}, "deadline": "10m"})
    spec = {"serving": {"serviceAccountName": "digits-server"}, "version": {"name": "v2"}}
    world.known = world.records[-1]["metadata"]["name"]
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": spec})
    world.go(lambda: any(kind == kinds.JOB for kind, _, _ in world.api.objects))
    assert sorted(world.filled) == [("v1", "models"), ("v2", "models")]


@pytest.mark.parametrize("digest", [objects.DIGEST, None], ids=["digest known", "digest found out first"])
def test_the_pod_that_fills_has_the_artifacts_account_and_digest(digest: str | None) -> None:
    world = Apart()
    made: list[Object] = []
    world.api.user_create(objects.version(NS, "v9", digest=digest, serviceAccountName="reader"))
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"version": {"name": "v9"}}})
    world.api.before_write = lambda verb, obj: made.append(obj) if obj["kind"] == "Pod" and verb == "create" else None
    world.go(lambda: world.serving == "v9")
    fill = made[-1]["spec"]
    assert fill["serviceAccountName"] == "reader"
    arguments = fill["containers"][0]["args"]
    assert arguments[arguments.index("--digest") + 1] == objects.DIGEST
    assert world.template("v9")["serviceAccountName"] == "digits-server"


class WatchedApart(Apart, MonitoringHarness):
    """The same with an observer."""


def test_drift_monitor_fetches_its_sample_itself() -> None:
    world = WatchedApart(endpoint=True)
    version = objects.version(NS, "v9", serviceAccountName="reader")
    version["spec"]["reference"] = REFERENCE
    world.api.user_create(version)
    world.want("v9")
    world.go(lambda: world.observed_version == "v9")
    observer = world.child(kinds.DEPLOYMENT)
    assert observer is not None
    assert observer["spec"]["template"]["spec"]["serviceAccountName"] == "reader"
