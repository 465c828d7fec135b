"""What `plot` takes from a record, and what stands in the picture and in the terminal."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from modelwright.api.v1alpha1.rollout import ModelRollout
from modelwright.cli import plugin, rollout_plot
from modelwright.cli.model_view import ObjectNotFound
from modelwright.cli.rollout_series import MetricSeries, RolloutSeries, build_series
from tests.unit.cli import world

Json = dict[str, Any]
SPEC: Json = {
    "strategy": {
        "steps": [
            {"mirror": {"percent": 100, "hold": "2m"}},
            {"weight": 10, "hold": "5m"},
            {"weight": 50},
            {"weight": 100},
        ]
    },
    "analysis": {
        "metrics": [
            {"name": "same-answer", "builtin": "agreement", "min": "0.70"},
            {"name": "errors", "builtin": "error-rate", "margin": "0.02", "max": "0.1"},
            {"name": "p99", "builtin": "latency-percentile", "percentile": "0.99", "max": "0.5"},
            {"name": "orders", "prometheus": {"query": "sum(x)"}, "min": "3", "margin": "1"},
        ]
    },
    "deadline": "1h",
}


def at(minute: int, second: int = 0) -> str:
    return f"2026-11-26T11:{minute:02}:{second:02}Z"


def verdict(step: int, metric: str, outcome: str, minute: int, **numbers: Any) -> Json:
    return {"step": step, "metric": metric, "outcome": outcome, "at": at(minute), **numbers}


STEPS = [
    {"index": 0, "kind": "mirror", "weight": 0, "startedAt": at(1), "confirmedAt": at(2), "finishedAt": at(4)},
    {"index": 1, "kind": "weight", "weight": 10, "startedAt": at(4), "confirmedAt": at(5), "finishedAt": at(14)},
    {"index": 2, "kind": "weight", "weight": 50, "startedAt": at(14), "confirmedAt": at(15), "finishedAt": at(19)},
]
AGREES = verdict(0, "same-answer", "Pass", 3, candidate="0.96", low="0.93", high="0.985", limit="0.7", samples=900)
PASSES = verdict(
    1,
    "errors",
    "Pass",
    13,
    candidate="0.008",
    serving="0.007",
    low="-0.012",
    high="0.0185",
    limit="0.02",
    samples=1200,
    servingSamples=11000,
)
FAILS = verdict(2, "errors", "Fail", 18, candidate="0.19", low="0.12", high="0.27", limit="0.1", samples=700)
SLOW = verdict(
    1, "p99", "Pass", 13, candidate="0.31", serving="0.3", low="0.001", high="0.008", limit="0.01", samples=9
)
ORDERS = verdict(1, "orders", "Pass", 13, candidate="5.2", serving="5.5")
UNKNOWN = verdict(2, "orders", "Error", 18, message="Prometheus did not answer")


def record(state: str = "RolledBack", *verdicts: Json, spec: Json | None = None, **status: Any) -> Json:
    ended = {} if state == "Progressing" else {"finishedAt": at(20)}
    reported = {
        "steps": STEPS,
        "verdicts": list(verdicts),
        "from": {"version": "v1", "revision": "r1"},
        "policy": {"name": "p", "generation": 1, "spec": SPEC if spec is None else spec},
    }
    return world.rollout("digits-2", 11, "v2", state, 2, reason="AnalysisFailed", **reported | ended | status)


ALL = (AGREES, PASSES, FAILS, SLOW, ORDERS, UNKNOWN)


def drawn(*verdicts: Json, **changes: Any) -> RolloutSeries:
    return build_series(ModelRollout.parse(record("RolledBack", *verdicts, **changes)), world.NOW)


def one(*verdicts: Json, **changes: Any) -> MetricSeries:
    (found,) = drawn(*verdicts, **changes).metrics
    return found


@pytest.mark.parametrize(
    ("state", "ends"),
    [
        ("RolledBack", [(20, 0)]),
        ("Aborted", [(20, 0)]),
        ("Superseded", [(20, 0)]),
        ("Succeeded", [(20, 100)]),
        ("Progressing", []),
    ],
)
def test_a_weight_lasts_from_confirmation_to_the_end(state: str, ends: list[Any]) -> None:
    found = build_series(ModelRollout.parse(record(state)), world.NOW)
    assert [(when.minute, weight) for when, weight in found.weights] == [(0, 0), (2, 0), (5, 10), (15, 50), *ends]
    assert found.ended == (world.NOW if state == "Progressing" else found.weights[-1][0])


def test_a_weight_that_was_never_seen_in_force_is_not_drawn() -> None:
    steps = [*STEPS[:2], {k: v for k, v in STEPS[2].items() if k != "confirmedAt"}]
    assert [weight for _, weight in drawn(steps=steps).weights] == [0, 0, 10, 0]


def test_a_margin_is_about_a_difference_in_points() -> None:
    found = one(PASSES)
    (look,) = found.points
    assert (found.limit_kind, found.unit) == ("difference", "candidate − serving (percentage points)")
    assert (look.low, look.estimate, look.high, look.serving) == (-1.2, 0.1, 1.85, None)
    assert [(limit.value, limit.at_most) for limit in look.limits] == [(2.0, True)]
    assert (look.step, look.begun.minute, look.at.minute, look.ended.minute) == (2, 4, 13, 14)


def test_a_metric_with_margin_and_maximum_is_two_series() -> None:
    found = drawn(PASSES, FAILS).metrics
    assert [(judged.metric, judged.limit_kind) for judged in found] == [("errors", "difference"), ("errors", "share")]
    assert [(limit.value, limit.at_most) for limit in found[1].points[0].limits] == [(10.0, True)]


@pytest.mark.parametrize(("spec", "at_most"), [(SPEC, False), ({"strategy": "of another time"}, None)])
def test_without_the_policy_the_kind_of_limit_is_unknown(spec: Json, at_most: bool | None) -> None:
    found = drawn(AGREES, spec=spec)
    assert [(limit.value, limit.at_most) for limit in found.metrics[0].points[0].limits] == [(70.0, at_most)]
    assert any("no policy that this program can read" in note for note in found.notes) == (at_most is None)


def test_a_percentile_is_drawn_as_a_share_without_seconds() -> None:
    (look,) = one(SLOW).points
    assert (look.estimate, look.serving, look.low, look.high, look.marker_value) == (None, None, 0.1, 0.8, 0.8)


def test_a_value_has_no_interval_and_all_limits_of_its_policy() -> None:
    found = one(ORDERS)
    (look,) = found.points
    assert (found.limit_kind, found.unit) == ("value", "value (its own unit)")
    assert (look.low, look.estimate, look.serving) == (None, 5.2, 5.5)
    assert [(limit.value, limit.at_most) for limit in look.limits] == [(3.0, False), (4.5, False)]


def test_what_the_record_lacks_is_said() -> None:
    notes = drawn(*ALL).notes
    assert notes[0].startswith("Only the last verdict of each metric and step is recorded")
    assert notes[1] == "orders at step 3 has no numbers (Error): Prometheus did not answer"
    assert drawn().notes == ("No verdict is recorded.",)
    with pytest.raises(
        ObjectNotFound, match=r"digits-2 \(Pending\) has not started a step, so there is nothing to draw"
    ):
        build_series(ModelRollout.parse(record("Pending", steps=[])), world.NOW)


def texts(file: Path) -> str:
    """All text of an SVG."""
    return "\n".join(filter(None, ("".join(e.itertext()).strip() for e in ElementTree.parse(file).iter())))


def test_the_image_names_rollout_axes_units_steps_and_limits(tmp_path: Path) -> None:
    rollout_plot.save_image(drawn(*ALL), tmp_path / "a.svg")
    found = texts(tmp_path / "a.svg")
    for text in (
        "digits-2: digits v1 → v2 (RolledBack, AnalysisFailed)",
        "share of the callers' requests for the candidate (%)",
        "time since 2026-11-26 11:00:00 UTC (min)",
        "1: mirror",
        "2: weight 10 %",
        "same-answer: share of requests (%); limit at least 70",
        "errors: candidate − serving (percentage points); limit at most 2",
        "p99: slow requests (% of requests); limit at most 1",
        "orders: value (its own unit); limit at least 3; limit at least 4.5",
        "Fail",
        "Only the last verdict of each metric and step is recorded",
        "orders at step 3 has no numbers (Error): Prometheus did not answer",
    ):
        assert text in found


def test_an_image_has_its_names_format_even_without_verdicts(tmp_path: Path) -> None:
    rollout_plot.save_image(drawn(), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_terminal_plot_is_coloured_only_on_request() -> None:
    plain = rollout_plot.draw_terminal(drawn(*ALL), colours=False, columns=90)
    for text in ("digits-2: digits v1 → v2", "min since 2026-11-26 11:00:00 UTC", "limit at least 70", "F Fail"):
        assert text in plain
    assert "\x1b" not in plain
    assert {len(line) for line in plain.splitlines() if line.endswith("┐")} == {90}
    assert "\x1b[38;5;" in rollout_plot.draw_terminal(drawn(*ALL), colours=True, columns=90)


@pytest.mark.parametrize(("module", "arguments"), [("matplotlib", ["-o", "x.svg"]), ("plotext", [])])
def test_without_its_extra_it_says_which_one(
    kubectl: Path,
    module: str,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told(kubectl)
    monkeypatch.setitem(sys.modules, module, None)
    assert plugin.main(["plot", "digits", *arguments]) == 1
    assert f"plotting needs {module}, which is in the extra `plot`" in capsys.readouterr().err


def told(kubectl: Path) -> None:
    (kubectl / "objects").write_text(json.dumps({"items": world.namespace(record("RolledBack", *ALL))}))


@pytest.mark.parametrize("name", ["digits", "digits-2"])
def test_a_model_or_a_rollout_is_drawn_into_a_file(
    kubectl: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(kubectl)
    assert plugin.main(["plot", name, "-o", str(tmp_path / "x.svg"), "--terminal"]) == 0
    assert "digits-2" in texts(tmp_path / "x.svg")
    out, err = capsys.readouterr()
    assert "P Pass, F Fail" in out
    assert err == f"wrote {tmp_path}/x.svg\n"


def test_the_numbers_are_given_as_data_too(kubectl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(kubectl)
    assert plugin.main(["plot", "digits", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["weights"][2] == {"at": at(5), "weight": 10}
    assert found["metrics"][0]["looks"][0]["limits"] == [{"atLeast": 70.0}]


def test_other_formats_and_rollouts_without_steps_are_refused(
    kubectl: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        plugin.main(["plot", "digits", "-o", "x.pdf"])
    assert '"x.pdf" must end with .svg or .png, or be json' in capsys.readouterr().err
    assert plugin.main(["plot", "digits-1"]) == 1
    assert "digits-1 (Succeeded) has not started a step" in capsys.readouterr().err
