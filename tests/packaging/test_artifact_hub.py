"""What Artifact Hub shows of the charts: annotations in its forms, and READMEs that say every value."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts import readme
from modelwright.api.crd.definition import KINDS

ROOT = Path(__file__).resolve().parents[2]
CHARTS = [path.parent for path in sorted(ROOT.glob("charts/*/Chart.yaml"))]
LISTS = {
    "changes": {"kind", "description"},
    "links": {"name", "url"},
    "images": {"name", "image"},
    "crds": {"kind", "version", "name", "displayName", "description"},
}
"""Annotations that are lists, as text, and the members that each entry must have."""


def annotations(chart: Path) -> dict[str, str]:
    found = yaml.safe_load((chart / "Chart.yaml").read_text())["annotations"]
    return {key.removeprefix("artifacthub.io/"): value for key, value in found.items()}


def listed(chart: Path, name: str) -> Any:
    return yaml.safe_load(annotations(chart).get(name, "[]"))


@pytest.mark.parametrize("chart", CHARTS, ids=lambda path: path.name)
def test_annotations_have_artifact_hubs_forms(chart: Path) -> None:
    found = annotations(chart)
    assert found["category"] == "ai-machine-learning"
    assert (ROOT / "LICENSE").read_text().split()[:2] == ["Apache", "License"]
    assert found["license"] == "Apache-2.0"
    assert all(isinstance(value, str) for value in found.values())
    for name, members in LISTS.items():
        assert all(entry.keys() == members for entry in listed(chart, name)), name
    assert {entry["kind"] for entry in listed(chart, "changes")} <= {
        "added",
        "changed",
        "deprecated",
        "removed",
        "fixed",
        "security",
    }


def test_the_crds_are_all_kinds_and_the_images_those_that_run() -> None:
    operator, crds = (ROOT / "charts" / name for name in ("modelwright", "modelwright-crds"))
    assert [entry["kind"] for entry in listed(crds, "crds")] == [kind.__name__ for kind in KINDS]
    assert {"Model", "ModelVersion", "RolloutPolicy"} == {obj["kind"] for obj in listed(crds, "crdsExamples")}
    images = {entry["name"]: entry["image"] for entry in listed(operator, "images")}
    assert {"operator", "fetch", "mlserver", "vllm"} <= images.keys()
    assert all(":" in image for image in images.values())


@pytest.mark.chart
@pytest.mark.parametrize("chart", CHARTS, ids=lambda path: path.name)
def test_readmes_say_what_the_values_say(chart: Path) -> None:
    assert (chart / "README.md").read_text() == readme.render_readme(chart.name)


@pytest.mark.chart
def test_a_value_without_a_comment_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "charts", tmp_path / "charts")
    values = tmp_path / "charts" / "modelwright-crds" / "values.yaml"
    values.write_text(f"{values.read_text()}\nbare: 1\n")
    monkeypatch.setattr(readme, "CHARTS", tmp_path / "charts")
    with pytest.raises(SystemExit, match="`bare` need a comment"):
        readme.render_readme("modelwright-crds")
