"""Lineage of a version: its artifact, data, code and parents, and the requests and pods it serves."""

from __future__ import annotations

from typing import Any

from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.cli.model_view import ModelView
from modelwright.cli.status_tree import TreeNode, tree_lines
from modelwright.net.addresses import redact_uri

Json = dict[str, Any]


def render_lineage(view: ModelView, version: str) -> str:
    """Render a version as a tree: artifact, data and code, its parents, and what it serves. Raises ObjectNotFound."""
    return "\n".join(tree_lines(_lineage_tree(view, view.get_version(version), frozenset())))


def lineage_data(view: ModelView, version: str) -> Json:
    """Return the lineage as JSON data; ancestors are listed nearest first, `weight` is the percentage of requests."""
    target = view.get_version(version)
    ancestors, visited = [], {version}
    parent = _parent_name(target)
    while parent and parent not in visited:
        visited.add(parent)
        ancestors.append(parent)
        parent = next((_parent_name(v) for v in view.versions if v.name == parent), None)
    return {
        "model": view.model.name,
        "version": version,
        "digest": artifact_digest(target),
        "artifact": redact_uri(target.spec.artifact.uri),
        **({"part": selection} if (selection := artifact_selection(target)) else {}),
        "lineage": _redact_lineage(target),
        "ancestors": ancestors,
        "weight": sum(share.weight for share in view.model.status.traffic if share.version == version),
        "pods": [pod.name for pod in view.pods if pod.version == version],
    }


def _redact_lineage(version: ModelVersion) -> Json:
    """Return spec.lineage without the signature that a URI may carry."""
    lineage = version.spec.lineage.wire() if version.spec.lineage is not None else {}
    if data := lineage.get("dataset"):
        lineage["dataset"] = {**data, "uri": redact_uri(data["uri"])}
    return lineage


def _lineage_tree(view: ModelView, version: ModelVersion, visited: frozenset[str]) -> TreeNode:
    children = [
        TreeNode(f"artifact {redact_uri(version.spec.artifact.uri)}"),
        *([TreeNode(f"selected {selection}")] if (selection := artifact_selection(version)) else []),
        TreeNode(f"digest {artifact_digest(version) or 'not known yet'}"),
    ]
    lineage = version.spec.lineage
    if lineage is None:
        children.append(TreeNode("origin unknown: there is no spec.lineage"))
    else:
        if lineage.dataset is not None:
            children.append(TreeNode(f"data {redact_uri(lineage.dataset.uri)} {lineage.dataset.digest or ''}".rstrip()))
        if lineage.code is not None:
            children.append(TreeNode(f"code {lineage.code.repository} at {lineage.code.commit}"))
        children += [TreeNode(f"image {lineage.image}")] if lineage.image else []
        children += [TreeNode(f"TrainingRun {lineage.training_run}")] if lineage.training_run else []
    children += [TreeNode(f"{name} = {value}") for name, value in sorted(version.spec.parameters.items())]
    share = sum(share.weight for share in view.model.status.traffic if share.version == version.name)
    pods = [TreeNode(f"pod {pod.name}") for pod in view.pods if pod.version == version.name]
    if share or pods:
        children.append(TreeNode(f"serves {share} % of the requests of Model {view.model.name}", pods))
    parent = _parent_name(version)
    if parent is not None:
        older = next((v for v in view.versions if v.name == parent), None)
        if older is None or parent in visited:
            children.append(TreeNode(f"from version {parent}" + (" (no longer there)" if older is None else "")))
        else:
            from_parent = _lineage_tree(view, older, visited | {version.name})
            children.append(TreeNode(f"from {from_parent.text}", from_parent.children))
    return TreeNode(f"version {version.name}", children)


def _parent_name(version: ModelVersion) -> str | None:
    return version.spec.lineage.parent if version.spec.lineage is not None else None


def artifact_digest(version: ModelVersion) -> str | None:
    resolved = version.status.artifact.digest if version.status.artifact is not None else None
    return version.spec.artifact.digest or resolved


def artifact_selection(version: ModelVersion) -> str:
    """Describe which files of the artifact are used; empty for all. The digest may still cover the whole artifact."""
    artifact = version.spec.artifact
    parts = [f"path {artifact.path}"] if artifact.path else []
    parts += [f"include {', '.join(artifact.include)}"] if artifact.include else []
    return "; ".join([*parts, *([f"exclude {', '.join(artifact.exclude)}"] if artifact.exclude else [])])
