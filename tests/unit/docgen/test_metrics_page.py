"""The reference of metrics has all of them, and says of every label how many values it takes."""

from __future__ import annotations

import re
from pathlib import Path

from modelwright.obs.metrics import REGISTRY
from scripts.docgen import metrics_page

SOURCE = Path(__file__).parents[3] / "operator" / "modelwright"
EXPORTED = [*metrics_page.operator_metrics(), *metrics_page.observer_metrics(), *metrics_page.comparer_metrics()]


def test_everything_that_the_operator_serves_is_in_it() -> None:
    served = {family.name for family in REGISTRY.collect() if family.name.startswith("modelwright_")}
    assert served == {one.name.removesuffix("_total") for one in metrics_page.operator_metrics()}


def test_every_metric_in_the_source_is_in_it() -> None:
    declared: set[str] = set()
    for path in (SOURCE / folder for folder in ("obs", "agents", "kube", "measurement", "reconcile", "app")):
        for file in path.rglob("*.py"):
            declared |= set(re.findall(r'f?"(modelwright_[a-z_]+)"', file.read_text()))
    names = {one.name.removesuffix("_total") for one in EXPORTED}
    assert {name.removesuffix("_total") for name in declared} <= names
    assert declared


def test_every_label_of_a_metric_and_no_other_is_described() -> None:
    assert {label for one in EXPORTED for label in one.labels} == metrics_page.LABELS.keys()
    assert all(values and bound for values, bound in metrics_page.LABELS.values())


def test_labels_are_those_of_the_metrics() -> None:
    found = {one.name: one.labels for one in EXPORTED}
    assert found["modelwright_api_requests_total"] == ("verb", "kind", "code")
    assert found["modelwright_rollout_outcome"] == ("namespace", "model", "metric", "outcome")
    labels = ("namespace", "model", "version", "window", "kind", "feature", "method")
    assert found["modelwright_drift_distance"] == labels
    assert found["modelwright_queue_depth"] == ()


def test_a_unit_follows_from_the_name() -> None:
    units = {one.name: one.unit for one in EXPORTED}
    assert units["modelwright_api_limiter_wait_seconds_total"] == "seconds"
    assert units["modelwright_store_bytes"] == "bytes"
    assert units["modelwright_model_weight"] == "percent"
    assert units["modelwright_resyncs_total"] == "count"


def test_every_metric_has_a_help_text() -> None:
    assert [one.name for one in EXPORTED if not re.fullmatch(r"[A-Z0-9].*\.", one.text)] == []
