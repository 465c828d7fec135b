"""The figures of drift furthest beyond their limits, and features without one: what the observer answers on `/worst`,
and the operator reads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.core.monitoring.distances import Method
from modelwright.core.monitoring.drift import Aspect, Figure

MOST = 16
"""Figures in an answer: more than a status shows, so that what it shows is still among them when others pass it by."""
KINDS = ("input", "prediction")
MOST_UNWATCHED = 16
"""Features of free text in an answer."""
_LONGEST = 80
"""Characters of a feature's name: that of a tensor, at most 63, and a place in it."""
_LONGEST_WINDOW = 32


class WorstError(ValueError):
    """An answer that is none of an observer's; the text says why."""


@dataclass(frozen=True, slots=True)
class Worst:
    """A figure and what it was made from: the window by name, and its `rows`."""

    window: str
    kind: str
    rows: int
    figure: Figure

    @property
    def feature(self) -> tuple[str, str]:
        """Kind and name: what of one feature is worst counts, in whichever window."""
        return self.kind, self.figure.feature


def worst(figures: Iterable[Worst]) -> tuple[Worst, ...]:
    """The figures furthest beyond their limits, the largest excess first, each feature once."""
    found: dict[tuple[str, str], Worst] = {}
    for one in sorted(figures, key=lambda one: -one.figure.excess):
        # A feature that has one value alone can't drift by every method: it has no limit.
        if math.isfinite(one.figure.limit):
            found.setdefault(one.feature, one)
    return tuple(found.values())[:MOST]


Feature = tuple[str, str]
"""Kind and name."""


def document(version: str, figures: Sequence[Worst], unwatched: Sequence[Feature] = ()) -> dict[str, Any]:
    """The answer as JSON: `version` is the ModelVersion whose reference the figures are from; `unwatched`: features of
    free text, which have no figure."""
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
        "unwatched": [{"kind": kind, "feature": feature} for kind, feature in unwatched[:MOST_UNWATCHED]],
    }


def parse(answer: Any, version: str) -> tuple[Worst, ...]:
    """The figures of an answer about `version`. Raises WorstError for another version, and for what is none."""
    if not isinstance(answer, Mapping) or not isinstance(answer.get("worst"), list) or len(answer["worst"]) > MOST:
        raise WorstError(f"the answer is no object with at most {MOST} figures in worst")
    if answer.get("version") != version:
        raise WorstError(f"it observes another version than {version}")
    try:
        return tuple(_read(entry) for entry in answer["worst"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise WorstError(f"a figure is wrong: {type(error).__name__}") from error


def parse_unwatched(answer: Mapping[str, Any]) -> tuple[Feature, ...]:
    """The features of free text in an answer that `parse` takes. Raises WorstError."""
    # An observer of an earlier version tells none, until it is replaced.
    found = answer.get("unwatched", [])
    if not isinstance(found, list) or len(found) > MOST_UNWATCHED:
        raise WorstError(f"unwatched is no list of at most {MOST_UNWATCHED} features")
    try:
        features = tuple((entry["kind"], entry["feature"]) for entry in found)
    except (KeyError, TypeError) as error:
        raise WorstError(f"a feature in unwatched is wrong: {type(error).__name__}") from error
    if not all(kind in KINDS and _is_name(feature, _LONGEST) for kind, feature in features):
        raise WorstError("a feature in unwatched is wrong: it must have a kind, and a name that can be shown")
    return tuple(dict.fromkeys(features))


def _is_name(text: Any, longest: int) -> bool:
    return isinstance(text, str) and text.isprintable() and 0 < len(text) <= longest


def _read(entry: Mapping[str, Any]) -> Worst:
    window, kind, feature = entry["window"], entry["kind"], entry["feature"]
    value, limit, floor = (float(entry[name]) for name in ("value", "limit", "floor"))
    rows = int(entry["rows"])
    if not (_is_name(feature, _LONGEST) and _is_name(window, _LONGEST_WINDOW) and kind in KINDS):
        raise ValueError(kind)
    if not all(map(math.isfinite, (value, limit, floor))) or limit <= 0 or floor < 0 or not 0 <= rows < 2**31:
        raise ValueError(value)
    method = Method(entry["method"]) if entry["method"] is not None else None
    return Worst(window, kind, rows, Figure(feature, Aspect(entry["aspect"]), value, limit, floor, method))
