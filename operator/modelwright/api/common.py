"""Base classes and small types that all kinds of the API share, and the parser of their objects."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    Strict,
    StringConstraints,
    ValidationError,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from modelwright.api.cel import VALIDATIONS, Cel, Cut, IntOrString, Open, validation_error
from modelwright.api.names import API_VERSION

MAX_OPEN_MEMBERS = 1024
"""Largest number of members of an object of another API."""
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
HOSTNAME = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
QUALIFIED_NAME = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
QUANTITY = r"^(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE][+-]?[0-9]+))?$"
DURATION = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"
DECIMAL = r"^-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$"
RFC3339 = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$"


def pattern_rule(pattern: str, message: str) -> Cel:
    """Return a rule that the whole text matches `pattern` (in the common syntax of RE2 and Python), or `message`."""
    compiled = re.compile(pattern.removeprefix("^").removesuffix("$"))
    return Cel(f"self.matches(r'{pattern}')", message, lambda value: compiled.fullmatch(value) is not None)


class Wire(BaseModel):
    """A part of a spec: camelCase on the wire, snake_case in Python, frozen, unknown fields refused.

    `__cel__` holds rules about the whole object; they are checked here and written into the CRD.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )
    __cel__: ClassVar[tuple[Cel, ...]] = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[BaseModel], handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        for rule in cls.__cel__:
            if rule.check is not None:
                schema = core_schema.no_info_after_validator_function(rule.validate_value, schema)
        return schema

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        json_schema = handler(schema)
        if cls.__cel__:
            handler.resolve_ref_schema(json_schema)[VALIDATIONS] = [rule.to_rule() for rule in cls.__cel__]
        return json_schema

    def wire(self) -> dict[str, Any]:
        """Return this object in JSON form: camelCase keys, no absent members, defaults written out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class OpenWire(Wire):
    """A part of a spec that keeps the fields it does not know, because another API defines them."""

    model_config = ConfigDict(extra="allow")


class StatusWire(Wire):
    """A part of a status. A newer operator may have written it: unknown members are dropped, never refused.

    `Resource.parse` also drops the members of a status that are not understood.
    """

    model_config = ConfigDict(extra="ignore")


def _format_time(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _truncate_to_seconds(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise validation_error("a time needs a time zone")
    return value if value.microsecond == 0 else value.replace(microsecond=0)


class _WholeSeconds:
    """Times have whole seconds, as Kubernetes writes them, so that what is written equals what is read."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(_truncate_to_seconds, handler(source))


Timestamp = Annotated[datetime, _WholeSeconds(), PlainSerializer(_format_time, return_type=str)]
"""A point in time, UTC, in whole seconds; RFC 3339 on the wire."""

Bool = Annotated[bool, Strict()]
Int = Annotated[int, Strict()]
Text63 = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=63)]
Text253 = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=253)]
Text1024 = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=1024)]
Text4096 = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=4096)]
Label = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=63, pattern=DNS_LABEL)]
"""A DNS label (RFC 1123)."""
Subdomain = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=253, pattern=DNS_SUBDOMAIN)]
"""A DNS subdomain (RFC 1123), as most object names are."""
Hostname = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=253, pattern=HOSTNAME)]
LabelValue = Annotated[str, StringConstraints(strict=True, max_length=63, pattern=LABEL_VALUE)]
OpenObject = Annotated[dict[str, Any], Field(max_length=MAX_OPEN_MEMBERS), Open()]
"""An object that another API defines; see `cel.Open`. No schema can bound its total size:
docs/adr/0026-what-one-object-may-take.md."""
Decimal = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=32),
    pattern_rule(DECIMAL, 'must be a decimal number written as text, such as "0.981"'),
]
Quantity = Annotated[
    int | str,
    IntOrString(QUANTITY, 32, 'must be a quantity that is not negative, such as 2, "500m" or "1Gi"'),
]
"""A Kubernetes quantity that is not negative: 2, "500m", "1Gi"."""
Port = Annotated[int, Strict(), Field(ge=1, le=65535)]

StatusText = Annotated[str, Cut(4096)]
"""A long text of a status."""
ShortStatusText = Annotated[str, Cut(253)]
"""A name or short value of a status."""
StatusInt = Annotated[int, Field(ge=0, le=2**31 - 1)]

MAX_AUTHORS = 16
"""Largest number of authors named for one object."""
_CHANGED_BY_DESCRIPTION = (
    "Who is responsible for the current content, as the API server knows them. Admission demands the writer's own name "
    "whenever this or {content} changes, unless the writer has the verb `attribute` on the object. Needed only where a "
    "RolloutPolicy requires approval: without it the author is unknown, and no approval counts."
)


def changed_by_field(content: str) -> Any:
    """Build spec.changedBy of a kind; `content` names the fields that it covers."""
    return Field(default=None, description=_CHANGED_BY_DESCRIPTION.format(content=content))


