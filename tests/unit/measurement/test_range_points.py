"""The values of a query over an A/B test: which points are read, and the result of each error."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web

from modelwright.core.analysis.evidence import MeasurementFailure, ValuePairs
from modelwright.measurement.scheduler import RANGE_TIMEOUT, RETRY_SECONDS
from tests.lib.measurement import CANDIDATE, SERVING, SINCE, Bench, FakeServer, make_request, metric
from tests.lib.measurement_scheduler import SchedulerHarness

QUERY = metric(name="q", prometheus={"query": 'sum(a{pod=~"$(PODS)"})'})
SEVERAL = "the query gives 2 or more series, and must give one: sum them"
HOUR = SINCE + timedelta(hours=1)


@pytest.fixture
async def harness(server: FakeServer) -> AsyncIterator[SchedulerHarness]:
    harness = SchedulerHarness(server)
    yield harness
    await harness.scheduler.close()


def matrix(*series: list[str]) -> Any:
    result = [
        {"metric": {"n": str(n)}, "values": [[float(at), value] for at, value in enumerate(values)]}
        for n, values in enumerate(series)
    ]
    return FakeServer.reply({"status": "success", "data": {"resultType": "matrix", "result": result}})


async def test_each_revision_is_queried_in_sixty_points(bench: Bench, server: FakeServer) -> None:
    server.handler = matrix(["1", "2.5"])
    assert await bench.measurer().measure_range(make_request(QUERY), QUERY, HOUR) == ValuePairs(
        ((1.0, 1.0), (2.5, 2.5))
    )
    assert [path for path, _, _ in server.requests] == ["/api/v1/query_range"] * 2
    forms = [form for _, form, _ in server.requests]
    assert [target.pod_pattern in form["query"] for target, form in zip((CANDIDATE, SERVING), forms, strict=True)] == [
        True
    ] * 2
    for form in forms:
        assert float(form["step"]) == 60
        assert float(form["start"]) == SINCE.timestamp() + 60
        assert float(form["end"]) == HOUR.timestamp()


@pytest.mark.parametrize(("minutes", "step", "points"), [(15, 30, 30), (30, 30, 60), (31, 31, 60), (20, 30, 40)])
async def test_points_are_no_nearer_than_looks(
    bench: Bench, server: FakeServer, minutes: int, step: float, points: int
) -> None:
    server.handler = matrix(["1"])
    await bench.measurer().measure_range(make_request(QUERY), QUERY, SINCE + timedelta(minutes=minutes))
    form = server.requests[0][1]
    assert float(form["step"]) == step
    assert (float(form["end"]) - float(form["start"])) / step + 1 == points
    assert float(form["start"]) > SINCE.timestamp()


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (matrix(), ValuePairs(why="the query gives no data; serving revision: the query gives no data")),
        (matrix(["1"], ["2"]), ValuePairs(why=f"{SEVERAL}; serving revision: {SEVERAL}")),
    ],
    ids=["empty", "several series"],
)
async def test_what_is_no_course_of_one_value_says_why(
    bench: Bench, server: FakeServer, handler: Any, expected: ValuePairs
) -> None:
    server.handler = handler
    assert await bench.measurer().measure_range(make_request(QUERY), QUERY, HOUR) == expected


@pytest.mark.parametrize(
    ("handler", "reason", "permanent"),
    [
        (FakeServer.vector("1"), "MetricsAnswerInvalid", False),
        (FakeServer.text("gone", 503), "MetricsServerError", False),
        (FakeServer.cut_off, "MetricsAnswerInvalid", False),
        (
            FakeServer.reply({"status": "error", "errorType": "bad_data", "error": "parse error"}, 400),
            "QueryRefused",
            True,
        ),
        (
            FakeServer.reply(
                {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "histograms": []}]}}
            ),
            "QueryRefused",
            True,
        ),
    ],
    ids=["no range", "503", "cut off", "syntax", "native histogram"],
)
async def test_faults_are_failures(
    bench: Bench, server: FakeServer, handler: Any, reason: str, permanent: bool
) -> None:
    server.handler = handler
    actual = await bench.measurer().measure_range(make_request(QUERY), QUERY, HOUR)
    assert actual.failure is not None
    assert (actual.failure.reason, actual.failure.permanent) == (reason, permanent)


async def test_a_query_without_a_revision_placeholder_is_refused(bench: Bench) -> None:
    one = metric(name="q", prometheus={"query": "sum(a)"})
    failure = (await bench.measurer().measure_range(make_request(one), one, HOUR)).failure
    assert failure is not None
    assert failure.permanent
    assert "use $(REVISION)" in failure.message


async def test_a_pass_asks_once_and_is_woken(harness: SchedulerHarness, server: FakeServer) -> None:
    server.handler = FakeServer.vector("1")
    await harness.measure_once(make_request(QUERY))
    before = harness.request_count
    server.handler = matrix(["4"])
    assert harness.scheduler.get_range_points(make_request(QUERY), QUERY, HOUR) is None
    assert harness.scheduler.get_range_points(make_request(QUERY), QUERY, HOUR) is None
    await harness.woken.get()
    for _ in range(3):
        assert harness.scheduler.get_range_points(make_request(QUERY), QUERY, HOUR) == ValuePairs(((4.0, 4.0),))
    assert harness.request_count == before + 2


async def test_an_ask_that_was_not_looked_at_has_no_series(harness: SchedulerHarness) -> None:
    assert harness.scheduler.get_range_points(make_request(QUERY), QUERY, HOUR) is None
    assert harness.request_count == 0


async def test_a_server_that_comes_back_is_asked_again(harness: SchedulerHarness, server: FakeServer) -> None:
    """A restart of Prometheus at the very end does not lose a test of a week."""
    await harness.measure_once(make_request(QUERY))
    harness.scheduler.get_measurements(make_request(QUERY))
    gone = True

    async def handle(request: web.Request) -> web.StreamResponse:
        good = matrix(["4"]) if request.path.endswith("query_range") else FakeServer.vector("1")
        return await (FakeServer.text("gone", 503) if gone else good)(request)

    server.handler = handle
    harness.scheduler.get_range_points(make_request(QUERY), QUERY, HOUR)
    await ranges(harness, 1)
    gone = False
    assert harness.scheduler.get_range_points(make_request(QUERY), QUERY, HOUR) is None
    while harness.scheduler.get_range_points(make_request(QUERY), QUERY, HOUR) is None:
        await harness.pass_by(RETRY_SECONDS)
    assert harness.scheduler.get_range_points(make_request(QUERY), QUERY, HOUR) == ValuePairs(((4.0, 4.0),))


async def test_a_server_that_is_gone_for_good_is_the_answer_in_the_end(
    harness: SchedulerHarness, server: FakeServer
) -> None:
    server.handler = FakeServer.text("gone", 503)
    await harness.measure_once(make_request(QUERY))
    began = harness.clock.monotonic()
    while (actual := harness.scheduler.get_range_points(make_request(QUERY), QUERY, HOUR)) is None:
        await harness.pass_by(RETRY_SECONDS)
    assert isinstance(actual.failure, MeasurementFailure)
    assert actual.failure.reason == "MetricsServerError"
    assert harness.clock.monotonic() - began >= RANGE_TIMEOUT


async def ranges(harness: SchedulerHarness, count: int) -> None:
    """Wait until this number of ranges was requested."""
    while sum(path.endswith("query_range") for path, _, _ in harness.server.requests) < count:
        await harness.pass_by(0)
