"""The comparer's summary: what mirror steps are judged by."""

from __future__ import annotations

from collections.abc import Callable

from modelwright.analysis.connections import Connection
from modelwright.analysis.port import Ask
from modelwright.analysis.web import Fault, Web
from modelwright.api import names
from modelwright.api.reasons import Reason
from modelwright.core import shadow
from modelwright.core.shadow import Summary, SummaryError
from modelwright.documents import Bounds

ComparerUrl = Callable[[str, str], str]
"""Where the comparer of (namespace, model) answers, without a path."""


SUMMARY = Bounds(64 << 10, values=10_000, depth=16)


def in_cluster(namespace: str, model: str) -> str:
    """The comparer's Service, as pods see it."""
    return f"http://{names.comparer_name(model)}.{namespace}.svc"


def strangers(count: int) -> str:
    """That nothing but requests without the token has come, and what may be the cause."""
    return (
        f"the comparer has refused {count} requests without the token of the Model's route, and had none with it: "
        "either no caller's request was copied yet, and somebody else asks the comparer, or the gateway's copies lack "
        "the headers that HTTPRoute filters set; then set settings.copyToken of the chart to Off"
    )


async def summary(web: Web, url: ComparerUrl, ask: Ask) -> Summary:
    """What the comparer has counted. Raises Fault, also when it compares other revisions."""
    if ask.serving is None:
        raise Fault(Reason.COMPARER_UNREACHABLE, "nothing serves yet, so there is nothing to compare with")
    name = names.comparer_name(ask.model)
    connection = Connection(name=name, type="HTTP", url=url(ask.namespace, ask.model), timeout="5s")
    try:
        answer = await web.ask(connection, "/summary", bounds=SUMMARY)
        if answer.status != 200:
            raise Fault(Reason.COMPARER_UNREACHABLE, f"answered {answer.status}")
        return shadow.parse(answer.document or {}, serving=ask.serving.revision, candidate=ask.candidate.revision)
    except SummaryError as error:
        raise Fault(Reason.COMPARER_UNREACHABLE, str(error)) from None
    except Fault as fault:
        raise Fault(
            Reason.COMPARER_UNREACHABLE, f"the comparer {ask.namespace}/{name}: {fault.failure.message}"
        ) from None
