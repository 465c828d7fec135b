"""What the metrics of a policy come to in one step, and what of it is written into the record."""

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
"""Part of a step's level that is set aside for requests before the first step with callers is confirmed: there the
test starts again at the confirmation. It is small, since only gross harm shows in so short a time."""
WINNER_TIMEOUT = timedelta(minutes=5)
"""For so long the end of an A/B test waits for a look at the shares that decide it."""
VERDICT_REFRESH = timedelta(seconds=15)
"""How old the written numbers of a metric may become, or half of the step's hold when that is longer; what decides is
written at once."""


def metrics_for_step(policy: api.RolloutPolicySpec, step: RolloutStep) -> tuple[api.Metric, ...]:
    """The metrics that a step measures; at 100 % nothing serves beside the candidate to compare with."""
    if policy.analysis is None:
        return ()
    found = tuple(metric for metric in policy.analysis.metrics if metric_applies(metric, step))
    if step.weight == 100:
        return tuple(metric for metric in found if metric.max is not None or metric.min is not None)
    return found


def initial_outcome(policy: api.RolloutPolicySpec, step: RolloutStep) -> Outcome | None:
    """What a step's metrics come to before anything was measured: None when no evidence is asked for in it."""
    return Outcome.INCONCLUSIVE if _deciding_metrics(policy, step) or not is_judgeable(policy, step) else None


def minimum_hold(policy: api.RolloutPolicySpec, step: RolloutStep, longest: timedelta) -> timedelta:
    """How long a step lasts at least. `longest`: how long a request of the Model may take. Requests are counted when
    they end, so that before `longest` one that hangs is no evidence yet."""
    asks = step.kind is StepKind.AB_TEST or initial_outcome(policy, step) is not None
    return max(step.hold, longest) if asks else step.hold


def is_judgeable(policy: api.RolloutPolicySpec, step: RolloutStep) -> bool:
    """Whether a policy with an analysis judges a step in which the candidate answers requests: by a metric that exists
    in it, and not as a dry run."""
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
    """What the step's metrics come to: None when none is asked for, Inconclusive while nothing was measured yet.

    `index`: the step's place, by default the present one's. `early`: its traffic is not confirmed yet. `complete_at`:
    before, requests of the step's begin may not have ended, so that nothing passes, and half of the evidence must come
    from later.
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
        hangs = complete_at is not None and measurement.at < complete_at and metric.job is None
        verdicts.append(_downgrade_early_pass(verdict) if hangs and verdict.outcome is Outcome.PASS else verdict)
    declared = _deciding_metrics(policy, step)
    guards = [verdict for verdict in verdicts if verdict.metric in declared or verdict.dry_run]
    if not declared:
        return initial_outcome(policy, step), tuple(verdicts)
    return judge.combine_verdicts(guards, declared=declared), tuple(verdicts)


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
    """The chances of error that a metric has in a step at which `metrics` are looked at. `early`: what is set aside for
    requests before the first step with callers is confirmed, where only a Fail counts.

    A Job's figure is judged again at each look, which the test of one look doesn't allow for: all looks that there can
    be before the deadline share its level.
    """
    if metric.job is not None:
        error = (1 - float(metric.confidence or DEFAULT_CONFIDENCE)) / _max_measurements(policy)
        return planning.Levels(error, error / _count_fallible_metrics(policy))
    judged = sum(any(metric_applies(one, other) for one in metrics) and not other.is_promotion for other in steps)
    whole = planning.split_levels(
        float(metric.confidence or DEFAULT_CONFIDENCE), _count_fallible_metrics(policy), max(judged, 1)
    )
    return replace(whole, fails=whole.fails * (EARLY_LEVEL_SHARE if early else 1 - EARLY_LEVEL_SHARE))


def _deciding_metrics(policy: api.RolloutPolicySpec, step: RolloutStep) -> list[str]:
    """The metrics that say whether a step may end."""
    return [
        metric.name
        for metric in metrics_for_step(policy, step)
        if not metric.dry_run and not _is_winner_metric(policy, step, metric)
    ]


def _is_winner_metric(policy: api.RolloutPolicySpec, step: RolloutStep, metric: api.Metric) -> bool:
    test = policy.strategy.ab_test
    return step.kind is StepKind.AB_TEST and test is not None and metric.name == test.winner.metric


def _count_fallible_metrics(policy: api.RolloutPolicySpec) -> int:
    """How many metrics can fail by chance, and share the error of a Fail."""
    metrics = policy.analysis.metrics if policy.analysis is not None else ()
    return max(1, sum(api.is_share(metric) or metric.job is not None for metric in metrics))


def _max_measurements(policy: api.RolloutPolicySpec) -> int:
    """How often a metric is looked at in a rollout at most."""
    assert policy.analysis is not None  # noqa: S101 - of a policy with a metric
    return max(1, math.ceil(parse_duration(policy.deadline) / parse_duration(policy.analysis.interval)))


def build_limits(metric: api.Metric, failures: int, alone: bool) -> judge.MetricLimits:
    """The limits of a metric, as numbers. `alone`: nothing serves beside the candidate, so only absolute ones hold."""
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
    """Looks out of the limits in the step `index`, without the one that `measurement` is from."""
    known = _verdicts_by_metric(record, index).get(measurement.metric)
    if known is None or known.failures is None:
        return 0
    counted = known.at is not None and known.at >= measurement.at.replace(microsecond=0)
    return known.failures - 1 if counted and known.failures and known.outcome != Outcome.PASS else known.failures


def winner_metric(policy: api.RolloutPolicySpec) -> api.Metric | None:
    """The metric that decides the policy's A/B test; None without one."""
    test = policy.strategy.ab_test
    metrics = policy.analysis.metrics if policy.analysis is not None else ()
    return next((metric for metric in metrics if test is not None and metric.name == test.winner.metric), None)


