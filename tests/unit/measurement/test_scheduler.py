"""The desk: passes never wait, looks repeat, what fails is looked at sooner, and nothing goes on that nobody needs."""

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
from tests.lib.measurement import ask as any_ask
from tests.lib.measurement_scheduler import Office

QUERY = metric(name="q", prometheus={"query": "sum(a)"})
OTHER = metric(name="o", http={"provider": "json", "path": "/", "value": ""})
JOB = metric(name="j", job={"template": {"spec": {}}, "value": "score"})


def ask(*metrics: Metric, **changes: Any) -> MeasurementRequest:
    """Without a gateway, so that all requests are those of the metrics."""
    return any_ask(*metrics, **{"gateway": None} | changes)


class SlowJobs:
    """Jobs that end when the test says so."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.end = asyncio.Event()

    async def run_metric_job(self, ask: MeasurementRequest, metric: Metric) -> MetricValue | MeasurementFailure:
        self.started.append(metric.name)
        await self.end.wait()
        return MetricValue(0.5)


@pytest.fixture
async def office(server: FakeServer) -> AsyncIterator[Office]:
    office = Office(server)
    yield office
    await office.desk.close()


async def test_a_pass_never_waits_and_is_woken(office: Office, server: FakeServer) -> None:
    server.handler = server.vector("4")
    (found,) = await office.look(ask(QUERY))
    assert found == Measurement("q", SINCE + timedelta(seconds=60), MetricValue(4.0), "sum(a)")
    assert office.asked == 1


async def test_looks_repeat_each_interval_by_themselves(office: Office, server: FakeServer) -> None:
    server.handler = server.vector("4")
    await office.look(ask(QUERY))
    for count in (2, 3):
        await office.pass_by(29)
        assert office.asked == count - 1
        await office.pass_by(1)
        await office.woken.get()
        assert office.asked == count
        (found,) = office.desk.get_measurements(ask(QUERY)) or ()
        assert found.at == SINCE + timedelta(seconds=60 + 30 * (count - 1))


async def test_passes_in_between_start_no_looks(office: Office) -> None:
    await office.look(ask(QUERY))
    for _ in range(5):
        assert office.desk.get_measurements(ask(QUERY)) is not None
    await office.pass_by(1)
    assert office.asked == 1


@pytest.mark.parametrize(("interval", "sooner"), [(30, 10), (300, 10), (4, 4)])
async def test_what_failed_is_looked_at_sooner_and_the_rest_when_it_is_due(
    office: Office, server: FakeServer, interval: int, sooner: int
) -> None:
    async def handle(request: Any) -> Any:
        return await (server.text("oh", status=503) if "query" in request.path else server.reply(1))(request)

    server.handler = handle
    asked = ask(QUERY, OTHER, interval=timedelta(seconds=interval))
    first, other = await office.look(asked)
    assert isinstance(first.result, MeasurementFailure)
    assert other.result == MetricValue(1.0)
    server.requests.clear()
    server.handler = server.vector("2")
    await office.pass_by(sooner)
    await office.woken.get()
    paths = {path for path, _, _ in server.requests}
    assert paths == ({"/api/v1/query"} if sooner < interval else {"/api/v1/query", "/"})
    again, kept = office.desk.get_measurements(asked) or ()
    assert again.result == MetricValue(2.0)
    if sooner < interval:
        assert kept == other


async def test_a_server_that_is_gone_for_good_is_asked_again_and_again(office: Office, server: FakeServer) -> None:
    server.handler = server.text("oh", status=503)
    await office.look(ask(QUERY))
    for _ in range(5):
        await office.pass_by(10)
        await office.woken.get()
        (found,) = office.desk.get_measurements(ask(QUERY)) or ()
        assert isinstance(found.result, MeasurementFailure)
        assert not found.result.permanent
    assert office.asked == 6


async def test_only_one_look_of_an_ask_goes_on(office: Office, server: FakeServer) -> None:
    server.handler = server.hang
    assert office.desk.get_measurements(ask(QUERY)) is None
    await office.pass_by(100)
    assert office.desk.get_measurements(ask(QUERY)) is None
    await office.pass_by(100)
    assert office.desk.get_measurements(ask(QUERY)) is None
    assert len(server.requests) <= 1


async def test_a_metric_that_takes_too_long_is_a_failure(server: FakeServer) -> None:
    office = Office(server, measurement_timeout=0.1)
    server.handler = server.hang
    (late,) = await office.look(ask(QUERY))
    assert isinstance(late.result, MeasurementFailure)
    assert (late.result.reason, late.result.permanent) == ("MetricsServerTimeout", False)
    await office.desk.close()


async def test_a_metric_that_hangs_keeps_the_others_news_back_for_a_moment_only(
    office: Office, server: FakeServer
) -> None:
    answered, go = asyncio.Event(), asyncio.Event()

    async def handle(request: Any) -> Any:
        if "query" in request.path:
            await go.wait()
            return await server.vector("2")(request)
        answered.set()
        return await server.reply(1)(request)

    server.handler = handle
    asked = ask(QUERY, OTHER)
    assert office.desk.get_measurements(asked) is None
    await answered.wait()
    while (found := office.desk.get_measurements(asked)) is None:
        await office.pass_by(NOTIFY_GRACE)
    assert [(one.metric, one.result) for one in found] == [("o", MetricValue(1.0))]
    assert await office.woken.get() == asked.notify_key
    go.set()
    await office.woken.get()
    assert [one.metric for one in office.desk.get_measurements(asked) or ()] == ["q", "o"]


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
async def test_another_ask_under_the_same_key_starts_anew(office: Office, changes: dict[str, Any]) -> None:
    await office.look(ask(QUERY))
    assert office.desk.get_measurements(replace(ask(QUERY), **changes)) is None


async def test_another_interval_is_the_same_ask(office: Office) -> None:
    await office.look(ask(QUERY))
    assert office.desk.get_measurements(ask(QUERY, interval=timedelta(seconds=5))) is not None


async def test_what_the_step_cannot_measure_is_left_out(office: Office, server: FakeServer) -> None:
    server.handler = server.vector("1")
    found = await office.look(ask(metric(name="a", builtin="agreement", min="0.9"), QUERY))
    assert [one.metric for one in found] == ["q"]


async def test_without_a_metric_that_can_be_measured_nothing_is_waited_for(office: Office) -> None:
    assert office.desk.get_measurements(ask(metric(name="a", builtin="agreement", min="0.9"))) == ()


async def test_what_is_forgotten_is_looked_at_no_more(office: Office, server: FakeServer) -> None:
    server.handler = server.vector("1")
    kept = replace(ask(QUERY), key="kept")
    await office.look(ask(QUERY))
    await office.look(kept)
    office.desk.forget_except({"kept"})
    server.requests.clear()
    await office.pass_by(31)
    assert await office.woken.get() == kept.notify_key
    assert office.asked == 1
    assert office.desk.get_measurements(ask(QUERY)) is None


async def test_an_ask_is_forgotten_when_nobody_asks_any_more(office: Office, server: FakeServer) -> None:
    server.handler = server.vector("1")
    await office.look(ask(QUERY))
    for _ in range(30):
        await office.pass_by(30)
        while not office.woken.empty():
            office.woken.get_nowait()
    assert 4 <= office.asked <= 6
    assert office.desk.get_measurements(ask(QUERY)) is None


async def test_closing_ends_what_goes_on(office: Office, server: FakeServer) -> None:
    server.handler = server.hang
    office.desk.get_measurements(ask(QUERY))
    await office.pass_by(1)
    await office.desk.close()
    assert office.woken.empty()
    assert not [task for task in asyncio.all_tasks() if "Desk" in repr(task.get_coro())]


async def test_a_hundred_asks_are_all_looked_at(office: Office, server: FakeServer) -> None:
    server.handler = server.vector("1")
    every = [
        replace(ask(QUERY), key=str(number), notify_key=Key("Model", "vision", str(number))) for number in range(100)
    ]
    for asked in every:
        office.desk.get_measurements(asked)
    woken = {await office.woken.get() for _ in every}
    assert len(woken) == 100
    assert server.most_at_once <= 8
    assert all(office.desk.get_measurements(asked) for asked in every)


async def test_a_server_that_hangs_keeps_no_other_waiting(office: Office, server: FakeServer) -> None:
    async def handle(request: Any) -> Any:
        return await (server.hang if "query" in request.path else server.reply(1))(request)

    server.handler = handle
    for number in range(50):
        office.desk.get_measurements(replace(ask(QUERY), key=str(number)))
    (found,) = await office.look(replace(ask(OTHER), key="other", notify_key=Key("Model", "vision", "other")))
    assert found.result == MetricValue(1.0)


async def test_a_job_runs_beside_the_looks_at_its_own_pace(server: FakeServer) -> None:
    jobs = SlowJobs()
    office = Office(server, jobs=jobs)
    server.handler = server.vector("1")
    asked = ask(QUERY, JOB)
    assert [one.metric for one in await office.look(asked)] == ["q"]
    await office.pass_by(31)
    await office.woken.get()
    assert [one.metric for one in office.desk.get_measurements(asked) or ()] == ["q"]
    assert jobs.started == ["j"]
    jobs.end.set()
    await office.woken.get()
    found = {one.metric: one for one in office.desk.get_measurements(asked) or ()}
    assert found["j"].result == MetricValue(0.5)
    assert found["j"].query == "Job: score"
    await office.pass_by(30)
    assert jobs.started == ["j", "j"]
    await office.desk.close()


async def test_without_jobs_a_job_metric_is_refused_for_good(office: Office) -> None:
    (found,) = await office.look(ask(JOB))
    assert isinstance(found.result, MeasurementFailure)
    assert found.result.permanent


async def test_the_observed_weight_is_that_of_the_last_look(office: Office, server: FakeServer) -> None:
    assert office.desk.get_observed_weight(ask(QUERY, gateway=TRAEFIK)) is None
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
    asked = ask(QUERY, gateway=TRAEFIK)
    await office.look(asked)
    await office.pass_by(30)
    await office.woken.get()
    assert office.desk.get_observed_weight(asked) == 25
    assert office.desk.get_observed_weight(ask(QUERY, gateway=TRAEFIK, mirror=True)) is None
