"""Output of `kubectl modelwright status` and `history`: one Model as a tree, its rollouts as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from modelwright.api.conditions import find_condition
from modelwright.api.v1alpha1.model import DriftFigure, DriftStatus
from modelwright.api.v1alpha1.rollout import AuthorsStatus, GateStatus, ModelRollout, VerdictStatus
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.cli.model_view import ModelView, format_age, format_span
from modelwright.core import versions
from modelwright.core.authors import RETRAINING_AUTHOR
from modelwright.core.rollout.record import TERMINAL_STATES

SHOWN_VERSIONS, SHOWN_RUNS = 6, 3
"""How many versions and runs are shown, newest first; `history` lists all rollouts."""


@dataclass(frozen=True)
class TreeNode:
    """A line with its children."""

    text: str
    children: Sequence[TreeNode] = field(default=())


def render_tree(view: ModelView, now: datetime) -> str:
    """Render a Model as a tree: traffic, rollout with evidence, versions, retraining and pods."""
    return "\n".join(tree_lines(_model_node(view, now)))


def render_history(view: ModelView, now: datetime) -> str:
    """Render every recorded rollout as a table, newest first."""
    if not view.rollouts:
        return f"Model {view.model.name} has no rollouts recorded: without a RolloutPolicy it switches at once."
    head = ("ROLLOUT", "FROM", "TO", "STATE", "REASON", "BY", "BEGAN", "TOOK")
    return format_table([head, *(_history_row(record, now) for record in view.rollouts)])


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Align rows in columns, like kubectl."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def format_verdict(verdict: VerdictStatus) -> str:
    """Describe the verdict on one metric of one step, with its numbers."""
    parts = [f"{verdict.metric}: {verdict.outcome}"]
    if verdict.message:
        parts.append(verdict.message)
    elif verdict.candidate is not None:
        beside = f", serving {verdict.serving}" if verdict.serving is not None else ""
        limit = f", limit {verdict.limit}" if verdict.limit is not None else ""
        parts.append(f"candidate {verdict.candidate}{beside}{limit}")
    if verdict.dry_run:
        parts.append("dry run, decides nothing")
    return "; ".join(parts)


def format_authors(entries: Iterable[AuthorsStatus], before: str = "") -> list[str]:
    """List the authors of the candidate's objects, one line each; unchanged objects are left out."""
    lines = []
    for entry in entries:
        names = [*entry.by, *(["an unknown user"] if entry.unknown and entry.by != (RETRAINING_AUTHOR,) else [])]
        if names:
            lines.append(f"- {before}author of {entry.kind} {entry.name}: {', '.join(names)}")
    return lines


def format_gate(gate: GateStatus) -> str:
    """Describe the outcome of one gate."""
    return f"gate {gate.name}: {gate.outcome}" + (f"; {gate.message}" if gate.message else "")


def format_drift(drift: DriftStatus, now: datetime) -> tuple[str, list[str]]:
    """Describe drift from a version's reference: a summary, then the worst features and the unwatched ones."""
    drifted = sum(feature.drifted for feature in drift.worst)
    head = (
        f"requests have drifted from the reference of {drift.version}"
        if drifted
        else (f"no drift from the reference of {drift.version}")
    )
    if not drift.worst:
        head = f"no figures of drift from the reference of {drift.version} yet"
    features = [_format_drift_figure(feature) for feature in drift.worst]
    features += [f"{feature.kind} {feature.feature}: not watched, it is free text" for feature in drift.unwatched]
    return f"{head} (as of {format_age(drift.at, now)} ago)", features


def _format_drift_figure(figure: DriftFigure) -> str:
    measure = figure.method or f"share of {figure.aspect} values"
    drifted = "drifted: " if figure.drifted else ""
    return (
        f"{drifted}{figure.kind} {figure.feature}: {measure} {figure.value}, limit {figure.limit} "
        f"(floor {figure.floor}), {figure.rows} rows in {figure.window}"
    )


def last_verdicts(record: ModelRollout) -> list[VerdictStatus]:
    """Return the verdicts of the latest step that has any."""
    steps = [verdict.step for verdict in record.status.verdicts]
    return [verdict for verdict in record.status.verdicts if verdict.step == max(steps)] if steps else []


def _model_node(view: ModelView, now: datetime) -> TreeNode:
    model = view.model
    ready = find_condition(model.status.conditions, "Ready")
    stalled = find_condition(model.status.conditions, "Stalled")
    condition = ready if stalled is None or stalled.status != "True" else stalled
    head = [f"Model {model.name}"]
    head.append(
        "suspended"
        if model.spec.suspend
        else f"{condition.type}={condition.status} {condition.reason}"
        if condition
        else "not observed yet"
    )
    head += [model.status.url] if model.status.url else []
    children = (
        [TreeNode(condition.message)]
        if condition is not None and condition.message and condition.reason != "Serving"
        else []
    )
    return TreeNode(
        "  ".join(head),
        [
            *children,
            *_traffic_nodes(view, now),
            *_rollout_nodes(view, now),
            *_drift_nodes(view, now),
            *_version_nodes(view),
            *_retraining_nodes(view, now),
        ],
    )


