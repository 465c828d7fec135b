"""The demo's own parts: what it draws, how it reads conditions and rollouts, what it counts, how figures look."""

import io
import json
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console
from rich.text import Text

from demo import digits, figures, platform
from demo.console import DemoError, Story, draw_gallery, draw_picture
from demo.graded import GradedLoad, Grades, build_requests
from demo.kubectl import headline, is_ready, is_stalled, is_true
from demo.loop import ExistingNames, Loop, LoopFacts, drift_query, load_policy, manual_run
from demo.rollouts import RolloutView, failed_verdicts, find_rollout
from demo.runs import RunView, failed_checks, newest_run
from demo.story import BETTER, EXAMPLE, FAILING, MODEL, NAMESPACE, SLOW, WRONG, Chapter, ChapterOutcome, Demo, DemoFacts
from demo.tally import Phase, count_answers
from devcluster.errors import ClusterError
from devcluster.load import Answer, Lost, Report
from modelwright.api.v1alpha1.retraining import RetrainingPolicy
from modelwright.api.v1alpha1.training import TrainingRun

POLICIES = EXAMPLE / "policies.yaml"


def test_an_image_has_half_as_many_lines_as_pixels():
    pixels = [16.0 if x < 4 else 0.0 for _ in range(8) for x in range(8)]
    plain = draw_picture(pixels, colour=False)
    assert [line.plain for line in plain] == ["████████        "] * 8
    coloured = draw_picture(pixels, colour=True)
    assert len(coloured) == 8
    assert {line.plain for line in coloured} == {"▀" * 16}
    assert str(coloured[0].spans[0].style) == "rgb(255,255,255) on rgb(255,255,255)"
    assert str(coloured[0].spans[-1].style) == "rgb(24,24,24) on rgb(24,24,24)"


def test_each_caption_stands_below_its_picture():
    captions = [Text(f"says {n}") for n in range(5)]
    lines = draw_gallery([[0.0] * 64] * 5, captions, colour=False, columns=4).plain.splitlines()
    assert lines[8].split() == ["says", "0", "says", "1", "says", "2", "says", "3"]
    assert lines[8].index("says 1") - lines[8].index("says 0") == 19
    assert lines[18].split() == ["says", "4"]
    assert max(map(len, lines)) <= 80


def test_the_held_out_digits_are_those_no_version_was_trained_on():
    held = digits.load_holdout()
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


def test_a_phase_counts_model_errors_and_lost_requests_apart():
    report = load_report(
        (0.5, 0.1, "v2"),
        (1.0, 0.1, "v2"),
        (2.0, 0.1, "v3"),
        (5.5, 0.5, "v3"),
        (9.0, 0.1, "v2"),
        (10.0, 0.1, "v2"),
        lost=[failure(3.0, 500), failure(4.0, 502), failure(4.5, None), failure(12.0, 500)],
    )
    counts = count_answers(report, Phase("v3", 1.0, 10.0))
    assert (dict(counts.versions), len(counts.errors), len(counts.lost), counts.requests) == (
        {"v2": 2, "v3": 2},
        1,
        2,
        7,
    )
    assert (counts.first_bad, counts.last) == (3.25, 6.0)
    assert counts.rollback_seconds == 2.75


def test_only_the_candidates_slow_responses_are_bad():
    report = load_report((1.0, 0.9, "v2"), (2.0, 0.05, "v4"), (3.0, 0.2, "v4"), (4.0, 0.3, "v4"))
    counts = count_answers(report, Phase("v4", 0.0, 10.0, slow=0.1))
    assert (counts.slow, counts.first_bad, counts.rollback_seconds) == (2, 3.2, pytest.approx(1.1))
    assert count_answers(report, Phase("v4", 0.0, 10.0)).rollback_seconds is None


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
def test_a_rollout_is_one_line_with_its_steps_verdicts(status: dict, line: str, metrics: list[str]):
    steps = [{"index": 0, "kind": "mirror"}, {"index": 1, "kind": "weight"}]
    known = {"from": {"version": "digits-v1"}, "steps": steps, "verdicts": VERDICTS} if status else {}
    view = RolloutView.of(rollout(**known, **status))
    assert view.headline() == line
    assert [verdict.metric for verdict in view.verdicts] == metrics
    assert view.ended is (status.get("state") == "RolledBack")


