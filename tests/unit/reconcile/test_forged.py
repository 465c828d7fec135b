"""Neighbours in a namespace who write pods: what they forge decides nothing. And children that can't be read are their
own Error: a pass still decides, aborts and rolls back."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from modelwright.api import names
from modelwright.core import gate_results, pod_failures
from modelwright.core.admission import AdmissionState
from modelwright.core.analysis.evidence import MetricValue
from modelwright.engines.job import JobEngine
from modelwright.kube import kinds
from modelwright.measurement import job_report as metric_jobs
from modelwright.obs import metrics
from modelwright.reconcile import model_version
from modelwright.reconcile.model import observe, observed_routing, rollout_input
from tests.lib import objects, stepped
from tests.lib.gate_harness import GOOD, PROBED, GateHarness
from tests.lib.rollout_harness import CANARY, ERRORS, NS, RolloutHarness
from tests.lib.signature_harness import DIGEST, MISSING, SignatureHarness, asked
from tests.lib.signature_harness import GOOD as SIGNED
from tests.unit.reconcile import test_retraining as retraining

Object = dict[str, Any]
INFRA = CANARY | {"gates": {"infra": {"memory": "1Gi"}}, "deadline": "30m"}
EVIL: Object = {"name": "check", "image": "evil.example/forge:1"}
MISSING_POLICY = AdmissionState(False, "the API server lets any user write ControllerRevisions in the name of others")


def forge(world: RolloutHarness, job: Object, report: Any, **change: Any) -> None:
    """A pod of a tenant's that passes for one of this Job; `change` of metadata and spec."""
    pod = objects.pod_of(job, "tenant")
    pod["metadata"] |= change.pop("metadata", {})
    pod["spec"] = {**pod["spec"], "containers": [EVIL], **change}
    state = {"terminated": {"exitCode": 0, "message": json.dumps(report)}}
    names_ = [container["name"] for container in pod["spec"]["containers"]]
    told = [{"name": name, "image": "i", "state": state} for name in names_]
    world.api.set_status(world.api.user_create(pod), {"phase": "Succeeded", "containerStatuses": told})


FORGERIES: dict[str, Object] = {
    "the label of the Job alone": {
        "metadata": {"ownerReferences": [], "labels": {"batch.kubernetes.io/controller-uid": "u"}}
    },
    "all labels and an owner that is no controller": {"metadata": {"ownerReferences": [{"uid": "u"}]}},
    "labels and owner, and another image": {},
    "the true container's name beside one that speaks": {
        "containers": [{"name": "check", "image": "i"}, EVIL | {"name": "x"}]
    },
}


@pytest.mark.parametrize("change", FORGERIES.values(), ids=FORGERIES.keys())
@pytest.mark.parametrize("condition", ["Complete", "Failed"])
def test_no_forged_pod_passes_a_gate(change: Object, condition: str) -> None:
    world = GateHarness(INFRA)
    world.want("v2")
    job = world.job("infra")
    change = copy.deepcopy(change)
    for owner in change.get("metadata", {}).get("ownerReferences", []):
        owner["uid"] = job["metadata"]["uid"]
    forge(world, job, PROBED, **change)
    world.api.set_status(job, {"conditions": [{"type": condition, "status": "True", "reason": "x"}]})
    world.go_to("Holding")
    assert world.outcomes == {"infra": ("Error", "JobFailed" if condition == "Failed" else "ReportMissing")}
    assert "pod tenant is not trusted" in world.record["gates"][0]["message"]
    assert world.weights == {"v1": 100}


def test_passing_pod_does_not_overrule_a_failed_job() -> None:
    world = GateHarness(INFRA)
    world.want("v2")
    world.end("infra", PROBED, condition="Failed", reason="BackoffLimitExceeded")
    world.go_to("Holding")
    assert world.outcomes == {"infra": ("Error", "JobFailed")}


