"""The threat model says nothing that no test holds, and a few rules that hold for all of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lib.documents import read_all

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "concepts" / "threat-model.md"
NAMED = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(\w+)`")
ROWS = [line.split("|")[1:-1] for line in PAGE.read_text().splitlines() if line.startswith("| ")]
THREATS = [row for row in ROWS if len(row) == 3 and "::" in row[2]]


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("row", THREATS, ids=lambda row: row[0].strip())
def test_what_is_done_about_a_threat_is_tested(row: list[str]) -> None:
    named = NAMED.findall(row[2])
    assert named
    assert NAMED.sub("", row[2]).replace(",", "").strip() == "", "the third column holds names of tests only"
    for place, name in named:
        assert name in functions(ROOT / place), f"{place} has no test {name}"


def test_every_row_of_the_threats_names_its_tests() -> None:
    threats = PAGE.read_text().partition("## Threats")[2].partition("## What is left to you")[0]
    rows = [line for line in threats.splitlines() if line.startswith("| ") and not line.startswith("| threat ")]
    assert len(rows) == len(THREATS) > 20


def places(node: Any, path: str = "") -> Iterator[str]:
    """Paths of all fields of a schema that is called namespace; fields of other APIs are not looked into."""
    if isinstance(node, dict):
        for name, child in (node.get("properties") or {}).items():
            here = f"{path}.{name}"
            if name.lower().endswith("namespace"):
                yield here
            yield from places(child, here)
        for inner in ("items", "additionalProperties"):
            yield from places(node.get(inner), path)


def test_nothing_but_a_gateway_is_named_in_another_namespace() -> None:
    found = set()
    for file in (ROOT / "crds").glob("*.yaml"):
        (document, *_) = read_all(file.read_text())
        if document["kind"] == "CustomResourceDefinition":
            for version in document["spec"]["versions"]:
                spec = version["schema"]["openAPIV3Schema"]["properties"].get("spec", {})
                found |= {f"{document['spec']['names']['kind']}{place}" for place in places(spec)}
    assert found == {"Model.endpoint.parentRefs.namespace"}


def test_no_code_runs_a_shell() -> None:
    wrong = []
    for folder in ("operator", "datacheck", "devcluster"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call):
                    name = ast.unparse(node.func)
                    shell = any(word.arg == "shell" for word in node.keywords)
                    if shell or name in ("os.system", "os.popen", "eval", "exec") or name.endswith("subprocess_shell"):
                        wrong.append(f"{file.relative_to(ROOT)}:{node.lineno} {name}")
    assert not wrong
