"""The history of a Model in order, from the records of its versions, rollouts and runs, and from Events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from modelwright.api.v1alpha1.rollout import ModelRollout
from modelwright.api.v1alpha1.training import TrainingRun
from modelwright.cli.model_view import ModelView
from modelwright.cli.status_tree import format_gate, format_table, format_verdict

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One event in an object's history. `at` is in UTC."""

    at: datetime
    kind: str
    name: str
    text: str

    def wire(self) -> dict[str, str]:
        """Return the entry as JSON data."""
        return {"at": f"{self.at:%Y-%m-%dT%H:%M:%SZ}", "kind": self.kind, "name": self.name, "text": self.text}


def build_timeline(view: ModelView, events: Iterable[Json]) -> list[TimelineEntry]:
    """List all entries, earliest first. `events`: events.k8s.io/v1 objects of the namespace, of which those about
    the Model and its objects are used."""
    entries = [*_version_entries(view), *_event_entries(view, events)]
    for record in view.rollouts:
        entries += _rollout_entries(record)
    for run in view.runs:
        entries += _run_entries(run)
    # A stable sort keeps the records' order within one second.
    return sorted(entries, key=lambda entry: entry.at)


def render_timeline(entries: Iterable[TimelineEntry]) -> str:
    """Render the entries as a table, with times in UTC."""
    head = ("TIME (UTC)", "OBJECT", "WHAT")
    return format_table([head, *(_entry_cells(entry) for entry in entries)])


def _entry_cells(entry: TimelineEntry) -> tuple[str, str, str]:
    return f"{entry.at:%Y-%m-%d %H:%M:%S}", f"{entry.kind} {entry.name}", " ".join(entry.text.split())


def _version_entries(view: ModelView) -> Iterator[TimelineEntry]:
    for version in view.versions:
        created = version.metadata.creation_timestamp
        if created is not None:
            author = f" by {version.spec.author}" if version.spec.author else ""
            yield TimelineEntry(created, "ModelVersion", version.name, f"was registered{author}")


def _dated_entry(kind: str, name: str, at: datetime | None, text: str) -> Iterator[TimelineEntry]:
    if at is not None:
        yield TimelineEntry(at, kind, name, text)


def _rollout_entries(record: ModelRollout) -> Iterator[TimelineEntry]:
    status, entry = record.status, partial(_dated_entry, "ModelRollout", record.name)
    rollback = record.spec.rollback
    if rollback is not None:
        text = f"{rollback.by} requested a rollback to {record.spec.target.version}: {rollback.reason}"
        yield from entry(record.metadata.creation_timestamp, text)
    move = f"{status.from_.version} -> {record.spec.target.version}" if status.from_ else record.spec.target.version
    yield from entry(status.started_at, f"started: {move}")
    for gate in status.gates:
        yield from entry(gate.at, format_gate(gate))
    for step in status.steps:
        label = f"step {step.index + 1} ({step.kind}{f' {step.weight} %' if step.weight else ''})"
        yield from entry(step.started_at, f"{label} started")
        yield from entry(step.confirmed_at, f"{label}: confirmed by the gateway")
        for verdict in (each for each in status.verdicts if each.step == step.index):
            yield from entry(verdict.at, f"{label}: {format_verdict(verdict)}")
        yield from entry(step.finished_at, f"{label} ended" + (f": {step.outcome}" if step.outcome else ""))
    for approval in status.approvals:
        text = f"{approval.approver} said {approval.decision} ({approval.place})"
        yield from entry(approval.at, text + (f": {approval.reason}" if approval.reason else ""))
    for command in status.commands:
        refused = "" if command.accepted else ", which was refused"
        text = f"{command.by} ran {command.name}{refused}: {command.message or command.reason}"
        yield from entry(command.at, text)
    yield from entry(status.finished_at, f"ended {status.state} ({status.reason}): {status.message or ''}".rstrip(": "))


def _run_entries(run: TrainingRun) -> Iterator[TimelineEntry]:
    status, entry = run.status, partial(_dated_entry, "TrainingRun", run.name)
    manual = run.spec.manual
    if manual is not None:
        yield from entry(run.metadata.creation_timestamp, f"{manual.by} requested it: {manual.reason}")
    elif run.spec.trigger is not None:
        trigger = run.spec.trigger
        yield from entry(run.metadata.creation_timestamp, f"trigger {trigger.name} fired: {trigger.message}")
    for stage in status.stages:
        yield from entry(stage.started_at, f"{stage.name} started")
        ended = f"{stage.name} ended: {stage.state}" + (f"; {stage.message}" if stage.message else "")
        yield from entry(stage.finished_at, ended)
    made = f", made {status.version}" if status.version else ""
    why = f" ({status.reason})" if status.reason else ""
    yield from entry(status.finished_at, f"ended {status.state}{why}{made}: {status.message or ''}".rstrip(": "))


def _event_entries(view: ModelView, events: Iterable[Json]) -> Iterator[TimelineEntry]:
    ours = {("Model", view.model.name)}
    ours |= {("ModelVersion", each.name) for each in view.versions}
    ours |= {("ModelRollout", each.name) for each in view.rollouts}
    ours |= {("RetrainingPolicy", each.name) for each in view.policies}
    ours |= {("TrainingRun", each.name) for each in view.runs}
    ours |= {("Pod", each.name) for each in view.pods}
    for event in events:
        regarding = event.get("regarding") or {}
        about = (str(regarding.get("kind")), str(regarding.get("name")))
        at = _event_time(event)
        # Of a pod's Events only warnings are shown.
        if about in ours and at is not None and (about[0] != "Pod" or event.get("type") == "Warning"):
            count = (event.get("series") or {}).get("count") or event.get("deprecatedCount") or 1
            times = f" ({count} times)" if count > 1 else ""
            yield TimelineEntry(at, *about, f"{event.get('reason')}: {event.get('note', '')}{times}")


def _event_time(event: Json) -> datetime | None:
    """Return when the event last occurred."""
    last = (event.get("series") or {}).get("lastObservedTime") or event.get("deprecatedLastTimestamp")
    text = last or event.get("eventTime")
    if not text:
        return None
    return datetime.fromisoformat(str(text)).astimezone(UTC).replace(microsecond=0)
