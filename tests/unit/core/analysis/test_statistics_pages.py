"""The pages on evidence, gates and drift say what the code computes and the simulations have measured."""

import json
from pathlib import Path

import pytest

from tests.simulate import drift, gates, tables


def test_the_tables_of_the_page_match_code_and_figures() -> None:
    text = tables.PAGE.read_text()
    assert text == tables.page(text), "run `python -m tests.simulate --tables`"


def test_the_tables_of_the_page_on_gates_match_code_and_figures() -> None:
    text = gates.PAGE.read_text()
    assert text == gates.page(text), "run `python -m tests.simulate.gates --tables`"


def test_the_tables_of_the_page_on_drift_match_the_figures() -> None:
    text = drift.PAGE.read_text()
    assert text == drift.page(text), "run `python -m tests.simulate.drift --tables`"


@pytest.mark.parametrize(
    "file",
    [tables.FIGURES, tables.MIRROR, tables.BURSTS, gates.FIGURES, drift.FIGURES],
    ids=lambda file: file.stem,
)
def test_every_bound_of_the_published_simulation_holds(file: Path) -> None:
    figures = json.loads(file.read_text())["figures"]
    assert [figure["name"] for figure in figures if figure["bound"] and not figure["holds"]] == []
