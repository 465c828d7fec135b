"""The operator's own metrics of Models and rollouts: what they say, and that no series outlives what it is about."""

from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from modelwright.kube import kinds
from modelwright.obs import model_metrics
from modelwright.obs.metrics import REGISTRY
from tests.lib.model_metrics import LIVE, NOTHING, held_at_ten, series
from tests.lib.rollout_harness import NS, bad, good


@pytest.fixture(autouse=True)
def nothing_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_metrics.MODELS, "_models", {})


def weights() -> dict[str, float]:
    """By version."""
    return {version: weight for (_, version), weight in series("modelwright_model_weight").items()}


def labels() -> set[str]:
    """Every value of every label that a scrape sees."""
    families = text_string_to_metric_families(generate_latest(REGISTRY).decode())
    return {value for family in families for sample in family.samples for value in sample.labels.values()}


def ended(outcome: str, reason: str) -> float:
    return REGISTRY.get_sample_value("modelwright_rollouts_ended_total", {"outcome": outcome, "reason": reason}) or 0.0


def observed(name: str) -> tuple[float, float]:
    """How many were observed, and their sum."""
    found = [
        REGISTRY.get_sample_value(f"modelwright_rollout_{name}_duration_seconds_{part}") or 0.0
        for part in ("count", "sum")
    ]
    return found[0], found[1]


def test_a_live_rollout_is_told_with_its_numbers() -> None:
    world = held_at_ten()
    assert series("modelwright_rollout_info") == {("Holding",): 1}
    assert series("modelwright_model_info") == {("Reconciling",): 1}
    assert weights() == {"v1": 90, "v2": 10}
    assert series("modelwright_rollout_outcome") == {("errors", "Inconclusive"): 1}
    verdict = series("modelwright_rollout_verdict")
    assert {value for _, value in verdict} == {"candidate", "serving", "low", "high", "limit"}
    assert verdict["errors", "limit"] == 0.02
    assert verdict["errors", "serving"] == 0.01
    assert verdict["errors", "low"] < 0 < verdict["errors", "high"]
    world.scheduler.results["errors"] = good()
    world.go(lambda: series("modelwright_rollout_outcome") == {("errors", "Pass"): 1})


def test_promotion_removes_series_and_counts_its_time() -> None:
    world = held_at_ten()
    before, (count, seconds) = ended("Succeeded", "Promoted"), observed("promotion")
    world.scheduler.results["errors"] = good()
    world.go_to("Succeeded", "Promoted")
    world.look()
    assert [series(name) for name in LIVE] == NOTHING
    assert ended("Succeeded", "Promoted") == before + 1
    assert observed("promotion")[0] == count + 1
    assert observed("promotion")[1] - seconds > 40
    for _ in range(5):
        world.look()
    assert ended("Succeeded", "Promoted") == before + 1


def test_rollback_removes_series_and_counts_its_time() -> None:
    world = held_at_ten()
    before, (count, seconds) = ended("RolledBack", "AnalysisFailed"), observed("rollback")
    world.scheduler.results["errors"] = bad()
    world.go_to("RolledBack")
    world.look()
    assert [series(name) for name in LIVE] == NOTHING
    assert ended("RolledBack", "AnalysisFailed") == before + 1
    assert observed("rollback")[0] == count + 1
    assert 0 <= observed("rollback")[1] - seconds <= 10


def test_what_is_superseded_is_counted_once() -> None:
    world = held_at_ten()
    before = ended("Superseded", "Superseded")
    world.want("v3")
    world.go(lambda: world.records[1]["status"]["state"] == "Superseded")
    for _ in range(3):
        world.look()
    assert ended("Superseded", "Superseded") == before + 1


def test_a_model_is_told_whether_or_not_a_rollout_goes_on() -> None:
    world = held_at_ten()
    world.scheduler.results["errors"] = good()
    world.go_to("Succeeded", "Promoted")
    world.look()
    assert series("modelwright_model_info") == {("Ready",): 1}
    assert weights() == {"v2": 100}
    world.scheduler.results["errors"] = bad()
    world.want("v3")
    world.go_to("RolledBack")
    world.look()
    assert series("modelwright_model_info") == {("Stalled",): 1}
    assert weights() == {"v2": 100}


def test_unreadable_model_is_exported_as_stalled() -> None:
    world = held_at_ten()
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"version": {"name": 7}}})
    world.look()
    assert series("modelwright_model_info") == {("Stalled",): 1}
    assert [series(name) for name in LIVE] == NOTHING


@pytest.mark.parametrize("how", ["at once", "waiting for finalizers"])
def test_series_go_when_the_model_goes(how: str) -> None:
    world = held_at_ten()
    assert {"digits", "v1", "v2", "errors"} <= labels()
    if how == "at once":
        world.api.user_delete(kinds.MODEL, NS, "digits")
    else:
        patch: dict[str, Any] = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}
        world.api.user_patch(kinds.MODEL, NS, "digits", patch)
    world.operator.hear(len(world.api.told))
    world.operator.work()
    assert not {NS, "digits", "v1", "v2", "errors"} & labels()


def test_no_label_of_a_counter_is_the_name_of_an_object() -> None:
    named = {"namespace", "model", "version", "revision", "metric", "name", "pod", "uid"}
    for family in REGISTRY.collect():
        for sample in family.samples if family.type in ("counter", "histogram") else ():
            assert not named & sample.labels.keys(), sample.name
