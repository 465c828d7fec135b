"""How kubectl is run: by which words, and with whom its user speaks meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelwright.cli import kubectl
from modelwright.cli.kubectl import ClusterError, Forbidden, KubectlClient

SIGN_IN = "To sign in, open https://login.example.com/device and enter the code ABCD-1234: "


def program(folder: Path, text: str) -> Path:
    file = folder / "kubectl"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize("words", ["sh {file}", "sh '{file}'", "env A=b {file}", "{file}"])
def test_kubectl_may_be_several_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    file = program(tmp_path, 'echo "$@"')
    monkeypatch.setenv("KUBECTL", words.format(file=file))
    assert KubectlClient(("--context=a",)).run("get", "pods") == "--context=a get pods\n"


def test_a_program_with_a_blank_in_its_name_is_one_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my programs"
    folder.mkdir()
    monkeypatch.setenv("KUBECTL", str(program(folder, "echo here")))
    assert KubectlClient().run("version") == "here\n"


@pytest.mark.parametrize(
    ("words", "says"), [("'k3s kubectl", "KUBECTL can't be split"), ("nowhere kubectl", "nowhere")]
)
def test_words_that_can_not_be_run_are_named(monkeypatch: pytest.MonkeyPatch, words: str, says: str) -> None:
    monkeypatch.setenv("KUBECTL", words)
    with pytest.raises(ClusterError, match=says):
        KubectlClient().run("version")


def test_a_request_to_sign_in_is_seen_while_kubectl_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = tmp_path / "answer"
    os.mkfifo(answer)
    monkeypatch.setenv("KUBECTL", str(program(tmp_path, f"printf '{SIGN_IN}' >&2; read word < {answer}; echo $word")))
    shown = []

    def say(text: str, **_: object) -> None:
        shown.append(text)
        answer.write_text("signed-in\n")

    monkeypatch.setattr(kubectl, "print_text", say)
    assert KubectlClient().run("get", "pods") == "signed-in\n"
    assert shown == [SIGN_IN]


def test_an_error_right_after_a_prompt_belongs_to_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = tmp_path / "answer"
    os.mkfifo(answer)
    text = f"printf '{SIGN_IN}' >&2; read word < {answer}; echo 'Error from server (Forbidden): no' >&2; exit 1"
    monkeypatch.setenv("KUBECTL", str(program(tmp_path, text)))
    monkeypatch.setattr(kubectl, "print_text", lambda *_, **__: answer.write_text("signed-in\n"))
    with pytest.raises(Forbidden, match=r"^no$"):
        KubectlClient().run("get", "pods")


def test_a_credential_plugin_reads_what_its_user_types(tmp_path: Path) -> None:
    text = f"echo '{SIGN_IN}' >&2; read code; echo \"error: the code was $code\" >&2; exit 1"
    environment = {**os.environ, "KUBECTL": str(program(tmp_path, text))}
    done = subprocess.run(
        [sys.executable, "-m", "modelwright.cli.plugin", "status", "digits"],
        input="ABCD\n",
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.stderr == f"{SIGN_IN}\nerror: the code was ABCD\n"


KEPT = [
    ("an error", "error: the server is away", "the server is away"),
    ("an error of the server", 'Error from server (NotFound): models "a" not found', 'models "a" not found'),
    (
        "what a lost connection gives",
        "E1201 05:00:00.1 9 memcache.go:265] x\nUnable to connect to the server: EOF",
        "Unable to connect to the server: EOF",
    ),
    (
        "an object that is refused",
        'The Model "a" is invalid: \n* spec.x: Invalid value\n* spec.y: Required',
        'The Model "a" is invalid: \n* spec.x: Invalid value\n* spec.y: Required',
    ),
    ("a warning before an error", "Warning: old\nerror: no", "no"),
]


@pytest.mark.parametrize(("written", "said"), [c[1:] for c in KEPT], ids=[c[0] for c in KEPT])
def test_what_kubectl_says_is_the_error_and_is_not_shown_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], written: str, said: str
) -> None:
    (tmp_path / "written").write_text(f"{written}\n")
    monkeypatch.setenv("KUBECTL", str(program(tmp_path, f"cat {tmp_path}/written >&2; exit 1")))
    with pytest.raises(ClusterError) as error:
        KubectlClient().run("get", "pods")
    assert str(error.value) == said
    assert capsys.readouterr().err == ""


def test_a_credential_plugins_output_does_not_hide_forbidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "echo 'signed in as alice' >&2; echo 'Error from server (Forbidden): pods is forbidden' >&2; exit 1"
    monkeypatch.setenv("KUBECTL", str(program(tmp_path, text)))
    with pytest.raises(Forbidden, match=r"^pods is forbidden$"):
        KubectlClient().run("get", "pods")
    assert capsys.readouterr().err == "signed in as alice\n"


def test_what_a_plugin_says_can_not_steer_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECTL", str(program(tmp_path, r"printf 'code\033[2J 1\r\n' >&2")))
    KubectlClient().run("get", "pods")
    assert capsys.readouterr().err == "code\\x1b[2J 1\n"


def test_completion_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECTL", str(program(tmp_path, f"printf '{SIGN_IN}' >&2; read code || echo nobody")))
    assert KubectlClient(prompts=False).run("get", "pods") == "nobody\n"
    assert capsys.readouterr().err == ""


def test_a_kubectl_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never = tmp_path / "never"
    os.mkfifo(never)
    monkeypatch.setenv("KUBECTL", str(program(tmp_path, f"read word < {never}")))
    monkeypatch.setattr(kubectl, "KUBECTL_TIMEOUT", 0.0)
    with pytest.raises(ClusterError, match="kubectl did not end within 0 s"):
        KubectlClient().run("get", "pods")
