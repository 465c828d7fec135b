"""Drift in Model.status, and the changes of it that are worth a write.

Figures change at every measurement. The status is written when a feature starts or ceases to exceed its limit, and not
when numbers or their order change (docs/adr/0017). A write for another reason renews the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from modelwright.api.v1alpha1.model import DriftFigure, DriftStatus, UnwatchedFeature
from modelwright.core.drift.worst_features import FeatureKey, WindowDrift

MAX_SHOWN = 3
CEASING_EXCESS = 0.8
"""Excess below which a drifted feature ceases to be drifted: at the limit itself, chance alone would toggle it."""
REPLACING_FACTOR = 1.5
"""Factor by which a feature's excess must surpass that of a shown one to replace it, when MAX_SHOWN have drifted."""


def summarize_drift(
    old: DriftStatus | None,
    version: str,
    figures: Sequence[WindowDrift],
    now: datetime,
    unwatched: Sequence[FeatureKey] | None = None,
) -> DriftStatus | None:
    """Summarize figures, which come with the largest excess first, given the former status, `old`.

    Without figures, as below the minimum number of rows, `old` stays if it is of the same version. `unwatched` are
    features of free text; None when they aren't known.
    """
    if old is not None and old.version != version:
        old = None
    free_text = old.unwatched if old is not None else ()
    if unwatched is not None:
        free_text = tuple(UnwatchedFeature(kind=kind, feature=feature) for kind, feature in unwatched)
    if not figures:
        if free_text == (old.unwatched if old is not None else ()):
            return old
        base = old or DriftStatus(version=version, drifted=False, at=now)
        return base.model_copy(update={"unwatched": free_text})
    before = _drifted_features(old)
    beyond = _select_drifted(
        [one for one in figures if one.figure.excess > (CEASING_EXCESS if one.feature_key in before else 1.0)], before
    )
    others = [one for one in figures if one not in beyond and one.figure.excess <= 1]
    shown = sorted([*beyond, *others[: MAX_SHOWN - len(beyond)]], key=lambda one: -one.figure.excess)
    entries = tuple(_build_entry(one, drifted=one in beyond) for one in shown)
    return DriftStatus(version=version, drifted=bool(beyond), at=now, worst=entries, unwatched=free_text)


def is_worth_writing(old: DriftStatus | None, new: DriftStatus | None) -> bool:
    """Return whether `new` differs in more than numbers: in its version, or in its drifted or free-text features."""
    if old is None or new is None:
        return old is not new
    return (old.version, old.unwatched, _drifted_features(old)) != (new.version, new.unwatched, _drifted_features(new))


def _drifted_features(status: DriftStatus | None) -> frozenset[tuple[str, str]]:
    return (
        frozenset((one.kind, one.feature) for one in status.worst if one.drifted) if status is not None else frozenset()
    )


def _select_drifted(drifted: Sequence[WindowDrift], before: frozenset[tuple[str, str]]) -> list[WindowDrift]:
    """Select MAX_SHOWN of the drifted features: those shown `before`, unless others exceed them by far."""
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
