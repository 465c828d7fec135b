"""Trust in pods: only the rendered ones, with the additions of admission, are trusted."""

import copy
from typing import Any

import pytest

from modelwright.core import pod_trust

Object = dict[str, Any]
UID = "job-uid"
OURS: Object = {
    "name": "score",
    "image": "example.com/score:1",
    "args": ["run"],
    "env": [{"name": "MODEL_NAME", "value": "fraud"}],
    "volumeMounts": [{"name": "data", "mountPath": "/mnt/modelwright/candidate", "readOnly": True}],
}
TEMPLATE: Object = {
    "metadata": {"labels": {"modelwright.dev/role": "gate", "team": "risk"}},
    "spec": {
        "initContainers": [{"name": "fetch-candidate", "image": "example.com/fetch:1", "args": ["get"]}],
        "containers": [OURS],
        "volumes": [{"name": "data", "emptyDir": {}}],
    },
}


def pod(**change: Any) -> Object:
    """A pod as the API server has it: the template's with defaults."""
    made: Object = {
        "metadata": {
            "name": "gate-x",
            "labels": {"modelwright.dev/role": "gate", "controller-uid": UID},
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "uid": UID, "controller": True}],
        },
        "spec": copy.deepcopy(TEMPLATE["spec"]),
        "status": {"containerStatuses": [{"name": "score", "state": {"terminated": {"exitCode": 0, "message": "{}"}}}]},
    }
    for container in (*made["spec"]["containers"], *made["spec"]["initContainers"]):
        container |= {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}
        container.setdefault("volumeMounts", []).append(
            {"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True}
        )
    made["spec"]["volumes"].append({"name": "token", "projected": {"sources": []}})
    made["spec"]["volumes"][0]["emptyDir"] = {}
    made["metadata"] |= change.pop("metadata", {})
    made["spec"] |= change
    return made


def ours(**change: Any) -> Object:
    """The pod with another container that reports."""
    made = pod()
    made["spec"]["containers"][0] |= change
    return made


def with_container(where: str, **more: Any) -> Object:
    made = pod()
    made["spec"][where].insert(0, {"name": "istio-proxy", "image": "example.com/proxy:1", **more})
    return made


OWN_ENV = [*OURS["env"], *({"name": name, "value": "x"} for name in ("AWS_ROLE_ARN", "ENV", "PYTHONUNBUFFERED"))]
BELIEVED = {
    "as it was rendered": pod(),
    "with the digest of its image": ours(image="example.com/score:1@sha256:" + "a" * 64),
    "with the digest in the place of the tag": ours(image="example.com/score@sha256:" + "a" * 64),
    "with the variables of a workload's identity": ours(env=OWN_ENV),
    "with a sidecar": with_container("containers"),
    "with an init container of a mesh": with_container("initContainers"),
    "with the ports of a mesh": ours(ports=[{"containerPort": 15090}]),
    "on another node": pod(nodeSelector={"pool": "gpu"}),
}
OTHERS = {
    "of another owner": (pod(metadata={"ownerReferences": [{"uid": "other", "controller": True}]}), "controls it"),
    "of an owner that is no controller": (pod(metadata={"ownerReferences": [{"uid": UID}]}), "controls it"),
    "without an owner": (pod(metadata={"ownerReferences": []}), "controls it"),
    "without our label": (pod(metadata={"labels": {"controller-uid": UID}}), "label modelwright.dev/role"),
    "with another image": (ours(image="evil.example/score:1"), "image is evil.example/score:1"),
    "with another tag": (ours(image="example.com/score:2@sha256:" + "a" * 64), "image is"),
    "with a command": (ours(command=["sh", "-c", "forge"]), "its command was changed"),
    "with other arguments": (ours(args=["forge"]), "its args was changed"),
    "with a hook": (ours(lifecycle={"postStart": {"exec": {"command": ["forge"]}}}), "lifecycle"),
    "with its report elsewhere": (ours(terminationMessagePath="/mnt/other/x"), "terminationMessagePath"),
    "with modules that an injector brings": (
        ours(env=[*OURS["env"], {"name": "PYTHONPATH", "value": "/otel-auto-instrumentation-python"}]),
        "variable PYTHONPATH was added",
    ),
    "with a library that is loaded first": (
        ours(env=[*OURS["env"], {"name": "LD_PRELOAD", "value": "/mine.so"}]),
        "variable LD_PRELOAD was added",
    ),
    "with a setting of ours that was not made": (
        ours(env=[*OURS["env"], {"name": "MODELWRIGHT_TERMINATION_LOG", "value": "/x"}]),
        "MODELWRIGHT_TERMINATION_LOG",
    ),
    "with another variable of ours": (ours(env=[{"name": "MODEL_NAME", "value": "other"}]), "variable MODEL_NAME"),
    "without our mount": (ours(volumeMounts=[]), "its mount at /mnt/modelwright/candidate"),
    "with something mounted over our directory": (
        ours(volumeMounts=[*OURS["volumeMounts"], {"name": "evil", "mountPath": "/mnt/modelwright"}]),
        "mounted over /mnt/modelwright",
    ),
    "with something mounted over the report": (
        ours(volumeMounts=[*OURS["volumeMounts"], {"name": "evil", "mountPath": "/dev"}]),
        "mounted over /dev",
    ),
    "with another container alone": (pod(containers=[{"name": "c", "image": "evil"}]), "score: it is missing"),
    "without what fetches": (pod(initContainers=[]), "container fetch-candidate: it is missing"),
    "with other data": (pod(volumes=[{"name": "data", "configMap": {"name": "evil"}}]), "its volume data"),
    "with a container that writes our data": (
        with_container("containers", volumeMounts=[{"name": "data", "mountPath": "/x"}]),
        "mounts the volume data",
    ),
    "with all processes in one": (pod(shareProcessNamespace=True), "shareProcessNamespace"),
}


@pytest.mark.parametrize("found", BELIEVED.values(), ids=BELIEVED.keys())
def test_a_pod_is_trusted(found: Object) -> None:
    assert pod_trust.find_pod_mismatch(found, UID, TEMPLATE) is None


@pytest.mark.parametrize(("found", "said"), OTHERS.values(), ids=OTHERS.keys())
def test_a_changed_pod_is_not_trusted(found: Object, said: str) -> None:
    why = pod_trust.find_pod_mismatch(found, UID, TEMPLATE)
    assert why is not None
    assert said in why
    trusted = pod_trust.trust_pods(UID, TEMPLATE, [found, pod()])
    assert len(trusted.pods) == 1
    assert trusted.refusal_text == f"pod gate-x is not trusted: {why}"


def test_containers_that_were_added_say_nothing() -> None:
    found = with_container("containers")
    evil = {"name": "istio-proxy", "state": {"terminated": {"exitCode": 0, "message": '{"outcome": "Pass"}'}}}
    found["status"]["containerStatuses"].insert(0, evil)
    (kept,) = pod_trust.trust_pods(UID, TEMPLATE, [found]).pods
    messages = {
        entry["name"]: entry["state"]["terminated"].get("message") for entry in kept["status"]["containerStatuses"]
    }
    assert messages == {"istio-proxy": None, "score": "{}"}


WELL: Object = {"name": "score", "state": {"terminated": {"exitCode": 0}}}
BADLY: Object = {"name": "score", "state": {"terminated": {"exitCode": 1}}}
GOING: Object = {"name": "score", "state": {"running": {}}}
PROXY: Object = {"name": "istio-proxy", "state": {"running": {}}}
ENDS: dict[str, tuple[list[Object], str, str]] = {
    "its own container has ended well and a sidecar runs on": ([PROXY, WELL], "Never", "Succeeded"),
    "the order of the containers does not matter": ([WELL, PROXY], "Never", "Succeeded"),
    "its own has failed and is not started again": ([PROXY, BADLY], "Never", "Failed"),
    "its own has failed and is started again": ([PROXY, BADLY], "OnFailure", "Running"),
    "its own runs": ([PROXY, GOING], "Never", "Running"),
    "its own has no status yet": ([PROXY], "Never", "Running"),
    "nothing was added: the kubelet tells of the end": ([WELL], "Never", "Running"),
}


@pytest.mark.parametrize(("statuses", "restarts", "phase"), ENDS.values(), ids=ENDS.keys())
def test_a_pod_whose_own_containers_have_ended_counts_as_ended(
    statuses: list[Object], restarts: str, phase: str
) -> None:
    template = {**TEMPLATE, "spec": {**TEMPLATE["spec"], "restartPolicy": restarts}}
    live = pod() | {"status": {"phase": "Running", "containerStatuses": statuses}}
    (found,) = pod_trust.trust_pods(UID, template, [live]).pods
    assert found["status"]["phase"] == phase
    assert (found["status"].get("reason") == pod_trust.KEPT_RUNNING) == (phase != "Running")


def controlled(kind: str, name: str, uid: str, by: Object | None = None, **more: Any) -> Object:
    """An object; `by`: its controller."""
    owner = (
        {"kind": by["kind"], "name": by["metadata"]["name"], "uid": by["metadata"]["uid"], "controller": True}
        if by
        else None
    )
    return {"kind": kind, "metadata": {"name": name, "uid": uid, "ownerReferences": [owner] if owner else []}, **more}


SET = controlled("JobSet", "train", "set")
POD_SPEC = {"containers": [{"name": "main", "image": "train:1", "command": ["train"]}]}
WORKER = controlled("Job", "train-0", "job", SET, spec={"template": {"metadata": {}, "spec": POD_SPEC}})
OTHER = controlled("JobSet", "other", "else")
EVIL_SPEC = {"containers": [{"name": "main", "image": "evil:1", "command": ["train"]}]}
TREES: dict[str, tuple[Object, dict[str, Object | None], str]] = {
    "of the object itself": (controlled("Pod", "p", "p", SET, spec=POD_SPEC), {}, ""),
    "of its Job": (controlled("Pod", "p", "p", WORKER, spec=POD_SPEC), {"job": WORKER}, ""),
    "of what may not be read": (controlled("Pod", "p", "p", OTHER, spec=POD_SPEC), {"else": None}, ""),
    "of nothing": (controlled("Pod", "p", "p", spec=POD_SPEC), {}, "nothing controls Pod p"),
    "of another object": (controlled("Pod", "p", "p", OTHER), {"else": OTHER}, "nothing controls JobSet other"),
    "of an object that is not there": (controlled("Pod", "p", "p", OTHER), {}, "JobSet other controls it"),
    "of a Job of another object": (
        controlled("Pod", "p", "p", WORKER, spec=POD_SPEC),
        {"job": controlled("Job", "train-0", "job", OTHER, spec=WORKER["spec"])},
        "JobSet other controls it",
    ),
    "of its Job, with another image": (
        controlled("Pod", "p", "p", WORKER, spec=EVIL_SPEC),
        {"job": WORKER},
        "of Job train-0: container main",
    ),
    "of itself": (controlled("Pod", "p", "p", controlled("Pod", "p", "p")), {}, "more than 3 controllers"),
}


@pytest.mark.parametrize(("pod", "between", "said"), TREES.values(), ids=TREES.keys())
def test_a_pod_is_trusted_when_controllers_lead_to_the_stage(
    pod: Object, between: dict[str, Object | None], said: str
) -> None:
    trusted = pod_trust.trust_tree_pods("set", [pod], between)
    assert len(trusted.pods) == (0 if said else 1)
    assert said in trusted.refusal_text


def test_two_controllers_are_none() -> None:
    pod = controlled("Pod", "p", "p", SET)
    pod["metadata"]["ownerReferences"] *= 2
    assert pod_trust.trust_tree_pods("set", [pod], {}).pods == ()
