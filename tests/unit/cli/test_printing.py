"""What others have written into objects doesn't steer the terminal of who looks."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.cli import plugin, printing
from tests.unit.cli import world

EVIL = "\x1b[2J\x1b]0;owned\x07\x1b[32mReady\x9b31m\r\u202egnp\u2028"
FREE = {"message", "summary", "reason", "limitations", "intendedUse", "license", "by", "author", "repository"}


def poisoned(node: Any, key: str = "") -> Any:
    """The object with every free text followed by what a terminal would obey."""
    if isinstance(node, dict):
        return {name: poisoned(child, name) for name, child in node.items()}
    if isinstance(node, list):
        return [poisoned(child, key) for child in node]
    return f"{node} {EVIL}" if isinstance(node, str) and key in FREE and " " in node else node


COMMANDS = [
    ["status", "digits"],
    ["history", "digits"],
    ["why", "digits"],
    ["why", "digits-1"],
    ["lineage", "v2"],
    ["card", "v2"],
    ["diff", "v1", "v2"],
    ["plot", "digits"],
    ["rollback", "digits", "--reason", EVIL],
    ["approve", "digits", "--reason", EVIL, "--hash", world.HASH],
    ["approve", "digits", "--reason", "x"],
    ["retrain", "digits", "--reason", EVIL],
    ["status", EVIL],
    ["lint", "--offline", f"/nowhere/{EVIL}"],
    ["why", "digits", "-o", "json"],
    ["card", "v2", "-o", "json"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: " ".join(arguments[:2]).replace(EVIL, "evil"))
def test_no_command_prints_a_character_that_a_terminal_obeys(
    kubectl: Path, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (kubectl / "objects").write_text(json.dumps({"items": poisoned(world.namespace())}))
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    plugin.main(arguments)
    said = capsys.readouterr()
    text = said.out + said.err
    assert text.strip()
    assert not [c for c in text if (ord(c) < 32 and c not in "\t\n") or 0x7F <= ord(c) < 0xA0 or c in "\u202e\u2028"]


def test_the_reason_of_a_model_is_still_readable(kubectl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = world.model(world.condition("Ready", "False", "ModelLoadFailed", f"the model did not load: {EVIL}"))
    items = [evil if obj["kind"] == "Model" else obj for obj in world.namespace()]
    (kubectl / "objects").write_text(json.dumps({"items": items}))
    assert plugin.main(["why", "digits"]) == 0
    assert r"the model did not load: \x1b[2J" in capsys.readouterr().out


def test_nothing_of_the_plugin_prints_past_it() -> None:
    folder = Path(plugin.__file__).parent
    for file in sorted({*folder.rglob("*.py")} - {folder / "crd.py", folder / "printing.py"}):
        name = file.stem
        for node in ast.walk(ast.parse(file.read_text())):
            called = node.func if isinstance(node, ast.Call) else None
            assert not (isinstance(called, ast.Name) and called.id == "print"), (
                f"{name}.py:{getattr(node, 'lineno', 0)}"
            )
            assert not (isinstance(called, ast.Attribute) and called.attr == "write" and "std" in ast.dump(called)), (
                name
            )


@given(st.text())
def test_what_is_printable_stays_so_and_keeps_lines(text: str) -> None:
    once = printing.escape_unprintable(text)
    assert printing.escape_unprintable(once) == once
    assert once.count("\n") == text.count("\n")
    assert not set(once) & {"\x1b", "\x07", "\r", "\x9b", "\u202e"}
    if text.isascii() and text.isprintable():
        assert once == text


def test_colours_of_the_program_stay_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    printing.print_text("\x1b[31mred\x1b[0m \x1b[2J", colours=True)
    assert capsys.readouterr().out == "\x1b[31mred\x1b[0m \\x1b[2J\n"


COMMANDING = "\n::add-mask::a\n \t::stop-commands::b\n##[add-mask]c"


@pytest.mark.parametrize("arguments", [c for c in COMMANDS if EVIL not in "".join(c)], ids=" ".join)
def test_no_text_of_an_object_commands_a_runner_of_githubs(
    kubectl: Path, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.unit.cli.test_printing.EVIL", COMMANDING)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    (kubectl / "objects").write_text(json.dumps({"items": poisoned(world.namespace())}))
    plugin.main(arguments)
    said = capsys.readouterr()
    assert not [line for line in (said.out + said.err).splitlines() if line.strip().startswith("::") or "##[" in line]


@pytest.mark.parametrize("output", ["text", "github", "json", "sarif"])
def test_no_field_of_a_file_that_is_judged_commands_one(
    output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    file = tmp_path / "m.yaml"
    spec = json.dumps({f"x{COMMANDING}": 1})
    file.write_text(f"apiVersion: modelwright.dev/v1alpha1\nkind: Model\nmetadata: {{name: iris}}\nspec: {spec}\n")
    assert plugin.main(["lint", "--offline", str(file), "-o", output]) == 1
    out = capsys.readouterr().out
    if output in ("json", "sarif"):
        assert COMMANDING in json.dumps(json.loads(out)).encode().decode("unicode_escape")
    commands = [line for line in out.splitlines() if line.strip().startswith("::")]
    assert all(line.startswith("::error file=") for line in commands)
    assert output == "github" or (not commands and "##[" not in out)


def test_outside_of_github_nothing_is_changed(capsys: pytest.CaptureFixture[str]) -> None:
    printing.print_text("::a ##[b]")
    assert capsys.readouterr().out == "::a ##[b]\n"
