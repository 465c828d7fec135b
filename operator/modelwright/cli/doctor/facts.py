"""What `doctor` has read of a cluster, and what its user may not see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Json = dict[str, Any]


class NotPermitted(Exception):
    """A check needs what the user may not read; the text says what that is."""


class ReadFailed(Exception):
    """A check needs what could not be read for another cause, such as a time-out; the text says which."""


@dataclass(frozen=True)
class Facts:
    """Objects as the API server gives them, by the name under which they were read: the plural of the kind, or, for
    those read by name in one namespace, `plural/namespace`.

    `unseen` holds the names that the user may not read. What is in neither is not in the cluster.
    """

    now: datetime
    client: str = ""
    """Version of this program; empty when it is not known."""
    namespace: str | None = None
    """The only one that was read; None: all."""
    objects: Mapping[str, Sequence[Json]] = field(default_factory=dict)
    not_permitted: Mapping[str, str] = field(default_factory=dict)
    failed_reads: Mapping[str, str] = field(default_factory=dict)
    """The names that could not be read for another cause, and which."""

    def list_all(self, name: str) -> Sequence[Json]:
        """Every object that was read under this name. Raises NotPermitted and NotRead."""
        if name in self.not_permitted:
            raise NotPermitted(self.not_permitted[name])
        if name in self.failed_reads:
            raise ReadFailed(f"{name}: {self.failed_reads[name]}")
        return self.objects.get(name, ())

    def find_one(self, name: str) -> Json | None:
        """A document of which there is one, such as a list of resources; None when there is none."""
        return next(iter(self.list_all(name)), None)

    def by_name(self, plural: str, namespace: str) -> dict[str, Json]:
        """Objects of one namespace that were read by their names. Raises NotPermitted."""
        return {obj["metadata"]["name"]: obj for obj in self.list_all(f"{plural}/{namespace}")}

    def in_namespace(self, name: str, namespace: str) -> Iterator[Json]:
        """Those of `all` in one namespace."""
        return (obj for obj in self.list_all(name) if obj["metadata"].get("namespace") == namespace)

    def readable_in_namespace(self, name: str, namespace: str) -> list[Json]:
        """The same, of what was read; what the user may not see is left out."""
        return [obj for obj in self.objects.get(name, ()) if obj["metadata"].get("namespace") == namespace]

    @property
    def namespaces(self) -> list[str]:
        """Those that have Models, versions or policies; the only one that was read in any case."""
        names = ("models", "modelversions", "retrainingpolicies")
        found = {obj["metadata"]["namespace"] for name in names for obj in self.objects.get(name, ())}
        return sorted(found | ({self.namespace} if self.namespace else set()))


def describe_object(obj: Mapping[str, Any]) -> str:
    """An object for people: kind namespace/name."""
    metadata = obj["metadata"]
    where = f"{metadata['namespace']}/" if metadata.get("namespace") else ""
    return f"{obj['kind']} {where}{metadata['name']}"
