"""What can be drawn of a rollout: shares of the requests over time, and the intervals by which metrics were judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from modelwright.api.v1alpha1.policy import Metric, RolloutPolicySpec
from modelwright.api.v1alpha1.rollout import ModelRollout, RolloutState, StepStatus, VerdictStatus
from modelwright.cli.picture import NotThere
from modelwright.core.rollout.record import TERMINAL

ONE_LOOK = (
    "One look for each metric and step is on record, the last that was written; those before are not kept. While a "
    "rollout goes on, Prometheus has them as modelwright_rollout_verdict."
)
NO_VERDICTS = "No verdict is on record."
NO_POLICY = (
    "The record holds no policy that this program can read: limits of values are missing, and whether those of shares "
    "are upper or lower ones."
)
_KEYS = {True: "atMost", False: "atLeast", None: "limit"}
_OF_VALUES = {"throughput": "requests per second", "absolute-difference": "absolute", "relative-difference": "relative"}


class What(StrEnum):
    """What a limit is about."""

    DIFFERENCE = "difference"
    SHARE = "share"
    VALUE = "value"


@dataclass(frozen=True, slots=True)
class Limit:
    """What is still allowed; None: whether at most or at least this can't be told without the policy."""

    value: float
    at_most: bool | None


@dataclass(frozen=True, slots=True)
class Look:
    """One verdict with its numbers, in the unit of its metric. `begun`, `ended`: the time of its step, in which the
    limits held."""

    step: int
    at: datetime
    begun: datetime
    ended: datetime
    outcome: str
    estimate: float | None
    serving: float | None
    low: float | None
    high: float | None
    limits: tuple[Limit, ...]
    samples: int | None
    serving_samples: int | None

    @property
    def mark(self) -> float:
        """Where the outcome is marked: at the estimate, or without one at the upper end of the interval."""
        return next(number for number in (self.estimate, self.high, 0.0) if number is not None)