def test_the_deciding_verdict_is_the_one_that_failed_last():
    assert [verdict.metric for verdict in failed_verdicts(rollout(verdicts=VERDICTS))] == ["errors"]
    earlier = {"step": 0, "metric": "slow", "outcome": "Fail", "message": "before"}
    assert [verdict.metric for verdict in failed_verdicts(rollout(verdicts=[earlier, *VERDICTS]))] == ["errors", "slow"]
    assert failed_verdicts(rollout()) == ()


def test_only_the_newest_rollout_to_a_version_is_found():
    old, new = rollout("a", created="2026-01-01T00:00:00Z"), rollout("b", created="2026-01-01T00:00:05Z")
    other = rollout("c", to="digits-v3", created="2026-01-01T00:00:09Z")
    assert find_rollout([new, old, other], "digits", "digits-v2", frozenset()) is new
    assert find_rollout([new, old, other], "digits", "digits-v2", frozenset({"b"})) is old
    assert find_rollout([new, old, other], "digits", "digits-v2", frozenset({"a", "b"})) is None
    assert find_rollout([new], "faces", "digits-v2", frozenset()) is None


def test_without_a_terminal_a_line_is_said_when_something_changed():
    out = io.StringIO()
    story = Story(1, Console(file=out, width=200))
    progress = {"state": "Progressing", "progress": "2/4", "step": 1, "weight": 10}
    with story.watching() as watch:
        for samples in (10, 20, 30):
            verdict = {"step": 1, "metric": "errors", "outcome": "Inconclusive", "message": f"{samples} so far"}
            watch.update(1, RolloutView.of(rollout(**progress, verdicts=[verdict])), {"digits-v1": 27}, {}, "lost: 0")
        watch.update(9, RolloutView.of(rollout(**progress, verdicts=VERDICTS)), {"digits-v1": 27}, {}, "lost: 0")
    said = out.getvalue()
    assert said.count("Progressing, step 2/4") == 2
    assert "10 so far" in said
    assert "20 so far" not in said
    assert "errors: Fail: 14 of 38" in said


def outcome(chapter: Chapter, *answers: tuple[float, float, str], lost: Sequence[Lost] = ()) -> ChapterOutcome:
    phase = Phase(chapter.version, 0.0, 100.0, chapter.slow)
    return ChapterOutcome(chapter, phase, rollout(), count_answers(load_report(*answers, lost=lost), phase))


def test_figures_have_the_projects_form(tmp_path: Path):
    outcomes = [
        outcome(BETTER, (1.0, 0.1, "digits-v2")),
        outcome(FAILING, (9.0, 0.1, "digits-v3"), lost=[failure(2.0, 500), failure(3.0, None)]),
        outcome(SLOW, (1.0, 0.5, "digits-v4"), (80.0, 0.5, "digits-v4")),
        outcome(WRONG, (1.0, 0.1, "digits-v2"), (2.0, 0.1, "digits-v5")),
    ]
    facts = DemoFacts(
        {"digits-v1": 0.8222}, outcomes, load_report((1.0, 0.1, "v"), lost=[failure(2.0, 500), failure(3.0, None)])
    )
    story = SimpleNamespace(elapsed=lambda: 901.0, seconds={"cluster": 8.04})
    path = tmp_path / "figures" / "demo.json"
    loop = LoopFacts(
        quiet=0.4,
        drift_seconds=31.0,
        run_seconds=40.2,
        registered_seconds=120.0,
        served_seconds=301.0,
        usual=0.99,
        before=0.62,
        after=0.98,
    )
    loop.checks, loop.stages = ("nulls:pixel*",), ("dataCheck",)
    loop.reports = [load_report((1.0, 0.1, "v")), load_report((1.0, 0.1, "v"))]
    figures.write(path, "python -m demo", figures.collect_figures(SimpleNamespace(facts=facts, story=story), loop))
    written = json.loads(path.read_text())
    assert set(written) == {"command", "date", "commit", "host", "figures"}
    assert set(written["host"]) == {"cores", "memoryGiB"}
    assert all(set(figure) == {"name", "value", "unit", "bound", "holds"} for figure in written["figures"])
    found = {figure["name"]: (figure["value"], figure["holds"]) for figure in written["figures"]}
    assert len(found) == len(written["figures"])
    assert found["whole demo"] == (901.0, False)
    assert found["requests lost"] == (1, False)
    assert found["digits-v3: requests lost"] == (1, False)
    assert found["digits-v3: errors that callers saw"] == (1, None)
    assert found["digits-v3: from the first bad answer to 0 % of the callers"] == (pytest.approx(6.8, abs=0.1), True)
    assert found["digits-v4: from the first bad answer to 0 % of the callers"] == (79.0, False)
    assert found["digits-v5: answers to callers"] == (1, False)
    assert found["accuracy of digits-v1"] == (0.8222, None)
    assert found["drift: from the first shifted request to the new model in service"] == (301.0, False)
    assert found["drift: from the first shifted request to run begun"] == (40.2, None)
    assert (found["drift: requests"], found["drift: requests lost"]) == ((2, None), (0, True))
    assert found["drift: right answers of the old model"] == (0.62, None)
    assert found["drift: right answers of the new model"] == (0.98, True)
    assert found["damaged data: checks that failed"] == (1, True)
    assert found["damaged data: trainings begun"] == (0, True)


