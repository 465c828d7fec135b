"""Two answers to one request agree or differ, row by row, and by which distance."""

import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelwright.agents.comparer.comparison import (
    AnswerComparison,
    GrowingHistogram,
    NumberTolerance,
    compare_answers,
)
from modelwright.agents.comparer.comparison_stats import ComparisonStats
from modelwright.agents.mirror import RevisionAnswer
from modelwright.core.analysis.comparison_summary import PairedCounts, RevisionPair
from tests.unit.agents.comparer.builders import EPOCH

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy host is not a failure."""

NAN = math.nan


def answer(*outputs: tuple[str, str, list[int], list[Any]], status: int = 200) -> RevisionAnswer:
    entries = [dict(zip(("name", "datatype", "shape", "data"), output, strict=True)) for output in outputs]
    return RevisionAnswer(status, 0.01, json.dumps({"outputs": entries}).encode())


def of(one: tuple[str, list[int], list[Any]], other: tuple[str, list[int], list[Any]]) -> AnswerComparison:
    return compare_answers(answer(("y", *one)), answer(("y", *other)), NumberTolerance())


@pytest.mark.parametrize(
    ("one", "other", "rows", "differ"),
    [
        (("INT64", [3], [1, 2, 3]), ("INT64", [3], [1, 2, 3]), 3, 0),
        (("INT64", [3], [1, 2, 3]), ("INT32", [3], [1, 9, 3]), 3, 1),
        (("INT64", [2, 2], [1, 2, 3, 4]), ("INT64", [2, 2], [1, 2, 3, 5]), 2, 1),
        (("BYTES", [2], ["cat", "dog"]), ("BYTES", [2], ["cat", "cow"]), 2, 1),
        (("BOOL", [2], [True, False]), ("BOOL", [2], [False, True]), 2, 2),
        (("INT64", [], [4]), ("INT64", [], [5]), 1, 1),
        (("INT64", [0], []), ("INT64", [0], []), 0, 0),
    ],
)
def test_labels_agree_when_they_are_equal(one: Any, other: Any, rows: int, differ: int) -> None:
    result = of(one, other)
    assert (result.compared, result.rows, result.disagreements, result.labels) == (True, rows, differ, [rows, differ])
    assert sum(result.absolute.counts) == 0


@pytest.mark.parametrize(
    ("one", "other", "agrees"),
    [
        (1.0, 1.0005, True),
        (1.0, 1.01, False),
        (0.0, 1e-7, True),
        (0.0, 1e-3, False),
        (1e300, 1.0001e300, True),
        (5.0, -5.0, False),
        (NAN, NAN, True),
        (NAN, 1.0, False),
        (1.0, NAN, False),
        (math.inf, math.inf, True),
        (math.inf, -math.inf, False),
        (1e308, -1e308, False),
    ],
)
def test_numbers_agree_within_the_tolerance(one: float, other: float, agrees: bool) -> None:
    result = of(("FP64", [1], [one]), ("FP64", [1], [other]))
    assert (result.rows, result.disagreements) == (1, not agrees)


def test_differences_are_absolute_and_relative_to_the_larger() -> None:
    result = of(("FP64", [3], [10, 0, -2]), ("FP32", [3], [8, 0, 2]))
    assert (result.absolute.sum, result.relative.sum) == pytest.approx((6.0, 0.2 + 0 + 2))
    assert result.disagreements == 2
    assert result.non_finite == 0


def test_a_number_against_nan_has_no_difference_and_is_counted() -> None:
    result = of(("FP64", [4], [1, NAN, NAN, math.inf]), ("FP64", [4], [NAN, NAN, 1, math.inf]))
    assert (result.non_finite, sum(result.absolute.counts), result.disagreements) == (2, 0, 2)


@pytest.mark.parametrize(
    ("one", "other", "differ", "argmax"),
    [
        ([0.7, 0.3], [0.6, 0.4], 0, [1, 0]),
        ([0.7, 0.3], [0.4, 0.6], 1, [1, 1]),
        ([0.7, 0.3], [0.7, 0.9], 1, [1, 1]),
        ([12.0, 3.0], [11.0, 3.0], 1, [1, 0]),
        ([NAN, 0.3], [0.7, 0.3], 1, [1, 1]),
    ],
)
def test_probabilities_agree_on_class_and_numbers_in_tolerance(
    one: list[float], other: list[float], differ: int, argmax: list[int]
) -> None:
    result = of(("FP64", [1, 2], one), ("FP64", [1, 2], other))
    assert (result.disagreements, result.argmax) == (differ, argmax)


def test_a_batch_of_single_numbers_has_no_classes() -> None:
    result = of(("FP64", [2], [0.7, 0.3]), ("FP64", [2], [0.3, 0.7]))
    assert (result.rows, result.disagreements, result.argmax) == (2, 2, [0, 0])


def test_a_row_agrees_when_all_its_outputs_agree() -> None:
    label, probability = ("label", "INT64", [2], [1, 2]), ("p", "FP64", [2, 2], [0.9, 0.1, 0.2, 0.8])
    other = ("p", "FP64", [2, 2], [0.1, 0.9, 0.2, 0.8])
    result = compare_answers(answer(label, probability), answer(other, label), NumberTolerance())
    assert (result.rows, result.disagreements, result.labels, result.argmax) == (2, 1, [2, 0], [2, 1])


def test_outputs_without_a_common_first_dimension_are_one_row() -> None:
    first, second = ("a", "INT64", [2], [1, 2]), ("b", "INT64", [3], [1, 2, 3])
    result = compare_answers(answer(first, second), answer(first, ("b", "INT64", [3], [1, 2, 4])), NumberTolerance())
    assert (result.rows, result.disagreements) == (1, 1)


@pytest.mark.parametrize(
    ("given_", "mismatch"),
    [
        (answer(("z", "INT64", [2], [1, 2])), "names"),
        (answer(("y", "INT64", [2], [1, 2]), ("z", "INT64", [2], [1, 2])), "names"),
        (answer(("y", "FP64", [2], [1, 2])), "datatypes"),
        (answer(("y", "BYTES", [2], ["1", "2"])), "datatypes"),
        (answer(("y", "INT64", [2, 1], [1, 2])), "shapes"),
        (answer(("y", "INT64", [3], [1, 2, 3])), "shapes"),
        (RevisionAnswer(200, 0.01, b"nonsense"), "unreadable"),
        (RevisionAnswer(200, 0.01, b"", whole=False), "unreadable"),
        (answer(("y", "INT64", [2], [1, 2]), status=500), "unanswered"),
        (RevisionAnswer(422, 0.01), "unanswered"),
        (RevisionAnswer(None, 30, timed_out=True), "unanswered"),
        (RevisionAnswer(None, 0.01), "unanswered"),
    ],
)
def test_rows_missing_in_the_candidates_answer_differ(given_: RevisionAnswer, mismatch: str) -> None:
    result = compare_answers(answer(("y", "INT64", [2], [1, 2])), given_, NumberTolerance())
    assert (result.compared, result.rows, result.disagreements, result.mismatch) == (True, 2, 2, mismatch)
    assert result.candidate_failed == (mismatch == "unanswered")
    assert not result.serving_failed


GOOD = answer(("y", "INT64", [1], [1]))


@pytest.mark.parametrize(
    ("serving", "candidate", "failed"),
    [
        (RevisionAnswer(200, 0, b"nonsense"), GOOD, (False, False)),
        (RevisionAnswer(400, 0), RevisionAnswer(400, 0), (False, False)),
        (RevisionAnswer(404, 0), GOOD, (False, False)),
        (RevisionAnswer(400, 0), RevisionAnswer(500, 0), (False, True)),
        (RevisionAnswer(429, 0), GOOD, (True, False)),
        (RevisionAnswer(302, 0), GOOD, (True, False)),
        (RevisionAnswer(503, 0), RevisionAnswer(400, 0), (True, False)),
        (RevisionAnswer(503, 0), RevisionAnswer(None, 0), (True, True)),
    ],
)
def test_request_unanswered_by_serving_revision_is_uncomparable(
    serving: RevisionAnswer, candidate: RevisionAnswer, failed: tuple[bool, bool]
) -> None:
    result = compare_answers(serving, candidate, NumberTolerance())
    assert (result.compared, result.rows, result.disagreements) == (False, 0, 0)
    assert (result.serving_failed, result.candidate_failed) == failed


@UNTIMED
@given(values=st.lists(st.floats(allow_nan=True), min_size=1, max_size=8))
def test_an_answer_agrees_with_itself(values: list[float]) -> None:
    result = of(("FP64", [1, len(values)], values), ("FP64", [1, len(values)], values))
    assert (result.rows, result.disagreements, result.non_finite, result.absolute.sum) == (1, 0, 0, 0)


@UNTIMED
@given(
    one=st.lists(st.floats(), min_size=3, max_size=3),
    other=st.lists(st.floats(), min_size=3, max_size=3),
    shape=st.sampled_from([[3], [1, 3], [3, 1]]),
)
def test_comparing_is_symmetric_and_always_tellable(one: list[float], other: list[float], shape: list[int]) -> None:
    there, back = of(("FP64", shape, one), ("FP64", shape, other)), of(("FP64", shape, other), ("FP64", shape, one))
    assert there.disagreements == back.disagreements
    tally = ComparisonStats(RevisionPair(serving="a", candidate="b"), EPOCH)
    for result in (there, back):
        tally.add(GOOD, GOOD, result)
    json.dumps(tally.build_summary().wire(), allow_nan=False)


@pytest.mark.parametrize(
    ("serving", "candidate", "over"),
    [
        (RevisionAnswer(200, 0.1), RevisionAnswer(200, 0.1), {}),
        (RevisionAnswer(200, 0.3), RevisionAnswer(200, 0.1), {"0.1": "serving", "0.25": "serving"}),
        (RevisionAnswer(200, 0.3), RevisionAnswer(200, 0.6), {"0.1": "both", "0.25": "both", "0.5": "candidate"}),
        (
            RevisionAnswer(200, 0.3),
            RevisionAnswer(None, 0.6, timed_out=True),
            {"0.1": "both", "0.25": "both", "0.5": "candidate"},
        ),
        (RevisionAnswer(200, 0.3), RevisionAnswer(500, 0.6), None),
        (RevisionAnswer(None, 0.3), RevisionAnswer(200, 0.6), None),
    ],
    ids=["as fast", "serving slower", "candidate slower", "candidate hangs", "candidate fails", "serving fails"],
)
def test_slow_requests_are_paired_if_both_times_are_known(
    serving: RevisionAnswer, candidate: RevisionAnswer, over: dict[str, str] | None
) -> None:
    tally = ComparisonStats(RevisionPair(serving="a", candidate="b"), EPOCH)
    tally.add(serving, candidate, AnswerComparison())
    for bound, result in tally.build_summary().paired_latency:
        assert result.total == (over is not None)
        where = "both" if over is not None and float(bound) < 0.1 else (over or {}).get(bound)
        assert (result.both, result.candidate_only, result.serving_only) == (
            where == "both",
            where == "candidate",
            where == "serving",
        )


def test_failures_are_counted_in_pairs() -> None:
    tally = ComparisonStats(RevisionPair(serving="a", candidate="b"), EPOCH)
    for serving_failed, candidate_failed, times in (
        (True, True, 2),
        (False, True, 3),
        (True, False, 1),
        (False, False, 9),
    ):
        for _ in range(times):
            tally.add(GOOD, GOOD, AnswerComparison(serving_failed=serving_failed, candidate_failed=candidate_failed))
    message = tally.build_summary()
    assert message.paired_errors == PairedCounts(total=15, both=2, candidate_only=3, serving_only=1)
    assert (message.errors.candidate, message.errors.serving) == (5, 3)
    exported = {
        (sample.name, *sample.labels.values()): sample.value for metric in tally.collect() for sample in metric.samples
    }
    assert [exported["modelwright_comparer_pairs_total", at] for at in ("both", "candidate", "serving", "neither")] == [
        2,
        3,
        1,
        9,
    ]
    assert exported["modelwright_comparer_slow_pairs_total", "0.1", "neither"] == 15


def test_a_measure_counts_up_to_and_including_its_bounds() -> None:
    measure = GrowingHistogram((0.5, 1.0))
    for value in (0.1, 0.5, 0.7, 5.0):
        measure.add(value)
    message = measure.to_distribution()
    assert (message.buckets, message.count, message.sum) == ((("0.5", 2), ("1", 3), ("+Inf", 4)), 4, pytest.approx(6.3))
