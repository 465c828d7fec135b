"""Every parser of what comes from outside gives a value or its own refusal, whatever it is given: never another
exception. `make fuzz` tries many times more than `make test` does.
"""

from __future__ import annotations

import json
import math
import random
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from modelwright.agents import tensors
from modelwright.agents.comparer.comparison import NumberTolerance, compare_answers
from modelwright.agents.comparer.comparison import RevisionAnswer as Compared
from modelwright.agents.drift_monitor import rows
from modelwright.api.common import InvalidObject, parse_duration
from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.policy import EvaluationMetric, RolloutPolicy
from modelwright.api.v1alpha1.retraining import RetrainingPolicy, ScheduleTrigger, WebhookTrigger
from modelwright.api.v1alpha1.rollout import ModelRollout
from modelwright.api.v1alpha1.training import RunResult, TrainingRun
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.app import webhooks
from modelwright.cli.imports import importer as imports
from modelwright.cli.imports.foreign_objects import ImportOptions
from modelwright.core import gate_results, pod_failures, versions
from modelwright.core.analysis import comparison_summary as comparison
from modelwright.core.analysis.evidence import Measurement
from modelwright.core.analysis.judge import MetricLimits, judge_metric
from modelwright.core.analysis.planning import Levels
from modelwright.core.drift import reference_sample
from modelwright.core.retraining import schedule, stage_reports, triggers
from modelwright.engines import cel_expressions, profiles
from modelwright.kube import api_errors
from modelwright.measurement import connections, http_json, queries
from modelwright.measurement.connections import Connection, ConnectionsError
from modelwright.measurement.json_client import JsonResponse, MeasurementError
from modelwright.measurement.prometheus import PrometheusClient
from modelwright.sandbox.process import NoAnswer
from tests.fuzz.strategies import DEEP, bodies, mangled, objects
from tests.lib import objects as made
from tests.lib.webhook_payloads import HOOKS
from tests.lib.webhooks import alert

DIGEST = "sha256:" + "d" * 64
NOW = datetime(2026, 11, 26, 3, tzinfo=UTC)
words = st.text(max_size=40)


class Told:
    """In place of the connections: one answer, whatever is asked."""

    def __init__(self, answer: JsonResponse) -> None:
        self.answer = answer

    async def request_json(self, *_: Any, **__: Any) -> JsonResponse:
        return self.answer


CONNECTION = Connection(name="default", type="Prometheus", url="http://prometheus:9090")


def answered(kind: str, found: Any) -> Any:
    return {"status": "success", "data": {"resultType": kind, "result": found}}


VECTOR = answered("vector", [{"metric": {"pod": "a"}, "value": [1.5, "2"]}])
MATRIX = answered("matrix", [{"metric": {"pod": "a"}, "values": [[1.5, "2"], [2.5, "3"]]}])
SCALAR = answered("scalar", [1.5, "2"])
ERROR = {"status": "error", "errorType": "bad_data", "error": "parse error"}


@given(mangled(VECTOR, MATRIX, SCALAR, ERROR), st.sampled_from([200, 400, 422, 503]))
@example(answered("vector", [{"value": [10**400, "1"]}]), 200)
@example(answered("matrix", [{"metric": {}, "values": 5}]), 200)
@example(answered("matrix", [{"metric": {"pod": 5}, "values": []}]), 200)
async def test_an_answer_of_prometheus_is_numbers_or_a_fault(document: Any, status: int) -> None:
    server = PrometheusClient(Told(JsonResponse(status, document)), CONNECTION)  # type: ignore[arg-type]
    with suppress(MeasurementError):
        value, why = await server.query_number("q", 0)
        assert (value is None) == bool(why)
        assert value is None or math.isfinite(value)
    with suppress(MeasurementError):
        course, why = await server.query_range("q", 0, 60, 15)
        assert bool(course) != bool(why)
    with suppress(MeasurementError):
        for series in await server.query_samples("q", 0, 60):
            assert all(isinstance(text, str) for pair in series.labels.items() for text in pair)
            assert all(isinstance(part, float) for sample in series.samples for part in sample)


@given(mangled({"data": {"score": 0.5, "all": [1, 2]}}), st.from_regex(r"\A(/([^/~]|~[01]){0,5}){0,3}\Z"))
@example({"a": 10**400}, "/a")
async def test_a_json_document_has_a_finite_number_or_none(document: Any, pointer: str) -> None:
    with suppress(MeasurementError):
        web: Any = Told(JsonResponse(200, document))
        value, why = await http_json.read_number(web, CONNECTION, "/x", pointer)
        assert (value is None) == bool(why)
        assert value is None or math.isfinite(value)


