"""Diagnosis of pods that don't become ready: the one cause of a status that is reported."""

import json
from typing import Any

import pytest

from modelwright.api.reasons import Reason
from modelwright.core import pod_failures


def pod(name: str = "p", created: str = "2026-11-21T12:00:00Z", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "creationTimestamp": created}, "status": status}


def container(name: str = "model", ready: bool = False, **state: Any) -> dict[str, Any]:
    last = state.pop("last", None)
    found = {"name": name, "image": "example.com/x:1", "ready": ready, "state": state}
    return found | ({"lastState": {"terminated": last}} if last else {})


def ended(code: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    return {"exitCode": code, "message": message, "reason": reason}


REPORT = json.dumps({"reason": "DigestMismatch", "message": "got sha256:bb"})
HINT = json.dumps({"digest": "x", "hint": "The artifact holds nothing but the folder 'm'"})
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}

CASES = [
    ("no pods at all say nothing", [], None, ""),
    ("a pod that has only just been made says nothing", [pod()], None, ""),
    (
        "a container that is being created says nothing",
        [pod(containerStatuses=[container(waiting={"reason": "ContainerCreating"})])],
        None,
        "",
    ),
    (
        "a container that runs and isn't ready yet says nothing",
        [pod(containerStatuses=[container(running={})])],
        None,
        "",
    ),
    ("a pod that fits no node", [pod(conditions=[UNSCHEDULABLE])], Reason.UNSCHEDULABLE, "fits no node: 0/2 nodes"),
    (
        "an image that can't be pulled",
        [pod(containerStatuses=[container(waiting={"reason": "ImagePullBackOff", "message": "not found"})])],
        Reason.IMAGE_PULL_FAILED,
        "example.com/x:1 can't be pulled: not found",
    ),
    (
        "an image whose name is wrong, without a message",
        [pod(initContainerStatuses=[container("fetch", waiting={"reason": "InvalidImageName"})])],
        Reason.IMAGE_PULL_FAILED,
        "InvalidImageName",
    ),
    (
        "a container that can't be made for want of a Secret",
        [pod(containerStatuses=[container(waiting={"reason": "CreateContainerConfigError", "message": 'secret "x"'})])],
        Reason.CONTAINER_CONFIG_ERROR,
        'secret "x"',
    ),
    (
        "the fetch container's own report",
        [pod(initContainerStatuses=[container("fetch", terminated=ended(1, REPORT))])],
        Reason.DIGEST_MISMATCH,
        "got sha256:bb",
    ),
    (
        "the report of the run before, while it tries again",
        [pod(initContainerStatuses=[container("fetch", running={}, last=ended(1, REPORT))])],
        Reason.DIGEST_MISMATCH,
        "got sha256:bb",
    ),
    (
        "a report that we don't know is a message like any other",
        [pod(containerStatuses=[container(terminated=ended(3, '{"reason": "Own", "message": "x"}'))])],
        Reason.MODEL_LOAD_FAILED,
        'exit code 3: {"reason": "Own"',
    ),
    (
        "a report that is no object",
        [pod(containerStatuses=[container(terminated=ended(3, "[1]"))])],
        Reason.MODEL_LOAD_FAILED,
        "exit code 3: [1]",
    ),
    (
        "the last line of what a model server said",
        [pod(containerStatuses=[container(terminated=ended(1, "a\nValueError: bad pickle\n\n"))])],
        Reason.MODEL_LOAD_FAILED,
        "ended with exit code 1: ValueError: bad pickle",
    ),
    (
        "nothing said at all",
        [pod(containerStatuses=[container(terminated=ended(137))])],
        Reason.MODEL_LOAD_FAILED,
        "exit code 137",
    ),
    (
        "a crash loop tells of the run before",
        [pod(containerStatuses=[container(waiting={"reason": "CrashLoopBackOff"}, last=ended(2, "boom"))])],
        Reason.MODEL_LOAD_FAILED,
        "exit code 2: boom",
    ),
    (
        "a model that isn't found, where the files lie in one folder",
        [
            pod(
                initContainerStatuses=[container("fetch", terminated=ended(0, HINT, "Completed"))],
                containerStatuses=[container(terminated=ended(1, "no model"))],
            )
        ],
        Reason.MODEL_LOAD_FAILED,
        "exit code 1: no model. The artifact holds nothing but the folder 'm'",
    ),
    (
        "a hint of another container than ours",
        [
            pod(
                initContainerStatuses=[container("own", terminated=ended(0, HINT, "Completed"))],
                containerStatuses=[container(terminated=ended(1, "no model"))],
            )
        ],
        Reason.MODEL_LOAD_FAILED,
        "exit code 1: no model",
    ),
    (
        "too much memory",
        [pod(containerStatuses=[container(terminated=ended(137, reason="OOMKilled"))])],
        Reason.CONTAINER_OOM_KILLED,
        "resources.limits.memory",
    ),
    (
        "an init container that has ended well is no failure",
        [pod(initContainerStatuses=[container("fetch", terminated=ended(0, '{"digest": "x"}', "Completed"))])],
        None,
        "",
    ),
    (
        "a container that is ready again is no failure",
        [pod(containerStatuses=[container(ready=True, running={}, last=ended(1, "boom"))])],
        None,
        "",
    ),
    (
        "a pod that is leaving is not asked",
        [pod(conditions=[UNSCHEDULABLE]) | {"metadata": {"name": "p", "deletionTimestamp": "x"}}],
        None,
        "",
    ),
    (
        "the newest pod speaks first",
        [
            pod("old", "2026-11-21T11:00:00Z", conditions=[UNSCHEDULABLE]),
            pod("new", containerStatuses=[container(terminated=ended(1, "boom"))]),
        ],
        Reason.MODEL_LOAD_FAILED,
        "boom",
    ),
    (
        "an older pod speaks when the newest is well",
        [pod("old", "2026-11-21T11:00:00Z", conditions=[UNSCHEDULABLE]), pod("new")],
        Reason.UNSCHEDULABLE,
        "pod old",
    ),
]


