"""Numbers that say nothing are no evidence: selectors that match nothing, copies, queries without data."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from modelwright.api.v1alpha1.policy import Metric
from modelwright.api.v1alpha1.runtime import RuntimeMetrics
from modelwright.core.analysis.evidence import Arm, MetricValue, Outcome, RequestShares, Series, ValuePairs
from modelwright.core.analysis.judge import MetricLimits, judge_metric
from modelwright.core.analysis.planning import Levels
from modelwright.measurement import evidence_checks, queries
from modelwright.measurement.queries import LabelMatcher
from tests.lib.measurement import CANDIDATE, SINCE, Bench, FakeServer, make_request, metric
from tests.lib.scrape_counters import Counting, runtime, traefik

LEVELS = Levels(0.05, 0.0125)

PODS = 'pod=~"$(PODS)"'


def orders(revision: str, *samples: tuple[float, float], name: str = "orders_total", **labels: str) -> Any:
    actual = {"__name__": name, "job": "orders", "instance": revision, "pod": f"digits-{revision * 10}-x-y"}
    return actual | labels, list(samples)


def own(bad: str, total: str = f"orders_total{{{PODS}}}") -> Metric:
    return metric(prometheus={"bad": bad, "total": total}, margin="0.02")


GOOD = (orders("b", (-5, 0), (50, 4000), status="200"), orders("a", (-5, 0), (50, 4000), status="200"))
WORD = (orders("b", (-5, 0), (50, 4000), result="won"), orders("a", (-5, 0), (50, 4000), result="won"))
ELSEWHERE = orders("c", (-5, 0), (50, 7), name="lost_total", status="500")
OVER = orders("c", (-5, 0), (40, 7), name="old_total")


@pytest.mark.parametrize(
    ("bad", "series", "reported"),
    [
        (f'orders_totl{{{PODS},status=~"5.."}}', GOOD, 'no series of orders_totl{pod!="",status!=""}'),
        (f'orders_total{{{PODS},code=~"5.."}}', GOOD, 'no series has the label "code"'),
        (f'orders_total{{{PODS},status="5xxx"}}', GOOD, 'status="5xxx" matches no status of HTTP'),
        (f'orders_total{{{PODS},status=~"5xx"}}', GOOD, 'status=~"5xx" matches no status of HTTP'),
        (f'lost_total{{{PODS},cod="500"}}', (*GOOD, ELSEWHERE), 'no series of lost_total{pod!="",cod!=""}'),
        (f'{{{PODS},result="lost"}}', GOOD, "it names no metric"),
        (f'{{__name__=~"lost_.*",{PODS}}}', GOOD, 'no series of {__name__=~"lost_.*",pod!=""}'),
    ],
)
async def test_a_bad_selector_that_can_match_nothing_is_no_evidence(
    bench: Bench, server: FakeServer, bad: str, series: tuple[Any, ...], reported: str
) -> None:
    server.handler = Counting(*series)
    actual = await bench.measure(make_request(own(bad)))
    assert isinstance(actual.result, MetricValue)
    verdict = judge_metric(MetricLimits("m", margin=0.02), actual, levels=LEVELS)
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, "BadSelectorMatchesNothing")
    assert verdict.message.startswith("prometheus.bad is ")
    assert reported in verdict.message


@pytest.mark.parametrize(
    ("bad", "series"),
    [
        (f'orders_total{{{PODS},status=~"5.."}}', GOOD),
        (f'orders_total{{{PODS},status!~"2.."}}', GOOD),
        (f'orders_total{{{PODS},result="lost"}}', WORD),
        (f"lost_total{{{PODS}}}", (*GOOD, ELSEWHERE)),
        (f'orders_total{{{PODS},status=~"[[:upper:]]+"}}', GOOD),
        (f'orders_total{{{PODS},status=~"\\\\p{{Lu}}+"}}', GOOD),
    ],
    ids=[
        "a status that was not seen",
        "all but some",
        "a word of its own",
        "series elsewhere",
        "a class of RE2",
        "a class of Unicode",
    ],
)
async def test_no_bad_requests_pass_if_the_selector_can_match(
    bench: Bench, server: FakeServer, bad: str, series: tuple[Any, ...]
) -> None:
    server.handler = Counting(*series)
    assert (await bench.measure(make_request(own(bad)))).result == RequestShares(Arm(4000, 0), Arm(4000, 0))


async def test_a_name_that_is_known_is_asked_for_once(bench: Bench, server: FakeServer) -> None:
    server.handler = Counting(*GOOD)
    measurement_request = make_request(own(f"old_total{{{PODS}}}"))
    for seconds in (50, 60):
        assert isinstance((await bench.measure(measurement_request, seconds)).result, MetricValue)
    server.handler = counting = Counting(*GOOD, OVER)
    for seconds in (70, 80):
        assert isinstance((await bench.measure(measurement_request, seconds)).result, RequestShares)
    assert counting.counts == [
        " or ".join(f'count(old_total{{pod!=""}}{past})' for past in ("", " offset 1h", " offset 1d"))
    ]


async def test_a_name_is_looked_for_in_ones_own_namespace_only(bench: Bench, server: FakeServer) -> None:
    bench.options["enforcedLabel"] = "namespace"
    namespace = 'namespace="$(NAMESPACE)"'
    server.handler = Counting(*((labels | {"namespace": "vision"}, samples) for labels, samples in GOOD), ELSEWHERE)
    wanted = own(f"lost_total{{{namespace}}}", f"orders_total{{{namespace},{PODS}}}")
    actual = (await bench.measure(make_request(wanted))).result
    assert isinstance(actual, MetricValue)
    assert actual.reason == "BadSelectorMatchesNothing"
    assert 'namespace="vision"' in actual.why


async def test_a_runtimes_errors_that_can_match_nothing_are_reported(bench: Bench, server: FakeServer) -> None:
    server.handler = Counting(*(runtime(which, "200", (-5, 0), (50, 400)) for which in "ab"))
    metrics = RuntimeMetrics(requests="v2_requests_total", errors='v2_requests_total{cod=~"5.."}')
    wanted = metric(builtin="error-rate", source="Runtime")
    actual = (await bench.measure(make_request(wanted, candidate=replace(CANDIDATE, metrics=metrics)))).result
    assert isinstance(actual, MetricValue)
    assert actual.reason == "BadSelectorMatchesNothing"
    assert actual.why.startswith("spec.metrics.errors of the runtime of digits-v2 is v2_requests_total{cod=~")
    assert (await bench.measure(make_request(wanted))).result == RequestShares(Arm(400, 0), Arm(400, 0))


COPY = {"job": "podmonitor", "endpoint": "metrics"}


async def test_a_pod_under_two_jobs_is_counted_once(bench: Bench, server: FakeServer) -> None:
    server.handler = Counting(
        runtime("b", "200", (-5, 100), (50, 200)),
        runtime("b", "500", (50, 2)),
        runtime("b", "200", (-4, 100), (51, 203), **COPY),
        runtime("b", "500", (51, 3), **COPY),
    )
    measurement_request = make_request(metric(builtin="error-rate", source="Runtime"), serving=None)
    assert (await bench.measure(measurement_request)).result == RequestShares(Arm(106, 3), None)


async def test_two_jobs_that_differ_are_reported(bench: Bench, server: FakeServer) -> None:
    server.handler = Counting(
        *(runtime("b", code, (-5, 100), (50, 200)) for code in ("200", "404")),
        *(runtime("b", "", (-4, 100), (51, 200), **COPY, status=code) for code in ("200", "404")),
    )
    actual = await bench.measure(make_request(metric(builtin="throughput", min="1", source="Runtime"), serving=None))
    assert actual.result == MetricValue(
        None,
        why='pod digits-bbbbbbbbbb-x-y is scraped twice, with job="podmonitor" and with job="pods", and the counters '
        "differ: let one job of one Prometheus scrape it, or name that job in the selector",
        reason="TargetScrapedTwice",
    )


async def test_bad_requests_that_are_no_part_of_all_are_reported(bench: Bench, server: FakeServer) -> None:
    server.handler = Counting(
        *GOOD, *(orders(which, (-5, 0), (50, 9000), name="lost_total", status="500") for which in "ab")
    )
    actual = (await bench.measure(make_request(own(f"lost_total{{{PODS}}}")))).result
    assert isinstance(actual, MetricValue)
    assert actual.reason == "MoreBadThanAll"
    assert actual.why.startswith("9000 bad requests were counted, and 4000 in all")


QUERIES = [
    ("sum(a)", False),
    ("sum(a) / sum(b)", False),
    ("rate(a[5m] offset 1h)", False),
    ("max_over_time(rate(a[1m])[5m:1m])", False),
    ("-(a)", False),
    ("sum(a) * 100", False),
    ("a or b", False),
    ("(sum(a) or vector(0)) / sum(b)", False),
    ("vector(0) and a", False),
    ("a unless vector(1)", False),
    ("no {query", False),
    ("sum(rate(a[5m])) or vector(0)", True),
    ("(sum(a) or vector(0)) / (sum(b) or vector(1))", True),
    ("sum(a or on() vector(0))", True),
    ("absent(a)", True),
    ("scalar(sum(a)) > bool 3", True),
    ("vector(1)", True),
    ("time()", True),
    ("1", True),
    ("vector(0) unless a", True),
]


@pytest.mark.parametrize(("query", "gives"), QUERIES)
async def test_which_queries_give_a_number_without_data(query: str, gives: bool) -> None:
    actual = await queries.try_parse_query(query, "q", "vision")
    assert (actual is not None and actual.always_gives_number) is gives


async def test_the_data_of_a_query_are_all_its_series() -> None:
    query = 'sum(rate(a{x="y"}[5m] offset 1h)) / sum(b) or vector(0) * b'
    assert (
        await queries.parse_query(query, "q", "vision")
    ).presence_query == 'count(last_over_time(a{x="y"}[5m] offset 1h)) or count(b)'
    assert (await queries.parse_query("vector(1)", "q", "vision")).presence_query == ""


class Fallback(Counting):
    """As a query that ends with `or vector(0)` does, gives 0 in any case."""

    async def __call__(self, request: Any) -> Any:
        form = await request.post()
        query = str(form["query"])
        if query.endswith("vector(0)"):
            return await FakeServer.vector("0")(request)
        return await super().__call__(request)


ERRORS = f"sum(errors{{{PODS}}}) or vector(0)"


@pytest.mark.parametrize(
    ("case", "series", "query", "expected"),
    [
        ("no data at all", (), ERRORS, "none of its series is there"),
        ("no series in it", (), "1 + vector(0)", "the query reads no series"),
        (
            "data of others, and no request",
            (orders("b", (50, 0), name="errors"), traefik("b", "200", (-5, 7), (50, 7))),
            ERRORS,
            "the candidate has answered no request in the step",
        ),
    ],
)
async def test_a_value_without_data_is_no_evidence(
    bench: Bench, server: FakeServer, case: str, series: tuple[Any, ...], query: str, expected: str
) -> None:
    server.handler = Fallback(*series)
    actual = await bench.measure(make_request(metric(prometheus={"query": query}, max="0.1")))
    verdict = judge_metric(MetricLimits("m", max=0.1), actual, levels=LEVELS)
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, "ValueWithoutData")
    assert expected in verdict.message


@pytest.mark.parametrize("requests", [(traefik("b", "200", (-5, 7), (50, 8)),), ()], ids=["requests", "not counted"])
async def test_a_value_with_data_is_taken_as_it_is(bench: Bench, server: FakeServer, requests: tuple[Any, ...]) -> None:
    server.handler = Fallback(*(orders(which, (50, 0), name="errors") for which in "ab"), *requests)
    gateway = {} if requests else {"gateway": None, "candidate": replace(CANDIDATE, metrics=None)}
    measurement_request = make_request(metric(prometheus={"query": ERRORS}, margin="0.1"), **gateway)
    assert (await bench.measure(measurement_request)).result == MetricValue(0.0, 0.0)


async def test_a_serving_value_without_data_is_no_evidence(bench: Bench, server: FakeServer) -> None:
    server.handler = Fallback(orders("b", (50, 0), name="errors"), traefik("b", "200", (-5, 7), (50, 8)))
    actual = await bench.measure(make_request(metric(prometheus={"query": ERRORS}, margin="0.1")))
    assert isinstance(actual.result, MetricValue)
    assert (actual.result.candidate, actual.result.serving) == (0.0, None)
    assert judge_metric(MetricLimits("m", margin=0.1), actual, levels=LEVELS).reason == "NoServingData"


async def test_a_course_without_data_decides_no_test(bench: Bench, server: FakeServer) -> None:
    async def handle(request: Any) -> Any:
        if request.path.endswith("query_range"):
            result = [{"metric": {}, "values": [[START, "0"] for START in range(30)]}]
            body = {"status": "success", "data": {"resultType": "matrix", "result": result}}
            return await FakeServer.reply(body)(request)
        return await Counting()(request)

    server.handler = handle
    wanted = metric(prometheus={"query": ERRORS}, margin="0.1")
    actual = await bench.measurer().measure_range(make_request(wanted), wanted, SINCE + timedelta(hours=1))
    assert isinstance(actual, ValuePairs)
    assert actual.pairs == ()
    assert "none of its series is there; serving revision: " in actual.why


async def test_shares_come_by_blocks_of_time_too(bench: Bench, server: FakeServer) -> None:
    times = (-5.0, 14.0, 29.0, 44.0, 59.0)
    counted = {("a", "200"): (0, 90, 180, 270, 360), ("b", "200"): (0, 10, 19, 28, 38), ("b", "500"): (0, 0, 1, 2, 2)}
    server.handler = Counting(
        *(orders(which, *zip(times, values, strict=True), status=code) for (which, code), values in counted.items())
    )
    actual = (await bench.measure(make_request(own(f'orders_total{{{PODS},status=~"5.."}}')))).result
    assert actual == RequestShares(Arm(40, 2), Arm(360, 0))
    assert isinstance(actual, RequestShares)
    assert actual.blocks is not None
    candidate, serving = ([(block.trials, block.events) for block in arm] for arm in actual.blocks)
    assert candidate == [(10, 0), (10, 1), (10, 1), (10, 0)]
    assert serving == [(90, 0)] * 4
    assert [block.end - SINCE.timestamp() for block in actual.blocks[0]] == [15, 30, 45, 60]


async def test_a_backtracking_pattern_blocks_and_proves_nothing(prompt_loop: None) -> None:
    series = [Series({"code": "a" * 40}, ())]
    assert (
        await evidence_checks._explain_impossible_match(LabelMatcher("code", "(a|aa)+!", "=~"), series, "vision") == ""
    )
