"""The demo's own parts: what it draws, how it reads conditions, what it counts as right, the form of its figures."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.text import Text

from demo import digits, figures
from demo.console import Story, gallery, picture
from demo.kubectl import headline, is_ready, is_stalled, is_true
from demo.story import Demo, Facts
from tests.load import Lost, Report


def test_a_picture_has_half_as_many_lines_as_pixels_and_shows_light_and_dark():
    pixels = [16.0 if x < 4 else 0.0 for _ in range(8) for x in range(8)]
    plain = picture(pixels, colour=False)
    assert [line.plain for line in plain] == ["████████        "] * 8
    coloured = picture(pixels, colour=True)
    assert len(coloured) == 8
    assert {line.plain for line in coloured} == {"▀" * 16}
    assert str(coloured[0].spans[0].style) == "rgb(255,255,255) on rgb(255,255,255)"
    assert str(coloured[0].spans[-1].style) == "rgb(24,24,24) on rgb(24,24,24)"


def test_each_caption_stands_below_its_picture():
    captions = [Text(f"says {n}") for n in range(5)]
    lines = gallery([[0.0] * 64] * 5, captions, colour=False, columns=4).plain.splitlines()
    assert lines[8].split() == ["says", "0", "says", "1", "says", "2", "says", "3"]
    assert lines[8].index("says 1") - lines[8].index("says 0") == 19
    assert lines[18].split() == ["says", "4"]
    assert max(map(len, lines)) <= 80


def test_the_held_out_digits_are_those_no_version_was_trained_on():
    held = digits.holdout()
    assert len(held.pictures) == len(held.labels) == 540
    shown = held.first_of_each(4)
    assert len({held.labels[index] for index in shown}) == 4
    assert digits.accuracy([1, 2, 3, 4], [1, 2, 3, 5]) == 0.75


def model(generation: int = 2, observed: int = 2, **statuses: str) -> dict:
    conditions = [
        {"type": name, "status": status, "reason": f"{name}Reason", "message": "why"}
        for name, status in statuses.items()
    ]
    return {
        "metadata": {"generation": generation},
        "status": {"observedGeneration": observed, "conditions": conditions},
    }


@pytest.mark.parametrize(
    ("obj", "ready", "stalled", "line"),
    [
        (model(Ready="True", Stalled="False"), True, False, "ReadyReason: why"),
        (model(Ready="True", observed=1), False, False, "ReadyReason: why"),
        (model(Ready="False", Stalled="True"), False, True, "StalledReason: why"),
        (model(Ready="False", Reconciling="True", Stalled="False"), False, False, "ReconcilingReason: why"),
        ({"metadata": {"generation": 1}}, False, False, ""),
    ],
)
def test_conditions_are_read_at_the_present_generation(obj: dict, ready: bool, stalled: bool, line: str):
    assert (is_ready(obj), is_stalled(obj), headline(obj)) == (ready, stalled, line)


def test_an_old_generation_counts_only_when_asked_for():
    assert is_true(model(Ready="True", observed=1), "Ready", current=False)


def test_steps_are_numbered_and_timed_also_when_they_fail():
    out = io.StringIO()
    story = Story(2, Console(file=out, width=100))
    with story.step("first", "One", "because"):
        story.say("inside")
    with pytest.raises(ValueError, match="broken"), story.step("second", "Two", "because"):
        raise ValueError("broken")
    assert list(story.seconds) == ["first", "second"]
    said = out.getvalue()
    assert "1/2 One" in said
    assert "2/2 Two" in said
    assert said.count("done in") == 1


def test_figures_have_the_projects_form(tmp_path: Path):
    lost = Lost(1, 0.1, 0.0, 0.1, "fresh", "reset", "gone")
    facts = Facts({"digits-v1": 0.8222}, Report(10, total=2, lost=[lost], latencies=[0.1]), 12.34)
    story = SimpleNamespace(elapsed=lambda: 301.0, seconds={"cluster": 8.04})
    path = tmp_path / "figures" / "demo.json"
    figures.write(path, "python -m demo", figures.of(SimpleNamespace(facts=facts, story=story)))
    written = json.loads(path.read_text())
    assert set(written) == {"command", "date", "commit", "host", "figures"}
    assert set(written["host"]) == {"cores", "memoryGiB"}
    assert all(set(figure) == {"name", "value", "unit", "bound", "holds"} for figure in written["figures"])
    found = {figure["name"]: figure for figure in written["figures"]}
    assert found["whole demo"]["holds"] is False
    assert (found["requests lost"]["value"], found["requests lost"]["holds"]) == (1, False)
    assert found["accuracy of digits-v1"]["value"] == 0.8222


def test_the_demo_counts_its_steps():
    source = Path(figures.ROOT / "demo" / "story.py").read_text()
    assert source.count("with self.story.step(") == Demo.STEPS
