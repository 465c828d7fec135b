"""From the JSON Schema of pydantic to the structural schema of a CustomResourceDefinition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from modelwright.api.cel import INT_OR_STRING, LIST_MAP_KEYS, LIST_TYPE, NAMED_OBJECT, PRESERVE, VALIDATIONS
from modelwright.api.common import MAX_OPEN_MEMBERS

Schema = dict[str, Any]

SHARED_KEYWORDS = (
    "description",
    "enum",
    "default",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
)
"""Keywords that JSON Schema and the structural schema share."""
_KEPT_KEYWORDS = (
    "type",
    "format",
    *SHARED_KEYWORDS,
    LIST_TYPE,
    LIST_MAP_KEYS,
    PRESERVE,
    INT_OR_STRING,
    VALIDATIONS,
)
_DROPPED_KEYWORDS = (
    "title",
    "$defs",
    "properties",
    "additionalProperties",
    "items",
    "const",
    "anyOf",
    "$ref",
    NAMED_OBJECT,
)
_INT32_MAX = 2**31 - 1


class NotStructural(ValueError):
    """A type that has no form in a CRD, or lacks a required keyword; the text names the node."""


def build_structural_schema(model: type[BaseModel]) -> Schema:
    """Build the structural schema of `model`: references inlined, no null, and every node complete.

    Raises NotStructural for a recursive type, a union, a tuple of fixed length, and for a node without type,
    description or bound.
    """
    source = model.model_json_schema(by_alias=True, mode="validation")
    schema = _to_structural(source, source.get("$defs", {}), (), model.__name__)
    _require_complete(schema, model.__name__)
    whole: Schema = _drop_empty_properties(schema)
    return whole


def _drop_empty_properties(node: Any) -> Any:
    """Return `node` without empty `properties`: the API server drops them, and `kubectl apply` would see a change."""
    if isinstance(node, list):
        return [_drop_empty_properties(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    return {key: _drop_empty_properties(value) for key, value in node.items() if key != "properties" or value != {}}


def _to_structural(
    node: Mapping[str, Any], definitions: Mapping[str, Any], open_refs: tuple[str, ...], path: str
) -> Schema:
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[-1]
        if name in open_refs:
            raise NotStructural(f"{path}: {name} refers to itself, which no CRD can express")
        target = dict(definitions[name])
        rules = [*target.get(VALIDATIONS, []), *node.get(VALIDATIONS, [])]
        # Keywords of the field override those of its type.
        target.update({key: value for key, value in node.items() if key != "$ref"})
        if rules:
            target[VALIDATIONS] = rules
        return _to_structural(target, definitions, (*open_refs, name), path)
    if "anyOf" in node:
        return _to_structural(_without_null(node, path), definitions, open_refs, path)
    unknown = [key for key in node if key not in _KEPT_KEYWORDS and key not in _DROPPED_KEYWORDS]
    if unknown:
        raise NotStructural(f"{path}: {', '.join(unknown)} has no form in a CRD")
    schema = {key: node[key] for key in _KEPT_KEYWORDS if key in node}
    if "const" in node:
        schema["enum"] = [node["const"]]
    if schema.get("type") == "integer" and "maximum" in schema:
        schema["format"] = "int32" if schema["maximum"] <= _INT32_MAX else "int64"
    if "properties" in node:
        schema["properties"] = {
            name: _to_structural(child, definitions, open_refs, f"{path}.{name}")
            for name, child in node["properties"].items()
        }
    if node.get("additionalProperties") is True:
        schema |= {PRESERVE: True, "maxProperties": MAX_OPEN_MEMBERS}
    elif isinstance(node.get("additionalProperties"), Mapping):
        schema["additionalProperties"] = _to_structural(
            node["additionalProperties"], definitions, open_refs, f"{path}.*"
        )
    if "items" in node:
        schema["items"] = _to_structural(node["items"], definitions, open_refs, f"{path}[]")
    if "default" in schema:
        _set_default(schema)
    return schema


def _set_default(schema: Schema) -> None:
    """Drop a default that has no effect: empty lists and maps are the same as absent ones."""
    default = schema["default"]
    if isinstance(default, Mapping) and "properties" in schema:
        # The members have defaults of their own, which the API server fills in.
        schema["default"] = {}
    elif default is None or default in ([], {}):
        del schema["default"]


def _without_null(node: Mapping[str, Any], path: str) -> Schema:
    """Return `X or null` as X: an optional member of a CRD is left out, never null."""
    members = [member for member in node["anyOf"] if member.get("type") != "null"]
    if len(members) != 1:
        raise NotStructural(f"{path}: a union has no form in a CRD; use members and a rule 'exactly one of'")
    return {**members[0], **{key: value for key, value in node.items() if key != "anyOf"}}


def _require_complete(node: Schema, path: str, *, described: bool = True) -> None:
    """Refuse a node without type, bound or description; `described` is False for entries of lists and maps."""
    if node.get(INT_OR_STRING):
        return
    kind = node.get("type")
    if kind is None:
        raise NotStructural(f"{path}: has no type")
    if described and not node.get("description"):
        raise NotStructural(f"{path}: has no description")
    if kind == "string" and not {"maxLength", "enum"} & node.keys() and node.get("format") != "date-time":
        raise NotStructural(f"{path}: a string needs maxLength or enum")
    if kind == "integer" and not {"minimum", "maximum"} <= node.keys():
        raise NotStructural(f"{path}: an integer needs minimum and maximum")
    if kind == "number":
        raise NotStructural(f"{path}: floating-point numbers are not round-tripped the same by all clients; use text")
    if kind == "array":
        if "maxItems" not in node or LIST_TYPE not in node:
            raise NotStructural(f"{path}: a list needs maxItems and {LIST_TYPE}")
        _require_complete(node["items"], f"{path}[]", described=False)
    if kind == "object":
        if "additionalProperties" in node:
            if "properties" in node:
                raise NotStructural(f"{path}: properties and additionalProperties exclude each other in a CRD")
            if "maxProperties" not in node:
                raise NotStructural(f"{path}: a map needs maxProperties")
            _require_complete(node["additionalProperties"], f"{path}.*", described=False)
        elif "properties" not in node and not node.get(PRESERVE):
            raise NotStructural(f"{path}: an object needs properties, or {PRESERVE}")
        for name, child in node.get("properties", {}).items():
            _require_complete(child, f"{path}.{name}")


def with_defaults_described(node: Schema) -> Schema:
    """Return `node` with the default of each field added to its description, for `kubectl explain`."""
    described = dict(node)
    default = described.get("default", ...)
    if isinstance(default, str | int) and "description" in described:
        text = str(default).lower() if isinstance(default, bool) else str(default)
        described["description"] = f"{described['description']} Default: {text or 'empty'}."
    if "properties" in described:
        members = described["properties"].items()
        described["properties"] = {name: with_defaults_described(child) for name, child in members}
    for key in ("items", "additionalProperties"):
        if isinstance(described.get(key), dict):
            described[key] = with_defaults_described(described[key])
    return described


def without_defaults(node: Schema) -> Schema:
    """Return `node` without any default."""
    bare = {key: value for key, value in node.items() if key != "default"}
    if "properties" in bare:
        bare["properties"] = {name: without_defaults(child) for name, child in bare["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(bare.get(key), dict):
            bare[key] = without_defaults(bare[key])
    return bare


def without_entry_defaults(node: Schema) -> Schema:
    """Return `node` without defaults inside lists and maps.

    kubectl apply and Argo CD compare lists of custom resources as a whole: a default that the API server filled in
    there would be a permanent difference. The types apply these defaults, and the descriptions name them.
    """
    bare = dict(node)
    if "properties" in bare:
        bare["properties"] = {name: without_entry_defaults(child) for name, child in bare["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(bare.get(key), dict):
            bare[key] = without_defaults(bare[key])
    return bare
