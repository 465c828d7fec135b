"""Summary of the comparer while a rollout mirrors requests, and the evidence derived from it."""

import itertools
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from modelwright.core.analysis.evidence import Arm, Histogram, MetricValue, PairedRequests, RequestShares, ValueSample

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds, those of the Python Prometheus client."""
DIFFERENCE_BUCKETS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.25, 0.5, 1.0, 10.0, 100.0, 1000.0)
"""Upper bounds of differences, in the unit of the output, or as a share of the larger of the two numbers."""

DISAGREEMENT_POINTS = (0.0, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Points at which an answer's share of rows that differ is counted; batches are mostly powers of two."""

DifferenceKind = Literal["absolute", "relative"]
MAX_COUNT = 2**53
"""Largest count: up to it, a float holds every whole number."""
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
ShareValue = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=MAX_COUNT)]
Buckets = tuple[tuple[str, Count], ...]


class SummaryError(ValueError):
    """The summary can't be evidence; the text says why."""


class _SummaryPart(BaseModel):
    """Base of the summary's parts: camelCase on the wire; members that a newer comparer adds are dropped."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )

    def __add__(self, other: Self) -> Self:
        """Add the counts of two comparers."""
        return self.model_copy(
            update={name: _add_counts(getattr(self, name), getattr(other, name)) for name in type(self).model_fields}
        )

    def __sub__(self, other: Self) -> Self:
        """Subtract the earlier counts, `other`, of the same comparer."""
        return self.model_copy(
            update={
                name: _subtract_counts(getattr(self, name), getattr(other, name)) for name in type(self).model_fields
            }
        )


class RevisionPair(_SummaryPart):
    """The hashes of the two revisions that are compared."""

    serving: str
    candidate: str


class RevisionCounts(_SummaryPart):
    """A count for each revision."""

    serving: Count = 0
    candidate: Count = 0


class RowAgreement(_SummaryPart):
    """Rows compared in one way, and how many of them differ."""

    rows: Count = 0
    disagreements: Count = 0


class ComparedAnswers(_SummaryPart):
    """Compared answers.

    `differing` has pairs of (share of the rows that differ, answers with that share). An answer between two of the
    DISAGREEMENT_POINTS counts as a part at each, so that its share is preserved.
    """

    count: Count = 0
    differing: tuple[tuple[ShareValue, Weight], ...] = ()

    def __add__(self, other: Self) -> Self:
        """Add the counts of two comparers."""
        points: dict[float, float] = {}
        for point, weight in (*self.differing, *other.differing):
            points[point] = points.get(point, 0.0) + weight
        return self.model_copy(update={"count": self.count + other.count, "differing": tuple(sorted(points.items()))})

    @property
    def sample(self) -> ValueSample:
        """Return the share of the rows that agree, for each answer."""
        return ValueSample(0.0, 1.0, tuple((1 - share, weight) for share, weight in self.differing))


class AnswerMismatches(_SummaryPart):
    """Answers of the candidate that differ as a whole from the serving revision's, by the first difference."""

    unanswered: Count = Field(default=0, description="An error, or nothing at all.")
    unreadable: Count = Field(default=0, description="No V2 answer.")
    names: Count = Field(default=0, description="Other outputs.")
    datatypes: Count = Field(default=0, description="Numbers where there were labels, or the other way round.")
    shapes: Count = Field(default=0, description="Outputs of another shape.")


class Distribution(_SummaryPart):
    """A histogram: `buckets` are (upper bound, count up to it), cumulative, "+Inf" last, as Prometheus writes them."""

    count: Count = 0
    sum: float = 0.0
    buckets: Buckets = ()

    @property
    def mean(self) -> float | None:
        """Return the mean; None when nothing was measured."""
        return self.sum / self.count if self.count else None


class NumberDifferences(_SummaryPart):
    """Differences of numbers. `relative` is a share of the larger of the two, from 0 to 2.

    `non_finite` counts numbers that only one of the two gave as NaN or infinite.
    """

    absolute: Distribution = Distribution()
    relative: Distribution = Distribution()
    non_finite: Count = 0


