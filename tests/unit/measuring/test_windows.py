"""What is kept of counters says the same as all their samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.analysis.windows import LOOKBACK, OVERLAP, Window
from modelwright.core.analysis import counters
from modelwright.core.analysis.evidence import Series

START, SCRAPE = 1000.0, 15.0


def series(values: list[float], begin: float, instance: str = "a", **labels: str) -> Series:
    samples = tuple((begin + SCRAPE * index, value) for index, value in enumerate(values))
    return Series({"job": "j", "instance": instance, "__name__": "n", **labels}, samples)


VALUES = st.lists(st.integers(0, 50).map(float), min_size=0, max_size=30)


@given(
    st.lists(st.tuples(VALUES, st.floats(START - 200, START + 200), st.sampled_from("ab")), max_size=5),
    st.lists(st.floats(START, START + 700), max_size=5),
)
def test_growth_is_that_of_all_samples_however_they_were_read(
    given_series: list[tuple[list[float], float, str]], cuts: list[float]
) -> None:
    every = [series(values, begin, which, n=str(index)) for index, (values, begin, which) in enumerate(given_series)]
    end = START + 800
    window = Window(START)
    for read_to in [*sorted(cuts), end]:
        begin = window.begin()
        parts = [
            Series(one.labels, tuple(sample for sample in one.samples if begin <= sample[0] <= read_to))
            for one in every
        ]
        window.add([part for part in parts if part.samples], read_to)
    assert counters.growth(window.series(), START, end) == pytest.approx(counters.growth(every, START, end))


def test_a_long_step_is_kept_in_two_samples_a_run() -> None:
    window = Window(START)
    values = [float(value) for value in range(1000)]
    window.add([series([*values, *values], START - SCRAPE)], START + 40000)
    (kept,) = window.series()
    assert len(kept.samples) == 5, "and the first one after the start"


def test_a_series_that_began_after_the_start_counts_from_zero_where_its_target_was_scraped_before() -> None:
    window = Window(START)
    window.add([series([7, 9], START + 20)], START + 60)
    assert window.unknown_targets() == {("j", "a")}
    assert counters.growth(window.series(), START, START + 60) == 2
    window.scraped_before = frozenset({("j", "a")})
    assert window.unknown_targets() == frozenset()
    assert counters.growth(window.series(), START, START + 60) == 9


def test_reading_goes_on_a_little_before_it_ended() -> None:
    window = Window(START)
    assert window.begin() == START - LOOKBACK
    window.add([], START + 600)
    assert window.begin() == START + 600 - OVERLAP


@pytest.mark.parametrize(("age", "stale"), [(30, False), (59, False), (61, True), (400, True)])
def test_counters_that_are_scraped_no_more_are_stale(age: float, stale: bool) -> None:
    window = Window(START)
    window.add([series([1, 2, 3], START)], START + 30)
    assert (window.stale(START + 30 + age) is not None) is stale


def test_without_series_nothing_is_stale() -> None:
    window = Window(START)
    window.add([], START + 30)
    assert window.stale(START + 9999) is None
