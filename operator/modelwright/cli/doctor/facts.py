"""The objects that `doctor` has read from a cluster, and those that its user may not read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Json = dict[str, Any]


class NotPermitted(Exception):
    """A check needs objects that the user may not read; the text names them."""


class ReadFailed(Exception):
    """A check needs objects whose read failed, for example by a timeout; the text names them."""


@dataclass(frozen=True)
class Facts:
    """Objects of the API server by the name of their read: the plural of the kind or, for reads by name in one
    namespace, `plural/namespace`.

    `not_permitted` holds the reads that the user may not make. A name that is in none of the mappings does not
    exist in the cluster.
    """

    now: datetime
    client: str = ""
    """Version of this program; empty when unknown."""
    namespace: str | None = None
    """The only namespace that was read; None for all."""
    objects: Mapping[str, Sequence[Json]] = field(default_factory=dict)
    not_permitted: Mapping[str, str] = field(default_factory=dict)
    failed_reads: Mapping[str, str] = field(default_factory=dict)
    """Failed reads, with the error."""

    def list_all(self, name: str) -> Sequence[Json]:
        """Return all objects of a read. Raises NotPermitted and ReadFailed."""
        if name in self.not_permitted:
            raise NotPermitted(self.not_permitted[name])
        if name in self.failed_reads:
            raise ReadFailed(f"{name}: {self.failed_reads[name]}")
        return self.objects.get(name, ())

    def find_one(self, name: str) -> Json | None:
        """Return the only document of a read, such as a list of resources; None when it does not exist."""
        return next(iter(self.list_all(name)), None)

    def by_name(self, plural: str, namespace: str) -> dict[str, Json]:
        """Return objects of one namespace that were read by name. Raises NotPermitted."""
        return {obj["metadata"]["name"]: obj for obj in self.list_all(f"{plural}/{namespace}")}

    def in_namespace(self, name: str, namespace: str) -> Iterator[Json]:
        """Yield the objects of `list_all` in one namespace."""
        return (obj for obj in self.list_all(name) if obj["metadata"].get("namespace") == namespace)

    def readable_in_namespace(self, name: str, namespace: str) -> list[Json]:
        """Return the readable objects of one namespace, without raising NotPermitted."""
        return [obj for obj in self.objects.get(name, ()) if obj["metadata"].get("namespace") == namespace]

    @property
    def namespaces(self) -> list[str]:
        """Namespaces with Models, versions or policies, and the only one that was read."""
        names = ("models", "modelversions", "retrainingpolicies")
        used = {obj["metadata"]["namespace"] for name in names for obj in self.objects.get(name, ())}
        return sorted(used | ({self.namespace} if self.namespace else set()))


def describe_object(obj: Mapping[str, Any]) -> str:
    """Format an object as kind namespace/name."""
    metadata = obj["metadata"]
    where = f"{metadata['namespace']}/" if metadata.get("namespace") else ""
    return f"{obj['kind']} {where}{metadata['name']}"
