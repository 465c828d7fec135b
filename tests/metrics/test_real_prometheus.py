"""Against a real Prometheus: counts are exact through resets, and its errors have the right reasons."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from modelwright.api.v1alpha1.policy import Metric
from modelwright.api.v1alpha1.runtime import ClusterModelRuntime
from modelwright.core.analysis.ab_winner import NEEDED_POINTS, decide_winner
from modelwright.core.analysis.evidence import Arm, Histogram, MeasurementFailure, MetricValue, Outcome, RequestShares
from modelwright.measurement.request import Gateway
from tests.lib.prometheus import SCRAPE_SECONDS, Exporter, Job, answers, prometheus, traefik
from tests.lib.real_prometheus import CANDIDATE, ROOT, SERVING, PrometheusHarness, infer, metric, stored, v2_server

pytestmark = pytest.mark.metrics


def bad_of_total(which: str) -> Metric:
    return metric(
        prometheus={"bad": f'jobs_total{{result="lost",kind="{which}"}}', "total": f'jobs_total{{kind="{which}"}}'}
    )


@contextlib.asynccontextmanager
async def scraping(folder: Path, exporter: Exporter) -> AsyncIterator[PrometheusHarness]:
    async with exporter.serving() as where:
        with prometheus(folder, [Job("jobs", where)]) as url:
            await answers(f"{url}/-/ready")
            await exporter.scraped()
            yield PrometheusHarness(url)


def jobs(won: int, lost: int | None, kind: str = "x") -> str:
    lines = [f'jobs_total{{result="won",kind="{kind}"}} {won}']
    if lost is not None:
        lines.append(f'jobs_total{{result="lost",kind="{kind}"}} {lost}')
    return "\n".join(lines)


async def test_counts_are_exact_through_resets_and_new_series(tmp_path: Path) -> None:
    exporter = Exporter()
    exporter.text = jobs(1000, 7)
    async with scraping(tmp_path, exporter) as harness:
        exporter.text = jobs(1040, 9)
        await exporter.scraped()
        assert await harness.result(bad_of_total("x"), serving=None) == RequestShares(Arm(42, 2), None)
        # The process starts again, and counts from nothing.
        exporter.text = jobs(5, 1)
        await exporter.scraped()
        assert await harness.result(bad_of_total("x"), serving=None) == RequestShares(Arm(48, 3), None)
        # A label that was never seen: its first sample is already 4.
        exporter.text = jobs(15, 1) + "\n" + jobs(20, 4, kind="y")
        await exporter.scraped()
        assert await harness.result(bad_of_total("y"), serving=None) == RequestShares(Arm(24, 4), None)
        # A target that vanishes and comes back with its counters has lost nothing.
        exporter.text = None
        await exporter.scraped()
        exporter.text = jobs(25, 1) + "\n" + jobs(30, 5, kind="y")
        await exporter.scraped()
        assert await harness.result(bad_of_total("x"), serving=None) == RequestShares(Arm(68, 3), None)
        assert await harness.result(bad_of_total("y"), serving=None) == RequestShares(Arm(35, 5), None)


async def test_a_bad_selector_without_any_series_is_detected(tmp_path: Path) -> None:
    exporter = Exporter()
    exporter.text = jobs(1000, None)
    async with scraping(tmp_path, exporter) as harness:
        exporter.text = jobs(1040, None) + '\nlost_total{kind="z"} 1'
        await exporter.scraped()
        for bad, known in (
            ("lost_total{kind='x'}", True),
            ("lost_totl{kind='x'}", False),
            ("lost_total{k='x'}", False),
        ):
            wanted = metric(prometheus={"bad": bad, "total": 'jobs_total{kind="x"}'})
            actual = await harness.result(wanted, serving=None)
            assert (
                actual == RequestShares(Arm(40, 0), None) if known else actual.reason == "BadSelectorMatchesNothing"
            ), bad


@pytest.mark.parametrize(("started_in_the_step", "trials"), [(False, 25), (True, 45)])
async def test_first_errors_of_a_new_target_count(tmp_path: Path, started_in_the_step: bool, trials: int) -> None:
    exporter = Exporter()
    exporter.text = None
    async with exporter.serving() as where:
        # Two jobs scrape the same target, which counts once.
        with prometheus(tmp_path, [Job("jobs", where), Job("again", where)]) as url:
            await answers(f"{url}/-/ready")
            harness = PrometheusHarness(url)
            start = harness.since.timestamp() + (0.001 if started_in_the_step else -1000)
            exporter.text = f"{jobs(20, None)}\nprocess_start_time_seconds {start:f}"
            await exporter.scraped()
            exporter.text = f"{jobs(40, 5)}\nprocess_start_time_seconds {start:f}"
            await exporter.scraped()
            assert await harness.result(bad_of_total("x"), serving=None) == RequestShares(Arm(trials, 5), None)


async def test_what_it_refuses_and_what_it_has_not(tmp_path: Path) -> None:
    exporter = Exporter()
    exporter.text = 'a{n="1"} 1\na{n="2"} 2'
    async with scraping(tmp_path, exporter) as harness:
        why = "the query gives a number without any data, and none of its series is there"
        without_data = MetricValue(None, why=why, reason="ValueWithoutData")
        queries: list[tuple[str, Any]] = [
            ("sum(a)", MetricValue(3.0)),
            ("scalar(sum(a))", MetricValue(3.0)),
            ("nothing_of_that_name", MetricValue(None, why="the query gives no data")),
            ("sum(a) / 0 - sum(a) / 0", MetricValue(None, why="the query gives nan")),
            ("sum(a) / 0", MetricValue(None, why="the query gives inf")),
            ("a", MetricValue(None, why="the query gives 2 or more series, and must give one: sum them")),
            ("sum(a", ("QueryRefused", True)),
            ("sum(a) offset", ("QueryRefused", True)),
            ("a[5m]", ("QueryRefused", True)),
            ('"text"', ("QueryRefused", True)),
            ("a * on() a", ("QueryFailed", False)),
            ('sum(a{x="$(NAMESPACE)$(MODEL)$(VERSION)$(REVISION)$(PODS)"}) or vector(8)', without_data),
            ('sum(rate(a{n="3"}[5m] offset 1s)) or vector(8)', without_data),
            ("sum(b) or sum(a) or vector(8)", MetricValue(3.0)),
            ('sum(last_over_time(a{n="1"}[5m])) or vector(8)', MetricValue(1.0)),
        ]
        metrics = [metric(f"m{index}", prometheus={"query": text}) for index, (text, _) in enumerate(queries)]
        actual = await harness.measure(*metrics, serving=None)
        for (text, expected), one in zip(queries, actual, strict=True):
            if isinstance(one.result, MeasurementFailure):
                assert (one.result.reason, one.result.permanent) == expected, text
            else:
                assert one.result == expected, text


def runtime() -> ClusterModelRuntime:
    return ClusterModelRuntime.parse(yaml.safe_load((ROOT / "tests/servers/v2/runtime.yaml").read_text()))


async def test_builtin_metrics_from_traefik_and_from_the_runtime(tmp_path: Path) -> None:
    names = {key: f"vision-digits-{key * 10}-http-80" for key in "ab"}
    with (
        v2_server(tmp_path, "v1", "{}") as (good, good_metrics),
        v2_server(tmp_path, "v2", '{"errorShare": 1.0, "latency": {"seconds": 0.12}}') as (bad, bad_metrics),
        traefik(tmp_path, {names["a"]: good, names["b"]: bad, "gone": "http://127.0.0.1:1"}) as (front, front_metrics),
        prometheus(
            tmp_path,
            [
                # As the Gateway API provider of Traefik calls its services.
                Job("traefik", front_metrics, renamed=("service", "(.*)@file", "$1@kubernetesgateway")),
                Job("pods", good_metrics, {"namespace": "vision", "pod": "digits-aaaaaaaaaa-x-y"}),
                Job("pods-2", bad_metrics, {"namespace": "vision", "pod": "digits-bbbbbbbbbb-x-y"}),
            ],
        ) as url,
        contextlib.nullcontext(PrometheusHarness(url)) as harness,
    ):
        await answers(f"{url}/-/ready")
        await answers(f"{good}/v2/health/live")
        await answers(f"{bad}/v2/health/live")
        await answers(f"http://{front_metrics}/ping")
        await stored(harness, "count(up == 1)", 3)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            await infer(session, f"{front}/{names['a']}", 3)
            await stored(harness, 'sum(traefik_service_requests_total{service=~".*aaaaaaaaaa.*"})', 3)
            await stored(harness, "sum(v2_requests_total)", 3)
            harness.since = datetime.now(UTC)
            await infer(session, f"{front}/{names['a']}", 90)
            await infer(session, f"{front}/{names['b']}", 10)
        await stored(harness, "sum(traefik_service_requests_total)", 103)
        await stored(harness, "sum(v2_requests_total)", 103)
        wanted = (
            metric("errors", builtin="error-rate"),
            metric("latency", builtin="latency-over", threshold="100ms"),
        )
        behind = {"gateway": Gateway("traefik.io/gateway-controller")}
        errors, latency = await harness.measure(*wanted, **behind)
        assert errors.result == RequestShares(Arm(10, 10), Arm(90, 0))
        assert isinstance(latency.result, Histogram)
        assert latency.result.candidate[0] == (0.1, 0)
        assert latency.result.candidate[-1] == (float("inf"), 10)
        assert latency.result.serving is not None
        assert latency.result.serving[-1] == (float("inf"), 90)
        own = {
            "candidate": replace(CANDIDATE, metrics=runtime().spec.metrics),
            "serving": replace(SERVING, metrics=runtime().spec.metrics),
        }
        errors, latency = await harness.measure(*wanted, **own)
        # The first scrape with a pod's series may have come after the first requests, which then count: it was up.
        assert errors.result == RequestShares(Arm(10, 10), Arm(90, 0))
        assert isinstance(latency.result, Histogram)
        assert latency.result.candidate[-1] == (float("inf"), 10)


async def test_traefik_counts_every_request_that_got_no_answer(tmp_path: Path) -> None:
    names = {key: f"vision-digits-{key * 10}-http-80" for key in "ab"}
    with (
        v2_server(tmp_path, "v1", '{"abortShare": 1.0}') as (aborting, _),
        v2_server(tmp_path, "v2", '{"hangShare": 1.0}') as (hanging, _),
        traefik(tmp_path, {names["a"]: aborting, names["b"]: hanging}) as (front, front_metrics),
        prometheus(
            tmp_path, [Job("traefik", front_metrics, renamed=("service", "(.*)@file", "$1@kubernetesgateway"))]
        ) as url,
    ):
        harness = PrometheusHarness(url)
        for where in (f"{url}/-/ready", f"{aborting}/v2/health/live", f"{hanging}/v2/health/live"):
            await answers(where)
        await answers(f"http://{front_metrics}/ping")
        await stored(harness, "count(up == 1)", 1)
        harness.since = datetime.now(UTC)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.3)) as session:
            await infer(session, f"{front}/{names['a']}", 5)
            await infer(session, f"{front}/{names['b']}", 4)
        await stored(harness, "sum(traefik_service_requests_total)", 9)
        actual = await harness.result(metric(builtin="error-rate"), gateway=Gateway("traefik.io/gateway-controller"))
        assert actual == RequestShares(Arm(4, 4), Arm(5, 5))


async def test_the_values_over_a_test_decide_it(tmp_path: Path) -> None:
    def sales(number: int) -> str:
        lines = ((CANDIDATE, 5 + number % 3), (SERVING, 3 + number % 3))
        return "\n".join(f'sales{{revision="{target.revision}"}} {value}' for target, value in lines)

    exporter = Exporter()
    exporter.text = sales(0)
    async with scraping(tmp_path, exporter) as harness:
        harness.since = datetime.now(UTC)
        number, end = 0, harness.since
        while end - harness.since < 35 * timedelta(seconds=SCRAPE_SECONDS):
            number += 1
            exporter.text = sales(number)
            await exporter.scraped()
            end = datetime.now(UTC)
        actual = await harness.series(metric(prometheus={"query": 'sum(sales{revision="$(REVISION)"})'}), end)
        assert actual.failure is None
        assert len(actual.pairs) >= NEEDED_POINTS
        assert set(actual.pairs) == {(5, 3), (6, 4), (7, 5)}
        verdict = decide_winner("sales", actual.pairs, alpha=0.05, higher_is_better=True)
        assert verdict.outcome is Outcome.PASS
        assert verdict.message.startswith("candidate higher by 2 ")
        queries: list[tuple[str, Any]] = [
            ('nothing{revision="$(REVISION)"}', "the query gives no data; serving revision: the query gives no data"),
            ('sales or sales{revision="$(REVISION)"}', "the query gives 2 or more series, and must give one: sum them"),
            ('sum(sales{revision="$(REVISION)"}', "QueryRefused"),
            ('sales{revision="$(REVISION)"}[5m]', "QueryRefused"),
        ]
        for query, why in queries:
            actual = await harness.series(metric(prometheus={"query": query}), end)
            assert actual.pairs == ()
            assert actual.why.startswith(why) if actual.failure is None else actual.failure.reason == why


async def test_a_prometheus_that_is_stopped_and_goes_on(tmp_path: Path) -> None:
    exporter = Exporter()
    exporter.text = "a 1"
    async with exporter.serving() as where:
        with prometheus(tmp_path, [Job("jobs", where)]) as url:
            await answers(f"{url}/-/ready")
            await exporter.scraped()
            harness = PrometheusHarness(url)
            wanted = metric(prometheus={"query": "sum(a)"})
            assert await harness.result(wanted) == MetricValue(1.0)
        gone = await harness.result(wanted)
        assert isinstance(gone, MeasurementFailure)
        assert (gone.reason, gone.permanent) == ("MetricsServerUnreachable", False)
