"""What is imported and what comes of it: the types that a provider works with."""

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
    """What the command line says. `gateway`: namespace/name of a Gateway for endpoints, with hostnames
    <name>.<domain>."""

    gateway: str = ""
    domain: str = ""

    def build_endpoint(self, name: str) -> Json | None:
        """spec.endpoint of a Model; None without a gateway."""
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
    """What it is a part of, where it becomes no object of its own."""

    @property
    def spec(self) -> Fields:
        """Its spec."""
        return self.fields.child("spec")

    def build_metadata(self, name: str) -> Json:
        """Metadata of an object that comes of it."""
        return {"name": name, **({"namespace": self.namespace} if self.namespace else {})}

    def note_object(self, text: str) -> None:
        """Something of the object as a whole."""
        self.fields.note_all(text)

    def add_advice(self, text: str) -> None:
        """What to do instead of its spec, whatever that holds: nothing reads it."""
        self.fields.ledger.add_note(("spec",), text, whole=True)


@dataclass(frozen=True, slots=True)
class ImportedObject:
    """What an object becomes. `drafts`: what would be refused as it is. `notes` name what of it has no place, and what
    has to be done."""

    kind: str
    name: str
    objects: tuple[Json, ...]
    drafts: tuple[Json, ...]
    notes: tuple[str, ...]
    is_part: bool = False
    """Whether it became a part of others."""


@dataclass(frozen=True)
class ImportContext:
    """Everything that is imported together."""

    objects: Sequence[ForeignObject]
    options: ImportOptions

    def find_object(self, kind: str, name: str, namespace: str | None = None) -> ForeignObject | None:
        """The object of this kind and name; in any namespace when none is given."""
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
    """Another project. `kinds`: how objects of each kind become ours; `advice`: of kinds that become nothing, what to
    do instead; `parts`: of kinds that others take over, what to say where none does. `resources`: what is listed in
    a cluster, the main one first. `hints`: what to say of fields that nothing is made of."""

    name: str
    title: str
    groups: tuple[str, ...]
    resources: tuple[str, ...]
    kinds: Mapping[str, ConvertObject]
    advice: Mapping[str, str]
    parts: Mapping[str, str]
    hints: Mapping[str, str]

    def owns(self, value: Any) -> bool:
        """Whether it is an object of this project."""
        if not isinstance(value, Mapping):
            return False
        group = str(value.get("apiVersion", "")).partition("/")[0]
        return group in self.groups and str(value.get("kind")) in {*self.kinds, *self.advice, *self.parts}


def read_foreign_object(value: Mapping[str, Any]) -> ForeignObject:
    """An object as a Document; Unreadable when it has no name."""
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
    """Objects, those in lists (`kind: List`, `RolloutList`) one by one."""
    for value in values:
        kind = value.get("kind") if isinstance(value, Mapping) else None
        items = value.get("items") if isinstance(value, Mapping) else None
        if isinstance(kind, str) and kind.endswith("List") and isinstance(items, list):
            yield from items
        else:
            yield value
