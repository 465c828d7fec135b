"""What the comparer counts while a rollout mirrors requests, and the evidence that is in it."""

import itertools
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from modelwright.core.analysis.evidence import Arm, Histogram, Shares, Value

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds, those of the usual Prometheus client."""
DIFFERENCE_BUCKETS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.25, 0.5, 1.0, 10.0, 100.0, 1000.0)
"""Upper bounds of differences, in the unit of the output, or as a share of the larger of the two numbers."""

DifferenceKind = Literal["absolute", "relative"]
Count = Annotated[int, Field(ge=0)]
Buckets = tuple[tuple[str, Count], ...]


class SummaryError(ValueError):
    """A summary that can't be evidence; the text says why."""


class _Part(BaseModel):
    """camelCase on the wire; members that a newer comparer adds are dropped."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


class Pair(_Part):
    """The hashes of the two revisions that are compared."""

    serving: str
    candidate: str


class Sides(_Part):
    """A count for each revision."""

    serving: Count = 0
    candidate: Count = 0


class Agreement(_Part):
    """Rows that were compared in one way, and those of them that differ."""

    rows: Count = 0
    disagreements: Count = 0


class Mismatches(_Part):
    """Answers of the candidate that differ as a whole from the serving revision's, by what is wrong first."""

    unanswered: Count = Field(default=0, description="An error, or nothing at all.")
    unreadable: Count = Field(default=0, description="No V2 answer.")
    names: Count = Field(default=0, description="Other outputs.")
    datatypes: Count = Field(default=0, description="Numbers where there were labels, or the other way round.")
    shapes: Count = Field(default=0, description="Outputs of another shape.")


class Distribution(_Part):
    """A histogram: `buckets` are (upper bound, count up to it), cumulative, "+Inf" last, as Prometheus writes them."""

    count: Count = 0
    sum: float = 0.0
    buckets: Buckets = ()

    @property
    def mean(self) -> float | None:
        """None when nothing was measured."""
        return self.sum / self.count if self.count else None


class Difference(_Part):
    """How far apart numbers are. `relative` is a share of the larger of the two, from 0 to 2.

    `non_finite`: numbers that one of the two gave as NaN or infinite, and the other didn't.
    """

    absolute: Distribution = Distribution()
    relative: Distribution = Distribution()
    non_finite: Count = 0


class Latencies(_Part):
    """Seconds from the request to the end of the answer, of good answers and of those waited for in vain."""

    serving: Distribution = Distribution()
    candidate: Distribution = Distribution()


class Summary(_Part):
    """Counters since `started_at`, cumulative. Every request received is, in the end, in exactly one of `ignored` (no
    inference), `dropped` (the comparer was behind, or the body too large), `compared` and `uncomparable`.

    A row is one entry of the first dimension that all outputs of an answer share; else the whole answer is one.
    """

    started_at: datetime
    pair: Pair
    received: Count = 0
    ignored: Count = 0
    dropped: Count = 0
    compared: Count = 0
    uncomparable: Count = 0
    rows: Count = 0
    disagreements: Count = 0
    agreement: float | None = None
    labels: Agreement = Agreement()
    argmax: Agreement = Agreement()
    mismatches: Mismatches = Mismatches()
    difference: Difference = Difference()
    errors: Sides = Sides()
    latency: Latencies = Latencies()

    def wire(self) -> dict[str, Any]:
        """This summary as JSON has it."""
        return self.model_dump(mode="json", by_alias=True)


def parse(document: str | bytes | Mapping[str, Any], *, serving: str, candidate: str) -> Summary:
    """The summary in the answer of `GET /summary`. SummaryError when it is none, or about other revisions than these
    (a comparer that is on its way out)."""
    try:
        if isinstance(document, str | bytes):
            summary = Summary.model_validate_json(document)
        else:
            summary = Summary.model_validate(document)
        for part in (summary.latency.serving, summary.latency.candidate):
            _bounds(part)
    except (ValidationError, ValueError) as error:
        first = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else None
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
        raise SummaryError(f"the comparer's summary can't be read: {what}") from error
    if summary.disagreements > summary.rows:
        raise SummaryError("the comparer's summary can't be right: it has more disagreements than rows")
    if (summary.pair.serving, summary.pair.candidate) != (serving, candidate):
        told = f"{summary.pair.serving} with {summary.pair.candidate}"
        raise SummaryError(f"the comparer compares {told}, not {serving} with {candidate}: its pod is being replaced")
    return summary


def agreement(summary: Summary) -> Shares:
    """Rows compared as trials, rows that differ as events. There is no serving arm: it is what is compared with.

    Rows that the candidate failed to answer differ: to leave them out would call a model that crashes on what it gets
    wrong a perfect one.
    """
    return Shares(Arm(summary.rows, summary.disagreements), None)


def latency(summary: Summary) -> Histogram:
    """Latencies of both revisions for the very same requests."""
    return Histogram(_bounds(summary.latency.candidate), _bounds(summary.latency.serving))


def difference(summary: Summary, kind: DifferenceKind) -> Value:
    """The mean difference of the numbers that both gave. None when there are none, or when one of the two gave NaN or
    infinity where the other didn't: then no mean exists, and the difference isn't small."""
    measured = summary.difference.absolute if kind == "absolute" else summary.difference.relative
    if summary.difference.non_finite:
        numbers = summary.difference.non_finite + measured.count
        why = f"{summary.difference.non_finite} of {numbers} numbers are NaN or infinite in one of the answers"
        return Value(None, why=why)
    if not measured.count:
        return Value(None, why=f"no numbers were compared in {summary.compared} answers")
    return Value(measured.mean)


def _bounds(distribution: Distribution) -> tuple[tuple[float, int], ...]:
    found = tuple((float(bound), count) for bound, count in distribution.buckets)
    pairs = itertools.pairwise(found)
    grows = all(low < high and fewer <= more for (low, fewer), (high, more) in pairs)
    if found and not (grows and found[-1] == (float("inf"), distribution.count)):
        raise ValueError("buckets must be cumulative, in order, and end with +Inf and the count")
    return found
