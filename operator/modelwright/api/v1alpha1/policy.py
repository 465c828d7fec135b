"""RolloutPolicy: how Models move to another revision, on what evidence, and what happens when it is bad."""

from __future__ import annotations

import itertools
import math
import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from modelwright.api.cel import Cel, ListType, NamedObject
from modelwright.api.common import (
    DURATION,
    INT64_MAX,
    MAX_POLICY_BYTES,
    QUALIFIED_NAME,
    Bool,
    Decimal,
    Label,
    OpenObject,
    Quantity,
    Resource,
    ShortStatusText,
    StatusWire,
    Text63,
    Text253,
    Wire,
    changed_by_field,
    parse_duration,
    pattern_rule,
)
from modelwright.api.conditions import Conditions
from modelwright.api.crd_info import AGE_COLUMN, READY_COLUMN, Column, CrdInfo

Preset = Literal["Canary", "BlueGreen", "Rolling"]
Builtin = Literal[
    "error-rate",
    "latency-over",
    "latency-percentile",
    "throughput",
    "agreement",
    "absolute-difference",
    "relative-difference",
]
SHADOW_BUILTINS = ("agreement", "absolute-difference", "relative-difference")
"""Builtins that compare responses, so they exist only in mirror steps."""
SHARE_BUILTINS = ("error-rate", "latency-over", "latency-percentile", "agreement")
"""Builtins judged as shares of requests, by the sequential test."""
REVISION_PLACEHOLDERS = ("VERSION", "REVISION", "PODS")
"""Placeholders of a query whose values differ from revision to revision."""


def duration_between(low: str, high: str) -> tuple[object, ...]:
    """Return the constraints of a duration from `low` to `high`, for Annotated."""
    least, most = parse_duration(low), parse_duration(high)
    return (
        StringConstraints(strict=True, min_length=1, max_length=32),
        pattern_rule(DURATION, "must be a duration such as 30s, 10m or 1h30m (units h, m, s, ms)"),
        Cel(
            f"!self.matches(r'{DURATION}') || (duration(self) >= duration('{low}') && "
            f"duration(self) <= duration('{high}'))",
            f"must be at least {low} and at most {high}",
            lambda value: least <= parse_duration(value) <= most,
        ),
    )


def _is_ordered(low: str | None, high: str | None) -> bool:
    """Return whether both are finite and the first is not above the second; true when one is absent."""
    return low is None or high is None or (math.isfinite(float(low)) and float(low) <= float(high) < math.inf)


def _is_within(value: str | None, low: float, high: float) -> bool:
    return value is None or low <= float(value) <= high


_QUALIFIED = re.compile(QUALIFIED_NAME.removeprefix("^").removesuffix("$"))

Hold = Annotated[str, *duration_between("0s", "720h")]
Interval = Annotated[str, *duration_between("1s", "1h")]
Deadline = Annotated[str, *duration_between("1s", "720h")]
Wait = Annotated[str, *duration_between("1s", "720h")]
History = Annotated[str, *duration_between("0s", "8760h")]
Threshold = Annotated[str, *duration_between("1ms", "1h")]
Probability = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=16),
    pattern_rule(r"^0\.[0-9]*[1-9][0-9]*$", 'must be between 0 and 1 and written as text, such as "0.95"'),
]
HeaderName = Annotated[
    str, StringConstraints(strict=True, min_length=1, max_length=256, pattern=r"^[A-Za-z0-9!#$%&'*+.^_|~-]+$")
]


class HeaderMatch(Wire):
    """A header that a request must carry."""

    name: HeaderName = Field(description="Name of the header; case doesn't matter.")
    value: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=1024)] = Field(
        description="Value it must have, or regular expression it must match."
    )
    type: Literal["Exact", "RegularExpression"] = Field(
        default="Exact", description="Exact, or RegularExpression as the gateway understands it."
    )


Headers = Annotated[tuple[HeaderMatch, ...], Field(min_length=1, max_length=16), ListType("map", ("name",))]


class MirrorStep(Wire):
    """Copies of requests go to the candidate; only the serving revision answers callers."""

    percent: Annotated[int, Field(strict=True, ge=1, le=100)] = Field(
        default=100, description="Share of the requests that is copied, 1 to 100 percent."
    )
    hold: Hold = Field(default="1m", description="Shortest time at this step, 0s to 720h.")


class MatchStep(Wire):
    """Only requests with these headers go to the candidate."""

    headers: Headers = Field(description="Headers, all of which a request must carry, 1 to 16.")
    hold: Hold = Field(default="1m", description="Shortest time at this step, 0s to 720h.")


