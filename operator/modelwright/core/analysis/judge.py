"""Judges measurements by a metric's limits and its failureLimit. No evidence is never a Pass.

Harm is detected early: Fail as soon as it is proven that a limit is broken, at any number of requests. A Pass needs
proof too: that all limits hold, and that both revisions have answered enough requests. Any other verdict is
Inconclusive, with a message on the missing evidence. The proofs are always valid (`blocks`, `sequential`), so frequent
measurements don't weaken them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from modelwright.api.reasons import Reason
from modelwright.core.analysis import betting, figure_evidence
from modelwright.core.analysis.blocks import DifferenceEvidence, pair_blocks
from modelwright.core.analysis.counters import count_over, estimate_quantile, find_boundary
from modelwright.core.analysis.dispersion import MAX_DISPERSION, estimate_dispersion
from modelwright.core.analysis.evidence import (
    Arm,
    Block,
    Buckets,
    Histogram,
    Measurement,
    MeasurementFailure,
    MetricValue,
    Outcome,
    PairedRequests,
    RequestShares,
    ValueSample,
    Verdict,
)
from modelwright.core.analysis.figure_limits import FigureLimit, describe_comparison, weigh_evidence
from modelwright.core.analysis.planning import Levels, find_smallest
from modelwright.core.analysis.report_figures import Figure
from modelwright.core.analysis.sequential import Interval, difference_interval, share_interval

UNBLOCKED_LEVEL_SHARE = 1 / 64
"""Part of a Fail's level for the time in which no block has ended yet: requests are judged by their sums then, which is
a separate test. It is small, since only gross harm shows in so short a time."""

Blocks = tuple[tuple[Block, ...], tuple[Block, ...]]
"""Blocks of the candidate and of the serving revision."""

_OUTCOMES_BY_SEVERITY = (Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.ERROR, Outcome.FAIL)


@dataclass(frozen=True, slots=True)
class MetricLimits:
    """The limits of one metric, at least one of `margin`, `max` and `min`; all of those given must hold.

    - `margin`: tolerated difference for the worse to the serving revision.
    - `max`, `min`: limits of the metric's own value: a share (0 to 1), seconds for a `percentile`, else its unit.
    - `min_samples`: requests that each revision must have answered for a Pass, or answers that were compared.
    - `threshold` (seconds): the metric is the share of a histogram's requests that took longer.
    - `percentile` (0 to 1): the metric is that percentile of a histogram; its `margin` is a share of requests.
    - `burst`: requests that share their fate, and count as one.
    - `higher_is_better`: for the margin of a value.
    - `complete_at` (unix seconds): earlier blocks may lack requests, which are counted when they end; half of the
      evidence for a Pass must be from blocks that start later.
    - `failures_allowed`: tolerated measurements of a value out of its limits; `failures_so_far`: the earlier ones.

    Raises ValueError without a limit, for a percentile with `min`, and for less than one sample.
    """

    name: str
    margin: float | None = None
    max: float | None = None
    min: float | None = None
    min_samples: int = 300
    threshold: float | None = None
    percentile: float | None = None
    burst: int = 1
    complete_at: float = -math.inf
    higher_is_better: bool = False
    failures_allowed: int = 0
    failures_so_far: int = 0
    dry_run: bool = False

    def __post_init__(self) -> None:
        if not self.limit_count:
            raise ValueError(f"metric {self.name} has no margin, max or min: without a limit it decides nothing")
        if self.percentile is not None and self.min is not None:
            raise ValueError(f"metric {self.name}: min has no effect on a percentile of latency, where less is better")

        if self.min_samples < 1:
            raise ValueError(f"metric {self.name}: min_samples is {self.min_samples}, and must be at least 1")

    @property
    def limit_count(self) -> int:
        """Number of limits that share the level of a Fail."""
        return sum(limit is not None for limit in (self.margin, self.max, self.min))


def judge_metric(metric: MetricLimits, measurement: Measurement, *, levels: Levels) -> Verdict:
    """Judge one measurement of one metric.

    `levels` are the probabilities that this metric ever wrongly passes and fails in this step
    (`planning.split_levels`); its limits share that of a Fail, and must all pass.
    """
    levels = Levels(levels.passes, levels.fails / metric.limit_count)
    worst = max(_judge_limits(metric, measurement, levels), key=_severity_rank)
    message = f"{worst.message}; in flight: {measurement.in_flight}" if measurement.in_flight else worst.message
    return replace(worst, message=message, dry_run=metric.dry_run, query=measurement.query)


def combine_verdicts(verdicts: Iterable[Verdict], *, declared: Collection[str]) -> Outcome:
    """Return the worst of the verdicts: Fail, Error, Inconclusive, Pass, in this order. Dry runs don't count.

    `declared` names the deciding metrics, without dry runs. A metric without a verdict is Inconclusive, and so is an
    empty list.
    """
    deciding = [verdict for verdict in verdicts if not verdict.dry_run]
    missing = set(declared) - {verdict.metric for verdict in deciding}
    outcomes = [verdict.outcome for verdict in deciding] + [Outcome.INCONCLUSIVE for _ in missing]
    return max(outcomes, key=_OUTCOMES_BY_SEVERITY.index, default=Outcome.INCONCLUSIVE)


def _severity_rank(verdict: Verdict) -> int:
    return _OUTCOMES_BY_SEVERITY.index(verdict.outcome)


def _judge_limits(metric: MetricLimits, measurement: Measurement, levels: Levels) -> list[Verdict]:
    """Judge each limit alone; the limits of values together."""
    result = measurement.result
    if isinstance(result, MeasurementFailure):
        return [Verdict(metric.name, Outcome.ERROR, result.reason, result.message, permanent=result.permanent)]
    if isinstance(result, MetricValue):
        return [_judge_value(metric, result)]
    if isinstance(result, Figure):
        return [_judge_figure(metric, result, levels)]
    if isinstance(result, ValueSample) and metric.margin is None:
        return _judge_sample(metric, result, levels)
    if isinstance(result, Histogram) and metric.percentile is not None:
        return _judge_percentile(metric, metric.percentile, result, levels)
    if isinstance(result, Histogram) and metric.threshold is not None:
        return _judge_over_threshold(metric, metric.threshold, result, levels)
    if isinstance(result, RequestShares) and metric.percentile is None:
        return _judge_shares(metric, result, levels)
    wanted = (
        "a histogram" if isinstance(result, RequestShares | ValueSample) else "bad and all requests, not a histogram"
    )
    return [_error_verdict(metric, Reason.UNEXPECTED_MEASUREMENT, f"the source must give {wanted} for this metric")]


def _error_verdict(metric: MetricLimits, reason: str, message: str) -> Verdict:
    return Verdict(metric.name, Outcome.ERROR, reason, message, permanent=True)


def _no_serving_verdict(metric: MetricLimits) -> Verdict:
    message = "nothing was measured of the serving revision, which the margin compares with"
    return Verdict(metric.name, Outcome.INCONCLUSIVE, Reason.NO_SERVING_DATA, message, limit=metric.margin)


@dataclass(frozen=True, slots=True)
class _LimitClaim:
    """The claim that a share, or the difference of two, is at most (else at least) `limit`.

    `interval_at(f)` is its interval, and `decide_at(f)` its decision, as `decide`, if there were f times as many
    requests with the same shares. `dispersion` is the estimate, where there is one.
    """

    interval_at: Callable[[float], Interval]
    limit: float
    at_most: bool
    what: str
    decide_at: Callable[[float], bool | None] | None = None
    dispersion: float | None = None
    hangs: bool = False
    """Whether only evidence from requests that had the time to end is missing."""
    waits: bool = False
    """Whether the claim can't pass yet because no block of time has ended."""

    def decide(self, factor: float = 1.0) -> bool | None:
        """Decide the claim. True: proven. False: disproven. None: undecided."""
        if self.decide_at is not None:
            return self.decide_at(factor)
        interval = self.interval_at(factor)
        if interval.high <= self.limit if self.at_most else interval.low >= self.limit:
            return True
        return False if (interval.low > self.limit if self.at_most else interval.high < self.limit) else None


