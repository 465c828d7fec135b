"""Has a step's metrics judged by `analysis.judge`; rows (`stepping`, `rollback_causes`) decide what follows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from modelwright.api.common import parse_duration
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1 import policy as api
from modelwright.api.v1alpha1.rollout import VerdictStatus
from modelwright.core.analysis import ab_winner, block_text, judge, planning
from modelwright.core.analysis.blocks import BlockPair
from modelwright.core.analysis.counters import count_over
from modelwright.core.analysis.evidence import (
    Arm,
    Histogram,
    Measurement,
    MeasurementFailure,
    Outcome,
    RequestShares,
    ValuePairs,
    Verdict,
)
from modelwright.core.analysis.score_interval import score_interval
from modelwright.core.rollout.record import RolloutRecord
from modelwright.core.rollout.steps import RolloutStep, StepKind, metric_applies

DEFAULT_MIN_SAMPLES = 300
DEFAULT_CONFIDENCE = "0.95"
EARLY_LEVEL_SHARE = 1 / 64
"""Part of a step's error level that is reserved for requests before the first step with callers is confirmed, when the
test starts again. It is small, since only gross harm shows in so short a time."""
WINNER_TIMEOUT = timedelta(minutes=5)
"""Time for which the end of an A/B test waits for a measurement of the shares that decide it."""
VERDICT_REFRESH = timedelta(seconds=15)
"""Maximum age of the recorded numbers of a metric, or half of the step's hold if that is longer. A new outcome is
recorded at once."""


def metrics_for_step(policy: api.RolloutPolicySpec, step: RolloutStep) -> tuple[api.Metric, ...]:
    """List the metrics measured in a step. At 100 % only those with absolute limits: there is no revision to compare
    with."""
    if policy.analysis is None:
        return ()
    metrics = tuple(metric for metric in policy.analysis.metrics if metric_applies(metric, step))
    if step.weight == 100:
        return tuple(metric for metric in metrics if metric.max is not None or metric.min is not None)
    return metrics


def initial_outcome(policy: api.RolloutPolicySpec, step: RolloutStep) -> Outcome | None:
    """Return the combined outcome of a step's metrics before the first measurement: None if it needs no evidence."""
    return Outcome.INCONCLUSIVE if _deciding_metrics(policy, step) or not is_judgeable(policy, step) else None


def minimum_hold(policy: api.RolloutPolicySpec, step: RolloutStep, longest: timedelta) -> timedelta:
    """Return the minimum duration of a step. `longest`: maximum duration of a request to the Model.

    Requests are counted when they end, so that a hanging one is evidence only after `longest`.
    """
    needs_evidence = step.kind is StepKind.AB_TEST or initial_outcome(policy, step) is not None
    return max(step.hold, longest) if needs_evidence else step.hold


def is_judgeable(policy: api.RolloutPolicySpec, step: RolloutStep) -> bool:
    """Whether at least one metric without dryRun applies to the step. True as well where none is needed: without an
    analysis, without requests to the candidate, and for the promotion."""
    if policy.analysis is None or not step.has_requests or step.is_promotion:
        return True
    return any(not metric.dry_run for metric in metrics_for_step(policy, step))


