"""The table of `kubectl modelwright list`: each Model with its version, traffic weight, and why it is not ready."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from modelwright.api.common import InvalidObject
from modelwright.api.conditions import find_condition, is_true
from modelwright.api.v1alpha1.model import Model
from modelwright.cli.model_view import format_age
from modelwright.cli.status_tree import format_table


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One Model.

    `weight`: percentage of requests for `version`, or for `target` during a rollout. `why`: reason and message
    that keep the Model from being ready; empty when it is ready.
    """

    namespace: str
    name: str
    version: str
    target: str
    weight: int | None
    state: str
    why: str
    created: datetime | None

    def wire(self) -> dict[str, Any]:
        """Return the row as JSON data."""
        wire = asdict(self)
        wire["created"] = self.created.strftime("%Y-%m-%dT%H:%M:%SZ") if self.created is not None else None
        return wire


def build_rows(objects: Iterable[Mapping[str, Any]]) -> list[ModelRow]:
    """Build a row for each Model, sorted by namespace and name."""
    unsorted = [_build_row(obj) for obj in objects]
    return sorted(unsorted, key=lambda row: (row.namespace, row.name))


def render_rows(rows: Iterable[ModelRow], now: datetime, *, namespaces: bool) -> str:
    """Render the rows as a table. `namespaces`: include the namespace column."""
    head = ("NAMESPACE", "NAME", "VERSION", "WEIGHT", "STATE", "AGE", "WHY")
    lines = [head, *(_row_cells(row, now) for row in rows)]
    return format_table([line if namespaces else line[1:] for line in lines])


def _row_cells(row: ModelRow, now: datetime) -> tuple[str, ...]:
    version = f"{row.version or 'none'} -> {row.target}" if row.target else row.version
    weight = f"{row.weight} %" if row.weight is not None else ""
    why = " ".join(row.why.split())
    return (row.namespace, row.name, version, weight, row.state, format_age(row.created, now), why)


def _build_row(obj: Mapping[str, Any]) -> ModelRow:
    metadata = obj["metadata"]
    place = (str(metadata.get("namespace", "")), str(metadata["name"]))
    try:
        model = Model.parse(obj)
    except InvalidObject as error:
        return ModelRow(*place, "", "", None, "Unreadable", error.message, None)
    status = model.status
    serving = status.serving.version if status.serving is not None else ""
    target = status.target.version if status.target is not None and status.target.version != serving else ""
    weights = {share.version: share.weight for share in status.traffic}
    state, why = _model_state(model)
    weight = weights.get(target or serving, 0 if target else None)
    return ModelRow(*place, serving, target, weight, state, why, model.metadata.creation_timestamp)


def _model_state(model: Model) -> tuple[str, str]:
    conditions = model.status.conditions
    if (model.status.observed_generation or 0) < model.generation:
        return "Pending", "the operator has not observed its latest spec yet"
    for name in ("Stalled", "Reconciling"):
        condition = find_condition(conditions, name)
        if condition is not None and condition.status == "True":
            return name, f"{condition.reason}: {condition.message}" if condition.message else condition.reason
    ready = find_condition(conditions, "Ready")
    if is_true(conditions, "Ready"):
        return "Ready", ""
    return "NotReady", f"{ready.reason}: {ready.message}" if ready is not None else "it has no conditions yet"
