"""What can be said of a RolloutPolicy by itself: what in it can't be, and what requests decide it in time."""

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
"""Requests per second that a Model is taken to get: a policy that needs more gets a warning."""
USUAL_ERROR_SHARE, USUAL_SLOW_SHARE = 0.01, 0.05
"""Shares of bad requests that are taken as usual, of latencies and of everything else."""
USUAL_BUCKETS = 14
"""Buckets of a usual histogram; a percentile's margin splits its level over them."""
DEFAULT_REQUEST_TIME = timedelta(seconds=Serving().max_request_seconds)
"""How long a request may take where the Model says nothing."""
_ANY_DAY = datetime(2026, 1, 1, tzinfo=UTC)


def find_problems(policy: api.RolloutPolicySpec) -> tuple[str, ...]:
    """What no Model could follow, each naming its field."""
    steps = compile_steps(policy.strategy)
    return tuple(text for check in _CHECKS for text in check(policy, steps))


def _check_surge(policy: api.RolloutPolicySpec, _: tuple[RolloutStep, ...]) -> Iterator[str]:
    if policy.surge is not None and policy.surge.pods == 0:
        yield "spec.surge.pods: 0 leaves no room for a candidate beside what serves; use strategy.recreate"


def _check_unjudged_steps(policy: api.RolloutPolicySpec, steps: tuple[RolloutStep, ...]) -> Iterator[str]:
    """Steps at which the candidate would answer requests that no metric judges."""
    for number, step in enumerate(steps, 1):
        if step_analysis.is_judgeable(policy, step):
            continue
        why = "those it has are dry runs, or are not measured there (agreement and differences: only in mirror steps)"
        if step.weight == 100:
            why = (
                "nothing serves beside the candidate there, so at least one metric needs a max or a min, and without "
                "dryRun"
            )
        yield f"spec.analysis.metrics: no metric judges step {number} ({_describe_step(step)}): {why}"


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
    what = f"spec.strategy.abTest.winner.metric: {metric.name} can't decide"
    if not step_analysis.can_decide_winner(metric):
        yield (
            f"{what}: a winner needs a counted share of requests (error-rate, latency-over, or prometheus with bad and "
            "total) or a prometheus query, not the value of one moment (http, job, throughput), and not a dry run"
        )
    elif metric.versus == "None":
        yield f"{what} with versus None: a winner is found by comparing"
    elif metric.prometheus is not None and not _distinguishes_revisions(metric.prometheus):
        yield f"{what}: nothing in its query tells the revisions apart; use $(REVISION), $(VERSION) or $(PODS)"
    elif step_analysis.is_query_metric(metric) and policy.analysis and policy.strategy.ab_test:
        yield from _check_test_duration(policy.analysis, policy.strategy.ab_test)


def _distinguishes_revisions(asked: api.PrometheusMetric) -> bool:
    text = f"{asked.query}{asked.bad}{asked.total}"
    return any(f"$({name})" in text for name in api.REVISION_PLACEHOLDERS)


def _check_test_duration(analysis: api.Analysis, test: api.ABTest) -> Iterator[str]:
    """Points that are nearer than a look to the next may be the same sample, and prove nothing."""
    if NEEDED_POINTS * parse_duration(analysis.interval) > parse_duration(test.duration):
        yield (
            f"spec.strategy.abTest.duration: {test.duration} has fewer than {NEEDED_POINTS} looks, one each "
            f"{analysis.interval} (spec.analysis.interval), which a query needs to prove a winner"
        )


def _check_unused_analysis(policy: api.RolloutPolicySpec, steps: tuple[RolloutStep, ...]) -> Iterator[str]:
    looked_at = any(
        not m.dry_run for step in steps if not step.is_promotion for m in step_analysis.metrics_for_step(policy, step)
    )
    if policy.analysis is not None and not looked_at:
        yield (
            "spec.analysis is never looked at: in no step does the candidate answer requests that a metric without "
            "dryRun judges; leave it out, or add such a step"
        )