def evaluate_step(
    policy: api.RolloutPolicySpec,
    steps: tuple[RolloutStep, ...],
    step: RolloutStep,
    measurements: Iterable[Measurement] | None,
    record: RolloutRecord,
    *,
    index: int | None = None,
    early: bool = False,
    complete_at: datetime | None = None,
) -> tuple[Outcome | None, tuple[Verdict, ...]]:
    """Evaluate the step's metrics: the combined outcome, and the verdict of each metric that was measured.

    The outcome is None if the step needs no evidence, and Inconclusive before the first measurement.

    `index`: of the step, by default of the current one. `early`: its traffic is not confirmed yet. `complete_at`: until
    then, requests from the start of the step may not have ended, so that no metric passes; and half of the evidence
    must be from after it.
    """
    index = record.step_index if index is None else index
    metrics = metrics_for_step(policy, step)
    if not metrics:
        return initial_outcome(policy, step), ()
    by_name = {measurement.metric: measurement for measurement in measurements or ()}
    verdicts = []
    for metric in metrics:
        measurement = by_name.get(metric.name)
        if measurement is None:
            continue
        alone = step.weight == 100
        limits = build_limits(metric, _previous_failures(record, index, measurement), alone)
        if complete_at is not None:
            limits = replace(limits, complete_at=complete_at.timestamp())
        verdict = judge.judge_metric(
            limits, measurement, levels=error_levels(policy, steps, metrics, metric, early=early)
        )
        incomplete = complete_at is not None and measurement.at < complete_at and metric.job is None
        verdicts.append(_downgrade_early_pass(verdict) if incomplete and verdict.outcome is Outcome.PASS else verdict)
    deciding = _deciding_metrics(policy, step)
    if not deciding:
        return initial_outcome(policy, step), tuple(verdicts)
    combined = [verdict for verdict in verdicts if verdict.metric in deciding or verdict.dry_run]
    return judge.combine_verdicts(combined, declared=deciding), tuple(verdicts)


def _downgrade_early_pass(verdict: Verdict) -> Verdict:
    text = (
        "no Pass before spec.serving.maxRequestSeconds of the Model have passed: requests are counted when they end; "
        f"{verdict.message}"
    )
    return replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=Reason.REQUESTS_NOT_ENDED, message=text)


def error_levels(
    policy: api.RolloutPolicySpec,
    steps: tuple[RolloutStep, ...],
    metrics: tuple[api.Metric, ...],
    metric: api.Metric,
    *,
    early: bool = False,
) -> planning.Levels:
    """Compute the error levels of a metric in a step with these `metrics`.

    `early`: the part that is reserved for requests before the first step with callers is confirmed, where only a Fail
    counts. The test of a Job's figure does not allow for repetition: all measurements possible before the deadline
    share its level.
    """
    if metric.job is not None:
        error = (1 - float(metric.confidence or DEFAULT_CONFIDENCE)) / _max_measurements(policy)
        return planning.Levels(error, error / _count_fallible_metrics(policy))
    steps_judged = sum(any(metric_applies(one, other) for one in metrics) and not other.is_promotion for other in steps)
    whole = planning.split_levels(
        float(metric.confidence or DEFAULT_CONFIDENCE), _count_fallible_metrics(policy), max(steps_judged, 1)
    )
    return replace(whole, fails=whole.fails * (EARLY_LEVEL_SHARE if early else 1 - EARLY_LEVEL_SHARE))


def _deciding_metrics(policy: api.RolloutPolicySpec, step: RolloutStep) -> list[str]:
    """List the names of the metrics that decide whether a step may end."""
    return [
        metric.name
        for metric in metrics_for_step(policy, step)
        if not metric.dry_run and not _is_winner_metric(policy, step, metric)
    ]


def _is_winner_metric(policy: api.RolloutPolicySpec, step: RolloutStep, metric: api.Metric) -> bool:
    test = policy.strategy.ab_test
    return step.kind is StepKind.AB_TEST and test is not None and metric.name == test.winner.metric


def _count_fallible_metrics(policy: api.RolloutPolicySpec) -> int:
    """Count the metrics that can fail by chance, and therefore share the error level of a Fail."""
    metrics = policy.analysis.metrics if policy.analysis is not None else ()
    return max(1, sum(api.is_share(metric) or metric.job is not None for metric in metrics))


def _max_measurements(policy: api.RolloutPolicySpec) -> int:
    """Return the maximum number of measurements of a metric in a rollout."""
    assert policy.analysis is not None  # noqa: S101 - of a policy with a metric
    return max(1, math.ceil(parse_duration(policy.deadline) / parse_duration(policy.analysis.interval)))


