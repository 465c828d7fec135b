"""Manifests are judged as the API server would, and policies by what they can decide."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from modelwright.cli import lint_reports
from modelwright.cli.manifest_lint import LintFinding, lint_files
from tests.lib import objects

MODEL = objects.model("vision", "digits", version="v1")
POLICY = {
    "apiVersion": objects.API_VERSION,
    "kind": "RolloutPolicy",
    "metadata": {"name": "canary", "namespace": "vision"},
    "spec": {"strategy": {"steps": [{"weight": 10, "hold": "1m"}, {"weight": 100}]}},
}
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
    wrong = [finding for finding in lint_files([("f.yaml", yaml.safe_dump(document))], None) if finding.is_error]
    if says is None:
        assert wrong == []
    else:
        assert any(says in finding.text for finding in wrong), wrong


def test_a_policy_is_told_what_requests_it_needs() -> None:
    finding, _ = lint_files([("f.yaml", yaml.safe_dump(POLICY))], None)
    assert (finding.level, finding.place) == ("note", "f.yaml: RolloutPolicy canary")


def test_a_policy_that_promotes_by_time_alone_is_warned_of() -> None:
    _, finding = lint_files([("f.yaml", yaml.safe_dump(POLICY))], None)
    assert (finding.level, finding.is_error) == ("warning", False)
    assert finding.text.startswith("it promotes by time alone: it has no analysis, no gate and no approval")
    judged = {**POLICY["spec"], "analysis": {"metrics": [{"name": "e", "builtin": "error-rate", "margin": "0.02"}]}}
    assert [f.level for f in lint_files([("f.yaml", yaml.safe_dump({**POLICY, "spec": judged}))], None)] == ["note"]


def test_a_margin_that_bursts_break_is_warned_of() -> None:
    judged = {**POLICY["spec"], "analysis": {"metrics": [{"name": "e", "builtin": "error-rate", "margin": "0"}]}}
    found = lint_files([("f.yaml", yaml.safe_dump({**POLICY, "spec": judged}))], None)
    assert [f.level for f in found if "leaves no room for bursts" in f.text] == ["warning"]


MANIFEST = """\
apiVersion: modelwright.dev/v1alpha1
kind: Model
metadata: {name: iris, namespace: flowers}
spec:
  %s
