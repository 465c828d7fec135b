"""The scheduler: requests never wait, rounds repeat, failed metrics are retried sooner, unused requests are dropped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from modelwright.api.v1alpha1.policy import Metric
from modelwright.core.analysis.evidence import Measurement, MeasurementFailure, MetricValue
from modelwright.kube.queue import Key
from modelwright.measurement.request import MeasurementRequest
from modelwright.measurement.scheduler import NOTIFY_GRACE
from tests.lib.measurement import SINCE, TRAEFIK, FakeServer, metric
from tests.lib.measurement import make_request as any_ask
from tests.lib.measurement_scheduler import SchedulerHarness

QUERY = metric(name="q", prometheus={"query": "sum(a)"})
OTHER = metric(name="o", http={"provider": "json", "path": "/", "value": ""})
JOB = metric(name="j", job={"template": {"spec": {}}, "value": "score"})


def make_request(*metrics: Metric, **changes: Any) -> MeasurementRequest:
    """Without a gateway, so that all requests are those of the metrics."""
    return any_ask(*metrics, **{"gateway": None} | changes)


class SlowJobs:
    """Jobs that end when the test says so."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.end = asyncio.Event()

    async def run_metric_job(
        self, make_request: MeasurementRequest, metric: Metric
    ) -> MetricValue | MeasurementFailure:
        self.started.append(metric.name)
        await self.end.wait()
        return MetricValue(0.5)


@pytest.fixture
async def harness(server: FakeServer) -> AsyncIterator[SchedulerHarness]:
    harness = SchedulerHarness(server)
    yield harness
    await harness.scheduler.close()


async def test_a_request_never_waits_and_is_notified(harness: SchedulerHarness, server: FakeServer) -> None:
    server.handler = server.vector("4")
    (actual,) = await harness.measure_once(make_request(QUERY))
    assert actual == Measurement("q", SINCE + timedelta(seconds=60), MetricValue(4.0), "sum(a)")
    assert harness.request_count == 1


async def test_measurements_repeat_each_interval(harness: SchedulerHarness, server: FakeServer) -> None:
    server.handler = server.vector("4")
    await harness.measure_once(make_request(QUERY))
    for count in (2, 3):
        await harness.pass_by(29)
        assert harness.request_count == count - 1
        await harness.pass_by(1)
        await harness.woken.get()
        assert harness.request_count == count
        (actual,) = harness.scheduler.get_measurements(make_request(QUERY)) or ()
        assert actual.at == SINCE + timedelta(seconds=60 + 30 * (count - 1))


async def test_requests_in_between_start_no_round(harness: SchedulerHarness) -> None:
    await harness.measure_once(make_request(QUERY))
    for _ in range(5):
        assert harness.scheduler.get_measurements(make_request(QUERY)) is not None
    await harness.pass_by(1)
    assert harness.request_count == 1


@pytest.mark.parametrize(("interval", "sooner"), [(30, 10), (300, 10), (4, 4)])
async def test_a_failed_metric_is_retried_before_the_others_are_due(
    harness: SchedulerHarness, server: FakeServer, interval: int, sooner: int
) -> None:
    async def handle(request: Any) -> Any:
        return await (server.text("oh", status=503) if "query" in request.path else server.reply(1))(request)

    server.handler = handle
    measurement_request = make_request(QUERY, OTHER, interval=timedelta(seconds=interval))
    first, other = await harness.measure_once(measurement_request)
    assert isinstance(first.result, MeasurementFailure)
    assert other.result == MetricValue(1.0)
    server.requests.clear()
    server.handler = server.vector("2")
    await harness.pass_by(sooner)
    await harness.woken.get()
    paths = {path for path, _, _ in server.requests}
    assert paths == ({"/api/v1/query"} if sooner < interval else {"/api/v1/query", "/"})
    again, kept = harness.scheduler.get_measurements(measurement_request) or ()
    assert again.result == MetricValue(2.0)
    if sooner < interval:
        assert kept == other


