"""The API server is away in the middle of two canaries: callers notice nothing, and each ends as its evidence says."""

from __future__ import annotations

import os
import time

import pytest

from demo import figures
from devcluster.load import Report
from tests.e2e.lib.rollouts import CANARY, ERRORS, Story
from tests.e2e.lib.space import Space, eventually

pytestmark = pytest.mark.alone

# Longer than the Lease of the operator lasts.
AWAY = 45.0 if os.environ.get("MODELWRIGHT_FIGURES") else 25.0
RATE = 20
# So many that none has been judged when the API server goes.
JUDGED_LATE = ERRORS | {"minSamples": 200}
STEPS = [{"weight": 50, "hold": "30s"}, CANARY[-1]]


def begun(story: Story) -> bool:
    """Whether the first step's weight is in force."""
    steps = (story.record(2) or {}).get("status", {}).get("steps", [])
    return bool(steps) and "confirmedAt" in steps[0]


@pytest.mark.timeout(600)
def test_an_api_server_outage_affects_no_caller_and_no_verdict(space: Space) -> None:
    if space.world.cluster.backend != "embedded":
        pytest.skip("it stops the API server, which it can do in the embedded cluster only")
    good, bad = Story(space, "good"), Story(space, "bad")
    for story, behaviour in ((good, {}), (bad, {"errorShare": 0.35})):
        story.prepare({"steps": STEPS}, behaviour, metrics=[JUDGED_LATE], keepPrevious="5m")
    with good.load(RATE) as asking_good, bad.load(RATE) as asking_bad:
        for story in (good, bad):
            story.wants(2)
        for story in (good, bad):
            eventually(lambda story=story: begun(story), f"{story.name} is judged by what callers get", timeout=120)
        pods = [(story, number, story.uids(number)) for story, number in ((good, 1), (good, 2), (bad, 1))]
        answered = len(asking_good.report.answers)
        with space.world.cluster.without_api_server():
            time.sleep(AWAY)
        answered, back = len(asking_good.report.answers) - answered, time.monotonic()
        refused = bad.until(2, "Succeeded", "RolledBack")["status"]
        rolled_back = time.monotonic() - back
        promoted = good.until(2, "Succeeded", "RolledBack")["status"]
        ended = time.monotonic() - back
        time.sleep(3)
    assert (promoted["state"], promoted["reason"]) == ("Succeeded", "Promoted")
    assert (refused["state"], refused["reason"]) == ("RolledBack", "AnalysisFailed")
    for story, number, before in pods:
        assert before <= story.uids(number), f"a pod of {story.version(number)} was replaced"
    assert asking_good.report.lost == [], "\n".join(asking_good.report.lines(20))
    assert {lost.status for lost in asking_bad.report.lost} == {500}, "a bad version's own answers, and nothing else"
    if os.environ.get("MODELWRIGHT_FIGURES"):
        _write(answered, asking_good.report, rolled_back, ended)
    print(f"{answered} answers meanwhile; then {rolled_back:.1f} s to the rollback, {ended:.1f} s to both ends")


def _write(answered: int, report: Report, rolled_back: float, ended: float) -> None:
    found = [
        figures.build_figure("API server away", AWAY, "s"),
        figures.build_figure("requests answered meanwhile, one Model", answered, "requests"),
        figures.build_figure("requests lost", len(report.lost), "requests", "0", not report.lost),
        figures.build_figure("from its return until the bad version was taken back", round(rolled_back, 1), "s"),
        figures.build_figure("from its return until both rollouts had ended", round(ended, 1), "s"),
    ]
    command = "MODELWRIGHT_FIGURES=1 python -m pytest tests/e2e/test_outage.py"
    figures.write(figures.ROOT / "docs" / "figures" / "outage.json", command, found)
