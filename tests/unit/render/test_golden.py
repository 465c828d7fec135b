"""All manifests of some Models, as they are written out in tests/golden: a change there is a change for users.

A change of a pod template there reaches every new revision; review it, then use --update-golden.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lib.documents import read_all
from tests.lib.golden_cases import CASES

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_rendered_manifests_are_those_written_down(case: Any, request: pytest.FixtureRequest) -> None:
    file = GOLDEN / f"{case.__name__}.yaml"
    rendered = yaml.safe_dump_all(case(), sort_keys=True, width=120)
    if request.config.getoption("--update-golden"):
        header = "# Rendered by tests/unit/render/test_golden.py; rewritten by --update-golden.\n"
        file.write_text(header + rendered)
    assert read_all(file.read_text()) == read_all(rendered), "see --update-golden"


def test_no_golden_file_is_left_over() -> None:
    assert {file.stem for file in GOLDEN.glob("*.yaml")} == {case.__name__ for case in CASES}
