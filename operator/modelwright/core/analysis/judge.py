"""What a measurement says about a metric's limits. No evidence is never a Pass.

Harm is found early: Fail as soon as the interval lies beyond a limit, at any number of requests. Going on needs proof
too: Pass when the interval lies within all limits, and both revisions have answered enough requests. Everything else is
Inconclusive and says what is missing. The intervals hold at all looks together (`sequential`), so looking often costs
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from modelwright.api.reasons import Reason
from modelwright.core.analysis.counters import over, quantile
from modelwright.core.analysis.evidence import (
    Arm,
    Buckets,
    Failure,
    Histogram,
    Measurement,
    Outcome,
    Shares,
    Value,
    Verdict,
)
from modelwright.core.analysis.planning import smallest
from modelwright.core.analysis.sequential import Interval, difference_interval, share_interval

_SEVERITY = (Outcome.NOT_APPLICABLE, Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.ERROR, Outcome.FAIL)


@dataclass(frozen=True, slots=True)
class Rule:
    """The limits of one metric, at least one of `margin`, `max` and `min`; all of those given must hold.

    `margin`: how much worse than the serving revision is tolerated. `max`, `min`: limits of the metric's own value: a
    share (0 to 1), seconds for a `percentile`, else the metric's unit. `min_samples`: requests that each revision must
    have answered for a Pass. `threshold` (seconds): the metric is the share of a histogram's requests that took longer.
    `percentile` (0 to 1): it is that percentile of a histogram; its `margin` is a share of requests. `good`: it is the
    share of good requests (agreement), while an `Arm` counts the bad ones. `higher_is_better`: of a value, for its
    margin. `failures_allowed`: looks of a value out of its limits that are let pass; `failures_so_far`: those that
    earlier looks had. Raises ValueError without a limit, for a percentile with `min`, and for less than one sample.
    """

    name: str
    margin: float | None = None
    max: float | None = None
    min: float | None = None
    min_samples: int = 300
    threshold: float | None = None
    percentile: float | None = None
    good: bool = False
    higher_is_better: bool = False
    failures_allowed: int = 0
    failures_so_far: int = 0
    dry_run: bool = False

    def __post_init__(self) -> None:
        if not self.limits:
            raise ValueError(f"metric {self.name} has no margin, max or min: without a limit it decides nothing")
        if self.percentile is not None and self.min is not None:
            raise ValueError(f"metric {self.name}: min has no effect on a percentile of latency, where less is better")

        if self.min_samples < 1:
            raise ValueError(f"metric {self.name}: min_samples is {self.min_samples}, and must be at least 1")

    @property
    def limits(self) -> int:
        """How many limits share the level."""
        return sum(limit is not None for limit in (self.margin, self.max, self.min))


def judge(rule: Rule, measurement: Measurement, *, alpha: float, first_revision: bool = False) -> Verdict:
    """The verdict on one metric at one look.

    `alpha`: the chance that the intervals of this metric in this step are ever wrong (`planning.alpha_each`); its
    limits share it. `first_revision`: nothing serves, so that a margin is NotApplicable while `max` and `min` hold.
    Without it a missing serving revision is missing evidence.
    """
    found = max(_findings(rule, measurement, alpha / rule.limits, first_revision), key=_severity)
    return replace(found, dry_run=rule.dry_run, query=measurement.query)


def combine(verdicts: Iterable[Verdict], *, declared: Collection[str]) -> Outcome:
    """The worst of the verdicts: Fail, Error, Inconclusive, Pass, in this order. Those of dry runs don't count.

    `declared`: names of the metrics that decide, so without dry runs. One without a verdict is Inconclusive.
    NotApplicable comes out when nothing was declared, or when no metric has anything to compare with, as for a first
    revision: that is no evidence, and the caller has to say what it does without.
    """
    deciding = [verdict for verdict in verdicts if not verdict.dry_run]
    missing = set(declared) - {verdict.metric for verdict in deciding}
    outcomes = [verdict.outcome for verdict in deciding] + [Outcome.INCONCLUSIVE for _ in missing]
    return max(outcomes, key=_SEVERITY.index, default=Outcome.NOT_APPLICABLE)


def _severity(verdict: Verdict) -> int:
    return _SEVERITY.index(verdict.outcome)


def _findings(rule: Rule, measurement: Measurement, alpha: float, first: bool) -> list[Verdict]:
    """What each limit says by itself; for values, what they say together."""
    result = measurement.result
    if isinstance(result, Failure):
        return [Verdict(rule.name, Outcome.ERROR, result.reason, result.message, permanent=result.permanent)]
    if isinstance(result, Value):
        return [_value(rule, result, first)]
    if isinstance(result, Histogram) and rule.percentile is not None:
        return _percentile(rule, rule.percentile, result, alpha, first)
    if isinstance(result, Histogram) and rule.threshold is not None:
        return _over(rule, rule.threshold, result, alpha, first)
    if isinstance(result, Shares) and rule.percentile is None:
        return _shares(rule, result, alpha, first)
    wanted = "a histogram" if isinstance(result, Shares) else "bad and all requests, not a histogram"
    return [_error(rule, Reason.UNEXPECTED_MEASUREMENT, f"the source must give {wanted} for this metric")]


def _error(rule: Rule, reason: str, message: str) -> Verdict:
    return Verdict(rule.name, Outcome.ERROR, reason, message, permanent=True)


def _nothing_serves(rule: Rule, first: bool) -> Verdict:
    if first:
        message = "nothing serves yet, so there is nothing to compare with"
        return Verdict(rule.name, Outcome.NOT_APPLICABLE, Reason.NOTHING_TO_COMPARE, message, limit=rule.margin)
    message = "nothing was measured of the serving revision, which the margin compares with"
    return Verdict(rule.name, Outcome.INCONCLUSIVE, Reason.NO_SERVING_DATA, message, limit=rule.margin)


@dataclass(frozen=True, slots=True)
class _Claim:
    """That a share, or the difference of two, is at most (else at least) `limit`. `of(f)`: its interval if there were
    f times as many requests with the same shares."""

    of: Callable[[float], Interval]
    limit: float
    at_most: bool
    what: str

    def decided(self, factor: float = 1.0) -> bool | None:
        """True: proven. False: the opposite is. None: neither."""
        interval = self.of(factor)
        if interval.high <= self.limit if self.at_most else interval.low >= self.limit:
            return True
        return False if (interval.low > self.limit if self.at_most else interval.high < self.limit) else None


def _shares(rule: Rule, shares: Shares, alpha: float, first: bool) -> list[Verdict]:
    candidate, serving = shares.candidate, shares.serving
    found = []
    if rule.margin is not None:
        if serving is None:
            found.append(_nothing_serves(rule, first))
        else:
            margin = -rule.margin if rule.good else rule.margin
            claim = _Claim(_between(candidate, serving, alpha, rule.good), margin, not rule.good, "difference")
            found.append(_decide(rule, claim, candidate, serving, Reason.WORSE_THAN_SERVING))
    for limit, at_most in ((rule.max, True), (rule.min, False)):
        if limit is not None:
            claim = _Claim(_of(candidate, alpha, rule.good), limit, at_most, "share")
            found.append(_decide(rule, claim, candidate, None, Reason.LIMIT_EXCEEDED))
    return found


def _of(arm: Arm, alpha: float, good: bool = False) -> Callable[[float], Interval]:
    def interval(factor: float) -> Interval:
        bad = share_interval(arm.trials * factor, arm.events * factor, alpha)
        return Interval(1 - bad.high, 1 - bad.low) if good else bad

    return interval


def _between(one: Arm, zero: Arm, alpha: float, good: bool = False) -> Callable[[float], Interval]:
    def interval(f: float) -> Interval:
        bad = difference_interval(one.trials * f, one.events * f, zero.trials * f, zero.events * f, alpha)
        return Interval(-bad.high, -bad.low) if good else bad

    return interval


def _decide(rule: Rule, claim: _Claim, candidate: Arm, serving: Arm | None, broken: str) -> Verdict:
    interval, decided = claim.of(1.0), claim.decided()
    short = [
        f"{arm.trials} of {rule.min_samples} requests answered by the {name}"
        for name, arm in (("candidate", candidate), ("serving revision", serving))
        if arm is not None and arm.trials < rule.min_samples
    ]
    missing = ""
    if decided is False:
        outcome, reason = Outcome.FAIL, broken
    elif short:
        outcome, reason, missing = Outcome.INCONCLUSIVE, Reason.INSUFFICIENT_SAMPLES, " and ".join(short)
    elif decided:
        outcome, reason = Outcome.PASS, Reason.WITHIN_LIMITS
    else:
        outcome, reason, missing = Outcome.INCONCLUSIVE, Reason.INSUFFICIENT_EVIDENCE, _more(claim, candidate)
    unit = "points" if claim.what == "difference" else "%"
    bound = "at most" if claim.at_most else "at least"
    parts = [
        missing,
        f"candidate {_counted(candidate, rule.good)}",
        "" if serving is None else f"serving {_counted(serving, rule.good)}",
        f"{claim.what} {_percent(interval.low)} to {_percent(interval.high)} {unit}, "
        f"limit {bound} {_percent(claim.limit)}",
    ]
    return Verdict(
        rule.name,
        outcome,
        reason,
        "; ".join(part for part in parts if part),
        candidate=_shown(candidate, rule.good),
        serving=None if serving is None else _shown(serving, rule.good),
        low=interval.low,
        high=interval.high,
        limit=claim.limit,
        samples=candidate.trials,
        serving_samples=None if serving is None else serving.trials,
    )


def _more(claim: _Claim, candidate: Arm) -> str:
    factor = smallest(lambda f: claim.decided(f) is not None, 1.0, 64.0, within=0.05)
    if factor is None:
        return "too close to the limit to be decided soon"
    more = math.ceil(candidate.trials * (factor - 1))
    return f"as it looks, some {_rounded(more)} more requests of the candidate decide"


def _rounded(number: int) -> int:
    """To two leading digits."""
    return round(number, min(0, 2 - len(str(number))))


def _shown(arm: Arm, good: bool) -> float | None:
    return None if arm.share is None else 1 - arm.share if good else arm.share


def _counted(arm: Arm, good: bool) -> str:
    share = _shown(arm, good)
    return "no requests" if share is None else f"{_percent(share)} % of {arm.trials} requests"


def _percent(share: float) -> str:
    return f"{round(100 * share, 2) + 0.0:.2f}"


def _over(rule: Rule, threshold: float, result: Histogram, alpha: float, first: bool) -> list[Verdict]:
    candidate = over(result.candidate, threshold)
    if candidate is None:
        return [_no_boundary(rule, threshold, result.candidate, "candidate")]
    serving = None
    if result.serving is not None and rule.margin is not None:
        serving = over(result.serving, threshold)
        if serving is None:
            return [_no_boundary(rule, threshold, result.serving, "serving revision")]
    return _shares(rule, Shares(candidate, serving), alpha, first)


def _no_boundary(rule: Rule, threshold: float, buckets: Buckets, whose: str) -> Verdict:
    bounds = ", ".join(f"{bound:g}" for bound, _ in buckets if math.isfinite(bound))
    return _error(
        rule,
        Reason.LATENCY_THRESHOLD_NOT_A_BUCKET,
        f"{threshold:g} s is no bucket boundary of the {whose}'s histogram, so the requests over it can't be counted; "
        f"take one of {bounds} s",
    )


def _percentile(rule: Rule, q: float, result: Histogram, alpha: float, first: bool) -> list[Verdict]:
    """The percentile is at most a time exactly when the share of requests over that time is at most 1 - q."""
    found = []
    if rule.margin is not None:
        if result.serving is None:
            found.append(_nothing_serves(rule, first))
        else:
            found.append(_beyond_serving(rule, rule.margin, q, result.candidate, result.serving, alpha))
    if rule.max is not None:
        candidate = over(result.candidate, rule.max)
        if candidate is None:
            return [_no_boundary(rule, rule.max, result.candidate, "candidate")]
        claim = _Claim(_of(candidate, alpha), 1 - q, True, f"share over {rule.max:g} s")
        found.append(_decide(rule, claim, candidate, None, Reason.LIMIT_EXCEEDED))
    seconds = quantile(result.candidate, q)
    serving_seconds = None if result.serving is None else quantile(result.serving, q)
    told = f"p{100 * q:g} {_seconds(seconds)}"
    if serving_seconds is not None:
        told += f", serving {_seconds(serving_seconds)}"
    return [
        replace(verdict, candidate=seconds, serving=serving_seconds, message=f"{told}; {verdict.message}")
        for verdict in found
    ]


def _beyond_serving(rule: Rule, margin: float, q: float, one: Buckets, zero: Buckets, alpha: float) -> Verdict:
    """Compare the shares over the bucket bound that holds the serving revision's percentile.

    The data choose the bound, so the level is split over all bounds that could have been chosen.
    """
    finite = [bound for bound, _ in zero or one if math.isfinite(bound)]
    at = next((bound for bound, count in zero if count >= q * zero[-1][1]), math.inf)
    at = min(at, finite[-1]) if finite else at
    candidate, serving = over(one, at), over(zero, at)
    if candidate is None or serving is None:
        return _no_boundary(rule, at, one, "candidate")
    claim = _Claim(_between(candidate, serving, alpha / max(1, len(finite))), margin, True, "difference")
    found = _decide(rule, claim, candidate, serving, Reason.WORSE_THAN_SERVING)
    return found if math.isinf(at) else replace(found, message=f"requests over {at:g} s: {found.message}")


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g} s"


def _value(rule: Rule, result: Value, first: bool) -> Verdict:
    value, serving = _number(result.candidate), _number(result.serving)
    if value is None:
        why = result.why or "the candidate has no value"
        return Verdict(rule.name, Outcome.INCONCLUSIVE, Reason.NO_DATA, why, serving=serving)
    out: list[tuple[str, float, str]] = []
    if rule.max is not None and value > rule.max:
        out.append((f"above the limit of {rule.max:g}", rule.max, Reason.LIMIT_EXCEEDED))
    if rule.min is not None and value < rule.min:
        out.append((f"below the limit of {rule.min:g}", rule.min, Reason.LIMIT_EXCEEDED))
    if rule.margin is not None and serving is not None:
        worse = serving - value if _higher_is_better(rule) else value - serving
        if worse > rule.margin:
            out.append((f"worse by {worse:g}, tolerated {rule.margin:g}", rule.margin, Reason.WORSE_THAN_SERVING))
    told = f"candidate {value:g}" + ("" if serving is None else f", serving {serving:g}")
    found = Verdict(rule.name, Outcome.PASS, Reason.WITHIN_LIMITS, f"{told}; within the limits", value, serving)
    if out:
        message, limit, reason = out[0]
        failures = rule.failures_so_far + 1
        message = f"{told}: {message}"
        if failures <= rule.failures_allowed:
            message += f"; {failures} of {rule.failures_allowed} such looks tolerated"
            reason = Reason.FAILURE_TOLERATED
        outcome = Outcome.INCONCLUSIVE if reason == Reason.FAILURE_TOLERATED else Outcome.FAIL
        return replace(found, outcome=outcome, reason=reason, message=message, limit=limit, out_of_limits=True)
    if rule.failures_so_far > rule.failures_allowed:
        message = (
            f"{told}; {rule.failures_so_far} earlier looks were out of the limits, {rule.failures_allowed} tolerated"
        )
        return replace(found, outcome=Outcome.FAIL, reason=Reason.LIMIT_EXCEEDED, message=message)
    if rule.margin is not None and serving is None and not (first and rule.limits > 1):
        missing = _nothing_serves(rule, first)
        return replace(missing, candidate=value, message=f"{told}; {result.why or missing.message}")
    return found


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _higher_is_better(rule: Rule) -> bool:
    return rule.higher_is_better or (rule.min is not None and rule.max is None)
