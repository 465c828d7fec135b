"""Each strategy end to end: real gateway, real Prometheus, constant load with every answer counted by version.

The stories run beside each other, each with a Model of its own, and the tests look at what they came to.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from demo import figures
from demo.kubectl import is_ready
from tests.e2e.lib.rollouts import CANARY, ENDED, ERRORS, SLOW, Sets, Story, Told, seconds
from tests.e2e.lib.space import Space, eventually

pytestmark = [pytest.mark.alone, pytest.mark.timeout(900)]

AT_ONCE = 5
BOUND = 5
"""Seconds from the look that found a version bad to its last answer; samples are older by scrape and query interval."""
NO_METRICS = {"name": "away", "prometheus": {"provider": "gone", "query": "up"}, "max": "1"}

STORIES: dict[str, Callable[[Story], Told]] = {}


def story(function: Callable[[Story], Told]) -> Callable[[Story], Told]:
    """Registers a story under its name, which its Model has too."""
    STORIES[function.__name__] = function
    return function


@story
def gone(it: Story) -> Told:
    """The metrics server can't be reached."""
    it.prepare({"steps": CANARY}, {}, metrics=[NO_METRICS], deadline="40s", serving={"replicas": 1})
    it.wants(2)
    told = Told(more={"holding": it.until(2, "Holding")})
    told.record = it.until(2, *ENDED)
    return told


@story
def silent(it: Story) -> Told:
    """Nobody asks anything."""
    it.prepare({"steps": CANARY}, {}, metrics=[ERRORS], deadline="40s", serving={"replicas": 1})
    it.wants(2)
    told = Told(more={"holding": it.until(2, "Holding")})
    told.record = it.until(2, *ENDED)
    return told


@story
def canary(it: Story) -> Told:
    """A good version, on evidence."""
    it.prepare({"steps": CANARY}, {}, metrics=[ERRORS, SLOW])
    told = Told()
    with it.load(40) as load:
        told.clock = time.time() - load.elapsed()
        it.wants(2)
        it.until(2, "Progressing", "Holding", step=0)
        it.until(2, "Progressing", "Holding", step=1)
        told.more["canaries"] = it.uids(2)
        told.record = it.until(2, *ENDED)
        it.ready(2)
        time.sleep(8)
        told.more["promoted"] = it.uids(2)
    told.report = load.report
    return told


@story
def failing(it: Story) -> Told:
    """A version that answers a third of the requests with 500."""
    it.prepare({"steps": CANARY}, {"errorShare": 0.35}, metrics=[ERRORS])
    return it.under_load(2, settle=8)


@story
def slow(it: Story) -> Told:
    """A version that takes half a second."""
    it.prepare({"steps": CANARY}, {"latency": {"seconds": 0.5}}, metrics=[ERRORS, SLOW])
    return it.under_load(2)


@story
def shadow(it: Story) -> Told:
    """A version whose answers are well-formed nonsense half of the time."""
    agree = {"name": "same", "builtin": "agreement", "min": "0.80", "minSamples": 50}
    steps = [{"mirror": {"percent": 100, "hold": "8s"}}, *CANARY]
    it.prepare({"steps": steps}, {"wrongShare": 0.5}, metrics=[agree, ERRORS])
    return it.under_load(2)


@story
def abtest(it: Story) -> Told:
    """The first version fails often, the second never: it wins."""
    winner = {"metric": "errors", "better": "Lower"}
    test = {"duration": "25s", "winner": winner, "sticky": False}
    it.prepare({"abTest": test}, {}, first={"errorShare": 0.3}, metrics=[ERRORS])
    return it.under_load(2, rate=40)