class Latencies(_SummaryPart):
    """Seconds from the request to the end of the answer, for good answers and for those that never came."""

    serving: Distribution = Distribution()
    candidate: Distribution = Distribution()


class PairedCounts(_SummaryPart):
    """Requests sent to both revisions, and those that were bad at both, or at one of them only."""

    total: Count = 0
    both: Count = 0
    candidate_only: Count = 0
    serving_only: Count = 0

    @property
    def pairs(self) -> PairedRequests:
        """Return these counts as evidence. Raises ValueError when there are more bad requests than requests."""
        return PairedRequests(self.total, self.both, self.candidate_only, self.serving_only)


class ComparisonSummary(_SummaryPart):
    """Cumulative counters since `started_at`.

    Every received request is finally in exactly one of `ignored` (no inference), `dropped` (the comparer was behind, or
    the body too large), `compared` and `uncomparable`. `refused` counts further requests, without the token of the
    Model's route.

    A row is one entry of the first dimension that all outputs of an answer share; else the whole answer is one row.
    `agreement` is the share of the rows that agree, averaged over the answers. `paired_errors` are requests that a
    revision failed to answer. `paired_latency` has (one of LATENCY_BUCKETS, requests that took longer), for those with
    a time of both in `latency`. An older comparer has neither.
    """

    started_at: AwareDatetime
    pair: RevisionPair
    refused: Count = 0
    received: Count = 0
    ignored: Count = 0
    dropped: Count = 0
    compared: Count = 0
    uncomparable: Count = 0
    rows: Count = 0
    disagreements: Count = 0
    answers: ComparedAnswers = ComparedAnswers()
    agreement: float | None = None
    labels: RowAgreement = RowAgreement()
    argmax: RowAgreement = RowAgreement()
    mismatches: AnswerMismatches = AnswerMismatches()
    difference: NumberDifferences = NumberDifferences()
    errors: RevisionCounts = RevisionCounts()
    latency: Latencies = Latencies()
    paired_errors: PairedCounts | None = None
    paired_latency: tuple[tuple[str, PairedCounts], ...] = ()

    def __add__(self, other: Self) -> Self:
        """What two comparers of the same pair have counted."""
        same = {"started_at", "pair", "agreement"}
        counted = {
            name: _add_counts(getattr(self, name), getattr(other, name))
            for name in type(self).model_fields.keys() - same
        }
        answers = self.answers + other.answers
        first = min(self.started_at, other.started_at)
        return self.model_copy(update={**counted, "started_at": first, "agreement": answers.sample.share})

    def __sub__(self, other: Self) -> Self:
        """Subtract the earlier counts, `other`, of the same comparer."""
        same = {"started_at", "pair", "agreement"}
        counted = {
            name: _subtract_counts(getattr(self, name), getattr(other, name))
            for name in type(self).model_fields.keys() - same
        }
        share = counted["answers"].sample.share
        return self.model_copy(update={**counted, "agreement": share})

    def wire(self) -> dict[str, Any]:
        """Return this summary as JSON has it."""
        return self.model_dump(mode="json", by_alias=True)


def parse_summary(document: str | bytes | Mapping[str, Any], *, serving: str, candidate: str) -> ComparisonSummary:
    """Parse the answer of `GET /summary`.

    Raises SummaryError when it is malformed, or about other revisions than these (a comparer that is being replaced).
    """
    try:
        if isinstance(document, str | bytes):
            summary = ComparisonSummary.model_validate_json(document)
        else:
            summary = ComparisonSummary.model_validate(document)
        error_shares(summary)
        latency_histogram(summary)
    except (ValidationError, ValueError) as error:
        first = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else None
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
        raise SummaryError(f"the comparer's summary can't be read: {problem}") from error
    if summary.disagreements > summary.rows:
        raise SummaryError("the comparer's summary can't be right: it has more disagreements than rows")
    if not math.isclose(summary.answers.sample.size, summary.answers.count, rel_tol=1e-6):
        raise SummaryError("the comparer's summary can't be right: answers.differing doesn't add up to answers.count")
    if (summary.pair.serving, summary.pair.candidate) != (serving, candidate):
        compared_pair = f"{summary.pair.serving} with {summary.pair.candidate}"
        raise SummaryError(
            f"the comparer compares {compared_pair}, not {serving} with {candidate}: its pod is being replaced"
        )
    return summary