class ApprovalStep(Wire):
    """Wait for approvals; metrics are still evaluated meanwhile."""

    required: Annotated[int, Field(strict=True, ge=1, le=10)] = Field(
        default=1, description="Number of different approvers, 1 to 10."
    )
    timeout: Wait = Field(
        default="48h", description="Time after which the rollout ends as Aborted without enough approvals, 1s to 720h."
    )
    service_accounts: Annotated[Bool, NamedObject("Nothing", why="who counts as a person")] = Field(
        default=False,
        description="Whether ServiceAccounts count as approvers. When false, their approvals do not count, and the "
        "author "
        "of what one has made is unknown: anyone who may use a ServiceAccount writes in its name.",
    )


def _has_one_step_kind(step: Step) -> bool:
    kinds = [step.mirror, step.weight, step.match, step.approval]
    count = sum(kind is not None for kind in kinds)
    return count == 1 or (count == 0 and step.hold is not None)


class Step(Wire):
    """One step: exactly one of mirror, weight, match, approval, or hold alone."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "[has(self.mirror), has(self.weight), has(self.match), has(self.approval)].filter(set, set).size() == "
            "(has(self.hold) && !has(self.weight) ? 0 : 1)",
            "a step has exactly one of mirror, weight (with or without hold), match and approval, or hold alone",
            lambda self: (
                _has_one_step_kind(self) and (self.hold is None or self.weight is not None or _is_hold_only(self))
            ),
        ),
    )

    mirror: MirrorStep | None = Field(default=None, description="Copy requests to the candidate and compare answers.")
    weight: Annotated[int, Field(strict=True, ge=0, le=100)] | None = Field(
        default=None,
        description="Share of the callers' requests that the candidate answers, in percent, 0 to 100. 0, as the first "
        "step, runs it at full size without callers, for inspection at status.preview.",
    )
    match: MatchStep | None = Field(default=None, description="Send only requests with certain headers.")
    approval: ApprovalStep | None = Field(default=None, description="Wait for approvals.")
    hold: Hold | None = Field(
        default=None,
        description="Shortest time at the weight, or, alone, at what the step before has set; 0s to 720h. The step "
        "ends when it has passed and every metric passes.",
    )


def _is_hold_only(step: Step) -> bool:
    return step.mirror is None and step.match is None and step.approval is None


class Winner(Wire):
    """The metric that decides an A/B test at its end."""

    metric: Label = Field(
        description="Name of a metric of spec.analysis.metrics: a counted share of requests (error-rate, latency-over, "
        "prometheus with bad and total), or a prometheus query, whose values over the test are compared by rank."
    )
    better: Literal["Higher", "Lower"] = Field(description="The better direction of the metric.")
    margin: Decimal = Field(
        default="0", description="By how much the candidate must be better, in the metric's own unit."
    )


class ABTest(Wire):
    """Two revisions answer side by side until a declared end; then the winner takes all requests."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "!has(self.headers) || self.weight == 50",
            "abTest.weight has no effect with headers: leave it out",
            lambda self: self.headers is None or self.weight == 50,
            ".weight",
        ),
    )

    weight: Annotated[int, Field(strict=True, ge=1, le=99)] = Field(
        default=50, description="Share of the callers that the candidate gets, 1 to 99 percent. Not with headers."
    )
    headers: Headers | None = Field(
        default=None, description="Only requests with these headers go to the candidate, instead of a share."
    )
    sticky: Bool = Field(default=True, description="Whether a caller stays with the revision it was given.")
    duration: Wait = Field(description="Length of the test, 1s to 720h. It ends earlier only when a metric fails.")
    winner: Winner = Field(description="The deciding metric. Without proof that the candidate wins, it loses.")
    loser: Literal["Remove", "Keep"] = Field(
        default="Remove", description="Fate of the loser's pods: Remove at once, or Keep for keepPrevious."
    )


class Recreate(Wire):
    """Stop the serving revision before the candidate starts: the one strategy that interrupts serving."""

    timeout: Wait = Field(
        default="10m",
        description="Time in which the candidate must be ready; else the old revision is started again, 1s to 720h.",
    )


def _weights_increase(steps: tuple[Step, ...]) -> bool:
    weights = [step.weight for step in steps if step.weight is not None]
    return all(low < high for low, high in itertools.pairwise(weights))