def find_deadline_problems(
    policy: api.RolloutPolicySpec, steps: tuple[RolloutStep, ...], longest: timedelta
) -> Iterator[str]:
    """What can't be followed by a Model whose requests may take `longest`: no step with evidence is shorter."""
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
    """Whether anything but time decides about a candidate, as the condition EvidenceAsked says it: status, reason,
    message."""
    judged = sum(
        any(not m.dry_run for m in step_analysis.metrics_for_step(policy, step))
        for step in steps
        if not step.is_promotion
    )
    found = [f"metrics at {judged} of {len(steps)} steps"] if judged else []
    found += [
        f"gate {name}" for name in GATE_ORDER if policy.gates is not None and getattr(policy.gates, name) is not None
    ]
    found += [f"approval at step {n}" for n, step in enumerate(steps, 1) if step.kind is StepKind.APPROVAL]
    if found:
        return True, Reason.EVIDENCE_ASKED, "; ".join(found)
    text = "it promotes by time alone: it has no analysis, no gate and no approval; spec.analysis asks for evidence"
    return False, Reason.PROMOTES_BY_TIME_ALONE, text


def find_warnings(policy: api.RolloutPolicySpec) -> Iterator[str]:
    """What can be followed, and is probably not meant, each naming its field."""
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
    found = freeze.find_window_problem(policy.freeze, _ANY_DAY)
    if found is not None:
        yield found


_CHECKS = (_check_surge, _check_unjudged_steps, _check_baseline, _check_winner, _check_unused_analysis, _check_freeze)


@dataclass(frozen=True, slots=True)
class Decidability:
    """Whether a policy is decided in time. `rate`: requests per second that it takes; None: no number would do."""

    decidable: bool
    reason: Reason
    message: str
    rate: float | None


@dataclass(frozen=True, slots=True)
class _SampleRequirement:
    """A share to be decided in a step, and where that stands in the policy."""

    stage: StepTraffic
    query: SampleSizeQuery
    index: int
    metric: str

    @property
    def seconds_at_one(self) -> float:
        """How long it takes at one request per second for the Model."""
        return estimate_step_seconds(StepTraffic(self.stage.candidate, self.stage.serving, 0.0), [self.query], 1.0)


def assess_decidability(policy: api.RolloutPolicySpec) -> Decidability:
    """Whether a good candidate is decided at each step by the deadline, with what requests.

    Bad requests are taken to be as many as ERRORS and SLOW say, and half of the limit where that is nearer. Of a match
    step only the hold counts: how many requests carry its headers isn't known. Neither do gates and people count.
    """
    every = compile_steps(policy.strategy)
    steps = tuple((index, step) for index, step in enumerate(every) if not step.is_promotion)
    limit = parse_duration(policy.deadline)
    held = sum(_minimum_seconds(policy, step) for _, step in steps)
    if steps and held >= limit:
        what = "spec.strategy.abTest.duration is" if policy.strategy.ab_test is not None else "the holds together are"
        text = f"spec.deadline: {what} {_format_seconds(held)}, and the deadline is {policy.deadline}: make it longer"
        return Decidability(False, Reason.NEVER_DECIDABLE, text, None)
    plan = [(_build_stage(policy, step), _list_requirements(policy, every, step, index)) for index, step in steps]
    asked = [entry for _, entries in plan for entry in entries]
    never = next((entry for entry in asked if math.isinf(entry.seconds_at_one)), None)
    if never is not None:
        text = (
            f"spec.analysis.metrics: {never.metric} is never decided at step {never.index + 1}: its limit leaves no "
            "room for a candidate that is as good as what serves; allow a larger margin, or another max or min"
        )
        return Decidability(False, Reason.NEVER_DECIDABLE, text, None)
    found = estimate_plan_rate([(stage, [entry.query for entry in entries]) for stage, entries in plan], limit)
    if found is None:
        text = f"spec.deadline: no number of requests decides all steps within {policy.deadline}"
        return Decidability(False, Reason.NEVER_DECIDABLE, text, None)
    of_winner = max((_winner_rate(policy, step) for _, step in steps), default=0.0)
    rate = max(found, of_winner)
    if not rate:
        return Decidability(True, Reason.DECIDABLE_IN_TIME, "no metric waits for a number of requests", rate)
    told = f"it takes {format_rate(rate)} requests per second to decide every step within {policy.deadline}"
    if rate <= EXPECTED_RATE:
        return Decidability(True, Reason.DECIDABLE_IN_TIME, told, rate)
    if rate == of_winner:
        message = f"{told}, for minSamples of the winner's metric; a longer abTest.duration needs fewer"
        return Decidability(False, Reason.NEEDS_MORE_REQUESTS, message, rate)
    most = max(asked, key=lambda entry: entry.seconds_at_one)
    needed = sum(
        estimate_step_seconds(stage, [entry.query for entry in entries], EXPECTED_RATE) for stage, entries in plan
    )
    message = (
        f"{told}, most of them for metric {most.metric} at step {most.index + 1}; with {EXPECTED_RATE:g} per second "
        f"spec.deadline would have to be {_format_seconds(needed)}; a larger margin, fewer minSamples and "
        "weights nearer to 50 "
        "take fewer"
    )
    return Decidability(False, Reason.NEEDS_MORE_REQUESTS, message, rate)


