"""Counter samples since a step began, kept small, so that no sample is requested twice.

A long step has more samples than one round may read. So each round reads the new ones, and keeps only the samples that
decide the growth (`core.analysis.scraped_counters`). After a restart all samples are read again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from modelwright.core.analysis.evidence import Series
from modelwright.core.analysis.scraped_counters import (
    CounterGrowth,
    Samples,
    ScrapeTarget,
    clean_samples,
    count_growth,
    scrape_target,
    scraped_process,
    thin_samples,
)

LOOKBACK_SECONDS = 300.0
"""Seconds before a step's start that are read for the baseline: Prometheus' default age of a usable sample."""
OVERLAP_SECONDS = 60.0
"""Seconds that are read again, because samples may arrive late."""
THINNING_THRESHOLD = 50
"""Samples that a series keeps before the first thinning; after it, as many more as it had kept."""
STALE_SCRAPES = 4
MIN_STALE_SECONDS = 60.0


@dataclass(slots=True)
class _KeptSeries:
    selector: str
    labels: dict[str, str]
    samples: Samples = field(default_factory=list)


@dataclass(slots=True)
class SampleWindow:
    """Samples of selectors that are read together, from `start` (unix seconds; with the baseline before it) up to
    `read_to`."""

    start: float
    selectors: tuple[str, ...]
    read_to: float | None = None
    scrape_interval: float | None = None
    """Smallest time between two samples of a series, in seconds."""
    baselines: dict[ScrapeTarget, float | None] = field(default_factory=dict)
    """By target that was queried: the time from which on its new series count from 0; None when unknown."""
    _series: dict[tuple[str, str], _KeptSeries] = field(default_factory=dict)
    _thinned_to: int = 0

    def next_start(self) -> float:
        """Return the start of the next read, in unix seconds."""
        earliest = self.start - LOOKBACK_SECONDS
        return earliest if self.read_to is None else max(self.read_to - OVERLAP_SECONDS, earliest)

    def add_series(self, series: Mapping[str, Iterable[Series]], read_to: float) -> None:
        """Add the series of each selector as read up to `read_to`; known samples are skipped."""
        for selector, group in series.items():
            for one in group:
                name = json.dumps(one.labels, sort_keys=True)
                kept = self._series.setdefault((selector, name), _KeptSeries(selector, dict(one.labels)))
                self._append_samples(kept.samples, one.samples)
        self.read_to = read_to
        if sum(len(kept.samples) for kept in self._series.values()) > 2 * self._thinned_to + THINNING_THRESHOLD * len(
            self._series
        ):
            self._thin_samples()

    def compute_counts(self) -> CounterGrowth:
        """Compute the growth since the step began, for each selector."""
        groups = [
            [Series(kept.labels, tuple(kept.samples)) for kept in self._series.values() if kept.selector == selector]
            for selector in self.selectors
        ]
        baselines = {target: since for target, since in self.baselines.items() if since is not None}
        return count_growth(groups, self.start, watched=baselines)

    def list_unknown_targets(self) -> Mapping[ScrapeTarget, float]:
        """List targets without a baseline whose first sample was taken after `start`, with the time of that sample."""
        first: dict[ScrapeTarget, float] = {}
        for kept in self._series.values():
            target = scrape_target(kept.labels)
            if target is not None and kept.samples:
                first[target] = min(first.get(target, kept.samples[0][0]), kept.samples[0][0])
        return {target: at for target, at in first.items() if at > self.start and target not in self.baselines}

    def stale_since(self, now: float, selector: str) -> float | None:
        """Return the time of a selector's last sample when its counters can't be scraped any more; else None, also
        without any sample."""
        last_samples = [
            kept.samples[-1][0] for kept in self._series.values() if kept.selector == selector and kept.samples
        ]
        if not last_samples:
            return None
        max_age = (
            max(STALE_SCRAPES * self.scrape_interval, MIN_STALE_SECONDS) if self.scrape_interval else LOOKBACK_SECONDS
        )
        newest = max(last_samples)
        return newest if now - newest > max_age else None

    def _thin_samples(self) -> None:
        by_process: dict[tuple[str, ...], list[_KeptSeries]] = defaultdict(list)
        for (_, name), kept in self._series.items():
            by_process[scraped_process(kept.labels) or (name,)].append(kept)
        for group in by_process.values():
            for kept, samples in zip(group, thin_samples([one.samples for one in group], self.start), strict=True):
                kept.samples = samples
        self._thinned_to = self._count_samples()

    def _count_samples(self) -> int:
        return sum(len(kept.samples) for kept in self._series.values())

    def _append_samples(self, kept: Samples, samples: Iterable[tuple[float, float]]) -> None:
        before: float | None = None
        for at, value in clean_samples(samples):
            if before is not None and (self.scrape_interval is None or at - before < self.scrape_interval):
                self.scrape_interval = at - before
            before = at
            if not kept or at > kept[-1][0]:
                kept.append((at, value))