class Strategy(Wire):
    """Way of moving traffic: exactly one of steps, preset, abTest and recreate."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "[has(self.steps), has(self.preset), has(self.abTest), has(self.recreate)].filter(set, set).size() == 1",
            "spec.strategy needs exactly one of steps, preset, abTest and recreate",
            lambda self: sum(part is not None for part in (self.steps, self.preset, self.ab_test, self.recreate)) == 1,
        ),
        Cel(
            "!self.sticky || has(self.steps) || has(self.preset)",
            "spec.strategy.sticky goes with steps or preset only: abTest has its own",
            lambda self: not self.sticky or self.steps is not None or self.preset is not None,
            ".sticky",
        ),
    )

    steps: (
        Annotated[
            tuple[Step, ...],
            Field(min_length=1, max_length=20),
            ListType("atomic"),
            Cel(
                "self.filter(s, has(s.weight)).map(s, s.weight).isSorted() && "
                "self.filter(s, has(s.weight)).all(s, self.exists_one(t, has(t.weight) && t.weight == s.weight))",
                "weights must increase from step to step",
                _weights_increase,
            ),
            Cel(
                "!has(self[0].hold) || has(self[0].weight)",
                "the first step can't be a hold: nothing has been done yet",
                lambda steps: steps[0].hold is None or steps[0].weight is not None,
            ),
            Cel(
                "self.all(s, !has(s.weight) || s.weight != 0) || (has(self[0].weight) && self[0].weight == 0)",
                "weight 0 is for the first step only",
                lambda steps: all(step.weight != 0 for step in steps[1:]),
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="Steps in order, 1 to 20, with increasing weights. After the last one the candidate takes all.",
    )
    preset: Preset | None = Field(
        default=None,
        description="A list of steps by name. Canary: 10 %, 50 %, 100 %, 2m at each of the first two. BlueGreen: full "
        "size without callers, then all at once, watched for 2m before it counts. Rolling: 25, 50, 75, 100 %.",
    )
    ab_test: ABTest | None = Field(default=None, description="Two revisions side by side until a declared end.")
    recreate: Recreate | None = Field(
        default=None, description="Stop the old revision before the new one starts; for hardware that can't hold both."
    )
    sticky: Bool = Field(
        default=False, description="Whether a caller who was given the candidate stays with it during the steps."
    )


class LatencyBudget(Wire):
    """Limit on response times."""

    percentile: Probability = Field(
        default="0.95", description='Share of the responses that must meet it, such as "0.95".'
    )
    max: Threshold = Field(description="Longest response time, 1ms to 1h.")


class InfraGate(Wire):
    """The candidate must load in a real pod and answer the version's samples, before any caller's request."""

    repeats: Annotated[int, Field(strict=True, ge=1, le=1000)] = Field(
        default=3, description="Number of times that each of the version's samples is sent, 1 to 1000."
    )
    latency: LatencyBudget | None = Field(default=None, description="Latency budget. When absent, any.")
    memory: Quantity | None = Field(
        default=None, description="Memory that a pod may hold after the samples, such as 2Gi. When absent, any."
    )
    timeout: Wait = Field(default="10m", description="Time for loading and answering, 1s to 720h.")


class EvaluationMetric(Wire):
    """Limits for one figure of the evaluation's report."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "has(self.min) || has(self.max) || has(self.minDelta) || has(self.maxDelta)",
            "a metric of the evaluation needs at least one of min, max, minDelta and maxDelta: without a limit it "
            "decides nothing",
            lambda self: any(limit is not None for limit in (self.min, self.max, self.min_delta, self.max_delta)),
        ),
        Cel(
            "!has(self.min) || !has(self.max) || double(self.min) <= double(self.max)",
            "must not be below min: nothing could pass",
            lambda self: _is_ordered(self.min, self.max),
            ".max",
        ),
        Cel(
            "!has(self.minDelta) || !has(self.maxDelta) || double(self.minDelta) <= double(self.maxDelta)",
            "must not be below minDelta: nothing could pass",
            lambda self: _is_ordered(self.min_delta, self.max_delta),
            ".maxDelta",
        ),
        Cel(
            "!has(self.confidence) || double(self.confidence) >= 0.9",
            "must be at least 0.9: the test is known to keep its level there",
            lambda self: self.confidence is None or float(self.confidence) >= 0.9,
            ".confidence",
        ),
    )

    name: Text63 = Field(description="Name of the figure in the report, such as accuracy.")
    min: Decimal | None = Field(default=None, description="Smallest value the candidate may have.")
    max: Decimal | None = Field(default=None, description="Largest value the candidate may have.")
    min_delta: Decimal | None = Field(
        default=None,
        description='Smallest difference to the serving version (candidate - serving), such as "-0.005" for a figure '
        "where higher is better. Skipped when nothing serves yet.",
    )
    max_delta: Decimal | None = Field(
        default=None,
        description="Largest difference to the serving version (candidate - serving), for a figure where lower is "
        "better. Skipped when nothing serves yet.",
    )
    slices: Annotated[tuple[Text63, ...], Field(max_length=31), ListType("set")] = Field(
        default=(),
        description="Slices of the data for which the limits must hold as well, each of which must be in the report. "
        "At most 31.",
    )
    confidence: Probability | None = Field(
        default=None,
        description="Confidence with which each limit must be proven to hold, for all of the data and for each slice, "
        'at least "0.9". When absent, "0.95".',
    )


MAX_FIGURES = 32
"""Largest number of figures of a gate, each metric's slices counted: they must fit into a termination message."""


def max_figures_rule(field: str) -> Cel:
    """Return the rule that bounds the figures of a list of metrics."""
    return Cel(
        f"self.{field}.map(m, has(m.slices) ? m.slices.size() + 1 : 1).sum() <= {MAX_FIGURES}",
        f"has more than {MAX_FIGURES} figures, a metric for all data and for each of its slices: a report has no "
        "room for them",
        lambda self: sum(1 + len(metric.slices) for metric in getattr(self, field)) <= MAX_FIGURES,
        f".{field}",
    )