def can_decide_winner(metric: api.Metric) -> bool:
    """Whether a metric can decide an A/B test: a share of requests that is counted for both revisions, or a query that
    tells a value's course over the test."""
    counted = api.is_share(metric) and metric.builtin not in ("latency-percentile", "agreement")
    return (counted or is_query_metric(metric)) and not metric.dry_run


def is_worth_waiting(metric: api.Metric, measurements: Iterable[Measurement] | None) -> bool:
    """Whether the next look may tell what decides an A/B test, whose end has come: after a restart nothing was measured
    yet, and a server that is down comes back. The values of a query are waited for elsewhere."""
    if is_query_metric(metric):
        return False
    found = next((m for m in measurements or () if m.metric == metric.name), None)
    return found is None or (isinstance(found.result, MeasurementFailure) and not found.result.permanent)


def is_query_metric(metric: api.Metric) -> bool:
    """Whether it is a value that Prometheus can be asked for over a time that has passed."""
    return metric.prometheus is not None and metric.prometheus.query is not None


def decide_ab_test(
    policy: api.RolloutPolicySpec, measurements: Iterable[Measurement] | None, points: ValuePairs | None = None
) -> tuple[bool, str]:
    """Whether the candidate has won an A/B test, and why (not). Without proof it has not.

    `points`: of a metric that is a query, its values over the test.
    """
    test, metric = policy.strategy.ab_test, winner_metric(policy)
    assert test is not None  # noqa: S101 - asked at the end of a test only
    assert metric is not None  # noqa: S101 - the type refuses a winner without its metric
    if is_query_metric(metric):
        return _decide_by_series(test.winner, metric, points)
    found = next((m for m in measurements or () if m.metric == metric.name), None)
    shares = _extract_shares(metric, found) if found is not None else None
    if found is None or shares is None or shares.serving is None:
        return False, f"metric {metric.name}: nothing could be measured, so nothing is proven"
    return _decide_by_shares(test.winner, metric, shares.candidate, shares.serving)


def _decide_by_shares(rule: api.Winner, metric: api.Metric, candidate: Arm, serving: Arm) -> tuple[bool, str]:
    least, fewest = metric.min_samples or DEFAULT_MIN_SAMPLES, min(candidate.trials, serving.trials)
    if fewest < least:
        return False, f"metric {metric.name}: {fewest} of {least} requests answered; nothing is proven"
    counts = [count / (metric.burst or 1) for arm in (candidate, serving) for count in (arm.trials, arm.events)]
    found = score_interval(BlockPair(*counts), 1 - float(metric.confidence or DEFAULT_CONFIDENCE))
    margin = float(rule.margin)
    won = found.low >= margin if rule.better == "Higher" else found.high <= -margin
    told = "; ".join(
        f"{name} {100 * (arm.share or 0.0):.2f} % of {arm.trials} requests"
        for name, arm in (("candidate", candidate), ("serving", serving))
    )
    asked = f"at least {100 * margin:.2f}" if rule.better == "Higher" else f"at most {-100 * margin + 0.0:.2f}"
    return won, (
        f"metric {metric.name}: {told}; difference {100 * found.low:.2f} to {100 * found.high:.2f} points, to win it "
        f"takes {asked}"
    )


def _decide_by_series(rule: api.Winner, metric: api.Metric, points: ValuePairs | None) -> tuple[bool, str]:
    if points is None or points.failure is not None:
        why = points.failure.message if points is not None and points.failure is not None else "nothing was measured"
        return False, f"metric {metric.name}: {why}; nothing is proven"
    verdict = ab_winner.decide_winner(
        metric.name,
        points.pairs,
        alpha=1 - float(metric.confidence or DEFAULT_CONFIDENCE),
        higher_is_better=rule.better == "Higher",
        margin=float(rule.margin),
    )
    told = f"{verdict.message}; {points.why}" if points.why else verdict.message
    return verdict.outcome is Outcome.PASS, f"metric {metric.name}: {told}"


