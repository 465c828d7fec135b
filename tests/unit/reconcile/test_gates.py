"""Gates of a rollout, pass by pass: their Jobs are made once, read when they have ended, and taken away."""

from typing import Any

import pytest

from modelwright.api import names
from modelwright.kube import api_errors, kinds
from tests.lib.gate_harness import BOTH, EVALUATION, GOOD, PROBED, GateHarness, Object
from tests.lib.rollout_harness import CANARY, NS, RolloutHarness

FULL = {"uri": "s3://reports/v2.json", "digest": "sha256:" + "a" * 64}
WORSE = {"metrics": [{"name": "accuracy", "candidate": 0.80, "serving": 0.92, "n": 2000, "better": 20, "worse": 260}]}


def test_a_gate_whose_pod_a_quota_refuses_ends_by_that_name() -> None:
    world = GateHarness()
    said = "exceeded quota: team, requested: limits.cpu=1, used: limits.cpu=8, limited: limits.cpu=8"
    asked: list[Object] = []

    def refuse(pod: Object) -> None:
        asked.append(pod)
        raise api_errors.Denied(403, "Forbidden", f'pods "{pod["metadata"]["name"]}" is forbidden: {said}')

    world.api.before_dry_run = refuse
    world.want("v2")
    job = world.job("evaluation")
    world.go(lambda: world.outcomes.get("evaluation") == ("Error", "QuotaExceeded"))
    (message,) = (entry["message"] for entry in world.record["gates"] if entry["name"] == "evaluation")
    assert said in message
    assert "helperPods.resources" in message
    assert asked[0]["spec"] == job["spec"]["template"]["spec"]
    assert world.serving == "v1"


class First(GateHarness):
    """A Model that nothing serves yet."""

    begun = False

    def __init__(self, policy: Object) -> None:
        RolloutHarness.__init__(self, policy)
        self.begun = True

    def go(self, until: Any, looks: int = 60, seconds: float = 5) -> None:
        if self.begun:
            super().go(until, looks, seconds)


def test_gates_pass_in_order_before_any_request_arrives() -> None:
    world = GateHarness()
    world.want("v2")
    world.job("evaluation")
    assert world.pods("v2") is None, "the evaluation comes before the candidate's first pod"
    assert set(world.jobs) == {"evaluation"}
    world.end("evaluation", GOOD)
    world.job("infra")
    assert world.pods("v2") == 1
    assert world.weights == {"v1": 100}
    world.end("infra", PROBED)
    world.go(lambda: world.weights == {"v1": 90, "v2": 10})
    assert world.outcomes == {"evaluation": ("Pass", "GatePassed"), "infra": ("Pass", "GatePassed")}
    world.go_to("Succeeded")
    assert world.jobs == {}, "what has passed is taken away"


SCANNED = {"outcome": "Pass", "reason": "GatePassed", "message": "2 files"}


def test_the_artifact_is_scanned_before_anything_loads_it() -> None:
    world = GateHarness({**BOTH, "gates": {**BOTH["gates"], "scan": {"allow": {"globals": ["sklearn.*"]}}}})
    world.want("v2")
    world.job("scan")
    assert set(world.jobs) == {"scan"}
    assert world.pods("v2") is None
    world.end("scan", SCANNED)
    world.job("evaluation")
    assert world.outcomes == {"scan": ("Pass", "GatePassed")}


@pytest.mark.parametrize(
    ("report", "comes_to"),
    [
        ({"outcome": "Fail", "reason": "CodeNotAllowed", "message": "code: m.pkl imports os.system"}, "RolledBack"),
        ({"outcome": "Inconclusive", "reason": "ContentUnknown", "message": "unknown: m.h5"}, "Holding"),
    ],
)
def test_code_takes_a_version_back_and_what_is_unknown_holds_it(report: Object, comes_to: str) -> None:
    world = GateHarness({**CANARY, "gates": {"scan": {}}, "deadline": "40m"})
    world.want("v2")
    world.end("scan", report)
    world.go_to(comes_to)
    assert world.outcomes == {"scan": (report["outcome"], report["reason"])}
    assert world.record["gates"][0]["message"] == report["message"]
    assert world.weights == {"v1": 100}


def test_a_job_is_made_once_whatever_becomes_of_the_operator() -> None:
    world = GateHarness()
    world.want("v2")
    world.job("evaluation")
    for _ in range(3):
        world.restart()
        world.look()
    assert [name for verb, kind, name in world.api.writes if kind == kinds.JOB] == [
        world.jobs["evaluation"]["metadata"]["name"]
    ]


OLD: Object = {"metrics": [{"name": "accuracy", "candidate": 0.80, "serving": 0.92, "n": 2000}]}
FEW: Object = {"metrics": [{"name": "accuracy", "candidate": 0.9, "serving": 0.92, "n": 50, "better": 1, "worse": 2}]}


@pytest.mark.parametrize(
    ("report", "reason"), [(OLD, "UncertaintyMissing"), (FEW, "TooFewExamples")], ids=["an old report", "50 examples"]
)
@pytest.mark.parametrize("rolls_back", [False, True], ids=["the default", "onInconclusive Rollback"])
def test_figures_that_prove_nothing_follow_on_inconclusive(report: Object, reason: str, rolls_back: bool) -> None:
    world = GateHarness({**BOTH, "onInconclusive": "Rollback"} if rolls_back else BOTH)
    world.want("v2")
    world.end("evaluation", {**report, "fullReport": FULL})
    world.go_to(*(("Aborted", "Inconclusive") if rolls_back else ("Holding",)))
    assert world.outcomes["evaluation"] == ("Inconclusive", reason)
    assert [gate["report"] for gate in world.record["gates"]] == [FULL]


