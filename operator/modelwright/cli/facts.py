"""Where a version comes from and where it serves (`lineage`), what differs between two (`diff`), and its model card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import yaml

from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.cli.model_view import ModelView
from modelwright.cli.status_tree import TreeNode, format_authors, format_table, tree_lines
from modelwright.core import versions
from modelwright.net.addresses import redact_uri

Json = dict[str, Any]


def render_lineage(seen: ModelView, version: str) -> str:
    """A version back to data and code, through its parents, and forward to where it serves. Raises NotThere."""
    return "\n".join(tree_lines(_lineage_tree(seen, seen.get_version(version), frozenset())))


def lineage_data(seen: ModelView, version: str) -> Json:
    """The same as data: the version, its own lineage, its ancestors nearest first, its share of the requests, and its
    pods."""
    found = seen.get_version(version)
    ancestors, known = [], {version}
    parent = _parent_name(found)
    while parent and parent not in known:
        known.add(parent)
        ancestors.append(parent)
        parent = next((_parent_name(v) for v in seen.versions if v.name == parent), None)
    return {
        "model": seen.model.name,
        "version": version,
        "digest": _artifact_digest(found),
        "artifact": redact_uri(found.spec.artifact.uri),
        **({"part": part} if (part := _artifact_selection(found)) else {}),
        "lineage": _redact_lineage(found),
        "ancestors": ancestors,
        "weight": sum(share.weight for share in seen.model.status.traffic if share.version == version),
        "pods": [pod.name for pod in seen.pods if pod.version == version],
    }


def render_diff(seen: ModelView, old: str, new: str) -> str:
    """What differs between two versions of a Model; metrics of the same name and dataset with their difference.
    Raises NotThere."""
    rows = [("FIELD", old, new, ""), *_list_differences(seen.get_version(old), seen.get_version(new))]
    return format_table(rows) if len(rows) > 1 else f"{old} and {new} differ in nothing but their names."


def _redact_lineage(version: ModelVersion) -> Json:
    """spec.lineage, without what may be a signature."""
    told = version.spec.lineage.wire() if version.spec.lineage is not None else {}
    if data := told.get("dataset"):
        told["dataset"] = {**data, "uri": redact_uri(data["uri"])}
    return told


def diff_data(seen: ModelView, old: str, new: str) -> Json:
    """The same as data. Raises NotThere."""
    found = _list_differences(seen.get_version(old), seen.get_version(new))
    rows = [dict(zip(("field", "old", "new", "change"), row, strict=True)) for row in found]
    return {
        "old": old,
        "new": new,
        "differences": [{k: v for k, v in row.items() if k != "change" or v} for row in rows],
    }


def render_card(seen: ModelView, version: str) -> str:
    """A model card in Markdown, with the front matter of Hugging Face, from facts only: what is not known is left out.
    Raises NotThere."""
    found = seen.get_version(version)
    spec, words = found.spec, found.spec.card
    front: Json = {"library_name": spec.artifact.format.name, "tags": ["modelwright"]}
    if words is not None and words.license:
        front["license"] = words.license.lower()
    if spec.metrics:
        results = [
            {
                "dataset": {"name": metric.dataset, "type": metric.dataset},
                "metrics": [{"name": metric.name, "type": metric.name, "value": float(Decimal(metric.value))}],
                "task": {"type": "other"},
            }
            for metric in spec.metrics
        ]
        front["model-index"] = [{"name": f"{seen.model.name} {found.name}", "results": results}]
    parts = [
        "---\n" + yaml.safe_dump(front, sort_keys=False, allow_unicode=True) + "---",
        f"# {seen.model.name}: {found.name}",
    ]
    if words is not None:
        for title, text in (
            ("", words.summary),
            ("Intended use", words.intended_use),
            ("Limitations", words.limitations),
        ):
            parts += [f"## {title}\n\n{text}" if title else text] if text else []
    parts += [f"## {title}\n\n{body}" for title, body in _card_sections(seen, found) if body]
    return "\n\n".join(parts) + "\n"


def _lineage_tree(seen: ModelView, version: ModelVersion, known: frozenset[str]) -> TreeNode:
    below = [
        TreeNode(f"artifact {redact_uri(version.spec.artifact.uri)}"),
        *([TreeNode(f"of it {part}")] if (part := _artifact_selection(version)) else []),
        TreeNode(f"digest {_artifact_digest(version) or 'not known yet'}"),
    ]
    told = version.spec.lineage
    if told is None:
        below.append(TreeNode("spec.lineage says nothing of where it comes from"))
    else:
        if told.dataset is not None:
            below.append(TreeNode(f"data {redact_uri(told.dataset.uri)} {told.dataset.digest or ''}".rstrip()))
        if told.code is not None:
            below.append(TreeNode(f"code {told.code.repository} at {told.code.commit}"))
        below += [TreeNode(f"image {told.image}")] if told.image else []
        below += [TreeNode(f"TrainingRun {told.training_run}")] if told.training_run else []
    below += [TreeNode(f"{name} = {value}") for name, value in sorted(version.spec.parameters.items())]
    share = sum(share.weight for share in seen.model.status.traffic if share.version == version.name)
    pods = [TreeNode(f"pod {pod.name}") for pod in seen.pods if pod.version == version.name]
    if share or pods:
        below.append(TreeNode(f"serves {share} % of the requests of Model {seen.model.name}", pods))
    parent = _parent_name(version)
    if parent is not None:
        older = next((v for v in seen.versions if v.name == parent), None)
        if older is None or parent in known:
            below.append(TreeNode(f"from version {parent}" + (" (no longer there)" if older is None else "")))
        else:
            from_parent = _lineage_tree(seen, older, known | {version.name})
            below.append(TreeNode(f"from {from_parent.text}", from_parent.children))
    return TreeNode(f"version {version.name}", below)


def _parent_name(version: ModelVersion) -> str | None:
    return version.spec.lineage.parent if version.spec.lineage is not None else None


def _artifact_digest(version: ModelVersion) -> str | None:
    resolved = version.status.artifact.digest if version.status.artifact is not None else None
    return version.spec.artifact.digest or resolved


def _artifact_selection(version: ModelVersion) -> str:
    """Which files of the artifact are meant, '' for all: its digest may be that of the whole."""
    artifact = version.spec.artifact
    parts = [f"path {artifact.path}"] if artifact.path else []
    parts += [f"include {', '.join(artifact.include)}"] if artifact.include else []
    return "; ".join([*parts, *([f"exclude {', '.join(artifact.exclude)}"] if artifact.exclude else [])])


def _list_differences(old: ModelVersion, new: ModelVersion) -> Iterator[tuple[str, str, str, str]]:
    before, after = _flatten_spec(old), _flatten_spec(new)
    for field in sorted(before.keys() | after.keys()):
        was, is_ = before.get(field, ""), after.get(field, "")
        if was != is_:
            yield field, was, is_, _metric_change(was, is_) if field.startswith("metrics") else ""


def _flatten_spec(version: ModelVersion) -> dict[str, str]:
    spec = version.spec.wire()
    found = {f"metrics[{m['name']}] on {m['dataset']}": str(m["value"]) for m in spec.pop("metrics", ())}
    spec.pop("samples", None)
    spec.setdefault("artifact", {})["digest"] = _artifact_digest(version) or ""

    def walk(value: Any, path: str) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(inner, f"{path}.{key}" if path else str(key))
        else:
            found[path] = str(value)

    walk(spec, "")
    return found


def _metric_change(was: str, is_: str) -> str:
    try:
        return f"{Decimal(is_) - Decimal(was):+}"
    except InvalidOperation:
        return ""


def _card_sections(seen: ModelView, version: ModelVersion) -> Iterator[tuple[str, str]]:
    spec, told = version.spec, version.spec.lineage
    metrics = [("metric", "value", "dataset"), *((m.name, str(m.value), m.dataset) for m in spec.metrics)]
    yield "Evaluation", _markdown_table(metrics) if spec.metrics else ""
    parameters = [("parameter", "value"), *sorted(spec.parameters.items())]
    training = []
    if told is not None:
        training += (
            [f"- Data: `{redact_uri(told.dataset.uri)}` `{told.dataset.digest or ''}`"]
            if told.dataset is not None
            else []
        )
        training += [f"- Code: {told.code.repository} at `{told.code.commit}`"] if told.code is not None else []
        training += [f"- Image: `{told.image}`"] if told.image else []
        training += [f"- TrainingRun: {told.training_run}"] if told.training_run else []
        training += [f"- Derived from: {told.parent}"] if told.parent else []
    yield "Training", "\n".join(training) + ("\n\n" + _markdown_table(parameters) if spec.parameters else "")
    owner, serving = (
        seen.model.spec.owner,
        [
            f"- Artifact: `{redact_uri(spec.artifact.uri)}`",
            *([f"- Of it: `{part}`"] if (part := _artifact_selection(version)) else []),
            f"- Digest: `{_artifact_digest(version) or 'not known yet'}`",
        ],
    )
    serving += [f"- Stage: {versions.lifecycle_stage(version, seen.model.status)}"]
    serving += [f"- Author: {', '.join(spec.all_authors)}"] if spec.all_authors else []
    serving += [f"- Owner: {', '.join(filter(None, (owner.team, owner.contact)))}"] if owner is not None else []
    yield "In service", "\n".join(serving)
    decided = [r for r in seen.rollouts if r.spec.target.version == version.name]
    scans = [gate for r in decided for gate in r.status.gates if gate.name == "scan"]
    yield "Scan for code", f"{scans[-1].outcome}: {scans[-1].message}" if scans else ""
    authored = [line for r in decided for line in format_authors(r.status.authors, f"{r.name}: ")]
    rows = [("rollout", "came to", "why"), *((r.name, str(r.status.state), r.status.message or "") for r in decided)]
    yield "Rollouts", "\n\n".join(filter(None, (_markdown_table(rows), "\n".join(authored)))) if decided else ""


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [cells[0], ["---"] * len(cells[0]), *cells[1:]])
