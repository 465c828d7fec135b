"""Counter samples since a step began, kept small: what was read once is not asked for again.

A long step has more samples than may be read at each look. What counts grow by is told by the first and the last sample
of each rising run, so no others are kept, and each look reads what is new. After a restart all is read again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from modelwright.core.analysis.evidence import Series

LOOKBACK = 300.0
"""Seconds before a step's begin that are read for the baseline: Prometheus' own idea of how old a sample may be."""
OVERLAP = 60.0
"""Seconds that are read again, because samples may come late."""
KEPT_LABELS = frozenset({"job", "instance", "pod", "le", "code", "service", "exported_service"})
KEPT_LABELS |= {"response_code", "grpc_response_status", "destination_service_name"}
Target = tuple[str, str]
"""What Prometheus scrapes: (job, instance)."""
STALE_SCRAPES = 4
MIN_STALE = 60.0


@dataclass(slots=True)
class Window:
    """What one selector gave from `start` (unix seconds; the baseline before it included) up to `read_to`."""

    start: float
    read_to: float | None = None
    scrape_interval: float | None = None
    """Smallest time between two samples of a series, in seconds."""
    newest: float | None = None
    """When the latest sample of all series was taken, unix seconds."""
    scraped_before: frozenset[Target] = frozenset()
    """Targets of which something else than these series says that they were scraped before `start`."""
    not_scraped_before: frozenset[Target] = frozenset()
    _series: dict[str, tuple[dict[str, str], list[tuple[float, float]]]] = field(default_factory=dict)

    def begin(self) -> float:
        """From when on to read next, unix seconds."""
        return self.start - LOOKBACK if self.read_to is None else max(self.read_to - OVERLAP, self.start - LOOKBACK)

    def add(self, found: Iterable[Series], read_to: float) -> None:
        """Take up what was read, up to `read_to`. Samples that are known already are passed over."""
        for one in found:
            name = json.dumps(one.labels, sort_keys=True)
            labels = {key: value for key, value in one.labels.items() if key in KEPT_LABELS}
            kept = self._series.setdefault(name, (labels, []))[1]
            before: float | None = None
            for at, value in one.samples:
                if before is not None and (self.scrape_interval is None or at - before < self.scrape_interval):
                    self.scrape_interval = at - before
                before = at
                if math.isfinite(value) and (not kept or at > kept[-1][0]):
                    self._append(kept, at, value)
            if kept:
                self.newest = max(self.newest or kept[-1][0], kept[-1][0])
        self.read_to = read_to

    def series(self) -> tuple[Series, ...]:
        """The series, with the samples that decide by how much each grew.

        One that began after `start`, at a target that was scraped before, has a sample of 0 there: it counts from
        nothing, whichever other series it is looked at with.
        """
        scraped = self.scraped_before | self._with_baseline()
        return tuple(
            Series(labels, ((self.start, 0.0), *samples))
            if samples and samples[0][0] > self.start and target(labels) in scraped
            else Series(labels, tuple(samples))
            for labels, samples in self._series.values()
        )

    def unknown_targets(self) -> frozenset[Target]:
        """Targets with a series that began after `start`, of which nothing says whether they were scraped before."""
        began = {target(labels) for labels, samples in self._series.values() if samples and samples[0][0] > self.start}
        known = self.scraped_before | self.not_scraped_before | self._with_baseline()
        return frozenset(found for found in began - known if found is not None)

    def _with_baseline(self) -> frozenset[Target]:
        found = (target(labels) for labels, samples in self._series.values() if samples and samples[0][0] <= self.start)
        return frozenset(one for one in found if one is not None)

    def stale(self, now: float) -> float | None:
        """When the last sample was taken, when that is too long ago for a counter that is still scraped."""
        if self.newest is None:
            return None
        patience = max(STALE_SCRAPES * self.scrape_interval, MIN_STALE) if self.scrape_interval else LOOKBACK
        return self.newest if now - self.newest > patience else None

    def _append(self, kept: list[tuple[float, float]], at: float, value: float) -> None:
        if at <= self.start:
            kept.clear()
        elif len(kept) >= 2 and kept[-2][0] > self.start and kept[-2][1] <= kept[-1][1] <= value:
            # The first sample after the start stays: what was counted until then belongs in part to the step before.
            kept.pop()
        kept.append((at, value))


def target(labels: Mapping[str, str]) -> Target | None:
    """What the series was scraped from, as far as its labels say."""
    instance = labels.get("instance")
    return None if instance is None else (labels.get("job", ""), instance)
