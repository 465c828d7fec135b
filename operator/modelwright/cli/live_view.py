"""The terminal display of `kubectl modelwright status --watch`: traffic shares as bars, steps, and metric intervals
against their limits."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from modelwright.api.conditions import find_condition
from modelwright.api.v1alpha1.rollout import ModelRollout
from modelwright.cli.model_view import ModelView, ObjectNotFound, format_age
from modelwright.cli.printing import escape_texts, escape_unprintable
from modelwright.cli.rollout_series import RolloutSeries, VerdictPoint, build_series
from modelwright.cli.status_tree import format_gate, format_verdict, last_verdicts
from modelwright.core.rollout.record import TERMINAL_STATES

BAR_COLUMNS: Final = 40
"""Width of a bar and of an interval, in columns."""
_STYLES: Final = {
    **dict.fromkeys(("Pass", "Succeeded", "True"), "green"),
    **dict.fromkeys(("Fail", "Error", "RolledBack", "Aborted", "RollingBack", "Stalled"), "red"),
    **dict.fromkeys(("Inconclusive", "Running"), "yellow"),
}


def render_view(view: ModelView, now: datetime) -> RenderableType:
    """Render one Model. `view.current_rollout` needs its policy, also where that is stored separately: it holds the
    limits of values."""
    parts: list[RenderableType] = [_model_header(view), _traffic_table(view)]
    record = view.current_rollout
    if record is not None:
        parts += [Text(), _rollout_header(record, now)]
        parts += [_styled_line(f"  {format_gate(gate)}", _STYLES.get(gate.outcome)) for gate in record.status.gates]
        parts += _metric_rows(record, now)
        parts += [
            _styled_line(f"  {each.approver} said {each.decision} ({each.place}): {each.reason}")
            for each in record.status.approvals
        ]
    return Group(*parts)


def draw_interval(point: VerdictPoint, width: int = BAR_COLUMNS) -> str:
    """Draw a metric's interval, estimate and limits on a scale of `width` columns: `├──●──┤   ┃`. Empty without
    numbers."""
    low, high = point.low, point.high
    numbers = [
        number for number in (point.estimate, low, high, *(limit.value for limit in point.limits)) if number is not None
    ]
    if not numbers:
        return ""
    least, most = min(0.0, *numbers), max(0.0, *numbers)
    span = (most - least) or 1.0

    def column(number: float) -> int:
        return round((number - least) / span * (width - 1))

    drawn = [" "] * width
    if low is not None and high is not None:
        drawn[column(low) : column(high) + 1] = "─" * (column(high) - column(low) + 1)
        drawn[column(low)], drawn[column(high)] = "├", "┤"
    for limit in point.limits:
        drawn[column(limit.value)] = "┃"
    if point.estimate is not None:
        drawn[column(point.estimate)] = "●"
    return "".join(drawn).rstrip()


def _model_header(view: ModelView) -> Text:
    model = view.model
    stalled = find_condition(model.status.conditions, "Stalled")
    condition = (
        stalled
        if stalled is not None and stalled.status == "True"
        else find_condition(model.status.conditions, "Ready")
    )
    text = _styled_line(f"Model {model.name}", "bold")
    if model.spec.suspend:
        return text.append("  suspended", "yellow")
    if condition is None:
        return text.append("  not observed yet", "yellow")
    good = condition.type == "Ready" and condition.status == "True"
    bad = condition.type == "Stalled"
    colour = "green" if good else "red" if bad else "yellow"
    text.append(escape_unprintable(f"  {condition.type}={condition.status} {condition.reason}"), colour)
    if condition.message and condition.reason != "Serving":
        text.append(escape_unprintable(f"\n{condition.message}"))
    return text


def _traffic_table(view: ModelView) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    serving = view.model.status.serving
    for share in view.model.status.traffic:
        pods = [pod for pod in view.pods if pod.version == share.version]
        ready = f"{sum(pod.ready for pod in pods)} of {len(pods)} pods ready" if pods else ""
        role = "serving" if serving is not None and serving.revision == share.revision else "candidate"
        observed = f"(observed {share.observed_weight} %)" if share.observed_weight is not None else ""
        colour = "green" if role == "serving" else "cyan"
        bar = ProgressBar(
            total=100, completed=share.weight, width=BAR_COLUMNS, complete_style=colour, finished_style=colour
        )
        table.add_row(
            _styled_line(share.version, "bold"),
            bar,
            f"{share.weight} %",
            Text(observed),
            Text(ready),
            Text(role, "dim"),
        )
    return table


def _rollout_header(record: ModelRollout, now: datetime) -> Text:
    status = record.status
    move = f"{status.from_.version} -> {record.spec.target.version}" if status.from_ else record.spec.target.version
    text = _styled_line(f"rollout {record.name}  {move}  ", "bold")
    text.append(escape_unprintable(str(status.state or "Pending")), _STYLES.get(str(status.state), "yellow"))
    if status.state in TERMINAL_STATES:
        text.append(escape_unprintable(f"  {status.reason or ''} {format_age(status.finished_at, now)} ago"))
    else:
        text.append(escape_unprintable(f"  step {status.progress}" if status.progress else ""))
        text.append("  paused" if status.paused else "", "yellow")
        text.append(f"  since {format_age(status.started_at, now)}" if status.started_at else "")
    if status.message:
        text.append(escape_unprintable(f"\n  {status.message}"))
    return text


def _metric_rows(record: ModelRollout, now: datetime) -> Iterator[RenderableType]:
    try:
        series: RolloutSeries | None = escape_texts(build_series(record, now))
    except ObjectNotFound:
        series = None
    last = (
        max((point.step for metric in series.metrics for point in metric.points), default=0)
        if series is not None
        else 0
    )
    table = Table.grid(padding=(0, 2))
    drawn_metrics = set()
    for metric in series.metrics if series is not None else ():
        point = metric.points[-1]
        if point.step != last:
            continue
        drawn_metrics.add(metric.metric)
        style = _STYLES.get(point.outcome, "")
        table.add_row(
            Text(f"  {metric.metric}"),
            Text(point.outcome, style),
            Text(draw_interval(point), style),
            Text(_format_numbers(point)),
            Text(metric.unit + (", dry run" if metric.dry_run else ""), "dim"),
        )
    if drawn_metrics:
        yield table
    for verdict in last_verdicts(record):
        if verdict.metric not in drawn_metrics:
            yield _styled_line(f"  {format_verdict(verdict)}", _STYLES.get(verdict.outcome))


def _format_numbers(point: VerdictPoint) -> str:
    estimate = f"{point.estimate:g}" if point.estimate is not None else ""
    interval = f"[{point.low:g}, {point.high:g}]" if point.low is not None and point.high is not None else ""
    bounds = {True: "at most", False: "at least", None: "limit"}
    limits = [f"{bounds[limit.at_most]} {limit.value:g}" for limit in point.limits]
    samples = f"{point.samples} requests" if point.samples is not None else ""
    return ", ".join(part for part in (" ".join(filter(None, (estimate, interval))), *limits, samples) if part)


def _styled_line(text: str, style: str | None = None) -> Text:
    return Text().append(escape_unprintable(text), style)