def _judge_shares(metric: MetricLimits, shares: RequestShares, levels: Levels) -> list[Verdict]:
    candidate, serving = shares.candidate, shares.serving
    verdicts = []
    if metric.margin is not None:
        if shares.pairs is not None:
            verdicts.append(_judge_pairs(metric, metric.margin, shares.pairs, levels))
        elif serving is None:
            verdicts.append(_no_serving_verdict(metric))
        else:
            claim = _difference_claim(metric, metric.margin, shares, serving, levels)
            verdict = _judge_claim(metric, claim, candidate, serving, Reason.WORSE_THAN_SERVING)
            verdicts.append(replace(verdict, blocks=shares.blocks))
    for limit, at_most in ((metric.max, True), (metric.min, False)):
        if limit is not None:
            claim = _share_claim(metric, limit, at_most, candidate, levels, shares.blocks)
            verdicts.append(_judge_claim(metric, claim, candidate, None, Reason.LIMIT_EXCEEDED))
    return verdicts


def _share_claim(
    metric: MetricLimits,
    limit: float,
    at_most: bool,
    arm: Arm,
    levels: Levels,
    blocks: Blocks | None,
    subject: str = "share",
) -> _LimitClaim:
    """Claim a limit of one share, by an interval from the sums.

    The dispersion is estimated beside the serving revision only, where common influences cancel out.
    """

    def interval(factor: float) -> Interval:
        trials, events = arm.trials * factor / metric.burst, arm.events * factor / metric.burst
        passes, fails = (share_interval(trials, events, level) for level in (levels.passes, levels.fails))
        return Interval(fails.low, passes.high) if at_most else Interval(passes.low, fails.high)

    return _LimitClaim(interval, limit, at_most, subject, dispersion=_burst_dispersion(metric, blocks))