@given(words)
async def test_a_query_is_understood_or_refused(text: str) -> None:
    with suppress(MeasurementError):
        await queries.enforce_label(text, "namespace", "vision", "q")
    with suppress(MeasurementError):
        await queries.extend_selector(text, "q", "vision")
    with suppress(MeasurementError):
        queries.fill_placeholders(text, {"MODEL": "digits"})


@given(mangled({"connections": [{"name": "default", "type": "HTTP", "url": "http://a", "timeout": "5s"}]}))
def test_connections_are_read_or_refused(document: Any) -> None:
    with suppress(ConnectionsError):
        connections.parse_connections(document, "the file")


EVENT = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "model": "fraud"}
headers = st.dictionaries(
    st.sampled_from(["Content-Type", "ce-specversion", "ce-id", "ce-source", "ce-type", "CE-Model"]),
    st.sampled_from(["application/cloudevents+json", "application/json", "1.0", "fraud", "%", "%FF%00", ""]) | words,
)


@given(st.sampled_from(HOOKS), headers, bodies(alert(2), EVENT))
@example(HOOKS[0], {}, DEEP.encode())
@example(HOOKS[1], {"Content-Type": "application/cloudevents+json"}, DEEP.encode())
def test_a_webhooks_body_is_events_or_refused(hook: WebhookTrigger, told: dict[str, str], body: bytes) -> None:
    with suppress(triggers.InvalidEventError):
        for identity, message in webhooks._parse_events("drift", hook, told, body):
            assert 0 < len(identity) <= triggers.IDENTITY_MAX
            assert 0 < len(message) <= triggers.MESSAGE_MAX
            assert message.isprintable()


@given(
    st.lists(
        st.sampled_from(["*", "0", "30", "2", "*/5", "1-5", "MON", "L", "?", "31", "²", "99", "-1", "1#3", ","])
        | words,
        max_size=7,
    ).map(" ".join),
    st.sampled_from(["UTC", "Europe/Berlin", "", "/", "..", "America", "\0", "a" * 5000]) | words,
)
@settings(suppress_health_check=[HealthCheck.too_slow])
@example("0 0 30 2 *", "UTC")
def test_a_schedule_comes_or_has_a_problem(cron: str, zone: str) -> None:
    trigger = ScheduleTrigger.model_construct(cron=cron, time_zone=zone, catch_up="All")
    following, problem = schedule.next_time(trigger, NOW), schedule.find_schedule_problem(trigger, NOW)
    assert (following is None) == (problem is not None)
    assert following is None or following > NOW
    assert len(schedule.list_due_times(trigger, NOW.replace(year=2025), NOW)) <= schedule.MAX_CATCH_UP


@given(words | st.from_regex(r"\A[0-9]{1,400}(h|m|s|ms)\Z"))
def test_a_duration_is_seconds_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert math.isfinite(parse_duration(text))


LEFT = {"reason": "ArtifactNotFound", "message": "m", "digest": DIGEST, "sizeBytes": 5, "outcome": "Pass"}


@given(st.text(max_size=200) | st.sampled_from([DEEP, "1" * 4096, "null"]) | mangled(LEFT).map(json.dumps))
@example('{"reason": []}')
def test_a_termination_message_is_a_report_or_none(message: str) -> None:
    report = pod_failures.parse_termination_report(message)
    assert isinstance(report, dict | None)
    versions.parse_artifact_report(report)
    gate_results.parse_judged_report("infra", report or {})
    for exit_code in (0, 1):
        status = {"name": "c", "state": {"terminated": {"exitCode": exit_code, "message": message}}}
        pod_failures.read_fetch_failure(status)
        pod_failures.diagnose_pods([{"metadata": {"name": "p"}, "status": {"containerStatuses": [status]}}])


TRAINED = {
    "artifact": {"uri": "s3://models/digits/x", "digest": DIGEST, "format": {"name": "sklearn", "version": "1"}},
    "metrics": {"accuracy": 0.98},
    "parameters": {"C": 3.0},
    "dataset": {"digest": DIGEST},
    "code": {"repository": "https://example.com/r", "commit": "abc"},
    "reference": {"uri": "s3://models/digits/x/reference.json", "digest": DIGEST},
}
CHECKED = {"checks": [{"name": "rows", "outcome": "Pass", "message": "m"}], "profile": {"rows": 100}}
SCORED = {
    "metrics": [{"name": "accuracy", "candidate": 0.97, "serving": 0.95, "n": 500, "slice": "a"}],
    "confusionMatrix": {"labels": ["a", "b"], "counts": [[1, 2], [3, 4]]},
}
GATES = [EvaluationMetric.model_validate({"name": "accuracy", "min": "0.9", "minDelta": "-0.01"})]


@given(mangled(TRAINED))
def test_a_trainings_report_is_a_result_or_refused(report: Any) -> None:
    found = stage_reports.read_training_report(
        report, output_uri="s3://models/digits", dataset_digest=DIGEST, image=None
    )
    assert isinstance(found, RunResult | stage_reports.ReportRefused)
    json.dumps(found.wire() if isinstance(found, RunResult) else found.message).encode()


