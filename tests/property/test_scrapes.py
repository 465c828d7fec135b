"""Properties of counts for any scrapes: broken exporters, restarts, copies, in any order and any pieces."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.core.analysis.counters import MoreBadThanTotal, count_arm, count_arm_blocks, sum_growth
from modelwright.core.analysis.evidence import Arm, Series
from modelwright.core.analysis.scraped_counters import (
    CounterGrowth,
    block_ends,
    clean_samples,
    count_growth,
    thin_samples,
)

UNTIMED = settings(deadline=None)
START, END = 100.0, 300.0
ODD = st.sampled_from([math.nan, math.inf, -math.inf, -1.0, -1e300, 1e300, 2.0**53 + 2, 0.0])
TIMES = st.one_of(st.integers(0, 330).map(float), st.sampled_from([math.nan, math.inf, START, END]))
VALUES = st.one_of(st.integers(0, 60).map(float), st.floats(0, 1e6), ODD)
SAMPLES = st.lists(st.tuples(TIMES, VALUES), max_size=10).map(tuple)
LABELS = st.fixed_dictionaries(
    {"__name__": st.just("n")},
    optional={
        "job": st.sampled_from(["x", "y"]),
        "instance": st.sampled_from(["a", "b"]),
        "pod": st.sampled_from(["p", "q"]),
        "code": st.sampled_from(["200", "500", "503"]),
        "prometheus_replica": st.sampled_from(["0", "1"]),
    },
)
ANY = st.lists(st.builds(Series, LABELS, SAMPLES), max_size=8)
ONE_TARGET = st.lists(
    st.builds(
        Series,
        st.fixed_dictionaries(
            {"__name__": st.just("n"), "job": st.just("x"), "instance": st.just("a"), "code": st.sampled_from("12345")}
        ),
        SAMPLES,
    ),
    max_size=5,
    unique_by=lambda one: one.labels["code"],
)


def rising(target: list[Series]) -> list[Series]:
    """The same series of a process that never restarts."""
    return [
        Series(one.labels, tuple(zip(times, sorted(values), strict=True)))
        for one in target
        if (samples := clean_samples(one.samples))
        for times, values in [zip(*samples, strict=True)]
    ]


def grown(found: CounterGrowth, group: int = 0, start: float = START, end: float = END) -> float:
    return sum_growth(found.groups[group], start, end)


@UNTIMED
@given(ANY, ANY, st.floats(0, 320), st.floats(0, 200))
def test_counts_never_fall_and_bad_ones_never_outnumber_all(
    bad: list[Series], total: list[Series], start: float, length: float
) -> None:
    found = count_growth([bad, total], start)
    for one in itertools.chain(*found.groups):
        values = [value for _, value in one.samples]
        assert values == sorted(values)
        assert all(0 <= value < math.inf for value in values)
    end = start + length
    try:
        whole = count_arm(*found.groups, start, end)
    except MoreBadThanTotal:
        return
    assert 0 <= whole.events <= whole.trials
    parts = count_arm_blocks(*found.groups, start, (*block_ends(start, end), end))
    assert Arm(sum(part.trials for part in parts), sum(part.events for part in parts)) == whole
    assert all(0 <= part.events <= part.trials for part in parts)


@UNTIMED
@given(ANY, ANY, st.randoms())
def test_the_order_of_series_changes_nothing(bad: list[Series], total: list[Series], order: random.Random) -> None:
    unique = list({tuple(sorted(one.labels.items())): one for one in total}.values())
    found = count_growth([bad, unique], START)
    order.shuffle(unique)
    again = count_growth([bad, unique], START)
    assert bool(again.doubled) == bool(found.doubled)
    assert grown(again, 1) == pytest.approx(grown(found, 1))


@UNTIMED
@given(ONE_TARGET, st.sampled_from([{"job": "y", "endpoint": "metrics"}, {"prometheus_replica": "1"}]))
def test_a_copy_of_a_target_changes_nothing(target: list[Series], label: dict[str, str]) -> None:
    copy = [Series({**one.labels, **label}, one.samples) for one in target]
    found = count_growth([[*target, *copy]], START)
    assert not found.doubled
    assert grown(found) == pytest.approx(grown(count_growth([target], START)))


@UNTIMED
@given(ONE_TARGET.map(rising), st.integers(0, 330))
def test_one_more_scrape_without_news_changes_nothing(target: list[Series], at: int) -> None:
    """All that the scrape before had, with the same values."""
    valid = [clean_samples(one.samples) for one in target]
    times = sorted({time for samples in valid for time, _ in samples})
    before = max((time for time in times if time < at), default=None)
    if before is None or float(at) in times:
        return
    more = [
        Series(
            one.labels,
            (*samples, *((float(at), value) for time, value in samples if time == before)),
        )
        for one, samples in zip(target, valid, strict=True)
    ]
    start = START if not before <= START < at else before
    assert grown(count_growth([more], start), start=start) == pytest.approx(
        grown(count_growth([target], start), start=start)
    )


@UNTIMED
@given(ONE_TARGET)
def test_thinned_samples_give_the_same_growth(target: list[Series]) -> None:
    kept = thin_samples([clean_samples(one.samples) for one in target], START)
    again = [Series(one.labels, tuple(samples)) for one, samples in zip(target, kept, strict=True)]
    for end in (*block_ends(START, END), 1000.0):
        assert grown(count_growth([again], START), end=end) == pytest.approx(
            grown(count_growth([target], START), end=end)
        )


@dataclass
class Process:
    """A server that counts by code, and is scraped; `truth`: what it counted in the step, once it was scraped."""

    counts: dict[str, int] = field(default_factory=dict)
    truth: dict[str, int] = field(default_factory=dict)
    scraped: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    known: bool = False

    def answer(self, code: str, times: int) -> None:
        if times:
            self.counts[code] = self.counts.get(code, 0) + times
            self.truth[code] = self.truth.get(code, 0) + times * self.known

    def scrape(self, at: float) -> None:
        self.known = True
        if at <= START:
            self.truth.clear()
        for code, count in self.counts.items():
            self.scraped.setdefault(code, []).append((at, float(count)))


BURSTS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=15)


@UNTIMED
@given(BURSTS, st.sampled_from([START - 30, START + 5]))
def test_every_error_after_the_first_scrape_counts(bursts: list[tuple[int, int, int]], start: float) -> None:
    """Whenever its series was made, and whenever scraping began."""
    process = Process(counts={"200": 0})
    for number, (good, bad, late) in enumerate(bursts):
        process.scrape(start + 15 * number)
        if start + 15 * number <= START:
            process.truth.clear()
        process.answer("200", good)
        process.answer("500", bad)
        process.answer("503", late if number > 2 else 0)
    process.scrape(start + 15 * len(bursts))
    series = [
        Series({"job": "x", "instance": "a", "code": code}, tuple(samples)) for code, samples in process.scraped.items()
    ]
    found = count_growth([[one for one in series if one.labels["code"] != "200"], series], START)
    bad = sum(count for code, count in process.truth.items() if code != "200")
    assert count_arm(*found.groups, START, 1000.0) == Arm(sum(process.truth.values()), bad)
