"""The profile of a dataset for the check of the next one, and the distance between two datasets.

Numbers are counted in bins between the deciles, other values by the ten most frequent. Columns under one pattern are
profiled together, so that a wide table has a small profile.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from datacheck.checks import CheckResult, TypedTable
from datacheck.schema import Previous

PROFILE_FORM = 1
MAX_PROFILE_BYTES = 2000
MAX_VALUES = 10
ALPHA = 0.05
"""Share of unchanged datasets that may be called changed, over all columns together."""


@dataclass(frozen=True)
class ComparedSizes:
    """Rows of the previous dataset and of this one, and the number of compared columns."""

    before: int
    now: int
    columns: int


def build_profile(data: TypedTable) -> dict[str, Any]:
    """Build {"form", "rows", "columns": {key: ...}}, at most MAX_PROFILE_BYTES as JSON; ``omitted`` counts columns
    without room.

    Numbers: ``mean``, ``std``, ``edges`` (k distinct deciles) and ``shares`` (k + 1: up to the first edge, ..., above
    the last). Other values: ``values`` with their shares, the rest under "".
    """
    profile: dict[str, Any] = {"form": PROFILE_FORM, "rows": len(data.frame), "columns": {}}
    omitted = 0
    for key, names in data.entries.items():
        values = pd.concat([data.frame[name] for name in names], ignore_index=True).dropna() if names else pd.Series()
        if values.empty or data.schema.columns[key].type == "datetime":
            continue
        entry = (
            _profile_numbers(values.to_numpy(float)) if data.schema.columns[key].is_numeric else _profile_values(values)
        )
        profile["columns"][key] = entry
        if len(json.dumps(profile, separators=(",", ":")).encode()) > MAX_PROFILE_BYTES - 20:
            del profile["columns"][key]
            omitted += 1
    return profile | ({"omitted": omitted} if omitted else {})


def _profile_numbers(values: np.ndarray) -> dict[str, Any]:
    # Shares are counted between the rounded edges, so that no value changes its bin later.
    edges = sorted({_round_digits(value) for value in np.quantile(values, np.arange(1, 10) / 10)})
    shares = _count_bins(values, edges) / len(values)
    return {
        "mean": _round_digits(values.mean(), 6),
        "std": _round_digits(values.std(), 6),
        "edges": edges,
        "shares": [_round_digits(value) for value in shares],
    }


def _profile_values(values: pd.Series) -> dict[str, Any]:
    counted = values.map(str).value_counts(normalize=True)
    # Ties are ordered by name: same data, same profile.
    top = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:MAX_VALUES]
    named = {str(value)[:32]: _round_digits(share) for value, share in top}
    return {"values": named | {"": _round_digits(max(0.0, 1 - float(sum(share for _, share in top))))}}


def _count_bins(values: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    return np.bincount(np.searchsorted(np.asarray(edges), values, side="left"), minlength=len(edges) + 1)


def _round_digits(value: float, digits: int = 4) -> float:
    return float(f"{value:.{digits}g}")


def compare_with_previous(data: TypedTable, before: Mapping[str, Any] | None, limits: Previous) -> list[CheckResult]:
    """Check against the profile of the previous dataset; without a usable one, a single check says so."""
    if before is None:
        return [CheckResult("previous", True, "there is no previous dataset")]
    rows, columns = before.get("rows"), before.get("columns")
    if before.get("form") != PROFILE_FORM or not isinstance(rows, int) or rows <= 0 or not isinstance(columns, dict):
        return [CheckResult("previous", True, "not compared: the previous dataset's profile has another form")]
    checks = []
    if limits.max_rows_change is not None:
        change = len(data.frame) / rows - 1
        message = f"{len(data.frame)} rows, {change:+.1%} against {rows} before"
        passed = abs(change) <= limits.max_rows_change
        checks.append(
            CheckResult(
                "previous-rows", passed, message + ("" if passed else f"; at most {limits.max_rows_change:.1%}")
            )
        )
    sizes = ComparedSizes(rows, len(data.frame), sum(isinstance(columns.get(key), dict) for key in data.entries))
    for key, names in data.entries.items():
        entry = columns.get(key)
        if not names or not isinstance(entry, dict):
            continue
        values = pd.concat([data.frame[name] for name in names], ignore_index=True).dropna()
        if not values.empty:
            checks += _compare_column(key, entry, values, sizes, limits, data.schema.columns[key].is_numeric)
    return checks or [
        CheckResult("previous", True, "not compared: the previous dataset's profile has none of the columns")
    ]


def _compare_column(
    key: str, entry: Mapping[str, Any], values: pd.Series, sizes: ComparedSizes, limits: Previous, numeric: bool
) -> list[CheckResult]:
    try:
        if not numeric:
            named = dict(entry["values"])
            old = np.asarray([float(share) for share in named.values()])
            known = values.map(lambda value: str(value)[:32]).map(lambda text: text if text in named else "")
            counted = known.value_counts()
            new = np.asarray([float(counted.get(name, 0)) for name in named])
        else:
            numbers = values.to_numpy(float)
            old, new = np.asarray(entry["shares"], float), _count_bins(numbers, entry["edges"]).astype(float)
            mean, std = float(entry["mean"]), float(entry["std"])
        distance = compute_psi(old, new / new.sum(), sizes.before, sizes.now)
    except (KeyError, TypeError, ValueError):
        return [CheckResult(f"previous:{key}", True, "not compared: its profile has another form")]
    checks = []
    if limits.max_psi is not None:
        limit = max(limits.max_psi, critical_psi(len(old), sizes.before, sizes.now, sizes.columns))
        message = f"PSI {distance:.3f} of {sizes.now} rows against {sizes.before}"
        passed = distance <= limit
        checks.append(CheckResult(f"psi:{key}", passed, message + ("" if passed else f"; at most {limit:.3f}")))
    if limits.max_mean_shift is not None and numeric:
        moved = float(numbers.mean()) - mean
        shift = abs(moved) / std if std > 0 else (0.0 if math.isclose(moved, 0, abs_tol=1e-9) else math.inf)
        message = f"the mean is {numbers.mean():.4g}, {shift:.2f} standard deviations from {mean:.4g}"
        passed = shift <= limits.max_mean_shift
        checks.append(
            CheckResult(f"mean:{key}", passed, message + ("" if passed else f"; at most {limits.max_mean_shift:g}"))
        )
    return checks


def compute_psi(old: np.ndarray, new: np.ndarray, old_rows: int, new_rows: int) -> float:
    """Population stability index sum((p - q) ln(p / q)) of two lists of shares over the same bins.

    Half a row is added to every bin, so that an empty one gives a finite number. Raises ValueError if the lengths
    differ.
    """
    if len(old) != len(new):
        raise ValueError("shares of other bins")
    p, q = ((shares * rows + 0.5) / (rows + len(shares) / 2) for shares, rows in ((old, old_rows), (new, new_rows)))
    return float(np.sum((q - p) * np.log(q / p)))


def critical_psi(bins: int, old_rows: int, new_rows: int, columns: int = 1) -> float:
    """The PSI that pairs of samples of the same data exceed with probability ALPHA / ``columns`` (Bonferroni): chi2(1 -
    ALPHA / columns, bins - 1) (1/n + 1/m), after Yurdakul and Naranjo (2020).

    chi2 after Wilson and Hilferty (1931), accurate to some percent. 0 for fewer than two bins.
    """
    free = bins - 1
    if free < 1:
        return 0.0
    z = NormalDist().inv_cdf(1 - ALPHA / columns)
    chi2 = free * (1 - 2 / (9 * free) + z * math.sqrt(2 / (9 * free))) ** 3
    return float(chi2 * (1 / old_rows + 1 / new_rows))