def test_a_job_that_a_tenant_made_for_a_gate_is_not_read() -> None:
    world = GateHarness(INFRA)
    world.want("v2")
    job = world.job("infra")
    stolen = copy.deepcopy(world.api.objects[kinds.JOB, NS, job["metadata"]["name"]])
    stolen["metadata"]["ownerReferences"][0].pop("controller")
    world.api.user_delete(kinds.JOB, NS, job["metadata"]["name"])
    forged = world.api.user_create(stolen)
    forge(world, forged, PROBED, containers=forged["spec"]["template"]["spec"]["containers"])
    world.api.set_status(forged, {"conditions": [{"type": "Complete", "status": "True"}]})
    world.go(lambda: world.stalled == ("True", "NameTaken"))
    assert world.outcomes == {}
    assert world.weights == {"v1": 100}


def test_no_gate_counts_while_anybody_could_forge_it() -> None:
    world = GateHarness(INFRA)
    known = [MISSING_POLICY]
    world.restart = _restart(world, lambda _: known[0])  # type: ignore[method-assign]
    world.restart()
    world.want("v2")
    world.end("infra", PROBED)
    world.go(lambda: world.stalled == ("True", "AdmissionPolicyMissing"))
    assert world.outcomes == {}
    message = next(c for c in world.model["status"]["conditions"] if c["type"] == "Stalled")["message"]
    assert "gate infra does not count" in message
    assert "in the name of others" in message
    known[0] = AdmissionState(True)
    world.go(lambda: world.outcomes == {"infra": ("Pass", "GatePassed")})


def _restart(world: RolloutHarness, admission: Callable[[str], AdmissionState]) -> Callable[[], Any]:
    def restart() -> Any:
        from tests.lib.stepped import Operator

        world.operator = Operator(
            world.api,
            world.clock,
            measurements=world.scheduler,
            has_waiting_edits=lambda: world.crowd,
            is_busy=lambda: world.busy,
            admission=admission,
        )
        return world.operator

    return restart


class Forged(SignatureHarness):
    """Somebody replaces each resolve pod of v2 by one of their own, with the same name, owner and arguments."""

    def look(self, seconds: float = 5) -> None:
        for pod in self.pods_of_resolving():
            spec = pod["spec"]
            mine = spec["containers"][0]["image"] == "evil.example/forge"
            if pod["metadata"]["annotations"][names.ANNOTATION_VERSION_NAME] != "v2" or mine:
                continue
            forged = copy.deepcopy(pod)
            forged["spec"]["containers"][0] |= {"image": "evil.example/forge", "command": ["sh", "-c", "forge"]}
            self.api.user_delete(kinds.POD, NS, pod["metadata"]["name"])
            forged = self.api.user_create(forged)
            self.end(forged, {"digest": DIGEST, "sizeBytes": 7, "signature": SIGNED})
        super().look(seconds)


def test_a_forged_resolve_pod_verifies_nothing_and_is_told() -> None:
    world = Forged(signatures=asked(), endpoint=False)
    world.found["v2"] = MISSING
    world.want("v2")
    for _ in range(40):
        world.look()
    assert world.told(world.version("v2"), "Verified") != ("True", "SignatureVerified")
    assert world.model["status"]["serving"]["version"] == "v1"
    assert ("v2", "Warning", "ResolvePodLost") in world.operator.events.told


def test_vanishing_resolve_pods_are_reported_and_slowed_down() -> None:
    world = SignatureHarness(endpoint=False)
    world.api.user_create(objects.version(NS, "v9", digest=None))
    before = len([w for w in world.api.writes if w[:2] == ("create", kinds.POD)])
    for _ in range(100):
        for pod in world.pods_of_resolving():
            world.api.user_delete(kinds.POD, NS, pod["metadata"]["name"])
        world.look()
    made = len([w for w in world.api.writes if w[:2] == ("create", kinds.POD)]) - before
    assert ("v9", "Warning", "ResolvePodLost") in world.operator.events.told
    assert 5 < made < 25, "500 seconds, with pauses of up to a minute"


def test_one_vanished_resolve_pod_is_replaced_silently() -> None:
    world = SignatureHarness(endpoint=False)
    world.api.user_create(objects.version(NS, "v9", digest=None))
    world.look()
    (pod,) = world.pods_of_resolving()
    world.api.user_delete(kinds.POD, NS, pod["metadata"]["name"])
    world.look()
    assert len(world.pods_of_resolving()) == 1
    assert "ResolvePodLost" not in {reason for _, _, reason in world.operator.events.told}


