"""Drift in a status is written when a feature starts or ceases to drift, and not when numbers change."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.api.v1alpha1.model import DriftStatus
from modelwright.core.drift.distances import DistanceMethod
from modelwright.core.drift.feature_drift import Aspect, FeatureDrift
from modelwright.core.drift.worst_features import WindowDrift, select_worst
from modelwright.core.status.drift_status import MAX_SHOWN, is_worth_writing, summarize_drift

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def drifted_by(**excess: float) -> Sequence[WindowDrift]:
    return select_worst(
        WindowDrift(
            "10m",
            "input",
            500,
            FeatureDrift(name, Aspect.DISTANCE, 0.1 * value, 0.1, 0.05, DistanceMethod.KOLMOGOROV_SMIRNOV),
        )
        for name, value in excess.items()
    )


def summarize_all(*measurements: Sequence[WindowDrift], version: str = "v1") -> tuple[DriftStatus | None, int]:
    """Return the status after these measurements, written only where that is worth it, and the number of writes."""
    written, writes = None, 0
    status: DriftStatus | None = None
    for measurement in measurements:
        status = summarize_drift(status, version, measurement, NOW)
        if is_worth_writing(written, status):
            written, writes = status, writes + 1
    return written, writes


def drifted(status: DriftStatus | None) -> list[str]:
    return [one.feature for one in status.worst if one.drifted] if status is not None else []


def test_it_has_the_numbers_of_the_three_worst_features() -> None:
    status, _ = summarize_all(drifted_by(age=3, plan=0.5, city=2, zone=0.7))
    assert status is not None
    assert status.wire() == {
        "version": "v1",
        "drifted": True,
        "at": "2026-11-30T12:00:00Z",
        "worst": [
            {
                "kind": "input",
                "feature": name,
                "drifted": drifts,
                "aspect": "distance",
                "method": "KolmogorovSmirnov",
                "value": value,
                "limit": "0.1",
                "floor": "0.05",
                "window": "10m",
                "rows": 500,
            }
            for name, drifts, value in (("age", True, "0.3"), ("city", True, "0.2"), ("zone", False, "0.07"))
        ],
        "unwatched": [],
    }


CASES = {
    "the first figures are written": ([drifted_by(a=0.2)], 1, []),
    "numbers that change are not": ([drifted_by(a=0.2), drifted_by(a=0.9), drifted_by(a=0.4)], 1, []),
    "nor the order of what has not drifted": ([drifted_by(a=0.2, b=0.3), drifted_by(a=0.3, b=0.2)], 1, []),
    "nor that of what has": ([drifted_by(a=2, b=3), drifted_by(a=3, b=2)], 1, ["b", "a"]),
    "a feature that drifts is": ([drifted_by(a=0.2), drifted_by(a=1.1)], 2, ["a"]),
    "one that stays about its limit drifts on": ([drifted_by(a=1.1), drifted_by(a=0.9), drifted_by(a=1.1)], 1, ["a"]),
    "one that is back is": ([drifted_by(a=1.1), drifted_by(a=0.7)], 2, []),
    "a fourth that has drifted is not": (
        [drifted_by(a=2, b=3, c=4), drifted_by(a=2, b=3, c=4, d=2.9)],
        1,
        ["c", "b", "a"],
    ),
    "one that is far worse is": ([drifted_by(a=2, b=3, c=4), drifted_by(a=2, b=3, c=4, d=3.1)], 2, ["c", "d", "b"]),
    "no figures say nothing new": ([drifted_by(a=2), [], drifted_by(a=2)], 1, ["a"]),
    "no figures at all are no status": ([[], []], 0, []),
}


@pytest.mark.parametrize("case", CASES)
def test_a_write_is_made_when(case: str) -> None:
    measurements, writes, names = CASES[case]
    status, made = summarize_all(*measurements)
    assert (made, drifted(status)) == (writes, names)


def test_figures_of_another_reference_are_dropped() -> None:
    status, _ = summarize_all(drifted_by(a=2))
    assert summarize_drift(status, "v2", [], NOW) is None
    assert is_worth_writing(status, None)
    other = summarize_drift(status, "v2", drifted_by(a=0.1), NOW)
    assert other is not None
    assert not other.drifted


@given(st.lists(st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 9), min_size=1), min_size=1, max_size=20))
def test_it_is_bounded_and_drifted_exactly_when_a_feature_is(measurements: list[dict[str, float]]) -> None:
    status = None
    for measurement in measurements:
        found = drifted_by(**measurement)
        status = summarize_drift(status, "v1", found, NOW)
        assert status is not None
        assert 0 < len(status.worst) <= MAX_SHOWN
        assert status.drifted == any(one.drifted for one in status.worst)
        assert status.drifted or all(one.figure.excess <= 1 for one in found)


def test_a_hundred_equally_drifted_features_are_one_write_a_day() -> None:
    seeded = random.Random(7)
    measurements = [drifted_by(**{f"f{n}": seeded.gauss(2, 0.1) for n in range(12)}) for _ in range(1440)]
    assert summarize_all(*measurements)[1] == 1


def test_free_text_is_written_once_even_without_figures() -> None:
    text = (("input", "comment"),)
    first = summarize_drift(None, "v1", (), NOW, text)
    assert first is not None
    assert (first.drifted, first.worst) == (False, ())
    assert [(one.kind, one.feature) for one in first.unwatched] == list(text)
    assert is_worth_writing(None, first)
    assert summarize_drift(first, "v1", (), NOW, text) is first
    figures = summarize_drift(first, "v1", drifted_by(age=0.5), NOW, text)
    assert figures is not None
    assert figures.unwatched == first.unwatched
    assert not is_worth_writing(first, figures)
    assert is_worth_writing(figures, summarize_drift(figures, "v1", drifted_by(age=0.5), NOW, ()))
    assert summarize_drift(first, "v2", (), NOW) is None
