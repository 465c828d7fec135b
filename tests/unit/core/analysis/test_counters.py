"""Evidence derived from counters since a step started."""

import math

import pytest

from modelwright.core.analysis.counters import (
    Block,
    MoreBadThanTotal,
    build_blocks,
    build_histogram,
    count_arm,
    count_arm_blocks,
    count_over,
    estimate_quantile,
    find_boundary,
    sum_growth,
)
from modelwright.core.analysis.evidence import Arm, Series

POD = {"job": "pods", "instance": "10.0.0.1:8082"}
OTHER_POD = {"job": "pods", "instance": "10.0.0.2:8082"}


def series(*samples: tuple[float, float], **labels: str) -> Series:
    return Series({**POD, **labels}, samples)


GROWTHS = [
    ("no series", [], 0),
    ("counts up to the start belong to the time before", [series((90, 5), (110, 7), (130, 10))], 5),
    ("a series that began later counted nothing before", [series((110, 7), (130, 10))], 10),
    ("samples after the end don't count", [series((100, 5), (200, 7), (201, 90))], 2),
    ("a sample at the end counts", [series((100, 5), (200, 7))], 2),
    ("nothing but old samples", [series((80, 3), (90, 9))], 0),
    ("several series are added up", [series((100, 1), (110, 2)), Series(OTHER_POD, ((100, 5), (110, 9)))], 5),
]


@pytest.mark.parametrize(("case", "given", "expected"), GROWTHS, ids=[case for case, *_ in GROWTHS])
def test_growth(case: str, given: list[Series], expected: float) -> None:
    assert sum_growth(given, 100, 200) == expected


ARMS = [
    ("no series are no requests", [], [], Arm(0, 0)),
    ("bad ones are a part of all", [series((150, 3))], [series((90, 0), (150, 40))], Arm(40, 3)),
    (
        "a counter that moved during the scrape: each bad one is a request",
        [series((90, 0), (150, 3))],
        [series((90, 0), (150, 2))],
        Arm(3, 3),
    ),
    (
        "bad ones that were scraped later wait for all requests of their pod",
        [series((90, 0), (150, 3), pod="a", job="errors")],
        [series((90, 0), (140, 2), pod="a"), series((90, 0), (160, 9), pod="b")],
        Arm(11, 0),
    ),
    (
        "... and of any pod where the labels say no more",
        [Series({}, ((90, 0), (150, 3), (170, 8)))],
        [series((90, 0), (160, 9))],
        Arm(9, 3),
    ),
]


@pytest.mark.parametrize(("case", "bad", "total", "expected"), ARMS, ids=[case for case, *_ in ARMS])
def test_an_arm(case: str, bad: list[Series], total: list[Series], expected: Arm) -> None:
    assert count_arm(bad, total, 100, 200) == expected


@pytest.mark.parametrize("total", [[], [series((90, 0), (150, 20))]], ids=["no requests", "fewer requests"])
def test_many_more_bad_requests_than_requests_are_an_error(total: list[Series]) -> None:
    with pytest.raises(MoreBadThanTotal, match="40 bad requests were counted"):
        count_arm([series((90, 0), (150, 40))], total, 100, 200)


def test_blocks_add_up_to_the_whole() -> None:
    bad, total = [series((90, 0), (110, 1), (140, 4))], [series((90, 0), (110, 10), (140, 25))]
    found = count_arm_blocks(bad, total, 100, [115, 130, 145])
    assert found == (Block(115, 10, 1), Block(130, 0, 0), Block(145, 15, 3))
    assert count_arm_blocks(bad, total, 100, []) == ()


