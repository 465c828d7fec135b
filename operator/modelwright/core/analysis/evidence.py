"""Measurements and verdicts of a rollout: plain data between metric sources, statistics and the decision table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum, unique

from modelwright.api.reasons import Reason
from modelwright.core.analysis.report_figures import Figure


def _check_counts(trials: int, events: int) -> None:
    if not 0 <= events <= trials:
        raise ValueError(f"{events} bad requests of {trials}: it must be 0 <= events <= trials")


@dataclass(frozen=True, slots=True)
class Arm:
    """Requests of one revision since a step started, and how many of them were bad (`events`)."""

    trials: int
    events: int

    def __post_init__(self) -> None:
        _check_counts(self.trials, self.events)

    @property
    def share(self) -> float | None:
        """Share of bad requests, 0 to 1; None without requests."""
        return self.events / self.trials if self.trials else None


@dataclass(frozen=True, slots=True)
class Block:
    """Requests of one revision up to `end` (unix seconds) since the block before it, and how many were bad."""

    end: float
    trials: int
    events: int

    def __post_init__(self) -> None:
        _check_counts(self.trials, self.events)


@dataclass(frozen=True, slots=True)
class Series:
    """Raw samples of one time series: (unix seconds, value), oldest first."""

    labels: Mapping[str, str]
    samples: tuple[tuple[float, float], ...]


Buckets = tuple[tuple[float, int], ...]
"""A histogram of durations: (upper bound in seconds, requests up to it), cumulative, ascending, infinity last."""


@unique
class Outcome(StrEnum):
    """The outcome of a metric or a gate."""

    PASS = "Pass"  # noqa: S105 (no password)
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"
    ERROR = "Error"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one metric at one measurement.

    `message` has the numbers, for users. `candidate` and `serving` are estimates: shares 0 to 1, seconds, or the
    metric's own unit. `low` and `high` bound the quantity that was judged against `limit`: the difference to the
    serving revision, or the candidate's value. `samples` are requests (or answers, or time points). `out_of_limits`
    means that this measurement counts towards the metric's failureLimit, `permanent` that only a change of the policy
    can help. `query` is the executed query. `blocks` are those by which a difference was judged, of the candidate and
    of the serving revision.
    """

    metric: str
    outcome: Outcome
    reason: str
    message: str
    candidate: float | None = None
    serving: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    samples: int | None = None
    serving_samples: int | None = None
    dry_run: bool = False
    query: str = ""
    out_of_limits: bool = False
    permanent: bool = False
    blocks: tuple[tuple[Block, ...], tuple[Block, ...]] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class PairedRequests:
    """Requests sent to both revisions: of `trials`, those that were bad at `both`, and at one of them only."""

    trials: int
    both: int
    candidate_only: int
    serving_only: int

    def __post_init__(self) -> None:
        bad = (self.both, self.candidate_only, self.serving_only)
        if min(bad) < 0 or sum(bad) > self.trials:
            raise ValueError(f"{bad} bad requests of {self.trials}: they must be 0 or more, and no more than all")

    @property
    def candidate(self) -> Arm:
        """The requests as the candidate answered them."""
        return Arm(self.trials, self.both + self.candidate_only)

    @property
    def serving(self) -> Arm:
        """The requests as the serving revision answered them."""
        return Arm(self.trials, self.both + self.serving_only)

    @property
    def differences(self) -> ValueSample:
        """The difference of each request: 1 if bad at the candidate only, -1 at the serving one only, else 0."""
        same = self.trials - self.candidate_only - self.serving_only
        weights = ((-1.0, float(self.serving_only)), (0.0, float(same)), (1.0, float(self.candidate_only)))
        return ValueSample(-1.0, 1.0, weights)


@dataclass(frozen=True, slots=True)
class RequestShares:
    """Bad requests of the candidate and, when something serves, of the serving revision over the same time.

    `pairs` is set where both received the same requests. `blocks` are the same requests by blocks of time, of the
    candidate and of the serving revision, which end at the same moments; None where a source has only sums. The last
    requests may be in no block yet.
    """

    candidate: Arm
    serving: Arm | None
    pairs: PairedRequests | None = None
    blocks: tuple[tuple[Block, ...], tuple[Block, ...]] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ValueSample:
    """Values from `low` to `high`, one for each trial, as (value, number of trials).

    A value between two points counts as a part of a trial at each (`betting.split_value`), so numbers may be fractions.
    """

    low: float
    high: float
    weights: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        for value, weight in self.weights:
            if not (self.low <= value <= self.high and 0 <= weight < math.inf):
                raise ValueError(
                    f"{weight} times the value {value}: it must be {self.low} <= value <= {self.high}, and a number "
                    "of at least 0"
                )

    @property
    def size(self) -> float:
        """Number of values."""
        return math.fsum(weight for _, weight in self.weights)

    @property
    def trials(self) -> int:
        """`size` as a whole number."""
        return round(self.size)

    @property
    def share(self) -> float | None:
        """Mean of the values; None without any."""
        total = math.fsum(value * weight for value, weight in self.weights)
        return total / self.size if self.size else None

    def scale_by(self, factor: float) -> ValueSample:
        """Return the same values, `factor` times as many."""
        weights = tuple((value, weight * factor) for value, weight in self.weights)
        return ValueSample(self.low, self.high, weights)


@dataclass(frozen=True, slots=True)
class MetricValue:
    """One number for each revision; None when none was available (empty, NaN, several series).

    `why` explains a missing number; `reason` is the verdict's when the candidate's is missing.
    """

    candidate: float | None
    serving: float | None = None
    why: str = ""
    reason: str = Reason.NO_DATA


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations of the requests of both revisions since the step started.

    `pairs` has, where both received the same requests, those that took longer than each of the bounds. `blocks` are the
    same requests by blocks of time, as (end in unix seconds, candidate, serving revision); None where a source has only
    sums.
    """

    candidate: Buckets
    serving: Buckets | None
    pairs: tuple[tuple[float, PairedRequests], ...] = ()
    blocks: tuple[tuple[float, Buckets, Buckets], ...] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ValuePairs:
    """A metric's values of each revision over a past time; or `failure`, when none were available.

    `pairs` are the candidate's and the serving revision's value at the same moment, oldest first. `why` says what is
    missing.
    """

    pairs: tuple[tuple[float, float], ...] = ()
    why: str = ""
    failure: MeasurementFailure | None = None


@dataclass(frozen=True, slots=True)
class MeasurementFailure:
    """A failed measurement: server down, refused query, timeout. `permanent`: a user must change the policy."""

    reason: str
    message: str
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement of one metric by its source."""

    metric: str
    at: datetime
    result: RequestShares | ValueSample | MetricValue | Histogram | Figure | MeasurementFailure
    query: str = ""
    in_flight: str = ""
    """Requests that had not ended, as text; empty where the source doesn't know."""
