"""How much of a build is done and how long the rest takes, by the CPU seconds that each part usually takes."""

from __future__ import annotations

import pytest

from devcluster.progress import NEVER_DONE, LiveProgress, Step, forecast, left_of

WAITING, DONE = Step(100), Step(100, "done", 50)


@pytest.mark.parametrize(
    ("steps", "percent", "seconds"),
    [
        ([WAITING, WAITING], 0, 100),
        ([DONE, WAITING], 50, 50),
        ([Step(100, "done", 200), WAITING], 50, 143),
        ([DONE, Step(100, "running", 975)], 75, 25),
        ([DONE, Step(100, "running", 0)], 97, 2),
        ([DONE, WAITING, Step(), Step(0, "running", 1)], 50, 50),
        ([Step(100, "failed", 50), WAITING], 50, 50),
    ],
    ids=[
        "before the start two cores are ours",
        "half is done at that pace",
        "a slower machine takes longer",
        "a running step counts by its time",
        "but is never done before its end",
        "what has no weight counts for nothing",
        "what failed is over",
    ],
)
def test_a_forecast_goes_by_the_pace_so_far(steps: list[Step], percent: int, seconds: float) -> None:
    known = forecast(steps, now=1000, cores=2)
    assert known is not None
    assert known[0] == percent
    assert known[1] == pytest.approx(seconds, abs=1)


def test_it_never_says_all_while_something_runs() -> None:
    known = forecast([Step(1, "running", 0)], now=1e6, cores=2)
    assert known is not None
    assert known[0] == int(100 * NEVER_DONE)


@pytest.mark.parametrize("steps", [[], [DONE], [Step(0, "running", 1)]], ids=["nothing", "all is done", "no weights"])
def test_nothing_is_foretold_without_weights(steps: list[Step]) -> None:
    assert forecast(steps, now=1000, cores=2) is None


def test_a_line_says_it_in_minutes() -> None:
    assert left_of([DONE], 1000) == "0 left"
    assert left_of([Step(10_000), Step()], 0).startswith("2 left; 0 % built, about ")
    assert left_of([Step(1)], 0) == "1 left; 0 % built, about a minute to go"


def test_lines_in_ci_say_how_much_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveProgress("build") as shown:
        shown.add("build a", 30)
        shown.add("build b", 10)
        with shown.step("build a"):
            pass
        with shown.step("ready"):
            pass
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("1 left; 75 % built, about a minute to go")
    assert [line.split("] ")[1].split(",")[0].split(" in ")[0] for line in lines] == [
        "build a: running",
        "build a: done",
        "ready: running",
        "ready: done",
    ]