@story
def bluegreen(it: Story) -> Told:
    """All at once, and back while the old pods are still there."""
    steps = [{"weight": 0, "hold": "6s"}, {"weight": 100, "hold": "3s"}]
    it.prepare({"steps": steps}, {}, keepPrevious="5m")
    told = Told()
    with it.load() as load:
        told.clock = time.time() - load.elapsed()
        old = it.uids(1)
        it.wants(2)
        previewed = it.until(2, "Progressing", step=0)
        told.more["preview"] = previewed["status"].get("preview") or it.until(2, "Progressing", step=0)["status"]
        told.record = it.until(2, *ENDED)
        it.ready(2)
        begin, first = time.monotonic(), it.record(1)
        it.wants(1)
        told.more["back"] = it.until(1, "Succeeded", after=first)
        told.more["seconds back"] = time.monotonic() - begin
        it.ready(1)
        told.more["same pods"] = old == it.uids(1)
        time.sleep(5)
    told.report = load.report
    return told


@story
def supersede(it: Story) -> Told:
    """A third version is wanted while the second is at 50 %."""
    steps = [{"weight": 50, "hold": "20s"}, {"weight": 100}]
    it.prepare({"steps": steps}, {}, {})
    told, sets = Told(), Sets(it)
    sets.start()
    with it.load() as load:
        told.clock = time.time() - load.elapsed()
        it.wants(2)
        it.until(2, "Progressing", step=0)
        eventually(lambda: it.version(2) in load.recent(), "callers are answered by the second version")
        it.wants(3)
        told.more["first"] = it.until(2, "Superseded")
        told.record = it.until(3, "Succeeded", "RolledBack")
        it.ready(3)
        time.sleep(8)
    told.report, told.more["sets"] = load.report, sets.stop()
    return told


@story
def dying(it: Story) -> Told:
    """All ready pods of a version die while it is promoted: those that it still lacks load slowly."""
    steps = [{"weight": 50, "hold": "6s"}, {"weight": 100}]
    it.prepare({"steps": steps}, {"loadSeconds": 20}, metrics=[ERRORS], serving={"replicas": 3})
    told = Told()
    with it.load(40) as load:
        told.clock = time.time() - load.elapsed()
        it.wants(2)
        it.until(2, "Promoting")
        ready = [pod["metadata"]["name"] for pod in it.space.pods(it.name, it.version(2)) if is_ready(pod)]
        told.more["ready"] = ready
        told.more["died"] = time.time()
        it.space.kubectl.run("delete", "pod", "-n", it.space.name, *ready, "--grace-period=0", "--force")
        told.record = it.until(2, *ENDED)
        time.sleep(5)
    told.report = load.report
    return told


@story
def recreate(it: Story) -> Told:
    """The old pods go before the new ones come."""
    it.prepare({"recreate": {}}, {})
    sets = Sets(it)
    sets.start()
    it.wants(2)
    told = Told(record=it.until(2, *ENDED))
    it.ready(2)
    told.more["sets"] = sets.stop()
    return told


@pytest.fixture(scope="module")
def told(request: pytest.FixtureRequest, shared_space: Space) -> Iterator[dict[str, Told]]:
    """What the stories came to whose tests are run."""
    wanted = {
        name
        for item in request.session.items
        if item.path == Path(__file__)
        for name in STORIES
        if item.name.removeprefix("test_").startswith(f"{name}_")
    }
    found: dict[str, Told] = {}

    def play(name: str) -> None:
        try:
            found[name] = STORIES[name](Story(shared_space, name))
        except Exception:
            found[name] = Told(error=traceback.format_exc())

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(play, [name for name in STORIES if name in wanted]))
    yield found
    if os.environ.get("MODELWRIGHT_FIGURES") and {"failing", "canary"} <= found.keys():
        _write_figures(found)


def of(told: dict[str, Told], name: str) -> Told:
    if told[name].error:
        pytest.fail(told[name].error, pytrace=False)
    return told[name]


def last_answer(told: Told, version: str) -> float:
    """Unix time at which this version last answered a caller, well or badly."""
    good = [told.clock + a.due + a.seconds for a in told.load.answers if a.version == version]
    bad = [told.clock + lost.due + lost.seconds for lost in told.load.lost if lost.version == version]
    return max([*good, *bad])


