"""The alerts of the chart, by Prometheus' own promtool: the rules are good ones, and fire when they should only."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from devcluster import parts

pytestmark = pytest.mark.metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "charts" / "modelwright" / "files" / "alerts.yaml"
CASES = Path(__file__).with_name("alerts_test.yaml")


def promtool(*arguments: str) -> None:
    parts.build(["promtool"])
    command = [str(parts.binary_path("promtool")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_good_ones() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    promtool("test", "rules", str(CASES))


def test_each_alert_is_seen_firing_and_silent() -> None:
    alerts = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    seen = {
        (case["alertname"], bool(case.get("exp_alerts")))
        for test in yaml.safe_load(CASES.read_text())["tests"]
        for case in test["alert_rule_test"]
    }
    assert seen == {(alert, firing) for alert in alerts for firing in (True, False)}
