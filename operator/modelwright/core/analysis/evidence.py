"""What was measured of a rollout, and what was found: plain data between sources, statistics and the machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum, unique

from modelwright.api.reasons import Reason
from modelwright.core.analysis.report_figures import Figure


@dataclass(frozen=True, slots=True)
class Arm:
    """Requests of one revision since a step began, and how many of them were bad (`events`)."""

    trials: int
    events: int

    def __post_init__(self) -> None:
        if not 0 <= self.events <= self.trials:
            raise ValueError(f"{self.events} bad requests of {self.trials}: it must be 0 <= events <= trials")

    @property
    def share(self) -> float | None:
        """Bad requests per request, 0 to 1; None without requests."""
        return self.events / self.trials if self.trials else None


@dataclass(frozen=True, slots=True)
class Block:
    """Requests of one revision up to `end` (unix seconds) since the block before it, and how many were bad."""

    end: float
    trials: int
    events: int

    def __post_init__(self) -> None:
        if not 0 <= self.events <= self.trials:
            raise ValueError(f"{self.events} bad requests of {self.trials}: it must be 0 <= events <= trials")


@dataclass(frozen=True, slots=True)
class Series:
    """Raw samples of one time series: (unix seconds, value), oldest first."""

    labels: Mapping[str, str]
    samples: tuple[tuple[float, float], ...]


Buckets = tuple[tuple[float, int], ...]
"""A histogram of durations: (upper bound in seconds, requests up to it), cumulative, ascending, infinity last."""


@unique
class Outcome(StrEnum):
    """What evidence says."""

    PASS = "Pass"  # noqa: S105 (no password)
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"
    ERROR = "Error"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one metric says at one look.

    `message` is for people and has the numbers. `candidate` and `serving` are estimates: shares 0 to 1, seconds, or
    the metric's own unit. `low` and `high` bound what was judged against `limit`: the difference to the serving
    revision, or the candidate's value. `samples` are requests (or answers, or time points). `out_of_limits`: this look
    is to be counted towards the metric's failureLimit. `permanent`: only a person who changes the policy can help.
    `query`: what was asked. `blocks`: what a difference was judged by, of the candidate and of the serving revision.
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
    """Requests that both revisions were asked: of `trials`, those that were bad at `both`, and at one of them only."""

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
        """Of each request: 1 when it was bad at the candidate only, -1 at the serving revision only, else 0."""
        same = self.trials - self.candidate_only - self.serving_only
        weights = ((-1.0, float(self.serving_only)), (0.0, float(same)), (1.0, float(self.candidate_only)))
        return ValueSample(-1.0, 1.0, weights)


@dataclass(frozen=True, slots=True)
class RequestShares:
    """Bad requests of the candidate and, when something serves, of the serving revision over the same time.

    `pairs`: where both were asked the same requests. `blocks`: the same requests by blocks of time, of the candidate
    and of the serving revision, that end at the same moments; None where a source has only sums. The last requests may
    be in no block yet.
    """

    candidate: Arm
    serving: Arm | None
    pairs: PairedRequests | None = None
    blocks: tuple[tuple[Block, ...], tuple[Block, ...]] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ValueSample:
    """Values from `low` to `high`, one of each trial: (value, how many). A value between two points counts as a part of
    a trial at each of them (`betting.split`), so the numbers need not be whole."""

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
        """How many values there are."""
        return math.fsum(weight for _, weight in self.weights)

    @property
    def trials(self) -> int:
        """As `size`, in whole numbers."""
        return round(self.size)

    @property
    def share(self) -> float | None:
        """Mean of the values; None without any."""
        total = math.fsum(value * weight for value, weight in self.weights)
        return total / self.size if self.size else None

    def scale_by(self, factor: float) -> ValueSample:
        """The same values, `factor` times as many."""
        weights = tuple((value, weight * factor) for value, weight in self.weights)
        return ValueSample(self.low, self.high, weights)


@dataclass(frozen=True, slots=True)
class MetricValue:
    """One number for each revision; None when there was none to be had (empty, NaN, several series): `why` says it, and
    `reason` is the verdict's when it is the candidate's."""

    candidate: float | None
    serving: float | None = None
    why: str = ""
    reason: str = Reason.NO_DATA


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations of the requests of both revisions since the step began.

    `pairs`: where both were asked the same requests, those that took longer than each of the bounds. `blocks`: the same
    requests by blocks of time, as (end in unix seconds, candidate, serving revision); None where a source has only
    sums.
    """

    candidate: Buckets
    serving: Buckets | None
    pairs: tuple[tuple[float, PairedRequests], ...] = ()
    blocks: tuple[tuple[float, Buckets, Buckets], ...] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ValuePairs:
    """A value of each revision over a time that has passed; or `failure`, when nothing was to be had.

    `pairs`: the candidate's and the serving revision's at the same moment, oldest first. `why` says what is missing.
    """

    pairs: tuple[tuple[float, float], ...] = ()
    why: str = ""
    failure: MeasurementFailure | None = None


@dataclass(frozen=True, slots=True)
class MeasurementFailure:
    """Nothing could be measured: server down, refused query, time-out. `permanent`: a person must change the policy."""

    reason: str
    message: str
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a source measured for one metric at one look."""

    metric: str
    at: datetime
    result: RequestShares | ValueSample | MetricValue | Histogram | Figure | MeasurementFailure
    query: str = ""
    in_flight: str = ""
    """Requests that had not ended, in words; empty where the source doesn't know."""
