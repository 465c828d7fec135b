"""A policy's strategy as one list of steps, whichever way it was written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from modelwright.api.common import seconds
from modelwright.api.v1alpha1 import policy as api
from modelwright.core.rollout.routing import HeaderMatch

GATES = ("scan", "evaluation", "infra", "approval")
"""In the order in which they are checked: first what loads nothing, then the cheapest for people and pods."""


class StepKind(StrEnum):
    """What a step does."""

    MIRROR = "mirror"
    WEIGHT = "weight"
    MATCH = "match"
    APPROVAL = "approval"
    HOLD = "hold"
    AB_TEST = "abTest"


@dataclass(frozen=True, slots=True)
class Step:
    """One step, with all that traffic and clocks need to know. `weight`, `mirror`, `match` and `sticky` say how traffic
    is during it, those of steps before it included; percent."""

    kind: StepKind
    hold: timedelta = timedelta(0)
    weight: int = 0
    mirror: int = 0
    match: tuple[HeaderMatch, ...] = ()
    sticky: bool = False
    required: int = 0
    service_accounts: bool = False
    """People who must approve."""
    timeout: timedelta | None = None

    @property
    def last(self) -> bool:
        """The step that is the promotion itself: all requests, with nothing to wait for."""
        return self.kind is StepKind.WEIGHT and self.weight == 100 and not self.hold

    @property
    def has_callers(self) -> bool:
        """Whether the candidate answers requests, or copies of them."""
        return self.weight > 0 or self.mirror > 0 or bool(self.match)

    @property
    def share(self) -> int:
        """Percent of the full load that the candidate's pods must be able to carry."""
        if self.kind is StepKind.WEIGHT and self.weight == 0:
            return 100
        return max(self.weight, self.mirror, 1)


PRESETS: dict[str, tuple[api.Step, ...]] = {
    "Canary": (api.Step(weight=10, hold="2m"), api.Step(weight=50, hold="2m"), api.Step(weight=100)),
    "BlueGreen": (api.Step(weight=0), api.Step(weight=100, hold="2m")),
    "Rolling": (api.Step(weight=25), api.Step(weight=50), api.Step(weight=75), api.Step(weight=100)),
}
"""What each preset stands for; the documentation shows them from here."""


def compiled(strategy: api.Strategy) -> tuple[Step, ...]:
    """The steps of a strategy; none for recreate."""
    if strategy.ab_test is not None:
        return (_ab_test(strategy.ab_test),)
    written = strategy.steps if strategy.preset is None else PRESETS[strategy.preset]
    found: list[Step] = []
    before = Step(StepKind.HOLD)
    for entry in written or ():
        before = _step(entry, before, strategy.sticky)
        found.append(before)
    return tuple(found)


def _step(entry: api.Step, before: Step, sticky: bool) -> Step:
    if entry.mirror is not None:
        return Step(
            StepKind.MIRROR, _span(entry.mirror.hold), before.weight, entry.mirror.percent, sticky=before.sticky
        )
    if entry.match is not None:
        headers = _headers(entry.match.headers)
        return Step(StepKind.MATCH, _span(entry.match.hold), before.weight, match=headers, sticky=before.sticky)
    if entry.weight is not None:
        hold = _span(entry.hold) if entry.hold else timedelta(0)
        return Step(StepKind.WEIGHT, hold, entry.weight, sticky=sticky and 0 < entry.weight < 100)
    kept = {"weight": before.weight, "mirror": before.mirror, "match": before.match, "sticky": before.sticky}
    if entry.approval is not None:
        timeout = _span(entry.approval.timeout)
        return Step(
            StepKind.APPROVAL,
            required=entry.approval.required,
            service_accounts=entry.approval.service_accounts,
            timeout=timeout,
            **kept,  # type: ignore[arg-type]
        )
    assert entry.hold is not None  # noqa: S101 - the type refuses a step without any member
    return Step(StepKind.HOLD, _span(entry.hold), **kept)  # type: ignore[arg-type]


def _ab_test(test: api.ABTest) -> Step:
    match = _headers(test.headers) if test.headers else ()
    weight = 0 if match else test.weight
    return Step(StepKind.AB_TEST, _span(test.duration), weight, match=match, sticky=test.sticky and not match)


def _headers(headers: tuple[api.HeaderMatch, ...]) -> tuple[HeaderMatch, ...]:
    return tuple(HeaderMatch(entry.name, entry.value, entry.type == "RegularExpression") for entry in headers)


def _span(text: str) -> timedelta:
    return timedelta(seconds=seconds(text))


def applies(metric: api.Metric, step: Step) -> bool:
    """Whether a metric is looked at in a step: comparisons of answers where requests are mirrored, throughput where
    callers are answered, and nothing while the candidate has no requests."""
    if not step.has_callers:
        return False
    if metric.builtin in api.SHADOW_BUILTINS:
        return step.mirror > 0
    return not (metric.builtin == "throughput" and step.mirror > 0)