@pytest.mark.parametrize(
    ("case", "so_far", "expected"),
    [
        ("the next block with room", [(1, 2, 3), (2, 2, 3), (3, 9, 3)], [(2, 2), (0, 0), (7, 1)]),
        ("a block before, where none comes", [(1, 2, 0), (2, 6, 1), (3, 6, 3)], [(2, 0), (4, 3), (0, 0)]),
        ("the last block, where there is none", [(1, 2, 2), (2, 2, 3)], [(2, 2), (1, 1)]),
    ],
)
def test_a_bad_request_without_its_request_moves_to(
    case: str, so_far: list[tuple[float, int, int]], expected: list[tuple[int, int]]
) -> None:
    assert [(block.trials, block.events) for block in build_blocks(so_far)] == expected


@pytest.mark.parametrize(("trials", "events"), [(1, 2), (3, -1), (-1, -1)])
def test_an_arm_has_no_more_bad_requests_than_requests(trials: int, events: int) -> None:
    with pytest.raises(ValueError, match="0 <= events <= trials"):
        Arm(trials, events)


def bucket(le: str, grown: float, **labels: str) -> Series:
    return series((90, 7), (150, 7 + grown), le=le, **labels)


def test_a_histogram_is_ordered_by_bounds_of_any_spelling() -> None:
    given = [bucket("+Inf", 10), bucket("2.5e-01", 7), bucket("0.1", 4), bucket("1", 9)]
    assert build_histogram(given, 100, 200) == ((0.1, 4), (0.25, 7), (1.0, 9), (math.inf, 10))


def test_one_bound_in_two_spellings_is_one_bucket() -> None:
    one = [bucket("0.25", 3), bucket("+Inf", 4)]
    other = [bucket("2.5e-01", 1, pod="b"), bucket("inf", 2, pod="b")]
    assert build_histogram(one + other, 100, 200) == ((0.25, 4), (math.inf, 6))


def test_only_bounds_that_all_pods_have_are_kept() -> None:
    one = [bucket("0.1", 1), bucket("0.25", 3), bucket("+Inf", 4)]
    other = [bucket("0.25", 1, pod="b"), bucket("+Inf", 2, pod="b")]
    assert build_histogram(one + other, 100, 200) == ((0.25, 4), (math.inf, 6))


def test_buckets_never_fall() -> None:
    assert build_histogram([bucket("0.1", 5), bucket("1", 4), bucket("+Inf", 6)], 100, 200)[1] == (1.0, 5)


def test_no_series_are_no_buckets() -> None:
    assert build_histogram([], 100, 200) == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([bucket("0.1", 1)], r"\+Inf"),
        ([bucket("0.1", 1), bucket("fast", 1)], "fast"),
        ([bucket("NaN", 1)], "NaN"),
        ([series((90, 1))], 'le=""'),
    ],
    ids=["no infinite bucket", "a bound that is no number", "NaN", "no label"],
)
def test_a_histogram_that_can_not_be_read_is_refused(given: list[Series], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_histogram(given, 100, 200)


BUCKETS = ((0.1, 50), (0.25, 90), (0.5, 90), (math.inf, 100))


def test_a_threshold_on_a_boundary_counts_requests_over_it() -> None:
    assert count_over(BUCKETS, 0.25) == Arm(100, 10)
    assert count_over(BUCKETS, 0.1 + 0.15) == Arm(100, 10)


def test_a_threshold_inside_a_bucket_counts_nothing() -> None:
    assert find_boundary(BUCKETS, 0.3) is None
    assert count_over(BUCKETS, 0.3) is None


def test_no_buckets_are_no_requests_at_any_threshold() -> None:
    assert count_over((), 0.3) == Arm(0, 0)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 0.1), (0.25, 0.05), (0.7, 0.175), (0.9, 0.25), (0.95, 0.5), (1.0, 0.5), (0.0, 0.0)]
)
def test_a_quantile_is_linear_inside_its_bucket(share: float, expected: float) -> None:
    assert estimate_quantile(BUCKETS, share) == pytest.approx(expected)


def test_a_quantile_of_nothing_is_unknown() -> None:
    assert estimate_quantile((), 0.5) is None
    assert estimate_quantile(((0.1, 0), (math.inf, 0)), 0.5) is None
    assert estimate_quantile(((math.inf, 3),), 0.5) is None
