"""The grid of drift in small: every cell that is asked for is played, and its bounds hold."""

import itertools

import numpy as np
import pytest

from tests.simulate import drift_grid
from tests.simulate.drift_grid import Cell


def test_it_has_one_to_a_hundred_features_independent_and_correlated_by_rows_and_rows_of_a_request() -> None:
    wanted = itertools.product(
        ((1, 0.0), (10, 0.0), (10, 0.8), (100, 0.0), (100, 0.8)), (1, 2, 5, 10), drift_grid.SIZES
    )
    assert [((c.features, c.correlation), c.batch, c.rows) for c in drift_grid.cells()] == list(wanted)
    assert (min(drift_grid.SIZES), max(drift_grid.SIZES)) == (50, 10_000)


@pytest.mark.parametrize(("batch", "rows"), [(1, 500), (2, 250), (10, 50)])
def test_one_row_of_a_request_counts_and_its_spread_is_that_of_the_reference(batch: int, rows: int) -> None:
    found = drift_grid.counted(np.random.default_rng(1), Cell(2, 0.0, batch, 500))
    assert [len(values) for values in found] == [rows, rows]
    many = drift_grid.counted(np.random.default_rng(1), Cell(1, 0.0, batch, 20_000 * batch))[0]
    assert many.std() == pytest.approx(1, abs=0.03)


def test_a_tenth_of_the_cells_holds_its_bounds() -> None:
    figures = list(drift_grid.simulate(29, 0, quick=True))
    assert len(figures) == 2 * 10 + 2
    assert [figure.name for figure in figures if not figure.holds] == []
