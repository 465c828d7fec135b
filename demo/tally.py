"""Counts what callers received during one rollout, from the load's own record of every request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from devcluster.load import Answer, Lost, Report

Request = TypeVar("Request", Answer, Lost)

MODEL_ERROR = 500
"""The status of a model server whose model raises; a gateway's own errors are 502, 503 and 504."""


@dataclass(frozen=True)
class Phase:
    """The period of one rollout, in seconds of the load. ``slow``: seconds from which a response counts as bad."""

    candidate: str
    begin: float
    end: float
    slow: float | None = None


@dataclass
class AnswerCounts:
    """Requests that were due in a phase.

    ``errors`` were answered by a model with 500; ``lost`` got no good response for any other reason.
    ``first_bad`` and ``last`` are seconds of the load: the time of the first bad response, and of the candidate's
    last one, errors included.
    """

    versions: Counter[str] = field(default_factory=Counter)
    errors: list[Lost] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    slow: int = 0
    first_bad: float | None = None
    last: float | None = None

    @property
    def requests(self) -> int:
        return self.versions.total() + len(self.errors) + len(self.lost)

    @property
    def rollback_seconds(self) -> float | None:
        """Seconds from the first bad response to the candidate's last one; None without a bad one."""
        return None if self.first_bad is None or self.last is None else self.last - self.first_bad


def count_answers(report: Report, phase: Phase) -> AnswerCounts:
    """Count a phase. An error without a version is the candidate's: the serving version has none, or it would not
    serve."""
    counts = AnswerCounts()
    bad: list[float] = []
    candidate: list[float] = []
    for answer in _requests_within(report.answers, phase):
        counts.versions[answer.version] += 1
        if answer.version == phase.candidate:
            candidate.append(answer.due + answer.seconds)
            if phase.slow is not None and answer.seconds > phase.slow:
                counts.slow += 1
                bad.append(answer.due + answer.seconds)
    for lost in _requests_within(report.lost, phase):
        if lost.status == MODEL_ERROR:
            counts.errors.append(lost)
            bad.append(lost.due + lost.seconds)
            candidate.append(lost.due + lost.seconds)
        else:
            counts.lost.append(lost)
    counts.first_bad, counts.last = min(bad, default=None), max(candidate, default=None)
    return counts


def _requests_within(requests: Iterable[Request], phase: Phase) -> list[Request]:
    return [request for request in list(requests) if phase.begin <= request.due < phase.end]
