"""Growth of scraped counters since a step started, despite new series, restarts, falls and targets scraped twice.

Client libraries create a series at the first request of its kind, processes restart, and two jobs or two Prometheus may
scrape one target. A counter's growth follows from all series of its target together, not from its own alone.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from modelwright.core.analysis.evidence import Series

ScrapeTarget = tuple[str, str]
"""A scrape target of Prometheus: (job, instance)."""
Samples = list[tuple[float, float]]

NEAR_ZERO_REQUESTS = 20.0
"""Requests that any target can have counted since the previous scrape."""
MAX_PACE = 2.0
"""Multiple of the step's mean rate at which a target can have counted since the previous scrape."""
MAX_COUNTER_VALUE = 2.0**53
"""No counter of requests is larger: a larger float can't count by one."""
FIRST_BLOCK_SECONDS = 15.0
BLOCKS_PER_AGE = 40
REPLICA_LABELS = ("prometheus", "prometheus_replica", "replica", "receive_replica", "__replica__")


@dataclass(frozen=True, slots=True)
class CounterGrowth:
    """Growth of counters since a step started, for each requested selector, in that order.

    The samples of these series are (unix seconds, growth since the step started) and never fall. `doubled` names the
    targets that are scraped twice with differing counters, so that their growth is unknown; empty when there are none.
    """

    groups: tuple[tuple[Series, ...], ...]
    doubled: str = ""


def scrape_target(labels: Mapping[str, str]) -> ScrapeTarget | None:
    """Return the scrape target of a series, as far as its labels name it."""
    instance = labels.get("instance")
    return None if instance is None else (labels.get("job", ""), instance)


