"""Checks a RolloutPolicy alone: contradictions in it, and the rate of requests that decides it in time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from modelwright.api.common import parse_duration
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1 import policy as api
from modelwright.api.v1alpha1.model import Serving
from modelwright.core.analysis.ab_winner import NEEDED_POINTS
from modelwright.core.analysis.planning import (
    Levels,
    SampleSizeQuery,
    StepTraffic,
    estimate_plan_rate,
    estimate_step_seconds,
)
from modelwright.core.rollout import freeze, step_analysis
from modelwright.core.rollout.steps import GATE_ORDER, RolloutStep, StepKind, compile_steps

EXPECTED_RATE = 20.0
"""Requests per second that a Model is assumed to get: a policy that needs more gets a warning."""
USUAL_ERROR_SHARE, USUAL_SLOW_SHARE = 0.01, 0.05
"""Assumed shares of bad requests: of slow ones for latencies, of errors for all other metrics."""
USUAL_BUCKETS = 14
"""Assumed number of buckets of a histogram; a percentile's margin splits its error level over them."""
DEFAULT_REQUEST_TIME = timedelta(seconds=Serving().max_request_seconds)
"""Maximum duration of a request by default."""
_ANY_DAY = datetime(2026, 1, 1, tzinfo=UTC)


def find_problems(policy: api.RolloutPolicySpec) -> tuple[str, ...]:
    """List the problems because of which no Model could follow the policy, each naming its field."""
    steps = compile_steps(policy.strategy)
    return tuple(text for check in _CHECKS for text in check(policy, steps))


def _check_surge(policy: api.RolloutPolicySpec, _: tuple[RolloutStep, ...]) -> Iterator[str]:
    if policy.surge is not None and policy.surge.pods == 0:
        yield "spec.surge.pods: 0 leaves no room for a candidate beside what serves; use strategy.recreate"


def _check_unjudged_steps(policy: api.RolloutPolicySpec, steps: tuple[RolloutStep, ...]) -> Iterator[str]:
    """Report steps at which the candidate would answer requests that no metric judges."""
    for number, step in enumerate(steps, 1):
        if step_analysis.is_judgeable(policy, step):
            continue
        cause = "those it has are dry runs, or are not measured there (agreement and differences: only in mirror steps)"
        if step.weight == 100:
            cause = (
                "nothing serves beside the candidate there, so at least one metric needs a max or a min, and without "
                "dryRun"
            )
        yield f"spec.analysis.metrics: no metric judges step {number} ({_describe_step(step)}): {cause}"


def _describe_step(step: RolloutStep) -> str:
    share = step.mirror or step.weight
    return f"{step.kind} {share} %" if share else str(step.kind)


def _check_baseline(policy: api.RolloutPolicySpec, steps: tuple[RolloutStep, ...]) -> Iterator[str]:
    if policy.analysis is None or policy.analysis.baseline != "Fresh":
        return
    if policy.surge is not None:
        yield "spec.analysis.baseline: Fresh doesn't go with spec.surge"
    if any(50 < step.weight < 100 for step in steps):
        yield "spec.analysis.baseline: with Fresh the candidate can have at most 50 %, beside as many pods"


def _check_winner(policy: api.RolloutPolicySpec, _: tuple[RolloutStep, ...]) -> Iterator[str]:
    metric = step_analysis.winner_metric(policy)
    if metric is None:
        return
    refusal = f"spec.strategy.abTest.winner.metric: {metric.name} can't decide"
    if not step_analysis.can_decide_winner(metric):
        yield (
            f"{refusal}: a winner needs a counted share of requests (error-rate, latency-over, or prometheus with bad "
            "and total) or a prometheus query, not the value of one moment (http, job, throughput), and not a dry run"
        )
    elif metric.versus == "None":
        yield f"{refusal} with versus None: a winner is found by comparing"
    elif metric.prometheus is not None and not _distinguishes_revisions(metric.prometheus):
        yield f"{refusal}: nothing in its query tells the revisions apart; use $(REVISION), $(VERSION) or $(PODS)"
    elif step_analysis.is_query_metric(metric) and policy.analysis and policy.strategy.ab_test:
        yield from _check_test_duration(policy.analysis, policy.strategy.ab_test)


