"""The alerts of the chart have valid queries over exported metrics, and a runbook each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from modelwright.cli import plugin
from scripts.docgen import metrics_page

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "docs" / "runbooks"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "charts/modelwright/files/alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
SUFFIXES = ("_bucket", "_sum", "_count", "_total")


def exported() -> set[str]:
    """Names of all metrics, without the client's suffixes."""
    metrics = [*metrics_page.operator_metrics(), *metrics_page.observer_metrics(), *metrics_page.comparer_metrics()]
    return {metric.name.removesuffix("_total") for metric in metrics}


def without_suffix(name: str) -> str:
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_queries_exported_metrics(rule: dict[str, Any]) -> None:
    promql_parser.parse(rule["expr"])
    names = set(re.findall(r"modelwright_[a-z_]+", rule["expr"]))
    assert names
    assert {without_suffix(name) for name in names} <= exported()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_has_texts_and_a_runbook(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"].keys() == {"summary", "runbook", "description"}
    page = (ROOT / rule["annotations"]["runbook"]).read_text()
    assert page.startswith(f"# {rule['alert']}\n")
    assert "## Diagnosis" in page
    assert "## Resolution" in page


def test_every_runbook_has_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"} == {rule["alert"] for rule in RULES}


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("Modelwright*.md")), ids=lambda page: page.stem)
def test_runbooks_name_existing_commands_and_metrics(page: Path) -> None:
    text = page.read_text()
    commands = plugin.build_commands()
    for line in re.findall(r"`kubectl modelwright ([^`]+)`", text):
        name, *arguments = line.split()
        commands[name].make_context(name, arguments)
    assert {without_suffix(name) for name in re.findall(r"modelwright_[a-z_]+", text)} <= exported()


def test_alert_texts_use_only_labels_of_the_result() -> None:
    for rule in RULES:
        used = set(re.findall(r"\$labels\.(\w+)", "".join(rule["annotations"].values())))
        kept = {label for group in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in re.split(r",\s*", group)}
        assert used <= kept, rule["alert"]