def _traffic_nodes(view: ModelView, now: datetime) -> Iterator[TreeNode]:
    serving = view.model.status.serving
    shown = set()
    for share in view.model.status.traffic:
        shown.add(share.version)
        observed = f" (observed {share.observed_weight} %)" if share.observed_weight is not None else ""
        since = (
            f", since {format_age(serving.since, now)}"
            if serving is not None and serving.revision == share.revision
            else ""
        )
        yield TreeNode(
            f"{share.weight} % of the requests{observed}: version {share.version}{since}",
            _pod_nodes(view, share.version),
        )
    for version in dict.fromkeys(pod.version for pod in view.pods if pod.version not in shown):
        yield TreeNode(f"no requests: version {version}", _pod_nodes(view, version))


def _pod_nodes(view: ModelView, version: str) -> list[TreeNode]:
    pods = [pod for pod in view.pods if pod.version == version]
    return [
        TreeNode(
            f"pod {pod.name}  {'ready' if pod.ready else pod.state}"
            + (f"  {pod.restarts} restarts" if pod.restarts else "")
            + (f"  on {pod.node}" if pod.node else "")
        )
        for pod in pods
    ]


def _rollout_nodes(view: ModelView, now: datetime) -> Iterator[TreeNode]:
    record = view.current_rollout
    if record is None:
        return
    status = record.status
    head = [f"rollout {record.name}", str(status.state or "Pending"), f"to {record.spec.target.version}"]
    if status.from_ is not None:
        head[-1] = f"{status.from_.version} -> {record.spec.target.version}"
    if status.state not in TERMINAL_STATES:
        head += [f"step {status.progress}"] if status.progress else []
        head += [f"weight {status.weight} %"] if status.weight is not None else []
        head += ["paused"] if status.paused else []
        head += [f"since {format_age(status.started_at, now)}"] if status.started_at else []
    else:
        head += [f"{status.reason or ''} {format_age(status.finished_at, now)} ago".strip()]
    children = [TreeNode(format_gate(gate)) for gate in status.gates]
    children += [TreeNode(format_verdict(verdict)) for verdict in last_verdicts(record)]
    children += [TreeNode(line.removeprefix("- ")) for line in format_authors(status.authors)]
    children += [
        TreeNode(f"{each.approver} said {each.decision} ({each.place}){': ' + each.reason if each.reason else ''}")
        for each in status.approvals
    ]
    children += [
        TreeNode(f"{each.by}: {each.name}{'' if each.accepted else ', refused'}; {each.message or each.reason}")
        for each in status.commands
    ]
    yield TreeNode("  ".join(head), children)


def _drift_nodes(view: ModelView, now: datetime) -> Iterator[TreeNode]:
    drift = view.model.status.drift
    if drift is not None:
        head, worst = format_drift(drift, now)
        yield TreeNode(head, [TreeNode(line) for line in worst])


def _version_nodes(view: ModelView) -> Iterator[TreeNode]:
    announced = view.model.status.announced
    children = [
        TreeNode(_format_version(view, version, announced is not None and announced.version == version.name))
        for version in view.versions[:SHOWN_VERSIONS]
    ]
    more = len(view.versions) - len(children)
    count = f"{len(view.versions)} version{'s' if len(view.versions) != 1 else ''}"
    yield TreeNode(count, [*children, *([TreeNode(f"and {more} older ones")] if more > 0 else [])])


def _format_version(view: ModelView, version: ModelVersion, announced: bool) -> str:
    parts = [version.name, versions.lifecycle_stage(version, view.model.status)]
    # A metric measured on several datasets is shown by its first value, which is for all of them.
    figures = {metric.name: metric.value for metric in reversed(version.spec.metrics)}
    parts += [f"{name} {value}" for name, value in [*reversed(figures.items())][:2]]
    lineage = version.spec.lineage
    parts += [f"trained by {lineage.training_run}"] if lineage is not None and lineage.training_run else []
    parts += [version.status.failure.message] if version.status.failure is not None else []
    parts += ["available: set spec.version to it to serve it"] if announced else []
    return "  ".join(parts)


def _retraining_nodes(view: ModelView, now: datetime) -> Iterator[TreeNode]:
    for policy in view.policies:
        status, head = policy.status, [f"retraining {policy.name}"]
        head += ["suspended"] if policy.spec.suspend else []
        head += [f"{status.failures} failures in a row"] if status.failures else []
        runs = [run for run in view.runs if run.spec.policy_ref.name == policy.name][:SHOWN_RUNS]
        children = []
        for run in runs:
            created = run.metadata.creation_timestamp
            parts = [f"run {run.name}", str(run.status.state or "Pending"), format_age(created, now)]
            parts += [run.status.outcome] if run.status.outcome else []
            parts += [run.status.message] if run.status.message and run.status.state != "Succeeded" else []
            children.append(TreeNode("  ".join(parts)))
        yield TreeNode("  ".join(head), children)


def _history_row(record: ModelRollout, now: datetime) -> tuple[str, ...]:
    status, spec = record.status, record.spec
    users = [command.by for command in status.commands if command.accepted]
    took = format_span(status.finished_at - status.started_at) if status.finished_at and status.started_at else ""
    return (
        record.name,
        status.from_.version if status.from_ is not None else "",
        spec.target.version,
        str(status.state or "Pending"),
        status.reason or "",
        spec.rollback.by if spec.rollback is not None else ", ".join(dict.fromkeys(users)),
        format_age(record.metadata.creation_timestamp, now),
        took,
    )


def tree_lines(node: TreeNode) -> Iterator[str]:
    """Render a tree as lines."""
    yield node.text
    for number, child in enumerate(node.children):
        last = number == len(node.children) - 1
        for index, line in enumerate(tree_lines(child)):
            yield (("└─ " if last else "├─ ") if index == 0 else ("   " if last else "│  ")) + line
