"""The CustomResourceDefinition of a kind, as it is applied to an API server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from pydantic import BaseModel

from modelwright.api.cel import VALIDATIONS, Cel
from modelwright.api.crd.structural_schema import (
    build_structural_schema,
    with_defaults_described,
    without_defaults,
    without_entry_defaults,
)
from modelwright.api.crd_info import CrdInfo
from modelwright.api.names import CATEGORY, GROUP, VERSION
from modelwright.api.v1alpha1 import (
    Approval,
    ClusterModelRuntime,
    Model,
    ModelRollout,
    ModelRuntime,
    ModelVersion,
    RetrainingPolicy,
    RolloutPolicy,
    TrainingRun,
)

MAX_CRD_BYTES = 100_000
"""Largest CRD in bytes: leaves room for the copy that client-side apply keeps in an annotation."""


class CustomResourceKind(Protocol):
    """Attributes that the CRD of a kind is built from; the classes of `api.v1alpha1` have them."""

    __name__: str
    __crd__: CrdInfo
    __cel__: tuple[Cel, ...]
    model_fields: dict[str, Any]


KINDS: Sequence[Any] = (
    Model,
    ModelVersion,
    RolloutPolicy,
    ModelRollout,
    RetrainingPolicy,
    TrainingRun,
    Approval,
    ModelRuntime,
    ClusterModelRuntime,
)
"""Every kind of the API, in the order in which the reference describes them."""


def crd_file_name(kind: Any) -> str:
    """Return the name of the file with the CRD of `kind`."""
    return f"{kind.__crd__.plural}.yaml"


def _member_schema(kind: Any, name: str) -> dict[str, Any] | None:
    field = kind.model_fields.get(name)
    if field is None:
        return None
    type_: type[BaseModel] = field.annotation
    return {**build_structural_schema(type_), "description": field.description}


def build_schema(kind: Any) -> dict[str, Any]:
    """Build the structural schema of `kind`: metadata, spec and, if the kind has one, status."""
    info: CrdInfo = kind.__crd__
    metadata: dict[str, Any] = {"type": "object"}
    if info.name_max is not None:
        metadata["properties"] = {"name": {"type": "string", "maxLength": info.name_max}}
    properties: dict[str, Any] = {
        "apiVersion": {"type": "string", "description": f"Always {GROUP}/{VERSION}.", "maxLength": 253},
        "kind": {"type": "string", "description": f"Always {kind.__name__}.", "maxLength": 63},
        "metadata": metadata,
    }
    for name in ("spec", "status"):
        member = _member_schema(kind, name)
        if member is not None:
            # A status has no defaults: an absent member is unknown, and a default would claim a value.
            complete = with_defaults_described(member) if name == "spec" else without_defaults(member)
            properties[name] = without_entry_defaults(complete)
    whole: dict[str, Any] = {
        "type": "object",
        "description": info.description,
        "required": ["spec"],
        "properties": properties,
    }
    if kind.__cel__:
        whole[VALIDATIONS] = [rule.to_rule() for rule in kind.__cel__]
    return whole


def build_crd(kind: Any) -> dict[str, Any]:
    """Build the CustomResourceDefinition of `kind`; NotStructural when its types have no form in one."""
    info: CrdInfo = kind.__crd__
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [column.to_printer_column() for column in info.columns],
        "schema": {"openAPIV3Schema": build_schema(kind)},
    }
    if info.selectable_fields:
        version["selectableFields"] = [{"jsonPath": path} for path in info.selectable_fields]
    if "status" in kind.model_fields:
        version["subresources"] = {"status": {}}
        if info.scale is not None:
            version["subresources"]["scale"] = info.scale.to_subresource()
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{info.plural}.{GROUP}",
            "labels": {"app.kubernetes.io/name": "modelwright", "app.kubernetes.io/component": "crds"},
        },
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.__name__,
                "listKind": f"{kind.__name__}List",
                "plural": info.plural,
                "singular": kind.__name__.lower(),
                "shortNames": [info.short_name],
                "categories": [CATEGORY],
            },
            "scope": "Namespaced" if info.namespaced else "Cluster",
            "versions": [version],
        },
    }
