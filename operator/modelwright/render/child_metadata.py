"""Renders the names, labels and owner references of all children."""

from typing import Any

from modelwright.api import names
from modelwright.core.revision import Revision

Json = dict[str, Any]


def serving_labels(model: str, revision: Revision) -> dict[str, str]:
    """Return the labels of a revision's children and pods."""
    return names.child_labels(role=names.ROLE_SERVING, model=model, version=revision.version, revision=revision.hash)


def owner_reference(owner: Json) -> Json:
    """Return a controller reference: the child is deleted with its owner, and never blocks the owner's deletion."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }


def child_metadata(model: Json, revision: Revision | None, name: str) -> Json:
    """Return the metadata of a child of `model`, of one revision or (None) of the whole Model. The Model's own labels,
    such as the tracking labels of GitOps tools, are never copied."""
    metadata = model["metadata"]
    common = {"name": name, "namespace": metadata["namespace"], "ownerReferences": [owner_reference(model)]}
    if revision is None:
        return {**common, "labels": names.model_labels(metadata["name"])}
    return {
        **common,
        "labels": serving_labels(metadata["name"], revision),
        "annotations": {names.ANNOTATION_VERSION_NAME: revision.version},
    }
