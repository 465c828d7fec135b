"""Lint of evaluation margins: whether usual numbers of examples can decide them, before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from modelwright.api.v1alpha1.policy import EvaluationMetric
from modelwright.core.analysis.figure_evidence import equally_good
from modelwright.core.evaluation_gate import DEFAULT_CONFIDENCE

ASSUMED_EXAMPLES = 2000
"""Assumed number of examples of an evaluation, or of a slice of it."""
ASSUMED_DIFFERING_SHARE = 0.06
"""Assumed share of the examples that only one of two equally good versions gets right."""

_POWER = 0.9


def lint_margins(metrics: Sequence[EvaluationMetric], field: str) -> Iterator[str]:
    """Yield warnings on margins that lie within two standard errors. `field`: path of the metrics in the spec."""
    for metric in metrics:
        for name, limit, margin in _list_margins(metric):
            warning = _describe_margin(
                margin, float(metric.confidence) if metric.confidence is not None else DEFAULT_CONFIDENCE
            )
            if warning:
                yield f"{field}: {name} {limit} of {metric.name} {warning}"


def _list_margins(metric: EvaluationMetric) -> Iterator[tuple[str, str, float]]:
    """Yield each limit versus the serving version, with how much worse a candidate may be."""
    if metric.min_delta is not None:
        yield "minDelta", metric.min_delta, -float(metric.min_delta)
    elif metric.max_delta is not None:
        yield "maxDelta", metric.max_delta, float(metric.max_delta)


def _describe_margin(margin: float, confidence: float) -> str:
    if margin <= 0:
        return (
            "passes only a candidate that is proven better: an equal one is Inconclusive, with any number of examples"
        )
    two_errors = 2 * math.sqrt(ASSUMED_DIFFERING_SHARE / ASSUMED_EXAMPLES)
    if margin >= two_errors:
        return ""
    needed = equally_good(ASSUMED_DIFFERING_SHARE).required_examples(-margin, 1 - confidence, _POWER)
    return (
        f"is within two standard errors ({two_errors:.2g}) of a share of {ASSUMED_EXAMPLES:,} examples of "
        "which two versions "
        f"differ on {ASSUMED_DIFFERING_SHARE:.0%}: an equal candidate passes nine times in ten with about "
        f"{needed:,} examples, in "
        "each slice; a larger margin takes fewer"
    )