@dataclass(frozen=True, slots=True)
class Judged:
    """A metric with its looks, the earliest first. `unit` is for people."""

    metric: str
    what: What
    unit: str
    dry_run: bool
    looks: tuple[Look, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """One step that was begun."""

    number: int
    kind: str
    weight: int
    begun: datetime
    ended: datetime
    outcome: str


@dataclass(frozen=True, slots=True)
class Course:
    """A rollout as series. `weights`: from when on the candidate was to have which percent of the callers' requests."""

    rollout: str
    title: str
    begun: datetime
    ended: datetime
    weights: tuple[tuple[datetime, int], ...]
    steps: tuple[Span, ...]
    metrics: tuple[Judged, ...]
    notes: tuple[str, ...]

    def wire(self) -> dict[str, Any]:
        """As data, in the spelling of the API."""
        return {
            "rollout": self.rollout,
            "title": self.title,
            "begun": _utc(self.begun),
            "ended": _utc(self.ended),
            "weights": [{"at": _utc(at), "weight": weight} for at, weight in self.weights],
            "steps": [
                {"step": s.number, "kind": s.kind, "weight": s.weight, "begun": _utc(s.begun), "ended": _utc(s.ended),
                 "outcome": s.outcome} for s in self.steps
            ],
            "metrics": [
                {"metric": m.metric, "what": str(m.what), "unit": m.unit, "dryRun": m.dry_run,
                 "looks": [_look(look) for look in m.looks]} for m in self.metrics
            ],
            "notes": list(self.notes),
        }  # fmt: skip


def course(record: ModelRollout, now: datetime) -> Course:
    """What is on record of a rollout, until it ended or now. Raises NotThere when that is nothing yet."""
    status = record.status
    if status.started_at is None or not status.steps:
        raise NotThere(
            f"{record.name} ({status.state or 'Pending'}) has begun no step, so there is nothing to draw; "
            f"kubectl modelwright why {record.name} says where it stands"
        )
    begun, ended = status.started_at, status.finished_at or now
    spans = tuple(_span(step, ended) for step in sorted(status.steps, key=lambda step: step.index))
    metrics, readable = _metrics(record)
    judged, without = _judged(status.verdicts, {span.number - 1: span for span in spans}, metrics)
    notes = [ONE_LOOK if status.verdicts else NO_VERDICTS]
    if not readable and any(metric.what is not What.DIFFERENCE for metric in judged):
        notes.append(NO_POLICY)
    return Course(
        record.name, _title(record), begun, ended, tuple(_weights(record, spans)), spans, judged, (*notes, *without)
    )


def _title(record: ModelRollout) -> str:
    status, to = record.status, record.spec.target.version
    move = f"{status.from_.version} → {to}" if status.from_ is not None else f"to {to}"
    reason = f", {status.reason}" if status.reason else ""
    return f"{record.name}: {record.spec.model_ref.name} {move} ({status.state}{reason})"


def _span(step: StepStatus, end: datetime) -> Span:
    finished = step.finished_at or end
    return Span(step.index + 1, step.kind, step.weight or 0, step.started_at, finished, step.outcome or "")


def _weights(record: ModelRollout, spans: Sequence[Span]) -> Iterator[tuple[datetime, int]]:
    """A step's weight from when it was seen in force. What is taken back has nothing at the end, and what has
    succeeded everything."""
    status = record.status
    confirmed = {step.index + 1: step.confirmed_at for step in status.steps}
    if status.started_at is not None:
        yield status.started_at, 0
    for span in spans:
        # A step whose traffic was never confirmed may not have come into force.
        at = confirmed[span.number]
        if at is not None:
            yield at, span.weight
    if status.state in TERMINAL and status.finished_at is not None:
        yield status.finished_at, 100 if status.state == RolloutState.SUCCEEDED else 0


def _metrics(record: ModelRollout) -> tuple[Mapping[str, Metric], bool]:
    """The metrics of the policy as it was, by name, and whether that could be read."""
    if record.status.policy is None:
        return {}, False
    try:
        spec = RolloutPolicySpec.model_validate(record.status.policy.spec, by_alias=True, by_name=False)
    except ValidationError:
        return {}, False
    return {metric.name: metric for metric in spec.analysis.metrics} if spec.analysis is not None else {}, True


def _judged(
    verdicts: Sequence[VerdictStatus], spans: Mapping[int, Span], metrics: Mapping[str, Metric]
) -> tuple[tuple[Judged, ...], list[str]]:
    """Looks by metric and what was judged, and the verdicts that have no numbers to draw, in words."""
    found: dict[tuple[str, What], list[VerdictStatus]] = {}
    without = []
    for verdict in sorted(verdicts, key=lambda verdict: verdict.step):
        if verdict.step in spans and (verdict.low is not None or verdict.candidate is not None):
            found.setdefault((verdict.metric, _what(verdict)), []).append(verdict)
        else:
            because = f": {verdict.message}" if verdict.message else ""
            without.append(f"{verdict.metric} at step {verdict.step + 1} has no numbers ({verdict.outcome}){because}")
    judged = tuple(
        Judged(
            metric,
            what,
            _unit(what, metrics.get(metric)),
            any(verdict.dry_run for verdict in of_it),
            tuple(_look_of(verdict, what, spans[verdict.step], metrics.get(metric)) for verdict in of_it),
        )
        for (metric, what), of_it in found.items()
    )
    return judged, without


def _what(verdict: VerdictStatus) -> What:
    """Only shares have an interval, and only differences count the serving revision's requests too."""
    if verdict.low is None:
        return What.VALUE
    return What.SHARE if verdict.serving_samples is None else What.DIFFERENCE


def _unit(what: What, metric: Metric | None) -> str:
    if what is What.DIFFERENCE:
        return "candidate − serving (percentage points)"
    if what is What.SHARE:
        slow = metric is not None and metric.builtin == "latency-percentile"
        return "slow requests (% of requests)" if slow else "share of requests (%)"
    return f"value ({_OF_VALUES.get((metric.builtin if metric is not None else None) or '', 'its own unit')})"


def _look_of(verdict: VerdictStatus, what: What, span: Span, metric: Metric | None) -> Look:
    candidate, serving = _number(verdict.candidate), _number(verdict.serving)
    scale = 1.0 if what is What.VALUE else 100.0
    limits = _limits(verdict, what, metric, serving)
    if metric is not None and metric.builtin == "latency-percentile":
        # These two are seconds; what was judged is a share of requests.
        candidate = serving = None
    elif what is What.DIFFERENCE:
        candidate = candidate - serving if candidate is not None and serving is not None else None
        serving = None
    return Look(
        step=verdict.step + 1,
        at=verdict.at or span.ended,
        begun=span.begun,
        ended=span.ended,
        outcome=verdict.outcome,
        estimate=_times(candidate, scale),
        serving=_times(serving, scale),
        low=_times(_number(verdict.low), scale),
        high=_times(_number(verdict.high), scale),
        limits=tuple(Limit(round(limit.value * scale, 6), limit.at_most) for limit in limits),
        samples=verdict.samples,
        serving_samples=verdict.serving_samples,
    )


def _limits(verdict: VerdictStatus, what: What, metric: Metric | None, serving: float | None) -> Iterator[Limit]:
    """Of a share the one it was judged by; of a value all that the policy has."""
    if what is not What.VALUE:
        limit = _number(verdict.limit)
        if limit is not None:
            yield Limit(limit, _at_most(what, metric, limit))
        return
    if metric is None:
        return
    most, least, margin = (_number(text) for text in (metric.max, metric.min, metric.margin))
    if most is not None:
        yield Limit(most, True)
    if least is not None:
        yield Limit(least, False)
    if margin is not None and serving is not None:
        higher_is_better = least is not None and most is None
        yield Limit(serving - margin if higher_is_better else serving + margin, not higher_is_better)


def _at_most(what: What, metric: Metric | None, limit: float) -> bool | None:
    if what is What.DIFFERENCE:
        return True
    return None if metric is None else _number(metric.min) != limit


def _number(text: str | None) -> float | None:
    return float(text) if text is not None else None


def _times(number: float | None, scale: float) -> float | None:
    return None if number is None else round(number * scale, 6)


def _utc(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _look(look: Look) -> dict[str, Any]:
    told = {
        "step": look.step,
        "at": _utc(look.at),
        "outcome": look.outcome,
        "estimate": look.estimate,
        "serving": look.serving,
        "low": look.low,
        "high": look.high,
        "limits": [{_KEYS[limit.at_most]: limit.value} for limit in look.limits],
        "samples": look.samples,
        "servingSamples": look.serving_samples,
    }
    return {key: value for key, value in told.items() if value is not None}