def test_failing_resolve_pod_is_removed_and_retried_later() -> None:
    world = SignatureHarness(endpoint=False)
    world.api.user_create(objects.version(NS, "v9", digest=None))
    world.look()
    (pod,) = world.pods_of_resolving()
    said = {"exitCode": 3, "message": json.dumps({"reason": "ArtifactNotFound", "message": "nothing is there"})}
    status = {"name": "fetch", "restartCount": model_version.MAX_RESTARTS, "state": {"terminated": said}}
    world.api.set_status(pod, {"phase": "Running", "containerStatuses": [status]})
    world.settle()
    assert world.pods_of_resolving() == []
    assert world.told(world.version("v9"), "Stalled") == ("True", "ArtifactNotFound")
    world.look(model_version.CRASH_RETRY_SECONDS)
    world.settle(2)
    assert len(world.pods_of_resolving()) == 1
    assert world.told(world.version("v9"), "Stalled") == ("True", "ArtifactNotFound"), "it stands until a try succeeds"
    world.found["v9"] = SIGNED
    world.settle()
    assert world.told(world.version("v9"), "Ready") == ("True", "DigestPinned")


def test_a_resolve_pod_that_admission_changes_says_what_to_do() -> None:
    world = SignatureHarness(endpoint=False)
    create = world.api.user_create

    def mirrored(obj: Object) -> Object:
        if obj["kind"] == "Pod":
            obj = copy.deepcopy(obj)
            obj["spec"]["containers"][0]["image"] = "mirror.example/fetch:1"
        return create(obj)

    world.api.user_create = mirrored  # type: ignore[method-assign]
    world.api.user_create(objects.version(NS, "v9", digest=None))
    world.settle()
    assert world.told(world.version("v9"), "Stalled") == ("True", "ResolvePodChanged")
    assert "mirror.example/fetch:1" in world.version("v9")["status"]["failure"]["message"]
    assert len(world.pods_of_resolving()) == 1


def test_no_signature_counts_while_anybody_could_forge_it() -> None:
    world = SignatureHarness(signatures=asked(), endpoint=False)
    known = [MISSING_POLICY]
    _restart(world, lambda _: known[0])()
    world.found["v2"] = SIGNED
    world.want("v2")
    world.settle()
    assert world.told(world.version("v2"), "Stalled") == ("True", "AdmissionPolicyMissing")
    assert world.model["status"]["serving"]["version"] == "v1"
    known[0] = AdmissionState(True)
    world.go(lambda: world.told(world.version("v2"), "Verified") == ("True", "SignatureVerified"))


def test_no_forged_look_at_data_starts_a_run() -> None:
    world = retraining.RetrainingHarness(retraining.DATA)
    for _ in range(3):
        world.look()
    cron_job = next(o for (kind, _, _), o in world.api.objects.items() if kind == kinds.CRON_JOB)
    template = cron_job["spec"]["jobTemplate"]["spec"]["template"]
    own = retraining.look_job(world, cron_job, 0)
    own["metadata"] = {"name": "own", "namespace": NS, "labels": own["metadata"]["labels"]}
    for number in range(3):
        job = (
            retraining.look_job(world, cron_job, number + 1)
            if number
            else own | {"metadata": {**own["metadata"], "uid": "u"}}
        )
        pod = objects.pod_of(job, f"x{number}")
        if number == 1:
            pod["metadata"]["ownerReferences"] = []
        elif number == 2:
            pod["spec"] = {**template["spec"], "containers": [{"name": "fetch", "image": "evil"}]}
        done = retraining.done({"fingerprint": f"v{number}", "changed": "ETag"}, "fetch")
        world.api.set_status(world.api.user_create(pod), done)
        for _ in range(4):
            world.look(60)
    assert world.runs == []