def last_lost(told: Told) -> float:
    """Unix time at which the last request that was lost was due."""
    return max((told.clock + lost.due for lost in told.load.lost), default=told.more["died"])


def failed_at(told: Told) -> float:
    """Unix time of the look that found the version bad."""
    return max(seconds(v["at"]) for v in told.record["status"]["verdicts"] if v["outcome"] == "Fail")


def test_canary_is_promoted_on_evidence_with_its_weights(told: dict[str, Told]) -> None:
    it = of(told, "canary")
    assert it.end == ("Succeeded", "Promoted")
    assert not it.load.lost, "\n".join(it.load.lines())
    verdicts = {(v["step"], v["metric"]): v["outcome"] for v in it.record["status"]["verdicts"]}
    assert {verdicts[step, metric] for step in (0, 1) for metric in ("errors", "slow")} == {"Pass"}
    for step, wish in ((0, 10), (1, 50)):
        share, answers = it.share("canary-2", step)
        print(f"step {step + 1}: {share:.1f} % of {answers} answers, wanted {wish} %")
        assert abs(share - wish) <= 3


def test_canary_pods_are_those_that_serve_after_promotion(told: dict[str, Told]) -> None:
    it = of(told, "canary")
    assert it.more["canaries"]
    assert it.more["canaries"] <= it.more["promoted"]


def test_failing_version_is_rolled_back_by_itself(told: dict[str, Told]) -> None:
    it = of(told, "failing")
    assert it.end == ("RolledBack", "AnalysisFailed")
    assert {lost.version for lost in it.load.lost} == {"failing-2"}, "\n".join(it.load.lines())
    assert it.share("failing-2", 0)[0] < 20
    begin = seconds(it.record["status"]["steps"][0]["startedAt"])
    left = last_answer(it, "failing-2")
    print(f"from the look that found it bad to its last answer: {left - failed_at(it):.1f} s")
    assert begin < failed_at(it) <= seconds(it.record["status"]["finishedAt"])
    assert left < it.clock + it.load.seconds - 2, "nobody asks it any more"


def test_dying_pods_of_a_version_that_is_promoted_take_it_back(told: dict[str, Told]) -> None:
    it = of(told, "dying")
    assert it.more["ready"]
    assert it.end == ("RolledBack", "CandidateUnavailable")
    print(f"from their death to the last request that was lost: {last_lost(it) - it.more['died']:.1f} s")
    assert last_lost(it) < it.clock + it.load.seconds - 2, "nobody asks it any more"


def test_slow_version_is_rolled_back_without_a_lost_request(told: dict[str, Told]) -> None:
    it = of(told, "slow")
    assert it.end == ("RolledBack", "AnalysisFailed")
    assert {v["metric"] for v in it.record["status"]["verdicts"] if v["outcome"] == "Fail"} == {"slow"}
    assert not it.load.lost, "\n".join(it.load.lines())


def test_silent_callers_are_no_evidence(told: dict[str, Told]) -> None:
    it = of(told, "silent")
    assert it.more["holding"]["status"]["reason"] == "InsufficientEvidence"
    assert it.end == ("Aborted", "Inconclusive")
    assert [s["weight"] for s in it.record["status"]["steps"]] == [10]


def test_gone_metrics_server_is_an_error_and_the_deadline_ends_it(told: dict[str, Told]) -> None:
    it = of(told, "gone")
    assert it.more["holding"]["status"]["reason"] == "AnalysisError"
    assert it.end == ("Aborted", "Inconclusive")
    assert [s["weight"] for s in it.record["status"]["steps"]] == [10]


