"""The types refuse the objects in tests/expectedfailures, naming the field."""

from __future__ import annotations

import pytest

from modelwright.api.common import InvalidObject
from modelwright.api.crd.definition import KINDS
from tests.expectedfailures.table import Case, cases

TYPES = {kind.__name__: kind for kind in KINDS}


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_types_agree_with_the_table(case: Case) -> None:
    obj = case.whole
    kind = TYPES[obj["kind"]]
    if not case.python_refuses:
        kind.parse(obj)
        return
    with pytest.raises(InvalidObject) as refusal:
        kind.parse(obj)
    text = refusal.value.message
    for fragment in case.refused:
        assert fragment in text
    assert len(text) < 2000, "a message for people does not repeat a large value"
