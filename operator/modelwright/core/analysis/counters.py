"""From raw counter samples to counts since a step began: growth, bad of total, histograms.

Counts are recomputed from the samples at each look. A pooled `rate()` or `increase()` would extrapolate, and count the
requests of a window's edge twice or never.
"""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from modelwright.core.analysis.evidence import Arm, Buckets, Series

Target = tuple[str | None, str]


def growth(series: Iterable[Series], start: float, end: float, *, beside: Iterable[Series] = ()) -> float:
    """By how much these counters grew together after `start`, up to `end` (unix seconds).

    Samples may begin before `start`: the last one at or before it is the baseline. A series without one began after
    `start`, and counts from 0, when its target (labels `job` and `instance`) was scraped before: another series of the
    target, here or in `beside`, has an earlier sample. Otherwise scraping may have begun in the middle of an old
    counter's life, which counts from its own first sample. After a reset (a value smaller than the one before) the new
    value is what was added. What is not a finite number is ignored.
    """
    every = tuple(series)
    known = _scraped_before((*every, *beside), start)
    return math.fsum(_growth_of(one, start, end, known) for one in every)


def arm(bad: Iterable[Series], total: Iterable[Series], start: float, end: float) -> Arm:
    """Bad and all requests between two times.

    Where bad outnumber all, as when the two were scraped at different moments, each bad one counts as a request.
    """
    bad_series, all_series = tuple(bad), tuple(total)
    events = round(growth(bad_series, start, end, beside=all_series))
    trials = round(growth(all_series, start, end, beside=bad_series))
    return Arm(max(trials, events), events)


def histogram(series: Iterable[Series], start: float, end: float) -> Buckets:
    """Requests by duration between two times, from the series of a histogram's buckets (label `le`, in seconds).

    One bound may be spelled in several ways ("0.25", "2.5e-01"). Where pods have different buckets, only the bounds
    that all of them have are kept. Empty without series. Raises ValueError for a bound that is no number, and for
    buckets without the infinite one, whose requests can't be told.
    """
    every = tuple(series)
    known = _scraped_before(every, start)
    grown: dict[frozenset[tuple[str, str]], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in every:
        group = frozenset((name, value) for name, value in one.labels.items() if name != "le")
        grown[group][_bound(one.labels)].append(_growth_of(one, start, end, known))
    if not grown:
        return ()
    shared = set.intersection(*(set(buckets) for buckets in grown.values()))
    if math.inf not in shared:
        raise ValueError('the histogram has no bucket with le="+Inf": the number of its requests can\'t be told')
    counts: list[tuple[float, int]] = []
    for bound in sorted(shared):
        count = round(math.fsum(added for buckets in grown.values() for added in buckets[bound]))
        counts.append((bound, max(count, counts[-1][1]) if counts else count))
    return tuple(counts)


def boundary(buckets: Buckets, threshold: float) -> float | None:
    """The finite bucket bound that `threshold` (seconds) is, but for rounding; None when it lies inside a bucket."""
    finite = (bound for bound, _ in buckets if math.isfinite(bound))
    return next((bound for bound in finite if math.isclose(bound, threshold, rel_tol=1e-9)), None)


def over(buckets: Buckets, threshold: float) -> Arm | None:
    """Requests that took longer than `threshold` (seconds), of all; None when it is no bucket boundary.

    No buckets are no requests.
    """
    if not buckets:
        return Arm(0, 0)
    bound = boundary(buckets, threshold)
    if bound is None:
        return None
    total = buckets[-1][1]
    return Arm(total, total - dict(buckets)[bound])


def quantile(buckets: Buckets, share: float) -> float | None:
    """Estimate in seconds, linear within its bucket as Prometheus' `histogram_quantile`; None without requests.

    Above the last finite bound it is that bound.
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


def _bound(labels: Mapping[str, str]) -> float:
    text = labels.get("le", "")
    try:
        bound = float(text)
    except ValueError:
        bound = math.nan
    if math.isnan(bound):
        raise ValueError(f'a bucket of the histogram has le="{text}": it must be a number of seconds or +Inf')
    return bound


def _target(labels: Mapping[str, str]) -> Target | None:
    instance = labels.get("instance")
    return None if instance is None else (labels.get("job"), instance)


def _scraped_before(series: Sequence[Series], start: float) -> Collection[Target | None]:
    found = {_target(one.labels) for one in series if any(at <= start for at, _ in _numbers(one))}
    return found - {None}


def _numbers(series: Series) -> Iterable[tuple[float, float]]:
    return ((at, value) for at, value in series.samples if math.isfinite(value))


def _growth_of(series: Series, start: float, end: float, known: Collection[Target | None]) -> float:
    last: float | None = 0.0 if _target(series.labels) in known else None
    total = 0.0
    for at, value in _numbers(series):
        if at > end:
            break
        if at > start and last is not None:
            total += value - last if value >= last else value
        last = value
    return total
