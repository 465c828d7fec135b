"""The comparer's summary: what mirror steps are judged by."""

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
"""Where the comparer of (namespace, model) answers, without a path."""


SUMMARY_LIMITS = JsonLimits(64 << 10, values=10_000, depth=16)


def comparer_service_url(namespace: str, model: str) -> str:
    """The comparer's Service, as pods see it."""
    return f"http://{names.comparer_name(model)}.{namespace}.svc"


def describe_rejected_requests(count: int) -> str:
    """That nothing but requests without the token has come, and what may be the cause."""
    return (
        f"the comparer has refused {count} requests without the token of the Model's route, and had none with it: "
        "either no caller's request was copied yet, and somebody else asks the comparer, or the gateway's copies lack "
        "the headers that HTTPRoute filters set; then set settings.copyToken of the chart to Off"
    )


async def fetch_summary(web: JsonClient, url: ComparerUrl, ask: MeasurementRequest) -> ComparisonSummary:
    """What the comparer has counted. Raises Fault, also when it compares other revisions."""
    if ask.serving is None:
        raise MeasurementError(Reason.COMPARER_UNREACHABLE, "nothing serves yet, so there is nothing to compare with")
    name = names.comparer_name(ask.model)
    connection = Connection(name=name, type="HTTP", url=url(ask.namespace, ask.model), timeout="5s")
    try:
        answer = await web.request_json(connection, "/summary", bounds=SUMMARY_LIMITS)
        if answer.status != 200:
            raise MeasurementError(Reason.COMPARER_UNREACHABLE, f"answered {answer.status}")
        return comparison_summary.parse_summary(
            answer.document or {}, serving=ask.serving.revision, candidate=ask.candidate.revision
        )
    except SummaryError as error:
        raise MeasurementError(Reason.COMPARER_UNREACHABLE, str(error)) from None
    except MeasurementError as fault:
        raise MeasurementError(
            Reason.COMPARER_UNREACHABLE, f"the comparer {ask.namespace}/{name}: {fault.failure.message}"
        ) from None
