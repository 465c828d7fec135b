"""What the metrics of a policy come to in one step, and what of it is written into the record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from modelwright.api.common import seconds
from modelwright.api.v1alpha1 import policy as api
from modelwright.api.v1alpha1.rollout import VerdictStatus
from modelwright.core.analysis import judge, planning, ranks
from modelwright.core.analysis.counters import over
from modelwright.core.analysis.evidence import Histogram, Measurement, Outcome, Points, Shares, Verdict
from modelwright.core.rollout.record import Record
from modelwright.core.rollout.steps import Step, StepKind, applies

MIN_SAMPLES = 300
CONFIDENCE = "0.95"
REFRESH = timedelta(seconds=15)
"""How old the written numbers of a metric may become, or half of the step's hold when that is longer; what decides is
written at once."""


def asked(policy: api.RolloutPolicySpec, step: Step, *, compares: bool = True) -> tuple[api.Metric, ...]:
    """The metrics that are looked at in a step. `compares`: something serves beside the candidate."""
    if policy.analysis is None:
        return ()
    found = tuple(metric for metric in policy.analysis.metrics if applies(metric, step))
    if not compares or step.weight == 100:
        return tuple(metric for metric in found if metric.max is not None or metric.min is not None)
    return found


def outcome_of(
    policy: api.RolloutPolicySpec,
    steps: tuple[Step, ...],
    step: Step,
    measurements: Iterable[Measurement] | None,
    record: Record,
) -> tuple[Outcome | None, tuple[Verdict, ...]]:
    """What the step's metrics come to: None when none is asked for, Inconclusive while nothing was measured yet."""
    metrics = asked(policy, step)
    if not metrics:
        return None, ()
    by_name = {measurement.metric: measurement for measurement in measurements or ()}
    verdicts = []
    for metric in metrics:
        measurement = by_name.get(metric.name)
        if measurement is None:
            continue
        alone = step.weight == 100
        limits = rule(metric, _failures(record, metric.name, measurement), alone)
        verdicts.append(judge.judge(limits, measurement, alpha=level(policy, steps, metrics, metric)))
    declared = [
        metric.name for metric in metrics if not metric.dry_run and not _decided_at_the_end(policy, step, metric)
    ]
    guards = [verdict for verdict in verdicts if verdict.metric in declared or verdict.dry_run]
    if not declared:
        return None, tuple(verdicts)
    return judge.combine(guards, declared=declared), tuple(verdicts)


def level(
    policy: api.RolloutPolicySpec, steps: tuple[Step, ...], metrics: tuple[api.Metric, ...], metric: api.Metric
) -> float:
    """The chance of error that a metric has in a step at which `metrics` are looked at."""
    judged = sum(any(applies(one, other) for one in metrics) and not other.last for other in steps)
    return planning.alpha_each(float(metric.confidence or CONFIDENCE), _shares(policy), max(judged, 1))


def _decided_at_the_end(policy: api.RolloutPolicySpec, step: Step, metric: api.Metric) -> bool:
    test = policy.strategy.ab_test
    return step.kind is StepKind.AB_TEST and test is not None and metric.name == test.winner.metric


def _shares(policy: api.RolloutPolicySpec) -> int:
    metrics = policy.analysis.metrics if policy.analysis is not None else ()
    return max(1, sum(api.is_share(metric) for metric in metrics))


def rule(metric: api.Metric, failures: int, alone: bool) -> judge.Rule:
    """The limits of a metric, as numbers. `alone`: nothing serves beside the candidate, so only absolute ones hold."""
    return judge.Rule(
        name=metric.name,
        margin=None if alone else _number(metric.margin),
        max=_number(metric.max),
        min=_number(metric.min),
        min_samples=metric.min_samples or MIN_SAMPLES,
        threshold=seconds(metric.threshold) if metric.threshold else None,
        percentile=_number(metric.percentile),
        good=metric.builtin == "agreement",
        failures_allowed=metric.failure_limit or 0,
        failures_so_far=failures,
        dry_run=metric.dry_run,
    )


def _number(text: str | None) -> float | None:
    return float(text) if text is not None else None


def _failures(record: Record, metric: str, measurement: Measurement) -> int:
    """Looks out of the limits in this step, without the one that `measurement` is from."""
    known = _known(record).get(metric)
    if known is None or known.failures is None:
        return 0
    counted = known.at is not None and known.at >= measurement.at.replace(microsecond=0)
    return known.failures - 1 if counted and known.failures and known.outcome != Outcome.PASS else known.failures


def winner(policy: api.RolloutPolicySpec) -> api.Metric | None:
    """The metric that decides the policy's A/B test; None without one."""
    test = policy.strategy.ab_test
    metrics = policy.analysis.metrics if policy.analysis is not None else ()
    return next((metric for metric in metrics if test is not None and metric.name == test.winner.metric), None)


def winnable(metric: api.Metric) -> bool:
    """Whether a metric can decide an A/B test: a share of requests that is counted for both revisions, or a query that
    tells a value's course over the test."""
    counted = api.is_share(metric) and metric.builtin not in ("latency-percentile", "agreement")
    return (counted or is_query(metric)) and not metric.dry_run


