"""Markers that define a rule once, for pydantic and for the CRD: CEL rules, list types, open objects, cut texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

VALIDATIONS = "x-kubernetes-validations"
LIST_TYPE = "x-kubernetes-list-type"
LIST_MAP_KEYS = "x-kubernetes-list-map-keys"
PRESERVE = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING = "x-kubernetes-int-or-string"
NAMED_OBJECT = "x-modelwright-names"
"""Keyword that marks a field in a type's schema; no CRD has it."""


def validation_error(message: str, field_path: str = "") -> PydanticCustomError:
    """Return a pydantic error with only `message` as text; `field_path` (".metadata.name") is relative to the value."""
    # Braces in the message would be read as placeholders.
    return PydanticCustomError("rule", "{text}", {"text": message, "field_path": field_path})


@dataclass(frozen=True)
class Cel:
    """A CEL rule of the CRD and the same rule in Python.

    `check` gets the parsed value and returns whether it is valid; a rule that needs `oldSelf` has none.
    """

    rule: str
    message: str
    check: Callable[[Any], bool] | None = None
    field_path: str = ""

    def validate_value(self, value: Any) -> Any:
        """Return `value`, or raise the pydantic error of this rule."""
        if self.check is not None and not self.check(value):
            raise validation_error(self.message, self.field_path)
        return value

    def to_rule(self) -> dict[str, str]:
        """Return the rule as an entry of x-kubernetes-validations."""
        entry = {"rule": self.rule, "message": self.message}
        if self.field_path:
            entry["fieldPath"] = self.field_path
        return entry

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        if self.check is None:
            return core_schema.no_info_after_validator_function(_pass_through, schema)
        return core_schema.no_info_after_validator_function(self.validate_value, schema)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        json_schema = dict(handler(schema))
        json_schema[VALIDATIONS] = [*json_schema.get(VALIDATIONS, []), self.to_rule()]
        return json_schema


def _pass_through(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class ListType:
    """List type for merges and comparisons in the API server; `set` and `map` refuse duplicates, also in Python."""

    kind: Literal["atomic", "set", "map"]
    keys: tuple[str, ...] = ()

    def refuse_duplicates(self, value: Sequence[Any]) -> Sequence[Any]:
        """Return `value`, or raise the pydantic error for its first duplicate."""
        if self.kind == "atomic" or len(value) < 2:
            return value
        seen: set[Any] = set()
        for index, item in enumerate(value):
            # These keys have the same spelling in JSON and in Python, because each is one word.
            key = tuple(getattr(item, name) for name in self.keys) if self.keys else item
            if key in seen:
                raise validation_error("duplicate entry", f"[{index}]")
            seen.add(key)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.refuse_duplicates, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        json_schema = dict(handler(schema))
        json_schema[LIST_TYPE] = self.kind
        if self.keys:
            json_schema[LIST_MAP_KEYS] = list(self.keys)
        return json_schema


@dataclass(frozen=True)
class Open:
    """An object whose fields the API server stores unchecked; it checks them when the rendered objects are applied."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        json_schema = {key: value for key, value in handler(schema).items() if key != "additionalProperties"}
        json_schema[PRESERVE] = True
        return json_schema


@dataclass(frozen=True)
class NamedObject:
    """The object that a field names or contains; admission checks its author's right to it (`rights_policies.py`).

    `kind`: a ServiceAccount, Secret or Claim (PersistentVolumeClaim) by name; an open PodTemplate (its `spec` is
    a pod's), PodSpec, Container, list of Volumes, or Manifest of another kind; Nothing, where the name of a
    field suggests more, with `why`. `pvc`: only addresses pvc://<claim>/... name a claim. `beside`: fields that
    decide where a Secret is sent, in the same object or, with "../", in the one above.
    """

    kind: Literal[
        "ServiceAccount", "Secret", "Claim", "PodTemplate", "PodSpec", "Container", "Volumes", "Manifest", "Nothing"
    ]
    pvc: bool = False
    beside: tuple[str, ...] = ()
    why: str = ""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), NAMED_OBJECT: asdict(self)}


@dataclass(frozen=True)
class Cut:
    """A text of a status, cut to `limit` characters: a long message must never make a status write fail."""

    limit: int

    def cut_text(self, value: str) -> str:
        """Return `value`, or its start with an ellipsis."""
        return value if len(value) <= self.limit else value[: self.limit - 1] + "…"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.cut_text, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "maxLength": self.limit}


@dataclass(frozen=True)
class IntOrString:
    """A value that is an integer of at least 0 or a text that matches `pattern`, as Kubernetes quantities are."""

    pattern: str
    max_length: int
    message: str

    def parse_value(self, value: Any) -> int | str:
        """Return `value`, or raise the pydantic error of this type."""
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        if isinstance(value, str) and len(value) <= self.max_length and re.search(self.pattern + r"\Z", value):
            return value
        raise validation_error(self.message)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.parse_value)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {INT_OR_STRING: True, "minimum": 0, "pattern": self.pattern, "maxLength": self.max_length}
