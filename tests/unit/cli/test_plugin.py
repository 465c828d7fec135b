"""The command: what it needs to start, and what it says when it can't do what is asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from modelwright.cli import plugin
from modelwright.cli.cluster import Cluster
from tests.unit.cli import world

KUBECTL = """#!/bin/sh
echo "$@" >> {calls}
case "$*" in
  *"get pods"*) echo '{{"items": []}}' ;;
  *"get "*) cat {objects} ;;
  *whoami*) printf alice ;;
  *create*) cat > {written}; printf made-1 ;;
  *) echo "error: unexpected $*" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubectl that tells of the world's namespace, and keeps what it is given to create."""
    (tmp_path / "objects").write_text(json.dumps({"items": world.namespace()}))
    program = tmp_path / "kubectl"
    places = {name: tmp_path / name for name in ("calls", "objects", "written")}
    program.write_text(KUBECTL.format(**places))
    program.chmod(0o755)
    monkeypatch.setenv("KUBECTL", str(program))
    return tmp_path


def test_it_starts_with_nothing_but_what_its_extra_installs() -> None:
    missing = ("kopf", "kubernetes", "aiohttp", "promql_parser", "cel_expr_python", "prometheus_client")
    code = f"import sys; sys.modules.update(dict.fromkeys({missing!r})); import modelwright.cli.plugin"
    subprocess.run([sys.executable, "-c", code], check=True)


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


def test_who_may_not_see_pods_still_sees_models(kubectl: Path) -> None:
    program = kubectl / "kubectl"
    program.write_text(program.read_text().replace("echo '{\"items\": []}'", "echo forbidden >&2; exit 1"))
    assert {obj["kind"] for obj in Cluster().objects()} >= {"Model", "ModelRollout"}