def build_limits(metric: api.Metric, failures: int, alone: bool) -> judge.MetricLimits:
    """Convert the limits of a metric to numbers. `alone`: the candidate takes all traffic, so that only the absolute
    limits apply."""
    return judge.MetricLimits(
        name=metric.name,
        margin=None if alone else _parse_decimal(metric.margin),
        max=_parse_decimal(metric.max),
        min=_parse_decimal(metric.min),
        min_samples=metric.min_samples or DEFAULT_MIN_SAMPLES,
        threshold=parse_duration(metric.threshold) if metric.threshold else None,
        percentile=_parse_decimal(metric.percentile),
        burst=metric.burst or 1,
        failures_allowed=metric.failure_limit or 0,
        failures_so_far=failures,
        dry_run=metric.dry_run,
    )


def _parse_decimal(text: str | None) -> float | None:
    return float(text) if text is not None else None


def _previous_failures(record: RolloutRecord, index: int, measurement: Measurement) -> int:
    """Count the measurements out of the limits in the step `index`, without this one."""
    recorded = _verdicts_by_metric(record, index).get(measurement.metric)
    if recorded is None or recorded.failures is None:
        return 0
    counted = recorded.at is not None and recorded.at >= measurement.at.replace(microsecond=0)
    includes_this = counted and recorded.failures and recorded.outcome != Outcome.PASS
    return recorded.failures - 1 if includes_this else recorded.failures


def winner_metric(policy: api.RolloutPolicySpec) -> api.Metric | None:
    """Return the metric that decides the policy's A/B test; None without one."""
    test = policy.strategy.ab_test
    metrics = policy.analysis.metrics if policy.analysis is not None else ()
    return next((metric for metric in metrics if test is not None and metric.name == test.winner.metric), None)


def can_decide_winner(metric: api.Metric) -> bool:
    """Whether a metric can decide an A/B test: a share of requests that is counted for both revisions, or a query that
    gives the values of the whole test."""
    counted = api.is_share(metric) and metric.builtin not in ("latency-percentile", "agreement")
    return (counted or is_query_metric(metric)) and not metric.dry_run


def is_worth_waiting(metric: api.Metric, measurements: Iterable[Measurement] | None) -> bool:
    """Whether the end of an A/B test should wait for another measurement of the metric that decides it: there is none
    after a restart, and a metrics server may be down for a while. The values of a query are waited for elsewhere."""
    if is_query_metric(metric):
        return False
    last = _find_measurement(metric, measurements)
    return last is None or (isinstance(last.result, MeasurementFailure) and not last.result.permanent)


def _find_measurement(metric: api.Metric, measurements: Iterable[Measurement] | None) -> Measurement | None:
    return next((measurement for measurement in measurements or () if measurement.metric == metric.name), None)


def is_query_metric(metric: api.Metric) -> bool:
    """Whether the metric is a value that Prometheus can return for a time in the past."""
    return metric.prometheus is not None and metric.prometheus.query is not None


def decide_ab_test(
    policy: api.RolloutPolicySpec, measurements: Iterable[Measurement] | None, points: ValuePairs | None = None
) -> tuple[bool, str]:
    """Decide whether the candidate has won an A/B test, and why or why not. Without proof it has not.

    `points`: the values of a query metric over the test.
    """
    test, metric = policy.strategy.ab_test, winner_metric(policy)
    assert test is not None  # noqa: S101 - called only at the end of a test
    assert metric is not None  # noqa: S101 - the type refuses a winner without its metric
    if is_query_metric(metric):
        return _decide_by_series(test.winner, metric, points)
    measurement = _find_measurement(metric, measurements)
    shares = _extract_shares(metric, measurement) if measurement is not None else None
    if shares is None or shares.serving is None:
        return False, f"metric {metric.name}: nothing could be measured, so nothing is proven"
    return _decide_by_shares(test.winner, metric, shares.candidate, shares.serving)