def count_pending(summary: ComparisonSummary) -> int:
    """Count the mirrored requests that the comparer has accepted and that both revisions have not yet answered."""
    return max(0, summary.received - summary.ignored - summary.dropped - summary.compared - summary.uncomparable)


def agreement_sample(summary: ComparisonSummary) -> ValueSample:
    """Return the share of rows that agree, for each compared answer.

    The rows of one answer share their fate, so an answer is one trial. Rows that the candidate failed to answer differ:
    without them a model that crashes on the inputs it gets wrong would look perfect.
    """
    return summary.answers.sample


def error_shares(summary: ComparisonSummary) -> RequestShares:
    """Return the requests that each revision failed to answer, out of the same requests."""
    requests = summary.compared + summary.uncomparable
    failed = summary.errors
    arms = [Arm(requests, min(requests, count)) for count in (failed.candidate, failed.serving)]
    return RequestShares(arms[0], arms[1], None if summary.paired_errors is None else summary.paired_errors.pairs)


def latency_histogram(summary: ComparisonSummary) -> Histogram:
    """Return the latencies of both revisions for the same requests."""
    paired = tuple((float(bound), counts.pairs) for bound, counts in summary.paired_latency)
    return Histogram(_parse_buckets(summary.latency.candidate), _parse_buckets(summary.latency.serving), paired)


def mean_difference(summary: ComparisonSummary, kind: DifferenceKind) -> MetricValue:
    """Return the mean difference of the numbers that both gave.

    None when there are none, or when only one of the two gave NaN or infinity: then no mean exists, and the difference
    isn't small.
    """
    measured = summary.difference.absolute if kind == "absolute" else summary.difference.relative
    if summary.difference.non_finite:
        numbers = summary.difference.non_finite + measured.count
        why = f"{summary.difference.non_finite} of {numbers} numbers are NaN or infinite in one of the answers"
        return MetricValue(None, why=why)
    if not measured.count:
        return MetricValue(None, why=f"no numbers were compared in {summary.compared} answers")
    return MetricValue(measured.mean)


def _add_counts(one: Any, other: Any) -> Any:
    """Add two counts, two parts, or two lists of counts by bound.

    The lists are cumulative, so that a bound which only one of them has can be left out. Counts that only one comparer
    has are taken from it.
    """
    if one is None or one == ():
        return other
    if other is None or other == ():
        return one
    if isinstance(one, tuple):
        theirs = dict(other)
        return tuple((bound, count + theirs[bound]) for bound, count in one if bound in theirs)
    return one + other


def _subtract_counts(one: Any, other: Any) -> Any:
    """Subtract the earlier counts, `other`, of the same comparer; the counterpart of `_add_counts`."""
    if one is None or other is None:
        return one
    if isinstance(one, tuple):
        before = dict(other)
        return tuple((bound, _subtract_counts(count, before.get(bound))) for bound, count in one)
    return one - other


def _parse_buckets(distribution: Distribution) -> tuple[tuple[float, int], ...]:
    buckets = tuple((float(bound), count) for bound, count in distribution.buckets)
    pairs = itertools.pairwise(buckets)
    grows = all(low < high and fewer <= more for (low, fewer), (high, more) in pairs)
    if buckets and not (grows and buckets[-1] == (float("inf"), distribution.count)):
        raise ValueError("buckets must be cumulative, in order, and end with +Inf and the count")
    return buckets
