"""What can be said of a RolloutPolicy by itself: what in it can't be, and what requests decide it in time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from modelwright.api.common import seconds
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1 import policy as api
from modelwright.api.v1alpha1.model import Serving
from modelwright.core.analysis.courses import NEEDED_POINTS
from modelwright.core.analysis.planning import Ask, Levels, Stage, needed_rate_of, stage_seconds
from modelwright.core.rollout import evaluation, freeze
from modelwright.core.rollout.steps import GATES, Step, StepKind, compiled

EXPECTED_RATE = 20.0
"""Requests per second that a Model is taken to get: a policy that needs more gets a warning."""
ERRORS, SLOW = 0.01, 0.05
"""Shares of bad requests that are taken as usual, of latencies and of everything else."""
BUCKETS = 14
"""Buckets of a usual histogram; a percentile's margin splits its level over them."""
USUAL_REQUEST = timedelta(seconds=Serving().max_request_seconds)
"""How long a request may take where the Model says nothing."""
_ANY_DAY = datetime(2026, 1, 1, tzinfo=UTC)


def problems(policy: api.RolloutPolicySpec) -> tuple[str, ...]:
    """What no Model could follow, each naming its field."""
    steps = compiled(policy.strategy)
    return tuple(text for check in _CHECKS for text in check(policy, steps))


def _room(policy: api.RolloutPolicySpec, _: tuple[Step, ...]) -> Iterator[str]:
    if policy.surge is not None and policy.surge.pods == 0:
        yield "spec.surge.pods: 0 leaves no room for a candidate beside what serves; use strategy.recreate"


def _unjudged(policy: api.RolloutPolicySpec, steps: tuple[Step, ...]) -> Iterator[str]:
    """Steps at which the candidate would answer requests that no metric judges."""
    for number, step in enumerate(steps, 1):
        if evaluation.judgeable(policy, step):
            continue
        why = "those it has are dry runs, or are not measured there (agreement and differences: only in mirror steps)"
        if step.weight == 100:
            why = (
                "nothing serves beside the candidate there, so at least one metric needs a max or a min, and without "
                "dryRun"
            )
        yield f"spec.analysis.metrics: no metric judges step {number} ({_words(step)}): {why}"


def _words(step: Step) -> str:
    share = step.mirror or step.weight
    return f"{step.kind} {share} %" if share else str(step.kind)


def _baseline(policy: api.RolloutPolicySpec, steps: tuple[Step, ...]) -> Iterator[str]:
    if policy.analysis is None or policy.analysis.baseline != "Fresh":
        return
    if policy.surge is not None:
        yield "spec.analysis.baseline: Fresh doesn't go with spec.surge"
    if any(50 < step.weight < 100 for step in steps):
        yield "spec.analysis.baseline: with Fresh the candidate can have at most 50 %, beside as many pods"


def _winner(policy: api.RolloutPolicySpec, _: tuple[Step, ...]) -> Iterator[str]:
    metric = evaluation.winner(policy)
    if metric is None:
        return
    what = f"spec.strategy.abTest.winner.metric: {metric.name} can't decide"
    if not evaluation.winnable(metric):
        yield (
            f"{what}: a winner needs a counted share of requests (error-rate, latency-over, or prometheus with bad and "
            "total) or a prometheus query, not the value of one moment (http, job, throughput), and not a dry run"
        )
    elif metric.versus == "None":
        yield f"{what} with versus None: a winner is found by comparing"
    elif metric.prometheus is not None and not _tells_revisions_apart(metric.prometheus):
        yield f"{what}: nothing in its query tells the revisions apart; use $(REVISION), $(VERSION) or $(PODS)"
    elif evaluation.is_query(metric) and policy.analysis and policy.strategy.ab_test:
        yield from _too_short(policy.analysis, policy.strategy.ab_test)


def _tells_revisions_apart(asked: api.PrometheusMetric) -> bool:
    text = f"{asked.query}{asked.bad}{asked.total}"
    return any(f"$({name})" in text for name in api.OF_A_REVISION)


def _too_short(analysis: api.Analysis, test: api.ABTest) -> Iterator[str]:
    """Points that are nearer than a look to the next may be the same sample, and prove nothing."""
    if NEEDED_POINTS * seconds(analysis.interval) > seconds(test.duration):
        yield (
            f"spec.strategy.abTest.duration: {test.duration} has fewer than {NEEDED_POINTS} looks, one each "
            f"{analysis.interval} (spec.analysis.interval), which a query needs to prove a winner"
        )


