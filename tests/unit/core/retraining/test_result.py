"""What reports of stages come to, and which are refused."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.api.v1alpha1.policy import EvaluationMetric
from modelwright.api.v1alpha1.training import RunResult, TrainingRunStatus
from modelwright.core.retraining import stage_reports
from modelwright.core.retraining.stage_reports import DataCheckResult, EvaluationResult, ReportRefused

OUTPUT = "s3://models/digits/run-1"
DIGEST = "sha256:" + "1" * 64
UNTIMED = settings(deadline=None, max_examples=300)

WHOLE = {
    "artifact": {"uri": f"{OUTPUT}/model.joblib", "digest": DIGEST, "format": {"name": "sklearn", "version": "1"}},
    "metrics": {"accuracy": 0.97, "loss": 1e-07, "trees": 100},
    "parameters": {"C": 0.5, "depth": 7, "kernel": "rbf"},
    "dataset": {"uri": "s3://data/digits/", "digest": DIGEST},
    "code": {"repository": "https://git.example.com/digits", "commit": "0a1b2c"},
    "reference": {"uri": f"{OUTPUT}/reference.json", "digest": DIGEST},
    "somethingNewer": True,
}


def trained(report: Any, output: str = OUTPUT) -> RunResult | ReportRefused:
    return stage_reports.read_training_report(
        report, output_uri=output, dataset_digest=DIGEST, image="trainer@sha256:2"
    )


def test_a_whole_report_is_taken() -> None:
    result = trained(WHOLE)
    assert isinstance(result, RunResult)
    assert result.wire() == {
        "uri": f"{OUTPUT}/model.joblib",
        "digest": DIGEST,
        "format": "sklearn",
        "formatVersion": "1",
        "image": "trainer@sha256:2",
        "repository": "https://git.example.com/digits",
        "commit": "0a1b2c",
        "reference": {"uri": f"{OUTPUT}/reference.json", "digest": DIGEST},
        "metrics": [
            {"name": "accuracy", "value": "0.97"},
            {"name": "loss", "value": "1e-07"},
            {"name": "trees", "value": "100"},
        ],
        "parameters": {"C": "0.5", "depth": "7", "kernel": "rbf"},
    }


def test_the_artifact_alone_is_enough() -> None:
    result = trained({"artifact": {"uri": OUTPUT, "digest": DIGEST}})
    assert isinstance(result, RunResult)
    assert (result.uri, result.digest, result.metrics, result.reference) == (OUTPUT, DIGEST, (), None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"artifact": None}, "artifact"),
        ({"artifact": {}}, "artifact.uri"),
        ({"artifact": {"uri": "/tmp/model"}}, "artifact.uri"),
        ({"artifact": {"uri": OUTPUT, "digest": "md5:1"}}, "artifact.digest"),
        ({"artifact": {"uri": OUTPUT}}, "artifact.digest"),
        ({"reference": {"uri": OUTPUT}}, "reference.digest"),
        ({"artifact": {"uri": OUTPUT, "digest": DIGEST, "format": {"name": "Sk Learn"}}}, "artifact.format.name"),
        ({"metrics": {"accuracy": math.nan}}, "metrics.accuracy is nan, which is no finite number"),
        ({"metrics": {"loss": math.inf}}, "metrics.loss is inf"),
        ({"metrics": {"accuracy": True}}, "metrics.accuracy is True"),
        ({"metrics": {"accuracy": "0.9"}}, "metrics.accuracy is '0.9'"),
        ({"metrics": {"accuracy": None}}, "metrics.accuracy is None"),
        ({"metrics": {"accuracy": 10**400}}, "metrics.accuracy is 1000"),
        ({"metrics": [0.9]}, "metrics"),
        ({"metrics": {"": 1}}, "metrics"),
        ({"metrics": {f"m{n}": n for n in range(65)}}, "metrics"),
        ({"parameters": {"C": math.nan}}, "parameters.C"),
        ({"parameters": {"C": [1]}}, "parameters.C"),
        ({"parameters": {"C": True}}, "parameters.C"),
        ({"parameters": {"C": "x" * 1025}}, "parameters.C"),
        ({"dataset": {"digest": 7}}, "dataset.digest"),
        ({"code": {"repository": "r"}}, "code.commit"),
    ],
)
def test_invalid_report_is_refused_naming_the_member(change: dict[str, Any], said: str) -> None:
    result = trained({**WHOLE, **change})
    assert isinstance(result, ReportRefused)
    assert result.reason == "ReportInvalid"
    assert said in result.message


@pytest.mark.parametrize("report", [None, [], "x", 1])
def test_what_is_no_object_is_refused(report: Any) -> None:
    for result in (trained(report), stage_reports.read_data_check_report(report)):
        assert isinstance(result, ReportRefused)
        assert result.reason == "ReportInvalid"
    assert stage_reports.read_evaluation_report(report, [gate(min="0")], first=False).outcome == "Fail"


def test_another_dataset_than_was_given_is_refused() -> None:
    result = trained({**WHOLE, "dataset": {"uri": "s3://data/digits/", "digest": "sha256:" + "2" * 64}})
    assert isinstance(result, ReportRefused)
    assert result.reason == "DatasetChanged"


@pytest.mark.parametrize(
    ("uri", "output", "allowed"),
    [
        (OUTPUT, OUTPUT, True),
        (OUTPUT + "/", OUTPUT, True),
        (OUTPUT, OUTPUT + "/", True),
        (OUTPUT + "/model", OUTPUT, True),
        (OUTPUT + "/a/b%20c.joblib", OUTPUT, True),
        (OUTPUT + "/a..b", OUTPUT, True),
        ("s3://models/digits", OUTPUT, False),
        ("s3://models/digits/run-2/model", OUTPUT, False),
        (OUTPUT + "-evil/model", OUTPUT, False),
        (OUTPUT + "0", OUTPUT, False),
        (OUTPUT + "//model", OUTPUT, False),
        (OUTPUT + "/./model", OUTPUT, False),
        (OUTPUT + "/../run-2/model", OUTPUT, False),
        (OUTPUT + "/..", OUTPUT, False),
        (OUTPUT + "/%2e%2e/run-2", OUTPUT, False),
        (OUTPUT + "/%2E./run-2", OUTPUT, False),
        (OUTPUT + "/%252e%252e/run-2", OUTPUT, False),
        (OUTPUT + "/a%2f..%2f..%2frun-2", OUTPUT, False),
        (OUTPUT + "/%" + "25" * 30 + "2e", OUTPUT, False),
        (OUTPUT + "/..%5crun-2", OUTPUT, False),
        (OUTPUT + "/a\\..\\..\\run-2", OUTPUT, False),
        (OUTPUT + "/model%3fversion=1", OUTPUT, False),
        (OUTPUT + "%2f..%2frun-2", OUTPUT, False),
        ("gs://models/digits/run-1/model", OUTPUT, False),
        ("http://models/digits/run-1/model", OUTPUT, False),
        ("https://store/out/run-1/model?to=run-2", "https://store/out/run-1", False),
        ("https://store/out/run-1/model", "https://store/out/run-1", True),
        ("https://store.evil/out/run-1", "https://store/out/run-1", False),
        ("oci://reg/digits/run-1:v1", "oci://reg/digits/run-1", True),
        ("oci://reg/digits/run-1:v1@sha256:" + "1" * 64, "oci://reg/digits/run-1", True),
        ("oci://reg/digits/run-10:v1", "oci://reg/digits/run-1", False),
    ],
)
def test_only_what_is_below_the_output_is_taken(uri: str, output: str, allowed: bool) -> None:
    assert stage_reports.is_below_prefix(uri, output) is allowed
    result = trained({"artifact": {"uri": uri, "digest": DIGEST}}, output)
    assert isinstance(result, RunResult) is allowed
    if isinstance(result, ReportRefused):
        assert result.reason in ("OutputNotAllowed", "ReportInvalid")


def test_an_artifact_elsewhere_is_told_so() -> None:
    result = trained({"artifact": {"uri": "s3://models/digits/run-2", "digest": DIGEST}})
    assert isinstance(result, ReportRefused)
    assert result.reason == "OutputNotAllowed"
    assert result.message == f"artifact.uri is s3://models/digits/run-2; it must be {OUTPUT} or below it (OUTPUT_URI)"
    result = trained({**WHOLE, "reference": {"uri": "s3://models/digits/run-2", "digest": DIGEST}})
    assert isinstance(result, ReportRefused)
    assert result.reason == "OutputNotAllowed"


def check(name: str = "rows", outcome: Any = "Pass", **more: Any) -> dict[str, Any]:
    return {"name": name, "outcome": outcome, **more}


def test_failed_checks_come_first_and_are_named() -> None:
    result = stage_reports.read_data_check_report(
        {"checks": [check(), check("nulls:age", "Fail", message="12 of 100 are null")], "profile": {"rows": 100}}
    )
    assert isinstance(result, DataCheckResult)
    assert [(one.name, one.outcome, one.message) for one in result.checks] == [
        ("nulls:age", "Fail", "12 of 100 are null"),
        ("rows", "Pass", ""),
    ]
    assert (result.failed, result.profile) == (("nulls:age",), {"rows": 100})


def test_of_many_checks_those_that_failed_are_kept_and_all_count() -> None:
    many = [check(f"a{n}") for n in range(100)] + [check(f"b{n}", "Fail") for n in range(150)]
    result = stage_reports.read_data_check_report({"checks": many})
    assert isinstance(result, DataCheckResult)
    assert len(result.checks) == 128
    assert {one.outcome for one in result.checks} == {"Fail"}
    assert len(result.failed) == 150


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ({}, '"checks" must be a list'),
        ({"checks": []}, "at least one"),
        ({"checks": {"rows": "Pass"}}, '"checks" must be a list'),
        ({"checks": ["rows"]}, "checks[0] must be"),
        ({"checks": [{"outcome": "Pass"}]}, "checks[0].name"),
        ({"checks": [check(" ")]}, "checks[0].name"),
        ({"checks": [check(), check("x", "Passed")]}, "checks[1].outcome is 'Passed'"),
        ({"checks": [check("x", True)]}, "checks[0].outcome is True"),
        ({"checks": [check(message=7)]}, "checks[0].message"),
        ({"checks": [check(), check(outcome="Fail")]}, "checks[1].name: rows is there twice"),
        ({"checks": [check("x" * 200), check("x" * 199)]}, "is there twice"),
        ({"checks": [check()], "profile": []}, "profile must be"),
        ({"checks": [check()], "profile": {"mean": math.nan}}, "profile must be"),
        ({"checks": [check()], "profile": {"mean": 2**60}}, "profile must be"),
        ({"checks": [check()], "profile": json.loads('{"a":' * 40 + "1" + "}" * 40)}, "profile must be"),
    ],
)
def test_a_data_check_without_a_clear_outcome_is_refused(report: dict[str, Any], said: str) -> None:
    result = stage_reports.read_data_check_report(report)
    assert isinstance(result, ReportRefused)
    assert result.reason == "ReportInvalid"
    assert said in result.message


def gate(name: str = "accuracy", **limits: Any) -> EvaluationMetric:
    return EvaluationMetric.model_validate({"name": name, **limits})


def scored(*entries: dict[str, Any], first: bool = False, **more: Any) -> EvaluationResult:
    return stage_reports.read_evaluation_report(
        {"metrics": list(entries), **more}, [gate(min="0.9", minDelta="-0.01")], first=first
    )


SURE = {"n": 2000, "better": 50, "worse": 30}


def figure(candidate: Any = 0.95, serving: Any = 0.94, **more: Any) -> dict[str, Any]:
    return {"name": "accuracy", "candidate": candidate, "serving": serving, **more}


@pytest.mark.parametrize(
    ("entries", "first", "outcome", "reason"),
    [
        ([figure(**SURE)], False, "Pass", "GatePassed"),
        ([figure(0.8, 0.94, n=2000)], False, "Fail", "MetricOutOfLimits"),
        ([figure(0.95, 0.99, n=2000, better=0, worse=80)], False, "Fail", "MetricOutOfLimits"),
        ([figure(0.95, 0.95, n=200, better=9, worse=9)], False, "Inconclusive", "TooFewExamples"),
        ([figure()], False, "Inconclusive", "UncertaintyMissing"),
        ([figure(0.95, None, n=2000)], True, "Pass", "GatePassed"),
        ([figure(0.9, None)], True, "Inconclusive", "UncertaintyMissing"),
        ([figure(0.9, None)], False, "Error", "MetricMissing"),
        ([], False, "Error", "MetricMissing"),
        ([figure(math.nan)], False, "Error", "MetricMissing"),
        ([figure("9e999999", "-9e999999")], False, "Error", "MetricMissing"),
    ],
)
def test_gates_judge_the_evaluation(entries: list[Any], first: bool, outcome: str, reason: str) -> None:
    result = scored(*entries, first=first)
    assert (result.outcome, result.reason) == (outcome, reason)


def test_figures_and_matrix_are_kept() -> None:
    matrix = {"labels": ["cat", "dog"], "counts": [[5, 1], [0, 7]], "note": "x"}
    full = {"uri": "s3://reports/1.json", "digest": "sha256:" + "a" * 64}
    result = scored(
        figure(**SURE, standardError=0.25, candidateStandardError="1e-3"), confusionMatrix=matrix, fullReport=full
    )
    assert [one.wire() for one in result.figures] == [
        {
            "name": "accuracy",
            "slice": "",
            "candidate": "0.95",
            "serving": "0.94",
            "examples": 2000,
            "better": 50,
            "worse": 30,
            "standardError": "0.25",
            "candidateStandardError": "0.001",
        }
    ]
    assert result.full_report is not None
    assert result.full_report.wire() == full
    assert result.confusion_matrix == {"labels": ["cat", "dog"], "counts": [[5, 1], [0, 7]]}


def test_a_figure_with_many_digits_is_kept_as_a_version_takes_it() -> None:
    result = scored(figure("0." + "9" * 60, "0.9" + "0" * 60), first=False)
    assert [(one.candidate, one.serving) for one in result.figures] == [("1.0000000000000000", "0.90000000000000000")]


@pytest.mark.parametrize(
    "matrix",
    [
        [],
        {"labels": [], "counts": []},
        {"labels": ["a", "b"], "counts": [[1, 2]]},
        {"labels": ["a"], "counts": [[1, 2]]},
        {"labels": ["a"], "counts": [[-1]]},
        {"labels": ["a"], "counts": [[True]]},
        {"labels": ["a"], "counts": [[0.5]]},
        {"labels": [{}], "counts": [[1]]},
        {"labels": [str(n) for n in range(65)], "counts": [[0] * 65] * 65},
    ],
)
def test_invalid_matrix_is_left_out_and_decides_nothing(matrix: Any) -> None:
    result = scored(figure(**SURE), confusionMatrix=matrix)
    assert result.outcome == "Pass"
    assert result.confusion_matrix is None
    assert "confusionMatrix was left out" in result.message


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=20,
)


def almost(whole: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A good report with any of its members replaced by anything."""
    return st.dictionaries(st.sampled_from(sorted(whole)), JSON, max_size=3).map(lambda wrong: {**whole, **wrong})


