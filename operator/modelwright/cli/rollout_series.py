"""Series for the plot of a rollout: traffic weights over time, and the intervals of its metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from modelwright.api.v1alpha1.policy import Metric, RolloutPolicySpec
from modelwright.api.v1alpha1.rollout import ModelRollout, RolloutState, StepStatus, VerdictStatus
from modelwright.cli.model_view import ObjectNotFound
from modelwright.core.rollout.record import TERMINAL_STATES

LAST_VERDICT_NOTE = (
    "Only the last verdict of each metric and step is recorded. While a "
    "rollout is running, Prometheus has all as modelwright_rollout_verdict."
)
NO_VERDICTS_NOTE = "No verdict is recorded."
NO_POLICY_NOTE = (
    "The record has no policy that this program can read: limits of values are missing, and whether limits of shares "
    "are upper or lower ones."
)
_LIMIT_KEYS = {True: "atMost", False: "atLeast", None: "limit"}
_VALUE_UNITS = {
    "throughput": "requests per second",
    "absolute-difference": "absolute",
    "relative-difference": "relative",
}


class LimitKind(StrEnum):
    """The quantity that a limit bounds."""

    DIFFERENCE = "difference"
    SHARE = "share"
    VALUE = "value"


@dataclass(frozen=True, slots=True)
class LimitLine:
    """A limit. `at_most` is None when only the policy could say whether it is an upper or a lower limit."""

    value: float
    at_most: bool | None


@dataclass(frozen=True, slots=True)
class VerdictPoint:
    """One verdict with its numbers, in the unit of its metric. `begun` and `ended` bound the step in which the
    limits applied."""

    step: int
    at: datetime
    begun: datetime
    ended: datetime
    outcome: str
    estimate: float | None
    serving: float | None
    low: float | None
    high: float | None
    limits: tuple[LimitLine, ...]
    samples: int | None
    serving_samples: int | None

    @property
    def marker_value(self) -> float:
        """The value at which the outcome is drawn: the estimate, else the upper end of the interval."""
        return next(number for number in (self.estimate, self.high, 0.0) if number is not None)


@dataclass(frozen=True, slots=True)
class MetricSeries:
    """The verdicts of one metric, earliest first. `unit` is a label for the axis."""

    metric: str
    limit_kind: LimitKind
    unit: str
    dry_run: bool
    points: tuple[VerdictPoint, ...]


@dataclass(frozen=True, slots=True)
class StepSpan:
    """One step that has started."""

    number: int
    kind: str
    weight: int
    begun: datetime
    ended: datetime
    outcome: str


@dataclass(frozen=True, slots=True)
class RolloutSeries:
    """A rollout as series. `weights`: the candidate's percentage of requests from each time on."""

    rollout: str
    title: str
    begun: datetime
    ended: datetime
    weights: tuple[tuple[datetime, int], ...]
    steps: tuple[StepSpan, ...]
    metrics: tuple[MetricSeries, ...]
    notes: tuple[str, ...]

    def wire(self) -> dict[str, Any]:
        """Return the series as JSON data, with the API's spelling."""
        return {
            "rollout": self.rollout,
            "title": self.title,
            "begun": _format_utc(self.begun),
            "ended": _format_utc(self.ended),
            "weights": [{"at": _format_utc(at), "weight": weight} for at, weight in self.weights],
            "steps": [
                {
                    "step": s.number,
                    "kind": s.kind,
                    "weight": s.weight,
                    "begun": _format_utc(s.begun),
                    "ended": _format_utc(s.ended),
                    "outcome": s.outcome,
                }
                for s in self.steps
            ],
            "metrics": [
                {
                    "metric": m.metric,
                    "what": str(m.limit_kind),
                    "unit": m.unit,
                    "dryRun": m.dry_run,
                    "looks": [_format_point(look) for look in m.points],
                }
                for m in self.metrics
            ],
            "notes": list(self.notes),
        }


