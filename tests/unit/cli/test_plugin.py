"""The command: what it needs to start, and what it says when it can't do what is asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from modelwright.cli import plugin
from modelwright.cli.kubectl import Forbidden, KubectlClient
from tests.unit.cli import world


def test_it_starts_with_nothing_but_what_its_extra_installs() -> None:
    missing = ("kopf", "kubernetes", "aiohttp", "promql_parser", "cel_expr_python", "prometheus_client")
    missing += ("matplotlib", "plotext", "numpy")
    code = f"import sys; sys.modules.update(dict.fromkeys({missing!r})); import modelwright.cli.plugin"
    subprocess.run([sys.executable, "-c", code], check=True)


LAZY = {
    "help": ([], ["pydantic", "yaml", "rich", "modelwright.cli.kubectl"]),
    "the client's version": (["--version"], ["yaml", "rich", "modelwright.api.v1alpha1"]),
    "the meaning of a reason": (["explain", "Promoted"], ["yaml", "rich", "modelwright.api.v1alpha1"]),
}


@pytest.mark.parametrize(("arguments", "modules"), LAZY.values(), ids=LAZY)
def test_nothing_is_imported_without_need_for(arguments: list[str], modules: list[str]) -> None:
    """Types of the API are most of what it costs to start."""
    code = (
        "import contextlib, sys, modelwright.cli.plugin as plugin\n"
        f"with contextlib.suppress(SystemExit): plugin.main({arguments!r})\n"
        f"sys.exit(' '.join({{*{modules!r}}} & {{*sys.modules}}) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [[], ["help"], ["-h"], ["--help"]], ids=["nothing", "help", "-h", "--help"])
def test_help_lists_every_verb(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        plugin.main(arguments)
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert [name for name in plugin.verb_options() if f"\n  {name} " not in shown] == []
    assert [line for line in shown.splitlines()[1:] if line.endswith("...")] == []


@pytest.mark.parametrize("arguments", [["help", "status"], ["status", "--help"]], ids=["help status", "status --help"])
def test_help_of_a_verb_lists_its_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        plugin.main(arguments)
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert [option for option in plugin.verb_options()["status"] if option not in shown] == []


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["stauts", "digits"], "Did you mean 'status'?"),
        (["status", "digits", "--wacth"], "--watch"),
        (["status", "digits", "-o", "jsn"], "Did you mean json?"),
        (["import", "ksrve"], "Did you mean kserve?"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_what_was_probably_meant_is_named(arguments: list[str], meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        plugin.main(arguments)
    assert ended.value.code == 2
    assert meant in capsys.readouterr().err


def test_flags_of_kubectl_are_handed_on(kubectl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plugin.main(["status", "digits", "-n", "vision", "--context", "prod"]) == 0
    assert "rollout digits-2" in capsys.readouterr().out
    assert (kubectl / "calls").read_text().startswith("--context=prod --namespace=vision get models.modelwright.dev,")


def test_going_back_is_written_with_the_users_own_name(kubectl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plugin.main(["rollback", "digits", "--reason", "wrong answers"]) == 0
    assert json.loads((kubectl / "written").read_text())["spec"]["rollback"] == {
        "by": "alice",
        "reason": "wrong answers",
    }
    assert "takes Model digits to version v0" in capsys.readouterr().out


def test_without_a_terminal_an_approval_names_what_was_looked_at(
    kubectl: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert plugin.main(["approve", "digits", "--reason", "ok"]) == 1
    assert f"--hash {world.HASH}" in capsys.readouterr().err
    assert not (kubectl / "written").exists()
    assert plugin.main(["approve", "digits", "--reason", "ok", "--hash", world.HASH]) == 0
    assert json.loads((kubectl / "written").read_text())["spec"]["decision"] == "Approve"


JSON = [
    (["status", "digits"], "model"),
    (["why", "digits"], "canDo"),
    (["why", "digits-1"], "rollout"),
    (["lineage", "v2"], "ancestors"),
    (["card", "v2"], "card"),
    (["diff", "v1", "v2"], "differences"),
    (["rollback", "digits", "--reason", "x"], "version"),
    (["approve", "digits", "--reason", "x", "--hash", world.HASH], "contentHash"),
    (["reject", "digits", "--reason", "x", "--hash", world.HASH], "decision"),
    (["retrain", "digits", "--reason", "x"], "policy"),
]


@pytest.mark.usefixtures("kubectl")
@pytest.mark.parametrize(("arguments", "key"), JSON, ids=[" ".join(a[:2]) for a, _ in JSON])
def test_an_answer_is_data_where_that_is_asked_for(
    arguments: list[str], key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plugin.main([*arguments, "-o", "json"]) == 0
    assert key in json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("kubectl")
def test_reasons_as_data_leave_the_policys_text_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert plugin.main(["why", "digits", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rollout"]["status"]["policy"] == {"name": "canary", "generation": 4}
    assert found["rollout"]["status"]["verdicts"][0]["metric"] == "error-rate"
    assert found["says"].startswith("Model digits serves version v1.")


def test_findings_are_data_with_what_could_not_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.yaml"
    file.write_text("apiVersion: modelwright.dev/v1alpha1\nkind: Nothing\n")
    assert plugin.main(["lint", "--offline", str(file), "-o", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["errors"], found["findings"][0]["wrong"]) == (1, True)
    assert found["notChecked"].startswith("not checked without a server")


WRONG = "apiVersion: modelwright.dev/v1alpha1\nkind: Model\nmetadata: {name: iris}\nspec: {versoin: {name: v1}}\n"


@pytest.mark.parametrize(
    ("output", "shows"),
    [
        ("text", "error: {file}:4: Model iris: spec.versoin: unknown field; did you mean version?"),
        ("github", "::error file={file},line=4::Model iris: spec.versoin: unknown field; did you mean version?"),
        ("sarif", '"startLine": 4'),
    ],
)
def test_findings_name_the_line_in_each_form(
    output: str, shows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.yaml"
    file.write_text(WRONG)
    assert plugin.main(["lint", "--offline", str(file), "-o", output]) == 1
    assert shows.format(file=file) in capsys.readouterr().out


def test_a_kustomization_is_rendered_before_it_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [base.yaml]\n")
    (tmp_path / "base.yaml").write_text("not: judged\n")
    program = tmp_path / "kubectl"
    program.write_text(f"#!/bin/sh\n[ \"$1 $2\" = 'kustomize {tmp_path}' ] && cat <<'E'\n{WRONG}E\n")
    program.chmod(0o755)
    monkeypatch.setenv("KUBECTL", str(program))
    assert plugin.main(["lint", "--offline", str(tmp_path)]) == 1
    assert f"error: {tmp_path} (kustomize):4: Model iris: spec.versoin" in capsys.readouterr().out


def test_every_command_can_answer_as_data() -> None:
    assert [name for name, options in plugin.verb_options().items() if "--output" not in options] == []


def test_what_became_of_a_command_is_data_too(kubectl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The operator's word stands in the record before the plugin looks again."""
    program = kubectl / "kubectl"
    answered = {
        **world.ON_ITS_WAY["status"],
        "commands": [
            {
                "name": "pause",
                "token": "t",
                "by": "alice",
                "at": "2026-11-26T11:59:00Z",
                "accepted": False,
                "message": "it promotes already",
            },
        ],
    }
    objects = world.namespace({**world.ON_ITS_WAY, "status": answered})
    (kubectl / "after").write_text(json.dumps({"items": objects}))
    patched = f"""*patch*) for word; do last=$word; done
    token=$(echo "$last" | sed 's/.*"token": "\\([^"]*\\)".*/\\1/')
    sed "s/\\"token\\": \\"t\\"/\\"token\\": \\"$token\\"/" {kubectl}/after > {kubectl}/objects ;;
  *"get pods"*)"""
    program.write_text(program.read_text().replace('*"get pods"*)', patched))
    assert plugin.main(["pause", "digits", "--reason", "x", "-o", "json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "rollout": "digits-2",
        "command": "pause",
        "accepted": False,
        "message": "it promotes already",
    }


@pytest.mark.usefixtures("kubectl")
def test_what_is_not_there_is_an_error_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert plugin.main(["why", "faces"]) == 1
    assert capsys.readouterr().err.startswith("error: there is no Model faces here")
    assert plugin.main(["lint", "nowhere.yaml"]) == 1
    assert "nowhere.yaml: No such file" in capsys.readouterr().err


def test_a_time_that_is_none_is_refused_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        plugin.main(["status", "digits", "--wait", "--timeout", "soon"])
    assert '"soon" is not a duration such as 10m' in capsys.readouterr().err


def test_no_kubectl_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("KUBECTL", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert plugin.main(["status", "digits"]) == 1
    assert "kubectl is not on the PATH" in capsys.readouterr().err


FORBIDDEN = 'Error from server (Forbidden): pods is forbidden: User "alice" cannot list resource "pods" in API group ""'


def forbid(kubectl: Path, *what: str) -> None:
    """Its user may not do what has these words in it."""
    program = kubectl / "kubectl"
    cases = "".join(f"*{words}*) echo '{FORBIDDEN}' >&2; exit 1 ;;\n  " for words in what)
    program.write_text(program.read_text().replace('*"get pods"*)', f'{cases}*"get pods"*)', 1))


@pytest.mark.parametrize("what", ["pods", "trainingruns"])
def test_who_may_not_see_pods_or_training_still_sees_models(kubectl: Path, what: str) -> None:
    forbid(kubectl, what)
    assert {obj["kind"] for obj in KubectlClient().list_objects()} >= {"Model", "ModelRollout"}


def test_what_a_command_is_about_must_be_seen(kubectl: Path) -> None:
    forbid(kubectl, "retrainingpolicies")
    assert KubectlClient().list_objects()
    with pytest.raises(Forbidden):
        KubectlClient().list_objects("retrainingpolicies")


@pytest.mark.parametrize(
    ("words", "arguments", "needs"),
    [
        ("models", ["status", "digits"], "status needs the role modelwright-view"),
        ("create", ["rollback", "digits", "--reason", "x"], "rollback needs the role modelwright-command"),
        ("patch", ["abort", "digits", "--reason", "x"], "abort needs the role modelwright-command"),
        (
            "create",
            ["reject", "digits", "--hash", world.HASH, "--reason", "x"],
            "reject needs the role modelwright-appr",
        ),
        (
            "create",
            ["retrain", "digits", "--reason", "x"],
            "retrain needs the roles modelwright-view and modelwright-ed",
        ),
    ],
)
def test_who_is_refused_is_told_what_is_needed(
    kubectl: Path, words: str, arguments: list[str], needs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    forbid(kubectl, words)
    assert plugin.main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith('error: pods is forbidden: User "alice" cannot list')
    assert needs in said
