"""Operator, comparer, observer and sandbox write no file, so that a full or read-only /tmp does nothing to them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3] / "operator/modelwright"
WRITES = re.compile(r'\btempfile\b|\.write_text\(|\.write_bytes\(|open\([^)]*["\'][wax+]|\.mkdir\(|os\.mkfifo')
ALONE = ("agents/fetcher/", "agents/gate_report.py", "agents/prober/", "agents/scanner/", "cli/", "__main__.py", "api/")
"""The fetcher has its own tests; users and Jobs run the others."""


def test_nothing_of_the_servers_writes_a_file() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in ROOT.rglob("*.py")
        if not str(file.relative_to(ROOT)).startswith(ALONE)
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if WRITES.search(line)
    ]
    assert not found


def test_the_sandbox_answers_where_no_folder_can_be_written() -> None:
    script = (
        "from modelwright.engines.cel_expressions import evaluate_expressions\n"
        "print(evaluate_expressions(['object.spec.a + 1'], {'spec': {'a': 1}}))\n"
    )
    environment = {"PYTHONPATH": str(ROOT.parent), "TMPDIR": "/nowhere", "HOME": "/nowhere", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.strip() == "[2]", done.stderr