"""


@pytest.mark.parametrize(
    ("written", "line", "says"),
    [
        ("version: {name: v1}\n  servng: {}", 6, "spec.servng: unknown field; did you mean serving?"),
        ("version: {name: v1}\n  xyz: {}", 6, "spec.xyz: unknown field"),
        ("versoin: {name: v1}", 5, "spec.versoin: unknown field; did you mean version?"),
        ("serving: {}", 4, "spec.version: required, and not given"),
        ("version: {name: 1}", 5, 'spec.version.name: must be a string: write it in quotes, "1"'),
        ("version: {name: yes}", 5, 'spec.version.name: must be a string: write it in quotes, "true"'),
        (
            'version: {name: v1}\n  serving:\n    replicas: "2"',
            7,
            "spec.serving.replicas: must be an integer: write it without quotes",
        ),
        (
            "version: {name: v1}\n  version: {name: v2}",
            6,
            "spec.version: occurs twice, and only the last one counts",
        ),
    ],
)
def test_an_error_has_its_line_and_says_what_to_write(written: str, line: int, says: str) -> None:
    (finding,) = lint_files([("f.yaml", MANIFEST % written)], None)
    assert (finding.level, finding.line, finding.text) == ("error", line, says)


def test_a_value_of_a_list_of_words_has_the_nearest_one() -> None:
    metric = {"name": "e", "builtin": "error-rates", "margin": "0.02"}
    spec = {**POLICY["spec"], "analysis": {"metrics": [metric]}}
    (finding,) = lint_files([("f.yaml", yaml.safe_dump({**POLICY, "spec": spec}))], None)
    assert 'is "error-rates"; did you mean error-rate? It is one of ' in finding.text


def test_broken_yaml_has_its_line() -> None:
    (finding,) = lint_files([("f.yaml", "a: 1\nb: [\nc: {")], None)
    assert (finding.is_error, finding.line) == (True, 3)


def test_objects_of_a_list_are_judged_at_their_lines() -> None:
    listed = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: modelwright.dev/v1alpha1\n  kind: Modell\n"
    (finding,) = lint_files([("f.yaml", listed)], None)
    assert (finding.line, "did you mean Model?" in finding.text) == (4, True)


def test_a_name_that_another_file_has_nearly_is_warned_of() -> None:
    model = ("model.yaml", yaml.safe_dump(objects.model("vision", "digits", version="digits-candidat-1")))

    def versions(*names: str) -> list[tuple[str, str]]:
        return [(f"{name}.yaml", yaml.safe_dump(objects.version("vision", name))) for name in names]

    (finding,) = lint_files([model, *versions("digits-candidate-1")], None)
    assert (finding.level, finding.file) == ("warning", "model.yaml")
    wanted = "spec.version.name: no ModelVersion digits-candidat-1 is in these files; did you mean digits-candidate-1?"
    assert finding.text == wanted
    assert lint_files([model, *versions("digits-candidate-1", "digits-candidat-1")], None) == []
    # Another number is another version, which the cluster may have.
    assert lint_files([model, *versions("digits-candidat-2")], None) == []


REFUSED = LintFinding("a,b.yaml: Model x", "100 %:\nno", "error", "a,b.yaml", 7)


def test_findings_for_github() -> None:
    assert list(lint_reports.github_commands([REFUSED])) == ["::error file=a%2Cb.yaml,line=7::Model x: 100 %25:%0Ano"]


def test_findings_as_sarif() -> None:
    (run,) = lint_reports.sarif_report([REFUSED])["runs"]
    (result,) = run["results"]
    assert result == {
        "level": "error",
        "message": {"text": "Model x: 100 %:\nno"},
        "locations": [
            {"physicalLocation": {"artifactLocation": {"uri": "a,b.yaml"}, "region": {"startLine": 7}}},
        ],
    }


def test_every_manifest_of_this_repository_passes() -> None:
    root = Path(__file__).parents[3]
    folders = ("manifests", "examples", "crds")
    # Argo CD's tests have objects that the operator refuses; an overlay completes the base of the GitOps example.
    left_out = {"testdata", "base"}
    files = [
        path
        for folder in folders
        for path in sorted((root / folder).rglob("*.yaml"))
        if not left_out.intersection(path.relative_to(root).parts)
    ]
    assert len(files) > 30
    found = lint_files([(str(path.relative_to(root)), path.read_text()) for path in files], None)
    assert [finding for finding in found if finding.is_error] == []


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
def test_a_margin_within_chance_is_a_warning_with_sample_size(kind: str, spec: dict[str, object], field: str) -> None:
    found = lint_files([("f.yaml", yaml.safe_dump({**POLICY, "kind": kind, "spec": spec}))], None)
    warned = [finding for finding in found if "examples" in finding.text]
    assert [(finding.is_error, finding.text.partition(":")[0]) for finding in warned] == [(False, field)]


def test_broken_yaml_and_what_the_server_refuses_are_errors() -> None:
    (broken,) = lint_files([("f.yaml", "a: [")], None)
    assert broken.is_error
    (refused,) = lint_files([("f.yaml", yaml.safe_dump(MODEL))], lambda _: "exceeded quota")
    assert refused.text == "the API server refuses it: exceeded quota"


@pytest.mark.parametrize(("code", "notes"), [({"code": True}, 0), ({"code": False}, 0), ({}, 1)])
def test_a_runtime_is_asked_whether_a_format_is_code(code: dict[str, bool], notes: int) -> None:
    runtime = {
        "apiVersion": objects.API_VERSION,
        "kind": "ClusterModelRuntime",
        "metadata": {"name": "mine"},
        "spec": {
            "formats": [{"name": "sklearn", **code}],
            "protocol": "V2",
            "ports": {"http": 8080},
            "container": {"image": "example.com/mine:1"},
        },
    }
    found = lint_files([("f.yaml", yaml.safe_dump(runtime))], None)
    assert [(finding.level, finding.text.split(":")[0]) for finding in found] == [
        ("note", "spec.formats[0].code")
    ] * notes


def test_a_gateway_that_ends_requests_early_is_warned_of() -> None:
    endpoint = {"parentRefs": [{"name": "g"}], "requestTimeout": "30s"}
    spec = {"version": {"name": "v1"}, "serving": {"maxRequestSeconds": 600}, "endpoint": endpoint}
    model = {"apiVersion": "modelwright.dev/v1alpha1", "kind": "Model", "metadata": {"name": "slow"}, "spec": spec}
    (finding,) = lint_files([("f.yaml", yaml.safe_dump(model))], None)
    assert (finding.level, finding.is_error) == ("warning", False)
    assert "spec.endpoint.requestTimeout (30s) is less than spec.serving.maxRequestSeconds (600)" in finding.text
    endpoint["requestTimeout"] = "10m"
    assert lint_files([("f.yaml", yaml.safe_dump(model))], None) == []
