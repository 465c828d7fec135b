"""Derives evidence from counter series (`scraped_counters`): growth, bad of all requests, histograms, blocks of time.

Counts are recomputed from the samples at each measurement. A pooled `rate()` or `increase()` would extrapolate, and
count the requests at a window's edge twice or never.
"""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from modelwright.core.analysis.evidence import Arm, Block, Buckets, Series


class MoreBadThanTotal(Exception):
    """More bad requests than requests: the two series count different things."""


def sum_growth(series: Iterable[Series], start: float, end: float) -> float:
    """Sum the growth of these counters after `start`, up to `end` (unix seconds)."""
    return math.fsum(_sample_at(one, end) - _sample_at(one, start) for one in series)


def count_arm(bad: Iterable[Series], total: Iterable[Series], start: float, end: float) -> Arm:
    """Count bad and all requests between two times.

    Bad requests that were scraped later than all requests of their pod wait for the next scrape of those. A small
    excess of bad requests, as when a counter changed during the scrape, counts as requests too; raises MoreBadThanTotal
    for more than a tenth.
    """
    trials, events = _count_total_and_bad(tuple(bad), tuple(total), start, end)
    if events > trials + 1 + trials // 10:
        raise MoreBadThanTotal(f"{events} bad requests were counted, and {trials} in all")
    return Arm(max(trials, events), events)


def count_arm_blocks(
    bad: Iterable[Series], total: Iterable[Series], start: float, ends: Iterable[float]
) -> tuple[Block, ...]:
    """Count bad and all requests in each block of time, of which the first starts at `start` (unix seconds).

    They add up to `count_arm` at the last end; see `build_blocks`.
    """
    bad_series, all_series = tuple(bad), tuple(total)
    return build_blocks((end, *_count_total_and_bad(bad_series, all_series, start, end)) for end in ends)


def build_blocks(counts: Iterable[tuple[float, int, int]]) -> tuple[Block, ...]:
    """Build blocks of time from cumulative (end in unix seconds, all requests, bad ones) since the step started.

    The counts are in order of time. A bad request that was counted before the requests of its block moves to the next
    block with room, or to an earlier one, so that no block has more bad requests than requests; a final excess of bad
    requests counts as requests of the last block.
    """
    built: list[Block] = []
    trials = events = left = 0
    for end, trials_now, events_now in counts:
        new, trials = max(0, trials_now - trials), max(trials, trials_now)
        left, events = left + max(0, events_now - events), max(events, events_now)
        built.append(Block(end, new, min(left, new)))
        left -= built[-1].events
    for index in range(len(built) - 1, -1, -1):
        block = built[index]
        more = min(left, block.trials - block.events)
        built[index], left = Block(block.end, block.trials, block.events + more), left - more
    if left:
        built[-1] = Block(built[-1].end, built[-1].trials + left, built[-1].events + left)
    return tuple(built)


def build_histogram(series: Iterable[Series], start: float, end: float) -> Buckets:
    """Build a histogram of durations between two times from a histogram's bucket counters (label `le`, in seconds).

    One bound may be spelled in several ways ("0.25", "2.5e-01"). Where pods have different buckets, only the bounds
    that all of them have are used. Empty without series. Raises ValueError for a bound that is no number, and for
    buckets without the infinite one, whose number of requests is unknown.
    """
    grown: dict[frozenset[tuple[str, str]], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in series:
        group = frozenset((name, value) for name, value in one.labels.items() if name != "le")
        grown[group][_parse_bucket_bound(one.labels)].append(_sample_at(one, end) - _sample_at(one, start))
    if not grown:
        return ()
    shared = set.intersection(*(set(buckets) for buckets in grown.values()))
    if math.inf not in shared:
        raise ValueError('the histogram has no bucket with le="+Inf": the number of its requests is unknown')
    counts: list[tuple[float, int]] = []
    for bound in sorted(shared):
        count = round(math.fsum(added for buckets in grown.values() for added in buckets[bound]))
        counts.append((bound, max(count, counts[-1][1]) if counts else count))
    return tuple(counts)


def find_boundary(buckets: Buckets, threshold: float) -> float | None:
    """Find the finite bucket bound equal to `threshold` (seconds), but for rounding; None inside a bucket."""
    finite = (bound for bound, _ in buckets if math.isfinite(bound))
    return next((bound for bound in finite if math.isclose(bound, threshold, rel_tol=1e-9)), None)


def count_over(buckets: Buckets, threshold: float) -> Arm | None:
    """Count the requests that took longer than `threshold` (seconds), and all; None when it is no bucket boundary.

    Without buckets there are no requests.
    """
    if not buckets:
        return Arm(0, 0)
    bound = find_boundary(buckets, threshold)
    if bound is None:
        return None
    total = buckets[-1][1]
    return Arm(total, total - dict(buckets)[bound])


def estimate_quantile(buckets: Buckets, share: float) -> float | None:
    """Estimate a quantile in seconds; None without requests.

    It is linear within its bucket, as Prometheus' `histogram_quantile`; above the last finite bound it is that bound.
    """
    if not buckets or not buckets[-1][1]:
        return None
    rank = share * buckets[-1][1]
    index = bisect.bisect_left(buckets, rank, key=lambda bucket: bucket[1])
    bound, count = buckets[index]
    below, before = buckets[index - 1] if index else (0.0, 0)
    if math.isinf(bound):
        return below if index else None
    if count == before:
        return bound
    return below + (bound - below) * (rank - before) / (count - before)


def _parse_bucket_bound(labels: Mapping[str, str]) -> float:
    text = labels.get("le", "")
    try:
        bound = float(text)
    except ValueError:
        bound = math.nan
    if math.isnan(bound):
        raise ValueError(f'a bucket of the histogram has le="{text}": it must be a number of seconds or +Inf')
    return bound


def _count_total_and_bad(bad: Sequence[Series], total: Sequence[Series], start: float, end: float) -> tuple[int, int]:
    """Count all and bad requests between two times."""
    latest: dict[str | None, float] = {}
    for one in total:
        for at, _ in one.samples[-1:]:
            for endpoint in (_series_endpoint(one.labels), None):
                latest[endpoint] = max(latest.get(endpoint, at), at)
    events = 0.0
    for one in bad:
        until = min(end, latest.get(_series_endpoint(one.labels), latest.get(None, end)))
        events += _sample_at(one, until) - _sample_at(one, min(start, until))
    return round(sum_growth(total, start, end)), round(events)


def _series_endpoint(labels: Mapping[str, str]) -> str | None:
    return labels.get("pod", labels.get("instance"))


def _sample_at(series: Series, time: float) -> float:
    index = bisect.bisect_right(series.samples, time, key=lambda sample: sample[0])
    return series.samples[index - 1][1] if index else 0.0
