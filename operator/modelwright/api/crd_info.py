"""Metadata of a kind's CustomResourceDefinition: names, columns and subresources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`; `wide` ones are shown with -o wide only."""

    name: str
    path: str
    description: str
    type: Literal["string", "integer", "boolean", "date"] = "string"
    wide: bool = False

    def to_printer_column(self) -> dict[str, str | int]:
        """Return the column as an entry of additionalPrinterColumns."""
        entry: dict[str, str | int] = {
            "name": self.name,
            "type": self.type,
            "jsonPath": self.path,
            "description": self.description,
        }
        if self.wide:
            entry["priority"] = 1
        return entry


READY_COLUMN = Column(
    "Ready", '.status.conditions[?(@.type=="Ready")].status', "Whether the actual state matches the spec."
)
REASON_COLUMN = Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', "Why it is ready or not.", wide=True)
AGE_COLUMN = Column("Age", ".metadata.creationTimestamp", "Time since it was created.", type="date")


@dataclass(frozen=True)
class Scale:
    """Fields of the /scale subresource, which `kubectl scale` and autoscalers use for any kind."""

    spec_replicas: str
    status_replicas: str
    selector: str

    def to_subresource(self) -> dict[str, str]:
        """Return the entry of a CRD's subresources."""
        return {
            "specReplicasPath": self.spec_replicas,
            "statusReplicasPath": self.status_replicas,
            "labelSelectorPath": self.selector,
        }


@dataclass(frozen=True)
class CrdInfo:
    """Names and views of one kind."""

    plural: str
    short_name: str
    description: str
    columns: tuple[Column, ...]
    namespaced: bool = True
    selectable_fields: tuple[str, ...] = ()
    name_max: int | None = None
    """Longest metadata.name, when shorter than the API server's own 253."""
    scale: Scale | None = None
