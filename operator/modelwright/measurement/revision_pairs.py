"""Metrics of two revisions: which revisions are measured, and one value from the answers for both."""

from __future__ import annotations

from collections.abc import Sequence

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.policy import Metric
from modelwright.core.analysis.evidence import MetricValue
from modelwright.measurement import queries
from modelwright.measurement.json_client import MeasurementError
from modelwright.measurement.request import MeasurementRequest, RevisionTarget


def compared_targets(request: MeasurementRequest, metric: Metric) -> list[RevisionTarget]:
    """List the candidate, and the serving revision where there is one and the metric compares with it."""
    if request.serving is not None and metric.versus == "Serving":
        return [request.candidate, request.serving]
    return [request.candidate]


def queried_targets(request: MeasurementRequest, metric: Metric, text: str, field: str) -> list[RevisionTarget]:
    """List the revisions to query: the serving one too, when the query can tell the two apart.

    `text`: the query with its placeholders; `field`: its place in the policy. Raises MeasurementError, permanent, for
    a margin without such a query.
    """
    targets = compared_targets(request, metric)
    if len(targets) == 1 or queries.distinguishes_revisions(text):
        return targets
    if metric.margin is not None:
        raise indistinct_targets_error(field, "margin compares two revisions")
    return [request.candidate]


def indistinct_targets_error(field: str, why: str) -> MeasurementError:
    """Build the error of a query that gives both revisions the same number."""
    message = f"{field}: {why}, and nothing in the query tells them apart: use $(REVISION), $(VERSION) or $(PODS)"
    return MeasurementError(Reason.QUERY_REFUSED, message, permanent=True)


def build_value(numbers: Sequence[tuple[float | None, str]]) -> MetricValue:
    """Build the value from the number of the candidate and, when there is one, of the serving revision.

    Each is (number, why there is none).
    """
    serving = numbers[1][0] if len(numbers) > 1 else None
    return MetricValue(numbers[0][0], serving, join_reasons([why for _, why in numbers]))


def join_reasons(reasons: Sequence[str]) -> str:
    """Join the reasons for missing numbers, the candidate's first; empty ones are left out."""
    parts = (why if index == 0 else f"serving revision: {why}" for index, why in enumerate(reasons) if why)
    return "; ".join(parts)
