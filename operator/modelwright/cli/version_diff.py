"""Differences between two versions of a Model, metric by metric and field by field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.cli.lineage import artifact_digest
from modelwright.cli.model_view import ModelView
from modelwright.cli.status_tree import format_table

Json = dict[str, Any]


def render_diff(view: ModelView, old: str, new: str) -> str:
    """Render the differing fields as a table, with the change of metrics on the same dataset. Raises ObjectNotFound."""
    rows = [("FIELD", old, new, ""), *_list_differences(view.get_version(old), view.get_version(new))]
    return format_table(rows) if len(rows) > 1 else f"{old} and {new} differ only in their names."


def diff_data(view: ModelView, old: str, new: str) -> Json:
    """Return the differences as JSON data. Raises ObjectNotFound."""
    differences = _list_differences(view.get_version(old), view.get_version(new))
    rows = [dict(zip(("field", "old", "new", "change"), row, strict=True)) for row in differences]
    return {
        "old": old,
        "new": new,
        "differences": [{k: v for k, v in row.items() if k != "change" or v} for row in rows],
    }


def _list_differences(old: ModelVersion, new: ModelVersion) -> Iterator[tuple[str, str, str, str]]:
    before, after = _flatten_spec(old), _flatten_spec(new)
    for field in sorted(before.keys() | after.keys()):
        old_value, new_value = before.get(field, ""), after.get(field, "")
        if old_value != new_value:
            yield (
                field,
                old_value,
                new_value,
                _metric_change(old_value, new_value) if field.startswith("metrics") else "",
            )


def _flatten_spec(version: ModelVersion) -> dict[str, str]:
    spec = version.spec.wire()
    fields = {f"metrics[{m['name']}] on {m['dataset']}": str(m["value"]) for m in spec.pop("metrics", ())}
    spec.pop("samples", None)
    spec.setdefault("artifact", {})["digest"] = artifact_digest(version) or ""

    def collect_fields(value: Any, path: str) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                collect_fields(inner, f"{path}.{key}" if path else str(key))
        else:
            fields[path] = str(value)

    collect_fields(spec, "")
    return fields


def _metric_change(old_value: str, new_value: str) -> str:
    try:
        return f"{Decimal(new_value) - Decimal(old_value):+}"
    except InvalidOperation:
        return ""
