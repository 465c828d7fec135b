"""A comparer's summary becomes evidence, or is refused."""

import json
import math
from datetime import timedelta
from typing import Any

import pytest

from modelwright.core.analysis import comparison_summary
from modelwright.core.analysis.comparison_summary import SummaryError
from modelwright.core.analysis.evidence import Arm, MetricValue, PairedRequests, RequestShares, ValueSample

EMPTY = {"count": 0, "sum": 0.0, "buckets": []}


def document(**members: Any) -> dict[str, Any]:
    return {"startedAt": "2026-01-01T00:00:00Z", "pair": {"serving": "old", "candidate": "new"}} | members


def summary(**members: Any) -> comparison_summary.ComparisonSummary:
    return comparison_summary.parse_summary(document(**members), serving="old", candidate="new")


def test_formatted_blocks_are_parsed_again() -> None:
    latency = {"count": 3, "sum": 0.3, "buckets": [["0.05", 1], ["+Inf", 3]]}
    given = summary(compared=3, rows=6, disagreements=2, latency={"serving": latency, "candidate": EMPTY})
    text = json.dumps(given.wire())
    assert comparison_summary.parse_summary(text.encode(), serving="old", candidate="new") == given
    assert (
        comparison_summary.parse_summary(json.loads(text) | {"ofANewerComparer": 1}, serving="old", candidate="new")
        == given
    )


def test_a_trial_is_an_answer_with_its_share_of_agreeing_rows() -> None:
    answers = {"count": 10, "differing": [[0.0, 7.0], [0.25, 2.5], [1.0, 0.5]]}
    found = comparison_summary.agreement_sample(summary(rows=500, disagreements=20, answers=answers))
    assert found == ValueSample(0.0, 1.0, ((1.0, 7.0), (0.75, 2.5), (0.0, 0.5)))
    assert found.trials == 10
    assert comparison_summary.agreement_sample(summary()).trials == 0


def test_errors_are_counted_by_arm_and_by_pair() -> None:
    given = {"compared": 90, "uncomparable": 10, "errors": {"serving": 3, "candidate": 5}}
    pairs = {"total": 100, "both": 2, "candidateOnly": 3, "servingOnly": 1}
    assert comparison_summary.error_shares(summary(**given)) == RequestShares(Arm(100, 5), Arm(100, 3))
    assert comparison_summary.error_shares(summary(**given, pairedErrors=pairs)).pairs == PairedRequests(100, 2, 3, 1)


def test_latencies_are_counted_by_pair_over_each_bound() -> None:
    pairs = {"total": 9, "both": 2, "candidateOnly": 3, "servingOnly": 1}
    assert comparison_summary.latency_histogram(summary(pairedLatency=[["0.05", pairs]])).pairs == (
        (0.05, PairedRequests(9, 2, 3, 1)),
    )


WHOLE = {
    "received": 7,
    "compared": 5,
    "uncomparable": 1,
    "rows": 9,
    "disagreements": 2,
    "agreement": 0.8,
    "answers": {"count": 5, "differing": [[0.0, 3.5], [0.5, 1.0], [1.0, 0.5]]},
    "errors": {"serving": 1, "candidate": 2},
    "mismatches": {"unanswered": 1},
    "difference": {"absolute": {"count": 2, "sum": 1.0, "buckets": [["0.5", 1], ["+Inf", 2]]}, "nonFinite": 1},
    "latency": {"serving": {"count": 3, "sum": 0.3, "buckets": [["0.05", 1], ["+Inf", 3]]}, "candidate": EMPTY},
    "pairedErrors": {"total": 6, "both": 1, "candidateOnly": 1, "servingOnly": 0},
    "pairedLatency": [["0.05", {"total": 3, "both": 1, "candidateOnly": 1, "servingOnly": 1}]],
}