def _burst_dispersion(metric: MetricLimits, blocks: Blocks | None) -> float | None:
    """Estimate the dispersion; None without blocks in which both revisions have requests."""
    pairs = () if blocks is None else pair_blocks(*blocks, burst=metric.burst)
    return estimate_dispersion(pairs) if pairs else None


def _difference_claim(
    metric: MetricLimits, margin: float, shares: RequestShares, serving: Arm, levels: Levels
) -> _LimitClaim:
    """Claim a limit of the difference, by blocks where the source has them; else by sums, which takes more requests."""
    if shares.blocks is None:
        by_sums = functools.partial(_interval_by_sums, metric, shares.candidate, serving, levels)
        return _LimitClaim(by_sums, margin, True, "difference")
    pairs = pair_blocks(*shares.blocks, burst=metric.burst, complete_at=metric.complete_at)
    if not pairs:
        return _claim_before_blocks(metric, margin, shares.candidate, serving, levels)
    evidence, fails = DifferenceEvidence.from_pairs(pairs, margin), levels.fails * (1 - UNBLOCKED_LEVEL_SHARE)
    return _LimitClaim(
        lambda _: evidence.confidence_interval(levels.passes, fails),
        margin,
        True,
        "difference",
        functools.partial(evidence.decide, levels.passes, fails),
        estimate_dispersion(pairs),
        evidence.seems_within(levels.passes),
    )


def _interval_by_sums(metric: MetricLimits, one: Arm, zero: Arm, levels: Levels, factor: float) -> Interval:
    times = factor / metric.burst
    passes, fails = (
        difference_interval(one.trials * times, one.events * times, zero.trials * times, zero.events * times, level)
        for level in (levels.passes, levels.fails)
    )
    return Interval(fails.low, passes.high)


def _claim_before_blocks(metric: MetricLimits, margin: float, one: Arm, zero: Arm, levels: Levels) -> _LimitClaim:
    """No block has ended in which both have requests: gross harm fails, and nothing passes."""
    early = Levels(levels.passes, levels.fails * UNBLOCKED_LEVEL_SHARE)

    def interval(factor: float) -> Interval:
        return Interval(_interval_by_sums(metric, one, zero, early, factor).low, 1.0)

    def decides(factor: float) -> bool | None:
        return False if interval(factor).low > margin else None

    return _LimitClaim(interval, margin, True, "difference", decides, waits=True)