def test_a_training_is_not_ended_by_a_forged_pod() -> None:
    world = retraining.RetrainingHarness(retraining.HOURLY)
    world.hold = {"train"}
    world.to_the_hour()
    world.go(lambda: any(world.stage(job) == "train" for job in world.jobs()))
    job = next(job for job in world.jobs() if world.stage(job) == "train")
    uri = {e["name"]: e.get("value") for e in job["spec"]["template"]["spec"]["containers"][0]["env"]}["OUTPUT_URI"]
    report = {"artifact": {"uri": uri, "digest": DIGEST}, "metrics": {"accuracy": 0.999}}
    for number, owner in enumerate(
        ({"uid": job["metadata"]["uid"]}, {"uid": job["metadata"]["uid"], "controller": True})
    ):
        pod = objects.pod_of(job, f"x{number}")
        pod["metadata"]["ownerReferences"] = [{"apiVersion": "batch/v1", "kind": "Job", "name": "x", **owner}]
        if owner.get("controller"):
            pod["spec"] = {"containers": [{"name": "work", "image": "evil"}]}
        world.api.set_status(world.api.user_create(pod), retraining.done(report))
    for _ in range(5):
        world.look()
    assert world.states == ["Training"]
    assert "result" not in world.runs[0]["status"]


JOB_SET = kinds.Kind("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet", optional=True)
TREES = [
    "by labels alone",
    "an owner that is no controller",
    "another object controls it",
    "a Job that is not there",
    "a Job of nobody's",
    "the very Job, and another image",
    "a kind that can't be read",
]


def _owned(kind: str, name: str, uid: str, group: str, controller: bool = True) -> list[Object]:
    return [{"apiVersion": group, "kind": kind, "name": name, "uid": uid, "controller": controller}]


@pytest.mark.parametrize("how", [*TREES, ""], ids=lambda how: how or "true")
def test_other_kinds_training_counts_pods_of_its_controllers(how: str) -> None:
    kinds.register_kinds([JOB_SET])
    manifest = {"apiVersion": JOB_SET.api_version, "kind": "JobSet", "spec": {}}
    train = {"resource": {"profile": "JobSet", "manifest": manifest}}
    world = retraining.RetrainingHarness(retraining.HOURLY, train=train, dataCheck=None)
    served = frozenset({*kinds.ALL_KINDS, JOB_SET})
    world.operator = stepped.Operator(world.api, world.clock, training_kinds=(JOB_SET,), served_kinds=served)
    world.to_the_hour()
    world.go(lambda: any(kind == JOB_SET for kind, _, _ in world.api.objects))
    live = next(o for (kind, _, _), o in world.api.objects.items() if kind == JOB_SET)
    spec = {"containers": [{"name": "work", "image": "example.com/trainer:1"}]}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "train-0",
            "namespace": NS,
            "labels": {},
            "ownerReferences": []
            if how == "a Job of nobody's"
            else _owned("JobSet", live["metadata"]["name"], live["metadata"]["uid"], JOB_SET.api_version),
        },
        "spec": {"template": {"metadata": {}, "spec": spec}},
    }
    job = world.api.user_create(job)
    pod = objects.pod_of(job, "train-0-x")
    pod["metadata"]["ownerReferences"] = {
        "by labels alone": [],
        "an owner that is no controller": _owned("Job", "train-0", job["metadata"]["uid"], "batch/v1", False),
        "another object controls it": _owned("JobSet", "other", "other-uid", JOB_SET.api_version),
        "a Job that is not there": _owned("Job", "train-1", "some-uid", "batch/v1"),
        "a kind that can't be read": _owned("Forger", "train", "some-uid", "evil.example/v1"),
    }.get(how, pod["metadata"]["ownerReferences"])
    if how == "the very Job, and another image":
        pod["spec"] = {"containers": [EVIL | {"name": "work"}]}
    run = world.runs[0]["metadata"]["name"]
    report = {"artifact": {"uri": f"s3://models/digits/{run}", "digest": DIGEST}, "metrics": {"accuracy": 0.97}}
    world.api.set_status(world.api.user_create(pod), retraining.done(report))
    world.api.set_status(live, {"conditions": [{"type": "Completed", "status": "True"}]})
    for _ in range(20):
        world.look(30)
    status = world.runs[0]["status"]
    if how:
        assert "result" not in status
        assert "pod train-0-x is not trusted" in json.dumps(status)
    else:
        assert status["result"]["digest"] == DIGEST