def writable(**members: Any) -> None:
    """What is kept fits into a status, as the API server takes it."""
    status = TrainingRunStatus().model_copy(update=members)
    text = json.dumps(status.wire(), allow_nan=False, ensure_ascii=False)
    text.encode()
    TrainingRunStatus.model_validate(json.loads(text))


@given(
    st.one_of(JSON, almost(WHOLE), almost({"uri": OUTPUT, "digest": "", "format": {}}).map(lambda a: {"artifact": a}))
)
@UNTIMED
def test_whatever_a_training_reports_is_kept_bounded_or_refused(report: Any) -> None:
    result = trained(report)
    if isinstance(result, ReportRefused):
        assert len(result.message) <= 1024
        result.message.encode()
    else:
        writable(result=result)


@given(
    st.one_of(JSON, st.lists(JSON | almost(check(message="m")), max_size=4).map(lambda c: {"checks": c, "profile": {}}))
)
@UNTIMED
def test_whatever_a_data_check_reports_is_kept_bounded_or_refused(report: Any) -> None:
    result = stage_reports.read_data_check_report(report)
    if isinstance(result, ReportRefused):
        result.message.encode()
    else:
        writable(checks=result.checks, profile=result.profile)


@given(
    st.one_of(
        JSON,
        st.tuples(st.lists(JSON | almost(figure(n=3)), max_size=4), JSON).map(
            lambda pair: {"metrics": pair[0], "confusionMatrix": pair[1]}
        ),
    ),
    st.booleans(),
)
@UNTIMED
def test_whatever_an_evaluation_reports_is_judged(report: Any, first: bool) -> None:
    result = stage_reports.read_evaluation_report(report, [gate(min="0.9", minDelta="0", slices=["day"])], first=first)
    assert result.message
    writable(figures=result.figures, confusion_matrix=result.confusion_matrix, message=result.message)
