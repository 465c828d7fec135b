"""What Envoy counts, as recorded from Envoy 1.39.3 with one cluster for each Service (`mergeBackends`), is read as the
requests, errors and durations of each revision.

`recorded/envoy-1.txt` is `/stats/prometheus` after 20 requests to digits-aaaaaaaaaa; `envoy-2.txt` after 30 more, half
of them copied to the comparer, and these to digits-bbbbbbbbbb: 6 good ones, 4 of 120 ms, 3 answered 500, 2 broken off
by the server, 2 cut off by a time-out of 1 s, 2 given up by the caller.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import promql_parser
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from modelwright.api.v1alpha1.policy import Metric
from modelwright.core.analysis.evidence import Arm, Histogram, RequestShares
from modelwright.measurement.request import Gateway
from tests.lib.measurement import START, Bench, FakeServer, make_request, metric

ENVOY = Gateway("gateway.envoyproxy.io/gatewayclass-controller")
RECORDED = Path(__file__).parent / "recorded"
STEP = 60
"""Seconds between the two recordings, of which the first is as old as the step."""


def samples() -> list[tuple[str, dict[str, str], list[tuple[float, float]]]]:
    """Each series as (name, labels, samples), scraped when the step began and at its end."""
    actual: dict[Any, list[tuple[float, float]]] = {}
    for number, at in ((1, START), (2, START + STEP)):
        text = (RECORDED / f"envoy-{number}.txt").read_text()
        for family in text_string_to_metric_families(text):
            for one in family.samples:
                name = one.name.removesuffix("_total") if family.type == "counter" else one.name
                key = (name, tuple(sorted(one.labels.items())))
                actual.setdefault(key, []).append((at, one.value))
    return [(name, dict(labels), each) for (name, labels), each in actual.items()]


async def prometheus(request: web.Request) -> web.StreamResponse:
    """Answers a range selector with what was recorded."""
    query = (await request.post()).get("query") or request.query["query"]
    selectors = re.findall(r"[a-z_:]+\{[^}]*\}", str(query))
    result = []
    for text in selectors:
        measurement_request = promql_parser.parse(text)
        for name, labels, each in samples():
            if name == measurement_request.name and all(
                _holds(one, labels) for one in measurement_request.matchers.matchers
            ):
                more = {"__name__": name, "job": "envoy", "instance": "10.0.0.1:19001", **labels}
                result.append({"metric": more, "values": [[at, str(value)] for at, value in each]})
    kind = {"resultType": "matrix", "result": result}
    return web.json_response({"status": "success", "data": kind})


def _holds(matcher: Any, labels: dict[str, str]) -> bool:
    pattern = matcher.value if matcher.op == promql_parser.MatchOp.Re else re.escape(matcher.value)
    return re.fullmatch(pattern, labels.get(matcher.name, "")) is not None


async def measured(bench: Bench, server: FakeServer, wanted: Metric) -> Any:
    server.handler = prometheus
    return (await bench.measure(make_request(wanted, gateway=ENVOY), STEP)).result


async def test_errors_are_what_envoy_answered_for_a_server_too(bench: Bench, server: FakeServer) -> None:
    actual = await measured(bench, server, metric(builtin="error-rate", source="Gateway"))
    # 3 + 2 + 2 of 6 + 4 + 3 + 2 + 2: who gave up is in no counter of answers.
    assert actual == RequestShares(Arm(17, 7), Arm(30, 0))


async def test_durations_are_in_milliseconds_and_of_answers_of_the_server(bench: Bench, server: FakeServer) -> None:
    wanted = metric(builtin="latency-over", threshold="100ms", source="Gateway")
    actual = await measured(bench, server, wanted)
    assert isinstance(actual, Histogram)
    by_bound = dict(actual.candidate)
    assert (by_bound[0.1], by_bound[0.25], by_bound[float("inf")]) == (9, 13, 13)
    assert actual.serving is not None
    assert actual.serving[-1] == (float("inf"), 30)


async def test_copies_for_the_comparer_are_nobodys_requests(bench: Bench, server: FakeServer) -> None:
    recorded = (RECORDED / "envoy-2.txt").read_text()
    assert 'envoy_cluster_name="service/vision/digits-comparer/80/http"' in recorded
    actual = await measured(bench, server, metric(builtin="throughput", source="Gateway"))
    assert (round(actual.candidate * STEP), round(actual.serving * STEP)) == (17, 30)