def _never_looked_at(policy: api.RolloutPolicySpec, steps: tuple[Step, ...]) -> Iterator[str]:
    looked_at = any(not m.dry_run for step in steps if not step.last for m in evaluation.asked(policy, step))
    if policy.analysis is not None and not looked_at:
        yield (
            "spec.analysis is never looked at: in no step does the candidate answer requests that a metric without "
            "dryRun judges; leave it out, or add such a step"
        )


def too_long(policy: api.RolloutPolicySpec, steps: tuple[Step, ...], longest: timedelta) -> Iterator[str]:
    """What can't be followed by a Model whose requests may take `longest`: no step with evidence is shorter."""
    needed = sum((evaluation.least_hold(policy, step, longest) for step in steps if not step.last), timedelta(0))
    own = sum((step.hold for step in steps if not step.last), timedelta(0))
    limit = timedelta(seconds=seconds(policy.deadline))
    if needed >= limit > own:
        yield (
            "spec.deadline: no step passes before the longest request has ended (spec.serving.maxRequestSeconds of "
            f"the Model, {longest.total_seconds():g} s), together {_span(needed.total_seconds())}, and the deadline is "
            f"{policy.deadline}: make it longer, or requests shorter"
        )


def evidence_asked(policy: api.RolloutPolicySpec, steps: tuple[Step, ...]) -> tuple[bool, Reason, str]:
    """Whether anything but time decides about a candidate, as the condition EvidenceAsked says it: status, reason,
    message."""
    judged = sum(any(not m.dry_run for m in evaluation.asked(policy, step)) for step in steps if not step.last)
    found = [f"metrics at {judged} of {len(steps)} steps"] if judged else []
    found += [f"gate {name}" for name in GATES if policy.gates is not None and getattr(policy.gates, name) is not None]
    found += [f"approval at step {n}" for n, step in enumerate(steps, 1) if step.kind is StepKind.APPROVAL]
    if found:
        return True, Reason.EVIDENCE_ASKED, "; ".join(found)
    text = "it promotes by time alone: it has no analysis, no gate and no approval; spec.analysis asks for evidence"
    return False, Reason.PROMOTES_BY_TIME_ALONE, text


def warnings(policy: api.RolloutPolicySpec) -> Iterator[str]:
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


def _freeze(policy: api.RolloutPolicySpec, _: tuple[Step, ...]) -> Iterator[str]:
    found = freeze.problem(policy.freeze, _ANY_DAY)
    if found is not None:
        yield found


_CHECKS = (_room, _unjudged, _baseline, _winner, _never_looked_at, _freeze)


@dataclass(frozen=True, slots=True)
class Decidability:
    """Whether a policy is decided in time. `rate`: requests per second that it takes; None: no number would do."""

    decidable: bool
    reason: Reason
    message: str
    rate: float | None


@dataclass(frozen=True, slots=True)
class _Asked:
    """A share to be decided in a step, and where that stands in the policy."""

    stage: Stage
    ask: Ask
    index: int
    metric: str

    @property
    def seconds_at_one(self) -> float:
        """How long it takes at one request per second for the Model."""
        return stage_seconds(Stage(self.stage.candidate, self.stage.serving, 0.0), [self.ask], 1.0)


def decidability(policy: api.RolloutPolicySpec) -> Decidability:
    """Whether a good candidate is decided at each step by the deadline, with what requests.

    Bad requests are taken to be as many as ERRORS and SLOW say, and half of the limit where that is nearer. Of a match
    step only the hold counts: how many requests carry its headers isn't known. Neither do gates and people count.
    """
    every = compiled(policy.strategy)
    steps = tuple((index, step) for index, step in enumerate(every) if not step.last)
    limit = seconds(policy.deadline)
    held = sum(_least(policy, step) for _, step in steps)
    if steps and held >= limit:
        what = "spec.strategy.abTest.duration is" if policy.strategy.ab_test is not None else "the holds together are"
        text = f"spec.deadline: {what} {_span(held)}, and the deadline is {policy.deadline}: make it longer"
        return Decidability(False, Reason.NEVER_DECIDABLE, text, None)
    plan = [(_stage(policy, step), _asks(policy, every, step, index)) for index, step in steps]
    asked = [entry for _, entries in plan for entry in entries]
    never = next((entry for entry in asked if math.isinf(entry.seconds_at_one)), None)
    if never is not None:
        text = (
            f"spec.analysis.metrics: {never.metric} is never decided at step {never.index + 1}: its limit leaves no "
            "room for a candidate that is as good as what serves; allow a larger margin, or another max or min"
        )
        return Decidability(False, Reason.NEVER_DECIDABLE, text, None)
    found = needed_rate_of([(stage, [entry.ask for entry in entries]) for stage, entries in plan], limit)
    if found is None:
        text = f"spec.deadline: no number of requests decides all steps within {policy.deadline}"
        return Decidability(False, Reason.NEVER_DECIDABLE, text, None)
    of_winner = max((_winners_rate(policy, step) for _, step in steps), default=0.0)
    rate = max(found, of_winner)
    if not rate:
        return Decidability(True, Reason.DECIDABLE_IN_TIME, "no metric waits for a number of requests", rate)
    told = f"it takes {text_of(rate)} requests per second to decide every step within {policy.deadline}"
    if rate <= EXPECTED_RATE:
        return Decidability(True, Reason.DECIDABLE_IN_TIME, told, rate)
    if rate == of_winner:
        message = f"{told}, for minSamples of the winner's metric; a longer abTest.duration needs fewer"
        return Decidability(False, Reason.NEEDS_MORE_REQUESTS, message, rate)
    most = max(asked, key=lambda entry: entry.seconds_at_one)
    needed = sum(stage_seconds(stage, [entry.ask for entry in entries], EXPECTED_RATE) for stage, entries in plan)
    message = (
        f"{told}, most of them for metric {most.metric} at step {most.index + 1}; with {EXPECTED_RATE:g} per second "
        f"spec.deadline would have to be {_span(needed)}; a larger margin, fewer minSamples and weights nearer to 50 "
        "take fewer"
    )
    return Decidability(False, Reason.NEEDS_MORE_REQUESTS, message, rate)


