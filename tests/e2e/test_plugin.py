"""The plugin on a real cluster: what it shows of a rollout that is on its way, and what people do by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.e2e.lib.plugin import plugin
from tests.e2e.lib.rollouts import Story
from tests.e2e.lib.space import Space, eventually

FOREVER = {"steps": [{"weight": 10, "hold": "1h"}, {"weight": 100}]}


@pytest.fixture(scope="module")
def story(shared_space: Space) -> Story:
    """Version 1 serves; a move to another one stays at 10 % until somebody says something."""
    found = Story(shared_space, "told")
    found.prepare(FOREVER, {}, {}, deadline="2h")
    return found


def test_the_plugin_shows_steers_and_rolls_back_a_rollout(story: Story, tmp_path: Path) -> None:
    assert plugin(story, "status", "told", "--wait", "--timeout", "60s").startswith("Model told  Ready=True")
    assert "it has ended" in plugin(story, "pause", "told", "--reason", "x", code=1)
    story.wants(2)
    story.until(2, "Progressing", step=0)
    eventually(lambda: "10 % of the requests" in plugin(story, "status", "told"), "it has its share")
    assert "is Progressing, step 1/2, weight 10 %" in plugin(story, "why", "told-2")
    assert "still in progress" in plugin(story, "status", "told", "--wait", "--timeout", "2s", code=2)

    assert "pause of told-2" in plugin(story, "pause", "told", "--reason", "a complaint")
    assert "paused" in plugin(story, "status", "told")
    plugin(story, "resume", "told", "--reason", "it was something else")
    plugin(story, "promote", "told", "--reason", "the errors are a client's")
    assert "Model told  Ready=True" in plugin(story, "status", "told", "--wait", "--timeout", "3m")
    told = plugin(story, "why", "told")
    assert "was promoted" in told
    assert "admin ran promote" in told
    plugin(story, "plot", "told-2", "-o", str(tmp_path / "told.svg"))
    assert "told-2: told told-1 → told-2 (Succeeded" in (tmp_path / "told.svg").read_text()

    assert "has not served before" in plugin(story, "rollback", "told", "--to", "told-3", "--reason", "x", code=1)
    assert "takes Model told to version told-1" in plugin(story, "rollback", "told", "--reason", "wrong answers")
    eventually(
        lambda: "100 % of the requests: version told-1" in plugin(story, "status", "told"), "it is back", timeout=90
    )
    eventually(lambda: "release told --reason" in plugin(story, "why", "told"), "it is held")
    plugin(story, "release", "told", "--reason", "version 2 is mended")
    story.until(2, "Progressing", "Succeeded")
    assert plugin(story, "history", "told").count("Succeeded") >= 2


def test_an_aborted_rollout_has_failed_for_who_waits(story: Story) -> None:
    story.wants(3)
    story.until(3, "Progressing", step=0)
    plugin(story, "abort", "told", "--reason", "wrong features")
    assert "aborted" in plugin(story, "status", "told", "--wait", "--timeout", "3m", code=1).lower()
    assert "retry told" in plugin(story, "why", "told")


def test_facts_of_versions_and_a_dry_run_of_manifests(story: Story, tmp_path: Path) -> None:
    assert plugin(story, "lineage", "told-1").startswith("version told-1")
    assert json.loads(plugin(story, "lineage", "told-1", "-o", "json"))["digest"].startswith("sha256:")
    assert "artifact.uri" in plugin(story, "diff", "told-1", "told-2")
    assert "# told: told-2" in plugin(story, "card", "told-2")
    policy = {"apiVersion": "modelwright.dev/v1alpha1", "kind": "RolloutPolicy", "metadata": {"name": "p"}}
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump({**policy, "spec": {"strategy": FOREVER, "deadline": "2h"}}))
    assert "no findings" in plugin(story, "lint", str(file))
    file.write_text(yaml.safe_dump({**policy, "spec": {"strategy": {"preset": "Canary", "recreate": {}}}}))
    assert "spec.strategy" in plugin(story, "lint", str(file), code=1)
    assert "there is no Model nobody here" in plugin(story, "why", "nobody", code=1)
