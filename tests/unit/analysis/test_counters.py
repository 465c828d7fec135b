"""Growth of raw counters since a step began, and what is made of it."""

import math

import pytest

from modelwright.core.analysis.counters import arm, boundary, growth, histogram, over, quantile
from modelwright.core.analysis.evidence import Arm, Series

NAN = math.nan
POD = {"job": "pods", "instance": "10.0.0.1:8082"}
OTHER_POD = {"job": "pods", "instance": "10.0.0.2:8082"}
OTHER_JOB = {"job": "cadvisor", "instance": "10.0.0.1:8082"}


def series(*samples: tuple[float, float], **labels: str) -> Series:
    return Series({**POD, **labels}, samples)


OF_THIS_TARGET = series((90, 1), (150, 1), code="200")

GROWTHS = [
    ("no series", [], 0),
    ("the last sample before the start is the baseline", [series((80, 1), (95, 5), (110, 7), (130, 10))], 5),
    ("a sample at the start is the baseline", [series((100, 5), (110, 7))], 2),
    ("samples after the end don't count", [series((100, 5), (200, 7), (201, 90))], 2),
    ("a sample at the end counts", [series((100, 5), (200, 7))], 2),
    ("a reset adds the new value", [series((100, 50), (110, 60), (120, 3), (130, 4))], 14),
    ("two resets", [series((100, 50), (110, 1), (120, 0), (130, 2))], 3),
    ("a reset before the start doesn't count", [series((80, 50), (90, 2), (110, 5))], 3),
    ("NaN is ignored", [series((100, 5), (110, NAN), (120, 8))], 3),
    ("infinity is ignored", [series((100, 5), (110, math.inf), (120, 8))], 3),
    ("a NaN before the start is no baseline", [series((90, 5), (100, NAN), (120, 8))], 3),
    ("scraping began in the middle of an old counter's life", [series((110, 1000), (120, 1003))], 3),
    ("one sample of an unknown target says nothing", [series((110, 1000))], 0),
    ("nothing but old samples", [series((80, 3), (90, 9))], 0),
    ("a new series of a target that was scraped before", [series((110, 2), (120, 5), code="500"), OF_THIS_TARGET], 5),
    ("... is new of this target only", [Series(OTHER_POD, ((110, 100), (120, 103))), OF_THIS_TARGET], 3),
    ("... and of this job only", [Series(OTHER_JOB, ((110, 100), (120, 103))), OF_THIS_TARGET], 3),
    ("without an instance no target is known", [Series({}, ((110, 9), (120, 12))), Series({}, ((90, 1),))], 3),
    ("a target whose earlier sample is NaN is unknown", [series((110, 9), (120, 12)), series((90, NAN), code="1")], 3),
    ("several series are added up", [series((100, 1), (110, 2)), Series(OTHER_POD, ((100, 5), (110, 9)))], 5),
]


@pytest.mark.parametrize(("case", "given", "expected"), GROWTHS, ids=[case for case, *_ in GROWTHS])
def test_growth(case: str, given: list[Series], expected: float) -> None:
    assert growth(given, 100, 200) == expected


def test_the_first_error_counts_because_the_target_was_seen_through_its_requests() -> None:
    bad = [series((150, 3), code="500")]
    total = [series((90, 100), (150, 140), code="200"), series((150, 3), code="500")]
    assert arm(bad, total, 100, 200) == Arm(43, 3)


def test_bad_ones_scraped_later_than_all_are_requests_too() -> None:
    assert arm([series((90, 0), (150, 3))], [series((90, 0), (150, 2))], 100, 200) == Arm(3, 3)


def test_an_arm_without_series_is_empty() -> None:
    assert arm([], [], 100, 200) == Arm(0, 0)


@pytest.mark.parametrize(("trials", "events"), [(1, 2), (3, -1), (-1, -1)])
def test_an_arm_has_no_more_bad_requests_than_requests(trials: int, events: int) -> None:
    with pytest.raises(ValueError, match="0 <= events <= trials"):
        Arm(trials, events)


def bucket(le: str, grown: float, **labels: str) -> Series:
    return series((90, 7), (150, 7 + grown), le=le, **labels)


def test_a_histogram_is_ordered_by_its_bounds_whatever_their_spelling() -> None:
    given = [bucket("+Inf", 10), bucket("2.5e-01", 7), bucket("0.1", 4), bucket("1", 9)]
    assert histogram(given, 100, 200) == ((0.1, 4), (0.25, 7), (1.0, 9), (math.inf, 10))


def test_one_bound_in_two_spellings_is_one_bucket() -> None:
    one = [bucket("0.25", 3), bucket("+Inf", 4)]
    other = [bucket("2.5e-01", 1, pod="b"), bucket("inf", 2, pod="b")]
    assert histogram(one + other, 100, 200) == ((0.25, 4), (math.inf, 6))


def test_only_bounds_that_all_pods_have_are_kept() -> None:
    one = [bucket("0.1", 1), bucket("0.25", 3), bucket("+Inf", 4)]
    other = [bucket("0.25", 1, pod="b"), bucket("+Inf", 2, pod="b")]
    assert histogram(one + other, 100, 200) == ((0.25, 4), (math.inf, 6))


def test_buckets_never_fall() -> None:
    assert histogram([bucket("0.1", 5), bucket("1", 4), bucket("+Inf", 6)], 100, 200)[1] == (1.0, 5)


def test_no_series_are_no_buckets() -> None:
    assert histogram([], 100, 200) == ()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([bucket("0.1", 1)], r"\+Inf"),
        ([bucket("0.1", 1), bucket("fast", 1)], "fast"),
        ([bucket("NaN", 1)], "NaN"),
        ([series((90, 1))], 'le=""'),
    ],
    ids=["no infinite bucket", "a bound that is no number", "NaN", "no label"],
)
def test_a_histogram_that_can_not_be_read_is_refused(given: list[Series], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        histogram(given, 100, 200)


BUCKETS = ((0.1, 50), (0.25, 90), (0.5, 90), (math.inf, 100))


def test_a_threshold_on_a_boundary_counts_what_is_over_it() -> None:
    assert over(BUCKETS, 0.25) == Arm(100, 10)
    assert over(BUCKETS, 0.1 + 0.15) == Arm(100, 10)


def test_a_threshold_inside_a_bucket_counts_nothing() -> None:
    assert boundary(BUCKETS, 0.3) is None
    assert over(BUCKETS, 0.3) is None


def test_no_buckets_are_no_requests_at_any_threshold() -> None:
    assert over((), 0.3) == Arm(0, 0)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 0.1), (0.25, 0.05), (0.7, 0.175), (0.9, 0.25), (0.95, 0.5), (1.0, 0.5), (0.0, 0.0)]
)
def test_a_quantile_is_linear_inside_its_bucket(share: float, expected: float) -> None:
    assert quantile(BUCKETS, share) == pytest.approx(expected)


def test_a_quantile_of_nothing_is_unknown() -> None:
    assert quantile((), 0.5) is None
    assert quantile(((0.1, 0), (math.inf, 0)), 0.5) is None
    assert quantile(((math.inf, 3),), 0.5) is None
