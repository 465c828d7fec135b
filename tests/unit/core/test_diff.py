"""Differences of a live object from its manifest, and changes that the API server or others may make."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.core.diff import differs

CASES = [
    ("the same", {"a": 1}, {"a": 1}, False),
    ("what others add is theirs", {"a": {"b": 1}}, {"a": {"b": 1, "c": 2}, "d": 3}, False),
    ("a changed value", {"a": 1}, {"a": 2}, True),
    ("a missing member", {"a": {"b": 1}}, {"a": {}}, True),
    ("a missing map", {"a": {"b": 1}}, {}, True),
    ("a map where there is none", {"a": {"b": 1}}, {"a": "x"}, True),
    ("an entry more in a list of ours", {"a": [1]}, {"a": [1, 2]}, True),
    ("an entry less", {"a": [1, 2]}, {"a": [1]}, True),
    ("another order", {"a": [1, 2]}, {"a": [2, 1]}, True),
    ("defaults in the entries of a list", {"a": [{"n": 1}]}, {"a": [{"n": 1, "protocol": "TCP"}]}, False),
    ("a list where there is none", {"a": [1]}, {"a": "x"}, True),
    ("an empty list that the API server drops", {"a": []}, {}, False),
    ("an empty map that the API server drops", {"a": {}}, {}, False),
    ("an empty list where there is something", {"a": []}, {"a": [1]}, True),
    ("an empty map where there is something", {"a": {}}, {"a": {"b": 1}}, True),
    ("an empty text that the API server drops", {"a": ""}, {}, False),
    ("false that the API server drops", {"a": False}, {}, False),
    ("zero that the API server drops", {"a": 0}, {}, False),
    ("zero where there is another number", {"a": 0}, {"a": 1}, True),
    ("a None stands for a member that must not be there", {"a": None}, {"a": "x"}, True),
    ("a None where nothing is", {"a": None}, {}, False),
    ("a quantity written another way", {"cpu": "0.5"}, {"cpu": "500m"}, False),
    ("a whole number of cores", {"cpu": 2}, {"cpu": "2"}, False),
    ("thousands", {"cpu": "1000m"}, {"cpu": "1"}, False),
    ("bytes by two and by ten", {"memory": "1Gi"}, {"memory": "1024Mi"}, False),
    ("bytes by two and by ten that differ", {"memory": "1G"}, {"memory": "1Gi"}, True),
    ("an exponent", {"memory": "1e3"}, {"memory": "1k"}, False),
    ("another quantity", {"memory": "1Gi"}, {"memory": "2Gi"}, True),
    ("texts that only resemble quantities", {"a": "m"}, {"a": "k"}, True),
    ("true and false", {"a": True}, {"a": False}, True),
    ("texts", {"a": "x"}, {"a": "y"}, True),
]


@pytest.mark.parametrize(("wanted", "live", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_differs(wanted: Any, live: Any, expected: bool) -> None:
    assert differs(wanted, live) is expected


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x", "500m", "1Gi"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value


@given(VALUES)
def test_nothing_differs_from_itself(value: Any) -> None:
    assert not differs(value, value)


@given(st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3), VALUES)
def test_fields_added_by_others_never_differ(wanted: Any, other: Any) -> None:
    if wanted:
        assert not differs(wanted, {**wanted, "theirs": other})