def test_the_counts_of_two_comparers_add_up() -> None:
    one = summary(**WHOLE)
    later = one.model_copy(update={"started_at": one.started_at + timedelta(hours=1)})
    both = later + one
    assert both.started_at == one.started_at
    assert (both.received, both.answers.count, both.errors.candidate, both.mismatches.unanswered) == (14, 10, 4, 2)
    assert both.agreement == one.answers.sample.share
    assert comparison_summary.agreement_sample(both) == comparison_summary.agreement_sample(one).scale_by(2)
    assert comparison_summary.error_shares(both) == RequestShares(Arm(12, 4), Arm(12, 2), PairedRequests(12, 2, 2, 0))
    assert comparison_summary.latency_histogram(both).serving == ((0.05, 2), (math.inf, 6))
    assert comparison_summary.latency_histogram(both).pairs == ((0.05, PairedRequests(6, 2, 2, 2)),)
    assert (both.difference.absolute.mean, both.difference.non_finite) == (0.5, 2)
    assert comparison_summary.parse_summary(both.wire(), serving="old", candidate="new") == both


def test_a_comparer_that_counted_nothing_adds_nothing() -> None:
    one = summary(**WHOLE)
    assert (summary() + one, one + summary()) == (one, one)


def test_bounds_that_only_one_comparer_has_are_left_out() -> None:
    part = {"count": 3, "sum": 0.3, "buckets": [["0.05", 1], ["0.1", 2], ["+Inf", 3]]}
    one, other = summary(**WHOLE), summary(latency={"serving": part, "candidate": EMPTY})
    assert comparison_summary.latency_histogram(one + other).serving == ((0.05, 2), (math.inf, 6))


def test_latencies_are_cumulative_histograms_of_both() -> None:
    part = {"count": 3, "sum": 0.3, "buckets": [["0.05", 1], ["+Inf", 3]]}
    found = comparison_summary.latency_histogram(summary(latency={"serving": part, "candidate": EMPTY}))
    assert (found.serving, found.candidate) == (((0.05, 1), (math.inf, 3)), ())


@pytest.mark.parametrize(
    ("difference", "kind", "wanted"),
    [
        ({"absolute": {"count": 4, "sum": 2.0}}, "absolute", 0.5),
        ({"relative": {"count": 4, "sum": 1.0}}, "relative", 0.25),
        ({"absolute": {"count": 4, "sum": 2.0}}, "relative", None),
        ({"absolute": {"count": 4, "sum": 2.0}, "nonFinite": 1}, "absolute", None),
        ({}, "absolute", None),
    ],
)
def test_the_mean_difference_is_a_value_only_when_there_is_one(
    difference: dict[str, Any], kind: comparison_summary.DifferenceKind, wanted: float | None
) -> None:
    found = comparison_summary.mean_difference(summary(difference=difference), kind)
    assert found == MetricValue(wanted, why=found.why)
    assert bool(found.why) == (wanted is None)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("{", "can't be read"),
        ({}, "startedAt"),
        (document(startedAt="2026-01-01T00:00:00"), "startedAt"),
        (document(rows=-1), "rows"),
        (document(rows=2**53 + 1), "rows"),
        (document(rows="many"), "rows"),
        (document(rows=1, disagreements=2), "more disagreements than rows"),
        (document(answers={"count": 2, "differing": [[0, 1]]}), "doesn't add up"),
        (document(answers={"count": 1, "differing": [[1.5, 1]]}), "answers.differing"),
        (document(answers={"count": 1, "differing": [[0, -1], [1, 2]]}), "answers.differing"),
        (document(pairedErrors={"total": 1, "both": 1, "servingOnly": 1}), "no more than all"),
        (document(pairedLatency=[["0.1", {"total": 1, "candidateOnly": 2}]]), "no more than all"),
        (document(pairedLatency=[["x", {}]]), "can't be read"),
        (document(pair={"serving": "older", "candidate": "new"}), "not old with new"),
        (document(latency={"serving": {"count": 1, "sum": 1, "buckets": [["1", 1]]}}), "buckets must be cumulative"),
        (document(latency={"serving": {"count": 1, "sum": 1, "buckets": [["1", 2], ["+Inf", 1]]}}), "cumulative"),
        (document(latency={"candidate": {"count": 1, "sum": 1, "buckets": [["x", 1]]}}), "can't be read"),
    ],
)
def test_a_summary_that_cannot_be_evidence_is_refused(wrong: Any, said: str) -> None:
    with pytest.raises(SummaryError, match=said):
        comparison_summary.parse_summary(wrong, serving="old", candidate="new")
