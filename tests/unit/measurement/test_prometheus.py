"""Results from answers of Prometheus, and how counters are read."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from modelwright.core.analysis.evidence import Arm, Histogram, MeasurementFailure, MetricValue, RequestShares
from tests.lib.measurement import START, Bench, FakeServer, make_request, metric
from tests.lib.scrape_counters import Counting, data, error, runtime, traefik

QUERY = {"query": "sum(a)"}


@pytest.mark.parametrize(
    ("answer", "value", "why"),
    [
        (data("vector", [{"metric": {}, "value": [1, "0.25"]}]), 0.25, ""),
        (data("vector", [{"metric": {"a": "b"}, "value": [1.5, "1e3"]}]), 1000.0, ""),
        (data("scalar", [1, "7"]), 7.0, ""),
        (data("vector", []), None, "the query gives no data"),
        (data("vector", [{"value": [1, "NaN"]}]), None, "the query gives nan"),
        (data("vector", [{"value": [1, "+Inf"]}]), None, "the query gives inf"),
        (
            data("vector", [{"value": [1, "1"]}, {"value": [1, "2"]}]),
            None,
            "the query gives 2 or more series, and must give one: sum them",
        ),
    ],
)
async def test_a_query_gives_one_number_or_why_there_is_none(
    bench: Bench, server: FakeServer, answer: Any, value: float | None, why: str
) -> None:
    server.handler = server.reply(answer)
    actual = await bench.measure(make_request(metric(prometheus=QUERY)))
    assert actual.result == MetricValue(value, why=why)
    assert actual.query == "sum(a)"
    assert actual.metric == "m"


@pytest.mark.parametrize(
    ("handler", "reason", "permanent", "expected"),
    [
        (error("bad_data", "1:4: parse error", 400), "QueryRefused", True, "parse error"),
        (error("execution", "many-to-many", 422), "QueryFailed", False, "many-to-many"),
        (error("timeout", "query timed out", 503), "MetricsServerError", False, "query timed out (503)"),
        (error("internal", "oh", 500), "MetricsServerError", False, "oh (500)"),
        (error("too_many", "busy", 429), "MetricsServerError", False, "busy (429)"),
        (error("bad_response", "oh", 400), "MetricsServerError", False, "oh (400)"),
        (error("not_found", "no such tenant", 404), "MetricsServerError", False, "no such tenant (404)"),
        (FakeServer.reply([1]), "MetricsAnswerInvalid", False, "query API"),
        (FakeServer.reply(None), "MetricsAnswerInvalid", False, "query API"),
        (FakeServer.reply({"status": "success"}), "MetricsAnswerInvalid", False, "query API"),
        (FakeServer.reply(data("vector", [1])), "MetricsAnswerInvalid", False, "query API"),
        (FakeServer.reply(data("vector", [{"value": [1, 2]}])), "MetricsAnswerInvalid", False, "pair of a time"),
        (FakeServer.reply(data("vector", [{"value": [1, "x"]}])), "MetricsAnswerInvalid", False, "pair of a time"),
        (FakeServer.reply(data("matrix", [])), "QueryRefused", True, "gives a matrix"),
        (FakeServer.reply(data("string", [1, "x"])), "QueryRefused", True, "gives a string"),
        (FakeServer.reply(data("vector", [{"histogram": [1, {}]}])), "QueryRefused", True, "native histogram"),
        (FakeServer.reply({"oh": 1}, status=400), "MetricsServerError", False, "answered 400"),
    ],
)
async def test_what_is_no_number_is_a_failure(
    bench: Bench, server: FakeServer, handler: Any, reason: str, permanent: bool, expected: str
) -> None:
    server.handler = handler
    actual = (await bench.measure(make_request(metric(prometheus=QUERY)))).result
    assert isinstance(actual, MeasurementFailure)
    assert (actual.reason, actual.permanent) == (reason, permanent)
    assert expected in actual.message


async def test_a_query_is_asked_for_the_moment_of_the_look(bench: Bench, server: FakeServer) -> None:
    await bench.measure(make_request(metric(prometheus=QUERY)), 45)
    ((path, form, _),) = server.requests
    assert path == "/api/v1/query"
    assert form == {"query": "sum(a)", "time": f"{START + 45:.3f}", "limit": "2", "timeout": "5s"}


async def test_both_revisions_are_queried_if_the_query_names_one(bench: Bench, server: FakeServer) -> None:
    server.handler = server.vector("3")
    query = {"query": 'sum(a{pod=~"$(PODS)"})'}
    assert (await bench.measure(make_request(metric(prometheus=query, margin="0.1")))).result == MetricValue(3.0, 3.0)
    assert [form["query"] for _, form, _ in server.requests] == [
        'sum(a{pod=~"digits-bbbbbbbbbb-[a-z0-9-]+"})',
        'sum(a{pod=~"digits-aaaaaaaaaa-[a-z0-9-]+"})',
    ]
    server.requests.clear()
    assert (await bench.measure(make_request(metric(prometheus=query, versus="None")))).result == MetricValue(3.0)
    assert (
        await bench.measure(make_request(metric(prometheus=query, margin="0.1"), serving=None))
    ).result == MetricValue(3.0)
    assert (await bench.measure(make_request(metric(prometheus=QUERY, max="4")))).result == MetricValue(3.0)
    assert len(server.requests) == 3


async def test_a_margin_needs_a_query_that_tells_the_revisions_apart(bench: Bench) -> None:
    actual = (await bench.measure(make_request(metric(prometheus=QUERY, margin="0.1")))).result
    assert isinstance(actual, MeasurementFailure)
    assert actual.permanent
    assert "use $(REVISION), $(VERSION) or $(PODS)" in actual.message


async def test_what_is_wrong_with_the_serving_revision_is_told_as_such(bench: Bench, server: FakeServer) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        query = str((await request.post())["query"])
        return await FakeServer.vector(*(["1"] if "bbbbbbbbbb" in query else []))(request)

    server.handler = handle
    actual = await bench.measure(make_request(metric(prometheus={"query": 'a{r="$(REVISION)"}'}, margin="0.1")))
    assert actual.result == MetricValue(1.0, None, "serving revision: the query gives no data")


def up(instance: str, value: float = 1, at: float = -10) -> Any:
    return {"__name__": "up", "job": "traefik", "instance": instance}, [(at, value)]


def started(instance: str, when: float) -> Any:
    """The time at which the process of a target started, as scraped with everything else."""
    labels = {"__name__": "process_start_time_seconds", "job": "traefik", "instance": instance}
    return labels, [(20.0, START + when), (50.0, START + when)]


async def test_errors_are_counted_from_raw_samples(bench: Bench, server: FakeServer) -> None:
    server.handler = Counting(
        traefik("b", "200", (-5, 10), (10, 60), (50, 110)),
        traefik("b", "502", (50, 4)),
        traefik("b", "499", (50, 1)),
        traefik("b", "404", (50, 2)),
        traefik("a", "200", (-5, 1000), (50, 1900)),
        # Traefik was restarted: its counters begin again.
        traefik("a", "500", (-5, 40), (20, 41), (50, 2)),
        traefik("c", "500", (-5, 0), (50, 99)),
    )
    actual = await bench.measure(make_request(metric(builtin="error-rate")))
    assert actual.result == RequestShares(Arm(107, 5), Arm(903, 3))
    assert actual.query.startswith("Gateway: traefik_service_requests_total{service=~")


async def test_a_new_series_counts_from_zero_if_its_target_was_up(bench: Bench, server: FakeServer) -> None:
    server.handler = Counting(
        up("t"),
        up("sick", 0),
        traefik("b", "200", (20, 30), (50, 50)),
        traefik("b", "200", (20, 30), (50, 31), instance="sick"),
        traefik("b", "200", (20, 30), (50, 31), instance="new"),
        # Scraped in the step before it had this series.
        up("late", at=5),
        traefik("b", "200", (20, 8), (50, 9), instance="late"),
        # Started in the step.
        started("fresh", 3),
        traefik("b", "500", (20, 4), (50, 6), instance="fresh"),
        started("old", -4000),
        traefik("b", "200", (20, 5000), (50, 5007), instance="old"),
    )
    actual = (await bench.measure(make_request(metric(builtin="error-rate")))).result
    assert actual == RequestShares(Arm(52 + 9 + 6 + 7, 6), Arm(0, 0))


async def test_errors_of_a_pod_that_is_first_scraped_in_the_step_count(bench: Bench, server: FakeServer) -> None:
    counting = Counting(
        runtime("b", "200", (5, 20), (20, 40), (35, 60)),
        runtime("b", "500", (20, 5), (35, 9)),
        runtime("a", "200", (-5, 100), (10, 150), (25, 200)),
    )
    server.handler = counting
    measurement_request = make_request(metric(builtin="error-rate", source="Runtime"))
    assert (await bench.measure(measurement_request, 30)).result == RequestShares(Arm(25, 5), Arm(100, 0))
    assert (await bench.measure(measurement_request, 60)).result == RequestShares(Arm(49, 9), Arm(100, 0))
    assert [selector for selector, *_ in counting.queries if "instance=~" in selector] == [
        'up{instance=~"b"}',
        'process_start_time_seconds{instance=~"b"}',
    ]


async def test_targets_that_appear_hours_apart_are_asked_about_apart(bench: Bench, server: FakeServer) -> None:
    counting = Counting(
        traefik("b", "200", (-5, 0), (20, 1), (19990, 2)),
        *(traefik("b", "200", (at, 30), (19990, 40), instance=f"t{at}") for at in (30, 90, 8000)),
    )
    server.handler = counting
    assert (await bench.measure(make_request(metric(builtin="error-rate")), 20000)).result == RequestShares(
        Arm(32, 0), Arm(0, 0)
    )
    about = [(actual, end - start) for actual, start, end in counting.queries if actual.startswith("up{")]
    assert [actual.partition("instance")[2] for actual, _ in about] == ['=~"t30|t90"}', '=~"t8000"}']
    assert all(length < 400 for _, length in about)


async def test_a_new_series_beside_another_revision_counts_from_zero(bench: Bench, server: FakeServer) -> None:
    server.handler = Counting(
        traefik("a", "200", (-5, 100), (50, 190)), traefik("b", "200", (20, 3), (50, 10)), traefik("b", "500", (50, 2))
    )
    actual = (await bench.measure(make_request(metric(builtin="error-rate")))).result
    assert actual == RequestShares(Arm(12, 2), Arm(90, 0))


async def test_a_round_reads_new_samples_and_a_restart_reads_all(bench: Bench, server: FakeServer) -> None:
    counting = Counting(traefik("b", "200", (-5, 0), *((at, at) for at in range(5, 9000, 10))))
    server.handler = counting
    measurement_request = make_request(metric(builtin="error-rate"))
    first = (await bench.measure(measurement_request, 8000)).result
    assert first == RequestShares(Arm(7995, 0), Arm(0, 0))
    assert [(round(start - START), round(end - START)) for _, start, end in counting.queries] == [
        (-300, 3300),
        (3240, 6900),
        (6840, 8000),
    ]
    counting.queries.clear()
    assert (await bench.measure(measurement_request, 8030)).result == RequestShares(Arm(8025, 0), Arm(0, 0))
    assert [(round(start - START), round(end - START)) for _, start, end in counting.queries] == [(7940, 8030)]
    bench.memory = None
    assert (await bench.measure(measurement_request, 8030)).result == RequestShares(Arm(8025, 0), Arm(0, 0))


async def test_what_is_too_much_at_once_is_read_in_smaller_pieces(bench: Bench, server: FakeServer) -> None:
    counting = Counting(traefik("b", "200", (-5, 0), *((at, at) for at in range(5, 9000, 10))))
    counting.largest = 600
    server.handler = counting
    assert (await bench.measure(make_request(metric(builtin="error-rate")), 4000)).result == RequestShares(
        Arm(3995, 0), Arm(0, 0)
    )
    counting.largest = 0
    bench.memory = None
    actual = (await bench.measure(make_request(metric(builtin="error-rate")), 4000)).result
    assert isinstance(actual, MeasurementFailure)
    assert actual.reason == "QueryFailed"


async def test_counters_that_nobody_scrapes_any_more_are_no_evidence(bench: Bench, server: FakeServer) -> None:
    server.handler = Counting(traefik("b", "200", (-5, 0), (10, 400), (25, 500)))
    assert (await bench.measure(make_request(metric(builtin="error-rate")), 60)).result == RequestShares(
        Arm(500, 0), Arm(0, 0)
    )
    actual = (await bench.measure(make_request(metric(builtin="error-rate")), 130)).result
    assert isinstance(actual, MeasurementFailure)
    assert (actual.reason, actual.permanent) == ("MetricsStale", False)


async def test_errors_of_a_pod_that_is_gone_still_count(bench: Bench, server: FakeServer) -> None:
    def requests(pod: str, code: str, *samples: tuple[float, float]) -> Any:
        labels = {"__name__": "v2_requests_total", "job": "pods", "instance": pod, "code": code, "namespace": "vision"}
        return labels | {"pod": f"digits-bbbbbbbbbb-{pod}-y"}, list(samples)

    server.handler = Counting(
        requests("old", "200", (-5, 0), (10, 40), (25, 40)),
        requests("old", "500", (-5, 0), (10, 3), (25, 3)),
        requests("new", "200", (-5, 0), (130, 60), (145, 60)),
    )
    measurement_request = make_request(metric(builtin="error-rate"), gateway=None, serving=None)
    assert (await bench.measure(measurement_request, 150)).result == RequestShares(Arm(103, 3), None)


async def test_without_any_series_there_is_no_evidence(bench: Bench, server: FakeServer) -> None:
    server.handler = Counting()
    for wanted in (metric(builtin="error-rate"), metric(builtin="throughput", min="1")):
        actual = (await bench.measure(make_request(wanted))).result
        assert isinstance(actual, MetricValue)
        assert actual.candidate is None
        assert "Prometheus has no series of traefik_service_requests_total" in actual.why
    bad = {"bad": 'orders_total{result="lost"}', "total": "orders_total"}
    actual = (await bench.measure(make_request(metric(prometheus=bad)))).result
    assert actual == MetricValue(None, why="Prometheus has no series of orders_total{}")


async def test_throughput_is_requests_a_second_since_the_step_began(bench: Bench, server: FakeServer) -> None:
    server.handler = Counting(traefik("b", "200", (-5, 0), (40, 120)), traefik("a", "200", (-5, 0), (40, 600)))
    assert (await bench.measure(make_request(metric(builtin="throughput", min="1")))).result == MetricValue(2.0, 10.0)
    assert (await bench.measure(make_request(metric(builtin="throughput", min="1")), 0)).result == MetricValue(
        None, why="the step has only just begun"
    )


async def test_counters_of_ones_own(bench: Bench, server: FakeServer) -> None:
    def orders(revision: str, result: str, *samples: tuple[float, float]) -> Any:
        labels = {"__name__": "orders_total", "job": "orders", "instance": "o", "result": result}
        return labels | {"revision": revision * 10}, list(samples)

    server.handler = Counting(
        orders("b", "lost", (-5, 1), (50, 4)),
        orders("b", "won", (-5, 1), (50, 98)),
        orders("a", "lost", (-5, 1), (50, 2)),
        orders("a", "won", (-5, 1), (50, 1000)),
    )
    own = {"bad": 'orders_total{result="lost",revision="$(REVISION)"}', "total": 'orders_total{revision="$(REVISION)"}'}
    actual = await bench.measure(make_request(metric(prometheus=own, margin="0.1")))
    assert actual.result == RequestShares(Arm(100, 3), Arm(1000, 1))
    assert actual.query == (
        'bad: orders_total{result="lost",revision="bbbbbbbbbb"}; total: orders_total{revision="bbbbbbbbbb"}'
    )


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"bad": "rate(a[5m])", "total": "a"}, "prometheus.bad must be a plain selector"),
        ({"bad": "a", "total": "sum(a)"}, "prometheus.total must be a plain selector"),
        ({"bad": "a{", "total": "a"}, "prometheus.bad is no PromQL"),
        ({"query": 'a{pod="$(POD)"}'}, "$(POD) is no placeholder"),
    ],
)
async def test_a_query_that_is_wrong_in_itself_is_never_sent(
    bench: Bench, server: FakeServer, own: dict[str, str], expected: str
) -> None:
    actual = (await bench.measure(make_request(metric(prometheus=own)))).result
    assert isinstance(actual, MeasurementFailure)
    assert (actual.reason, actual.permanent) == ("QueryRefused", True)
    assert expected in actual.message
    assert server.requests == []


async def test_an_enforced_label_is_not_required_of_builtin_metrics(bench: Bench, server: FakeServer) -> None:
    bench.options["enforcedLabel"] = "namespace"
    for own in ({"query": "sum(a)"}, {"bad": "a", "total": 'a{namespace="$(NAMESPACE)"}'}):
        actual = (await bench.measure(make_request(metric(prometheus=own)))).result
        assert isinstance(actual, MeasurementFailure)
        assert (actual.reason, actual.permanent) == ("QueryRefused", True)
        assert 'needs namespace="vision", and a does not have it; write namespace="$(NAMESPACE)"' in actual.message
    assert server.requests == []
    await bench.measure(make_request(metric(prometheus={"query": 'sum(a{namespace="$(NAMESPACE)"})'})))
    assert server.requests[0][1]["query"] == 'sum(a{namespace="vision"})'
    server.handler = Counting(traefik("b", "200", (-5, 0), (40, 120)))
    assert (await bench.measure(make_request(metric(builtin="error-rate")))).result == RequestShares(
        Arm(120, 0), Arm(0, 0)
    )


def bucket(name: str, le: str, *samples: tuple[float, float], **labels: str) -> Any:
    return {"__name__": name, "job": "j", "instance": "i", "le": le, **labels}, list(samples)


async def test_latency_from_the_runtimes_own_counters(bench: Bench, server: FakeServer) -> None:
    counting = Counting(
        *(
            bucket("v2_request_seconds_bucket", le, (-5, 0), (50, value), namespace="vision", pod=pod)
            for pod, values in (("digits-bbbbbbbbbb-x-y", (5, 9, 10)), ("digits-aaaaaaaaaa-x-y", (80, 99, 100)))
            for le, value in zip(("0.1", "0.25", "+Inf"), values, strict=True)
        )
    )
    server.handler = counting
    actual = await bench.measure(
        make_request(metric(builtin="latency-percentile", percentile="0.95", source="Runtime"))
    )
    assert actual.result == Histogram(
        ((0.1, 5), (0.25, 9), (float("inf"), 10)), ((0.1, 80), (0.25, 99), (float("inf"), 100))
    )
    assert isinstance(actual.result, Histogram)
    assert actual.result.blocks is not None
    *empty, (_, candidate, serving) = actual.result.blocks
    assert (candidate, serving) == (actual.result.candidate, actual.result.serving)
    assert [one[-1][1] for _, *both in empty for one in both] == [0] * 6
    assert actual.query == (
        'Runtime: v2_request_seconds_bucket{namespace="vision",pod=~"digits-bbbbbbbbbb-[a-z0-9-]+"}'
    )


async def test_a_histogram_without_its_last_bucket_is_told(bench: Bench, server: FakeServer) -> None:
    server.handler = Counting(
        bucket("v2_request_seconds_bucket", "0.1", (-5, 0), (50, 1), namespace="vision", pod="digits-bbbbbbbbbb-x-y")
    )
    measurement_request = make_request(
        metric(builtin="latency-over", threshold="100ms", source="Runtime"), serving=None
    )
    actual = (await bench.measure(measurement_request)).result
    assert isinstance(actual, MeasurementFailure)
    assert actual.reason == "MetricsAnswerInvalid"


async def test_one_look_reads_the_same_counters_once(bench: Bench, server: FakeServer) -> None:
    counting = Counting(
        traefik("b", "200", (-5, 0), (5, 0), (40, 60)),
        traefik("a", "200", (-5, 0), (5, 0), (40, 140)),
        traefik("a", "503", (-5, 0)),
    )
    server.handler = counting
    measurement_request = make_request(metric(builtin="error-rate"), metric(name="t", builtin="throughput", min="1"))
    current, measurer = bench.start_round(measurement_request), bench.measurer()
    for wanted in measurement_request.metrics:
        await measurer.measure_metric(current, wanted)
    assert await measurer.measure_weight(current) == 30
    assert len(counting.queries) == 1


@pytest.mark.parametrize(
    ("candidate", "serving", "changes", "weight"),
    [
        (10, 90, {}, 10),
        (9, 90, {}, None),
        (0, 100, {}, 0),
        (100, 0, {}, 100),
        (50, 50, {"serving": None}, None),
        (50, 50, {"gateway": None}, None),
        (50, 50, {"mirror": True}, None),
    ],
)
async def test_the_weight_that_is_observed(
    bench: Bench, server: FakeServer, candidate: int, serving: int, changes: dict[str, Any], weight: int | None
) -> None:
    server.handler = Counting(
        # What was counted up to the first scrape in the step went by the weights before it, in part.
        traefik("b", "200", (-5, 0), (5, 7), (40, 7 + candidate)),
        traefik("a", "200", (-5, 0), (5, 900), (40, 900 + serving)),
    )
    assert await bench.measurer().measure_weight(bench.start_round(make_request(**changes))) == weight


async def test_no_weight_is_observed_while_prometheus_is_down(bench: Bench, server: FakeServer) -> None:
    server.handler = server.text("oh", status=503)
    assert await bench.measurer().measure_weight(bench.start_round(make_request())) is None