async def test_a_server_that_stays_down_is_retried(harness: SchedulerHarness, server: FakeServer) -> None:
    server.handler = server.text("oh", status=503)
    await harness.measure_once(make_request(QUERY))
    for _ in range(5):
        await harness.pass_by(10)
        await harness.woken.get()
        (actual,) = harness.scheduler.get_measurements(make_request(QUERY)) or ()
        assert isinstance(actual.result, MeasurementFailure)
        assert not actual.result.permanent
    assert harness.request_count == 6


async def test_only_one_round_of_a_request_runs(harness: SchedulerHarness, server: FakeServer) -> None:
    server.handler = server.hang
    assert harness.scheduler.get_measurements(make_request(QUERY)) is None
    await harness.pass_by(100)
    assert harness.scheduler.get_measurements(make_request(QUERY)) is None
    await harness.pass_by(100)
    assert harness.scheduler.get_measurements(make_request(QUERY)) is None
    assert len(server.requests) <= 1


async def test_a_metric_that_takes_too_long_is_a_failure(server: FakeServer) -> None:
    harness = SchedulerHarness(server, measurement_timeout=0.1)
    server.handler = server.hang
    (late,) = await harness.measure_once(make_request(QUERY))
    assert isinstance(late.result, MeasurementFailure)
    assert (late.result.reason, late.result.permanent) == ("MetricsServerTimeout", False)
    await harness.scheduler.close()


async def test_a_metric_that_hangs_delays_the_notification_briefly(
    harness: SchedulerHarness, server: FakeServer
) -> None:
    answered, go = asyncio.Event(), asyncio.Event()

    async def handle(request: Any) -> Any:
        if "query" in request.path:
            await go.wait()
            return await server.vector("2")(request)
        answered.set()
        return await server.reply(1)(request)

    server.handler = handle
    measurement_request = make_request(QUERY, OTHER)
    assert harness.scheduler.get_measurements(measurement_request) is None
    await answered.wait()
    while (actual := harness.scheduler.get_measurements(measurement_request)) is None:
        await harness.pass_by(NOTIFY_GRACE)
    assert [(one.metric, one.result) for one in actual] == [("o", MetricValue(1.0))]
    assert await harness.woken.get() == measurement_request.notify_key
    go.set()
    await harness.woken.get()
    assert [one.metric for one in harness.scheduler.get_measurements(measurement_request) or ()] == ["q", "o"]


@pytest.mark.parametrize(
    "changes",
    [
        {"since": SINCE + timedelta(seconds=1)},
        {"mirror": True},
        {"serving": None},
        {"gateway": TRAEFIK},
        {"metrics": (OTHER,)},
        {"model": "letters"},
    ],
)
async def test_another_request_under_the_same_key_restarts(harness: SchedulerHarness, changes: dict[str, Any]) -> None:
    await harness.measure_once(make_request(QUERY))
    assert harness.scheduler.get_measurements(replace(make_request(QUERY), **changes)) is None


async def test_another_interval_is_the_same_request(harness: SchedulerHarness) -> None:
    await harness.measure_once(make_request(QUERY))
    assert harness.scheduler.get_measurements(make_request(QUERY, interval=timedelta(seconds=5))) is not None


async def test_what_the_step_cannot_measure_is_left_out(harness: SchedulerHarness, server: FakeServer) -> None:
    server.handler = server.vector("1")
    actual = await harness.measure_once(make_request(metric(name="a", builtin="agreement", min="0.9"), QUERY))
    assert [one.metric for one in actual] == ["q"]


async def test_without_a_measurable_metric_nothing_is_waited_for(harness: SchedulerHarness) -> None:
    assert harness.scheduler.get_measurements(make_request(metric(name="a", builtin="agreement", min="0.9"))) == ()


async def test_a_dropped_request_is_measured_no_more(harness: SchedulerHarness, server: FakeServer) -> None:
    server.handler = server.vector("1")
    kept = replace(make_request(QUERY), key="kept")
    await harness.measure_once(make_request(QUERY))
    await harness.measure_once(kept)
    harness.scheduler.forget_except({"kept"})
    server.requests.clear()
    await harness.pass_by(31)
    assert await harness.woken.get() == kept.notify_key
    assert harness.request_count == 1
    assert harness.scheduler.get_measurements(make_request(QUERY)) is None


