"""Verbs about installations, lists of Models and moves: what they print, write and end with."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

import modelwright
from modelwright.api.crd.definition import KINDS
from modelwright.cli import manual_actions, model_list, plugin
from modelwright.cli.commands import command_support
from modelwright.cli.model_view import ObjectNotFound
from tests.unit.cli import world
from tests.unit.cli.world import NOW, condition, seen

ROOT = Path(__file__).resolve().parents[3]
Json = dict[str, Any]


def test_the_version_is_that_of_the_package() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == modelwright.VERSION


@pytest.mark.parametrize("arguments", [["--version"], ["version", "--client"]], ids=" ".join)
def test_the_clients_version_asks_no_cluster(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECTL", "/nowhere/kubectl")
    assert plugin.main(arguments) == 0
    assert capsys.readouterr().out == f"client    {modelwright.VERSION}\n"


def crd(kind: Any) -> Json:
    names = {"plural": kind.__crd__.plural}
    return {"spec": {"group": "modelwright.dev", "names": names, "versions": [{"name": "v1alpha1", "served": True}]}}


OPERATOR = {
    "metadata": {
        "name": "modelwright",
        "namespace": "modelwright-system",
        "labels": {"app.kubernetes.io/version": "0.1.0"},
    },
    "spec": {
        "replicas": 2,
        "template": {
            "spec": {
                "containers": [
                    {
                        "image": "example.com/operator:0.1.0",
                        "env": [
                            {"name": "MODELWRIGHT_NAMESPACE", "valueFrom": {}},
                            {"name": "MODELWRIGHT_FETCH_IMAGE", "value": "example.com/fetch:0.1.0"},
                        ],
                    }
                ]
            }
        },
    },
    "status": {"readyReplicas": 1},
}


def installed(kubectl: Path, *crds: Json) -> None:
    (kubectl / "crds").write_text(json.dumps({"items": crds}))
    (kubectl / "deployments").write_text(json.dumps({"items": [OPERATOR]}))


def test_version_names_operator_crds_and_images_in_a_line_each(
    kubectl: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(kubectl, *map(crd, KINDS))
    assert plugin.main(["version"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"client    {modelwright.VERSION}",
        f"CRDs      {len(KINDS)} kinds, v1alpha1",
        "operator  0.1.0, modelwright-system/modelwright, 1 of 2 pods ready",
        "image     operator example.com/operator:0.1.0",
        "image     fetch example.com/fetch:0.1.0",
    ]
    assert plugin.main(["version", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["operators"][0]["images"]["fetch"] == "example.com/fetch:0.1.0"


def test_version_names_the_crds_that_are_missing(kubectl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    installed(kubectl, *map(crd, KINDS[1:]))
    assert plugin.main(["version"]) == 0
    assert f"{len(KINDS) - 1} kinds, v1alpha1; missing: models\n" in capsys.readouterr().out


def test_version_says_what_its_user_may_not_list(kubectl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    installed(kubectl, *map(crd, KINDS))
    program = kubectl / "kubectl"
    refusal = "*deployments*) echo 'Error from server (Forbidden): forbidden' >&2; exit 1 ;;\n  *customres"
    program.write_text(program.read_text().replace("*customres", refusal))
    assert plugin.main(["version"]) == 0
    assert "operator  you may not list it\n" in capsys.readouterr().out


REFUSED = "The connection to the server localhost:8080 was refused - did you specify the right host or port?"


@pytest.mark.parametrize(
    ("written", "says"),
    [
        (f"E1201 05:00:00.1 9 memcache.go:265] x\nE1201 05:00:00.2 9 memcache.go:265] x\n{REFUSED}", REFUSED),
        ('error: context "prod" does not exist', 'context "prod" does not exist'),
        ("Unable to connect to the server: dial tcp: lookup k8s: no such host", "dial tcp: lookup k8s: no such host"),
    ],
    ids=["refused", "no context", "no host"],
)
def test_without_a_cluster_one_line_says_so(
    written: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "written").write_text(f"{written}\n")
    program = tmp_path / "kubectl"
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/written >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("KUBECTL", str(program))
    assert plugin.main(["status", "digits"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no cluster responds: ")
    assert says in line


def test_a_reason_is_explained_without_a_cluster(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECTL", "/nowhere/kubectl")
    assert plugin.main(["explain", "waitingforpods"]) == 0
    assert capsys.readouterr().out == "WaitingForPods: The pods of the target revision are starting.\n"
    assert plugin.main(["explain", "WaitingForPod"]) == 1
    assert "Did you mean WaitingForPods" in capsys.readouterr().err
    assert plugin.main(["explain", "-o", "json"]) == 0
    assert "Promoted" in json.loads(capsys.readouterr().out)


STATES = [
    ("one that is ready", [condition("Ready", "True", "Serving", "all is well")], ("Ready", "")),
    (
        "one that is stalled, though it serves",
        [condition("Ready", "True", "Serving"), condition("Stalled", "True", "RolledBack", "errors: Fail")],
        ("Stalled", "RolledBack: errors: Fail"),
    ),
    (
        "one that moves",
        [condition("Ready", "False", "RolloutInProgress"), condition("Reconciling", "True", "StepInProgress", "2/3")],
        ("Reconciling", "StepInProgress: 2/3"),
    ),
    ("one that the operator hasn't seen", [], ("NotReady", "it has no conditions yet")),
]


@pytest.mark.parametrize(("conditions", "shown"), [case[1:] for case in STATES], ids=[case[0] for case in STATES])
def test_the_list_says_why_a_model_is_not_ready(conditions: list[Json], shown: tuple[str, str]) -> None:
    model = world.model(condition("Ready", "True", "Serving"))
    model["status"]["conditions"] = conditions
    (row,) = model_list.build_rows([model])
    assert (row.state, row.why) == shown
    assert (row.version, row.target, row.weight) == ("v1", "v2", 10)


def test_an_edit_that_was_not_seen_is_pending() -> None:
    model = world.model(condition("Ready", "True", "Serving"))
    model["metadata"]["generation"] = 2
    assert model_list.build_rows([model])[0].state == "Pending"


def test_a_model_that_can_not_be_read_stays_in_the_list() -> None:
    model = world.model(condition("Ready", "True", "Serving"))
    model["spec"]["version"] = {}
    (row,) = model_list.build_rows([model])
    assert (row.name, row.state) == ("digits", "Unreadable")
    assert "exactly one of name, template and follow" in row.why


def test_the_list_is_a_line_for_each_model() -> None:
    model = world.model(condition("Reconciling", "True", "StepInProgress", "step 1\nof 3"))
    head, line = model_list.render_rows(model_list.build_rows([model]), NOW, namespaces=True).splitlines()
    assert head.split() == ["NAMESPACE", "NAME", "VERSION", "WEIGHT", "STATE", "AGE", "WHY"]
    assert line == "vision      digits   v1 -> v2   10 %     Reconciling   4h    StepInProgress: step 1 of 3"


def test_the_list_asks_for_all_namespaces_on_demand(kubectl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (kubectl / "objects").write_text(json.dumps({"items": [world.model(condition("Ready", "True", "Serving"))]}))
    assert plugin.main(["list", "-A", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["namespace"] == "vision"
    assert (kubectl / "calls").read_text() == "get models.modelwright.dev -A -o json\n"
    (kubectl / "objects").write_text(json.dumps({"items": []}))
    assert plugin.main(["list"]) == 0
    assert capsys.readouterr().err == "there are no Models here; --all-namespaces shows those of others\n"


def test_set_version_changes_the_pinned_name_only() -> None:
    assert manual_actions.build_version_patch(seen(), "v1") == {"spec": {"version": {"name": "v1"}}}
    with pytest.raises(ObjectNotFound, match="digits has no ModelVersion v9; there are v1, v2"):
        manual_actions.build_version_patch(seen(), "v9")
    following = world.model(condition("Ready", "True", "Serving"))
    following["spec"]["version"] = {"follow": {}}
    with pytest.raises(manual_actions.InvalidAction, match="follows its versions, and set-version changes only"):
        manual_actions.build_version_patch(seen(following), "v1")


ROLLED_BACK = world.rollout("digits-2", 11, "v2", "RolledBack", 2, reason="AnalysisFailed", message="errors: Fail")
PROMOTED = world.rollout("digits-2", 11, "v2", "Succeeded", 2, reason="Promoted")
ENDS = [
    ("a promoted version", {"ready": condition("Ready", "True", "Serving")}, PROMOTED, 0),
    ("a version that was rolled back", {"ready": condition("Stalled", "True", "RolledBack")}, ROLLED_BACK, 1),
]


@pytest.mark.parametrize(("ready", "record", "code"), [c[1:] for c in ENDS], ids=[c[0] for c in ENDS])
def test_set_version_waits_for(kubectl: Path, ready: Json, record: Json, code: int) -> None:
    (kubectl / "after").write_text(json.dumps({"items": world.namespace(record, **ready)}))
    assert plugin.main(["set-version", "digits", "v2", "--wait"]) == code
    assert (
        'patch models.modelwright.dev digits --type=merge -p {"spec": {"version": {"name": "v2"}}}'
        in (kubectl / "calls").read_text()
    )


def test_what_takes_too_long_ends_with_two(
    kubectl: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_support, "POLL_SECONDS", 0.0)
    assert plugin.main(["set-version", "digits", "v2", "--wait", "--timeout", "1ms"]) == 2
    assert "Model digits is still in progress after 0.001 s" in capsys.readouterr().err


DECISIONS = [
    ("approve", PROMOTED, 0, ""),
    ("approve", ROLLED_BACK, 1, "digits-2 ended RolledBack (AnalysisFailed): errors: Fail"),
    ("reject", ROLLED_BACK, 0, ""),
]


@pytest.mark.parametrize(("verb", "record", "code", "says"), DECISIONS)
def test_a_decision_waits_for_the_end_of_the_rollout(
    kubectl: Path, verb: str, record: Json, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program = kubectl / "kubectl"
    (kubectl / "after").write_text(json.dumps({"items": world.namespace(record)}))
    made = f"printf made-1; cp {kubectl}/after {kubectl}/objects ;;"
    program.write_text(program.read_text().replace("printf made-1 ;;", made))
    assert plugin.main([verb, "digits", "--reason", "x", "--hash", world.HASH, "--wait"]) == code
    assert says in capsys.readouterr().err


def test_a_run_is_cancelled_by_deleting_it(kubectl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, run = world.retraining()
    run["status"] = {"state": "Training", "model": "digits"}
    (kubectl / "objects").write_text(json.dumps({"items": world.namespace(policy, run)}))
    assert plugin.main(["run", "cancel", "digits-nightly"]) == 0
    assert (kubectl / "calls").read_text().endswith("delete trainingruns.modelwright.dev digits-nightly\n")
    assert "digits-nightly is cancelled" in capsys.readouterr().out


def test_a_run_that_has_ended_is_not_deleted(kubectl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plugin.main(["run", "cancel", "digits-nightly"]) == 1
    assert "has ended (Failed) and cannot be cancelled" in capsys.readouterr().err
    assert "delete" not in (kubectl / "calls").read_text()