def _winners_rate(policy: api.RolloutPolicySpec, step: Step) -> float:
    """Requests per second with which an A/B test's winner gets its samples by the test's end."""
    metric, stage = evaluation.winner(policy), _stage(policy, step)
    if metric is None or not api.is_share(metric) or not stage.candidate:
        return 0.0
    least = metric.min_samples or evaluation.MIN_SAMPLES
    return least / (min(stage.candidate, stage.serving) * stage.hold)


def text_of(rate: float) -> str:
    """A rate as people write it: whole requests per second from 1 on, rounded up."""
    return f"{math.ceil(rate)}" if rate > 1 else f"{math.ceil(rate * 100) / 100:g}"


def _span(length: float) -> str:
    return f"{math.ceil(length)}s" if length < 120 else f"{math.ceil(length / 60)}m"


def _least(policy: api.RolloutPolicySpec, step: Step) -> float:
    """Seconds that a step lasts at least, with a Model whose longest request is as by default."""
    return evaluation.least_hold(policy, step, USUAL_REQUEST).total_seconds()


def _stage(policy: api.RolloutPolicySpec, step: Step) -> Stage:
    hold = _least(policy, step)
    if step.mirror:
        return Stage(step.mirror / 100, step.mirror / 100, hold)
    candidate = step.weight / 100
    fresh = policy.analysis is not None and policy.analysis.baseline == "Fresh"
    return Stage(candidate, candidate if fresh and candidate <= 0.5 else 1 - candidate, hold)


def _asks(policy: api.RolloutPolicySpec, steps: tuple[Step, ...], step: Step, index: int) -> list[_Asked]:
    """The shares that must be decided for the step to end. People's time is not the deadline's."""
    if step.kind is StepKind.APPROVAL or (step.match and not step.weight and not step.mirror):
        return []
    stage = _stage(policy, step)
    wanted = evaluation.asked(policy, step)
    return [
        _Asked(stage, ask, index, metric.name)
        for metric in wanted
        if not metric.dry_run and api.is_share(metric) and metric is not evaluation.winner(policy)
        for ask in _limits(
            metric, evaluation.levels(policy, steps, wanted, metric), alone=step.weight == 100, mirror=step.mirror > 0
        )
        if not ask.versus_serving or stage.serving
    ]


def _limits(metric: api.Metric, levels: Levels, *, alone: bool, mirror: bool) -> Iterator[Ask]:
    rule = evaluation.rule(metric, 0, alone)
    alpha, least = levels.passes, rule.min_samples
    usual = SLOW if metric.builtin in ("latency-over", "latency-percentile") else ERRORS
    quantile = 1 - rule.percentile if rule.percentile is not None else None
    if rule.margin is not None:
        base, split = (quantile, alpha / BUCKETS) if quantile is not None else (usual, alpha)
        # The comparer asks both revisions the same requests.
        paired = mirror and metric.builtin is not None and metric.source != "Runtime"
        yield Ask(rule.margin, base, split, least, unit="pair" if paired else "request", burst=rule.burst)
    if rule.max is not None:
        most = quantile if quantile is not None else rule.max
        yield Ask(most, min(usual, most / 2), alpha, least, versus_serving=False, burst=rule.burst)
    if metric.builtin == "agreement" and rule.min is not None:
        most = 1 - rule.min
        yield Ask(most, min(usual, most / 2), alpha, least, versus_serving=False, unit="answer", burst=rule.burst)
