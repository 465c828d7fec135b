"""A real API server refuses what the tables of tests/expectedfailures say, naming the field, and accepts the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.expectedfailures.table import Case, cases

pytestmark = pytest.mark.controlplane


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_admission_agrees_with_the_table(crd_server: Any, case: Case) -> None:
    if case.given is None:
        answer = crd_server.run("create", "--dry-run=server", "-f", "-", objects=case.when)
    else:
        crd_server.ok("create", "-f", "-", objects=case.given)
        try:
            patch = ["--type=merge", "-p", json.dumps(case.when)]
            answer = crd_server.run("patch", "-f", "-", *patch, objects=case.given)
        finally:
            crd_server.delete(case.given)
    if not case.refused:
        assert answer.returncode == 0, answer.stderr
        return
    assert answer.returncode != 0
    for fragment in case.refused:
        assert fragment in answer.stderr
