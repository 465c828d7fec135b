"""Objects of other controllers: declared expressions, and where results come from."""

import json
from typing import Any

import pytest

from modelwright.engines.providers import choose_engine
from modelwright.render.strategic_merge import MergeError
from tests.unit.engines.builders import DIGEST, NOW, container, ended, live, pod, succeeded, work

Json = dict[str, Any]
DONE = "object.status.phase == 'Done'"
FAILED = "object.status.phase == 'Broken'"
DECLARED: Json = {
    "success": DONE,
    "failure": FAILED,
    "suspended": "object.spec.paused == true",
    "message": "object.status.why",
}


def read(status: Json | None, pods: tuple[Json, ...] = (), spec: Json | None = None, **resource: Any) -> Any:
    stage_work = work(**{**DECLARED, **resource})
    return choose_engine(stage_work).read_stage(live("Thing", status, spec), pods, stage_work, NOW)


CASES = [
    ("that is new", None, None, {}, "Pending", "success has no result"),
    ("that goes on", {"phase": "Going", "why": "step 3"}, {"paused": False}, {}, "Running", "step 3"),
    ("that is paused", {"phase": "Going", "why": ""}, {"paused": True}, {}, "Suspended", "is suspended"),
    ("that is done", {"phase": "Done", "why": ""}, {}, {}, "Succeeded", ""),
    ("that is done while paused", {"phase": "Done"}, {"paused": True}, {}, "Succeeded", ""),
    ("that is broken", {"phase": "Broken", "why": "no disk"}, {}, {}, "Failed", "Thing train-digits failed: no disk"),
    ("of which both are true", {"phase": "Done"}, {}, {"failure": "true"}, "Failed", "failed"),
    ("whose status lacks the members", {"stage": 1}, {}, {}, "Unknown", '"phase"'),
    ("whose success gives no true or false", {"phase": "x"}, {}, {"success": "'yes'"}, "Running", "'yes'"),
    ("whose success is text when it is done", {"phase": "Done"}, {}, {"success": "'true'"}, "Running", "no true or"),
]


@pytest.mark.parametrize(
    ("status", "spec", "resource", "state", "expected"),
    [case[1:] for case in CASES],
    ids=[f"an object {c[0]}" for c in CASES],
)
def test_an_object_is_read_by_its_expressions(
    status: Json | None, spec: Json | None, resource: Json, state: str, expected: str
) -> None:
    reading = read(status, (), spec, **resource)
    assert reading.state == state
    assert expected in reading.message


@pytest.mark.parametrize(
    ("phase", "resource", "state"),
    [
        ("Succeeded", {"success": "has(object.status.extra)"}, "Running"),
        ("Succeeded", {"success": "object.status.extra"}, "Running"),
        ("Succeeded", {"success": "true"}, "Succeeded"),
        ("Running", {"success": "true"}, "Running"),
        ("Succeeded", {"failure": "true"}, "Failed"),
        ("Running", {"failure": "true"}, "Failed"),
        ("Running", {"suspended": "true"}, "Suspended"),
        ("Failed", {"success": "true"}, "Failed"),
    ],
)
def test_beside_a_profile_success_needs_both_and_failure_either(phase: str, resource: Json, state: str) -> None:
    stage_work = work(profile="Workflow", **resource)
    assert choose_engine(stage_work).read_stage(live("Workflow", {"phase": phase}), [], stage_work, NOW).state == state


def test_a_hostile_expression_is_not_success_and_is_told() -> None:
    slow = "object.status.n.all(x, object.status.n == object.status.n)"
    reading = read({"phase": "Done", "n": list(range(9000))}, success=slow)
    assert reading.state == "Unknown"
    assert "took longer than 1 s of CPU time" in reading.message


def workflow(value: Any) -> Json:
    parameters = [{"name": "other", "value": "{}"}, {"name": "result", "value": value}]
    return live("Workflow", {"phase": "Succeeded", "outputs": {"parameters": parameters}})


