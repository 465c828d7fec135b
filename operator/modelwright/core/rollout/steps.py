"""Compiles a policy's strategy, in any of its forms, to a list of steps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from modelwright.api.common import parse_duration
from modelwright.api.v1alpha1 import policy as api
from modelwright.core.rollout.traffic_split import HeaderCondition

GATE_ORDER = ("scan", "evaluation", "infra", "approval")
"""Gates in the order of their evaluation: first those that load no model, and approvals, the most expensive, last."""


class StepKind(StrEnum):
    """Kind of a step."""

    MIRROR = "mirror"
    WEIGHT = "weight"
    MATCH = "match"
    APPROVAL = "approval"
    HOLD = "hold"
    AB_TEST = "abTest"


@dataclass(frozen=True, slots=True)
class RolloutStep:
    """A step with everything that traffic and clocks need.

    `weight` and `mirror` (percent), `match` and `sticky`: the traffic during the step, including what earlier steps
    have set.
    """

    kind: StepKind
    hold: timedelta = timedelta(0)
    weight: int = 0
    mirror: int = 0
    match: tuple[HeaderCondition, ...] = ()
    sticky: bool = False
    required: int = 0
    """Number of approvals required."""
    service_accounts: bool = False
    """Whether approvals by service accounts count."""
    timeout: timedelta | None = None

    @property
    def is_promotion(self) -> bool:
        """Whether the step is the promotion itself: all requests, without a hold."""
        return self.kind is StepKind.WEIGHT and self.weight == 100 and not self.hold

    @property
    def has_requests(self) -> bool:
        """Whether the candidate answers requests, or copies of them."""
        return self.weight > 0 or self.mirror > 0 or bool(self.match)

    @property
    def load_percent(self) -> int:
        """Percent of the full load for which the candidate needs pods."""
        if self.kind is StepKind.WEIGHT and self.weight == 0:
            return 100
        return max(self.weight, self.mirror, 1)


PRESET_STEPS: dict[str, tuple[api.Step, ...]] = {
    "Canary": (api.Step(weight=10, hold="2m"), api.Step(weight=50, hold="2m"), api.Step(weight=100)),
    "BlueGreen": (api.Step(weight=0), api.Step(weight=100, hold="2m")),
    "Rolling": (api.Step(weight=25), api.Step(weight=50), api.Step(weight=75), api.Step(weight=100)),
}
"""Steps of each preset; the documentation is generated from them."""


def compile_steps(strategy: api.Strategy) -> tuple[RolloutStep, ...]:
    """Compile a strategy to its steps; recreate has none."""
    if strategy.ab_test is not None:
        return (_compile_ab_test(strategy.ab_test),)
    entries = strategy.steps if strategy.preset is None else PRESET_STEPS[strategy.preset]
    steps: list[RolloutStep] = []
    previous = RolloutStep(StepKind.HOLD)
    for entry in entries or ():
        previous = _compile_step(entry, previous, strategy.sticky)
        steps.append(previous)
    return tuple(steps)


def _compile_step(entry: api.Step, before: RolloutStep, sticky: bool) -> RolloutStep:
    if entry.mirror is not None:
        return RolloutStep(
            StepKind.MIRROR,
            _parse_duration(entry.mirror.hold),
            before.weight,
            entry.mirror.percent,
            sticky=before.sticky,
        )
    if entry.match is not None:
        headers = _convert_headers(entry.match.headers)
        return RolloutStep(
            StepKind.MATCH, _parse_duration(entry.match.hold), before.weight, match=headers, sticky=before.sticky
        )
    if entry.weight is not None:
        hold = _parse_duration(entry.hold) if entry.hold else timedelta(0)
        return RolloutStep(StepKind.WEIGHT, hold, entry.weight, sticky=sticky and 0 < entry.weight < 100)
    kept = {"weight": before.weight, "mirror": before.mirror, "match": before.match, "sticky": before.sticky}
    if entry.approval is not None:
        timeout = _parse_duration(entry.approval.timeout)
        return RolloutStep(
            StepKind.APPROVAL,
            required=entry.approval.required,
            service_accounts=entry.approval.service_accounts,
            timeout=timeout,
            **kept,  # type: ignore[arg-type]
        )
    assert entry.hold is not None  # noqa: S101 - the type refuses a step without any member
    return RolloutStep(StepKind.HOLD, _parse_duration(entry.hold), **kept)  # type: ignore[arg-type]


def _compile_ab_test(test: api.ABTest) -> RolloutStep:
    match = _convert_headers(test.headers) if test.headers else ()
    weight = 0 if match else test.weight
    return RolloutStep(
        StepKind.AB_TEST, _parse_duration(test.duration), weight, match=match, sticky=test.sticky and not match
    )


def _convert_headers(headers: tuple[api.HeaderMatch, ...]) -> tuple[HeaderCondition, ...]:
    return tuple(HeaderCondition(entry.name, entry.value, entry.type == "RegularExpression") for entry in headers)


def _parse_duration(text: str) -> timedelta:
    return timedelta(seconds=parse_duration(text))


def metric_applies(metric: api.Metric, step: RolloutStep) -> bool:
    """Whether a metric is measured in a step: comparisons of answers only with mirrored requests, throughput only with
    callers' requests, and none while the candidate has no requests."""
    if not step.has_requests:
        return False
    if metric.builtin in api.SHADOW_BUILTINS:
        return step.mirror > 0
    return not (metric.builtin == "throughput" and step.mirror > 0)