class EvaluationGate(Wire):
    """A Job scores candidate and serving version on data held out, before the candidate gets a serving pod."""

    __cel__: ClassVar[tuple[Cel, ...]] = (max_figures_rule("metrics"),)

    template: Annotated[OpenObject, NamedObject("PodTemplate")] = Field(
        description="Pod template of the Job (spec.template of batch/v1), with a container that reports by the result "
        "contract; see the how-to on gates."
    )
    timeout: Wait = Field(default="1h", description="Time for the Job, 1s to 720h.")
    backoff_limit: Annotated[int, Field(strict=True, ge=0, le=10)] = Field(
        default=1, description="Tries after a failed one, 0 to 10."
    )
    metrics: Annotated[tuple[EvaluationMetric, ...], Field(min_length=1, max_length=32), ListType("map", ("name",))] = (
        Field(
            description="Figures with their limits, 1 to 32; with all slices together at most 32. A figure that is "
            "missing in the report fails."
        )
    )


def _is_global(value: str) -> bool:
    return _GLOBAL.fullmatch(value) is not None


_GLOBAL_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*(\.[*])?$"
_GLOBAL = re.compile(_GLOBAL_PATTERN.removeprefix("^").removesuffix("$"))
AllowedGlobal = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=256),
    Cel(
        f"self.matches(r'{_GLOBAL_PATTERN}')",
        "must be a name such as sklearn.pipeline.Pipeline, or a module with all below it, such as sklearn.*",
        _is_global,
    ),
]
AllowedFile = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=256)]


class ScanAllow(Wire):
    """Exceptions: code and files that an artifact may contain."""

    globals: Annotated[tuple[AllowedGlobal, ...], Field(max_length=64), ListType("set")] = Field(
        default=(),
        description="Names that a pickle may import, at most 64: one such as mylib.scale, or sklearn.* for all classes "
        "of sklearn and the modules below. A function must be named in full.",
    )
    files: Annotated[tuple[AllowedFile, ...], Field(max_length=64), ListType("set")] = Field(
        default=(),
        description="Files that pass unread, at most 64: paths within the artifact, with * for any "
        "characters. A member of an archive is named <archive>!<member>.",
    )


class ScanGate(Wire):
    """The artifact must contain only allowed code; it is checked before anything loads it."""

    allow: ScanAllow = Field(default_factory=ScanAllow, description="Exceptions: allowed code and files.")
    timeout: Wait = Field(default="30m", description="Time for fetching and reading the artifact, 1s to 720h.")


class Gates(Wire):
    """Checks that must pass before any caller's request reaches the candidate, in this order: scan, evaluation, infra,
    approval."""

    scan: ScanGate | None = Field(default=None, description="Allows no code except what `allow` lists.")
    evaluation: EvaluationGate | None = Field(default=None, description="Scores both versions on held-out data.")
    infra: InfraGate | None = Field(default=None, description="Loads the candidate and sends it the version's samples.")
    approval: ApprovalStep | None = Field(default=None, description="Requires approvals.")


MAX_BRACKETS = 32
"""Largest nesting of brackets in a query: the parser's time grows with its third power."""
MAX_SIGNS = 8
"""Largest number of consecutive signs in a query."""
# The operator counts brackets with text between them, which no pattern can.
_RUN = rf"([(]\s*){{{MAX_BRACKETS + 1}}}|([-+]\s*){{{MAX_SIGNS + 1}}}"
_LONG_RUN = re.compile(_RUN)

PromQL = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=4096),
    Cel(
        f"!self.matches(r'{_RUN}')",
        f"has more than {MAX_BRACKETS} brackets, or more than {MAX_SIGNS} signs, in a row",
        lambda value: _LONG_RUN.search(value) is None,
    ),
]