def test_shadow_with_other_answers_never_reaches_a_caller(told: dict[str, Told]) -> None:
    it = of(told, "shadow")
    assert it.end == ("RolledBack", "AnalysisFailed")
    assert set(it.load.versions) == {"shadow-1"}
    assert not it.load.lost, "\n".join(it.load.lines())
    (verdict,) = (v for v in it.record["status"]["verdicts"] if v["metric"] == "same")
    # A Fail waits for evidence and not for minSamples (50): how many that takes is chance.
    assert verdict["outcome"] == "Fail"
    assert verdict["samples"] >= 10


def test_abtest_is_won_by_the_version_that_fails_less(told: dict[str, Told]) -> None:
    it = of(told, "abtest")
    assert it.end == ("Succeeded", "Promoted")
    assert {lost.version for lost in it.load.lost} == {"abtest-1"}, "\n".join(it.load.lines())
    answers = it.load.versions
    assert answers["abtest-2"] > answers["abtest-1"] / 3


def test_bluegreen_switches_both_ways_without_a_lost_request(told: dict[str, Told]) -> None:
    it = of(told, "bluegreen")
    assert it.end == ("Succeeded", "Promoted")
    assert it.more["preview"]
    assert it.more["back"]["status"]["reason"] == "FastRollback"
    assert it.more["same pods"]
    print(f"switched back in {it.more['seconds back']:.1f} s")
    assert not it.load.lost, "\n".join(it.load.lines())


def test_supersede_loses_no_request_and_runs_two_sets_of_pods(told: dict[str, Told]) -> None:
    it = of(told, "supersede")
    assert it.end == ("Succeeded", "Promoted")
    assert it.record["status"]["from"]["version"] == "supersede-1"
    assert it.more["first"]["status"]["state"] == "Superseded"
    assert len(it.more["sets"]) == 2, it.more["sets"]
    assert not it.load.lost, "\n".join(it.load.lines())


def test_recreate_never_runs_two_sets_of_pods(told: dict[str, Told]) -> None:
    it = of(told, "recreate")
    assert it.end == ("Succeeded", "Promoted")
    assert len(it.more["sets"]) == 1, it.more["sets"]


def _write_figures(told: dict[str, Told]) -> None:
    found = []
    if not told["failing"].error:
        it = told["failing"]
        left = last_answer(it, "failing-2")
        first = min(it.clock + lost.due for lost in it.load.lost)
        beyond = left - failed_at(it)
        found = [
            figures.build_figure(
                "bad version: to 0 %, beyond scrape and query interval",
                round(beyond, 1),
                "s",
                f"at most {BOUND}",
                beyond <= BOUND,
            ),
            figures.build_figure("bad version: first bad answer to 0 %", round(left - first, 1), "s"),
            figures.build_figure("bad version: bad answers that callers saw", len(it.load.lost), "requests"),
        ]
    if "dying" in told and not told["dying"].error:
        it = told["dying"]
        beyond = last_lost(it) - it.more["died"]
        what = "pods die in Promoting: from their death to 0 %"
        bound = f"at most {BOUND} beyond scrape and query interval"
        found.append(figures.build_figure(what, round(beyond, 1), "s", bound, beyond <= BOUND))
    for step, wish in ((0, 10), (1, 50)):
        share, answers = told["canary"].share("canary-2", step)
        bound, holds = f"{wish} +- 3", abs(share - wish) <= 3
        found.append(
            figures.build_figure(f"share at a step of {wish} %, of {answers}", round(share, 1), "%", bound, holds)
        )
    for name in ("canary", "bluegreen", "supersede"):
        if name in told and told[name].report is not None:
            lost = len(told[name].load.lost)
            text = f"{name}: requests lost of {told[name].load.total}"
            found.append(figures.build_figure(text, lost, "requests", "0", lost == 0))
    path = Path(__file__).parents[2] / "docs" / "figures" / "rollback.json"
    figures.write(path, "MODELWRIGHT_FIGURES=1 pytest tests/e2e/test_rollout_strategies.py", found)