def scraped_process(labels: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the process of a series, as one job of one Prometheus scrapes it; None without an instance."""
    if "instance" not in labels:
        return None
    return tuple(labels.get(name, "") for name in ("instance", "exported_instance", "pod", "job", *REPLICA_LABELS))


def block_ends(start: float, end: float) -> Iterator[float]:
    """Yield the ends of the blocks of time in which a step's requests are counted, up to `end` (unix seconds).

    They depend on `start` alone: each block lasts FIRST_BLOCK_SECONDS, or a fortieth of the step's age if that is more.
    """
    age = 0.0
    while True:
        age += max(FIRST_BLOCK_SECONDS, age / BLOCKS_PER_AGE)
        if start + age > end:
            return
        yield start + age


def count_growth(
    groups: Sequence[Iterable[Series]], start: float, *, watched: Mapping[ScrapeTarget, float] | None = None
) -> CounterGrowth:
    """Count the growth of each group's counters after `start` (unix seconds).

    Samples may start before `start`: the last one at or before it is the baseline. A series without one counts from 0
    when it starts later than the first sample of any series of its target, or than the time in `watched`: then it did
    not exist before, or had counted nothing before the step. Otherwise it counts from its own first sample, since
    scraping may have started in the middle of an old counter's life.

    A target has restarted when its series together fall to less than half, or when any of them falls and all together
    are no more than can have been counted since the previous scrape: then each of its series restarted at 0. A single
    series that falls to less than half restarted alone. A smaller fall is two scrapes in the wrong order, and counts
    nothing. Impossible values (not finite, negative, above MAX_COUNTER_VALUE) are ignored. Copies of one target count
    once.
    """
    rows = [
        _CounterRow(group, dict(one.labels), clean_samples(one.samples))
        for group, every in enumerate(groups)
        for one in every
    ]
    grown: list[list[Series]] = [[] for _ in groups]
    doubled = []
    for of_endpoint in _group_by_process(rows):
        single, problem = _merge_copies(of_endpoint)
        doubled += [problem] if problem else []
        times = sorted({at for row in single for at, _ in row.samples})
        targets = {scrape_target(row.labels) for row in of_endpoint}
        since = min(
            [*times[:1], *(at for watched_target, at in (watched or {}).items() if watched_target in targets)],
            default=math.inf,
        )
        for row, points in zip(
            single, _walk_series([row.samples for row in single], times, start, since).points, strict=True
        ):
            grown[row.group].append(Series(row.labels, tuple(points)))
    return CounterGrowth(tuple(tuple(group) for group in grown), "; ".join(dict.fromkeys(doubled)))


def thin_samples(series: Sequence[Samples], start: float) -> list[Samples]:
    """Thin out the samples of one target's series: `count_growth` stays the same at block ends and at the last sample.

    The samples must be clean. The baseline stays, the first scrape after `start`, the last in each block, the last of
    all, and both sides of each change: where a series falls, starts or ends.
    """
    times = sorted({at for samples in series for at, _ in samples})
    if not times:
        return [list(samples) for samples in series]
    walk = _walk_series(series, times, start, math.inf)
    keep = walk.notable | {times[-1]}
    keep |= {max(before) for one in series if (before := [at for at, _ in one if at <= start])}
    for end in (start, *block_ends(start, times[-1])):
        index = bisect.bisect_right(times, end)
        keep |= set(times[index - 1 : index])
    index = bisect.bisect_right(times, start)
    keep |= set(times[index : index + 1])
    return [[(at, value) for at, value in levels if at in keep] for levels in walk.levels]


def clean_samples(samples: Iterable[tuple[float, float]]) -> Samples:
    """Return the samples with possible values, oldest first, one for each moment."""
    valid = [(at, value) for at, value in samples if math.isfinite(at) and 0 <= value <= MAX_COUNTER_VALUE]
    return list(dict(sorted(valid)).items())


@dataclass(frozen=True, slots=True)
class _CounterRow:
    group: int
    labels: dict[str, str]
    samples: Samples


@dataclass(frozen=True, slots=True)
class _CounterWalk:
    """For each series its growth and its values without small falls, by unix seconds; and the times of changes."""

    points: list[Samples]
    levels: list[Samples]
    notable: set[float]


def _walk_series(series: Sequence[Samples], times: Sequence[float], start: float, since: float) -> _CounterWalk:
    """Walk through all series of one target. Series that start later than `since` count from 0."""
    if not any(_ever_falls(samples, start) for samples in series):
        return _walk_rising(series, times, start, since)
    return _walk_scrapes(series, times, start, since)


def _ever_falls(samples: Samples, start: float) -> bool:
    return any(after[1] < before[1] and after[0] > start for before, after in itertools.pairwise(samples))


def _walk_rising(series: Sequence[Samples], times: Sequence[float], start: float, since: float) -> _CounterWalk:
    """Walk through series that never fall after `start`, by far the most: as `_walk_scrapes` in a tenth of the time."""
    walk = _CounterWalk([], list(series), set())
    for samples in series:
        index = bisect.bisect_right(samples, start, key=lambda sample: sample[0])
        base = samples[index - 1][1] if index else samples[0][1] if samples and samples[0][0] <= since else 0.0
        walk.points.append([(at, value - base if at > start else 0.0) for at, value in samples])
        if len(samples) < len(times):
            there = {at for at, _ in samples}
            for before, now in itertools.pairwise(times):
                if now > start and (before in there) != (now in there):
                    walk.notable.update((before, now))
    return walk


def _walk_scrapes(series: Sequence[Samples], times: Sequence[float], start: float, since: float) -> _CounterWalk:
    at = [dict(samples) for samples in series]
    every = range(len(at))
    level: list[float | None] = [None] * len(at)
    total = [0.0] * len(at)
    gained = 0.0  # growth of series that existed before, so that it is known without `since`
    walk = _CounterWalk([[] for _ in at], [[] for _ in at], set())
    before: float | None = None
    for now in times:
        if before is not None and now > start:
            elapsed = before - max(start, times[0])
            pace = gained / elapsed if elapsed > 0 else 0.0
            whole = math.fsum(value for value in level if value is not None)
            pairs = [(level[i], at[i].get(now)) for i in every if before in at[i]]
            if _has_restarted(pairs, whole, max(NEAR_ZERO_REQUESTS, MAX_PACE * pace * (now - before))):
                level = [None if value is None else 0.0 for value in level]
                walk.notable.update((before, now))
            if any((before in samples) != (now in samples) for samples in at):
                walk.notable.update((before, now))
        gains: list[float] = []
        for i in every:
            if (value := at[i].get(now)) is None:
                continue
            last, more = level[i], 0.0
            if last is None:
                total[i] += value if now > start and now > since else 0.0
            elif now > start and value >= last:
                more = value - last
            elif now > start and value < last / 2:
                more = value
                walk.notable.update((before if before is not None else now, now))
            elif now > start:
                value = last
            total[i] += more
            gains.append(more)
            level[i] = value
            walk.points[i].append((now, total[i]))
            walk.levels[i].append((now, value))
        # Summed exactly, so that the order of the series has no effect.
        gained += math.fsum(gains)
        before = now
    return walk


def _has_restarted(pairs: Iterable[tuple[float | None, float | None]], whole: float, possible: float) -> bool:
    """Return whether the process restarted between two scrapes, by (value before, value now) of each series in both.

    `whole` is the sum of all its series; few scrapes have all of those with timestamps of their own, and these show
    nothing about the rest. `possible` is the most that can have been counted between the two scrapes.
    """
    both = [(before, now) for before, now in pairs if before is not None and now is not None]
    if all(now >= before for before, now in both):
        return False
    was, is_now = math.fsum(before for before, _ in both), math.fsum(now for _, now in both)
    return was >= whole / 2 and (is_now < was / 2 or is_now <= possible)


def _group_by_process(rows: Sequence[_CounterRow]) -> Iterable[list[_CounterRow]]:
    """Group the rows by scraped process; a series without an instance is a process of its own."""
    pods: dict[tuple[str, ...], set[str]] = defaultdict(set)
    processes = [scraped_process(row.labels) or ("", "", str(index)) for index, row in enumerate(rows)]
    for address, exported, pod, *_ in processes:
        pods[address, exported].add(pod)
    groups: dict[tuple[str, ...], list[_CounterRow]] = defaultdict(list)
    for row, (address, exported, pod, *_) in zip(rows, processes, strict=True):
        # Several pods had one address, one after the other; or one job doesn't name the pod.
        groups[address, exported, pod if len(pods[address, exported] - {""}) > 1 else ""].append(row)
    return groups.values()


def _merge_copies(rows: list[_CounterRow]) -> tuple[list[_CounterRow], str]:
    """Merge the copies of one process's counters, by several jobs or Prometheus; the text describes a contradiction."""
    scrapes: dict[tuple[str, ...], list[_CounterRow]] = defaultdict(list)
    for row in rows:
        scrapes[(scraped_process(row.labels) or ())[3:]].append(row)
    if len(scrapes) == 1:
        return rows, ""
    scrape_labels = _scrape_labels(list(scrapes.values()))
    copies: dict[tuple[object, ...], list[_CounterRow]] = defaultdict(list)
    for row in rows:
        copies[row.group, frozenset(item for item in row.labels.items() if item[0] not in scrape_labels)].append(row)
    every = (pair for same in copies.values() for pair in itertools.combinations(same, 2))
    if any(not _samples_agree(one.samples, other.samples) for one, other in every):
        return rows, _describe_double_scrape(rows)
    if all(len(same) == 1 for same in copies.values()) and _have_shared_name(list(scrapes.values())):
        return rows, _describe_double_scrape(rows)
    return [_merge_samples(same) for same in copies.values()], ""


def _scrape_labels(scrapes: Sequence[Sequence[_CounterRow]]) -> set[str]:
    """Return the labels that come from scraping, not from the process.

    All series of one scrape have the same value, and another scrape has another one, or none.
    """
    names = {name for rows in scrapes for row in rows for name in row.labels} - {"__name__", "le"}
    values = {name: [{row.labels.get(name) for row in rows} for rows in scrapes] for name in names}
    return {
        name
        for name, per_scrape in values.items()
        if all(len(one) == 1 for one in per_scrape) and any(one != per_scrape[0] for one in per_scrape)
    }


def _merge_samples(copies: list[_CounterRow]) -> _CounterRow:
    samples: dict[float, float] = {}
    for row in copies:
        for at, value in row.samples:
            samples[at] = max(value, samples.get(at, 0.0))
    return _CounterRow(copies[0].group, copies[0].labels, sorted(samples.items()))


def _have_shared_name(scrapes: Sequence[Sequence[_CounterRow]]) -> bool:
    names = [{row.labels["__name__"] for row in rows if "__name__" in row.labels} for rows in scrapes]
    return sum(map(len, names)) > len(set().union(*names))


def _samples_agree(one: Samples, other: Samples) -> bool:
    """Return whether both can be one counter that was read at different times.

    One value in ten may contradict it, as around a restart.
    """
    checks = [*_check_between(one, other), *_check_between(other, one)]
    return checks.count(False) <= max(1, len(checks) // 10)


def _check_between(one: Samples, other: Samples) -> Iterator[bool]:
    """Yield for each value of `other` whether it lies between those of `one` around it, with their gap as tolerance."""
    times = [at for at, _ in one]
    for at, value in other:
        index = bisect.bisect_right(times, at)
        if 0 < index < len(one) and (low := one[index - 1][1]) <= (high := one[index][1]):
            slack = max(1.0, high - low)
            yield low - slack <= value <= high + slack


def _describe_double_scrape(rows: Sequence[_CounterRow]) -> str:
    labels = rows[0].labels
    differing = [name for name in ("job", *REPLICA_LABELS) if len({row.labels.get(name) for row in rows}) > 1]
    values = {", ".join(f'{name}="{row.labels.get(name, "")}"' for name in differing) for row in rows}
    process = f"pod {labels['pod']}" if "pod" in labels else f"instance {labels['instance']}"
    return f"{process} is scraped twice, with {' and with '.join(sorted(values))}, and the counters differ"