def _winner_rate(policy: api.RolloutPolicySpec, step: RolloutStep) -> float:
    """Requests per second with which an A/B test's winner gets its samples by the test's end."""
    metric, stage = step_analysis.winner_metric(policy), _build_stage(policy, step)
    if metric is None or not api.is_share(metric) or not stage.candidate:
        return 0.0
    least = metric.min_samples or step_analysis.DEFAULT_MIN_SAMPLES
    return least / (min(stage.candidate, stage.serving) * stage.hold)


def format_rate(rate: float) -> str:
    """A rate as people write it: whole requests per second from 1 on, rounded up."""
    return f"{math.ceil(rate)}" if rate > 1 else f"{math.ceil(rate * 100) / 100:g}"


def _format_seconds(length: float) -> str:
    return f"{math.ceil(length)}s" if length < 120 else f"{math.ceil(length / 60)}m"


def _minimum_seconds(policy: api.RolloutPolicySpec, step: RolloutStep) -> float:
    """Seconds that a step lasts at least, with a Model whose longest request is as by default."""
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
    """The shares that must be decided for the step to end. People's time is not the deadline's."""
    if step.kind is StepKind.APPROVAL or (step.match and not step.weight and not step.mirror):
        return []
    stage = _build_stage(policy, step)
    wanted = step_analysis.metrics_for_step(policy, step)
    return [
        _SampleRequirement(stage, ask, index, metric.name)
        for metric in wanted
        if not metric.dry_run and api.is_share(metric) and metric is not step_analysis.winner_metric(policy)
        for ask in _build_queries(
            metric,
            step_analysis.error_levels(policy, steps, wanted, metric),
            alone=step.weight == 100,
            mirror=step.mirror > 0,
        )
        if not ask.versus_serving or stage.serving
    ]


def _build_queries(metric: api.Metric, levels: Levels, *, alone: bool, mirror: bool) -> Iterator[SampleSizeQuery]:
    rule = step_analysis.build_limits(metric, 0, alone)
    alpha, least = levels.passes, rule.min_samples
    usual = USUAL_SLOW_SHARE if metric.builtin in ("latency-over", "latency-percentile") else USUAL_ERROR_SHARE
    quantile = 1 - rule.percentile if rule.percentile is not None else None
    if rule.margin is not None:
        base, split = (quantile, alpha / USUAL_BUCKETS) if quantile is not None else (usual, alpha)
        # The comparer asks both revisions the same requests.
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