class PrometheusMetric(Wire):
    """A query, or two that count bad and all requests."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "has(self.query) ? !has(self.bad) && !has(self.total) : has(self.bad) && has(self.total)",
            "prometheus needs either query, or bad and total",
            lambda self: (
                (self.query is not None and self.bad is None and self.total is None)
                or (self.query is None and self.bad is not None and self.total is not None)
            ),
        ),
    )

    provider: Label = Field(default="default", description="Name of a connection in the operator's configuration.")
    query: PromQL | None = Field(
        default=None,
        description="PromQL that gives one number for one revision. $(NAMESPACE), $(MODEL), $(VERSION), $(REVISION) "
        "and $(PODS) (a regular expression of the revision's pod names) are filled in.",
    )
    bad: PromQL | None = Field(
        default=None,
        description="Selector of raw counters of what counts as bad, such as "
        'orders_total{pod=~"$(PODS)",result="lost"}. No functions: the growth since the step began is computed here.',
    )
    total: PromQL | None = Field(default=None, description="Selector of raw counters of everything, bad included.")


class HttpMetric(Wire):
    """A number in a JSON document that an HTTP server gives."""

    provider: Label = Field(default="default", description="Name of a connection in the operator's configuration.")
    path: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=2048, pattern=r"^/[!-~]*$")] = Field(
        description="Path and query; $(NAMESPACE), $(MODEL), $(VERSION) and $(REVISION) are filled in."
    )
    value: Annotated[str, StringConstraints(strict=True, max_length=512, pattern=r"^(/([^/~]|~[01])*)*$")] = Field(
        description="JSON pointer (RFC 6901) to the number, such as /data/score; empty for the whole document."
    )


class JobMetric(Wire):
    """A number that a Job reports; the Job runs once for each measurement."""

    template: Annotated[OpenObject, NamedObject("PodTemplate")] = Field(
        description="Pod template of the Job (spec.template of batch/v1)."
    )
    value: Text63 = Field(description="Name of the figure in its report, as in the result contract.")
    timeout: Wait = Field(default="10m", description="Time for the Job, 1s to 720h.")


def _has_one_source(metric: Metric) -> bool:
    return sum(part is not None for part in (metric.builtin, metric.prometheus, metric.http, metric.job)) == 1


def is_share(metric: Metric) -> bool:
    """Return whether it is judged as a share of requests, by the sequential test; otherwise as a value."""
    if metric.builtin is not None:
        return metric.builtin in SHARE_BUILTINS
    return metric.prometheus is not None and metric.prometheus.query is None


_IS_SHARE = (
    "((has(self.builtin) && self.builtin in ['error-rate', 'latency-over', 'latency-percentile', 'agreement']) || "
    "(has(self.prometheus) && !has(self.prometheus.query)))"
)


def _is_counted(metric: Metric) -> bool:
    """Return whether its unit is a share of requests; a percentile is in seconds, though judged as a share."""
    return is_share(metric) and metric.builtin != "latency-percentile"


_IS_COUNTED = f"({_IS_SHARE} && !(has(self.builtin) && self.builtin == 'latency-percentile'))"


class Metric(Wire):
    """One metric with its limits. What it measures comes from exactly one of builtin, prometheus, http and job."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "[has(self.builtin), has(self.prometheus), has(self.http), has(self.job)].filter(set, set).size() == 1",
            "a metric needs exactly one of builtin, prometheus, http and job",
            _has_one_source,
        ),
        Cel(
            "has(self.margin) || has(self.max) || has(self.min)",
            "a metric needs margin, max or min: without a limit it decides nothing",
            lambda self: self.margin is not None or self.max is not None or self.min is not None,
        ),
        Cel(
            "!has(self.versus) || self.versus == 'Serving' || !has(self.margin)",
            "margin compares with the serving revision: it has no effect with versus None",
            lambda self: self.versus == "Serving" or self.margin is None,
            ".margin",
        ),
        Cel(
            "has(self.threshold) == (has(self.builtin) && self.builtin == 'latency-over')",
            "threshold is needed by builtin latency-over, and by nothing else",
            lambda self: (self.threshold is not None) == (self.builtin == "latency-over"),
            ".threshold",
        ),
        Cel(
            "has(self.percentile) == (has(self.builtin) && self.builtin == 'latency-percentile')",
            "percentile is needed by builtin latency-percentile, and by nothing else",
            lambda self: (self.percentile is not None) == (self.builtin == "latency-percentile"),
            ".percentile",
        ),
        Cel(
            "!has(self.source) || self.source == 'Auto' || (has(self.builtin) && !(self.builtin in ['agreement', "
            "'absolute-difference', 'relative-difference']))",
            "source chooses between gateway and runtime for errors, latency and throughput: it has no effect here",
            lambda self: self.source == "Auto" or self.builtin not in (None, *SHADOW_BUILTINS),
            ".source",
        ),
        Cel(
            f"!(has(self.minSamples) || has(self.confidence)) || {_IS_SHARE} || "
            "(!has(self.minSamples) && (has(self.prometheus) || has(self.job)))",
            "minSamples and confidence are for shares of requests: this metric is a value, which failureLimit is for",
            lambda self: (
                (self.min_samples is None and self.confidence is None)
                or is_share(self)
                or (self.min_samples is None and (self.prometheus is not None or self.job is not None))
            ),
        ),
        Cel(
            "!has(self.confidence) || double(self.confidence) >= 0.5",
            'must be at least 0.5: it is the chance of a right decision ("0.95"), not that of a wrong one',
            lambda self: self.confidence is None or float(self.confidence) >= 0.5,
            ".confidence",
        ),
        Cel(
            f"!has(self.burst) || {_IS_SHARE}",
            "burst is for shares of requests: this metric is a value",
            lambda self: self.burst is None or is_share(self),
            ".burst",
        ),
        Cel(
            f"!has(self.failureLimit) || !{_IS_SHARE}",
            "failureLimit is for values; a share of requests fails when the evidence is there, once",
            lambda self: self.failure_limit is None or not is_share(self),
            ".failureLimit",
        ),
        Cel(
            "!has(self.builtin) || !(self.builtin in ['agreement', 'absolute-difference', 'relative-difference']) || "
            "!has(self.margin)",
            "agreement and differences compare with the serving revision already: use min or max instead of margin",
            lambda self: self.builtin not in SHADOW_BUILTINS or self.margin is None,
            ".margin",
        ),
        Cel(
            "!has(self.builtin) || self.builtin != 'throughput' || !has(self.margin)",
            "throughput differs with the weights, so a margin compares nothing: use min or max",
            lambda self: self.builtin != "throughput" or self.margin is None,
            ".margin",
        ),
        Cel(
            "!has(self.builtin) || self.builtin != 'agreement' || (has(self.min) && !has(self.max))",
            'agreement needs min, the share of answers that must agree, such as "0.95"',
            lambda self: self.builtin != "agreement" or (self.min is not None and self.max is None),
            ".min",
        ),
        Cel(
            "!has(self.builtin) || !(self.builtin in ['error-rate', 'latency-over', 'latency-percentile', "
            "'absolute-difference', 'relative-difference']) || !has(self.min)",
            "min has no effect on a metric where less is better: use max or margin",
            lambda self: self.builtin in (None, "throughput", "agreement") or self.min is None,
            ".min",
        ),
        Cel(
            f"!{_IS_COUNTED} || ((!has(self.margin) || (double(self.margin) >= -1.0 && double(self.margin) <= 1.0)) && "
            "(!has(self.max) || (double(self.max) >= 0.0 && double(self.max) <= 1.0)) && "
            "(!has(self.min) || (double(self.min) >= 0.0 && double(self.min) <= 1.0)))",
            'limits of a share of requests are shares themselves, at most 1: write "0.02" for 2 in 100',
            lambda self: (
                not _is_counted(self)
                or (_is_within(self.margin, -1, 1) and _is_within(self.max, 0, 1) and _is_within(self.min, 0, 1))
            ),
        ),
        Cel(
            "!has(self.min) || !has(self.max) || double(self.min) <= double(self.max)",
            "must not be below min: nothing could pass",
            lambda self: _is_ordered(self.min, self.max),
            ".max",
        ),
    )

    name: Label = Field(description="Name, unique in the policy.")
    builtin: Builtin | None = Field(
        default=None,
        description="error-rate: share of requests answered with 5xx or not at all. latency-over: share slower than "
        "threshold. latency-percentile: percentile in seconds. throughput: requests per second. In mirror steps only: "
        "agreement (share of an answer's rows that agree, averaged over the answers), absolute-difference and "
        "relative-difference (mean, of numbers).",
    )
    prometheus: PrometheusMetric | None = Field(default=None, description="From a Prometheus server.")
    http: HttpMetric | None = Field(default=None, description="From a JSON document.")
    job: JobMetric | None = Field(default=None, description="From a Job.")
    threshold: Threshold | None = Field(
        default=None,
        description="Latency objective of latency-over, 1ms to 1h; must be a boundary of the histogram's buckets.",
    )
    percentile: Probability | None = Field(default=None, description='Percentile, such as "0.95".')
    source: Literal["Auto", "Gateway", "Runtime"] = Field(
        default="Auto",
        description="Source of a builtin metric: Gateway counts a crash as an error, Runtime is the model "
        "server's own. Auto takes the gateway where there is one that the operator knows, else the runtime.",
    )
    versus: Literal["Serving", "None"] = Field(
        default="Serving",
        description="Baseline of margin: Serving is the serving revision over the same time. None: max and min only.",
    )
    margin: Decimal | None = Field(
        default=None,
        description="How much worse than the serving revision the candidate may be, in the unit of the metric, such "
        'as "0.02" '
        "for two more errors in 100 requests.",
    )
    max: Decimal | None = Field(default=None, description="Largest allowed value, independent of the serving revision.")
    min: Decimal | None = Field(
        default=None, description="Smallest allowed value, independent of the serving revision."
    )
    min_samples: Annotated[int, Field(strict=True, ge=1, le=10000000)] | None = Field(
        default=None,
        description="Requests that each revision must have answered in the step, 1 to 10000000; of agreement, answers "
        "that were compared. When absent, 300.",
    )
    confidence: Probability | None = Field(
        default=None,
        description="Confidence of the decision over the whole rollout, however often it is measured. For a query: "
        "that "
        "the winner of an A/B test is better. For a Job's figure with its error: over all measurements of the rollout. "
        'When absent, "0.95".',
    )
    burst: Annotated[int, Field(strict=True, ge=1, le=1000)] | None = Field(
        default=None,
        description="Number of consecutive requests with one fate, such as retries of one call or the rows of a "
        "client's loop, 1 to 1000: they count as one request for the evidence. When absent, 1.",
    )
    failure_limit: Annotated[int, Field(strict=True, ge=0, le=100)] | None = Field(
        default=None,
        description="Measurements outside the limits that are tolerated in a step, 0 to 100. When absent, 0.",
    )
    dry_run: Bool = Field(default=False, description="Whether the metric is reported but decides nothing.")