def is_query(metric: api.Metric) -> bool:
    """Whether it is a value that Prometheus can be asked for over a time that has passed."""
    return metric.prometheus is not None and metric.prometheus.query is not None


def wins(
    policy: api.RolloutPolicySpec, measurements: Iterable[Measurement] | None, points: Points | None = None
) -> tuple[bool, str]:
    """Whether the candidate has won an A/B test, and why (not). Without proof it has not.

    `points`: of a metric that is a query, its values over the test.
    """
    test, metric = policy.strategy.ab_test, winner(policy)
    assert test is not None  # noqa: S101 - asked at the end of a test only
    assert metric is not None  # noqa: S101 - the type refuses a winner without its metric
    if is_query(metric):
        return _wins_by_rank(test.winner, metric, points)
    found = next((m for m in measurements or () if m.metric == metric.name), None)
    shares = _shares_of(metric, found) if found is not None else None
    if found is None or shares is None or shares.serving is None:
        return False, f"metric {metric.name}: nothing could be measured, so nothing is proven"
    if test.winner.better == "Higher":
        shares = Shares(shares.serving, shares.candidate)
    limit = judge.Rule(metric.name, margin=-float(test.winner.margin), min_samples=metric.min_samples or MIN_SAMPLES)
    alpha = 1 - float(metric.confidence or CONFIDENCE)
    verdict = judge.judge(limit, Measurement(metric.name, found.at, shares, found.query), alpha=alpha)
    return verdict.outcome is Outcome.PASS, f"metric {metric.name}: {verdict.message}"


def _wins_by_rank(rule: api.Winner, metric: api.Metric, points: Points | None) -> tuple[bool, str]:
    if points is None or points.failure is not None:
        why = points.failure.message if points is not None and points.failure is not None else "nothing was measured"
        return False, f"metric {metric.name}: {why}; nothing is proven"
    verdict = ranks.decide_winner(
        metric.name,
        points.candidate,
        points.serving,
        alpha=1 - float(metric.confidence or CONFIDENCE),
        higher_is_better=rule.better == "Higher",
        margin=float(rule.margin),
    )
    told = f"{verdict.message}; {points.why}" if points.why else verdict.message
    return verdict.outcome is Outcome.PASS, f"metric {metric.name}: {told}"


def _shares_of(metric: api.Metric, found: Measurement) -> Shares | None:
    result = found.result
    if isinstance(result, Histogram) and metric.threshold is not None and result.serving is not None:
        arms = [over(buckets, seconds(metric.threshold)) for buckets in (result.candidate, result.serving)]
        return Shares(arms[0], arms[1]) if arms[0] is not None else None
    return result if isinstance(result, Shares) else None


def noted(
    record: Record, verdicts: tuple[Verdict, ...], outcome: Outcome | None, measured: Mapping[str, datetime],
    now: datetime, *, hold: timedelta = timedelta(0), weight: int | None = None, fresh: bool = False,
) -> Record:  # fmt: skip
    """`record` with the verdicts of the present step: a metric's when its outcome or reason has changed, when a look
    was out of its limits, when what is written is old, and all of them with `fresh` (at a transition). `weight`: the
    share that the candidate was seen to have, written with them."""
    entry = record.step_status
    if entry is None:
        return record
    began = entry.confirmed_at or entry.started_at
    known = _known(record)
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
        # A Pass shortly before the step's end is written with that.
        soon = verdict.outcome is Outcome.PASS and began + hold - now <= REFRESH
        changed = (
            (
                not undecided
                and not soon
                and (old is None or (old.outcome, old.reason) != (verdict.outcome, verdict.reason))
            )
            or failures != ((old.failures or 0) if old is not None else 0)
            or (news and (fresh or at - before >= max(REFRESH, hold / 2)))
        )
        if changed:
            entries[verdict.metric] = _status(record.step, verdict, failures, at)
    if entries != known and weight is not None:
        record = record.but(observed_weight=weight)
    others = tuple(entry for entry in record.status.verdicts if entry.step != record.step)
    if entries == known and outcome not in (Outcome.FAIL, Outcome.ERROR):
        return record
    return record.but(
        verdicts=(*others, *entries.values()), verdict=str(outcome) if outcome is not None else record.status.verdict
    )


def _known(record: Record) -> dict[str, VerdictStatus]:
    return {entry.metric: entry for entry in record.status.verdicts if entry.step == record.step}


def _status(step: int, verdict: Verdict, failures: int, at: datetime) -> VerdictStatus:
    return VerdictStatus(
        step=step,
        metric=verdict.metric,
        outcome=verdict.outcome,
        reason=verdict.reason,
        message=verdict.message,
        candidate=_text(verdict.candidate),
        serving=_text(verdict.serving),
        low=_text(verdict.low),
        high=_text(verdict.high),
        limit=_text(verdict.limit),
        samples=verdict.samples,
        serving_samples=verdict.serving_samples,
        failures=failures or None,
        dry_run=verdict.dry_run or None,
        query=verdict.query or None,
        at=at,
    )


def _text(number: float | None) -> str | None:
    return None if number is None else f"{number:.6g}"
