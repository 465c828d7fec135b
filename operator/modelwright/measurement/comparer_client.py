"""Fetches the comparer's summary, the evidence of mirror steps."""

from __future__ import annotations

from collections.abc import Callable

from modelwright.api import names
from modelwright.api.reasons import Reason
from modelwright.core.analysis import comparison_summary
from modelwright.core.analysis.comparison_summary import ComparisonSummary, SummaryError
from modelwright.measurement.connections import Connection
from modelwright.measurement.json_client import JsonClient, MeasurementError
from modelwright.measurement.request import MeasurementRequest
from modelwright.untrusted_json import JsonLimits

ComparerUrl = Callable[[str, str], str]
"""Builds the base URL of the comparer of (namespace, model)."""

SUMMARY_LIMITS = JsonLimits(64 << 10, values=10_000, depth=16)


def comparer_service_url(namespace: str, model: str) -> str:
    """Build the URL of the comparer's Service inside the cluster."""
    return f"http://{names.comparer_name(model)}.{namespace}.svc"


def describe_rejected_requests(count: int) -> str:
    """Describe that the comparer has received only requests without the token, and the possible causes."""
    return (
        f"the comparer has refused {count} requests without the token of the Model's route, and had none with it: "
        "either no caller's request was copied yet, and another client sends requests to the comparer, or the "
        "gateway's copies lack the headers that HTTPRoute filters set; then set settings.copyToken of the chart to Off"
    )


async def fetch_summary(client: JsonClient, url: ComparerUrl, request: MeasurementRequest) -> ComparisonSummary:
    """Fetch the comparer's counts. Raises MeasurementError, also when it compares other revisions."""
    if request.serving is None:
        raise MeasurementError(Reason.COMPARER_UNREACHABLE, "nothing serves yet, so there is nothing to compare with")
    name = names.comparer_name(request.model)
    connection = Connection(name=name, type="HTTP", url=url(request.namespace, request.model), timeout="5s")
    try:
        answer = await client.request_json(connection, "/summary", limits=SUMMARY_LIMITS)
        if answer.status != 200:
            raise MeasurementError(Reason.COMPARER_UNREACHABLE, f"answered {answer.status}")
        return comparison_summary.parse_summary(
            answer.document or {}, serving=request.serving.revision, candidate=request.candidate.revision
        )
    except SummaryError as error:
        raise MeasurementError(Reason.COMPARER_UNREACHABLE, str(error)) from None
    except MeasurementError as error:
        raise MeasurementError(
            Reason.COMPARER_UNREACHABLE, f"the comparer {request.namespace}/{name}: {error.failure.message}"
        ) from None