def test_a_report_that_lacks_a_figure_quarantines_nothing() -> None:
    world = GateHarness({**BOTH, "onInconclusive": "Rollback"})
    world.want("v2")
    world.end("evaluation", {"metrics": []})
    world.go_to("Aborted", "Inconclusive")
    assert world.outcomes["evaluation"] == ("Error", "MetricMissing")
    assert world.stage("v2") == "None"


@pytest.mark.parametrize(
    ("gate", "report", "reason"),
    [
        ("evaluation", WORSE, "MetricOutOfLimits"),
        ("infra", {"outcome": "Fail", "reason": "SampleFailed", "message": "500"}, "SampleFailed"),
    ],
)
def test_failed_gate_rolls_back_and_keeps_its_job(gate: str, report: Object, reason: str) -> None:
    world = GateHarness()
    world.want("v2")
    if gate == "infra":
        world.end("evaluation", GOOD)
    world.end(gate, report)
    world.go_to("RolledBack", "GateFailed")
    assert world.outcomes[gate] == ("Fail", reason)
    assert world.weights == {"v1": 100}
    for _ in range(5):
        world.look()
    assert set(world.jobs) == {gate}
    world.want("v3")
    world.go(lambda: list(world.jobs) == ["evaluation"] and _version(world.jobs["evaluation"]) == "v3")


def _version(job: Object) -> str:
    return str(job["metadata"]["annotations"][names.ANNOTATION_VERSION_NAME])


@pytest.mark.parametrize(
    ("condition", "reason", "told"),
    [
        ("Complete", "", "ReportMissing"),
        ("Failed", "DeadlineExceeded", "JobTimeout"),
        ("Failed", "BackoffLimitExceeded", "JobFailed"),
    ],
)
def test_an_end_without_a_report_is_never_a_pass(condition: str, reason: str, told: str) -> None:
    world = GateHarness()
    world.want("v2")
    world.end("evaluation", condition=condition, reason=reason)
    world.go_to("Holding")
    assert world.outcomes == {"evaluation": ("Error", told)}
    world.go_to("Aborted", "Inconclusive")
    assert world.weights == {"v1": 100}


def test_unpullable_image_is_reported_before_the_job_times_out() -> None:
    world = GateHarness()
    world.want("v2")
    world.job("evaluation")
    world.pod("evaluation", "Pending", {"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}})
    world.go_to("Holding")
    assert world.outcomes == {"evaluation": ("Error", "ImagePullFailed")}
    assert "no such tag" in world.record["gates"][0]["message"]


def test_a_job_that_runs_on_is_taken_away_with_its_rollout() -> None:
    world = GateHarness()
    world.want("v2")
    metadata = world.job("evaluation")["metadata"]
    world.api.user_create(world.jobs["evaluation"] | {"metadata": metadata | {"name": "digits-2-metric"}})
    world.want("v1")
    world.go(lambda: world.records[-1]["status"]["state"] == "Superseded")
    world.go(lambda: list(world.jobs) == ["metric"], looks=10)


def test_a_result_that_can_not_be_read_now_is_read_later() -> None:
    world = GateHarness()
    world.want("v2")
    world.job("evaluation")
    listed, world.api.list = world.api.list, _refusing  # type: ignore[method-assign]
    world.end("evaluation", GOOD)
    for _ in range(3):
        world.look()
    assert world.outcomes == {}
    world.api.list = listed  # type: ignore[method-assign]
    world.go(lambda: "evaluation" in world.outcomes)


async def _refusing(*_: Any, **__: Any) -> list[Object]:
    raise api_errors.Transient(503, "ServiceUnavailable", "not now")


def test_refused_template_names_its_field_until_the_deadline() -> None:
    world = GateHarness()

    def refuse(verb: str, obj: Object) -> None:
        if obj["kind"] == "Job":
            raise api_errors.Invalid(422, "Invalid", "spec.template.spec.containers[0].imagge: unknown field")

    world.api.before_write = refuse
    world.want("v2")
    world.go(lambda: world.stalled == ("True", "InvalidPolicy"))
    said = next(c["message"] for c in world.model["status"]["conditions"] if c["type"] == "Stalled")
    assert "gate evaluation of RolloutPolicy steps" in said
    assert "containers[0].imagge" in said
    world.go_to("Aborted", "DeadlineExceeded")


def test_missing_serving_version_blocks_the_comparison() -> None:
    world = GateHarness()
    world.want("v2")
    world.api.user_delete(kinds.MODEL_VERSION, NS, "v1")
    world.go(lambda: world.stalled == ("True", "VersionNotFound"))
    assert world.weights == {"v1": 100}
    assert world.jobs == {}


def test_a_first_revision_is_judged_by_absolute_limits() -> None:
    evaluation = EVALUATION | {"metrics": [{"name": "accuracy", "min": "0.9", "minDelta": "-0.01"}]}
    world = First(CANARY | {"gates": {"evaluation": evaluation}})
    env = world.job("evaluation")["spec"]["template"]["spec"]["containers"][0]["env"]
    assert not any(entry["name"].startswith("SERVING") for entry in env)
    world.end("evaluation", {"metrics": [{"name": "accuracy", "candidate": 0.95, "n": 2000}]})
    world.go(lambda: world.serving == "v1")
    assert world.outcomes == {"evaluation": ("Pass", "GatePassed")}
