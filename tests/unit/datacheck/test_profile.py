"""Comparison with the previous dataset: real changes are reported, those that small samples merely suggest are not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

from datacheck.checks import CheckResult, apply_types
from datacheck.dataset import Table
from datacheck.profile import MAX_PROFILE_BYTES, build_profile, compare_with_previous, compute_psi, critical_psi
from datacheck.result import TERMINATION_BYTES, format_result
from datacheck.schema import DatasetSchema, parse_schema

SCHEMA = parse_schema(
    {
        "columns": {"pixel*": {"type": "float"}, "age": {"type": "float"}, "city": {"type": "string"}},
        "previous": {"maxRowsChange": "0.5", "maxPsi": "0.2", "maxMeanShift": "3"},
    }
)


def frame(rows: int = 1000, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {f"pixel{i}": random.integers(0, 17, rows).astype(float) for i in range(8)}
    return pd.DataFrame(
        columns | {"age": random.normal(40, 5, rows), "city": random.choice(["a", "b"], rows, p=[0.8, 0.2])}
    )


def failed(old: dict[str, Any] | None, new: pd.DataFrame, schema: DatasetSchema = SCHEMA) -> list[str]:
    limits = schema.previous
    assert limits is not None
    checks = compare_with_previous(apply_types(Table(new, False, (("a", 0),)), schema), old, limits)
    assert checks
    return [check.name for check in checks if not check.passed]


def profiled(data: pd.DataFrame, schema: DatasetSchema = SCHEMA) -> dict[str, Any]:
    # As it comes back from status.
    result: dict[str, Any] = json.loads(json.dumps(build_profile(apply_types(Table(data, False, (("a", 0),)), schema))))
    return result


BEFORE = profiled(frame())


@pytest.mark.parametrize(
    ("new", "names"),
    [
        (frame(seed=1), []),
        (frame(1400, seed=1), []),
        (frame(1600, seed=1), ["previous-rows"]),
        (frame(400, seed=1), ["previous-rows"]),
        (frame(seed=1).assign(age=frame(seed=1)["age"] + 4), ["psi:age"]),
        (frame(seed=1).assign(age=frame(seed=1)["age"] + 20), ["psi:age", "mean:age"]),
        (frame(seed=1).assign(city="b"), ["psi:city"]),
        (frame(seed=1).assign(city="elsewhere"), ["psi:city"]),
        (frame(seed=1).assign(**{f"pixel{i}": 16.0 for i in range(8)}), ["psi:pixel*"]),
    ],
)
def test_changed_column_fails_its_own_check(new: pd.DataFrame, names: list[str]) -> None:
    assert failed(BEFORE, new) == names


@pytest.mark.parametrize("before", [None, {}, {"form": 2}, {"form": 1, "rows": 10, "columns": {}}, {"rows": "x"}])
def test_unknown_profile_fails_no_check_and_is_reported(before: dict[str, Any] | None) -> None:
    schema = parse_schema({"columns": {"age": {"type": "float"}}, "previous": {"maxPsi": "0.2"}})
    assert schema.previous is not None
    (check,) = compare_with_previous(
        apply_types(Table(frame()[["age"]], False, (("a", 0),)), schema), before, schema.previous
    )
    assert check.passed
    assert "not compared" in check.message or "there is no previous dataset" in check.message


def test_a_column_with_an_entry_of_another_form_is_not_compared() -> None:
    before = {"form": 1, "rows": 1000, "columns": {"age": {"values": {"a": 1.0}}, "city": {"mean": 3}}}
    assert failed(before, frame()) == []


@pytest.mark.parametrize("rows", [50, 100, 500, 2000])
def test_samples_of_the_same_data_are_rarely_called_different(rows: int) -> None:
    alarms = 0
    for seed in range(60):
        old, new = frame(2000, 2 * seed)[["age"]], frame(rows, 2 * seed + 1)[["age"]]
        schema = parse_schema({"columns": {"age": {"type": "float"}}, "previous": {"maxPsi": "0.1"}})
        alarms += bool(failed(profiled(old, schema), new, schema))
    assert alarms <= 6


def test_psi_is_the_sum_over_bins_with_half_a_row_more_in_each() -> None:
    old, new = np.asarray([0.5, 0.5]), np.asarray([1.0, 0.0])
    p, q = 50.5 / 101, np.asarray([100.5 / 101, 0.5 / 101])
    assert compute_psi(old, new, 100, 100) == pytest.approx(sum((each - p) * np.log(each / p) for each in q))


@pytest.mark.parametrize("bins", [2, 3, 5, 10, 20])
def test_the_critical_value_is_that_of_chi_squared(bins: int) -> None:
    for columns in (1, 64):
        exact = chi2.ppf(1 - 0.05 / columns, bins - 1) * (1 / 5000 + 1 / 100)
        assert critical_psi(bins, 5000, 100, columns) == pytest.approx(exact, rel=0.05)


def test_profile_is_bounded_and_counts_omitted_columns() -> None:
    wide = pd.DataFrame({f"c{i}": np.arange(100.0) + i for i in range(100)})
    schema = parse_schema({"columns": {f"c{i}": {"type": "float"} for i in range(100)}})
    result = profiled(wide, schema)
    assert len(json.dumps(result, separators=(",", ":"))) <= MAX_PROFILE_BYTES
    assert len(result["columns"]) + result["omitted"] == 100
    assert result["columns"]


def checks(failing: int, passing: int, length: int = 300) -> list[CheckResult]:
    return [CheckResult(f"range:pässt{i}", True, "ok" * 20) for i in range(passing)] + [
        CheckResult(f"range:column{i}", False, "ü" * length) for i in range(failing)
    ]


@pytest.mark.parametrize(("failing", "passing"), [(0, 1), (0, 100), (3, 100), (20, 20), (100, 0)])
def test_a_result_fits_with_failures_first(failing: int, passing: int) -> None:
    text = format_result(checks(failing, passing), BEFORE)
    assert len(text.encode()) <= TERMINATION_BYTES
    report = json.loads(text)
    outcomes = [check["outcome"] for check in report["checks"]]
    assert outcomes == sorted(outcomes), "Fail stands before Pass"
    assert ("profile" in report) is (failing == 0)
    message = outcomes.count("Fail")
    assert message == failing or report["checks"][-1]["message"].startswith(
        f"{failing - message + 1} more checks failed"
    )


def test_a_result_needs_a_check() -> None:
    with pytest.raises(ValueError, match="at least one check"):
        format_result([], None)
