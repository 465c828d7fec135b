"""What `new` prints: manifests that pass lint, and whose comments are the API's own words."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from modelwright.cli import manifest_lint, plugin
from modelwright.cli.drafts import render_draft
from modelwright.cli.verbs import DRAFT_KINDS


@pytest.mark.parametrize("what", DRAFT_KINDS)
def test_a_draft_passes_lint(what: str) -> None:
    found = manifest_lint.lint_files([("draft.yaml", render_draft(what, "iris"))], None)
    assert [finding.text for finding in found if finding.level != "note"] == []


@pytest.mark.parametrize("what", DRAFT_KINDS)
def test_each_line_of_a_draft_fits_and_has_its_comment_before_it(what: str) -> None:
    lines = render_draft(what, "iris").splitlines()
    assert max(map(len, lines)) <= 112
    at = lines.index("spec:")
    fields = [index for index, line in enumerate(lines) if index > at and line[:2] == "  " and line[2].isalpha()]
    assert fields
    assert [lines[index] for index in fields if not lines[index - 1].lstrip().startswith("#")] == []


def test_optional_fields_are_named_with_what_they_are() -> None:
    text = render_draft("model", "iris")
    assert "  # endpoint: Access from outside, through the Gateway API." in text
    assert "# author" not in render_draft("version", "iris-1")


NAMES = [
    ("iris-1", None, "iris"),
    ("iris-v12", None, "iris"),
    ("iris", None, "iris"),
    ("second", "iris", "iris"),
]


@pytest.mark.parametrize(("name", "model", "found"), NAMES, ids=[name for name, _, _ in NAMES])
def test_a_version_names_its_model(name: str, model: str | None, found: str) -> None:
    content: Any = yaml.safe_load(render_draft("version", name, model))
    assert content["metadata"]["name"] == name
    assert content["spec"]["modelRef"]["name"] == found


def test_new_asks_no_cluster(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("KUBECTL", "/nowhere/kubectl")
    assert plugin.main(["new", "policy", "canary"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["kind"] == "RolloutPolicy"
    assert plugin.main(["new", "retraining", "iris", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["spec"]["modelRef"] == {"name": "iris"}


def test_a_kind_that_there_is_none_of_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        plugin.main(["new", "modle"])
    assert "Did you mean model?" in capsys.readouterr().err