class Analysis(Wire):
    """The evidence that is evaluated at each step and while approvals are awaited."""

    interval: Interval = Field(default="30s", description="Time between two measurements, 1s to 1h.")
    baseline: Literal["Serving", "Fresh"] = Field(
        default="Serving",
        description="Baseline of margins during weights: Serving is all of the serving revision. Fresh is new "
        "pods of the serving revision, as many and with as many requests as the candidate's, so that age and load are "
        "alike; it needs a gateway, weights of at most 50 (or 100), and no surge bound.",
    )
    metrics: Annotated[tuple[Metric, ...], Field(min_length=1, max_length=16), ListType("map", ("name",))] = Field(
        description="Metrics, 1 to 16. All must pass."
    )


class Surge(Wire):
    """Pods and resources that a rollout may use in addition to the serving revision."""

    pods: Annotated[int, Field(strict=True, ge=0, le=1000)] | None = Field(
        default=None, description="Pods beyond those of the serving revision, 0 to 1000. When absent, no bound."
    )
    resources: Annotated[
        dict[str, Quantity],
        Field(max_length=16),
        Cel(
            f"self.all(key, key.size() <= 253 && key.matches(r'{QUALIFIED_NAME}'))",
            "keys must be names of resources, such as nvidia.com/gpu",
            lambda value: all(len(key) <= 253 and _QUALIFIED.fullmatch(key) for key in value),
        ),
    ] = Field(
        default_factory=dict,
        description='Extended resources beyond those of the serving revision, such as nvidia.com/gpu: "1". At most 16.',
    )


