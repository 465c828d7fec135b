"""The figures furthest beyond their limits: bounded, finite, each feature once, and read only when they are right."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from modelwright.core.drift.distances import DistanceMethod
from modelwright.core.drift.feature_drift import Aspect, FeatureDrift
from modelwright.core.drift.worst_features import (
    MAX_FIGURES,
    MAX_UNWATCHED,
    InvalidDriftAnswer,
    WindowDrift,
    build_answer,
    parse_answer,
    parse_unwatched,
    select_worst,
)


def figure(feature: str, excess: float, window: str = "10m", limit: float = 0.1) -> WindowDrift:
    value = excess * limit if math.isfinite(limit) else excess
    return WindowDrift(
        window, "input", 500, FeatureDrift(feature, Aspect.DISTANCE, value, limit, 0.05, DistanceMethod.PSI)
    )


def test_each_feature_appears_once_the_largest_excess_first() -> None:
    found = select_worst([figure("a", 1, "10m"), figure("b", 3, "10m"), figure("a", 2, "24h")])
    assert [(one.figure.feature, one.window) for one in found] == [("b", "10m"), ("a", "24h")]


def test_an_answer_is_bounded_and_has_no_infinity() -> None:
    many = [figure(f"{'x' * 63}[{n}]", 1 + n, "24h") for n in range(1024)]
    found = select_worst([*many, figure("constant", 0, limit=math.inf)])
    text = json.dumps(build_answer("v1", found), allow_nan=False)
    assert len(found) == MAX_FIGURES
    assert len(text) < 8192
    assert parse_answer(json.loads(text), "v1") == found


@pytest.mark.parametrize(
    "change",
    [
        {"feature": ""},
        {"feature": "x" * 81},
        {"feature": "bell\a"},
        {"feature": 3},
        {"window": "w" * 33},
        {"kind": "weight"},
        {"aspect": "colour"},
        {"method": "Guess"},
        {"value": "much"},
        {"value": math.nan},
        {"limit": 0},
        {"limit": math.inf},
        {"rows": -1},
        {"rows": 1e400},
    ],
    ids=str,
)
def test_a_figure_that_is_wrong_is_refused(change: dict[str, Any]) -> None:
    answer = build_answer("v1", [figure("a", 2)])
    answer["worst"][0] |= change
    with pytest.raises(InvalidDriftAnswer):
        parse_answer(answer, "v1")


@pytest.mark.parametrize(
    "answer", [None, [], {}, {"worst": {}}, {"version": "v1", "worst": [{}]}, {"worst": [], "version": 1}]
)
def test_an_answer_that_is_none_is_refused(answer: Any) -> None:
    with pytest.raises(InvalidDriftAnswer):
        parse_answer(answer, "v1")


def test_figures_of_another_version_are_refused() -> None:
    with pytest.raises(InvalidDriftAnswer, match="another version than v2"):
        parse_answer(build_answer("v1", ()), "v2")


def test_features_of_free_text_are_listed_and_bounded() -> None:
    features = [("prediction", "output"), *(("input", f"text-{n}") for n in range(40))]
    answer = json.loads(json.dumps(build_answer("v1", (), features)))
    assert parse_answer(answer, "v1") == ()
    assert parse_unwatched(answer) == tuple(features[:MAX_UNWATCHED])
    assert parse_unwatched({"version": "v1", "worst": []}) == (), "an observer of an earlier version"


@pytest.mark.parametrize(
    "unwatched",
    [
        {},
        None,
        ["text"],
        [{"kind": "input"}],
        [{"kind": "weight", "feature": "a"}],
        [{"kind": "input", "feature": ""}],
        [{"kind": "input", "feature": "bell\a"}],
        [{"kind": "input", "feature": "x" * 81}],
        [{"kind": "input", "feature": "a"}] * 17,
    ],
    ids=str,
)
def test_features_of_free_text_that_are_wrong_are_refused(unwatched: Any) -> None:
    with pytest.raises(InvalidDriftAnswer):
        parse_unwatched(build_answer("v1", ()) | {"unwatched": unwatched})
