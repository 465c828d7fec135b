"""What was measured of a rollout, and what was found: plain data between sources, statistics and the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, unique


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
class Series:
    """Raw samples of one time series: (unix seconds, value), oldest first."""

    labels: Mapping[str, str]
    samples: tuple[tuple[float, float], ...]


Buckets = tuple[tuple[float, int], ...]
"""A histogram of durations: (upper bound in seconds, requests up to it), cumulative, ascending, infinity last."""


@unique
class Outcome(StrEnum):
    """What evidence says. `NotApplicable`: there is nothing to compare with, and there never will be."""

    PASS = "Pass"  # noqa: S105 (no password)
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"
    ERROR = "Error"
    NOT_APPLICABLE = "NotApplicable"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one metric says at one look.

    `message` is for people and has the numbers. `candidate` and `serving` are estimates: shares 0 to 1, seconds, or
    the metric's own unit. `low` and `high` bound what was judged against `limit`: the difference to the serving
    revision, or the candidate's value. `samples` are requests (or time points). `out_of_limits`: this look is to be
    counted towards the metric's failureLimit. `permanent`: only a person who changes the policy can help. `query`:
    what was asked.
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


@dataclass(frozen=True, slots=True)
class Shares:
    """Bad requests of the candidate and, when something serves, of the serving revision over the same time."""

    candidate: Arm
    serving: Arm | None


@dataclass(frozen=True, slots=True)
class Value:
    """One number for each revision; None when there was none to be had (empty, NaN, several series): `why` says it."""

    candidate: float | None
    serving: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations of the requests of both revisions since the step began."""

    candidate: Buckets
    serving: Buckets | None


@dataclass(frozen=True, slots=True)
class Points:
    """A value of each revision over a time that has passed, oldest first; or `failure`, when nothing was to be had.

    `why` says what is missing in it.
    """

    candidate: tuple[float, ...] = ()
    serving: tuple[float, ...] = ()
    why: str = ""
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Nothing could be measured: server down, refused query, time-out. `permanent`: a person must change the policy."""

    reason: str
    message: str
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a source measured for one metric at one look."""

    metric: str
    at: datetime
    result: Shares | Value | Histogram | Failure
    query: str = ""
