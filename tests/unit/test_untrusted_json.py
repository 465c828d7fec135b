"""Untrusted JSON is bounded before it becomes objects; a document within the limits is parsed as it is."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright import untrusted_json
from modelwright.untrusted_json import DocumentError, DocumentTooLarge, JsonLimits

WIDE = JsonLimits(1 << 20)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text('[]{},"\\x\n\u00e9\u2603')
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text('[]{},"\\a'), inner, max_size=5)
)


def count(value: Any) -> int:
    """An exact count of what `read` bounds: commas and lists once, objects four times."""
    if isinstance(value, dict):
        return 4 + max(0, len(value) - 1) + sum(map(count, value.values()))
    if isinstance(value, list):
        return 1 + max(0, len(value) - 1) + sum(map(count, value))
    return 0


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@given(VALUES, st.sampled_from([None, 1]), st.booleans())
def test_a_document_at_the_limits_is_read_and_beyond_is_not(value: Any, indent: int | None, ascii: bool):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii)
    size, values, levels = len(text.encode()), count(value), depth(value)
    assert untrusted_json.parse_json(text, JsonLimits(size, values, levels)) == value
    assert untrusted_json.parse_json(text.encode(), JsonLimits(size, values, levels)) == value
    for less in (
        JsonLimits(size - 1, values, levels),
        JsonLimits(size, values - 1, levels),
        JsonLimits(size, values, levels - 1),
    ):
        if less.values >= 0 and less.depth >= 0:
            with pytest.raises(DocumentTooLarge):
                untrusted_json.parse_json(text, less)


@given(st.text('[]{},"\\:a1\n '))
def test_any_text_is_read_as_json_does_or_refused(text: str):
    try:
        expected = json.loads(text)
    except (ValueError, RecursionError):
        with pytest.raises(DocumentError):
            untrusted_json.parse_json(text, WIDE)
    else:
        assert untrusted_json.parse_json(text, WIDE) == expected


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "no JSON"),
        (b'{"a":', "brackets"),
        (b"[}", "no JSON"),
        (b"\xff[]", "no JSON"),
        ("[]".encode("utf-16"), "no JSON"),
        (b"[1e]", "no JSON"),
        (b"9" * 5000, "no JSON"),
    ],
)
def test_what_is_no_json_is_refused_with_a_reason(body: bytes, why: str):
    with pytest.raises(DocumentError, match=why):
        untrusted_json.parse_json(body, WIDE)


BOMBS = {
    "empty lists": b'{"a":[' + b",".join([b"[]"] * 60_000) + b"]}",
    "empty objects": b"[" + b",".join([b"{}"] * 60_000) + b"]",
    "objects": b"[" + b",".join([b'{"a":1}'] * 30_000) + b"]",
    "lists of one": b"[" + b",".join([b"[1]"] * 60_000) + b"]",
    "depth": b"[" * 50_000 + b"]" * 50_000,
    "depth behind brackets in strings": b'["]",' * 40_000 + b"1" + b',"["]' * 40_000,
    "depth that never ends": b"[" * 100_000,
    "quotes": b'"' * 1_000_001,
    "escaped quotes that never end": b'"' + b'\\"' * 500_000,
    "backslashes": b'["' + b"\\\\" * 500_000 + b'\\"]',
    "strings of one bracket": b"[" + b",".join([b'"["'] * 120_000) + b"]",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_takes_no_more_than_a_few_times_its_size(bomb: str):
    body = BOMBS[bomb]
    assert len(body) < 1 << 21
    tracemalloc.start()
    try:
        with pytest.raises(DocumentError):
            untrusted_json.parse_json(body, JsonLimits(1 << 21))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("one", [b"[]", b"[1]", b'{"a":1}', b'"\xe2\x98\x83"'])
def test_what_is_just_within_the_bounds_stays_small(one: bytes):
    bounds = JsonLimits(1 << 20, 100_000)
    weight = one.count(b"[") + 4 * one.count(b"{") + 1
    body = b"[" + b",".join([one] * min(bounds.values // weight - 1, bounds.size // (len(one) + 1) - 1)) + b"]"
    tracemalloc.start()
    try:
        untrusted_json.parse_json(body, bounds)
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()