def _extract_shares(metric: api.Metric, found: Measurement) -> RequestShares | None:
    result = found.result
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
    """`record` with the verdicts of the present step: a metric's when its outcome or reason has changed, when a look
    was out of its limits, when what is written is old, and all of them with `fresh` (at a transition). `weight`: the
    share that the candidate was seen to have, written with them."""
    entry = record.step_status
    if entry is None:
        return record
    room = _block_budget(record, lambda other: other.step == record.step_index, len(verdicts)) if fresh else 0
    began = entry.confirmed_at or entry.started_at
    known = _verdicts_by_metric(record, record.step_index)
    entries = dict(known)
    for verdict in verdicts:
        at = measured.get(verdict.metric, now).replace(microsecond=0)
        old = known.get(verdict.metric)
        failures = (old.failures or 0) if old is not None else 0
        news = old is None or old.at is None or at > old.at
        if verdict.out_of_limits and news:
            failures += 1
        before = old.at if old is not None and old.at is not None else began
        undecided = verdict.outcome is Outcome.INCONCLUSIVE and old is None
        # An earlier write of the same look had no room for the blocks that decide.
        unkept = fresh and old is not None and old.blocks is None and bool(verdict.blocks)
        # A Pass shortly before the step's end is written with that.
        soon = verdict.outcome is Outcome.PASS and began + hold - now <= VERDICT_REFRESH
        changed = (
            (
                not undecided
                and not soon
                and (old is None or (old.outcome, old.reason) != (verdict.outcome, verdict.reason))
            )
            or unkept
            or failures != ((old.failures or 0) if old is not None else 0)
            or (news and (fresh or at - before >= max(VERDICT_REFRESH, hold / 2)))
        )
        if changed:
            entries[verdict.metric] = _build_verdict_status(record.step_index, verdict, failures, at, room=room)
    if entries != known and weight is not None:
        record = record.with_status(observed_weight=weight)
    others = tuple(entry for entry in record.status.verdicts if entry.step != record.step_index)
    if entries == known and outcome not in (Outcome.FAIL, Outcome.ERROR):
        return record
    return record.with_status(
        verdicts=(*others, *entries.values()), verdict=str(outcome) if outcome is not None else record.status.verdict
    )


def _verdicts_by_metric(record: RolloutRecord, index: int) -> dict[str, VerdictStatus]:
    return {entry.metric: entry for entry in record.status.verdicts if entry.step == index}


def _block_budget(record: RolloutRecord, replaced: Callable[[VerdictStatus], bool], metrics: int) -> int:
    """Characters for the blocks of each of `metrics` that are written in the place of those `replaced`. They share half
    of what is left, so that later ones find some too."""
    taken = sum(len(entry.blocks or "") for entry in record.status.verdicts if not replaced(entry))
    return (block_text.MAX_CHARACTERS - taken) // (2 * max(1, metrics))


def _has_failed(entry: VerdictStatus | None) -> bool:
    return entry is not None and entry.outcome == Outcome.FAIL


def record_late_failures(
    record: RolloutRecord, index: int, verdicts: tuple[Verdict, ...], measured: Mapping[str, datetime], now: datetime
) -> RolloutRecord:
    """`record` with what the evidence of an earlier step (`index`) has found since: a metric that failed, and looks out
    of the limits that are let pass. What the step ended with stays otherwise."""
    known = _verdicts_by_metric(record, index)
    entries = dict(known)
    failing = {
        verdict.metric
        for verdict in verdicts
        if verdict.outcome is Outcome.FAIL and not _has_failed(known.get(verdict.metric))
    }
    room = _block_budget(record, lambda entry: entry.step == index and entry.metric in failing, len(failing))
    for verdict in verdicts:
        at = measured.get(verdict.metric, now).replace(microsecond=0)
        old = known.get(verdict.metric)
        news = old is None or old.at is None or at > old.at
        failures = ((old.failures or 0) if old is not None else 0) + (1 if verdict.out_of_limits and news else 0)
        if verdict.metric in failing:
            entries[verdict.metric] = _build_verdict_status(index, verdict, failures, at, room=room)
        elif verdict.out_of_limits and news and old is not None and not _has_failed(old):
            entries[verdict.metric] = old.model_copy(update={"failures": failures, "at": at})
    if entries == known:
        return record
    others = tuple(entry for entry in record.status.verdicts if entry.step != index)
    failed = any(verdict.outcome is Outcome.FAIL and not verdict.dry_run for verdict in verdicts)
    verdict_ = str(Outcome.FAIL) if failed else record.status.verdict
    return record.with_status(verdicts=(*others, *entries.values()), verdict=verdict_)


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
