"""Checks of a table against its schema: single values by pandera, shares and the whole table here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa

from datacheck.dataset import Table, join_names
from datacheck.schema import Column, DatasetSchema, Duplicates, Freshness

MAX_CLOCK_SKEW = timedelta(minutes=5)
"""Most time that the newest row may lie ahead of this machine's clock."""
_BOOLEAN_TEXTS = {"true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True)
class CheckResult:
    """Result of one check. ``name`` is its kind and, after a colon, the column or pattern."""

    name: str
    passed: bool
    message: str = ""

    def to_json(self, length: int) -> dict[str, str]:
        """Return the training contract's form, with at most ``length`` characters of the message."""
        message = self.message if len(self.message) <= length else f"{self.message[: length - 1]}…"
        outcome = "Pass" if self.passed else "Fail"
        return {"name": self.name[:128], "outcome": outcome} | ({"message": message} if message else {})


@dataclass(frozen=True)
class TypedTable:
    """A table with the declared types of its columns: a value of another type is null.

    ``entries``: the schema's keys with the columns that each stands for.
    """

    table: Table
    schema: DatasetSchema
    frame: pd.DataFrame
    entries: Mapping[str, tuple[str, ...]]


def convert_values(values: pd.Series, kind: str | None, *, text: bool) -> pd.Series:
    """Convert values to a type; others become null. ``text``: they are read from text, so that "3" is also a number.

    Numbers must be finite, an int whole; times without a zone are UTC.
    """
    if kind is None:
        return values
    if kind == "datetime":
        return pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601")
    if kind == "string":
        return values.where(values.map(lambda value: isinstance(value, str)))
    if kind == "bool":
        if text:
            return values.map(lambda value: _BOOLEAN_TEXTS.get(str(value).lower()), na_action="ignore").astype(object)
        return values.where(values.map(lambda value: isinstance(value, bool | np.bool_))).astype(object)
    if not text:
        # In typed data, neither True nor "3" is a number.
        values = values.where(values.map(lambda value: not isinstance(value, bool | np.bool_ | str | bytes)))
    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    numbers = numbers.where(np.isfinite(numbers))
    return numbers.where(numbers % 1 == 0) if kind == "int" else numbers


def apply_types(table: Table, schema: DatasetSchema) -> TypedTable:
    """Convert the table to the declared types, and map each key of the schema to its columns."""
    entries: dict[str, list[str]] = {key: [] for key in schema.columns}
    for name in table.frame.columns:
        if (key := schema.find_key(name)) is not None:
            entries[key].append(name)
    columns = {
        name: convert_values(table.frame[name], schema.columns[key].type, text=table.text)
        for key, names in entries.items()
        for name in names
    }
    frame = pd.DataFrame({name: columns.get(name, table.frame[name]) for name in table.frame.columns})
    return TypedTable(table, schema, frame, {key: tuple(names) for key, names in entries.items()})


def run_checks(data: TypedTable, now: datetime) -> list[CheckResult]:
    """Run every check of the schema, in its order; ``now`` has a time zone."""
    checks = [*_check_columns(data), *_check_values(data)]
    for key, names in data.entries.items():
        column = data.schema.columns[key]
        if column.max_null_share is not None and names:
            checks.append(_check_share(data, f"nulls:{key}", names, _null_share, column.max_null_share, "empty"))
        if column.max_outlier_share is not None and names:
            checks.append(
                _check_share(data, f"outliers:{key}", names, outlier_share, column.max_outlier_share, "outliers")
            )
    return [*checks, *_check_table(data, now)]


def outlier_share(values: pd.Series) -> float:
    """Return the share of values outside [Q1 - 1.5 IQR, Q3 + 1.5 IQR] (Tukey 1977), quartiles by linear interpolation.

    0 if IQR is 0, since the rule would then call all but one value outliers.
    """
    known = values.dropna()
    if known.empty:
        return 0.0
    low, high = known.quantile([0.25, 0.75])
    spread = high - low
    return float(((known < low - 1.5 * spread) | (known > high + 1.5 * spread)).mean()) if spread > 0 else 0.0


def _null_share(values: pd.Series) -> float:
    return float(values.isna().mean())


def _check_columns(data: TypedTable) -> Iterable[CheckResult]:
    missing = [key for key, names in data.entries.items() if not names and data.schema.columns[key].required]
    yield CheckResult("columns", not missing, f"missing: {join_names(missing, 5)}" if missing else "")
    if data.schema.strict:
        others = [name for name in data.frame.columns if data.schema.find_key(name) is None]
        yield CheckResult("strict", not others, f"not declared: {join_names(others, 5)}" if others else "")


def _check_values(data: TypedTable) -> list[CheckResult]:
    """Check single values. Only one check reports each value: a value of the wrong type is not also empty."""
    problems: dict[str, str] = {}
    raw: dict[str, pa.Column] = {}
    proper: dict[str, pa.Column] = {}
    for key, names in data.entries.items():
        column = data.schema.columns[key]
        text = f"{column.type}" if column.type else ""
        kinds = {
            "type": text and f"not {'an int' if text == 'int' else f'a {text}'}",
            "nulls": "" if column.nullable or column.max_null_share is not None else "empty",
            "range": _describe_range(column),
            "allowed": "" if column.allowed is None else f"none of the {len(column.allowed)} allowed",
            "unique": "there more than once" if column.unique else "",
        }
        problems |= {f"{kind}:{key}": problem for kind, problem in kinds.items() if problem and names}
        for name in names:
            checks = [_type_check(column.type, data.table.text)] if column.type else []
            raw[name] = pa.Column(nullable=not kinds["nulls"], checks=checks)
            proper[name] = pa.Column(nullable=True, checks=list(_limit_checks(column)))
    cases = defaultdict(list)
    for schema, frame in ((raw, data.table.frame), (proper, data.frame)):
        for case in _list_failure_cases(pa.DataFrameSchema(schema), frame).to_dict("records"):
            kind = "nulls" if case["check"] == "not_nullable" else case["check"]
            cases[f"{kind}:{data.schema.find_key(case['column'])}"].append(case)
    return [
        CheckResult(name, name not in cases, _describe_failures(data, name, problem, cases[name]))
        for name, problem in problems.items()
    ]


def _type_check(kind: str, text: bool) -> pa.Check:
    return pa.Check(lambda values: convert_values(values, kind, text=text).notna(), error="type")


def _limit_checks(column: Column) -> Iterable[pa.Check]:
    if column.min is not None or column.max is not None:
        low, high = (-np.inf if column.min is None else column.min), (np.inf if column.max is None else column.max)
        yield pa.Check.in_range(low, high, error="range")
    if column.allowed is not None:
        allowed: list[Any] = list(column.allowed)
        if column.type is None:
            # Without a type, a value may be text.
            allowed += [str(value) for value in allowed]
        elif column.type == "datetime":
            allowed = list(pd.to_datetime(pd.Series([str(value) for value in allowed]), utc=True, format="ISO8601"))
        yield pa.Check.isin(allowed, error="allowed")
    if column.unique:
        # pandera's own `unique` treats empty values as equal.
        yield pa.Check(lambda values: ~values.duplicated(keep=False), error="unique")


def _describe_range(column: Column) -> str:
    if column.min is not None and column.max is not None:
        return f"outside {column.min:g} to {column.max:g}"
    if column.min is not None:
        return f"below {column.min:g}"
    return f"above {column.max:g}" if column.max is not None else ""


def _list_failure_cases(schema: pa.DataFrameSchema, frame: pd.DataFrame) -> pd.DataFrame:
    """Return pandera's failure cases: column, check, failure_case and index of each invalid value."""
    try:
        schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        return error.failure_cases
    return pd.DataFrame(columns=["column", "check", "failure_case", "index"])


def _describe_failures(data: TypedTable, name: str, problem: str, cases: list[Mapping[str, Any]]) -> str:
    if not cases:
        return ""
    columns = defaultdict(list)
    for case in cases:
        columns[case["column"]].append(case)
    worst = sorted(columns.items(), key=lambda item: -len(item[1]))
    examples = []
    for column, column_cases in worst[:3]:
        first = min(column_cases, key=lambda case: case["index"])
        value = "" if problem == "empty" else f" is {str(first['failure_case'])[:40]!r}"
        place = data.table.describe_row(int(first["index"]))
        examples.append(f"{column}{value} in {place}" + (f" ({len(column_cases)} such)" if len(columns) > 1 else ""))
    total = len(data.frame) * len(data.entries[name.partition(":")[2]])
    more = f"; and {len(worst) - 3} more columns" if len(worst) > 3 else ""
    return f"{len(cases)} of {total} values are {problem}: {'; '.join(examples)}{more}"


def _check_share(
    data: TypedTable,
    name: str,
    columns: tuple[str, ...],
    share: Callable[[pd.Series], float],
    limit: float,
    problem: str,
) -> CheckResult:
    frame = data.table.frame if problem == "empty" else data.frame
    shares = sorted(((share(frame[column]), column) for column in columns), reverse=True)
    over = [item for item in shares if item[0] > limit]
    examples = ", ".join(f"{column} {value:.2%}" for value, column in over[:3])
    more = f" and {len(over) - 3} more columns" if len(over) > 3 else ""
    message = (
        f"more than {limit:.2%} of the values are {problem}: {examples}{more}"
        if over
        else f"at most {shares[0][0]:.2%}"
    )
    return CheckResult(name, not over, message)


def _check_table(data: TypedTable, now: datetime) -> Iterable[CheckResult]:
    schema, rows = data.schema, len(data.frame)
    if schema.rows is not None:
        low, high = schema.rows.min, schema.rows.max
        passed = (low is None or rows >= low) and (high is None or rows <= high)
        limits = [f"at least {low}" if low is not None else "", f"at most {high}" if high is not None else ""]
        limit_text = " and ".join(filter(None, limits))
        yield CheckResult("rows", passed, f"{rows} rows" + ("" if passed else f", but must be {limit_text}"))
    if schema.duplicates is not None:
        yield _check_duplicates(data.table, schema.duplicates)
    if schema.freshness is not None:
        yield _check_freshness(data, schema.freshness, now)


def _check_freshness(data: TypedTable, limit: Freshness, now: datetime) -> CheckResult:
    name = f"freshness:{limit.column}"
    newest = data.frame[limit.column].max() if limit.column in data.frame else pd.NaT
    if pd.isna(newest):
        return CheckResult(name, False, f"there is no time in {limit.column}")
    age = now - newest.to_pydatetime()
    message = f"the newest row is of {newest:%Y-%m-%dT%H:%M:%SZ}"
    if age < -MAX_CLOCK_SKEW:
        return CheckResult(name, False, f"{message}, which is in the future")
    passed = age <= limit.max_age
    return CheckResult(
        name,
        passed,
        message + ("" if passed else f", {_format_hours(age)} ago; at most {_format_hours(limit.max_age)}"),
    )


def _check_duplicates(table: Table, limit: Duplicates) -> CheckResult:
    if missing := [key for key in limit.keys if key not in table.frame]:
        return CheckResult("duplicates", False, f"can't be checked: there is no column {join_names(missing, 5)}")
    repeated = table.frame.duplicated(list(limit.keys) or None)
    share = float(repeated.mean())
    message = f"{int(repeated.sum())} of {len(repeated)} rows ({share:.2%}) were there before"
    if share <= limit.max_share:
        return CheckResult("duplicates", True, message)
    first = table.describe_row(int(np.flatnonzero(repeated)[0]))
    return CheckResult("duplicates", False, f"{message}, but at most {limit.max_share:.2%} may; the first is {first}")


def _format_hours(time: timedelta) -> str:
    return f"{time.total_seconds() / 3600:.1f} h"
