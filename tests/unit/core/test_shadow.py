"""A comparer's summary becomes evidence, or is refused."""

import json
import math
from typing import Any

import pytest

from modelwright.core import shadow
from modelwright.core.analysis.evidence import Arm, Value
from modelwright.core.shadow import SummaryError

EMPTY = {"count": 0, "sum": 0.0, "buckets": []}


def document(**members: Any) -> dict[str, Any]:
    return {"startedAt": "2026-01-01T00:00:00Z", "pair": {"serving": "old", "candidate": "new"}} | members


def summary(**members: Any) -> shadow.Summary:
    return shadow.parse(document(**members), serving="old", candidate="new")


def test_what_is_written_can_be_read_again() -> None:
    latency = {"count": 3, "sum": 0.3, "buckets": [["0.05", 1], ["+Inf", 3]]}
    told = summary(compared=3, rows=6, disagreements=2, latency={"serving": latency, "candidate": EMPTY})
    text = json.dumps(told.wire())
    assert shadow.parse(text.encode(), serving="old", candidate="new") == told
    assert shadow.parse(json.loads(text) | {"ofANewerComparer": 1}, serving="old", candidate="new") == told


def test_rows_are_trials_and_disagreements_are_events() -> None:
    assert shadow.agreement(summary(rows=500, disagreements=20)).candidate == Arm(500, 20)
    assert shadow.agreement(summary()).candidate == Arm(0, 0)
    assert shadow.agreement(summary()).serving is None


def test_latencies_are_cumulative_histograms_of_both() -> None:
    part = {"count": 3, "sum": 0.3, "buckets": [["0.05", 1], ["+Inf", 3]]}
    found = shadow.latency(summary(latency={"serving": part, "candidate": EMPTY}))
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
    difference: dict[str, Any], kind: shadow.DifferenceKind, wanted: float | None
) -> None:
    found = shadow.difference(summary(difference=difference), kind)
    assert found == Value(wanted, why=found.why)
    assert bool(found.why) == (wanted is None)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("{", "can't be read"),
        ({}, "startedAt"),
        (document(rows=-1), "rows"),
        (document(rows="many"), "rows"),
        (document(rows=1, disagreements=2), "more disagreements than rows"),
        (document(pair={"serving": "older", "candidate": "new"}), "not old with new"),
        (document(latency={"serving": {"count": 1, "sum": 1, "buckets": [["1", 1]]}}), "buckets must be cumulative"),
        (document(latency={"serving": {"count": 1, "sum": 1, "buckets": [["1", 2], ["+Inf", 1]]}}), "cumulative"),
        (document(latency={"candidate": {"count": 1, "sum": 1, "buckets": [["x", 1]]}}), "can't be read"),
    ],
)
def test_a_summary_that_cannot_be_evidence_is_refused(wrong: Any, said: str) -> None:
    with pytest.raises(SummaryError, match=said):
        shadow.parse(wrong, serving="old", candidate="new")