MAX_POLICY_BYTES = 128 << 10
"""Largest spec of a policy in bytes of compact JSON: each rollout and each run keeps a copy."""

INT64_MAX = 2**53
"""Bound of 64-bit integers: the largest that every JSON reader keeps exactly."""

_UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION_PART = re.compile(r"([0-9]+)(ms|h|m|s)")


def parse_duration(duration: str) -> float:
    """Return the seconds of a duration such as "10m" or "1h30m"; ValueError when it is none."""
    if not re.fullmatch(DURATION.removeprefix("^").removesuffix("$"), duration):
        raise ValueError(f'"{duration}" is not a duration such as 10m or 1h30m (units h, m, s, ms)')
    return sum(int(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(duration))


class LocalObjectReference(Wire):
    """A reference to an object in the same namespace, by name."""

    name: Subdomain = Field(description="Name of the object, in the same namespace.")


class OwnerReference(BaseModel):
    """The members of metadata.ownerReferences that the operator uses."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)
    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class ObjectMeta(BaseModel):
    """The members of metadata that the operator uses. The API server has checked them; they are not checked again."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)
    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    owner_references: tuple[OwnerReference, ...] = ()


TOO_LARGE_KEY = "tooLarge"
"""Member that says why an object was not read whole, beside metadata and status."""


class InvalidObject(ValueError):
    """An object that its type refuses; the text names the object, each field and its problem."""

    def __init__(self, name: str, problems: tuple[tuple[str, str], ...]) -> None:
        self.name = name
        self.problems = problems
        super().__init__(f"{name}: {self.message}")

    @property
    def message(self) -> str:
        """The fields and their problems, without the object's name."""
        return "; ".join(f"{path}: {text}" if path else text for path, text in self.problems)


def _format_path(location: tuple[int | str, ...], below: str) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location) + below
    return text.removeprefix(".")


def list_problems(error: ValidationError) -> tuple[tuple[str, str], ...]:
    """Return (JSON path, problem) of each error that pydantic found."""
    entries = []
    for entry in error.errors(include_url=False):
        context = entry.get("ctx") or {}
        entries.append((_format_path(entry["loc"], str(context.get("field_path", ""))), entry["msg"]))
    return tuple(entries)


def _drop_bad_status(obj: Mapping[str, Any], error: ValidationError) -> Mapping[str, Any]:
    """Return `obj` without the members of its status that `error` is about."""
    status = obj.get("status")
    if not isinstance(status, Mapping):
        return obj
    places = [entry["loc"] for entry in error.errors(include_url=False, include_input=False, include_context=False)]
    bad = {place[1] for place in places if len(place) > 1 and place[0] == "status"}
    return {**obj, "status": {key: value for key, value in status.items() if key not in bad}}


def _size_problem(obj: Mapping[str, Any], spec_bytes: int | None) -> tuple[str, str] | None:
    """Return (path, problem) of an object that is too large to be read."""
    if TOO_LARGE_KEY in obj:
        return "", str(obj[TOO_LARGE_KEY])
    if spec_bytes is None:
        return None
    size = len(json.dumps(obj.get("spec"), ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass"))
    if size <= spec_bytes:
        return None
    return "spec", f"it has {size:,} bytes as JSON, and may have {spec_bytes:,}: each rollout or run keeps a copy of it"


def _format_object_name(kind: str, obj: Mapping[str, Any]) -> str:
    metadata = obj.get("metadata") or {}
    return f"{kind} {metadata.get('namespace', '')}/{metadata.get('name', '')}".replace(" /", " ")


class Resource(Wire):
    """An object of the API with metadata; each kind adds its spec and status."""

    model_config = ConfigDict(extra="ignore")
    __spec_bytes__: ClassVar[int | None] = None
    """Largest spec in bytes of compact JSON; None where only etcd's limit bounds it."""
    api_version: str = API_VERSION
    kind: str = ""
    metadata: ObjectMeta

    @classmethod
    def parse(cls, obj: Mapping[str, Any]) -> Self:
        """Parse an object as the API server gives it; InvalidObject when its spec is refused.

        Members of the status that cannot be parsed are left out: a newer operator may have written them.
        """
        if (why := _size_problem(obj, cls.__spec_bytes__)) is not None:
            raise InvalidObject(_format_object_name(cls.__name__, obj), (why,))
        try:
            return cls.model_validate(obj, by_alias=True, by_name=False)
        except ValidationError as error:
            understood = _drop_bad_status(obj, error)
        try:
            return cls.model_validate(understood, by_alias=True, by_name=False)
        except ValidationError as error:
            raise InvalidObject(_format_object_name(cls.__name__, obj), list_problems(error)) from error

    @property
    def name(self) -> str:
        """metadata.name"""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """metadata.namespace, empty for a kind of the cluster."""
        return self.metadata.namespace

    @property
    def uid(self) -> str:
        """metadata.uid"""
        return self.metadata.uid

    @property
    def generation(self) -> int:
        """metadata.generation"""
        return self.metadata.generation