def test_no_training_counts_while_anybody_could_forge_it() -> None:
    world = retraining.RetrainingHarness(retraining.HOURLY)
    known = [MISSING_POLICY]
    world.operator = stepped.Operator(world.api, world.clock, admission=lambda _: known[0])
    world.to_the_hour()
    for _ in range(10):
        world.look()
    assert world.states == ["CheckingData"]
    assert "does not count" in world.runs[0]["status"]["message"]
    known[0] = AdmissionState(True)
    world.go(lambda: world.states == ["Succeeded"])


def boom(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("a bug")


def panics(kind: str) -> float:
    return float(metrics.RECONCILE_PANICS.labels(kind)._value.get())


ANALYSED = CANARY | {"analysis": {"interval": "10s", "metrics": [ERRORS]}, "deadline": "30m"}
READERS: dict[str, tuple[Any, str]] = {
    "a gate's Job": (gate_results, "read_gate_result"),
    "a Deployment": (observe, "_build_view"),
    "pods": (pod_failures, "diagnose_pods"),
    "a route": (observed_routing, "_check_routing"),
    "measurements": (rollout_input, "analyze_step"),
}


@pytest.mark.parametrize("command", ["abort", "the version that serves"])
@pytest.mark.parametrize(("module", "reader"), READERS.values(), ids=READERS.keys())
def test_a_reader_that_raises_blocks_no_way_back(
    module: Any, reader: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = RolloutHarness(ANALYSED)
    world.want("v2")
    world.go(lambda: world.weights.get("v2") == 10)
    monkeypatch.setattr(module, reader, boom)
    for _ in range(3):
        world.look()
    if command == "abort":
        world.command("abort")
    else:
        world.want("v1")
    monkeypatch.setattr(module, reader, boom)
    for _ in range(30):
        world.look()
    assert world.weights == {"v1": 100}


def test_a_gate_that_can_not_be_read_is_its_error_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    world = GateHarness()
    world.want("v2")
    monkeypatch.setattr(gate_results, "evaluate_report", boom)
    before = panics("Job")
    world.end("evaluation", GOOD)
    world.go_to("Holding")
    assert world.outcomes == {"evaluation": ("Error", "InternalError")}
    assert "could not be read (ZeroDivisionError)" in world.record["gates"][0]["message"]
    assert panics("Job") == before + 1
    world.command("abort")
    world.go_to("Aborted")
    assert world.weights == {"v1": 100}


@pytest.mark.parametrize("figure", ["1e99999999", "-1e99999999", "1E+999999999999999999", "9" * 4000])
def test_a_figure_without_bound_is_no_number(figure: str) -> None:
    world = GateHarness()
    world.want("v2")
    world.end("evaluation", {"metrics": [{"name": "accuracy", "candidate": figure, "serving": 0.92}]})
    world.go_to("Holding")
    assert world.outcomes == {"evaluation": ("Error", "MetricMissing")}


def test_a_version_whose_pod_can_not_be_read_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    world = SignatureHarness(endpoint=False)
    monkeypatch.setattr(model_version.versions, "parse_artifact_report", boom)
    world.found["v9"] = SIGNED
    before = panics("Pod")
    world.api.user_create(objects.version(NS, "v9", digest=None))
    world.settle()
    assert world.told(world.version("v9"), "Stalled") == ("True", "InternalError")
    assert panics("Pod") > before


def test_a_run_whose_job_can_not_be_read_ends_with_that(monkeypatch: pytest.MonkeyPatch) -> None:
    world = retraining.RetrainingHarness(retraining.HOURLY)
    monkeypatch.setattr(JobEngine, "read_stage", boom)
    world.to_the_hour()
    world.go(lambda: world.states == ["Failed"])
    assert world.runs[0]["status"]["reason"] == "InternalError"


def test_a_metric_without_bound_is_no_number() -> None:
    report = gate_results.GateReport({"metrics": [{"name": "a", "candidate": "1e99999999"}]})
    found = metric_jobs.parse_figure(report, "a")
    assert isinstance(found, MetricValue)
    assert found.candidate is None
