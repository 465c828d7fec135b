"""Argo CD's health and actions, on states that the operator really writes, by Lua as Argo CD runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from modelwright.api.common import InvalidObject
from modelwright.api.crd.definition import KINDS
from modelwright.kube import kinds
from scripts.argocd import GROUP, HERE, dump, render_files
from tests.lib import argocd
from tests.lib.argocd_health import NOT_READABLE, Object, file, folder, stored
from tests.lib.kstatus import computed, faults
from tests.lib.rollout_harness import NS, RolloutHarness
from tests.unit.gitops.states import STATES, WORLDS, recorded

BY_KIND = {kind.__name__: kind for kind in KINDS}
AS_KSTATUS = {
    "Healthy": "Current",
    "Progressing": "InProgress",
    "Suspended": "InProgress",
    "Degraded": "Failed",
}
OTHER_THAN_KSTATUS = {
    # kstatus has no word for what people hold back on purpose; docs/how-to/gitops.md lists these.
    ("Model", "suspended"): "Current",
    ("Model", "suspended-in-a-rollout"): "Failed",
    ("Model", "held-by-rollback"): "Failed",
    ("RetrainingPolicy", "suspended"): "Current",
    # kstatus believes an object that nobody has looked at yet.
    **{(kind, name): "Current" for kind, name in STATES if name == "no-status"},
    ("Model", "deleting"): "Terminating",
}


def script(kind: str, name: str = "health.lua") -> str:
    return (folder(kind) / name).read_text()


def expected(kind: str) -> dict[str, tuple[str, str]]:
    tests = yaml.safe_load((folder(kind) / "health_test.yaml").read_text())["tests"]
    return {
        Path(test["inputPath"]).stem: (test["healthStatus"]["status"], test["healthStatus"]["message"])
        for test in tests
    }


def offered(obj: Object) -> set[str]:
    found = argocd.run(script(obj["kind"], "actions/discovery.lua"), obj)
    return {name for name, action in found.items() if not action["disabled"]}


@pytest.mark.parametrize(("kind", "name"), STATES, ids=map(" ".join, STATES))
def test_the_recorded_state_is_what_the_operator_writes(kind: str, name: str, pytestconfig: pytest.Config) -> None:
    now = recorded(kind, name)
    if pytestconfig.getoption("--update-golden"):
        file(kind, name).parent.mkdir(exist_ok=True)
        file(kind, name).write_text(dump(now))
    assert stored(kind, name) == now, f"{file(kind, name)} differs: --update-golden writes it anew"
    wrong = faults(now)
    if (kind, name) in NOT_READABLE:
        with pytest.raises(InvalidObject):
            BY_KIND[kind].parse(now)
        # What was said of the spec before stays beside.
        before = (" Available.obs", " Decidable.obs", " EvidenceAsked.obs")
        wrong = [text for text in wrong if not any(part in text for part in before)]
    else:
        BY_KIND[kind].parse(now)
    assert wrong == []


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in STATES}))
def test_every_recorded_state_has_an_expectation_and_no_other_file_is_there(kind: str) -> None:
    names = {name for other, name in STATES if other == kind}
    assert set(expected(kind)) == names
    assert {path.stem for path in (folder(kind) / "testdata").iterdir()} == names


@pytest.mark.parametrize(("kind", "name"), STATES, ids=map(" ".join, STATES))
def test_health(kind: str, name: str) -> None:
    assert argocd.health(script(kind), stored(kind, name)) == expected(kind)[name]


@pytest.mark.parametrize(("kind", "name"), STATES, ids=map(" ".join, STATES))
def test_health_says_what_kstatus_says_but_for_the_documented_states(kind: str, name: str) -> None:
    obj = stored(kind, name)
    status, _ = argocd.health(script(kind), obj)
    assert computed(obj) == OTHER_THAN_KSTATUS.get((kind, name), AS_KSTATUS[status])


def test_an_object_whose_conditions_say_nothing_is_on_its_way() -> None:
    obj = stored("Model", "ready")
    obj["status"]["conditions"] = []
    assert argocd.health(script("Model"), obj)[0] == "Progressing"


@pytest.mark.parametrize(
    "kind", sorted(path.parent.parent.name for path in HERE.glob(f"{GROUP}/*/actions/discovery.lua"))
)
def test_actions_are_offered_when_they_could_be_carried_out(kind: str) -> None:
    tests = yaml.safe_load(script(kind, "actions/action_test.yaml"))["discoveryTests"]
    table = {Path(test["inputPath"]).stem: {a["name"] for a in test["result"] if not a["disabled"]} for test in tests}
    assert table == {name: offered(stored(kind, name)) for other, name in STATES if other == kind}
    there = {path.parent.name for path in (folder(kind) / "actions").glob("*/action.lua")}
    assert {action["name"] for test in tests for action in test["result"]} == there


@pytest.mark.parametrize("name", WORLDS)
def test_the_operator_accepts_the_commands_that_are_offered_and_refuses_the_others(name: str) -> None:
    actions = sorted(path.parent.name for path in folder("ModelRollout").glob("actions/*/action.lua"))
    for action in actions:
        world: RolloutHarness = WORLDS[name]()
        record = world.records[-1]
        answer = argocd.run(script("ModelRollout", f"actions/{action}/action.lua"), record)
        changed = {key for key in answer if answer[key] != record.get(key) and answer[key] != []}
        assert changed == {"spec"}, "an action writes the command and nothing else"
        command = answer["spec"]["command"]
        assert command["by"] == "system:serviceaccount:argocd:argocd-server"
        world.api.user_patch(kinds.MODEL_ROLLOUT, NS, record["metadata"]["name"], {"spec": {"command": command}})
        world.look()
        told = next(o for o in world.records if o["metadata"]["name"] == record["metadata"]["name"])
        (said,) = [c for c in told["status"]["commands"] if c["token"] == command["token"]]
        assert said["accepted"] == (action in offered(record)), f"{action}: {said}"


def test_the_rollback_action_goes_back_and_the_model_stays_there() -> None:
    world = WORLDS["promoted"]()
    assert offered(world.model) == {"rollback"}
    (made,) = argocd.run(script("Model", "actions/rollback/action.lua"), world.model)
    assert made["operation"] == "create"
    BY_KIND["ModelRollout"].parse(made["resource"])
    world.api.user_create(made["resource"])
    world.go(lambda: world.serving == "v1")
    world.go(lambda: argocd.health(script("Model"), world.model)[0] == "Suspended")


def test_the_retrain_action_makes_a_run_of_the_policy() -> None:
    (made,) = argocd.run(
        script("RetrainingPolicy", "actions/retrain/action.lua"), stored("RetrainingPolicy", "watching")
    )
    assert made["operation"] == "create"
    run = BY_KIND["TrainingRun"].parse(made["resource"])
    assert run.namespace == NS


@pytest.mark.parametrize("path", render_files(), ids=lambda path: path.name)
def test_what_argo_cd_reads_is_made_from_the_lua_files(path: Path) -> None:
    assert path.read_text() == render_files()[path]


def test_the_config_map_holds_the_scripts_as_argo_cd_splits_them() -> None:
    data = yaml.safe_load((HERE / "argocd-cm.yaml").read_text())["data"]
    values = yaml.safe_load((HERE / "argo-cd-values.yaml").read_text())["configs"]["cm"]
    assert data == values
    assert {key.rpartition("_")[2] for key in data if ".health." in key} == {kind for kind, _ in STATES}
    actions = yaml.safe_load(data[f"resource.customizations.actions.{GROUP}_ModelRollout"])
    assert argocd.run(actions["discovery.lua"], stored("ModelRollout", "paused"))["resume"] == {"disabled": False}
    assert {d["name"] for d in actions["definitions"]} == {"abort", "pause", "promote", "release", "resume", "retry"}