def test_a_workflow_gives_its_result_as_a_global_output() -> None:
    stage_work = work(profile="Workflow")
    pods = [succeeded('{"artifact": "of a pod"}', image_id=f"x@{DIGEST}")]
    reading = choose_engine(stage_work).read_stage(workflow('{"artifact": 1}'), pods, stage_work, NOW)
    assert (reading.report, reading.image, reading.problem) == ({"artifact": 1}, f"x@{DIGEST}", None)
    without = live("Workflow", {"phase": "Succeeded"})
    assert choose_engine(stage_work).read_stage(without, pods, stage_work, NOW).report == {"artifact": "of a pod"}


def test_a_workflow_that_failed_gives_none() -> None:
    stage_work = work(profile="Workflow")
    broken = workflow('{"artifact": 1}')
    broken["status"]["phase"] = "Failed"
    reading = choose_engine(stage_work).read_stage(broken, [], stage_work, NOW)
    assert (reading.state, reading.report) == ("Failed", None)


@pytest.mark.parametrize(
    ("outputs", "report"),
    [
        ("object.status.result", {"artifact": 1}),
        ("{'artifact': object.status.n}", {"artifact": 3}),
    ],
)
def test_declared_outputs_are_a_map_or_a_text_with_json(outputs: str, report: Json) -> None:
    status = {"phase": "Done", "n": 3, "result": json.dumps({"artifact": 1})}
    assert read(status, (succeeded('{"artifact": "of a pod"}'),), outputs=outputs).report == report


@pytest.mark.parametrize(
    ("outputs", "problem"),
    [
        ("object.status.phase", "is no JSON object: 'Done'"),
        ("object.status.nothing", "outputs has no result"),
        ("object.status.n", "no container left a report"),
    ],
)
def test_outputs_that_can_not_be_read_are_no_result(outputs: str, problem: str) -> None:
    reading = read({"phase": "Done", "n": 3}, outputs=outputs)
    assert (reading.state, reading.report) == ("Succeeded", None)
    assert problem in reading.problem


@pytest.mark.parametrize(
    ("pods", "reason", "expected"),
    [
        ([pod("Failed", container(**ended(137, reason="OOMKilled")))], "ContainerOOMKilled", "memory"),
        ([pod("Failed", container(**ended(2, "KeyError: label")))], "StageFailed", "exit code 2: KeyError: label"),
        ([], "StageFailed", "Broken down"),
    ],
)
def test_why_it_failed_is_told_by_object_and_pods(pods: list[Json], reason: str, expected: str) -> None:
    reading = read({"phase": "Broken", "why": "Broken down"}, tuple(pods))
    assert (reading.state, reading.reason) == ("Failed", reason)
    assert expected in reading.message
    assert "Broken down" in reading.message


def test_a_failed_image_pull_ends_it_unless_another_pod_runs() -> None:
    stuck = pod("Pending", container(waiting={"reason": "ErrImagePull", "message": "not found"}), seconds=121)
    assert (read({"phase": "Going"}, (stuck,)).state, read({"phase": "Going"}, (stuck,)).reason) == (
        "Failed",
        "ImagePullFailed",
    )
    assert read({"phase": "Going"}, (stuck, pod("Running"))).state == "Running"


@pytest.mark.parametrize(
    ("resource", "selector"),
    [
        ({"podSelector": "app=$(NAME),role=main"}, "app=train-digits,role=main"),
        ({}, None),
        ({"profile": "Workflow", "podSelector": "a=b"}, "a=b"),
    ],
)
def test_pods_are_those_of_the_selector(resource: Json, selector: str | None) -> None:
    stage_work = work(**{**DECLARED, **resource})
    assert choose_engine(stage_work).pod_selector(live("Thing"), stage_work) == selector


def test_the_kind_is_the_manifests() -> None:
    stage_work = work(**DECLARED)
    assert choose_engine(stage_work).resolve_kind(stage_work) == ("x/v1", "Thing")
    nameless = work(**DECLARED, manifest={"apiVersion": "x/v1"})
    with pytest.raises(MergeError, match="kind: must be given"):
        choose_engine(nameless).resolve_kind(nameless)


def test_an_invalid_expression_is_refused_with_its_field() -> None:
    assert choose_engine(work(**DECLARED)).validate_work(work(**DECLARED)) is None
    broken = work(**{**DECLARED, "failure": "object.status.("})
    assert str(choose_engine(broken).validate_work(broken)).startswith("resource.failure: ")
