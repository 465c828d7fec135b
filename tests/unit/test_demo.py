"""The demo's own parts: what it draws, how it reads conditions and rollouts, what it counts, how figures look."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console
from rich.text import Text

from demo import digits, figures
from demo.console import Story, gallery, picture
from demo.kubectl import headline, is_ready, is_stalled, is_true
from demo.rollouts import View, deciding, latest
from demo.story import BETTER, EXAMPLE, FAILING, SLOW, WRONG, Chapter, Demo, Facts, Outcome
from demo.tally import Phase, tally
from tests.load import Answer, Lost, Report

POLICIES = EXAMPLE / "policies.yaml"


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


def load_report(*answers: tuple[float, float, str], lost: Sequence[Lost] = ()) -> Report:
    given = [Answer(*answer) for answer in answers]
    seconds = [answer.seconds for answer in given]
    return Report(10, total=len(given) + len(lost), lost=list(lost), latencies=seconds, answers=given)


def failure(due: float, status: int | None) -> Lost:
    return Lost(1, due, 0.0, 0.25, "fresh", "status" if status else "reset", "why", None, status)


def test_a_phase_counts_what_was_due_in_it_and_tells_errors_of_the_model_from_lost_requests():
    report = load_report(
        (0.5, 0.1, "v2"),
        (1.0, 0.1, "v2"),
        (2.0, 0.1, "v3"),
        (5.5, 0.5, "v3"),
        (9.0, 0.1, "v2"),
        (10.0, 0.1, "v2"),
        lost=[failure(3.0, 500), failure(4.0, 502), failure(4.5, None), failure(12.0, 500)],
    )
    counts = tally(report, Phase("v3", 1.0, 10.0))
    assert (dict(counts.versions), len(counts.errors), len(counts.lost), counts.requests) == (
        {"v2": 2, "v3": 2},
        1,
        2,
        7,
    )
    assert (counts.first_bad, counts.last) == (3.25, 6.0)
    assert counts.rollback_seconds == 2.75


def test_slow_answers_of_the_candidate_are_bad_and_those_of_others_are_not():
    report = load_report((1.0, 0.9, "v2"), (2.0, 0.05, "v4"), (3.0, 0.2, "v4"), (4.0, 0.3, "v4"))
    counts = tally(report, Phase("v4", 0.0, 10.0, slow=0.1))
    assert (counts.slow, counts.first_bad, counts.rollback_seconds) == (2, 3.2, pytest.approx(1.1))
    assert tally(report, Phase("v4", 0.0, 10.0)).rollback_seconds is None


def rollout(
    name: str = "digits-1", to: str = "digits-v2", created: str = "2026-01-01T00:00:00Z", **status: object
) -> dict:
    return {
        "metadata": {"name": name, "creationTimestamp": created},
        "spec": {"modelRef": {"name": "digits"}, "target": {"version": to}},
        "status": status,
    }


VERDICTS = [
    {"step": 0, "metric": "same-answer", "outcome": "Pass", "message": "83 of 100"},
    {"step": 1, "metric": "errors", "outcome": "Fail", "message": "14 of 38", "samples": 38},
]


@pytest.mark.parametrize(
    ("status", "line", "metrics"),
    [
        ({}, "digits-v2: Pending", []),
        (
            {"state": "Progressing", "reason": "Step", "progress": "1/4", "step": 0, "weight": 0},
            "digits-v1 → digits-v2: Progressing, step 1/4, a shadow: it gets copies, callers hear the old one",
            ["same-answer"],
        ),
        (
            {"state": "Progressing", "progress": "2/4", "step": 1, "weight": 10, "observedWeight": 11},
            "digits-v1 → digits-v2: Progressing, step 2/4, 10 % of the callers (seen: 11 %)",
            ["errors"],
        ),
        (
            {"state": "RollingBack", "reason": "AnalysisFailed", "progress": "1/4", "step": 0, "weight": 0},
            "digits-v1 → digits-v2: RollingBack (AnalysisFailed), 0 % of the callers",
            ["same-answer"],
        ),
        (
            {"state": "RolledBack", "reason": "AnalysisFailed", "progress": "2/4", "step": 1, "weight": 0},
            "digits-v1 → digits-v2: RolledBack (AnalysisFailed), 0 % of the callers",
            ["errors"],
        ),
    ],
)
def test_a_rollout_is_told_in_one_line_with_the_verdicts_of_its_step(status: dict, line: str, metrics: list[str]):
    steps = [{"index": 0, "kind": "mirror"}, {"index": 1, "kind": "weight"}]
    known = {"from": {"version": "digits-v1"}, "steps": steps, "verdicts": VERDICTS} if status else {}
    view = View.of(rollout(**known, **status))
    assert view.headline() == line
    assert [verdict.metric for verdict in view.verdicts] == metrics
    assert view.ended is (status.get("state") == "RolledBack")


def test_the_deciding_verdict_is_the_one_that_failed_last():
    assert [verdict.metric for verdict in deciding(rollout(verdicts=VERDICTS))] == ["errors"]
    earlier = {"step": 0, "metric": "slow", "outcome": "Fail", "message": "before"}
    assert [verdict.metric for verdict in deciding(rollout(verdicts=[earlier, *VERDICTS]))] == ["errors", "slow"]
    assert deciding(rollout()) == ()


def test_the_latest_rollout_to_a_version_is_found_and_those_of_before_are_not():
    old, new = rollout("a", created="2026-01-01T00:00:00Z"), rollout("b", created="2026-01-01T00:00:05Z")
    other = rollout("c", to="digits-v3", created="2026-01-01T00:00:09Z")
    assert latest([new, old, other], "digits", "digits-v2", frozenset()) is new
    assert latest([new, old, other], "digits", "digits-v2", frozenset({"b"})) is old
    assert latest([new, old, other], "digits", "digits-v2", frozenset({"a", "b"})) is None
    assert latest([new], "faces", "digits-v2", frozenset()) is None


def test_without_a_terminal_a_line_is_said_when_something_changed():
    out = io.StringIO()
    story = Story(1, Console(file=out, width=200))
    progress = {"state": "Progressing", "progress": "2/4", "step": 1, "weight": 10}
    with story.watching() as watch:
        for samples in (10, 20, 30):
            verdict = {"step": 1, "metric": "errors", "outcome": "Inconclusive", "message": f"{samples} so far"}
            watch.update(1, View.of(rollout(**progress, verdicts=[verdict])), {"digits-v1": 27}, {}, "lost: 0")
        watch.update(9, View.of(rollout(**progress, verdicts=VERDICTS)), {"digits-v1": 27}, {}, "lost: 0")
    said = out.getvalue()
    assert said.count("Progressing, step 2/4") == 2
    assert "10 so far" in said
    assert "20 so far" not in said
    assert "errors: Fail: 14 of 38" in said


def outcome(chapter: Chapter, *answers: tuple[float, float, str], lost: Sequence[Lost] = ()) -> Outcome:
    phase = Phase(chapter.version, 0.0, 100.0, chapter.slow)
    return Outcome(chapter, phase, rollout(), tally(load_report(*answers, lost=lost), phase))


def test_figures_have_the_projects_form(tmp_path: Path):
    outcomes = [
        outcome(BETTER, (1.0, 0.1, "digits-v2")),
        outcome(FAILING, (9.0, 0.1, "digits-v3"), lost=[failure(2.0, 500), failure(3.0, None)]),
        outcome(SLOW, (1.0, 0.5, "digits-v4"), (80.0, 0.5, "digits-v4")),
        outcome(WRONG, (1.0, 0.1, "digits-v2"), (2.0, 0.1, "digits-v5")),
    ]
    facts = Facts(
        {"digits-v1": 0.8222}, outcomes, load_report((1.0, 0.1, "v"), lost=[failure(2.0, 500), failure(3.0, None)])
    )
    story = SimpleNamespace(elapsed=lambda: 601.0, seconds={"cluster": 8.04})
    path = tmp_path / "figures" / "demo.json"
    figures.write(path, "python -m demo", figures.of(SimpleNamespace(facts=facts, story=story)))
    written = json.loads(path.read_text())
    assert set(written) == {"command", "date", "commit", "host", "figures"}
    assert set(written["host"]) == {"cores", "memoryGiB"}
    assert all(set(figure) == {"name", "value", "unit", "bound", "holds"} for figure in written["figures"])
    found = {figure["name"]: (figure["value"], figure["holds"]) for figure in written["figures"]}
    assert len(found) == len(written["figures"])
    assert found["whole demo"] == (601.0, False)
    assert found["requests lost"] == (1, False)
    assert found["digits-v3: requests lost"] == (1, False)
    assert found["digits-v3: errors that callers saw"] == (1, None)
    assert found["digits-v3: from the first bad answer to 0 % of the callers"] == (pytest.approx(6.8, abs=0.1), True)
    assert found["digits-v4: from the first bad answer to 0 % of the callers"] == (79.0, False)
    assert found["digits-v5: answers to callers"] == (1, False)
    assert found["accuracy of digits-v1"] == (0.8222, None)


@pytest.mark.parametrize("chapter", [BETTER, FAILING, SLOW, WRONG], ids=lambda chapter: chapter.version)
def test_a_chapter_asks_for_a_version_and_a_policy_that_are_there(chapter: Chapter):
    (version,) = yaml.safe_load_all(chapter.file.read_text())
    assert version["metadata"]["name"] == chapter.version
    policies = {each["metadata"]["name"]: each["spec"] for each in yaml.safe_load_all(POLICIES.read_text())}
    steps = policies[chapter.policy]["strategy"]["steps"]
    assert ("mirror" in steps[0]) is chapter.mirrored
    metrics = {metric["name"]: metric for metric in policies[chapter.policy]["analysis"]["metrics"]}
    assert not chapter.metric or chapter.metric in metrics
    if chapter.slow:
        assert metrics[chapter.metric]["threshold"] == f"{chapter.slow * 1000:.0f}ms"


def test_the_demo_counts_its_steps():
    source = Path(figures.ROOT / "demo" / "story.py").read_text()
    assert source.count("with self.story.step(") == Demo.STEPS