def _judge_sample(metric: MetricLimits, sample: ValueSample, levels: Levels) -> list[Verdict]:
    return [
        _judge_claim(
            metric, _mean_claim(metric, sample, limit, levels, at_most, "share"), sample, None, Reason.LIMIT_EXCEEDED
        )
        for limit, at_most in ((metric.max, True), (metric.min, False))
        if limit is not None
    ]


def _judge_pairs(metric: MetricLimits, margin: float, pairs: PairedRequests, levels: Levels) -> Verdict:
    """Compare by the requests that were bad at one revision only.

    Those that were bad at both carry no information on the difference, and would only add variance.
    """
    claim = _mean_claim(metric, pairs.differences, margin, levels, True, "difference")
    verdict = _judge_claim(metric, claim, pairs.candidate, pairs.serving, Reason.WORSE_THAN_SERVING)
    alone = f"bad at one alone: {pairs.candidate_only} and {pairs.serving_only}"
    return replace(verdict, message=f"{verdict.message}; {alone}")


def _mean_claim(
    metric: MetricLimits, sample: ValueSample, limit: float, levels: Levels, at_most: bool, subject: str
) -> _LimitClaim:
    def counted(factor: float) -> ValueSample:
        return sample.scale_by(factor / metric.burst)

    return _LimitClaim(
        lambda factor: betting.mean_interval(counted(factor), levels.passes, levels.fails, at_most=at_most),
        limit,
        at_most,
        subject,
        lambda factor: betting.decide_mean(counted(factor), limit, levels.passes, levels.fails, at_most=at_most),
    )


def _judge_claim(
    metric: MetricLimits, claim: _LimitClaim, candidate: Arm | ValueSample, serving: Arm | None, broken: str
) -> Verdict:
    interval, decided = claim.interval_at(1.0), claim.decide()
    short = [
        f"{arm.trials} of {metric.min_samples} {_trial_noun(arm)} by the {name}"
        for name, arm in (("candidate", candidate), ("serving revision", serving))
        if arm is not None and arm.trials < metric.min_samples
    ]
    missing = ""
    if decided is False:
        outcome, reason = Outcome.FAIL, broken
    elif short:
        outcome, reason, missing = Outcome.INCONCLUSIVE, Reason.INSUFFICIENT_SAMPLES, " and ".join(short)
    elif claim.waits:
        outcome, reason = Outcome.INCONCLUSIVE, Reason.INSUFFICIENT_EVIDENCE
        missing = "no block of time (15 s and longer) in which both revisions answered requests has ended yet"
    elif decided and (claim.dispersion or 0.0) > MAX_DISPERSION:
        outcome, reason = Outcome.INCONCLUSIVE, Reason.OVERDISPERSED
        missing = f"bad requests come in bursts of about {claim.dispersion:.1f}: set the metric's burst, or wait"
    elif decided:
        outcome, reason = Outcome.PASS, Reason.WITHIN_LIMITS
    elif claim.hangs:
        outcome, reason = Outcome.INCONCLUSIVE, Reason.REQUESTS_NOT_ENDED
        missing = "half of the evidence must be from after the first spec.serving.maxRequestSeconds of the step"
    else:
        outcome, reason, missing = (
            Outcome.INCONCLUSIVE,
            Reason.INSUFFICIENT_EVIDENCE,
            _describe_missing_requests(claim, candidate),
        )
    unit = "points" if claim.what == "difference" else "%"
    bound = "at most" if claim.at_most else "at least"
    parts = [
        missing,
        f"candidate {_describe_trials(candidate)}",
        "" if serving is None else f"serving {_describe_trials(serving)}",
        f"{claim.what} {_format_percent(interval.low)} to {_format_percent(interval.high)} {unit}, "
        f"limit {bound} {_format_percent(claim.limit)}",
        "" if claim.dispersion is None else f"dispersion {claim.dispersion:.1f}",
    ]
    return Verdict(
        metric.name,
        outcome,
        reason,
        "; ".join(part for part in parts if part),
        candidate=candidate.share,
        serving=None if serving is None else serving.share,
        low=interval.low,
        high=interval.high,
        limit=claim.limit,
        samples=candidate.trials,
        serving_samples=None if serving is None else serving.trials,
    )