@given(mangled(CHECKED, SCORED), st.booleans())
def test_check_and_evaluation_reports_parse_or_are_refused(report: Any, first: bool) -> None:
    assert isinstance(
        stage_reports.read_data_check_report(report), stage_reports.DataCheckResult | stage_reports.ReportRefused
    )
    assert isinstance(stage_reports.read_evaluation_report(report, GATES, first=first), stage_reports.EvaluationResult)


@given(words, words)
def test_an_address_is_below_another_or_not(uri: str, prefix: str) -> None:
    assert isinstance(stage_reports.is_below_prefix(uri, prefix), bool)


OUTPUTS = {"outputs": [{"name": "p", "datatype": "FP32", "shape": [2, 2], "data": [0.1, 0.9, 0.8, 0.2]}]}
INPUTS = {"inputs": [{"name": "x", "datatype": "INT64", "shape": [2, 1], "data": [1, 2]}]}
BYTES = {"outputs": [{"name": "t", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}


@given(bodies(OUTPUTS, INPUTS, BYTES), st.none() | st.integers(-1, 300))
@example(json.dumps({"inputs": [{"name": "x", "datatype": "INT64", "shape": [1], "data": [10**400]}]}).encode(), None)
@example(json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [10**400]}]}).encode(), None)
def test_inference_message_parses_or_raises_a_tensor_error(body: bytes, header: int | None) -> None:
    for part in ("inputs", "outputs"):
        with suppress(tensors.TensorError):
            found = tensors.parse_tensors(body, header, part)  # type: ignore[arg-type]
            count = rows.count_rows(found)
            chosen = rows.sample_rows(count, 5, random.Random(1))
            rows.name_features(found, count)
            for values in (rows.read_output_rows(found, count, chosen), rows.read_input_rows(found, 1, count, chosen)):
                assert all(isinstance(value, float | str) for row in values for value in row)


@given(bodies(OUTPUTS, BYTES), bodies(OUTPUTS, BYTES))
def test_any_two_answers_are_compared(one: bytes, other: bytes) -> None:
    found = compare_answers(Compared(200, 0.1, one), Compared(200, 0.1, other), NumberTolerance())
    assert 0 <= found.disagreements <= found.rows or not found.compared


RULES = (
    MetricLimits("same", min=0.9),
    MetricLimits("errors", margin=0.02),
    MetricLimits("slow", margin=0.02, threshold=0.1),
)
SUMMARY: dict[str, Any] = {
    "startedAt": "2026-11-26T03:00:00Z",
    "pair": {"serving": "aaa", "candidate": "bbb"},
    "rows": 5,
    "disagreements": 1,
    "answers": {"count": 3, "differing": [[0.0, 2.5], [1.0, 0.5]]},
    "latency": {"serving": {"count": 1, "sum": 0.1, "buckets": [["0.1", 1], ["+Inf", 1]]}},
    "pairedErrors": {"total": 5, "both": 1, "candidateOnly": 2, "servingOnly": 1},
    "pairedLatency": [["0.1", {"total": 5, "both": 1}], ["+Inf", {"total": 5}]],
}


@given(mangled(SUMMARY))
@example(SUMMARY | {"answers": {"count": 10**400, "differing": [[0, 1]]}})
@example(SUMMARY | {"answers": {"count": 10**400, "differing": [[0, 1e308], [0, 1e308]]}})
@example(SUMMARY | {"pairedErrors": {"total": 10**400}})
def test_a_comparers_summary_is_read_or_refused(document: Any) -> None:
    with suppress(comparison.SummaryError):
        found = comparison.parse_summary(document, serving="aaa", candidate="bbb")
        for one in (found, found + found):
            comparison.mean_difference(one, "absolute")
            results = (
                comparison.agreement_sample(one),
                comparison.error_shares(one),
                comparison.latency_histogram(one),
            )
            for rule, result in zip(RULES, results, strict=True):
                judge_metric(rule, Measurement(rule.name, one.started_at, result), levels=Levels(0.05, 0.0125))


REFERENCE = {"inputs": [[1, "a"], [2.5, "b"]], "predictions": [0, [0.1, 0.9]]}


@given(mangled(REFERENCE))
@example({"inputs": [[10**400]]})
@example({"inputs": [[1]], "predictions": [10**400]})
def test_a_reference_sample_is_bins_or_refused(document: Any) -> None:
    with suppress(reference_sample.InvalidReferenceSample):
        found = reference_sample.parse_reference(document)
        assert len(found.place_row([1.0] * found.width)) == len(found.features)