Cron = Annotated[
    str,
    StringConstraints(strict=True, min_length=9, max_length=128),
    pattern_rule(
        r"^[0-9*/,-]+ [0-9*/,-]+ ([0-9*/,-]+|LW?) [0-9*/,A-Za-z-]+ [0-9*/,#A-Za-z-]+$",
        'must be five fields: minute, hour, day of month, month, day of week, such as "0 18 * * 5"',
    ),
]


TimeZone = Annotated[
    str, StringConstraints(strict=True, min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_+/-]*$")
]


class Freeze(Wire):
    """A time window in which no rollout starts or proceeds. Rollbacks and aborts are never held up."""

    schedule: Cron = Field(description='Start of the window, as a cron schedule of five fields, such as "0 18 * * 5".')
    duration: Annotated[str, *duration_between("1m", "744h")] = Field(description="Length of the window, 1m to 744h.")
    time_zone: TimeZone = Field(
        default="UTC", description="Time zone of the schedule, by its IANA name, such as Europe/Berlin."
    )


def _strategy_steps(spec: RolloutPolicySpec) -> tuple[Step, ...]:
    return spec.strategy.steps or ()


def _shadow_metrics_have_mirror(spec: RolloutPolicySpec) -> bool:
    asks = spec.analysis is not None and any(m.builtin in SHADOW_BUILTINS for m in spec.analysis.metrics)
    return not asks or any(step.mirror is not None for step in _strategy_steps(spec))


def _winner_is_known(spec: RolloutPolicySpec) -> bool:
    test = spec.strategy.ab_test
    if test is None:
        return True
    return spec.analysis is not None and any(m.name == test.winner.metric for m in spec.analysis.metrics)


def _confidence_has_effect(spec: RolloutPolicySpec) -> bool:
    test = spec.strategy.ab_test
    metrics = spec.analysis.metrics if spec.analysis is not None else ()
    queries = [m for m in metrics if m.confidence and m.prometheus is not None and m.prometheus.query is not None]
    return all(test is not None and m.name == test.winner.metric for m in queries)