def _decide_by_shares(rule: api.Winner, metric: api.Metric, candidate: Arm, serving: Arm) -> tuple[bool, str]:
    required, answered = metric.min_samples or DEFAULT_MIN_SAMPLES, min(candidate.trials, serving.trials)
    if answered < required:
        return False, f"metric {metric.name}: {answered} of {required} requests answered; nothing is proven"
    counts = [count / (metric.burst or 1) for arm in (candidate, serving) for count in (arm.trials, arm.events)]
    difference = score_interval(BlockPair(*counts), 1 - float(metric.confidence or DEFAULT_CONFIDENCE))
    margin = float(rule.margin)
    won = difference.low >= margin if rule.better == "Higher" else difference.high <= -margin
    shares = "; ".join(
        f"{name} {100 * (arm.share or 0.0):.2f} % of {arm.trials} requests"
        for name, arm in (("candidate", candidate), ("serving", serving))
    )
    limit = f"at least {100 * margin:.2f}" if rule.better == "Higher" else f"at most {-100 * margin + 0.0:.2f}"
    return won, (
        f"metric {metric.name}: {shares}; difference {100 * difference.low:.2f} to {100 * difference.high:.2f} points, "
        f"to win it takes {limit}"
    )


def _decide_by_series(rule: api.Winner, metric: api.Metric, points: ValuePairs | None) -> tuple[bool, str]:
    if points is None or points.failure is not None:
        failure = points.failure.message if points is not None and points.failure is not None else None
        return False, f"metric {metric.name}: {failure or 'nothing was measured'}; nothing is proven"
    verdict = ab_winner.decide_winner(
        metric.name,
        points.pairs,
        alpha=1 - float(metric.confidence or DEFAULT_CONFIDENCE),
        higher_is_better=rule.better == "Higher",
        margin=float(rule.margin),
    )
    message = f"{verdict.message}; {points.why}" if points.why else verdict.message
    return verdict.outcome is Outcome.PASS, f"metric {metric.name}: {message}"


def _extract_shares(metric: api.Metric, measurement: Measurement) -> RequestShares | None:
    result = measurement.result
    if isinstance(result, Histogram) and metric.threshold is not None and result.serving is not None:
        arms = [count_over(buckets, parse_duration(metric.threshold)) for buckets in (result.candidate, result.serving)]
        return RequestShares(arms[0], arms[1]) if arms[0] is not None else None
    return result if isinstance(result, RequestShares) else None


def record_verdicts(
    record: RolloutRecord,
    verdicts: tuple[Verdict, ...],
    outcome: Outcome | None,
    measured: Mapping[str, datetime],
    now: datetime,
    *,
    hold: timedelta = timedelta(0),
    weight: int | None = None,
    fresh: bool = False,
) -> RolloutRecord:
    """Record the verdicts of the current step.

    A metric's verdict is written if its outcome or reason has changed, if a measurement was out of its limits, or if
    the recorded one is old; with `fresh`, at a transition, all of them are. `measured`: times of the measurements.
    `weight`: the observed share of the candidate, written with them.
    """
    entry = record.step_status
    if entry is None:
        return record
    room = _block_budget(record, lambda other: other.step == record.step_index, len(verdicts)) if fresh else 0
    started = entry.confirmed_at or entry.started_at
    recorded = _verdicts_by_metric(record, record.step_index)
    entries = dict(recorded)
    for verdict in verdicts:
        at = measured.get(verdict.metric, now).replace(microsecond=0)
        old = recorded.get(verdict.metric)
        failures = (old.failures or 0) if old is not None else 0
        is_newer = old is None or old.at is None or at > old.at
        if verdict.out_of_limits and is_newer:
            failures += 1
        last_write = old.at if old is not None and old.at is not None else started
        first_undecided = verdict.outcome is Outcome.INCONCLUSIVE and old is None
        # An earlier write of the same measurement had no room for the blocks that decide.
        lacks_blocks = fresh and old is not None and old.blocks is None and bool(verdict.blocks)
        # A Pass shortly before the end of the step is written with that end.
        ends_soon = verdict.outcome is Outcome.PASS and started + hold - now <= VERDICT_REFRESH
        changed = (
            (
                not first_undecided
                and not ends_soon
                and (old is None or (old.outcome, old.reason) != (verdict.outcome, verdict.reason))
            )
            or lacks_blocks
            or failures != ((old.failures or 0) if old is not None else 0)
            or (is_newer and (fresh or at - last_write >= max(VERDICT_REFRESH, hold / 2)))
        )
        if changed:
            entries[verdict.metric] = _build_verdict_status(record.step_index, verdict, failures, at, room=room)
    if entries != recorded and weight is not None:
        record = record.with_status(observed_weight=weight)
    others = tuple(entry for entry in record.status.verdicts if entry.step != record.step_index)
    if entries == recorded and outcome not in (Outcome.FAIL, Outcome.ERROR):
        return record
    return record.with_status(
        verdicts=(*others, *entries.values()), verdict=str(outcome) if outcome is not None else record.status.verdict
    )