@pytest.mark.parametrize(("found", "reason", "says"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_diagnose(found: list[dict[str, Any]], reason: Reason | None, says: str) -> None:
    failure = pod_failures.diagnose_pods(found)
    if reason is None:
        assert failure is None
    else:
        assert failure is not None
        assert failure.reason == reason
        assert says in failure.message
        assert failure.pod in {p["metadata"]["name"] for p in found}


def test_exit_codes_are_kept_and_long_lines_cut() -> None:
    failure = pod_failures.diagnose_pods([pod(containerStatuses=[container(terminated=ended(7, "x" * 5000))])])
    assert failure is not None
    assert failure.exit_code == 7
    assert len(failure.message) < 600


def test_a_deployment_whose_pods_are_refused() -> None:
    text = 'pods "digits-x-12345" is forbidden: violates PodSecurity'
    refusal = {"type": "ReplicaFailure", "status": "True", "message": text}
    failure = pod_failures.find_creation_refusal({"status": {"conditions": [refusal]}})
    assert failure is not None
    assert failure.reason == Reason.PODS_FORBIDDEN
    assert failure.message == "pods can't be created: violates PodSecurity"
    assert pod_failures.find_creation_refusal({"status": {"conditions": [refusal | {"status": "False"}]}}) is None
    assert pod_failures.find_creation_refusal({}) is None
    other = pod_failures.find_creation_refusal({"status": {"conditions": [refusal | {"message": "no such account"}]}})
    assert other is not None
    assert other.message == "pods can't be created: no such account"


QUOTAS = [
    (
        "a quota without room",
        "exceeded quota: team, requested: limits.cpu=1, used: limits.cpu=8, limited: limits.cpu=8",
        "has no room",
    ),
    ("a quota on what no container names", "failed quota: team: must specify limits.cpu for: fetch", "don't set"),
    ("a LimitRange", "maximum memory usage per Container is 512Mi, but limit is 1Gi", "LimitRange refuses"),
    (
        "a LimitRange's ratio",
        "cpu max limit to request ratio per Container is 2, but provided ratio is 10",
        "LimitRange",
    ),
]


@pytest.mark.parametrize(("refusal", "expected"), [case[1:] for case in QUOTAS], ids=[case[0] for case in QUOTAS])
def test_a_quotas_refusal_is_reported_with_the_remedy(refusal: str, expected: str) -> None:
    condition = {
        "type": "ReplicaFailure",
        "status": "True",
        "message": f'pods "digits-x-12345" is forbidden: {refusal}',
    }
    for sizes, cure in (
        (pod_failures.SERVING_RESOURCES_HINT, "spec.serving.resources"),
        (pod_failures.HELPER_RESOURCES_HINT, "helperPods"),
    ):
        failure = pod_failures.find_creation_refusal({"status": {"conditions": [condition]}}, sizes)
        assert failure is not None
        assert failure.reason == Reason.QUOTA_EXCEEDED
        assert all(word in failure.message for word in (refusal, expected, cure))
        assert "12345" not in failure.message


def test_other_refusals_are_no_quotas() -> None:
    for refusal in ("violates PodSecurity", 'serviceaccounts "reader" not found', "User cannot create resource pods"):
        assert pod_failures.explain_quota_refusal(refusal, pod_failures.SERVING_RESOURCES_HINT) is None


REPORTS = [("", None), ("no JSON", None), ("[]", None), ("1", None), ('{"digest": "d"}', {"digest": "d"}), ("{", None)]


@pytest.mark.parametrize(("text", "expected"), REPORTS)
def test_termination_messages(text: str, expected: object) -> None:
    assert pod_failures.parse_termination_report(text) == expected


def test_every_reported_reason_is_documented() -> None:
    """A reported reason must be one of ours, for any text of a container."""
    assert {pod_failures.diagnose_pods(c[1]).reason for c in CASES if c[2]} <= set(Reason)  # type: ignore[union-attr]