def _distinguishes_revisions(metric: api.PrometheusMetric) -> bool:
    text = f"{metric.query}{metric.bad}{metric.total}"
    return any(f"$({name})" in text for name in api.REVISION_PLACEHOLDERS)


def _check_test_duration(analysis: api.Analysis, test: api.ABTest) -> Iterator[str]:
    """Report an A/B test with too few points: those closer than an interval may be the same sample, and prove
    nothing."""
    if NEEDED_POINTS * parse_duration(analysis.interval) > parse_duration(test.duration):
        yield (
            f"spec.strategy.abTest.duration: {test.duration} has fewer than {NEEDED_POINTS} measurements, one each "
            f"{analysis.interval} (spec.analysis.interval), which a query needs to prove a winner"
        )


def _check_unused_analysis(policy: api.RolloutPolicySpec, steps: tuple[RolloutStep, ...]) -> Iterator[str]:
    is_used = any(
        not m.dry_run for step in steps if not step.is_promotion for m in step_analysis.metrics_for_step(policy, step)
    )
    if policy.analysis is not None and not is_used:
        yield (
            "spec.analysis is never used: in no step does the candidate answer requests that a metric without "
            "dryRun judges; leave it out, or add such a step"
        )


def find_deadline_problems(
    policy: api.RolloutPolicySpec, steps: tuple[RolloutStep, ...], longest: timedelta
) -> Iterator[str]:
    """Report a deadline that a Model can't meet whose requests may take `longest`: no step with evidence is shorter."""
    needed = sum(
        (step_analysis.minimum_hold(policy, step, longest) for step in steps if not step.is_promotion), timedelta(0)
    )
    own = sum((step.hold for step in steps if not step.is_promotion), timedelta(0))
    limit = timedelta(seconds=parse_duration(policy.deadline))
    if needed >= limit > own:
        yield (
            "spec.deadline: no step passes before the longest request has ended (spec.serving.maxRequestSeconds of "
            f"the Model, {longest.total_seconds():g} s), together "
            f"{_format_seconds(needed.total_seconds())}, and the deadline is "
            f"{policy.deadline}: make it longer, or requests shorter"
        )


def evidence_condition(policy: api.RolloutPolicySpec, steps: tuple[RolloutStep, ...]) -> tuple[bool, Reason, str]:
    """Return the condition EvidenceAsked, whether anything but time decides about a candidate: status, reason,
    message."""
    judged = sum(
        any(not m.dry_run for m in step_analysis.metrics_for_step(policy, step))
        for step in steps
        if not step.is_promotion
    )
    parts = [f"metrics at {judged} of {len(steps)} steps"] if judged else []
    parts += [
        f"gate {name}" for name in GATE_ORDER if policy.gates is not None and getattr(policy.gates, name) is not None
    ]
    parts += [f"approval at step {n}" for n, step in enumerate(steps, 1) if step.kind is StepKind.APPROVAL]
    if parts:
        return True, Reason.EVIDENCE_ASKED, "; ".join(parts)
    text = "it promotes by time alone: it has no analysis, no gate and no approval; spec.analysis asks for evidence"
    return False, Reason.PROMOTES_BY_TIME_ALONE, text


def find_warnings(policy: api.RolloutPolicySpec) -> Iterator[str]:
    """Report settings that can be followed but are probably not intended, each naming its field."""
    for metric in policy.analysis.metrics if policy.analysis is not None else ():
        no_room = metric.margin is not None and float(metric.margin) <= 0
        if no_room and api.is_share(metric) and metric.burst is None and not metric.dry_run:
            yield (
                f"spec.analysis.metrics[{metric.name}].margin: {metric.margin} leaves no room for bursts: where bad "
                "requests come in fives, half of the rollouts to a version that is as good are rolled back, and it is "
                "put in quarantine; write burst: the number of requests that share their fate (a call with three "
                "retries: 4; none: 1), or a margin above 0"
            )


