"""Where builtin metrics are measured: which counters of which source, and what becomes of it where nothing counts."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from modelwright.api.v1alpha1.runtime import ClusterModelRuntime, RuntimeMetrics
from modelwright.core.analysis.evidence import (
    Arm,
    Histogram,
    MeasurementFailure,
    MetricValue,
    RequestShares,
    Series,
    ValueSample,
)
from modelwright.core.revision import Revision
from modelwright.measurement import request_counters
from modelwright.measurement.json_client import MeasurementError
from modelwright.measurement.request import Gateway, MeasurementRequest, RevisionTarget
from tests.lib.measurement import CANDIDATE, RUNTIME, SERVING, SINCE, TRAEFIK, Bench, FakeServer, make_request, metric

ISTIO = Gateway("istio.io/gateway-controller")
ENVOY = Gateway("gateway.envoyproxy.io/gatewayclass-controller")
OTHER = Gateway("example.com/any")
BARE = replace(CANDIDATE, metrics=None)
RUNTIMES = Path(__file__).parents[3] / "manifests" / "runtimes"


def meant(counted: request_counters.SeriesSelector | None, **labels: str) -> bool:
    assert counted is not None
    return counted.select_series([Series(labels, ())]) != ()


@pytest.mark.parametrize(
    ("wanted", "changes", "name"),
    [
        ("Auto", {}, "Gateway"),
        ("Gateway", {}, "Gateway"),
        ("Runtime", {}, "Runtime"),
        ("Auto", {"gateway": None}, "Runtime"),
        # It tells revisions apart only when its platform team has configured it.
        ("Auto", {"gateway": ENVOY}, "Runtime"),
        ("Gateway", {"gateway": ENVOY}, "Gateway"),
        ("Auto", {"gateway": ISTIO}, "Gateway"),
    ],
)
async def test_the_source(wanted: str, changes: dict[str, Any], name: str) -> None:
    assert (await request_counters.find_counters(make_request(**changes), wanted, CANDIDATE)).name == name


@pytest.mark.parametrize(
    ("wanted", "changes", "target", "fragment"),
    [
        ("Gateway", {"gateway": None}, CANDIDATE, "source Gateway, but the Model has no endpoint"),
        ("Gateway", {"gateway": OTHER}, CANDIDATE, "counters of example.com/any"),
        ("Runtime", {}, BARE, "the runtime of version digits-v2 names no counters (spec.metrics)"),
        ("Auto", {"gateway": None}, BARE, "and no gateway that is known counts its requests"),
        ("Auto", {"gateway": ENVOY}, BARE, "Envoy Gateway can count its requests: use source Gateway"),
    ],
)
async def test_where_nothing_counts_the_policy_must_be_changed(
    wanted: str, changes: dict[str, Any], target: RevisionTarget, fragment: str
) -> None:
    with pytest.raises(MeasurementError) as refused:
        await request_counters.find_counters(make_request(**changes), wanted, target)
    assert refused.value.failure.permanent
    assert refused.value.failure.reason == "MetricSourceMissing"
    assert fragment in refused.value.failure.message


@pytest.mark.parametrize(
    "gateway", [TRAEFIK, Gateway(TRAEFIK.controller, grpc=True), ISTIO, Gateway(ISTIO.controller, True), ENVOY]
)
@pytest.mark.parametrize("serving", [SERVING, None])
async def test_every_selector_is_promql(gateway: Gateway, serving: RevisionTarget | None) -> None:
    measurement_request = make_request(gateway=gateway, serving=serving)
    actual = await request_counters.find_counters(measurement_request, "Gateway", CANDIDATE)
    for counted in (actual.all_requests, actual.bad_requests, actual.latency):
        for selector in counted.selectors if counted is not None else ():
            assert isinstance(promql_parser.parse(selector), promql_parser.VectorSelector)


@pytest.mark.parametrize(
    ("service", "candidate", "serving"),
    [
        ("vision-digits-bbbbbbbbbb-http-80@kubernetesgateway", True, False),
        ("vision-digits-bbbbbbbbbb-80@kubernetescrd", True, False),
        ("vision-digits-bbbbbbbbbb-81-grpc@kubernetesgateway", True, False),
        ("httproute-vision-digits-gw-svc-vision-digits-bbbbbbbbbb-0@kubernetesgateway", True, False),
        ("vision-digits-aaaaaaaaaa-http-80@kubernetesgateway", False, True),
        ("vision-digits-cccccccccc-http-80@kubernetesgateway", False, False),
        ("other-digits-bbbbbbbbbb-http-80@kubernetesgateway", False, False),
        ("vision-digits-comparer-80@kubernetescrd", False, False),
        ("vision-digits-bbbbbbbbbb-80@file", False, False),
    ],
)
@pytest.mark.parametrize("label", ["service", "exported_service"])
async def test_traefiks_names_of_services(service: str, candidate: bool, serving: bool, label: str) -> None:
    # A ServiceMonitor puts the name of Traefik's own metrics Service into `service`.
    labels = {"service": "traefik-metrics"} | {label: service}
    measurement_request = make_request()
    for target, expected in ((CANDIDATE, candidate), (SERVING, serving)):
        actual = await request_counters.find_counters(measurement_request, "Gateway", target)
        assert meant(actual.all_requests, **labels) is expected
        selectors = [promql_parser.parse(text).matchers.matchers for text in actual.all_requests.selectors]
        asked_for = any(re.fullmatch(one.value, labels.get(one.name, "")) for matchers in selectors for one in matchers)
        assert asked_for is (candidate or serving)


@pytest.mark.parametrize(
    ("code", "bad"),
    [("200", False), ("404", False), ("429", False), ("499", True), ("500", True), ("504", True)],
)
async def test_what_counts_as_an_error(code: str, bad: bool) -> None:
    service = "vision-digits-bbbbbbbbbb-http-80@kubernetesgateway"
    assert (
        meant(
            (await request_counters.find_counters(make_request(), "Auto", CANDIDATE)).bad_requests,
            service=service,
            code=code,
        )
        is bad
    )
    actual = await request_counters.find_counters(make_request(gateway=ISTIO), "Auto", CANDIDATE)
    assert meant(actual.bad_requests, destination_service_name="digits-bbbbbbbbbb", response_code=code) is bad


@pytest.mark.parametrize(
    ("code", "bad"), [("0", False), ("1", False), ("2", True), ("5", False), ("13", True), ("14", True)]
)
async def test_what_counts_as_an_error_of_grpc(code: str, bad: bool) -> None:
    actual = await request_counters.find_counters(make_request(gateway=replace(ISTIO, grpc=True)), "Auto", CANDIDATE)
    assert meant(actual.bad_requests, destination_service_name="digits-bbbbbbbbbb", grpc_response_status=code) is bad


@pytest.mark.parametrize(("gateway", "name"), [(TRAEFIK, "Traefik"), (ENVOY, "Envoy Gateway")])
async def test_some_do_not_tell_errors_of_grpc_so_the_runtime_does(gateway: Gateway, name: str) -> None:
    measurement_request = make_request(gateway=replace(gateway, grpc=True))
    assert (await request_counters.find_counters(measurement_request, "Auto", CANDIDATE, errors=True)).name == "Runtime"
    assert (await request_counters.find_counters(measurement_request, "Gateway", CANDIDATE)).name == "Gateway"
    with pytest.raises(MeasurementError, match=f"{name} counts gRPC calls that went well") as refused:
        await request_counters.find_counters(measurement_request, "Gateway", CANDIDATE, errors=True)
    assert refused.value.failure.permanent


async def test_a_runtimes_counters_are_narrowed_to_the_revisions_pods() -> None:
    actual = await request_counters.find_counters(make_request(gateway=None), "Auto", CANDIDATE)
    pods = 'namespace="vision",pod=~"digits-bbbbbbbbbb-[a-z0-9-]+"'
    assert actual.all_requests.selectors == (f"v2_requests_total{{{pods}}}",)
    assert actual.bad_requests is not None
    assert actual.bad_requests.selectors == (f'v2_requests_total{{code=~"5..",{pods}}}',)


@pytest.mark.parametrize("model", ["a", "m" * 30, "m" * 46, "m" * 50])
def test_pods_are_matched_as_the_api_server_names_them(model: str) -> None:
    target = RevisionTarget.for_revision(model, Revision("v", "bbbbbbbbbb"))
    # A ReplicaSet adds its own hash, and the generated name is cut before five characters are added.
    pod = f"{f'{model}-bbbbbbbbbb-5d8f9c7b6d-'[:58]}x7k2p"
    assert re.fullmatch(target.pod_pattern, pod)
    assert not re.fullmatch(target.pod_pattern, pod.replace("bb", "cc"))


@pytest.mark.parametrize("field", ["errors", "latency"])
async def test_a_runtime_that_does_not_count_it_is_told(bench: Bench, field: str) -> None:
    target = replace(CANDIDATE, metrics=RuntimeMetrics(requests="a"))
    wanted = metric(builtin="error-rate") if field == "errors" else metric(builtin="latency-over", threshold="1s")
    actual = (await bench.measure(make_request(wanted, gateway=None, candidate=target))).result
    assert isinstance(actual, MeasurementFailure)
    assert actual.permanent
    assert f"(spec.metrics.{field})" in actual.message


KNOWING = RUNTIME.model_copy(update={"in_flight": 'v2_requests_in_progress{method="POST"}'})
CANDIDATES = {
    "the candidate's runtime": (replace(CANDIDATE, metrics=KNOWING), SERVING, "candidate 7", 1),
    "both runtimes": (
        replace(CANDIDATE, metrics=KNOWING),
        replace(SERVING, metrics=KNOWING),
        "candidate 7, serving 7",
        2,
    ),
    "no runtime": (CANDIDATE, SERVING, "", 0),
    "a runtime whose selector is none": (
        replace(CANDIDATE, metrics=KNOWING.model_copy(update={"in_flight": "rate(a[5m])"})),
        SERVING,
        "",
        0,
    ),
}


@pytest.mark.parametrize("case", CANDIDATES)
async def test_in_flight_requests_are_read_only_from_runtime_gauges(
    bench: Bench, server: FakeServer, case: str
) -> None:
    candidate, serving, in_flight, queries = CANDIDATES[case]
    server.handler = server.vector("7")
    metrics = (metric(builtin="error-rate"), metric(name="slow", builtin="latency-over", threshold="1s"))
    current = bench.start_round(make_request(*metrics, candidate=candidate, serving=serving))
    assert [await bench.measurer()._describe_in_flight(current, one) for one in metrics] == [in_flight, in_flight]
    measurement_request = [form["query"] for _, form, _ in server.requests]
    assert len(measurement_request) == queries
    pods = 'namespace="vision",pod=~"digits-bbbbbbbbbb-[a-z0-9-]+"'
    assert measurement_request[:1] == ([f'sum(v2_requests_in_progress{{method="POST",{pods}}})'] if queries else [])


SHIPPED = {
    "mlserver": 'rest_server_requests_in_progress{method="POST",',
    "vllm": '{__name__=~"vllm:num_requests_(running|waiting)",',
    "triton": "nv_inference_pending_request_count{",
    "tensorflow-serving": None,
    "huggingface": None,
}
"""The gauges of the shipped runtimes, as their documentation names them; None: it names none."""


@pytest.mark.parametrize("name", SHIPPED)
async def test_shipped_runtimes_name_their_in_flight_gauges(name: str) -> None:
    text = (RUNTIMES / f"{name}.yaml").read_text()
    metrics = ClusterModelRuntime.parse(yaml.safe_load(text)).spec.metrics
    query = await request_counters.build_in_flight_query(
        make_request(metric(builtin="error-rate")), replace(CANDIDATE, metrics=metrics)
    )
    head = SHIPPED[name]
    assert query == (head and f'sum({head}namespace="vision",pod=~"digits-bbbbbbbbbb-[a-z0-9-]+"}})')
    if metrics is not None:
        source = await request_counters.find_counters(
            make_request(gateway=None), "Runtime", replace(CANDIDATE, metrics=metrics), errors=True
        )
        assert (source.name, source.bad_requests is not None) == ("Runtime", True)


async def test_requests_in_flight_that_can_not_be_had_are_left_out(bench: Bench, server: FakeServer) -> None:
    server.handler = server.reply({"status": "error", "error": "no"}, status=500)
    current = bench.start_round(
        make_request(metric(builtin="error-rate"), candidate=replace(CANDIDATE, metrics=KNOWING))
    )
    assert await bench.measurer()._describe_in_flight(current, current.request.metrics[0]) == ""


async def test_the_newest_comparer_knows_the_copies_in_flight(bench: Bench, server: FakeServer) -> None:
    measurement_request = make_request(metric(builtin="error-rate"), mirror=True)
    later = {"startedAt": (SINCE + timedelta(seconds=40)).isoformat(), "received": 14}
    later |= {"ignored": 0, "compared": 10, "uncomparable": 0}
    for summary, in_flight in ((SUMMARY | {"received": 137}, "7 copies"), (SUMMARY | later, "4 copies")):
        server.handler = server.reply(summary)
        assert (await bench.measure(measurement_request)).in_flight == in_flight
    assert [path for path, _, _ in server.requests] == ["/summary"] * 2


async def test_a_runtimes_selector_that_is_none_is_told_with_its_field(bench: Bench) -> None:
    target = replace(CANDIDATE, metrics=RuntimeMetrics(requests="rate(a[5m])"))
    actual = (await bench.measure(make_request(metric(builtin="throughput"), gateway=None, candidate=target))).result
    assert isinstance(actual, MeasurementFailure)
    assert actual.permanent
    assert "spec.metrics.requests of the runtime of digits-v2 must be a plain selector" in actual.message


SUMMARY: dict[str, Any] = {
    "startedAt": SINCE.isoformat(),
    "pair": {"serving": "aaaaaaaaaa", "candidate": "bbbbbbbbbb"},
    "received": 130,
    "ignored": 10,
    "compared": 110,
    "uncomparable": 10,
    "rows": 200,
    "disagreements": 8,
    "answers": {"count": 110, "differing": [[0, 100], [0.5, 8], [1, 2]]},
    "errors": {"serving": 2, "candidate": 5},
    "difference": {"absolute": {"count": 4, "sum": 2.0}, "relative": {"count": 4, "sum": 1.0}},
    "latency": {
        "serving": {"count": 3, "sum": 1, "buckets": [["0.1", 3], ["+Inf", 3]]},
        "candidate": {"count": 3, "sum": 1, "buckets": [["0.1", 1], ["+Inf", 3]]},
    },
}
LATENCIES = Histogram(((0.1, 1), (float("inf"), 3)), ((0.1, 3), (float("inf"), 3)))


@pytest.mark.parametrize(
    ("fields", "result"),
    [
        ({"builtin": "agreement", "min": "0.9"}, ValueSample(0.0, 1.0, ((1.0, 100.0), (0.5, 8.0), (0.0, 2.0)))),
        ({"builtin": "absolute-difference"}, MetricValue(0.5)),
        ({"builtin": "relative-difference"}, MetricValue(0.25)),
        ({"builtin": "error-rate"}, RequestShares(Arm(120, 5), Arm(120, 2))),
        ({"builtin": "error-rate", "source": "Gateway"}, RequestShares(Arm(120, 5), Arm(120, 2))),
        ({"builtin": "latency-over", "threshold": "100ms"}, LATENCIES),
        ({"builtin": "latency-percentile", "percentile": "0.9"}, LATENCIES),
        ({"builtin": "throughput", "min": "1"}, MetricValue(2.0, 2.0)),
    ],
)
async def test_in_a_mirror_step_the_comparer_measures(
    bench: Bench, server: FakeServer, fields: dict[str, Any], result: Any
) -> None:
    server.handler = server.reply(SUMMARY)
    assert (await bench.measure(make_request(metric(**fields), mirror=True), 60)).result == result
    assert [path for path, _, _ in server.requests] == ["/summary"]


async def test_copies_without_the_token_are_no_evidence(bench: Bench, server: FakeServer) -> None:
    nothing = {key: value for key, value in SUMMARY.items() if key in ("startedAt", "pair")}
    server.handler = server.reply(nothing | {"refused": 305})
    actual = await bench.measure(make_request(metric(builtin="error-rate"), mirror=True), 60)
    assert isinstance(actual.result, MetricValue)
    assert actual.result.candidate is None
    assert "305 requests without the token" in repr(actual)
    assert "settings.copyToken" in repr(actual)
    server.handler = server.reply(SUMMARY | {"refused": 305})
    assert isinstance(
        (await bench.measure(make_request(metric(builtin="error-rate"), mirror=True), 60)).result, RequestShares
    )


async def test_counts_of_an_earlier_mirror_step_are_no_evidence(bench: Bench, server: FakeServer) -> None:
    measurement_request = make_request(
        metric(builtin="error-rate"),
        metric(name="a", builtin="agreement", min="0.9"),
        metric(name="slow", builtin="latency-over", threshold="100ms"),
        mirror=True,
        pods_requested_at=SINCE + timedelta(seconds=1),
    )
    memory = bench.start_round(measurement_request).state
    later = SUMMARY | {
        "received": 140,
        "compared": 118,
        "uncomparable": 12,
        "errors": {"serving": 2, "candidate": 8},
        "answers": {"count": 118, "differing": [[0, 101], [0.5, 8], [1, 9]]},
        "latency": SUMMARY["latency"] | {"candidate": {"count": 5, "sum": 3, "buckets": [["0.1", 1], ["+Inf", 5]]}},
    }
    actual = []
    for summary in (SUMMARY, later):
        server.handler = server.reply(summary)
        current = replace(bench.start_round(measurement_request), state=memory)
        actual.append(
            [(await bench.measurer().measure_metric(current, one)).result for one in measurement_request.metrics]
        )
    none, new = actual
    assert [none[0], none[1].size] == [RequestShares(Arm(0, 0), Arm(0, 0)), 0]
    assert new[0] == RequestShares(Arm(10, 3), Arm(10, 0))
    assert new[1] == ValueSample(0.0, 1.0, ((1.0, 1.0), (0.5, 0.0), (0.0, 7.0)))
    assert new[2] == Histogram(((0.1, 0), (float("inf"), 2)), ((0.1, 0), (float("inf"), 0)))


async def test_the_comparer_is_asked_once_a_look(bench: Bench, server: FakeServer) -> None:
    server.handler = server.reply(SUMMARY)
    measurement_request = make_request(
        metric(builtin="error-rate"), metric(name="a", builtin="agreement", min="0.9"), mirror=True
    )
    current, measurer = bench.start_round(measurement_request), bench.measurer()
    for wanted in measurement_request.metrics:
        await measurer.measure_metric(current, wanted)
    assert len(server.requests) == 1


async def test_what_a_comparer_counted_is_not_lost_with_its_pod(bench: Bench, server: FakeServer) -> None:
    measurement_request = make_request(metric(builtin="error-rate"), mirror=True)
    after = SUMMARY | {"startedAt": (SINCE + timedelta(seconds=40)).isoformat(), "received": 11, "compared": 10}
    summaries = [SUMMARY, SUMMARY, after, after | {"received": 12, "compared": 11}, after, SUMMARY | {"received": 129}]
    actual = []
    for summary in summaries:
        server.handler = server.reply(summary | {"uncomparable": 0})
        actual.append(await bench.measure(measurement_request))
    trials = [one.result.candidate.trials for one in actual if isinstance(one.result, RequestShares)]
    assert trials == [110, 110, 120, 121, 121, 121]


async def test_in_a_mirror_step_the_runtime_can_be_chosen(bench: Bench, server: FakeServer) -> None:
    await bench.measure(make_request(metric(builtin="error-rate", source="Runtime"), mirror=True))
    assert {path for path, _, _ in server.requests} == {"/api/v1/query"}


@pytest.mark.parametrize(
    ("document", "fragment"),
    [
        (SUMMARY | {"pair": {"serving": "aaaaaaaaaa", "candidate": "cccccccccc"}}, "its pod is being replaced"),
        (SUMMARY | {"rows": -1}, "rows"),
        ({}, "can't be read"),
        ([1], "can't be read"),
        (None, "can't be read"),
    ],
)
async def test_a_summary_that_is_no_evidence_is_a_failure(
    bench: Bench, server: FakeServer, document: Any, fragment: str
) -> None:
    server.handler = server.reply(document)
    actual = (await bench.measure(make_request(metric(builtin="agreement", min="0.9"), mirror=True))).result
    assert isinstance(actual, MeasurementFailure)
    assert (actual.reason, actual.permanent) == ("ComparerUnreachable", False)
    assert fragment in actual.message


async def test_nothing_is_compared_while_nothing_serves(bench: Bench) -> None:
    measurement_request: MeasurementRequest = make_request(metric(builtin="error-rate"), mirror=True, serving=None)
    actual = (await bench.measure(measurement_request)).result
    assert isinstance(actual, MeasurementFailure)
    assert "nothing serves yet" in actual.message


async def test_a_comparer_that_has_only_just_started_has_no_rate(bench: Bench, server: FakeServer) -> None:
    server.handler = server.reply(SUMMARY | {"startedAt": (SINCE + timedelta(minutes=2)).isoformat()})
    actual = (await bench.measure(make_request(metric(builtin="throughput", min="1"), mirror=True))).result
    assert actual == MetricValue(None, why="the comparer has only just started")