@pytest.mark.parametrize(
    ("facts", "failing"),
    [
        (LoopFacts(), {"new model in service", "new model", "checks that failed"}),
        (LoopFacts(served_seconds=10.0, before=0.9, after=0.9, checks=("a",)), {"new model"}),
        (LoopFacts(served_seconds=10.0, quiet=1.5, before=0.5, after=0.9, checks=("a",)), {"usual requests"}),
        (
            LoopFacts(served_seconds=10.0, before=0.5, after=0.9, checks=("a",), stages=("dataCheck", "train")),
            {"begun"},
        ),
    ],
)
def test_a_bound_of_the_loop_that_does_not_hold_says_so(facts: LoopFacts, failing: set[str]):
    demo = SimpleNamespace(
        facts=DemoFacts({}, [], load_report((1.0, 0.1, "v"))), story=SimpleNamespace(elapsed=lambda: 1.0, seconds={})
    )
    wrong = [figure["name"] for figure in figures.collect_figures(demo, facts) if figure["holds"] is False]
    assert len(wrong) == len(failing)
    assert all(any(name.endswith(end) for end in failing) for name in wrong)


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
    for file, step, steps in (
        ("story.py", "with self.story.step(", Demo.STEPS),
        ("loop.py", "story.step(", Loop.STEPS),
    ):
        assert Path(figures.ROOT / "demo" / file).read_text().count(step) == steps


BODIES, TRUTH = build_requests(
    digits.Digits([[float(i % 17) for i in range(64)], [16.0] * 64], [3, 5]), ["plain", "inverted"]
)


def v2_answer(name: object, said: object, version: str = "digits-v2") -> bytes:
    body = {"id": name, "model_version": version, "outputs": [{"name": "predict", "data": [said]}]}
    return json.dumps(body).encode()


def test_each_image_is_sent_in_each_way_with_its_digits_id():
    sent = [json.loads(body) for body in BODIES]
    assert [body["id"] for body in sent] == ["plain-0", "inverted-0", "plain-1", "inverted-1"]
    assert TRUTH == {"plain-0": 3, "inverted-0": 3, "plain-1": 5, "inverted-1": 5}
    first, second = (body["inputs"][0]["data"] for body in sent[:2])
    assert [a + b for a, b in zip(first, second, strict=True)] == [16.0] * 64
    assert sent[0]["inputs"][0]["shape"] == [1, 64]


def test_answers_are_graded_by_version_and_way():
    grades = Grades(TRUTH)
    for name, said, version in (
        ("plain-0", 3, "v2"),
        ("inverted-0", 3.0, "v2"),
        ("inverted-1", 8, "v2"),
        ("plain-1", 5, "v6"),
    ):
        assert grades.check(v2_answer(name, said, version)) is None
    assert grades.share() == 0.75
    assert grades.share("v2") == pytest.approx(2 / 3)
    assert grades.share(origin="inverted") == 0.5
    assert grades.share("v9") is None
    assert grades.count() == {"v2": 3, "v6": 1}
    later = grades.given[-1].at
    assert (grades.count(since=later), grades.share("v2", since=later + 1)) == ({"v6": 1}, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        v2_answer("plain-9", 3),
        v2_answer("plain-0", None),
        v2_answer("plain-0", "three"),
        b'{"id": 1}',
    ],
)
def test_what_is_no_answer_is_said_and_not_graded(body: bytes):
    grades = Grades(TRUTH)
    assert "no V2 answer" in (grades.check(body) or "")
    assert grades.given == []