def _check_freeze(policy: api.RolloutPolicySpec, _: tuple[RolloutStep, ...]) -> Iterator[str]:
    problem = freeze.find_window_problem(policy.freeze, _ANY_DAY)
    if problem is not None:
        yield problem


_CHECKS = (_check_surge, _check_unjudged_steps, _check_baseline, _check_winner, _check_unused_analysis, _check_freeze)


@dataclass(frozen=True, slots=True)
class Decidability:
    """Whether a policy is decided in time. `rate`: requests per second that this takes; None: no rate is enough."""

    decidable: bool
    reason: Reason
    message: str
    rate: float | None


@dataclass(frozen=True, slots=True)
class _SampleRequirement:
    """A share to be decided in a step, with its place in the policy."""

    stage: StepTraffic
    query: SampleSizeQuery
    index: int
    metric: str

    @property
    def seconds_at_one(self) -> float:
        """Seconds until the decision at one request per second for the Model."""
        return estimate_step_seconds(StepTraffic(self.stage.candidate, self.stage.serving, 0.0), [self.query], 1.0)


def assess_decidability(policy: api.RolloutPolicySpec) -> Decidability:
    """Assess whether each step with a good candidate is decided by the deadline, and the rate of requests for that.

    The shares of bad requests are assumed to be USUAL_ERROR_SHARE and USUAL_SLOW_SHARE, or half of the limit if that is
    smaller. Of a match step only the hold counts, since the number of requests with its headers is unknown. Gates and
    approvals take no time here.
    """
    all_steps = compile_steps(policy.strategy)
    steps = tuple((index, step) for index, step in enumerate(all_steps) if not step.is_promotion)
    limit = parse_duration(policy.deadline)
    held = sum(_minimum_seconds(policy, step) for _, step in steps)
    if steps and held >= limit:
        holds = "spec.strategy.abTest.duration is" if policy.strategy.ab_test is not None else "the holds together are"
        text = f"spec.deadline: {holds} {_format_seconds(held)}, and the deadline is {policy.deadline}: make it longer"
        return Decidability(False, Reason.NEVER_DECIDABLE, text, None)
    plan = [(_build_stage(policy, step), _list_requirements(policy, all_steps, step, index)) for index, step in steps]
    requirements = [entry for _, entries in plan for entry in entries]
    undecidable = next((entry for entry in requirements if math.isinf(entry.seconds_at_one)), None)
    if undecidable is not None:
        text = (
            f"spec.analysis.metrics: {undecidable.metric} is never decided at step {undecidable.index + 1}: its limit "
            "leaves no room for a candidate that is as good as what serves; allow a larger margin, or another max or "
            "min"
        )
        return Decidability(False, Reason.NEVER_DECIDABLE, text, None)
    plan_rate = estimate_plan_rate([(stage, [entry.query for entry in entries]) for stage, entries in plan], limit)
    if plan_rate is None:
        text = f"spec.deadline: no number of requests decides all steps within {policy.deadline}"
        return Decidability(False, Reason.NEVER_DECIDABLE, text, None)
    winner_rate = max((_winner_rate(policy, step) for _, step in steps), default=0.0)
    rate = max(plan_rate, winner_rate)
    if not rate:
        return Decidability(True, Reason.DECIDABLE_IN_TIME, "no metric waits for a number of requests", rate)
    text = f"it takes {format_rate(rate)} requests per second to decide every step within {policy.deadline}"
    if rate <= EXPECTED_RATE:
        return Decidability(True, Reason.DECIDABLE_IN_TIME, text, rate)
    if rate == winner_rate:
        message = f"{text}, for minSamples of the winner's metric; a longer abTest.duration needs fewer"
        return Decidability(False, Reason.NEEDS_MORE_REQUESTS, message, rate)
    largest = max(requirements, key=lambda entry: entry.seconds_at_one)
    needed = sum(
        estimate_step_seconds(stage, [entry.query for entry in entries], EXPECTED_RATE) for stage, entries in plan
    )
    message = (
        f"{text}, most of them for metric {largest.metric} at step {largest.index + 1}; with {EXPECTED_RATE:g} per "
        f"second spec.deadline would have to be {_format_seconds(needed)}; a larger margin, fewer minSamples and "
        "weights nearer to 50 take fewer"
    )
    return Decidability(False, Reason.NEEDS_MORE_REQUESTS, message, rate)


