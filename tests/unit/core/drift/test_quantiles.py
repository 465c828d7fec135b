"""Tails and quantiles agree with scipy's, to 1e-6 of themselves."""

from __future__ import annotations

import pytest
from scipy import stats

from modelwright.core.drift import quantiles

TAILS = (0.5, 0.1, 0.05, 0.01, 1e-3, 1e-5, 1e-8)
WITHIN = 1e-6


@pytest.mark.parametrize("degrees", [1, 2, 3, 9, 10, 31, 60, 200])
@pytest.mark.parametrize("tail", TAILS)
def test_chi_square(tail: float, degrees: int) -> None:
    value = float(stats.chi2.isf(tail, degrees))
    assert quantiles.chi_square_quantile(tail, degrees) == pytest.approx(value, rel=WITHIN)
    assert quantiles.chi_square_tail(value, degrees) == pytest.approx(tail, rel=WITHIN)


@pytest.mark.parametrize("shape", [0.3, 1.0, 2.7, 15.2])
@pytest.mark.parametrize("tail", TAILS)
def test_gamma(tail: float, shape: float) -> None:
    value = float(stats.gamma.isf(tail, shape))
    assert quantiles.gamma_quantile(tail, shape) == pytest.approx(value, rel=WITHIN)
    assert quantiles.gamma_tail(value, shape) == pytest.approx(tail, rel=WITHIN)


@pytest.mark.parametrize("tail", [0.999, 0.9, *TAILS])
def test_kolmogorov(tail: float) -> None:
    value = float(stats.kstwobign.isf(tail))
    assert quantiles.kolmogorov_quantile(tail) == pytest.approx(value, rel=WITHIN)
    assert quantiles.kolmogorov_tail(value) == pytest.approx(tail, rel=WITHIN)


@pytest.mark.parametrize(
    ("events", "drawn", "total", "rows"),
    [(3, 200, 3, 1200), (0, 10, 5, 20), (12, 500, 15, 1500), (7, 10, 5, 20), (5, 10, 5, 20)],
)
def test_hypergeometric(events: int, drawn: int, total: int, rows: int) -> None:
    wanted = float(stats.hypergeom.sf(events - 1, rows, total, drawn))
    assert quantiles.hypergeometric_tail(events, drawn, total, rows) == pytest.approx(wanted, rel=WITHIN, abs=1e-300)


@pytest.mark.parametrize("tail", [0.3, 0.05, 1e-4, 1e-30])
@pytest.mark.parametrize(
    ("drawn", "total", "rows"), [(200, 3, 1200), (500, 15, 1500), (10, 5, 20), (15, 12, 20), (2000, 150, 3000)]
)
def test_the_first_number_of_events_beyond_a_tail(tail: float, drawn: int, total: int, rows: int) -> None:
    found = quantiles.hypergeometric_quantile(tail, drawn, total, rows)
    assert quantiles.hypergeometric_tail(found, drawn, total, rows) <= tail
    assert quantiles.hypergeometric_tail(found - 1, drawn, total, rows) > tail


def test_where_nothing_can_exceed_the_tail_is_whole() -> None:
    assert quantiles.gamma_tail(0, 2) == quantiles.kolmogorov_tail(0) == 1
