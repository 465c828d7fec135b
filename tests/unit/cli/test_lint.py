"""Manifests are judged as the API server would, and policies by what they can decide."""

from __future__ import annotations

import pytest
import yaml

from modelwright.cli.lint import lint
from tests.lib import objects

MODEL = objects.model("vision", "digits", version="v1")
POLICY = {
    "apiVersion": objects.API_VERSION, "kind": "RolloutPolicy", "metadata": {"name": "canary", "namespace": "vision"},
    "spec": {"strategy": {"steps": [{"weight": 10, "hold": "1m"}, {"weight": 100}]}},
}  # fmt: skip
BAD_STEPS = {**POLICY, "spec": {"strategy": {"steps": [{"weight": 50}, {"weight": 10}]}}}
TWO = {**POLICY, "spec": {"strategy": {"preset": "Canary", "recreate": {}}}}
RUN = {
    "apiVersion": objects.API_VERSION,
    "kind": "TrainingRun",
    "metadata": {"generateName": "by-hand-"},
    "spec": {"policyRef": {"name": "digits"}, "manual": {"by": "alice", "reason": "labels are in"}},
}
CASES = [
    ("a Model", MODEL, None),
    ("a run whose name the server makes", RUN, None),
    ("another's object", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}, None),
    ("weights that do not increase", BAD_STEPS, "increas"),
    ("two strategies", TWO, "spec.strategy"),
    ("an unknown kind of ours", {**MODEL, "kind": "Modell"}, "has no kind Modell"),
    ("an unknown field", {**MODEL, "spec": {**MODEL["spec"], "replica": 2}}, "spec.replica"),
    (
        "a version of the API that isn't there",
        {**MODEL, "apiVersion": "modelwright.dev/v9"},
        "modelwright.dev/v9 has no",
    ),
]


@pytest.mark.parametrize(("document", "says"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_what_is_said_of(document: dict[str, object], says: str | None) -> None:
    wrong = [finding for finding in lint([("f.yaml", yaml.safe_dump(document))], None) if finding.wrong]
    if says is None:
        assert wrong == []
    else:
        assert any(says in finding.text for finding in wrong), wrong


def test_a_policy_is_told_what_requests_it_needs() -> None:
    (finding,) = lint([("f.yaml", yaml.safe_dump(POLICY))], None)
    assert (finding.wrong, finding.place) == (False, "f.yaml: RolloutPolicy canary")


def test_broken_yaml_and_what_the_server_refuses_are_errors() -> None:
    (broken,) = lint([("f.yaml", "a: [")], None)
    assert broken.wrong
    (refused,) = lint([("f.yaml", yaml.safe_dump(MODEL))], lambda _: "exceeded quota")
    assert refused.text == "the API server refuses it: exceeded quota"
