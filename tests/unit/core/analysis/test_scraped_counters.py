"""Growth of counters since a step started, despite restarts, falls and copies."""

from __future__ import annotations

import itertools
import math

import pytest

from modelwright.core.analysis.counters import count_arm, sum_growth
from modelwright.core.analysis.evidence import Arm, Series
from modelwright.core.analysis.scraped_counters import FIRST_BLOCK_SECONDS, block_ends, count_growth

NAN, INF = math.nan, math.inf
POD = {"__name__": "requests_total", "job": "pods", "instance": "10.0.0.1:8082", "pod": "digits-1"}
OTHER_POD = POD | {"instance": "10.0.0.2:8082", "pod": "digits-2"}


def series(*samples: tuple[float, float], **labels: str) -> Series:
    return Series({**POD, **labels}, samples)


def count(given: list[Series], **options: dict[tuple[str, str], float]) -> float:
    """Return the growth from 100 to 200."""
    found = count_growth([given], 100, watched=options.get("watched"))
    assert not found.doubled
    return sum_growth(found.groups[0], 100, 200)


OF_THIS_TARGET = series((90, 1), (150, 1), code="200")
UNNAMED = {"job": "cadvisor", "instance": "10.0.0.1:8082", "pod": "digits-1", "__name__": "other_total"}

BASELINES = [
    ("the last sample before the start is the baseline", [series((80, 1), (95, 5), (110, 7), (130, 10))], 5),
    ("a sample at the start is the baseline", [series((100, 5), (110, 7))], 2),
    ("NaN is ignored", [series((100, 5), (110, NAN), (120, 8))], 3),
    ("infinity is ignored", [series((100, 5), (110, INF), (120, 8))], 3),
    ("a negative value is ignored", [series((100, 5), (110, -4), (120, 8))], 3),
    ("a value that no counter reaches is ignored", [series((100, 5), (110, 1e300), (120, 8))], 3),
    ("a NaN before the start is no baseline", [series((90, 5), (100, NAN), (120, 8))], 3),
    ("samples in no order are put in order", [series((120, 8), (100, 5), (110, 6))], 3),
]

BEGINS = [
    ("scraping began in the middle of an old counter's life", [series((110, 1000), (120, 1003))], 3),
    ("one sample of an unknown target says nothing", [series((110, 1000))], 0),
    ("a new series of a target that was scraped before", [series((110, 2), (120, 5), code="500"), OF_THIS_TARGET], 5),
    (
        "a new series of a target that was first scraped in the step",
        [series((105, 20), (120, 40), (135, 60), code="200"), series((120, 5), (135, 9), code="500")],
        49,
    ),
    (
        "... and that was scraped with it for the first time began no later",
        [series((105, 20), (120, 40), code="200"), series((105, 5), (120, 9), code="500")],
        24,
    ),
    ("a series of another pod is no sign", [Series(OTHER_POD, ((110, 100), (120, 103))), OF_THIS_TARGET], 3),
    ("without an instance no target is known", [Series({}, ((110, 9), (120, 12))), Series({}, ((90, 1),))], 3),
    ("a target whose earlier sample is NaN is unknown", [series((110, 9), (120, 12)), series((90, NAN), code="1")], 3),
]

FALLS = [
    ("a reset adds the new value", [series((100, 50), (110, 60), (120, 3), (130, 4))], 14),
    ("two resets", [series((100, 50), (110, 1), (120, 0), (130, 2))], 3),
    ("a reset before the start doesn't count", [series((80, 50), (90, 2), (110, 5))], 3),
    ("a fall by one is no reset", [series((90, 1000), (110, 1000), (120, 999), (130, 1001))], 1),
    (
        "a fall by one of few errors is no restart of a busy target",
        [
            series((90, 3), (110, 3), (120, 2), (130, 3), code="500"),
            series((90, 9000), (110, 9100), (120, 9200), (130, 9300), code="200"),
        ],
        300,
    ),
    (
        "a restart that one series shows is one of all series of the target",
        [series((90, 10), (115, 18), (130, 17), code="200"), series((90, 0), (115, 2), (130, 3), code="500")],
        8 + 17 + 2 + 3,
    ),
    (
        "... also of those that were there only later",
        [series((90, 1000), (115, 1000), (130, 5), (145, 9), code="200"), series((90, 2), (145, 3), code="500")],
        9 + 3,
    ),
    (
        "one series that restarts alone is no restart of the process",
        [series((90, 40), (110, 3), code="404"), series((90, 9000), (110, 9010), code="200")],
        13,
    ),
    (
        "a restart of one of the processes that a collector passes on",
        [
            series((90, 10), (115, 18), (130, 17), exported_instance="a"),
            series((90, 10), (115, 30), (130, 40), exported_instance="b"),
        ],
        8 + 17 + 30,
    ),
    (
        "series with timestamps of their own say nothing of others",
        [series((90, 41), (95, 41), (120, 2), code="500"), series((92, 1000), (118, 1900), code="200")],
        902,
    ),
]

