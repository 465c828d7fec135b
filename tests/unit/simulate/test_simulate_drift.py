"""The simulation of drift in small: it counts as the observer does, and its bounds hold."""

import numpy as np
import pytest

from modelwright.core.drift import bins
from modelwright.core.drift.feature_drift import DriftMethods
from tests.simulate import drift


@pytest.mark.parametrize("name", [*drift.NUMBERS, *drift.LABELS])
def test_rows_are_counted_as_the_observer_counts_them(name: str) -> None:
    random, labels = np.random.default_rng(1), name in drift.LABELS
    draw = (drift.LABELS if labels else drift.NUMBERS)[name]
    found = drift.reference(draw(random, 300), labels, DriftMethods())
    values = draw(random, 300)
    wanted: list[bins.FeatureValue] = [str(int(value)) if labels else value for value in values.tolist()]
    assert drift.count(found, values) == found.count_values(wanted)


@pytest.mark.parametrize("most", [bins.MAX_BINS, bins.MAX_ORDERED_BINS])
@pytest.mark.parametrize("name", drift.NUMBERS)
def test_bins_are_those_of_the_observer(name: str, most: int) -> None:
    values = drift.NUMBERS[name](np.random.default_rng(2), 500)
    found, wanted = drift.numbers(values, most), bins.build_bins(values.tolist(), most=most)
    assert (found.counts, found.cuts) == (wanted.counts, wanted.cuts)
    assert found.centers == pytest.approx(wanted.centers)


def test_a_tenth_of_the_cells_holds_its_bounds() -> None:
    figures = list(drift.simulate(23, 20, 3))
    assert len(figures) > 15
    assert [figure.name for figure in figures if not figure.holds] == []


def test_the_interval_of_no_alarm_begins_at_nothing() -> None:
    assert drift.lowest(0, 100) == 0
    assert 0.05 < drift.lowest(20, 100) < 0.2
