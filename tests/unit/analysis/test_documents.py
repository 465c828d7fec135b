"""The page on evidence says what the code computes and the simulation has measured."""

import json

from tests.simulate import tables


def test_the_tables_of_the_page_are_those_of_the_code_and_the_figures() -> None:
    text = tables.PAGE.read_text()
    assert text == tables.page(text), "run `python -m tests.simulate --tables`"


def test_every_bound_of_the_published_simulation_holds() -> None:
    figures = json.loads(tables.FIGURES.read_text())["figures"]
    assert [figure["name"] for figure in figures if figure["bound"] and not figure["holds"]] == []
