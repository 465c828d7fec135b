"""One round of measurements, and the state that a request keeps between its rounds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from modelwright.core.analysis.comparison_summary import ComparisonSummary
from modelwright.core.analysis.evidence import Series
from modelwright.measurement import comparer_client, evidence_checks
from modelwright.measurement.comparer_client import ComparerUrl
from modelwright.measurement.json_client import JsonClient, MeasurementError
from modelwright.measurement.prometheus import CounterReader, PrometheusClient
from modelwright.measurement.request import MeasurementRequest
from modelwright.measurement.request_counters import SeriesSelector


@dataclass(slots=True)
class MeasurementState:
    """State of a request that is kept between its rounds."""

    counters: CounterReader
    summaries: dict[datetime, ComparisonSummary] = field(default_factory=dict)
    """The last summary of each comparer of the step, by its start."""
    earlier_summaries: dict[datetime, ComparisonSummary] = field(default_factory=dict)
    """The first summary of each comparer that started before the step, in an earlier mirror step."""
    pods_requested_at: datetime | None = None
    selectors: evidence_checks.SelectorChecks = field(default_factory=evidence_checks.SelectorChecks)

    @classmethod
    def for_request(cls, request: MeasurementRequest) -> MeasurementState:
        """Build the empty state of a request."""
        start = request.since.timestamp()
        return cls(CounterReader(start), pods_requested_at=request.pods_requested_at or request.since)

    def sum_summaries(self, summary: ComparisonSummary) -> ComparisonSummary:
        """Sum up the counts of this comparer and of those before or beside it in the step.

        Nothing is lost with a pod, nor counted twice. A comparer that started before the step counts from its first
        summary here.
        """
        known = self.summaries.get(summary.started_at)
        if known is None and self.pods_requested_at is not None and summary.started_at < self.pods_requested_at:
            self.earlier_summaries[summary.started_at] = summary
        if known is None or known.received <= summary.received:
            self.summaries[summary.started_at] = summary
        first, *others = [
            latest - self.earlier_summaries[start] if start in self.earlier_summaries else latest
            for start, latest in self.summaries.items()
        ]
        return sum(others, first)


@dataclass(slots=True)
class MeasurementRound:
    """One round of a request: all of its metrics are measured up to the same moment."""

    request: MeasurementRequest
    state: MeasurementState
    measured_at: datetime
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _summary: ComparisonSummary | MeasurementError | None = field(default=None, init=False)
    _in_flight: str | None = field(default=None, init=False)

    @property
    def unix_time(self) -> float:
        """`measured_at` in unix seconds."""
        return self.measured_at.timestamp()

    async def read_summary(self, client: JsonClient, url: ComparerUrl) -> ComparisonSummary:
        """Fetch the comparer's summary, once a round. Raises MeasurementError."""
        async with self._lock:
            if self._summary is None:
                try:
                    summary = await comparer_client.fetch_summary(client, url, self.request)
                    self._summary = self.state.sum_summaries(summary)
                except MeasurementError as error:
                    self._summary = error
        if isinstance(self._summary, MeasurementError):
            raise MeasurementError(self._summary.failure.reason, self._summary.failure.message)
        return self._summary

    async def read_in_flight(self, count: Callable[[], Awaitable[str]]) -> str:
        """Call `count` once a round, and return its result."""
        async with self._lock:
            if self._in_flight is None:
                self._in_flight = await count()
        return self._in_flight

    async def read_counters(
        self, server: PrometheusClient, selectors: Sequence[SeriesSelector]
    ) -> tuple[tuple[Series, ...], ...]:
        """Read the counters of each selector, by the first of its alternatives that has any series."""
        groups: tuple[tuple[Series, ...], ...] = tuple(() for _ in selectors)
        for alternative in zip(*(one.selectors for one in selectors), strict=True):
            counts = await self.state.counters.read_counts(server, alternative, self.unix_time)
            groups = evidence_checks.require_single_scrape(counts)
            if any(groups):
                break
        return groups
