"""What is imported and what comes of it: the types that a provider works with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelwright.cli.imports.fields import Fields, Json, Unreadable

_OF_THE_SERVER = (
    "creationTimestamp",
    "finalizers",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
)
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says. `gateway`: namespace/name of a Gateway for endpoints, with hostnames
    <name>.<domain>."""

    gateway: str = ""
    domain: str = ""

    def endpoint(self, name: str) -> Json | None:
        """spec.endpoint of a Model; None without a gateway."""
        if not self.gateway:
            return None
        namespace, _, gateway = self.gateway.rpartition("/")
        parent = {"name": gateway, **({"namespace": namespace} if namespace else {})}
        return {"parentRefs": [parent], **({"hostnames": [f"{name}.{self.domain}"]} if self.domain else {})}


@dataclass(frozen=True)
class Document:
    """One object of another project."""

    kind: str
    name: str
    namespace: str
    fields: Fields
    parts_of: dict[str, None] = field(default_factory=dict)
    """What it is a part of, where it becomes no object of its own."""

    @property
    def spec(self) -> Fields:
        """Its spec."""
        return self.fields.below("spec")

    def metadata(self, name: str) -> Json:
        """Metadata of an object that comes of it."""
        return {"name": name, **({"namespace": self.namespace} if self.namespace else {})}

    def say(self, text: str) -> None:
        """Something of the object as a whole."""
        self.fields.say(text)

    def advise(self, text: str) -> None:
        """What to do instead of its spec, whatever that holds: nothing reads it."""
        self.fields.ledger.note(("spec",), text, whole=True)


@dataclass(frozen=True, slots=True)
class Imported:
    """What an object becomes. `drafts`: what would be refused as it is. `notes` name what of it has no place, and what
    has to be done."""

    kind: str
    name: str
    objects: tuple[Json, ...]
    drafts: tuple[Json, ...]
    notes: tuple[str, ...]
    part: bool = False
    """Whether it became a part of others."""


@dataclass(frozen=True)
class Context:
    """Everything that is imported together."""

    documents: Sequence[Document]
    options: Options

    def find(self, kind: str, name: str, namespace: str | None = None) -> Document | None:
        """The object of this kind and name; in any namespace when none is given."""
        return next(
            (
                each
                for each in self.documents
                if each.kind == kind and each.name == name and namespace in (None, each.namespace)
            ),
            None,
        )


Convert = Callable[[Document, Context], Sequence[Json]]


@dataclass(frozen=True)
class Provider:
    """Another project. `kinds`: how objects of each kind become ours; `advice`: of kinds that become nothing, what to
    do instead; `parts`: of kinds that others take over, what to say where none does. `resources`: what is listed in
    a cluster, the main one first. `hints`: what to say of fields that nothing is made of."""

    name: str
    title: str
    groups: tuple[str, ...]
    resources: tuple[str, ...]
    kinds: Mapping[str, Convert]
    advice: Mapping[str, str]
    parts: Mapping[str, str]
    hints: Mapping[str, str]

    def owns(self, value: Any) -> bool:
        """Whether it is an object of this project."""
        if not isinstance(value, Mapping):
            return False
        group = str(value.get("apiVersion", "")).partition("/")[0]
        return group in self.groups and str(value.get("kind")) in {*self.kinds, *self.advice, *self.parts}


def document(value: Mapping[str, Any]) -> Document:
    """An object as a Document; Unreadable when it has no name."""
    try:
        json.dumps(value, default=str)
    except (ValueError, RecursionError) as error:
        raise Unreadable("is nested too deep, or holds itself by an alias") from error
    fields = Fields(value)
    for key in ("apiVersion", "kind", "status"):
        fields.take(key)
    metadata = fields.below("metadata")
    for key in _OF_THE_SERVER:
        metadata.take(key)
    if _APPLIED in metadata.below("annotations"):
        metadata.below("annotations").take(_APPLIED)
    name, namespace = metadata.text("name"), metadata.text("namespace")
    name = name or metadata.text("generateName").rstrip("-")
    if not name:
        raise Unreadable("metadata.name: is missing")
    return Document(str(value["kind"]), name, namespace, fields)


def flattened(values: Iterable[Any]) -> Iterable[Any]:
    """Objects, those in lists (`kind: List`, `RolloutList`) one by one."""
    for value in values:
        kind = value.get("kind") if isinstance(value, Mapping) else None
        items = value.get("items") if isinstance(value, Mapping) else None
        if isinstance(kind, str) and kind.endswith("List") and isinstance(items, list):
            yield from items
        else:
            yield value