class RolloutPolicySpec(Wire):
    """Strategy, gates, evidence, and the reaction to failure."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "!has(self.analysis) || !self.analysis.metrics.exists(m, has(m.builtin) && m.builtin in ['agreement', "
            "'absolute-difference', 'relative-difference']) || (has(self.strategy.steps) && "
            "self.strategy.steps.exists(s, has(s.mirror)))",
            "agreement and differences are measured in mirror steps, and spec.strategy.steps has none",
            _shadow_metrics_have_mirror,
            ".analysis",
        ),
        Cel(
            "!has(self.strategy.abTest) || (has(self.analysis) && "
            "self.analysis.metrics.exists(m, m.name == self.strategy.abTest.winner.metric))",
            "spec.strategy.abTest.winner.metric names no metric of spec.analysis.metrics",
            _winner_is_known,
            ".strategy",
        ),
        Cel(
            "!has(self.analysis) || self.analysis.metrics.all(m, !has(m.confidence) || !has(m.prometheus) || "
            "!has(m.prometheus.query) || (has(self.strategy.abTest) && self.strategy.abTest.winner.metric == m.name))",
            "confidence of a query has an effect only on the metric that decides an A/B test",
            _confidence_has_effect,
            ".analysis",
        ),
        Cel(
            "!has(self.strategy.recreate) || !has(self.surge)",
            "spec.surge has no effect with recreate: the old revision stops first",
            lambda self: self.strategy.recreate is None or self.surge is None,
            ".surge",
        ),
    )

    strategy: Strategy = Field(description="Way of moving traffic: exactly one of steps, preset, abTest and recreate.")
    gates: Gates | None = Field(default=None, description="Checks that must pass before any caller's request.")
    analysis: Analysis | None = Field(
        default=None, description="The evidence. When absent, none is required: steps end with their hold."
    )
    on_inconclusive: Literal["Hold", "Rollback"] = Field(
        default="Hold",
        description="Reaction when the hold has passed and the evidence is inconclusive: Hold waits until the "
        "deadline, "
        "Rollback ends the rollout at once. Either way it ends as Aborted: the serving revision gets all traffic "
        "again, and the version is not quarantined.",
    )
    on_failure: Literal["Rollback", "Hold"] = Field(
        default="Rollback",
        description="Reaction when a metric fails: Rollback, or Hold for a person until the deadline.",
    )
    deadline: Deadline = Field(
        default="1h",
        description="Time for the whole rollout, 1s to 720h; then the serving revision gets all traffic again. It "
        "ends as RolledBack when a metric has failed or the candidate's pods fail, else as Aborted. Waiting for "
        "approvals, pauses and freezes don't count.",
    )
    keep_previous: Annotated[str, *duration_between("0s", "720h")] = Field(
        default="5m",
        description="Time that the pods of the previous revision are kept after promotion, so that going back is a "
        "switch, 0s to 720h.",
    )
    rollback_window: Annotated[int, Field(strict=True, ge=0, le=10)] = Field(
        default=3,
        description="Going back to one of this many revisions that served before skips steps, gates and analysis, "
        "0 to 10.",
    )
    surge: Surge | None = Field(
        default=None, description="Limit on the extra pods and resources of a rollout. When absent, none."
    )
    freeze: Annotated[tuple[Freeze, ...], Field(max_length=16), ListType("atomic")] = Field(
        default=(), description="Windows in which no rollout starts or proceeds, at most 16."
    )
    history_limit: Annotated[int, Field(strict=True, ge=1, le=100)] = Field(
        default=10, description="Ended ModelRollouts kept of each Model, 1 to 100."
    )
    history_ttl: History = Field(
        default="168h",
        alias="historyTTL",
        description="Time that ended ModelRollouts outlive their Model, 0s to 8760h.",
    )
    changed_by: Text253 | None = changed_by_field("anything else of spec")


class RolloutPolicyStatus(StatusWire):
    """Findings about a policy that do not depend on a Model."""

    observed_generation: int | None = Field(
        default=None, ge=0, le=INT64_MAX, description="metadata.generation that this status is about."
    )
    requests_per_second: ShortStatusText | None = Field(
        default=None,
        description="Requests per second, of a Model, with which a good candidate is decided at each step within "
        "spec.deadline, when 1 request in 100 is an error and 5 in 100 are slow. Absent when no number would do.",
    )
    conditions: Conditions = Field(
        default=(), description="Ready, Reconciling and Stalled, as kstatus defines them, Decidable and EvidenceAsked."
    )


class RolloutPolicy(Resource):
    """Policy for moves of Models to another revision."""

    __spec_bytes__: ClassVar[int | None] = MAX_POLICY_BYTES
    __crd__: ClassVar[CrdInfo] = CrdInfo(
        plural="rolloutpolicies",
        short_name="rp",
        description="A RolloutPolicy defines how Models move to another revision: steps, gates, evidence, and the "
        "reaction to bad evidence. Models name it in spec.rolloutPolicyRef.",
        columns=(
            Column("Preset", ".spec.strategy.preset", "List of steps by name."),
            Column("Deadline", ".spec.deadline", "Time for a whole rollout."),
            Column("OnFailure", ".spec.onFailure", "Reaction when a metric fails."),
            Column(
                "Requests",
                ".status.requestsPerSecond",
                "Requests per second with which each step is decided within the deadline.",
                wide=True,
            ),
            Column(
                "Decidable",
                '.status.conditions[?(@.type=="Decidable")].status',
                "Whether 20 requests per second are enough for that.",
            ),
            READY_COLUMN,
            AGE_COLUMN,
        ),
    )

    kind: str = "RolloutPolicy"
    spec: RolloutPolicySpec = Field(description="Strategy, gates, evidence, and the reaction to failure.")
    status: RolloutPolicyStatus = Field(
        default_factory=RolloutPolicyStatus, description="Findings about the policy alone, before a Model uses it."
    )
