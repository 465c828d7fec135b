"""An answer contains what a sample expects, or the difference is reported with its path."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelwright.agents.prober.expectations import find_difference

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy host is not a failure."""

ANSWER = {"model_name": "digits", "outputs": [{"name": "y", "shape": [2], "data": [0.7, 3]}], "id": None, "ok": True}


@pytest.mark.parametrize(
    "expected",
    [
        {},
        {"model_name": "digits"},
        {"outputs": [{"data": [0.7, 3]}]},
        {"outputs": [{"data": [0.7006, 3.0]}]},
        {"id": None, "ok": True},
    ],
)
def test_expected_part_and_close_numbers_match(expected: dict[str, Any]) -> None:
    assert find_difference(expected, ANSWER) is None


@pytest.mark.parametrize(
    ("expected", "part"),
    [
        ({"model": "digits"}, "model is missing"),
        ({"model_name": "cats"}, 'model_name is "digits", not "cats"'),
        ({"outputs": [{"data": [0.71, 3]}]}, "outputs[0].data[0] is 0.7, not 0.71"),
        ({"outputs": [{"data": [0.7]}]}, "outputs[0].data has 2 entries, not 1"),
        ({"outputs": {"data": [0.7]}}, "outputs is"),
        ({"model_name": ["digits"]}, 'model_name is "digits", not a list'),
        ({"ok": 1}, "ok is true, not 1"),
        ({"id": 0}, "id is null, not 0"),
    ],
)
def test_difference_is_reported_with_its_path(expected: dict[str, Any], part: str) -> None:
    result = find_difference(expected, ANSWER)
    assert result is not None
    assert part in result


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@UNTIMED
@given(value=_JSON)
def test_everything_holds_itself(value: Any) -> None:
    assert find_difference(value, value) is None
