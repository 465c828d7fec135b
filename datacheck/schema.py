"""What a dataset must be like: the form of ``dataCheck.schema`` of a RetrainingPolicy. Unknown keys are refused."""

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
    """The schema can't be used; the text names the field and what to do."""


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
    """One column, or all whose names fit a pattern with ``*``.

    ``max_null_share`` takes the place of ``nullable``. Outliers are values outside [Q1 - 1.5 IQR, Q3 + 1.5 IQR]
    (Tukey 1977); where half of the values are the same the rule says nothing.
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
        return self.type in NUMERIC_KINDS


class Duplicates(_SchemaPart):
    """How many rows may be there before, as a share of all; compared by ``keys``, or by all columns."""

    max_share: Share
    keys: tuple[str, ...] = ()


class Rows(_SchemaPart):
    """Bounds of the number of rows."""

    min: Count | None = None
    max: Count | None = None


class Freshness(_SchemaPart):
    """The newest time in a column must not be older than this."""

    column: str
    max_age: Duration


class Previous(_SchemaPart):
    """How far the data may be from the dataset before, by the profile that its check left."""

    max_rows_change: Annotated[Number, Field(ge=0)] | None = None
    max_psi: Positive | None = None
    max_mean_shift: Positive | None = None


class DatasetSchema(_SchemaPart):
    """All of it. ``strict``: no other columns than those that are declared."""

    columns: dict[str, Column] = Field(default_factory=dict, max_length=MAX_COLUMNS)
    strict: bool = False
    duplicates: Duplicates | None = None
    rows: Rows | None = None
    freshness: Freshness | None = None
    previous: Previous | None = None

    def find_key(self, name: str) -> str | None:
        """The key of ``columns`` that a column belongs to: its own name, else the first pattern that fits."""
        if name in self.columns:
            return name
        return next((key for key in self.columns if "*" in key and fnmatchcase(name, key)), None)


def parse_schema(raw: Mapping[str, Any]) -> DatasetSchema:
    """The schema that ``inputs.json`` holds. Raises SchemaError with each field that is wrong."""
    try:
        schema = DatasetSchema.model_validate(raw)
    except ValidationError as error:
        told = [f"schema.{'.'.join(map(str, each['loc']))}: {_describe_error(each)}" for each in error.errors()]
        raise SchemaError("; ".join(told)) from None
    if problems := list(_find_contradictions(schema)):
        raise SchemaError("; ".join(problems))
    return schema


def _describe_error(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "no such field; take it out, or see the how-to on training for those there are"
    return str(error["msg"]).removeprefix("Value error, ")


def _find_contradictions(schema: DatasetSchema) -> list[str]:
    found = []
    for key, column in schema.columns.items():
        bounded = any(each is not None for each in (column.min, column.max, column.max_outlier_share))
        if bounded and not column.is_numeric:
            found.append(f"schema.columns.{key}: min, max and maxOutlierShare need type float or int")
        if column.min is not None and column.max is not None and column.min > column.max:
            found.append(f"schema.columns.{key}: min is above max, so no value fits")
    low, high = (schema.rows.min, schema.rows.max) if schema.rows else (None, None)
    if low is not None and high is not None and low > high:
        found.append("schema.rows: min is above max, so no dataset fits")
    if schema.freshness:
        of = schema.find_key(schema.freshness.column)
        if of is None or schema.columns[of].type != "datetime":
            found.append(f"schema.freshness.column: declare {schema.freshness.column} in columns, with type datetime")
    return found
