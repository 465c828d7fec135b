"""The repository itself: `operator` stays the standard library, and generated files say what the types say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from modelwright.cli import crd
from scripts.docgen import pages

ROOT = Path(__file__).parents[2]


def test_operator_is_the_standard_library() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
    code = "import operator; assert operator.itemgetter(0)([1]) == 1; print(operator.__file__)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not Path(found.stdout.strip()).is_relative_to(ROOT / "operator")


def test_crds_and_field_reference_have_not_drifted() -> None:
    assert crd.diff_crds(ROOT) == "", "run `make generate`"
    assert pages.diff_pages(ROOT) == "", "run `make generate`"


def test_product_code_imports_nothing_from_tests() -> None:
    folders = ("operator", "datacheck", "demo", "devcluster", "examples", "charts")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    importing = [file for file in files if re.search(r"^\s*(from|import) tests\b", file.read_text(), re.MULTILINE)]
    assert importing == []
