"""What is kept of counters says the same as all their samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.core.analysis import counters
from modelwright.core.analysis.evidence import Series
from modelwright.core.analysis.scraped_counters import block_ends, count_growth
from modelwright.measurement import sample_windows
from modelwright.measurement.sample_windows import LOOKBACK_SECONDS, OVERLAP_SECONDS, SampleWindow

START, SCRAPE = 1000.0, 15.0
BAD, ALL = 'n{code="500"}', "n"


def series(values: list[float], begin: float, instance: str = "a", **labels: str) -> Series:
    samples = tuple((begin + SCRAPE * index, value) for index, value in enumerate(values))
    return Series({"job": "j", "instance": instance, "__name__": "n", **labels}, samples)


def window() -> SampleWindow:
    return SampleWindow(START, (BAD, ALL))


@pytest.fixture(autouse=True)
def always_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each reading, and not only when much has come together."""
    monkeypatch.setattr(sample_windows, "THINNING_THRESHOLD", -(10**6))


@st.composite
def scraped(draw: st.DrawFn) -> list[Series]:
    """Series of one target: values of each scrape, which a series may be missing from."""
    begin, instance = draw(st.floats(START - 200, START + 200)), draw(st.sampled_from("ab"))
    scrapes = draw(st.lists(st.lists(st.none() | st.integers(0, 90), min_size=3, max_size=3), max_size=25))
    actual = []
    for code in range(3):
        samples = [(begin + SCRAPE * n, float(v)) for n, row in enumerate(scrapes) if (v := row[code]) is not None]
        actual.append(Series({"job": "j", "instance": instance, "__name__": "n", "code": str(code)}, tuple(samples)))
    return [one for one in actual if one.samples]


@given(st.lists(scraped(), max_size=2), st.lists(st.floats(START, START + 700), max_size=5))
def test_counts_equal_those_of_all_samples_in_any_reading_order(made: list[list[Series]], cuts: list[float]) -> None:
    every = list({tuple(one.labels.items()): one for target in made for one in target}.values())
    end = START + 800
    kept = window()
    for read_to in [*sorted(cuts), end]:
        begin = kept.next_start()
        parts = [
            Series(one.labels, tuple(sample for sample in one.samples if begin <= sample[0] <= read_to))
            for one in every
        ]
        parts = [part for part in parts if part.samples]
        kept.add_series({BAD: [part for part in parts if part.labels["code"] == "2"], ALL: parts}, read_to)
    whole = count_growth([[one for one in every if one.labels["code"] == "2"], every], START)
    for moment in (*block_ends(START, end), end):
        for some, of_all in zip(kept.compute_counts().groups, whole.groups, strict=True):
            assert counters.sum_growth(some, START, moment) == counters.sum_growth(of_all, START, moment)


def test_a_long_step_is_kept_in_one_sample_a_block() -> None:
    kept = window()
    values = [float(value) for value in range(10_000)]
    for read_to in range(60, 20_000 * 15, 3000):
        end = START + read_to
        kept.add_series({ALL: [series([*values, *values], START - SCRAPE, code="200")]}, end)
    (_, (actual,)) = kept.compute_counts().groups
    assert actual.samples[-1][1] == 2 * 9999 - 1
    assert len(actual.samples) <= len(list(block_ends(START, START + 20_000 * 15))) + 6


def test_a_new_series_of_a_scraped_target_counts_from_zero() -> None:
    kept = window()
    kept.add_series({ALL: [series([7, 9], START + 20)]}, START + 60)
    assert kept.list_unknown_targets() == {("j", "a"): START + 20}
    assert counters.sum_growth(kept.compute_counts().groups[1], START, START + 60) == 2
    kept.baselines[("j", "a")] = START + 5
    assert kept.list_unknown_targets() == {}
    assert counters.sum_growth(kept.compute_counts().groups[1], START, START + 60) == 9


def test_a_target_with_a_sample_before_the_start_is_known() -> None:
    kept = window()
    kept.add_series({ALL: [series([7, 9, 9], START - 20), series([3], START + 10, code="500")]}, START + 60)
    assert kept.list_unknown_targets() == {}


def test_reading_goes_on_a_little_before_it_ended() -> None:
    kept = window()
    assert kept.next_start() == START - LOOKBACK_SECONDS
    kept.add_series({}, START + 600)
    assert kept.next_start() == START + 600 - OVERLAP_SECONDS


@pytest.mark.parametrize(("age", "stale"), [(30, False), (59, False), (61, True), (400, True)])
def test_counters_that_are_scraped_no_more_are_stale(age: float, stale: bool) -> None:
    kept = window()
    kept.add_series({ALL: [series([1, 2, 3], START)]}, START + 30)
    assert (kept.stale_since(START + 30 + age, ALL) is not None) is stale
    assert kept.stale_since(START + 30 + age, BAD) is None


def test_without_series_nothing_is_stale() -> None:
    kept = window()
    kept.add_series({}, START + 30)
    assert kept.stale_since(START + 9999, ALL) is None
