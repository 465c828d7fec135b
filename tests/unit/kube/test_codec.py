"""JSON from and to bytes: what orjson refuses is still taken."""

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.kube import codec

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_written_is_read_back(value: Any) -> None:
    assert codec.loads(codec.dumps(value)) == value


@given(VALUES)
def test_it_reads_what_the_standard_library_writes(value: Any) -> None:
    assert codec.loads(json.dumps(value).encode()) == value


def _nested(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize("levels", [300, 1500])
def test_levels_that_orjson_refuses_are_taken(levels: int) -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        assert codec.loads(codec.dumps(_nested(levels))) == _nested(levels)
    finally:
        sys.setrecursionlimit(limit)


def test_an_integer_beyond_64_bits_is_read_as_a_float() -> None:
    assert codec.loads(codec.dumps({"a": 10**30})) == {"a": 1e30}


@pytest.mark.parametrize("raw", [b"", b"{", b'{"a": 1} x', b"\xff"])
def test_what_is_no_json_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        codec.loads(raw)
