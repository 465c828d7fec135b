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
    finding, _ = lint([("f.yaml", yaml.safe_dump(POLICY))], None)
    assert (finding.level, finding.place) == ("note", "f.yaml: RolloutPolicy canary")


def test_a_policy_that_promotes_by_time_alone_is_warned_of() -> None:
    _, finding = lint([("f.yaml", yaml.safe_dump(POLICY))], None)
    assert (finding.level, finding.wrong) == ("warning", False)
    assert finding.text.startswith("it promotes by time alone: it has no analysis, no gate and no approval")
    judged = {**POLICY["spec"], "analysis": {"metrics": [{"name": "e", "builtin": "error-rate", "margin": "0.02"}]}}
    assert [f.level for f in lint([("f.yaml", yaml.safe_dump({**POLICY, "spec": judged}))], None)] == ["note"]


NARROW = [{"name": "accuracy", "minDelta": "-0.005"}]


@pytest.mark.parametrize(
    ("kind", "spec", "field"),
    [
        (
            "RolloutPolicy",
            {**POLICY["spec"], "gates": {"evaluation": {"template": {}, "metrics": NARROW}}},
            "spec.gates.evaluation.metrics",
        ),
        (
            "RetrainingPolicy",
            {
                "modelRef": {"name": "digits"},
                "run": {
                    "dataset": {"uri": "s3://data/digits/"},
                    "train": {"job": {"template": {}}},
                    "evaluate": {"job": {"template": {}}, "gates": NARROW},
                    "output": {"uri": "s3://models/digits", "format": {"name": "sklearn"}},
                },
            },
            "spec.run.evaluate.gates",
        ),
    ],
)
def test_a_margin_within_chance_is_a_warning_with_the_examples_it_takes(
    kind: str, spec: dict[str, object], field: str
) -> None:
    found = lint([("f.yaml", yaml.safe_dump({**POLICY, "kind": kind, "spec": spec}))], None)
    warned = [finding for finding in found if "examples" in finding.text]
    assert [(finding.wrong, finding.text.partition(":")[0]) for finding in warned] == [(False, field)]


def test_broken_yaml_and_what_the_server_refuses_are_errors() -> None:
    (broken,) = lint([("f.yaml", "a: [")], None)
    assert broken.wrong
    (refused,) = lint([("f.yaml", yaml.safe_dump(MODEL))], lambda _: "exceeded quota")
    assert refused.text == "the API server refuses it: exceeded quota"


@pytest.mark.parametrize(("code", "notes"), [({"code": True}, 0), ({"code": False}, 0), ({}, 1)])
def test_a_runtime_is_asked_whether_a_format_is_code(code: dict[str, bool], notes: int) -> None:
    runtime = {
        "apiVersion": objects.API_VERSION, "kind": "ClusterModelRuntime", "metadata": {"name": "mine"},
        "spec": {
            "formats": [{"name": "sklearn", **code}], "protocol": "V2", "ports": {"http": 8080},
            "container": {"image": "example.com/mine:1"},
        },
    }  # fmt: skip
    found = lint([("f.yaml", yaml.safe_dump(runtime))], None)
    assert [(finding.level, finding.text.split(":")[0]) for finding in found] == [
        ("note", "spec.formats[0].code")
    ] * notes