NO_POD = {"__name__": "requests_total", "job": "static", "instance": "10.0.0.1:8082"}
COPY = {"job": "podmonitor", "endpoint": "metrics", "container": "server"}
REPLICA = {"prometheus": "monitoring/k8s", "prometheus_replica": "k8s-1"}

COPIES = [
    ("one pod under two jobs", [series((90, 100), (130, 200)), series((91, 100), (131, 200), **COPY)], 100),
    (
        "one pod of two Prometheus without deduplication",
        [
            series((90, 100), (130, 200), **REPLICA | {"prometheus_replica": "k8s-0"}),
            series((91, 101), (131, 203), **REPLICA),
        ],
        102,
    ),
    (
        "a job that takes another's place goes on counting",
        [series((90, 100), (110, 130)), series((120, 150), (130, 160), **COPY)],
        60,
    ),
    (
        "a restart that both saw",
        [series((90, 100), (110, 120), (130, 5)), series((95, 104), (115, 121), (135, 7), **COPY)],
        121 - 104 + 7,
    ),
    (
        "a label that differs within one job is the application's own",
        [
            series((90, 1), (130, 2), service="a"),
            series((90, 10), (130, 20), service="b"),
            series((91, 1), (131, 2), service="a", **COPY),
            series((91, 10), (131, 20), service="b", **COPY),
        ],
        11,
    ),
    (
        "a job that knows of no pods",
        [series((90, 100), (130, 200), node="n"), Series(NO_POD, ((91, 101), (131, 204)))],
        103,
    ),
    (
        "errors that one of two jobs has seen already",
        [
            series((90, 1), (130, 20), code="200"),
            series((130, 3), code="500"),
            series((89, 1), (119, 20), code="200", **COPY),
        ],
        22,
    ),
    (
        "an address that went to another pod",
        [series((90, 100), (110, 120)), Series(POD | {"pod": "digits-3"}, ((130, 7), (145, 9)))],
        22,
    ),
    ("other counters of the same pod", [series((90, 5), (110, 7)), Series(UNNAMED, ((90, 1), (110, 4)))], 5),
]

CASES = [*BASELINES, *BEGINS, *FALLS, *COPIES]


@pytest.mark.parametrize(("case", "given", "expected"), CASES, ids=[case for case, *_ in CASES])
def test_counted_requests(case: str, given: list[Series], expected: float) -> None:
    assert count(given) == expected
    assert count(given[::-1]) == expected


@pytest.mark.parametrize(
    ("case", "since", "expected"),
    [
        ("a scrape without the series went well before", 105, 5),
        ("the same scrape is no earlier one", 110, 3),
        ("nothing is known", None, 3),
    ],
)
def test_a_late_target_uses_the_time_of_watching(case: str, since: float | None, expected: float) -> None:
    watched = {} if since is None else {("pods", "10.0.0.1:8082"): since}
    assert count([series((110, 2), (120, 5))], watched=watched) == expected


@pytest.mark.parametrize(
    ("case", "given"),
    [
        (
            "two jobs whose counters differ",
            [
                series(*((90.0 + at, 100.0 + at) for at in range(0, 60, 5))),
                series(*((92.0 + at, 7.0 + at) for at in range(0, 60, 5)), **COPY),
            ],
        ),
        (
            "two jobs whose labels of the counters differ",
            [
                *(series((90, 100), (130, 200), code=code) for code in ("200", "500")),
                *(series((91, 100), (131, 200), status=code, **COPY) for code in ("200", "500")),
            ],
        ),
    ],
)
def test_copies_that_are_not_alike_are_reported(case: str, given: list[Series]) -> None:
    found = count_growth([given], 100)
    assert found.doubled == (
        'pod digits-1 is scraped twice, with job="podmonitor" and with job="pods", and the counters differ'
    )


def test_a_pod_scraped_by_two_jobs_is_counted_once() -> None:
    samples = ((100.0, 100.0), (130.0, 130.0), (160.0, 160.0))
    jobs = [
        Series({"__name__": "requests_total", "instance": "10.0.0.1:8082", "pod": "digits-abc-1", "job": job}, samples)
        for job in ("kubernetes-pods", "vision/digits")
    ]
    found = count_growth([[], jobs], 100)
    assert not found.doubled
    assert count_arm(*found.groups, 100, 160) == Arm(60, 0)


def test_the_errors_of_one_selector_show_a_restart_to_another() -> None:
    bad, total = series((90, 2), (110, 3), code="500"), series((90, 2000), (110, 30), code="200")
    found = count_growth([[bad], [total]], 100)
    assert [sum_growth(group, 100, 200) for group in found.groups] == [3, 30]


def test_the_ends_of_blocks_depend_on_the_start_alone() -> None:
    early, late = list(block_ends(1000, 1100)), list(block_ends(1000, 1000 + 720 * 3600))
    assert early == [1000 + FIRST_BLOCK_SECONDS * number for number in range(1, 7)]
    assert late[: len(early)] == early
    assert len(late) < 400
    assert all(later - sooner >= FIRST_BLOCK_SECONDS for sooner, later in itertools.pairwise(late))
