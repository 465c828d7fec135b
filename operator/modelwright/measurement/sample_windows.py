"""Counter samples since a step began, kept small: what was read once is not asked for again.

A long step has more samples than may be read at each look, so each look reads what is new, and of what was read only
the samples are kept that decide what was counted (`core.analysis.scrapes`). After a restart all is read again.
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
"""Seconds before a step's begin that are read for the baseline: Prometheus' own idea of how old a sample may be."""
OVERLAP_SECONDS = 60.0
"""Seconds that are read again, because samples may come late."""
THINNING_THRESHOLD = 50
"""Samples of a series that are kept before the first are left out; later as many again as were kept."""
STALE_SCRAPES = 4
MIN_STALE_SECONDS = 60.0


@dataclass(slots=True)
class _KeptSeries:
    selector: str
    labels: dict[str, str]
    samples: Samples = field(default_factory=list)


@dataclass(slots=True)
class SampleWindow:
    """What some selectors, which are read together, gave from `start` (unix seconds; the baseline before it included)
    up to `read_to`."""

    start: float
    selectors: tuple[str, ...]
    read_to: float | None = None
    scrape_interval: float | None = None
    """Smallest time between two samples of a series, in seconds."""
    baselines: dict[ScrapeTarget, float | None] = field(default_factory=dict)
    """Of targets that were asked about: the moment from which on what is new there counts from 0; None: not known."""
    _series: dict[tuple[str, str], _KeptSeries] = field(default_factory=dict)
    _thinned_to: int = 0

    def next_start(self) -> float:
        """From when on to read next, unix seconds."""
        return (
            self.start - LOOKBACK_SECONDS
            if self.read_to is None
            else max(self.read_to - OVERLAP_SECONDS, self.start - LOOKBACK_SECONDS)
        )

    def add_series(self, found: Mapping[str, Iterable[Series]], read_to: float) -> None:
        """Take up what was read of each selector, up to `read_to`. Samples that are known already are passed over."""
        for selector, every in found.items():
            for one in every:
                name = json.dumps(one.labels, sort_keys=True)
                kept = self._series.setdefault((selector, name), _KeptSeries(selector, dict(one.labels)))
                self._append_samples(kept.samples, one.samples)
        self.read_to = read_to
        if sum(len(kept.samples) for kept in self._series.values()) > 2 * self._thinned_to + THINNING_THRESHOLD * len(
            self._series
        ):
            self._thin_samples()

    def compute_counts(self) -> CounterGrowth:
        """What was counted since the step began, for each selector."""
        groups = [
            [Series(kept.labels, tuple(kept.samples)) for kept in self._series.values() if kept.selector == selector]
            for selector in self.selectors
        ]
        watched = {found: since for found, since in self.baselines.items() if since is not None}
        return count_growth(groups, self.start, watched=watched)

    def list_unknown_targets(self) -> Mapping[ScrapeTarget, float]:
        """Targets whose first sample was taken after `start`, and when; of which nothing else is known yet."""
        first: dict[ScrapeTarget, float] = {}
        for kept in self._series.values():
            found = scrape_target(kept.labels)
            if found is not None and kept.samples:
                first[found] = min(first.get(found, kept.samples[0][0]), kept.samples[0][0])
        return {found: at for found, at in first.items() if at > self.start and found not in self.baselines}

    def stale_since(self, now: float, selector: str) -> float | None:
        """When the last sample of a selector was taken, when that is too long ago for counters that are still scraped;
        None without any."""
        last = [kept.samples[-1][0] for kept in self._series.values() if kept.selector == selector and kept.samples]
        if not last:
            return None
        patience = (
            max(STALE_SCRAPES * self.scrape_interval, MIN_STALE_SECONDS) if self.scrape_interval else LOOKBACK_SECONDS
        )
        newest = max(last)
        return newest if now - newest > patience else None

    def _thin_samples(self) -> None:
        of_targets: dict[tuple[str, ...], list[_KeptSeries]] = defaultdict(list)
        for (_, name), kept in self._series.items():
            of_targets[scraped_process(kept.labels) or (name,)].append(kept)
        for same in of_targets.values():
            for kept, samples in zip(same, thin_samples([one.samples for one in same], self.start), strict=True):
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
