"""Figures by name, with their bounds, as they go into the file."""

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.scale import figures
from tests.scale.audit import Counts
from tests.scale.figures import Figures


def test_requests_of_a_phase_are_counted_by_verb_and_kind():
    result = Figures(2)
    counts = Counts(
        writes=Counter({("patch", "models/status"): 6, ("create", "deployments"): 2}),
        reads=Counter({("list", "pods"): 1}),
        events=2,
        refused=Counter({("patch", "models", 409): 3}),
    )
    result.count("create", counts, "a Model", 2)
    assert result.values == {
        "create: writes a Model": 4.0,
        "create: reads a Model": 0.5,
        "create: Events a Model": 1.0,
    }
    assert result.parts == {
        "create: writes a Model, patch models/status": 3.0,
        "create: writes a Model, create deployments": 1.0,
        "create: reads a Model, list pods": 0.5,
    }
    assert result.refused == {"create: patch models -> 409": 3}


def test_a_row_says_its_bound_and_whether_it_holds():
    result = Figures(500, {"memory MiB": 111.0, "idle: writes": 0.0, "other: seconds": 2.34567})
    rows = figures.rows(result, {"memory MiB": 110.0, "idle: writes": 0.0})
    assert [(row["bound"], row["holds"]) for row in rows] == [
        ("at most 110", False),
        ("at most 0", True),
        (None, None),
    ]
    assert rows[2] == {"name": "N=500 other: seconds", "value": 2.346, "unit": "seconds", "bound": None, "holds": None}


def test_a_median_has_its_interval_in_the_file(tmp_path: Path):
    result = Figures(10, {"a: seconds": 2.0}, {"a: seconds": (1.0, 3.00049)})
    figures.write(tmp_path / "x.json", [result], "command", {})
    written = json.loads((tmp_path / "x.json").read_text())
    assert written["command"] == "command"
    assert written["figures"][0]["interval"] == [1.0, 3.0]


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("named, create: CPU ms a Model, times the spike's", "times"),
        ("idle: CPU seconds a minute", "CPU seconds"),
        ("create: CPU ms a Model", "CPU ms"),
        ("restart: seconds to quiet", "seconds"),
        ("memory MiB", "MiB"),
        ("create: writes a Model", "count"),
        ("restart: reads, list modelruntimes", "count"),
    ],
)
def test_the_name_says_the_unit(name: str, unit: str):
    assert figures.unit(name) == unit


def test_the_table_shows_figures_that_only_one_size_has(capsys: pytest.CaptureFixture[str]):
    results = [Figures(100, {"both": 1.0}), Figures(500, {"both": 1.0, "one": 7.0}, parts={"p: writes, patch x": 2.0})]
    figures.show(results, {500: {"one": 6.0}})
    out = capsys.readouterr().out
    assert "7.00 !" in out
    assert "N=500 p: writes: patch x 2.00" in out