def _describe_missing_requests(claim: _LimitClaim, candidate: Arm | ValueSample) -> str:
    factor = find_smallest(lambda f: claim.decide(f) is not None, 1.0, 64.0, within=0.05)
    if factor is None:
        return "too close to the limit to be decided soon"
    more = math.ceil(candidate.trials * (factor - 1))
    return f"about {_round_two_digits(more)} more requests of the candidate are expected to decide"


def _round_two_digits(number: int) -> int:
    """Round to two leading digits."""
    return round(number, min(0, 2 - len(str(number))))


def _describe_trials(arm: Arm | ValueSample) -> str:
    noun = "answers" if isinstance(arm, ValueSample) else "requests"
    return f"no {noun}" if arm.share is None else f"{_format_percent(arm.share)} % of {arm.trials} {noun}"


def _trial_noun(trials: Arm | ValueSample) -> str:
    return "answers" if isinstance(trials, ValueSample) else "requests answered"


def _format_percent(share: float) -> str:
    return f"{round(100 * share, 2) + 0.0:.2f}"


def _judge_over_threshold(metric: MetricLimits, threshold: float, result: Histogram, levels: Levels) -> list[Verdict]:
    candidate = count_over(result.candidate, threshold)
    if candidate is None:
        return [_no_boundary_verdict(metric, threshold, result.candidate, "candidate")]
    serving, blocks = None, None
    if result.serving is not None:
        serving, blocks = count_over(result.serving, threshold), _blocks_over(result, threshold)
        if serving is None and metric.margin is not None:
            return [_no_boundary_verdict(metric, threshold, result.serving, "serving revision")]
    return _judge_shares(metric, RequestShares(candidate, serving, _pairs_over(result, threshold), blocks), levels)


def _pairs_over(result: Histogram, threshold: float) -> PairedRequests | None:
    bound = find_boundary(result.candidate, threshold)
    return dict(result.pairs).get(threshold if bound is None else bound)


def _blocks_over(result: Histogram, threshold: float) -> Blocks | None:
    """Return the blocks of requests over a threshold; None if one lacks its boundary, as pods with other buckets do."""
    if result.blocks is None:
        return None
    ones, zeros = [], []
    for end, candidate, serving in result.blocks:
        one, zero = count_over(candidate, threshold), count_over(serving, threshold)
        if one is None or zero is None:
            return None
        ones.append(Block(end, one.trials, one.events))
        zeros.append(Block(end, zero.trials, zero.events))
    return tuple(ones), tuple(zeros)


def _no_boundary_verdict(metric: MetricLimits, threshold: float, buckets: Buckets, revision: str) -> Verdict:
    bounds = ", ".join(f"{bound:g}" for bound, _ in buckets if math.isfinite(bound))
    return _error_verdict(
        metric,
        Reason.LATENCY_THRESHOLD_NOT_A_BUCKET,
        f"{threshold:g} s is no bucket boundary of the {revision}'s histogram, so the requests over it can't be "
        f"counted; take one of {bounds} s",
    )


def _judge_percentile(metric: MetricLimits, q: float, result: Histogram, levels: Levels) -> list[Verdict]:
    """Judge a percentile: it is at most a time exactly when the share of requests over that time is at most 1 - q."""
    verdicts = []
    if metric.margin is not None:
        if result.serving is None:
            verdicts.append(_no_serving_verdict(metric))
        else:
            verdicts.append(_judge_percentile_margin(metric, metric.margin, q, result, result.serving, levels))
    if metric.max is not None:
        candidate = count_over(result.candidate, metric.max)
        if candidate is None:
            return [_no_boundary_verdict(metric, metric.max, result.candidate, "candidate")]
        blocks = _blocks_over(result, metric.max)
        claim = _share_claim(metric, 1 - q, True, candidate, levels, blocks, f"share over {metric.max:g} s")
        verdicts.append(_judge_claim(metric, claim, candidate, None, Reason.LIMIT_EXCEEDED))
    seconds = estimate_quantile(result.candidate, q)
    serving_seconds = None if result.serving is None else estimate_quantile(result.serving, q)
    estimates = f"p{100 * q:g} {_format_seconds(seconds)}"
    if serving_seconds is not None:
        estimates += f", serving {_format_seconds(serving_seconds)}"
    return [
        replace(verdict, candidate=seconds, serving=serving_seconds, message=f"{estimates}; {verdict.message}")
        for verdict in verdicts
    ]