def build_series(record: ModelRollout, now: datetime) -> RolloutSeries:
    """Build the series of a rollout until its end or `now`. Raises ObjectNotFound before the first step."""
    status = record.status
    if status.started_at is None or not status.steps:
        raise ObjectNotFound(
            f"{record.name} ({status.state or 'Pending'}) has not started a step, so there is nothing to draw; "
            f"kubectl modelwright why {record.name} explains its state"
        )
    started, ended = status.started_at, status.finished_at or now
    spans = tuple(_build_step(step, ended) for step in sorted(status.steps, key=lambda step: step.index))
    metrics, readable = _read_metrics(record)
    grouped, notes_without_numbers = _group_verdicts(
        status.verdicts, {span.number - 1: span for span in spans}, metrics
    )
    notes = [LAST_VERDICT_NOTE if status.verdicts else NO_VERDICTS_NOTE]
    if not readable and any(metric.limit_kind is not LimitKind.DIFFERENCE for metric in grouped):
        notes.append(NO_POLICY_NOTE)
    return RolloutSeries(
        record.name,
        _format_title(record),
        started,
        ended,
        tuple(_list_weights(record, spans)),
        spans,
        grouped,
        (*notes, *notes_without_numbers),
    )


def _format_title(record: ModelRollout) -> str:
    status, to = record.status, record.spec.target.version
    move = f"{status.from_.version} → {to}" if status.from_ is not None else f"to {to}"
    reason = f", {status.reason}" if status.reason else ""
    return f"{record.name}: {record.spec.model_ref.name} {move} ({status.state}{reason})"


def _build_step(step: StepStatus, end: datetime) -> StepSpan:
    finished = step.finished_at or end
    return StepSpan(step.index + 1, step.kind, step.weight or 0, step.started_at, finished, step.outcome or "")


def _list_weights(record: ModelRollout, spans: Sequence[StepSpan]) -> Iterator[tuple[datetime, int]]:
    """Yield the weight of each step from its confirmation on; at the end 0 after a rollback, 100 after success."""
    status = record.status
    confirmed = {step.index + 1: step.confirmed_at for step in status.steps}
    if status.started_at is not None:
        yield status.started_at, 0
    for span in spans:
        # The traffic of an unconfirmed step may never have changed.
        at = confirmed[span.number]
        if at is not None:
            yield at, span.weight
    if status.state in TERMINAL_STATES and status.finished_at is not None:
        yield status.finished_at, 100 if status.state == RolloutState.SUCCEEDED else 0


def _read_metrics(record: ModelRollout) -> tuple[Mapping[str, Metric], bool]:
    """Return the metrics of the recorded policy by name, and whether the policy was readable."""
    if record.status.policy is None:
        return {}, False
    try:
        spec = RolloutPolicySpec.model_validate(record.status.policy.spec, by_alias=True, by_name=False)
    except ValidationError:
        return {}, False
    return {metric.name: metric for metric in spec.analysis.metrics} if spec.analysis is not None else {}, True


def _group_verdicts(
    verdicts: Sequence[VerdictStatus], spans: Mapping[int, StepSpan], metrics: Mapping[str, Metric]
) -> tuple[tuple[MetricSeries, ...], list[str]]:
    """Group the verdicts by metric and quantity; return them with a note for each verdict without numbers."""
    by_metric: dict[tuple[str, LimitKind], list[VerdictStatus]] = {}
    notes = []
    for verdict in sorted(verdicts, key=lambda verdict: verdict.step):
        if verdict.step in spans and (verdict.low is not None or verdict.candidate is not None):
            by_metric.setdefault((verdict.metric, _limit_kind(verdict)), []).append(verdict)
        else:
            reason = f": {verdict.message}" if verdict.message else ""
            notes.append(f"{verdict.metric} at step {verdict.step + 1} has no numbers ({verdict.outcome}){reason}")
    series = tuple(
        MetricSeries(
            metric,
            what,
            _metric_unit(what, metrics.get(metric)),
            any(verdict.dry_run for verdict in points),
            tuple(_build_point(verdict, what, spans[verdict.step], metrics.get(metric)) for verdict in points),
        )
        for (metric, what), points in by_metric.items()
    )
    return series, notes