class Clever(BaseHTTPRequestHandler):
    """Says 3 to everything, by version digits-v2."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = v2_answer(asked["id"], 3)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def test_a_load_grades_every_answer_it_gets():
    with ThreadingHTTPServer(("127.0.0.1", 0), Clever) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = digits.V2Client(MODEL, "http://digits.example.com", ("127.0.0.1", server.server_port))
        with GradedLoad(client, BODIES, Grades(TRUTH), rate=200) as load:
            load.run_until(40)
        server.shutdown()
    assert load.report.lost == []
    assert load.grades.count() == {"digits-v2": load.report.total}
    assert load.grades.share() == pytest.approx(0.5, abs=0.05)


def training_run(name: str = "digits-drift-1", created: str = "2026-01-01T00:00:00Z", **status: object) -> dict:
    return {
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": name, "namespace": NAMESPACE, "creationTimestamp": created},
        "spec": {"policyRef": {"name": "digits"}, "trigger": {"name": "drift", "identity": "1"}},
        "status": status,
    }


BEGUN = {"child": "c", "startedAt": "2026-01-01T00:00:00Z"}
CHECKED = {"name": "dataCheck", "state": "Succeeded", **BEGUN}
TRAINING = {"name": "train", "state": "Running", "message": "its pod runs", **BEGUN}
REFUSED = [
    {"name": "nulls:pixel*", "outcome": "Fail", "message": "75 of 253376 values are empty"},
    {"name": "rows", "outcome": "Pass"},
]


@pytest.mark.parametrize(
    ("status", "line", "verdicts", "ended"),
    [
        ({}, "run digits-drift-1 (drift): Pending", [], False),
        (
            {"state": "Training", "reason": "StageRunning", "stages": [CHECKED, TRAINING]},
            "run digits-drift-1 (drift): Training",
            [("dataCheck", "Succeeded"), ("train", "Running")],
            False,
        ),
        (
            {"state": "Failed", "reason": "DataRejected", "stages": [CHECKED], "checks": REFUSED},
            "run digits-drift-1 (drift): Failed (DataRejected)",
            [("dataCheck", "Succeeded"), ("nulls:pixel*", "Fail")],
            True,
        ),
        (
            {"state": "Succeeded", "reason": "Registered", "version": "digits-drift-1"},
            "run digits-drift-1 (drift): Succeeded (Registered), made digits-drift-1",
            [],
            True,
        ),
    ],
)
def test_a_run_is_one_line_with_its_stages_and_failed_checks(
    status: dict, line: str, verdicts: list[tuple[str, str]], ended: bool
):
    run = training_run(**status)
    TrainingRun.model_validate(run)
    view = RunView.of(run)
    assert (view.headline(), view.ended) == (line, ended)
    assert [(each.metric, each.outcome) for each in view.verdicts] == verdicts
    assert len(failed_checks(run)) == sum(outcome == "Fail" for _, outcome in verdicts)


def test_a_run_is_shown_like_a_rollout():
    out = io.StringIO()
    story = Story(1, Console(file=out, width=200))
    with story.watching("waiting for the drift") as watch:
        watch.update(1, None, {}, {}, "drift: 0.4")
        watch.update(2, RunView.of(training_run(state="Training", stages=[TRAINING])), {}, {"digits-v2": 9}, "drift: 7")
    assert "waiting for the drift; answers a second: none; drift: 0.4" in out.getvalue()
    assert "run digits-drift-1 (drift): Training; answers a second: digits-v2 9; drift: 7" in out.getvalue()
    assert "train: Running: its pod runs" in out.getvalue()


def test_the_youngest_new_run_of_the_policy_is_taken():
    old, new = training_run("a"), training_run("b", created="2026-01-01T00:00:05Z")
    other = training_run("c", created="2026-01-01T00:00:09Z")
    other["spec"]["policyRef"] = {"name": "faces"}
    assert newest_run([new, old, other], "digits", frozenset()) is new
    assert newest_run([new, old, other], "digits", frozenset({"b"})) is old
    assert newest_run([other], "digits", frozenset()) is None


def loop_with(runs: Sequence[dict], rollouts: Sequence[dict] = ()) -> Loop:
    found = {"trainingruns.modelwright.dev": runs, "modelrollouts.modelwright.dev": rollouts}
    return Loop(SimpleNamespace(kubectl=SimpleNamespace(items=lambda kind, _: found[kind])))


DONE = training_run(state="Succeeded", version="digits-drift-1")
NOTHING_BEFORE = ExistingNames(frozenset(), frozenset())


def test_what_is_seen_first_of_the_loop_is_noted_with_its_time():
    loop = loop_with([])
    assert loop.observe_progress(NOTHING_BEFORE, 5.0, 0.9) is None
    assert loop.observe_progress(NOTHING_BEFORE, 8.0, 4.0) is None
    loop.demo = loop_with([training_run(state="Training")]).demo
    assert isinstance(loop.observe_progress(NOTHING_BEFORE, 12.0, 9.0), RunView)
    loop.demo = loop_with([DONE]).demo
    assert isinstance(loop.observe_progress(NOTHING_BEFORE, 60.0, 9.0), RunView)
    going = rollout("digits-9", to="digits-drift-1", state="Progressing", weight=10)
    loop.demo = loop_with([DONE], [going]).demo
    assert isinstance(loop.observe_progress(NOTHING_BEFORE, 70.0, 9.0), RolloutView)
    loop.demo = loop_with([DONE], [rollout("digits-9", to="digits-drift-1", state="Succeeded")]).demo
    loop.observe_progress(NOTHING_BEFORE, 99.0, None)
    facts = loop.facts
    assert (facts.drift_seconds, facts.run_seconds, facts.registered_seconds, facts.served_seconds) == (
        8.0,
        12.0,
        60.0,
        99.0,
    )
    assert facts.version == "digits-drift-1"


def test_runs_of_before_the_drift_are_not_the_loop_s():
    loop = loop_with([training_run("old", state="Failed")])
    assert loop.observe_progress(ExistingNames(frozenset({"old"}), frozenset()), 1.0, None) is None
    assert loop.facts == LoopFacts()


@pytest.mark.parametrize(
    ("runs", "rollouts", "told"),
    [
        ([training_run(state="Failed", reason="GateFailed", message="accuracy is 0.5")], [], "GateFailed"),
        ([training_run(state="Skipped", reason="Unchanged")], [], "should have succeeded"),
        (
            [DONE],
            [rollout(to="digits-drift-1", state="RolledBack", verdicts=VERDICTS)],
            "the rollout of digits-drift-1",
        ),
    ],
)
def test_a_failed_run_or_rollout_ends_the_demo_with_its_message(runs: list[dict], rollouts: list[dict], told: str):
    with pytest.raises(DemoError, match=told):
        loop_with(runs, rollouts).observe_progress(NOTHING_BEFORE, 1.0, None)


def test_policy_and_manual_run_are_valid_with_images_filled_in():
    images = {"trainer": "registry/trainer@sha256:1", "datacheck": "registry/datacheck@sha256:2"}
    made = RetrainingPolicy.model_validate(load_policy(images))
    run = made.spec.run
    assert run.data_check is not None
    assert run.evaluate is not None
    used = [
        work.job.template["spec"]["containers"][0]["image"]
        for work in (run.data_check, run.train, run.evaluate)
        if work.job is not None
    ]
    assert used == [images["datacheck"], images["trainer"], images["trainer"]]
    assert made.spec.model_ref.name == MODEL
    assert f'namespace="{NAMESPACE}",model="{MODEL}"' in drift_query()
    assert "$(" not in drift_query()
    asked = manual_run("kubernetes-admin")
    asked["metadata"]["name"] = "digits-by-hand-1"
    assert TrainingRun.model_validate(asked).spec.policy_ref.name == made.name


def test_images_are_built_while_the_cluster_comes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    built, cluster = Event(), object()

    def up(**_: object) -> object:
        assert built.wait(30)
        return cluster

    monkeypatch.setattr(platform.Cluster, "up", up)
    monkeypatch.setattr(platform, "build", lambda name, _: built.set() if name == "last" else None)
    monkeypatch.setattr(platform.parts, "build", lambda *_: None)
    assert platform.bring_up(images=("first", "last")) is cluster


def test_an_image_that_fails_to_build_fails_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, _: object) -> None:
        raise ClusterError(f"building {name} failed")

    monkeypatch.setattr(platform.Cluster, "up", lambda **_: object())
    monkeypatch.setattr(platform, "build", fail)
    monkeypatch.setattr(platform.parts, "build", lambda *_: None)
    with pytest.raises(ClusterError, match="building fetch failed"):
        platform.bring_up(images=("fetch",))
