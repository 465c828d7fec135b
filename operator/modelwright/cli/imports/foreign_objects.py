"""Objects to import and their results: the types that a provider works with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelwright.cli.imports.fields import Fields, Json, UnreadableField

_SERVER_FIELDS = (
    "creationTimestamp",
    "finalizers",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
)
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Options of the command line. `gateway`: namespace/name of a Gateway for endpoints, with hostnames
    <name>.<domain>."""

    gateway: str = ""
    domain: str = ""

    def build_endpoint(self, name: str) -> Json | None:
        """Build spec.endpoint of a Model; None without a gateway."""
        if not self.gateway:
            return None
        namespace, _, gateway = self.gateway.rpartition("/")
        parent = {"name": gateway, **({"namespace": namespace} if namespace else {})}
        return {"parentRefs": [parent], **({"hostnames": [f"{name}.{self.domain}"]} if self.domain else {})}


@dataclass(frozen=True)
class ForeignObject:
    """One object of another project."""

    kind: str
    name: str
    namespace: str
    fields: Fields
    part_of: dict[str, None] = field(default_factory=dict)
    """The objects it became a part of, when it does not become one itself."""

    @property
    def spec(self) -> Fields:
        """The object's spec."""
        return self.fields.child("spec")

    def build_metadata(self, name: str) -> Json:
        """Build the metadata of a converted object."""
        return {"name": name, **({"namespace": self.namespace} if self.namespace else {})}

    def note_object(self, text: str) -> None:
        """Add a note about the object as a whole."""
        self.fields.note_all(text)

    def add_advice(self, text: str) -> None:
        """Add advice in place of the spec, which is not read."""
        self.fields.ledger.add_note(("spec",), text, whole=True)


@dataclass(frozen=True, slots=True)
class ImportedObject:
    """The conversion of one object.

    `drafts`: converted objects that would be refused. `notes`: fields without an equivalent, and the remaining
    work.
    """

    kind: str
    name: str
    objects: tuple[Json, ...]
    drafts: tuple[Json, ...]
    notes: tuple[str, ...]
    is_part: bool = False
    """Whether it became a part of other objects."""


@dataclass(frozen=True)
class ImportContext:
    """All objects of one import."""

    objects: Sequence[ForeignObject]
    options: ImportOptions

    def find_object(self, kind: str, name: str, namespace: str | None = None) -> ForeignObject | None:
        """Find the object of a kind and name; in any namespace by default."""
        return next(
            (
                each
                for each in self.objects
                if each.kind == kind and each.name == name and namespace in (None, each.namespace)
            ),
            None,
        )


ConvertObject = Callable[[ForeignObject, ImportContext], Sequence[Json]]


@dataclass(frozen=True)
class Provider:
    """Another project.

    `kinds`: converters by kind. `advice`: alternatives for kinds that are not converted. `parts`: messages for
    kinds that only other objects use, when none does. `resources`: resources to list in a cluster, the main one
    first. `hints`: explanations of fields without an equivalent.
    """

    name: str
    title: str
    groups: tuple[str, ...]
    resources: tuple[str, ...]
    kinds: Mapping[str, ConvertObject]
    advice: Mapping[str, str]
    parts: Mapping[str, str]
    hints: Mapping[str, str]

    def owns(self, value: Any) -> bool:
        """Return whether a value is an object of this project."""
        if not isinstance(value, Mapping):
            return False
        group = str(value.get("apiVersion", "")).partition("/")[0]
        return group in self.groups and str(value.get("kind")) in {*self.kinds, *self.advice, *self.parts}


def read_foreign_object(value: Mapping[str, Any]) -> ForeignObject:
    """Read an object. Raises UnreadableField when it has no name."""
    try:
        json.dumps(value, default=str)
    except (ValueError, RecursionError) as error:
        raise UnreadableField("is nested too deep, or holds itself by an alias") from error
    fields = Fields(value)
    for key in ("apiVersion", "kind", "status"):
        fields.take(key)
    metadata = fields.child("metadata")
    for key in _SERVER_FIELDS:
        metadata.take(key)
    if _LAST_APPLIED in metadata.child("annotations"):
        metadata.child("annotations").take(_LAST_APPLIED)
    name, namespace = metadata.text("name"), metadata.text("namespace")
    name = name or metadata.text("generateName").rstrip("-")
    if not name:
        raise UnreadableField("metadata.name: is missing")
    return ForeignObject(str(value["kind"]), name, namespace, fields)


def flatten_lists(values: Iterable[Any]) -> Iterable[Any]:
    """Yield objects, and the items of lists (`kind: List`, `RolloutList`)."""
    for value in values:
        kind = value.get("kind") if isinstance(value, Mapping) else None
        items = value.get("items") if isinstance(value, Mapping) else None
        if isinstance(kind, str) and kind.endswith("List") and isinstance(items, list):
            yield from items
        else:
            yield value
