"""What is shown on a terminal: the live view of a rollout, and colours that stay off elsewhere."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from modelwright.cli import printing
from modelwright.cli.live_view import draw_interval, render_view
from modelwright.cli.model_view import ModelView
from modelwright.cli.rollout_series import build_series
from tests.unit.cli import world
from tests.unit.cli.world import NOW, condition

Json = dict[str, Any]
ERRORS = {
    "step": 0,
    "metric": "errors",
    "outcome": "Inconclusive",
    "candidate": "0.03",
    "serving": "0.02",
    "low": "-0.01",
    "high": "0.05",
    "limit": "0.02",
    "samples": 120,
    "servingSamples": 900,
    "at": "2026-11-26T11:30:00Z",
}


def moving(*verdicts: Json, **status: Any) -> ModelView:
    record = {**world.ON_ITS_WAY, "status": {**world.ON_ITS_WAY["status"], "verdicts": list(verdicts), **status}}
    return world.seen(record)


def drawn(seen: ModelView) -> str:
    file = io.StringIO()
    Console(file=file, width=150).print(render_view(seen, NOW))
    return file.getvalue()


def test_weights_are_bars_with_pods_and_roles() -> None:
    lines = [line for line in drawn(moving()).splitlines() if "━" in line]
    assert [re.sub(r"\s+", " ", re.sub("[━╺╸]+", "BAR", line)).strip() for line in lines] == [
        "v1 BAR 90 % 1 of 1 pods ready serving",
        "v2 BAR 10 % (observed 9 %) 0 of 1 pods ready candidate",
    ]


def test_a_metric_shows_its_interval_against_the_limit() -> None:
    (line,) = [line for line in drawn(moving(ERRORS)).splitlines() if "errors" in line]
    assert re.search(r"├─+●─*┃─*─┤", line)
    assert "1 [-1, 5], at most 2, 120 requests" in line


def test_a_verdict_without_numbers_is_shown_in_words() -> None:
    assert "error-rate: Inconclusive; 12 of 50 requests answered by the candidate" in drawn(moving(world.VERDICT))


def test_only_metrics_of_the_last_step_are_shown() -> None:
    second = {"index": 1, "kind": "weight", "weight": 50, "startedAt": "2026-11-26T11:40:00Z"}
    steps = [*world.ON_ITS_WAY["status"]["steps"], second]
    shown = drawn(moving(ERRORS, {**ERRORS, "step": 1, "metric": "slow"}, steps=steps))
    assert "slow" in shown
    assert "errors" not in shown


def test_texts_of_objects_do_not_steer_the_terminal() -> None:
    assert "\x1b[2J" not in drawn(moving({**world.VERDICT, "message": "bad \x1b[2J"}))
    assert r"bad \x1b[2J" in drawn(moving({**world.VERDICT, "message": "bad \x1b[2J"}))


SCALES = {
    "an interval below its limit": (
        "├──●──┤  ┃",
        {"low": "0", "high": "0.06", "candidate": "0.03", "limit": "0.09"},
    ),
    "an interval beyond its limit": (
        "┃   ├─●──┤",
        {"low": "0.04", "high": "0.09", "candidate": "0.06", "limit": "0"},
    ),
}


@pytest.mark.parametrize(("shape", "numbers"), SCALES.values(), ids=SCALES)
def test_on_a_scale_of_ten_columns(shape: str, numbers: Json) -> None:
    seen = moving({**ERRORS, **numbers, "serving": "0"})
    assert seen.current_rollout is not None
    (judged,) = build_series(seen.current_rollout, NOW).metrics
    assert draw_interval(judged.points[-1], 10) == shape


def on_a_terminal(kubectl: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code, and what a terminal gets."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "modelwright.cli.plugin", *arguments],
        stdin=child,
        stdout=child,
        stderr=child,
        env={**os.environ, "KUBECTL": str(kubectl / "kubectl"), "TERM": "xterm", "COLUMNS": "120", **environment},
    )
    os.close(child)
    pieces = []
    # Linux ends the reading of a terminal that nobody has open any more with an error.
    try:
        while piece := os.read(parent, 4096):
            pieces.append(piece)
    except OSError:
        pass
    os.close(parent)
    return process.wait(), b"".join(pieces).decode()


def test_a_watch_on_a_terminal_is_live_until_the_rollout_ends(kubectl: Path) -> None:
    ended = world.namespace(ready=condition("Ready", "True", "Serving"))
    (kubectl / "objects").write_text(json.dumps({"items": ended}))
    code, shown = on_a_terminal(kubectl, "status", "digits", "--watch", "--wait")
    assert code == 0
    assert "━━━" in shown
    assert "\x1b[32m" in shown


def test_colours_are_for_terminals_whose_user_wants_them(kubectl: Path) -> None:
    colour = re.compile(r"\x1b\[\d*m")
    assert colour.search(on_a_terminal(kubectl, "status", "digits")[1])
    assert not colour.search(on_a_terminal(kubectl, "status", "digits", NO_COLOR="1")[1])
    assert not colour.search(on_a_terminal(kubectl, "status", "digits", TERM="dumb")[1])


def test_help_has_colours_on_a_terminal_only(kubectl: Path) -> None:
    assert "\x1b[1m" in on_a_terminal(kubectl, "--help")[1]
    assert "\x1b[" not in on_a_terminal(kubectl, "--help", NO_COLOR="1")[1]


def test_good_and_bad_words_are_painted_and_the_text_stays() -> None:
    text = "errors: Fail; ready, ReadyToGo, Ready=True, RolledBack"
    painted = printing.colour_states(text)
    assert painted == (
        "errors: \x1b[31mFail\x1b[0m; \x1b[32mready\x1b[0m, ReadyToGo, \x1b[32mReady=True\x1b[0m, "
        "\x1b[31mRolledBack\x1b[0m"
    )
    assert re.sub(r"\x1b\[\d*m", "", painted) == text