def _judge_percentile_margin(
    metric: MetricLimits, margin: float, q: float, result: Histogram, zero: Buckets, levels: Levels
) -> Verdict:
    """Compare the shares over the bucket bound that holds the serving revision's percentile.

    The data choose the bound, so the levels are split over all bounds that could have been chosen.
    """
    one = result.candidate
    finite = [bound for bound, _ in zero or one if math.isfinite(bound)]
    at = next((bound for bound, count in zero if count >= q * zero[-1][1]), math.inf)
    at = min(at, finite[-1]) if finite else at
    candidate, serving = count_over(one, at), count_over(zero, at)
    if candidate is None or serving is None:
        return _no_boundary_verdict(metric, at, one, "candidate")
    each = Levels(levels.passes / max(1, len(finite)), levels.fails / max(1, len(finite)))
    if (pairs := dict(result.pairs).get(at)) is not None:
        verdict = _judge_pairs(metric, margin, pairs, each)
    else:
        blocks = _blocks_over(result, at)
        claim = _difference_claim(metric, margin, RequestShares(candidate, serving, blocks=blocks), serving, each)
        verdict = replace(_judge_claim(metric, claim, candidate, serving, Reason.WORSE_THAN_SERVING), blocks=blocks)
    return verdict if math.isinf(at) else replace(verdict, message=f"requests over {at:g} s: {verdict.message}")


def _format_seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g} s"


def _judge_value(metric: MetricLimits, result: MetricValue) -> Verdict:
    value, serving = _finite_or_none(result.candidate), _finite_or_none(result.serving)
    if value is None:
        why = result.why or "the candidate has no value"
        return Verdict(metric.name, Outcome.INCONCLUSIVE, result.reason, why, serving=serving)
    out: list[tuple[str, float, str]] = []
    if metric.max is not None and value > metric.max:
        out.append((f"above the limit of {metric.max:g}", metric.max, Reason.LIMIT_EXCEEDED))
    if metric.min is not None and value < metric.min:
        out.append((f"below the limit of {metric.min:g}", metric.min, Reason.LIMIT_EXCEEDED))
    if metric.margin is not None and serving is not None:
        worse = serving - value if _is_higher_better(metric) else value - serving
        if worse > metric.margin:
            out.append((f"worse by {worse:g}, tolerated {metric.margin:g}", metric.margin, Reason.WORSE_THAN_SERVING))
    values = f"candidate {value:g}" + ("" if serving is None else f", serving {serving:g}")
    verdict = Verdict(metric.name, Outcome.PASS, Reason.WITHIN_LIMITS, f"{values}; within the limits", value, serving)
    if out:
        message, limit, reason = out[0]
        return _out_of_limits_verdict(
            metric, replace(verdict, reason=reason, message=f"{values}: {message}", limit=limit)
        )
    if metric.failures_so_far > metric.failures_allowed:
        return _earlier_failures_verdict(metric, replace(verdict, message=values))
    if metric.margin is not None and serving is None:
        missing = _no_serving_verdict(metric)
        return replace(missing, candidate=value, message=f"{values}; {result.why or missing.message}")
    return verdict


def _out_of_limits_verdict(metric: MetricLimits, verdict: Verdict) -> Verdict:
    """Return the verdict on a measurement out of the limits: a Fail, unless it is still tolerated."""
    failures = metric.failures_so_far + 1
    if failures > metric.failures_allowed:
        return replace(verdict, outcome=Outcome.FAIL, out_of_limits=True)
    message = f"{verdict.message}; {failures} of {metric.failures_allowed} such measurements tolerated"
    reason = Reason.FAILURE_TOLERATED
    return replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason, message=message, out_of_limits=True)


