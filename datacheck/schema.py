"""Requirements on a dataset: the form of ``dataCheck.schema`` of a RetrainingPolicy. Unknown keys are rejected."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AllowInfNan, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

Kind = Literal["float", "int", "string", "bool", "datetime"]
NUMERIC_KINDS = ("float", "int")
MAX_COLUMNS = 100

_UNIT_SECONDS = {"h": 3600, "m": 60, "s": 1}


class SchemaError(ValueError):
    """The schema is invalid; the text names the field and the cure."""


def _parse_duration(value: object) -> timedelta:
    text = str(value)
    if not re.fullmatch(r"([0-9]+[hms])+", text):
        raise ValueError(f"{text!r} is no duration such as 48h, 30m or 1h30m")
    return timedelta(seconds=sum(int(n) * _UNIT_SECONDS[unit] for n, unit in re.findall(r"([0-9]+)([hms])", text)))


def _check_share(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError("a share is between 0 and 1")
    return value


Number = Annotated[float, AllowInfNan(False)]
Share = Annotated[Number, AfterValidator(_check_share)]
Positive = Annotated[Number, Field(gt=0)]
Duration = Annotated[timedelta, BeforeValidator(_parse_duration)]
Count = Annotated[int, Field(ge=0)]


class _SchemaPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


class Column(_SchemaPart):
    """One column, or all with a name that matches a pattern with ``*``.

    ``max_null_share`` replaces ``nullable``. Outliers are values outside [Q1 - 1.5 IQR, Q3 + 1.5 IQR] (Tukey 1977); the
    rule finds none if half of the values are equal.
    """

    type: Kind | None = None
    required: bool = True
    nullable: bool = False
    max_null_share: Share | None = None
    min: Number | None = None
    max: Number | None = None
    allowed: tuple[str | int | float | bool, ...] | None = Field(default=None, min_length=1, max_length=1000)
    unique: bool = False
    max_outlier_share: Share | None = None

    @property
    def is_numeric(self) -> bool:
        """Whether the values are numbers."""
        return self.type in NUMERIC_KINDS


class Duplicates(_SchemaPart):
    """Most rows that may repeat an earlier row, as a share of all; compared by ``keys``, or by all columns."""

    max_share: Share
    keys: tuple[str, ...] = ()


class Rows(_SchemaPart):
    """Bounds of the number of rows."""

    min: Count | None = None
    max: Count | None = None


class Freshness(_SchemaPart):
    """Maximum age of the newest time in a column."""

    column: str
    max_age: Duration


class Previous(_SchemaPart):
    """Most difference from the previous dataset, by the profile that its check left."""

    max_rows_change: Annotated[Number, Field(ge=0)] | None = None
    max_psi: Positive | None = None
    max_mean_shift: Positive | None = None


class DatasetSchema(_SchemaPart):
    """The whole schema. ``strict``: only declared columns are permitted."""

    columns: dict[str, Column] = Field(default_factory=dict, max_length=MAX_COLUMNS)
    strict: bool = False
    duplicates: Duplicates | None = None
    rows: Rows | None = None
    freshness: Freshness | None = None
    previous: Previous | None = None

    def find_key(self, name: str) -> str | None:
        """Return the key of ``columns`` for a column: its own name, else the first matching pattern."""
        if name in self.columns:
            return name
        return next((key for key in self.columns if "*" in key and fnmatchcase(name, key)), None)


def parse_schema(raw: Mapping[str, Any]) -> DatasetSchema:
    """Parse the schema in ``inputs.json``. Raises SchemaError with each invalid field."""
    try:
        schema = DatasetSchema.model_validate(raw)
    except ValidationError as error:
        messages = [
            f"schema.{'.'.join(map(str, error_entry['loc']))}: {_describe_error(error_entry)}"
            for error_entry in error.errors()
        ]
        raise SchemaError("; ".join(messages)) from None
    if problems := list(_find_contradictions(schema)):
        raise SchemaError("; ".join(problems))
    return schema


def _describe_error(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "no such field; remove it, or see the how-to on training for the available ones"
    return str(error["msg"]).removeprefix("Value error, ")


def _find_contradictions(schema: DatasetSchema) -> list[str]:
    problems = []
    for key, column in schema.columns.items():
        bounded = any(bound is not None for bound in (column.min, column.max, column.max_outlier_share))
        if bounded and not column.is_numeric:
            problems.append(f"schema.columns.{key}: min, max and maxOutlierShare need type float or int")
        if column.min is not None and column.max is not None and column.min > column.max:
            problems.append(f"schema.columns.{key}: min is above max, so no value fits")
    low, high = (schema.rows.min, schema.rows.max) if schema.rows else (None, None)
    if low is not None and high is not None and low > high:
        problems.append("schema.rows: min is above max, so no dataset fits")
    if schema.freshness:
        time_key = schema.find_key(schema.freshness.column)
        if time_key is None or schema.columns[time_key].type != "datetime":
            problems.append(
                f"schema.freshness.column: declare {schema.freshness.column} in columns, with type datetime"
            )
    return problems