def _limit_kind(verdict: VerdictStatus) -> LimitKind:
    """Only shares have an interval, and only differences also count the serving revision's requests."""
    if verdict.low is None:
        return LimitKind.VALUE
    return LimitKind.SHARE if verdict.serving_samples is None else LimitKind.DIFFERENCE


def _metric_unit(what: LimitKind, metric: Metric | None) -> str:
    if what is LimitKind.DIFFERENCE:
        return "candidate − serving (percentage points)"
    if what is LimitKind.SHARE:
        slow = metric is not None and metric.builtin == "latency-percentile"
        return "slow requests (% of requests)" if slow else "share of requests (%)"
    return f"value ({_VALUE_UNITS.get((metric.builtin if metric is not None else None) or '', 'its own unit')})"


def _build_point(verdict: VerdictStatus, what: LimitKind, span: StepSpan, metric: Metric | None) -> VerdictPoint:
    candidate, serving = _parse_number(verdict.candidate), _parse_number(verdict.serving)
    scale = 1.0 if what is LimitKind.VALUE else 100.0
    limits = _limit_lines(verdict, what, metric, serving)
    if metric is not None and metric.builtin == "latency-percentile":
        # Candidate and serving are in seconds here, while the verdict is about a share of requests.
        candidate = serving = None
    elif what is LimitKind.DIFFERENCE:
        candidate = candidate - serving if candidate is not None and serving is not None else None
        serving = None
    return VerdictPoint(
        step=verdict.step + 1,
        at=verdict.at or span.ended,
        begun=span.begun,
        ended=span.ended,
        outcome=verdict.outcome,
        estimate=_scale_number(candidate, scale),
        serving=_scale_number(serving, scale),
        low=_scale_number(_parse_number(verdict.low), scale),
        high=_scale_number(_parse_number(verdict.high), scale),
        limits=tuple(LimitLine(round(limit.value * scale, 6), limit.at_most) for limit in limits),
        samples=verdict.samples,
        serving_samples=verdict.serving_samples,
    )


def _limit_lines(
    verdict: VerdictStatus, what: LimitKind, metric: Metric | None, serving: float | None
) -> Iterator[LimitLine]:
    """Yield the recorded limit of a share, or all limits that the policy sets for a value."""
    if what is not LimitKind.VALUE:
        limit = _parse_number(verdict.limit)
        if limit is not None:
            yield LimitLine(limit, _is_upper_limit(what, metric, limit))
        return
    if metric is None:
        return
    most, least, margin = (_parse_number(text) for text in (metric.max, metric.min, metric.margin))
    if most is not None:
        yield LimitLine(most, True)
    if least is not None:
        yield LimitLine(least, False)
    if margin is not None and serving is not None:
        higher_is_better = least is not None and most is None
        yield LimitLine(serving - margin if higher_is_better else serving + margin, not higher_is_better)


def _is_upper_limit(what: LimitKind, metric: Metric | None, limit: float) -> bool | None:
    if what is LimitKind.DIFFERENCE:
        return True
    return None if metric is None else _parse_number(metric.min) != limit


def _parse_number(text: str | None) -> float | None:
    return float(text) if text is not None else None


def _scale_number(number: float | None, scale: float) -> float | None:
    return None if number is None else round(number * scale, 6)


def _format_utc(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _format_point(point: VerdictPoint) -> dict[str, Any]:
    values = {
        "step": point.step,
        "at": _format_utc(point.at),
        "outcome": point.outcome,
        "estimate": point.estimate,
        "serving": point.serving,
        "low": point.low,
        "high": point.high,
        "limits": [{_LIMIT_KEYS[limit.at_most]: limit.value} for limit in point.limits],
        "samples": point.samples,
        "servingSamples": point.serving_samples,
    }
    return {key: value for key, value in values.items() if value is not None}