async def test_a_request_that_is_not_repeated_is_dropped(harness: SchedulerHarness, server: FakeServer) -> None:
    server.handler = server.vector("1")
    await harness.measure_once(make_request(QUERY))
    for _ in range(30):
        await harness.pass_by(30)
        while not harness.woken.empty():
            harness.woken.get_nowait()
    assert 4 <= harness.request_count <= 6
    assert harness.scheduler.get_measurements(make_request(QUERY)) is None


async def test_closing_ends_running_tasks(harness: SchedulerHarness, server: FakeServer) -> None:
    server.handler = server.hang
    harness.scheduler.get_measurements(make_request(QUERY))
    await harness.pass_by(1)
    await harness.scheduler.close()
    assert harness.woken.empty()
    assert not [task for task in asyncio.all_tasks() if "MeasurementScheduler" in repr(task.get_coro())]


async def test_a_hundred_requests_are_all_measured(harness: SchedulerHarness, server: FakeServer) -> None:
    server.handler = server.vector("1")
    every = [
        replace(make_request(QUERY), key=str(number), notify_key=Key("Model", "vision", str(number)))
        for number in range(100)
    ]
    for measurement_request in every:
        harness.scheduler.get_measurements(measurement_request)
    woken = {await harness.woken.get() for _ in every}
    assert len(woken) == 100
    assert server.most_at_once <= 8
    assert all(harness.scheduler.get_measurements(measurement_request) for measurement_request in every)


async def test_a_server_that_hangs_keeps_no_other_waiting(harness: SchedulerHarness, server: FakeServer) -> None:
    async def handle(request: Any) -> Any:
        return await (server.hang if "query" in request.path else server.reply(1))(request)

    server.handler = handle
    for number in range(50):
        harness.scheduler.get_measurements(replace(make_request(QUERY), key=str(number)))
    (actual,) = await harness.measure_once(
        replace(make_request(OTHER), key="other", notify_key=Key("Model", "vision", "other"))
    )
    assert actual.result == MetricValue(1.0)


async def test_a_job_runs_beside_the_rounds_at_its_own_pace(server: FakeServer) -> None:
    jobs = SlowJobs()
    harness = SchedulerHarness(server, jobs=jobs)
    server.handler = server.vector("1")
    measurement_request = make_request(QUERY, JOB)
    assert [one.metric for one in await harness.measure_once(measurement_request)] == ["q"]
    await harness.pass_by(31)
    await harness.woken.get()
    assert [one.metric for one in harness.scheduler.get_measurements(measurement_request) or ()] == ["q"]
    assert jobs.started == ["j"]
    jobs.end.set()
    await harness.woken.get()
    actual = {one.metric: one for one in harness.scheduler.get_measurements(measurement_request) or ()}
    assert actual["j"].result == MetricValue(0.5)
    assert actual["j"].query == "Job: score"
    await harness.pass_by(30)
    assert jobs.started == ["j", "j"]
    await harness.scheduler.close()


async def test_without_jobs_a_job_metric_is_refused_for_good(harness: SchedulerHarness) -> None:
    (actual,) = await harness.measure_once(make_request(JOB))
    assert isinstance(actual.result, MeasurementFailure)
    assert actual.result.permanent


async def test_the_observed_weight_is_that_of_the_last_look(harness: SchedulerHarness, server: FakeServer) -> None:
    assert harness.scheduler.get_observed_weight(make_request(QUERY, gateway=TRAEFIK)) is None
    labels = {"__name__": "traefik_service_requests_total", "job": "t", "instance": "t", "code": "200"}
    at = SINCE.timestamp()
    result = [
        {
            "metric": labels | {"service": f"vision-digits-{revision * 10}-http-80@kubernetesgateway"},
            "values": [[at - 5, "0"], [at + 5, "0"], [at + 50, count]],
        }
        for revision, count in (("b", "25"), ("a", "75"))
    ]
    server.handler = server.reply({"status": "success", "data": {"resultType": "matrix", "result": result}})
    measurement_request = make_request(QUERY, gateway=TRAEFIK)
    await harness.measure_once(measurement_request)
    await harness.pass_by(30)
    await harness.woken.get()
    assert harness.scheduler.get_observed_weight(measurement_request) == 25
    assert harness.scheduler.get_observed_weight(make_request(QUERY, gateway=TRAEFIK, mirror=True)) is None
