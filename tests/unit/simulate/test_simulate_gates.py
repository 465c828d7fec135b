"""The simulation of the evaluation gate in small, with a fixed seed: its bounds are far from what chance can do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.simulate import command, gates
from tests.simulate.command import TENTH, Figure, chosen
from tests.simulate.gates import PARTS, documented, outcomes, pairs


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(22)


def test_an_equal_candidate_passes_five_slices_with_the_documented_number_of_examples(
    random: np.random.Generator,
) -> None:
    n = documented(0.06, 0.02, 1 + len(PARTS))

    def report(part: str | None) -> dict[str, Any]:
        return pairs(random, n if part else 5 * n, 0.06, 0.0, part)

    found = outcomes(0.02, PARTS, report, 60)
    assert found["Pass"] >= 40
    assert not found["Fail"]


@pytest.mark.parametrize("n", [2, 20, 310, 2000])
def test_a_candidate_that_is_worse_by_twice_the_limit_hardly_passes_at_any_number(
    n: int, random: np.random.Generator
) -> None:
    found = outcomes(0.005, (), lambda part: pairs(random, n, 0.06, 0.01, part), 100)
    assert found["Pass"] <= 10


def test_an_equal_candidate_is_not_failed_by_chance(random: np.random.Generator) -> None:
    found = outcomes(0.005, PARTS, lambda part: pairs(random, 310, 0.06, 0.0, part), 100)
    assert found["Fail"] <= 10


def test_the_tenths_together_are_all_cells_each_once() -> None:
    assert sorted(cell for part in range(TENTH) for cell in chosen(range(144), part)) == list(range(144))
    assert chosen(range(3), None) == [0, 1, 2]


def test_each_tenth_has_figures_of_every_kind(random: np.random.Generator) -> None:
    for part in range(TENTH):
        for figures in (gates.equal(random, 1, part), gates.means(random, 1, part)):
            assert list(figures)


@pytest.mark.parametrize(("options", "written"), [((), True), (("--quick",), False), (("--part", "3"), False)])
def test_a_whole_run_alone_is_written_and_a_bound_that_does_not_hold_is_an_error(
    tmp_path: Path, options: tuple[str, ...], written: bool
) -> None:
    tables: list[int] = []

    def simulate(_: Any) -> Iterator[Figure]:
        yield Figure("passes", 0.1, "share", at_most=0.05)

    def run() -> None:
        path = tmp_path / "figures.json"
        command.run("", "x", path, simulate, lambda: tables.append(1), seed=1, parts=True, arguments=options)

    if "--quick" in options:
        run()
    else:
        with pytest.raises(SystemExit, match="1"):
            run()
    assert ((tmp_path / "figures.json").exists(), bool(tables)) == (written, written)
