"""What is kept of a dataset for the check of the next one, and how far two datasets are from each other.

Numbers are counted in bins between the deciles, anything else by its ten most frequent values. Columns under one
pattern are taken together, so that a wide table has a small profile.
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
"""How often data that has not moved may be called so, of all columns together."""


@dataclass(frozen=True)
class ComparedSizes:
    """Rows of the dataset before and of this one, and how many columns are compared."""

    before: int
    now: int
    columns: int


def build_profile(data: TypedTable) -> dict[str, Any]:
    """{"form", "rows", "columns": {key: ...}}, at most MOST_BYTES as JSON; ``omitted`` counts what had no room.

    Numbers: ``mean``, ``std``, ``edges`` (k deciles that differ) and ``shares`` (k + 1, of what is at most the first
    edge, ..., above the last). Other values: ``values`` with their shares, the rest under "".
    """
    found: dict[str, Any] = {"form": PROFILE_FORM, "rows": len(data.frame), "columns": {}}
    omitted = 0
    for key, names in data.entries.items():
        values = pd.concat([data.frame[name] for name in names], ignore_index=True).dropna() if names else pd.Series()
        if values.empty or data.schema.columns[key].type == "datetime":
            continue
        entry = (
            _profile_numbers(values.to_numpy(float)) if data.schema.columns[key].is_numeric else _profile_values(values)
        )
        found["columns"][key] = entry
        if len(json.dumps(found, separators=(",", ":")).encode()) > MAX_PROFILE_BYTES - 20:
            del found["columns"][key]
            omitted += 1
    return found | ({"omitted": omitted} if omitted else {})


def _profile_numbers(values: np.ndarray) -> dict[str, Any]:
    # Shares are counted between the edges as they are written, so rounding moves no value to another bin later.
    edges = sorted({_round_digits(each) for each in np.quantile(values, np.arange(1, 10) / 10)})
    shares = _count_bins(values, edges) / len(values)
    return {
        "mean": _round_digits(values.mean(), 6),
        "std": _round_digits(values.std(), 6),
        "edges": edges,
        "shares": [_round_digits(each) for each in shares],
    }


def _profile_values(values: pd.Series) -> dict[str, Any]:
    counted = values.map(str).value_counts(normalize=True)
    # Ties in the order of their names: same data, same profile.
    top = sorted(counted.items(), key=lambda each: (-each[1], each[0]))[:MAX_VALUES]
    named = {str(value)[:32]: _round_digits(share) for value, share in top}
    return {"values": named | {"": _round_digits(max(0.0, 1 - float(sum(share for _, share in top))))}}


def _count_bins(values: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    return np.bincount(np.searchsorted(np.asarray(edges), values, side="left"), minlength=len(edges) + 1)


def _round_digits(value: float, digits: int = 4) -> float:
    return float(f"{value:.{digits}g}")


def compare_with_previous(data: TypedTable, before: Mapping[str, Any] | None, limits: Previous) -> list[CheckResult]:
    """Checks against the profile of the dataset before; one that says it couldn't be, where there is none."""
    if before is None:
        return [CheckResult("previous", True, "no dataset was checked before this one")]
    rows, columns = before.get("rows"), before.get("columns")
    if before.get("form") != PROFILE_FORM or not isinstance(rows, int) or rows <= 0 or not isinstance(columns, dict):
        return [CheckResult("previous", True, "not compared: the profile of the dataset before is of another form")]
    found = []
    if limits.max_rows_change is not None:
        change = len(data.frame) / rows - 1
        told = f"{len(data.frame)} rows, {change:+.1%} against {rows} before"
        passed = abs(change) <= limits.max_rows_change
        found.append(
            CheckResult("previous-rows", passed, told + ("" if passed else f"; at most {limits.max_rows_change:.1%}"))
        )
    sizes = ComparedSizes(rows, len(data.frame), sum(isinstance(columns.get(key), dict) for key in data.entries))
    for key, names in data.entries.items():
        entry = columns.get(key)
        if not names or not isinstance(entry, dict):
            continue
        values = pd.concat([data.frame[name] for name in names], ignore_index=True).dropna()
        if not values.empty:
            found += _compare_column(key, entry, values, sizes, limits, data.schema.columns[key].is_numeric)
    return found or [CheckResult("previous", True, "not compared: no column is in the profile of the dataset before")]


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
        return [CheckResult(f"previous:{key}", True, "not compared: its profile is of another form")]
    found = []
    if limits.max_psi is not None:
        limit = max(limits.max_psi, critical_psi(len(old), sizes.before, sizes.now, sizes.columns))
        told = f"PSI {distance:.3f} of {sizes.now} rows against {sizes.before}"
        passed = distance <= limit
        found.append(CheckResult(f"psi:{key}", passed, told + ("" if passed else f"; at most {limit:.3f}")))
    if limits.max_mean_shift is not None and numeric:
        moved = float(numbers.mean()) - mean
        shift = abs(moved) / std if std > 0 else (0.0 if math.isclose(moved, 0, abs_tol=1e-9) else math.inf)
        told = f"the mean is {numbers.mean():.4g}, {shift:.2f} standard deviations from {mean:.4g}"
        passed = shift <= limits.max_mean_shift
        found.append(
            CheckResult(f"mean:{key}", passed, told + ("" if passed else f"; at most {limits.max_mean_shift:g}"))
        )
    return found


def compute_psi(old: np.ndarray, new: np.ndarray, old_rows: int, new_rows: int) -> float:
    """Population stability index sum((p - q) ln(p / q)) of two lists of shares over the same bins, each with half a row
    more in every bin, so that an empty one gives a finite number. Raises ValueError when they are of other lengths."""
    if len(old) != len(new):
        raise ValueError("shares of other bins")
    p, q = ((shares * rows + 0.5) / (rows + len(shares) / 2) for shares, rows in ((old, old_rows), (new, new_rows)))
    return float(np.sum((q - p) * np.log(q / p)))


def critical_psi(bins: int, old_rows: int, new_rows: int, columns: int = 1) -> float:
    """The PSI that pairs of samples of the same data exceed with probability ALPHA / ``columns`` (Bonferroni):
    chi2(1 - ALPHA / columns, bins - 1) (1/n + 1/m), after Yurdakul and Naranjo (2020).

    chi2 after Wilson and Hilferty (1931), to some percent. 0 for fewer than two bins.
    """
    free = bins - 1
    if free < 1:
        return 0.0
    z = NormalDist().inv_cdf(1 - ALPHA / columns)
    chi2 = free * (1 - 2 / (9 * free) + z * math.sqrt(2 / (9 * free))) ** 3
    return float(chi2 * (1 / old_rows + 1 / new_rows))