KINDS = {
    Model: made.model("vision"),
    ModelVersion: made.version("vision", "v1"),
    RolloutPolicy: {
        "metadata": {"name": "p", "namespace": "vision"},
        "spec": {"strategy": {"steps": [{"weight": 100}]}},
    },
    ModelRollout: {
        "metadata": {"name": "r", "namespace": "vision"},
        "spec": {
            "modelRef": {"name": "digits"},
            "target": {"version": "v1"},
            "number": 1,
            "command": {"name": "pause", "token": "1", "by": "alice", "reason": "why"},
        },
        "status": {"state": "Progressing", "verdicts": [], "policy": {"name": "p", "generation": 1, "spec": {}}},
    },
    RetrainingPolicy: {
        "metadata": {"name": "p", "namespace": "vision"},
        "spec": {
            "modelRef": {"name": "digits"},
            "triggers": [{"name": "a", "schedule": {"cron": "0 3 * * *"}}],
            "run": {
                "dataset": {"uri": "s3://data/digits"},
                "train": {"job": {"template": {}}},
                "output": {"uri": "s3://models/digits", "format": {"name": "plain"}},
            },
        },
    },
    TrainingRun: {
        "metadata": {"name": "r", "namespace": "vision"},
        "spec": {"policyRef": {"name": "p"}, "manual": {"by": "alice", "reason": "why"}},
        "status": {"state": "Training", "stages": []},
    },
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_an_object_is_typed_or_invalid(kind: Any, data: st.DataObject) -> None:
    document = KINDS[kind]
    # Metadata is the API server's own.
    for member in ("spec", "status"):
        if member in document:
            document = {**document, member: data.draw(mangled(document[member]))}
    with suppress(InvalidObject):
        json.dumps(kind.parse(document).wire())


IMPORTED = [
    (name, value)
    for name in ("argo-rollouts", "flagger", "kserve", "seldon")
    for value in yaml.safe_load_all((Path(__file__).parents[1] / "golden" / "import" / f"{name}.yaml").read_text())
]


@pytest.mark.parametrize("name", imports.load_providers())
@given(data=st.data())
def test_an_object_of_another_project_is_imported_or_noted(name: str, data: st.DataObject) -> None:
    values = [value for of, value in IMPORTED if of == name]
    index = data.draw(st.integers(0, len(values) - 1))
    values[index] = data.draw(mangled(values[index]))
    found, _ = imports.import_objects(
        imports.load_providers()[name], values, ImportOptions("gateways/models", "example.com")
    )
    json.dumps([[each.objects, each.drafts, each.notes] for each in found])


@given(
    st.integers(100, 599), bodies({"kind": "Status", "message": "m", "details": {"causes": [{"field": "f"}]}}), words
)
def test_an_answer_of_the_api_server_is_an_error_of_ours(status: int, body: bytes, retry: str) -> None:
    assert isinstance(api_errors.error_from_response(status, body, {"Retry-After": retry}), api_errors.ApiError)


@given(words | st.sampled_from(["nan", "inf", "-1", "1e999", "Mon, 32 Foo 99999 25:61:61 GMT", "9" * 400]))
def test_a_retry_after_is_seconds_or_none(text: str) -> None:
    found = api_errors.parse_retry_after({"Retry-After": text})
    assert found is None or 0 <= found <= 300


LIVE = {
    "metadata": {"name": "w", "namespace": "vision"},
    "status": {
        "conditions": [{"type": "Complete", "status": "True", "reason": "r", "message": "m"}],
        "phase": "Succeeded",
        "jobStatus": "RUNNING",
        "jobDeploymentStatus": "Running",
        "applicationState": {"state": "COMPLETED"},
        "outputs": {"parameters": [{"name": "outputs", "value": "{}"}]},
    },
}


@pytest.mark.parametrize("profile", profiles.PROFILES)
@given(mangled(LIVE["status"]))
def test_the_status_of_another_engine_is_a_state(profile: Any, status: Any) -> None:
    found = profiles.PROFILES[profile].read_state({**LIVE, "status": status})
    assert isinstance(found, profiles.EngineState)


CEL = (
    "object",
    ".",
    "status",
    "has(",
    ")",
    "[",
    "]",
    "0",
    "'",
    '"',
    "==",
    "&&",
    "?",
    ":",
    "map(x, ",
    "+",
    "matches(",
    "99999999999999999999",
)


@given(st.lists(st.sampled_from(CEL) | st.text(max_size=5), max_size=12).map("".join), objects)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_an_expression_gives_a_value_or_says_why_not(text: str, live: Any) -> None:
    (why,) = cel_expressions.check_expressions([text])
    assert why is None or isinstance(why, str)
    (found,) = cel_expressions.evaluate_expressions([text], {"metadata": {}, "status": live})
    json.dumps(found.why if isinstance(found, NoAnswer) else found)
