"""What Model.status says of drift, and when that is worth a write.

Figures change at every look. A write is made when a feature begins or ceases to be beyond its limit, and not when
numbers or their order change (docs/adr/0017). Beside another write the numbers are renewed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from modelwright.api.v1alpha1.model import DriftFigure, DriftStatus, UnwatchedFeature
from modelwright.core.drift.worst_features import FeatureKey, WindowDrift

MAX_SHOWN = 3
CEASING_EXCESS = 0.8
"""Excess below which a feature that was beyond its limit is so no more: at the limit itself, chance alone would end and
begin it by turns."""
REPLACING_FACTOR = 1.5
"""How many times the excess of one that is shown another feature needs to take its place, when SHOWN have drifted."""


def summarize_drift(
    old: DriftStatus | None,
    version: str,
    found: Sequence[WindowDrift],
    now: datetime,
    unwatched: Sequence[FeatureKey] | None = None,
) -> DriftStatus | None:
    """What is to be told of figures, the largest excess first, after what was told before. Without figures, as below
    the least number of rows, no more is known of drift than `old` says, if it is of the same version. `unwatched`:
    features of free text; None when they aren't known."""
    if old is not None and old.version != version:
        old = None
    free_text = old.unwatched if old is not None else ()
    if unwatched is not None:
        free_text = tuple(UnwatchedFeature(kind=kind, feature=feature) for kind, feature in unwatched)
    if not found:
        if free_text == (old.unwatched if old is not None else ()):
            return old
        begun = old or DriftStatus(version=version, drifted=False, at=now)
        return begun.model_copy(update={"unwatched": free_text})
    before = _drifted_features(old)
    beyond = _select_drifted(
        [one for one in found if one.figure.excess > (CEASING_EXCESS if one.feature_key in before else 1.0)], before
    )
    others = [one for one in found if one not in beyond and one.figure.excess <= 1]
    shown = sorted([*beyond, *others[: MAX_SHOWN - len(beyond)]], key=lambda one: -one.figure.excess)
    entries = tuple(_build_entry(one, drifted=one in beyond) for one in shown)
    return DriftStatus(version=version, drifted=bool(beyond), at=now, worst=entries, unwatched=free_text)


def is_worth_writing(old: DriftStatus | None, new: DriftStatus | None) -> bool:
    """Whether `new` says more than other numbers: another version, or other features that have drifted or are free
    text."""
    if old is None or new is None:
        return old is not new
    return (old.version, old.unwatched, _drifted_features(old)) != (new.version, new.unwatched, _drifted_features(new))


def _drifted_features(told: DriftStatus | None) -> frozenset[tuple[str, str]]:
    return frozenset((one.kind, one.feature) for one in told.worst if one.drifted) if told is not None else frozenset()


def _select_drifted(drifted: Sequence[WindowDrift], before: frozenset[tuple[str, str]]) -> list[WindowDrift]:
    """The SHOWN of those that have drifted: those shown `before`, but for what others exceed by far."""
    kept = [one for one in drifted if one.feature_key in before]
    for one in drifted:
        if one in kept:
            continue
        if len(kept) < MAX_SHOWN:
            kept.append(one)
        elif (
            one.figure.excess
            > REPLACING_FACTOR * (least := min(kept, key=lambda each: each.figure.excess)).figure.excess
        ):
            kept[kept.index(least)] = one
    return kept


def _build_entry(one: WindowDrift, *, drifted: bool) -> DriftFigure:
    figure = one.figure
    value, limit, floor = (f"{number:.4g}" for number in (figure.value, figure.limit, figure.floor))
    return DriftFigure(
        kind=one.kind,
        feature=figure.feature,
        drifted=drifted,
        aspect=figure.aspect,
        method=figure.method,
        value=value,
        limit=limit,
        floor=floor,
        window=one.window,
        rows=one.rows,
    )