def _winner_rate(policy: api.RolloutPolicySpec, step: RolloutStep) -> float:
    """Compute the requests per second with which the winner's metric gets its samples by the end of an A/B test."""
    metric, stage = step_analysis.winner_metric(policy), _build_stage(policy, step)
    if metric is None or not api.is_share(metric) or not stage.candidate:
        return 0.0
    samples = metric.min_samples or step_analysis.DEFAULT_MIN_SAMPLES
    return samples / (min(stage.candidate, stage.serving) * stage.hold)


def format_rate(rate: float) -> str:
    """Format a rate, rounded up: whole requests per second from 1 on, else two decimals."""
    return f"{math.ceil(rate)}" if rate > 1 else f"{math.ceil(rate * 100) / 100:g}"


def _format_seconds(length: float) -> str:
    return f"{math.ceil(length)}s" if length < 120 else f"{math.ceil(length / 60)}m"


def _minimum_seconds(policy: api.RolloutPolicySpec, step: RolloutStep) -> float:
    """Return the minimum duration of a step in seconds, for the default maximum duration of a request."""
    return step_analysis.minimum_hold(policy, step, DEFAULT_REQUEST_TIME).total_seconds()


def _build_stage(policy: api.RolloutPolicySpec, step: RolloutStep) -> StepTraffic:
    hold = _minimum_seconds(policy, step)
    if step.mirror:
        return StepTraffic(step.mirror / 100, step.mirror / 100, hold)
    candidate = step.weight / 100
    fresh = policy.analysis is not None and policy.analysis.baseline == "Fresh"
    return StepTraffic(candidate, candidate if fresh and candidate <= 0.5 else 1 - candidate, hold)


def _list_requirements(
    policy: api.RolloutPolicySpec, steps: tuple[RolloutStep, ...], step: RolloutStep, index: int
) -> list[_SampleRequirement]:
    """List the shares that must be decided for the step to end. Approval steps are left out: the deadline does not
    include them."""
    if step.kind is StepKind.APPROVAL or (step.match and not step.weight and not step.mirror):
        return []
    stage = _build_stage(policy, step)
    metrics = step_analysis.metrics_for_step(policy, step)
    return [
        _SampleRequirement(stage, query, index, metric.name)
        for metric in metrics
        if not metric.dry_run and api.is_share(metric) and metric is not step_analysis.winner_metric(policy)
        for query in _build_queries(
            metric,
            step_analysis.error_levels(policy, steps, metrics, metric),
            alone=step.weight == 100,
            mirror=step.mirror > 0,
        )
        if not query.versus_serving or stage.serving
    ]


def _build_queries(metric: api.Metric, levels: Levels, *, alone: bool, mirror: bool) -> Iterator[SampleSizeQuery]:
    rule = step_analysis.build_limits(metric, 0, alone)
    alpha, least = levels.passes, rule.min_samples
    usual = USUAL_SLOW_SHARE if metric.builtin in ("latency-over", "latency-percentile") else USUAL_ERROR_SHARE
    quantile = 1 - rule.percentile if rule.percentile is not None else None
    if rule.margin is not None:
        base, split = (quantile, alpha / USUAL_BUCKETS) if quantile is not None else (usual, alpha)
        # The comparer sends the same requests to both revisions.
        paired = mirror and metric.builtin is not None and metric.source != "Runtime"
        yield SampleSizeQuery(rule.margin, base, split, least, unit="pair" if paired else "request", burst=rule.burst)
    if rule.max is not None:
        most = quantile if quantile is not None else rule.max
        yield SampleSizeQuery(most, min(usual, most / 2), alpha, least, versus_serving=False, burst=rule.burst)
    if metric.builtin == "agreement" and rule.min is not None:
        most = 1 - rule.min
        yield SampleSizeQuery(
            most, min(usual, most / 2), alpha, least, versus_serving=False, unit="answer", burst=rule.burst
        )