def _earlier_failures_verdict(metric: MetricLimits, verdict: Verdict) -> Verdict:
    """Return the Fail after more earlier measurements out of the limits than are tolerated."""
    message = (
        f"{verdict.message}; {metric.failures_so_far} earlier measurements were out of the limits, "
        f"{metric.failures_allowed} tolerated"
    )
    return replace(verdict, outcome=Outcome.FAIL, reason=Reason.LIMIT_EXCEEDED, message=message)


def _judge_figure(metric: MetricLimits, figure: Figure, levels: Levels) -> Verdict:
    """Judge a Job's figure with the evaluation gate's code.

    A figure without its error never passes; out of the limits it fails as any value does.
    """
    serving = None if figure.serving is None else float(figure.serving)
    verdicts = []
    for limit in _list_figure_limits(metric):
        if limit.versus_serving and serving is None:
            verdicts.append(replace(_no_serving_verdict(metric), candidate=float(figure.candidate)))
            continue
        verdicts.append(_judge_figure_limit(metric, figure, limit, levels))
    worst = max(verdicts, key=lambda verdict: (verdict.out_of_limits, _severity_rank(verdict)))
    worst = replace(worst, candidate=float(figure.candidate), serving=serving, samples=figure.n)
    if worst.out_of_limits:
        return _out_of_limits_verdict(metric, worst)
    return _earlier_failures_verdict(metric, worst) if metric.failures_so_far > metric.failures_allowed else worst


def _list_figure_limits(metric: MetricLimits) -> list[FigureLimit]:
    """List the metric's limits in the form of the evaluation gate's."""
    limits = [FigureLimit("min", metric.min, True, False)] if metric.min is not None else []
    if metric.max is not None:
        limits.append(FigureLimit("max", metric.max, False, False))
    if metric.margin is not None:
        higher = _is_higher_better(metric)
        limits.append(FigureLimit("margin", -metric.margin if higher else metric.margin, higher, True))
    return limits


def _judge_figure_limit(metric: MetricLimits, figure: Figure, limit: FigureLimit, levels: Levels) -> Verdict:
    """Judge a figure by one limit.

    The verdict is `out_of_limits` when that is proven, or when a figure without its error is beyond the limit.
    """
    evidence = figure.difference_evidence(higher=limit.at_least) if limit.versus_serving else figure.value_evidence()
    broken = Reason.WORSE_THAN_SERVING if limit.versus_serving else Reason.LIMIT_EXCEEDED
    if isinstance(evidence, str):
        value = float(figure.candidate - (figure.serving or 0) if limit.versus_serving else figure.candidate)
        out = value < limit.value if limit.at_least else value > limit.value
        text = f"{describe_comparison(figure, limit)}, limit {limit.name} {limit.value:g}: {evidence}"
        reason = broken if out else Reason.UNCERTAINTY_MISSING
        return Verdict(metric.name, Outcome.INCONCLUSIVE, reason, text, limit=limit.value, out_of_limits=out)
    outcome, text = weigh_evidence(figure, limit, evidence, levels.passes, levels.fails)
    reasons = {Outcome.PASS: Reason.WITHIN_LIMITS, Outcome.FAIL: broken, Outcome.INCONCLUSIVE: Reason.TOO_FEW_EXAMPLES}
    if outcome is Outcome.PASS:
        text = f"{describe_comparison(figure, limit)}, {text}"
    return Verdict(
        metric.name,
        outcome,
        reasons[outcome],
        text,
        low=figure_evidence.lower_bound(evidence, levels.passes),
        high=figure_evidence.upper_bound(evidence, levels.passes),
        limit=limit.value,
        out_of_limits=outcome is Outcome.FAIL,
    )


def _finite_or_none(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _is_higher_better(metric: MetricLimits) -> bool:
    return metric.higher_is_better or (metric.min is not None and metric.max is None)
