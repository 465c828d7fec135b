"""Values go into the bins that the reference makes; unknown and missing ones stand apart."""

from __future__ import annotations

import math

import pytest

from modelwright.core.drift import bins

NUMBERS = bins.build_bins([float(number) for number in range(100)])
LABELS = bins.build_bins(["cat", "dog"] * 50 + ["cow"] * 3 + ["", "eel"])

PLACES = [
    ("the smallest number", NUMBERS, -5.0, 0),
    ("the largest number", NUMBERS, math.inf, 9),
    ("text where numbers are", NUMBERS, "abc", 10),
    ("no number", NUMBERS, math.nan, 11),
    ("no text where numbers are", NUMBERS, "", 11),
    ("a frequent label", LABELS, "dog", 1),
    ("rare labels share a bin", LABELS, "cow", 2),
    ("a label of one row shares it too", LABELS, "eel", 2),
    ("a label that the reference doesn't have", LABELS, "fox", 3),
    ("a number where labels are", LABELS, 1.0, 3),
    ("no label", LABELS, "", 4),
    ("no number where labels are", LABELS, math.nan, 4),
]


@pytest.mark.parametrize(("of", "value", "place"), [case[1:] for case in PLACES], ids=[case[0] for case in PLACES])
def test_a_value_goes_into_its_bin(of: bins.Bins, value: bins.FeatureValue, place: int) -> None:
    assert of.bin_of(value) == place


def test_the_reference_is_counted_as_requests_are() -> None:
    assert LABELS.counts == (50, 50, 4, 0, 1)
    assert (LABELS.row_count, LABELS.known_counts, LABELS.once) == (105, (50, 50, 4), 1)
    assert NUMBERS.counts == (11, *[10] * 8, 9, 0, 0)


def test_only_so_many_labels_have_bins_of_their_own() -> None:
    many = bins.build_bins([str(number % 100) for number in range(3000)])
    assert len(many.known_counts) == bins.MAX_LABELS + 1
    assert many.known_counts[-1] == 2400


WATCHABLE = [
    ("numbers", [1.0, 2.0], True),
    ("few labels", ["a", "b"] * 50, True),
    ("half of the rows have frequent labels", ["a"] * 50 + [str(n) for n in range(50)], True),
    ("sentences", [f"sentence {n}" for n in range(100)], False),
    ("mostly sentences", ["hello"] * 40 + [f"sentence {n}" for n in range(60)], False),
    ("twenty-five labels alike", [str(n % 25) for n in range(1000)], True),
    ("nothing", [math.nan] * 9, True),
]


@pytest.mark.parametrize(("sample", "watchable"), [c[1:] for c in WATCHABLE], ids=[c[0] for c in WATCHABLE])
def test_free_text_is_not_watched(sample: list[bins.FeatureValue], watchable: bool) -> None:
    assert bins.build_bins(sample).is_watchable is watchable


def test_a_value_that_never_changed_has_bins_around_it() -> None:
    constant = bins.build_bins([3.0] * 50)
    assert [constant.bin_of(value) for value in (2.0, 3.0, 4.0)] == [0, 1, 2]
    assert constant.counts == (0, 50, 0, 0, 0)
    assert constant.centers == pytest.approx((-1.0, 0.0, 1.0))


def test_an_empty_sample_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        bins.build_bins([])
