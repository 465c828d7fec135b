"""What a run does next, case by case."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from modelwright.api.conditions import find_condition
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.training import RunState, StageState
from modelwright.core import stopwatch
from modelwright.core.problem import Problem
from modelwright.core.retraining.run_actions import RegisterVersion, ResolveData, RunDecision, StartStage, StopStage
from modelwright.core.retraining.run_inputs import hash_inputs, merge_parameters
from modelwright.core.retraining.run_machine import decide_run
from modelwright.core.retraining.run_observation import ChildRef, ResolvedData
from modelwright.core.retraining.run_table import RUN_TABLE
from modelwright.core.retraining.stage_reading import StageReading
from tests.unit.core.retraining.builders import (
    DIGEST,
    NOW,
    OUTPUT,
    after,
    during,
    later,
    observation,
    policy,
    run,
    stage_reading,
)

STAGES = ("dataCheck", "train", "evaluate")


def ended(decision: RunDecision) -> tuple[str | None, str | None]:
    return decision.status.state, decision.status.reason


def ready(decision: RunDecision) -> tuple[str, str, str]:
    """Status of Ready, Reconciling and Stalled."""
    result = [find_condition(decision.status.conditions, kind) for kind in ("Ready", "Reconciling", "Stalled")]
    return tuple(condition.status if condition is not None else "" for condition in result)  # type: ignore[return-value]


def test_each_stage_is_recorded_before_its_object_is_created() -> None:
    observed, states, actions = observation(), [], []
    for stage in STAGES:
        decision = decide_run(observed)
        states.append(decision.status.state)
        actions += decision.actions
        observed = after(replace(after(observed, decision), **stage_reading(stage, StageState.RUNNING)))
        assert decide_run(observed).actions == ()
        observed = replace(observed, **stage_reading(stage))
    decision = decide_run(observed)
    assert decision.actions == (RegisterVersion("run-1"),)
    done = decide_run(after(observed, decision, registered=True))
    assert states == ["CheckingData", "Training", "Evaluating"]
    assert actions == [StartStage("dataCheck"), StartStage("train"), StartStage("evaluate")]
    assert ended(decision) == ("Registering", "RegisteringVersion")
    assert ended(done) == ("Succeeded", "VersionRegistered")
    assert ready(done) == ("True", "False", "False")
    status = done.status
    assert status.version == "run-1"
    assert status.compared_with == "digits-1"
    assert (status.model, status.dataset and status.dataset.digest) == ("digits", DIGEST)
    assert [(entry.name, entry.state, entry.uid) for entry in status.stages] == [
        (stage, "Succeeded", f"uid-{stage}") for stage in STAGES
    ]
    assert all(entry.finished_at == NOW and not entry.clock.running_since for entry in status.stages if entry.clock)
    assert (status.profile, status.checks[0].name) == ({"rows": 100}, "rows")
    assert status.result is not None
    assert status.result.metrics[0].value == "0.97"
    assert status.figures[0].candidate == "0.95"
    assert status.policy is not None
    assert (status.policy.name, status.policy.generation) == ("digits", 3)
    assert status.started_at == status.finished_at == NOW


def test_stages_that_the_policy_has_not_are_left_out() -> None:
    decision = decide_run(observation(policy=policy(check=False, evaluate=False)))
    assert decision.actions == (StartStage("train"),)
    observed = after(replace(after(observation(policy=policy(check=False, evaluate=False))), **stage_reading("train")))
    assert observed.state is RunState.REGISTERING


@pytest.mark.parametrize(
    ("changes", "state", "reason", "conditions"),
    [
        ({"policy": None}, "Pending", "WaitingForPolicy", ("False", "True", "False")),
        ({"problem": Problem("WaitingForModel", "no Model")}, "Pending", "WaitingForModel", ("False", "True", "False")),
        (
            {"policy": None, "problem": Problem("InvalidPolicy", "bad", stalled=True)},
            "Failed",
            "InvalidPolicy",
            ("False", "False", "True"),
        ),
        ({"earlier_runs": ("run-0",)}, "Queued", "WaitingForRun", ("False", "True", "False")),
        ({"cancelled_by": "run-2", "earlier_runs": ("run-0",)}, "Cancelled", "Replaced", ("False", "False", "True")),
    ],
)
def test_run_that_cannot_start_waits_or_ends_without_objects(
    changes: dict[str, Any], state: str, reason: str, conditions: tuple[str, str, str]
) -> None:
    decision = decide_run(observation(**changes))
    assert ended(decision) == (state, reason)
    assert ready(decision) == conditions
    assert decision.actions == ()
    assert decision.status.policy is None
    assert decision.status.started_at is None


def test_run_and_its_clock_start_when_the_earlier_run_ends() -> None:
    waiting = after(observation(earlier_runs=("run-0",)))
    begun = decide_run(replace(later(waiting, hours=9), earlier_runs=()))
    assert begun.status.state == "CheckingData"
    assert stopwatch.elapsed_time(begun.status.clock, NOW + timedelta(hours=10)) == timedelta(hours=1)


@pytest.mark.parametrize(
    ("changes", "which"),
    [
        ({"dataset": None}, ["dataset"]),
        ({"dataset": ResolvedData()}, ["dataset"]),
        ({"policy": policy(holdout=True)}, ["holdout"]),
        ({"policy": policy(holdout=True), "dataset": None, "holdout": ResolvedData()}, ["dataset", "holdout"]),
        (
            {"dataset": None, "policy": policy(holdout=True, dataset={"uri": "s3://data/digits/", "digest": DIGEST})},
            ["holdout"],
        ),
        ({"dataset": ResolvedData(problem=Problem("StoreUnreachable", "no answer", stalled=True))}, ["dataset"]),
        ({"dataset": ResolvedData(problem=Problem("AccessDenied", "not yet"))}, ["dataset"]),
    ],
)
def test_digests_that_are_not_known_are_found_out_first(changes: dict[str, Any], which: list[str]) -> None:
    decision = decide_run(observation(**changes))
    assert decision.status.state == "Resolving"
    assert [action.which for action in decision.actions if isinstance(action, ResolveData)] == which
    assert decision.status.dataset is None


@pytest.mark.parametrize("reason", ["ArtifactNotFound", "AccessDenied", "DigestMismatch", "InvalidURI"])
def test_data_that_cannot_be_had_ends_the_run(reason: str) -> None:
    decision = decide_run(
        observation(dataset=ResolvedData(problem=Problem(reason, "spec.run.dataset.uri: no", stalled=True)))
    )
    assert ended(decision) == ("Failed", reason)
    assert decision.actions == ()


@pytest.mark.parametrize(
    ("changes", "skipped"),
    [
        ({}, True),
        ({"run": run(manual=True)}, False),
        ({"policy": policy(guard={"skipUnchanged": False})}, False),
        ({"policy": policy(seed=7)}, False),
        ({"policy": policy(parameters={"C": "1"})}, False),
        ({"dataset": ResolvedData("sha256:" + "2" * 64)}, False),
        ({"policy": policy(train={"job": {"template": {"spec": {}}}})}, False),
        ({"policy": policy(deadline="9h", version={"card": {"summary": "other words"}})}, True),
        ({"policy": policy(dataset={"uri": "s3://elsewhere/digits/"})}, True),
    ],
)
def test_run_with_unchanged_inputs_is_skipped_unless_manual(changes: dict[str, Any], skipped: bool) -> None:
    last = decide_run(observation()).status.inputs_hash
    decision = decide_run(observation(last_inputs=last, **changes))
    assert ended(decision) == (("Skipped", "Unchanged") if skipped else ("CheckingData", "StageRunning"))
    assert bool(decision.actions) is not skipped


def test_parameters_of_a_person_take_the_place_of_the_policys() -> None:
    template = policy(parameters={"C": "1", "depth": "3"}).run
    assert merge_parameters(run(manual=True), template) == {"C": "2", "depth": "3"}
    assert merge_parameters(run(), template) == {"C": "1", "depth": "3"}


def test_inputs_hash_ignores_the_order_of_parameters() -> None:
    template = policy().run
    assert hash_inputs(template, DIGEST, None, {"a": "1", "b": "2"}) == hash_inputs(
        template, DIGEST, None, {"b": "2", "a": "1"}
    )
    assert hash_inputs(template, DIGEST, None, {}) != hash_inputs(template, DIGEST, DIGEST, {})


@pytest.mark.parametrize("stage", STAGES)
def test_started_stage_gets_its_object_also_after_a_crash(stage: str) -> None:
    observed = during(stage, known=False)
    assert decide_run(observed).actions == (StartStage(stage),)  # type: ignore[arg-type]
    assert decide_run(later(observed, minutes=5)).actions == (StartStage(stage),)  # type: ignore[arg-type]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "child", [None, ChildRef("run-1-stage", "another uid")], ids=["none", "another one of the name"]
)
def test_an_object_that_is_gone_is_never_made_again(stage: str, child: ChildRef | None) -> None:
    decision = decide_run(replace(during(stage), child=child, stage=None))
    assert ended(decision) == ("Failed", "ChildLost")
    assert f"run-1-{stage}" in (decision.status.message or "")
    assert decision.actions == ()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("reading", "reason", "said"),
    [
        (StageReading(StageState.FAILED, "ImagePullFailed", "no such image"), "ImagePullFailed", "no such image"),
        (
            StageReading(StageState.FAILED, "BackoffLimitExceeded", "exit 1"),
            "StageFailed",
            "(BackoffLimitExceeded): exit 1",
        ),
        (StageReading(StageState.FAILED), "StageFailed", "failed: it does not say why"),
        (StageReading(StageState.SUCCEEDED), "ReportMissing", "left no report"),
        (StageReading(StageState.SUCCEEDED, problem="4097 bytes"), "ReportMissing", "4097 bytes"),
        (
            StageReading(StageState.SUCCEEDED, "ReportTooLarge", problem="f1 did not fit"),
            "ReportTooLarge",
            "f1 did not fit",
        ),
        (StageReading(StageState.SUCCEEDED, report={}), None, ""),
    ],
)
def test_run_fails_when_a_stage_fails_or_has_no_good_report(
    stage: str, reading: StageReading, reason: str | None, said: str
) -> None:
    decision = decide_run(replace(during(stage), stage=reading))
    expected = reason or ("GateFailed" if stage == "evaluate" else "ReportInvalid")
    assert ended(decision) == ("Failed", expected)
    assert said in (decision.status.message or "")
    assert decision.actions == ()
    assert ready(decision) == ("False", "False", "True")
    entry = decision.status.stages[-1]
    assert (entry.name, entry.state, entry.reason, entry.finished_at) == (stage, "Failed", expected, NOW)


def test_failed_checks_are_listed_and_nothing_is_trained() -> None:
    checks = [{"name": "rows", "outcome": "Pass"}, {"name": "nulls:age", "outcome": "Fail", "message": "12 nulls"}]
    decision = decide_run(replace(during("dataCheck"), **stage_reading("dataCheck", report={"checks": checks})))
    assert ended(decision) == ("Failed", "DataRejected")
    assert decision.status.message == (
        "1 checks of the dataset failed: nulls:age; see status.checks. Nothing was trained"
    )
    assert [check.name for check in decision.status.checks] == ["nulls:age", "rows"]
    assert [entry.name for entry in decision.status.stages] == ["dataCheck"]


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ({"artifact": {"uri": "s3://models/digits/run-2", "digest": DIGEST}}, "OutputNotAllowed"),
        ({"artifact": {"uri": OUTPUT, "digest": DIGEST}, "dataset": {"digest": "sha256:2"}}, "DatasetChanged"),
        ({"artifact": {"uri": OUTPUT, "digest": DIGEST}, "metrics": {"loss": float("nan")}}, "ReportInvalid"),
    ],
)
def test_refused_result_ends_the_run_before_its_evaluation(report: dict[str, Any], reason: str) -> None:
    decision = decide_run(replace(during("train"), **stage_reading("train", report=report)))
    assert ended(decision) == ("Failed", reason)
    assert decision.status.result is None


def test_a_version_that_does_not_pass_the_gates_is_not_registered() -> None:
    figure = {"name": "accuracy", "candidate": 0.8, "serving": 0.94, "n": 2000, "better": 0, "worse": 280}
    report = {"metrics": [figure]}
    decision = decide_run(replace(during("evaluate"), **stage_reading("evaluate", report=report)))
    assert ended(decision) == ("Failed", "GateFailed")
    assert "MetricOutOfLimits: accuracy is 0.8, below min 0.9" in (decision.status.message or "")
    assert decision.status.figures[0].candidate == "0.8"
    assert decision.status.version is None


@pytest.mark.parametrize(
    ("wish", "state", "reason"),
    [({}, "Failed", "Inconclusive"), ({"onInconclusive": "Register"}, "Registering", "RegisteringVersion")],
)
def test_inconclusive_evaluation_fails_unless_registering(wish: dict[str, str], state: str, reason: str) -> None:
    # What reports said before they had to say how sure they are.
    figure = {"name": "accuracy", "candidate": 0.95, "serving": 0.94, "n": 2000}
    observed = replace(
        during("evaluate", policy=policy(evaluate={"gates": [{"name": "accuracy", "minDelta": "-0.01"}], **wish})),
        **stage_reading("evaluate", report={"metrics": [figure]}),
    )
    decision = decide_run(observed)
    assert (decision.status.state, decision.status.reason) == (state, reason)
    entry = decision.status.stages[-1]
    assert entry.reason == "Inconclusive"
    assert "UncertaintyMissing: accuracy is 0.95, +0.01 versus" in entry.message
    assert decision.status.figures[0].examples == 2000


def test_the_evaluation_compares_with_what_served_when_it_began() -> None:
    observed = replace(during("evaluate"), serving="digits-2")
    assert decide_run(observed).status.compared_with == "digits-1"
    report = {"metrics": [{"name": "accuracy", "candidate": 0.95, "n": 2000}]}
    first = replace(during("evaluate", serving=None), **stage_reading("evaluate", report=report))
    assert decide_run(replace(first, serving="digits-2")).status.state == "Registering"


@pytest.mark.parametrize("state", [StageState.PENDING, StageState.RUNNING, StageState.UNKNOWN])
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_does_not_end_in_time_is_stopped(stage: str, state: StageState) -> None:
    observed = after(replace(during(stage), **stage_reading(stage, state, message="still at it")))
    assert decide_run(later(observed, minutes=59)).actions == ()
    decision = decide_run(later(observed, minutes=60))
    assert ended(decision) == ("Failed", "StageTimeout")
    assert f"(spec.run.{stage}.timeout); last: still at it" in (decision.status.message or "")
    assert decision.actions == (StopStage(stage),)  # type: ignore[arg-type]


def test_unknown_is_never_success_and_a_report_of_it_is_not_taken() -> None:
    observed = replace(during("train"), **stage_reading("train", StageState.UNKNOWN, report={"artifact": {"uri": "x"}}))
    assert decide_run(observed).status.state == "Training"


@pytest.mark.parametrize("state", [StageState.QUEUED, StageState.SUSPENDED])
def test_no_clock_runs_while_the_object_is_queued_or_suspended(state: StageState) -> None:
    observed = after(
        replace(later(during("train"), minutes=30), **stage_reading("train", state, message="waits for quota"))
    )
    assert (observed.status.reason, observed.status.message) == ("StageQueued", "stage train: waits for quota")
    observed = after(replace(observed, **stage_reading("train", state, message="waits for quota: preempted")))
    assert observed.status.message == "stage train: waits for quota: preempted"
    waited = after(later(observed, hours=100))
    assert waited.state is RunState.TRAINING
    assert decide_run(waited).requeue_after == timedelta(seconds=30)
    resumed = after(replace(waited, **stage_reading("train", StageState.RUNNING)))
    assert decide_run(later(resumed, minutes=29)).status.state == "Training"
    assert ended(decide_run(later(resumed, minutes=30))) == ("Failed", "StageTimeout")


def test_the_message_follows_the_object_but_not_each_word_of_it() -> None:
    observed = after(replace(during("train"), **stage_reading("train", StageState.PENDING, message="no pod yet")))
    assert observed.status.message == "stage train: no pod yet"
    observed = after(replace(observed, **stage_reading("train", StageState.RUNNING, message="pod a runs")))
    assert observed.status.message == "stage train: pod a runs"
    assert (
        after(replace(observed, **stage_reading("train", StageState.RUNNING, message="pod b runs"))).status
        == observed.status
    )
    waiting = after(observation(earlier_runs=("run-0", "run-x")))
    assert decide_run(replace(waiting, earlier_runs=("run-0",))).status.message == "waits for the end of run-0"


def test_the_deadline_counts_all_stages() -> None:
    observed = during("dataCheck")
    for stage in STAGES[:2]:
        observed = after(replace(later(observed, minutes=50), **stage_reading(stage)), child=None, stage=None)
    assert observed.state is RunState.EVALUATING
    observed = after(replace(observed, **stage_reading("evaluate", StageState.RUNNING)))
    assert decide_run(later(observed, minutes=19)).actions == ()
    decision = decide_run(later(observed, minutes=20))
    assert ended(decision) == ("Failed", "DeadlineExceeded")
    assert decision.actions == (StopStage("evaluate"),)


def test_a_digest_that_is_never_found_out_ends_by_the_deadline() -> None:
    observed = after(observation(dataset=None))
    assert ended(decide_run(later(observed, hours=2))) == ("Failed", "DeadlineExceeded")


def test_a_result_that_is_there_is_taken_though_its_time_is_up() -> None:
    decision = decide_run(replace(later(during("train"), minutes=90), **stage_reading("train")))
    assert decision.status.state == "Evaluating"
    assert decision.status.result is not None


def test_a_clock_that_goes_back_ends_nothing() -> None:
    assert decide_run(later(during("train"), hours=-50)).status.state == "Training"


@pytest.mark.parametrize("stage", STAGES)
def test_a_newer_run_ends_this_one_and_its_object(stage: str) -> None:
    decision = decide_run(replace(during(stage), cancelled_by="run-2"))
    assert ended(decision) == ("Cancelled", "Replaced")
    assert decision.actions == (StopStage(stage),)  # type: ignore[arg-type]


def test_a_run_that_registers_its_version_is_not_replaced() -> None:
    observed = after(replace(during("evaluate"), **stage_reading("evaluate"), cancelled_by=None))
    assert decide_run(replace(observed, cancelled_by="run-2")).actions == (RegisterVersion("run-1"),)


@pytest.mark.parametrize("state", [StageState.PENDING, StageState.RUNNING, StageState.UNKNOWN, StageState.SUSPENDED])
def test_object_of_an_ended_run_is_stopped_until_it_ends(state: StageState) -> None:
    failed = after(later(during("train"), minutes=60))
    again = decide_run(replace(failed, **stage_reading("train", state)))
    assert again.actions == (StopStage("train"),)
    assert again.status == failed.status
    for end in (StageState.FAILED, StageState.SUCCEEDED):
        assert decide_run(replace(failed, **stage_reading("train", end))) == RunDecision(failed.status)
    assert decide_run(replace(failed, child=None, stage=None)) == RunDecision(failed.status)


def test_stalled_problem_ends_the_run_unless_an_object_runs() -> None:
    problem = Problem("InvalidPodTemplate", "spec.run.train.job.template: no containers", stalled=True)
    assert ended(decide_run(replace(during("train", known=False), problem=problem))) == ("Failed", "InvalidPodTemplate")
    assert decide_run(replace(during("train"), problem=problem)).status.state == "Training"


@pytest.mark.parametrize(
    ("registered", "state", "reason"),
    [
        (False, "Registering", "RegisteringVersion"),
        (True, "Succeeded", "VersionRegistered"),
        (Problem("NameTaken", "ModelVersion run-1 is not of this run", stalled=True), "Failed", "NameTaken"),
        (Problem("ProgressingWithRetry", "once more"), "Registering", "ProgressingWithRetry"),
    ],
)
def test_a_run_succeeds_when_its_version_is_there(registered: bool | Problem, state: str, reason: str) -> None:
    observed = replace(during("evaluate"), **stage_reading("evaluate"), registered=registered)
    assert ended(decide_run(observed)) == (state, reason)


def test_existing_version_counts_after_the_deadline() -> None:
    observed = after(replace(during("evaluate"), **stage_reading("evaluate")))
    assert ended(decide_run(replace(later(observed, hours=9), registered=True))) == ("Succeeded", "VersionRegistered")
    assert ended(decide_run(later(observed, hours=9))) == ("Failed", "DeadlineExceeded")


def test_after_success_only_the_outcome_changes() -> None:
    done = after(replace(during("evaluate"), **stage_reading("evaluate"), registered=True), child=None, stage=None)
    wild = replace(
        later(done, hours=99),
        problem=Problem("InvalidPolicy", "bad", stalled=True),
        policy=None,
        cancelled_by="run-2",
        registered=False,
        version_outcome="RollingOut",
    )
    decision = decide_run(wild)
    assert decision.status == done.status.model_copy(update={"outcome": "RollingOut"})
    assert (decision.actions, decision.requeue_after) == ((), None)
    assert decide_run(after(wild, decision, version_outcome=None)).status.outcome == "RollingOut"


def test_a_state_of_a_newer_operator_is_left_alone() -> None:
    observed = observation(run=run(state="Polishing"))
    assert decide_run(observed) == RunDecision(observed.status)


def test_looking_again_changes_nothing() -> None:
    for stage in STAGES:
        for observed in (during(stage), during(stage, known=False)):
            assert decide_run(later(after(observed), seconds=10)).status == after(observed).status


@pytest.mark.parametrize(("minutes", "seconds"), [(0, 30), (59, 30), (59.75, 15), (59.999, 1)])
def test_the_next_look_is_not_later_than_the_end_of_a_clock(minutes: float, seconds: int) -> None:
    assert decide_run(later(during("train"), minutes=minutes)).requeue_after == timedelta(seconds=seconds)


def test_every_row_of_the_table_has_a_name_of_its_own() -> None:
    names = [row.name for row in RUN_TABLE]
    assert len(set(names)) == len(names)


def test_every_reason_that_rows_give_is_documented() -> None:
    for observed in (
        observation(),
        observation(earlier_runs=("x",)),
        observation(policy=None),
        observation(dataset=None),
        during("train"),
    ):
        assert decide_run(observed).status.reason in set(Reason)
