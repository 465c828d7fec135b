"""Answer of the drift monitor on `/worst`, which the operator reads: the features furthest beyond their limits.

It also names the features of free text, which have no figure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.core.drift.distances import DistanceMethod
from modelwright.core.drift.feature_drift import Aspect, FeatureDrift

MAX_FIGURES = 16
"""Figures in an answer: more than a status shows, so that a shown one is still among them when others exceed it."""
FEATURE_KINDS = ("input", "prediction")
MAX_UNWATCHED = 16
"""Features of free text in an answer."""
_MAX_NAME_CHARACTERS = 80
"""Characters of a feature's name: a tensor's name, at most 63, and a place in the tensor."""
_MAX_WINDOW_CHARACTERS = 32


class InvalidDriftAnswer(ValueError):
    """A malformed answer of the drift monitor, or one about another version; the text says why."""


@dataclass(frozen=True, slots=True)
class WindowDrift:
    """A feature's figure with its source: the name of the window, and the window's `rows`."""

    window: str
    kind: str
    rows: int
    figure: FeatureDrift

    @property
    def feature_key(self) -> tuple[str, str]:
        """Kind and name: only the worst figure of a feature counts, over all windows."""
        return self.kind, self.figure.feature


def select_worst(figures: Iterable[WindowDrift]) -> tuple[WindowDrift, ...]:
    """Select the figures furthest beyond their limits, the largest excess first, each feature once."""
    worst: dict[tuple[str, str], WindowDrift] = {}
    for one in sorted(figures, key=lambda one: -one.figure.excess):
        # A feature with a single value can't drift by every method: it has no limit.
        if math.isfinite(one.figure.limit):
            worst.setdefault(one.feature_key, one)
    return tuple(worst.values())[:MAX_FIGURES]


FeatureKey = tuple[str, str]
"""Kind and name."""


def build_answer(version: str, figures: Sequence[WindowDrift], unwatched: Sequence[FeatureKey] = ()) -> dict[str, Any]:
    """Build the answer as JSON.

    `version` is the ModelVersion whose reference the figures are from; `unwatched` are features of free text, which
    have no figure.
    """
    return {
        "version": version,
        "worst": [
            {
                "window": one.window,
                "kind": one.kind,
                "rows": one.rows,
                "feature": one.figure.feature,
                "aspect": one.figure.aspect,
                "method": one.figure.method,
                "value": one.figure.value,
                "limit": one.figure.limit,
                "floor": one.figure.floor,
            }
            for one in figures
        ],
        "unwatched": [{"kind": kind, "feature": feature} for kind, feature in unwatched[:MAX_UNWATCHED]],
    }


def parse_answer(answer: Any, version: str) -> tuple[WindowDrift, ...]:
    """Parse the figures of an answer about `version`. Raises InvalidDriftAnswer, also for another version."""
    if (
        not isinstance(answer, Mapping)
        or not isinstance(answer.get("worst"), list)
        or len(answer["worst"]) > MAX_FIGURES
    ):
        raise InvalidDriftAnswer(f"the answer is no object with at most {MAX_FIGURES} figures in worst")
    if answer.get("version") != version:
        raise InvalidDriftAnswer(f"it watches another version than {version}")
    try:
        return tuple(_parse_window_drift(entry) for entry in answer["worst"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InvalidDriftAnswer(f"a figure is wrong: {type(error).__name__}") from error


def parse_unwatched(answer: Mapping[str, Any]) -> tuple[FeatureKey, ...]:
    """Parse the features of free text in an answer that `parse_answer` accepts. Raises InvalidDriftAnswer."""
    # A drift monitor of an earlier version sends none, until it is replaced.
    entries = answer.get("unwatched", [])
    if not isinstance(entries, list) or len(entries) > MAX_UNWATCHED:
        raise InvalidDriftAnswer(f"unwatched is no list of at most {MAX_UNWATCHED} features")
    try:
        features = tuple((entry["kind"], entry["feature"]) for entry in entries)
    except (KeyError, TypeError) as error:
        raise InvalidDriftAnswer(f"a feature in unwatched is wrong: {type(error).__name__}") from error
    if not all(kind in FEATURE_KINDS and _is_name(feature, _MAX_NAME_CHARACTERS) for kind, feature in features):
        raise InvalidDriftAnswer("a feature in unwatched is wrong: it must have a kind, and a name that can be shown")
    return tuple(dict.fromkeys(features))


def _is_name(text: Any, longest: int) -> bool:
    return isinstance(text, str) and text.isprintable() and 0 < len(text) <= longest


def _parse_window_drift(entry: Mapping[str, Any]) -> WindowDrift:
    window, kind, feature = entry["window"], entry["kind"], entry["feature"]
    value, limit, floor = (float(entry[name]) for name in ("value", "limit", "floor"))
    rows = int(entry["rows"])
    if not (
        _is_name(feature, _MAX_NAME_CHARACTERS) and _is_name(window, _MAX_WINDOW_CHARACTERS) and kind in FEATURE_KINDS
    ):
        raise ValueError(kind)
    if not all(map(math.isfinite, (value, limit, floor))) or limit <= 0 or floor < 0 or not 0 <= rows < 2**31:
        raise ValueError(value)
    method = DistanceMethod(entry["method"]) if entry["method"] is not None else None
    return WindowDrift(window, kind, rows, FeatureDrift(feature, Aspect(entry["aspect"]), value, limit, floor, method))