def _verdicts_by_metric(record: RolloutRecord, index: int) -> dict[str, VerdictStatus]:
    return {entry.metric: entry for entry in record.status.verdicts if entry.step == index}


def _block_budget(record: RolloutRecord, replaced: Callable[[VerdictStatus], bool], metrics: int) -> int:
    """Compute the number of characters for the blocks of each of `metrics`, whose verdicts take the place of those
    `replaced`. They share half of the remaining room, so that later ones have some too."""
    used = sum(len(entry.blocks or "") for entry in record.status.verdicts if not replaced(entry))
    return (block_text.MAX_CHARACTERS - used) // (2 * max(1, metrics))


def _has_failed(entry: VerdictStatus | None) -> bool:
    return entry is not None and entry.outcome == Outcome.FAIL


def record_late_failures(
    record: RolloutRecord, index: int, verdicts: tuple[Verdict, ...], measured: Mapping[str, datetime], now: datetime
) -> RolloutRecord:
    """Record what the evidence of an earlier step (`index`) shows since: metrics that failed, and measurements out of
    the limits that failureLimit allows. The verdicts with which the step ended stay otherwise."""
    recorded = _verdicts_by_metric(record, index)
    entries = dict(recorded)
    failing = {
        verdict.metric
        for verdict in verdicts
        if verdict.outcome is Outcome.FAIL and not _has_failed(recorded.get(verdict.metric))
    }
    room = _block_budget(record, lambda entry: entry.step == index and entry.metric in failing, len(failing))
    for verdict in verdicts:
        at = measured.get(verdict.metric, now).replace(microsecond=0)
        old = recorded.get(verdict.metric)
        is_newer = old is None or old.at is None or at > old.at
        failures = ((old.failures or 0) if old is not None else 0) + (1 if verdict.out_of_limits and is_newer else 0)
        if verdict.metric in failing:
            entries[verdict.metric] = _build_verdict_status(index, verdict, failures, at, room=room)
        elif verdict.out_of_limits and is_newer and old is not None and not _has_failed(old):
            entries[verdict.metric] = old.model_copy(update={"failures": failures, "at": at})
    if entries == recorded:
        return record
    others = tuple(entry for entry in record.status.verdicts if entry.step != index)
    failed = any(verdict.outcome is Outcome.FAIL and not verdict.dry_run for verdict in verdicts)
    combined = str(Outcome.FAIL) if failed else record.status.verdict
    return record.with_status(verdicts=(*others, *entries.values()), verdict=combined)


def _build_verdict_status(step: int, verdict: Verdict, failures: int, at: datetime, *, room: int) -> VerdictStatus:
    return VerdictStatus(
        step=step,
        metric=verdict.metric,
        outcome=verdict.outcome,
        reason=verdict.reason,
        message=verdict.message,
        candidate=_format_figure(verdict.candidate),
        serving=_format_figure(verdict.serving),
        low=_format_figure(verdict.low),
        high=_format_figure(verdict.high),
        limit=_format_figure(verdict.limit),
        samples=verdict.samples,
        serving_samples=verdict.serving_samples,
        failures=failures or None,
        dry_run=verdict.dry_run or None,
        query=verdict.query or None,
        blocks=block_text.format_blocks(verdict.blocks, room) or None if verdict.blocks else None,
        at=at,
    )


def _format_figure(number: float | None) -> str | None:
    return None if number is None else f"{number:.6g}"
