"""The outputs of a V2 answer are parsed from JSON and binary data; other content is an error."""

import contextlib
import json
import math
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelwright.agents.tensors import TensorError, parse_tensors

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy host is not a failure."""


def answer(*outputs: dict[str, Any]) -> bytes:
    return json.dumps({"model_name": "digits", "outputs": outputs}).encode()


def output(datatype: str, shape: list[int], data: list[Any] | None = None, size: int | None = None) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": "y", "datatype": datatype, "shape": shape}
    return entry | ({"data": data} if size is None else {"parameters": {"binary_data_size": size}})


def with_binary(entry: dict[str, Any], data: bytes) -> tuple[bytes, int]:
    head = answer(entry)
    return head + data, len(head)


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "values"),
    [
        ("FP64", [2], [1.5, 2], [1.5, 2.0]),
        ("FP32", [2, 2], [1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0]),
        ("FP32", [2, 2], [[1, 2], [3, 4]], [1.0, 2.0, 3.0, 4.0]),
        ("BF16", [], [3], [3.0]),
        ("INT64", [2, 1], [[3], [4.0]], [3, 4]),
        ("UINT8", [0], [], []),
        ("BOOL", [2], [True, False], [1, 0]),
        ("BYTES", [2], ["cat", "größer"], [b"cat", "größer".encode()]),
    ],
)
def test_reads_json(datatype: str, shape: list[int], data: list[Any], values: list[Any]) -> None:
    tensor = parse_tensors(answer(output(datatype, shape, data)))["y"]
    assert (tensor.shape, list(tensor.values)) == (tuple(shape), values)
    assert tensor.is_float == (datatype in ("FP16", "FP32", "FP64", "BF16"))


def test_null_is_nan_because_strict_json_has_no_other_way() -> None:
    assert math.isnan(parse_tensors(answer(output("FP32", [1], [None])))["y"].values[0])


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "values"),
    [
        ("FP32", [2], struct.pack("<2f", 1.5, -2), [1.5, -2.0]),
        ("FP64", [1, 2], struct.pack("<2d", 0.1, 0.2), [0.1, 0.2]),
        ("FP16", [1], struct.pack("<e", 0.5), [0.5]),
        ("BF16", [2], struct.pack("<2H", 0x3F80, 0xC000), [1.0, -2.0]),
        ("INT64", [2], struct.pack("<2q", -7, 8), [-7, 8]),
        ("UINT8", [2], b"\x00\xff", [0, 255]),
        ("BOOL", [2], b"\x01\x00", [1, 0]),
        ("BYTES", [2], struct.pack("<I3sI0s", 3, b"cat", 0, b""), [b"cat", b""]),
    ],
)
def test_reads_binary_data(datatype: str, shape: list[int], data: bytes, values: list[Any]) -> None:
    body, head = with_binary(output(datatype, shape, size=len(data)), data)
    assert list(parse_tensors(body, head)["y"].values) == values


def test_json_and_binary_outputs_stand_side_by_side() -> None:
    first = {"name": "a", "datatype": "INT8", "shape": [1], "parameters": {"binary_data_size": 1}}
    third = {"name": "c", "datatype": "INT8", "shape": [2], "parameters": {"binary_data_size": 2}}
    head = answer(first, output("FP64", [1], [2.5]), third)
    result = parse_tensors(head + b"\x01\x02\x03", len(head))
    assert [list(result[name].values) for name in ("a", "y", "c")] == [[1], [2.5], [2, 3]]


@pytest.mark.parametrize(
    ("body", "head"),
    [
        (b"", None),
        (b"<html>", None),
        (b"[]", None),
        (b"{}", None),
        (answer(), None),
        (b'{"outputs": {"name": "y"}}', None),
        (b'{"outputs": [7]}', None),
        (answer({"name": "y"}), None),
        (answer({"name": 7, "datatype": "FP64", "shape": [1], "data": [1]}), None),
        (answer(output("COMPLEX", [1], [1])), None),
        (answer(output("FP64", [2], [1])), None),
        (answer(output("FP64", [-1], [1])), None),
        (answer(output("FP64", ["1"], [1])), None),  # type: ignore[list-item]
        (answer(output("FP64", [1], ["1"])), None),
        (answer(output("FP64", [1], [True])), None),
        (answer(output("FP64", [1], [10**400])), None),
        (answer(output("INT64", [1], [1.5])), None),
        (answer(output("BYTES", [1], [1])), None),
        (answer(output("FP64", [1], [[[1]]])), None),
        (answer(output("FP64", [1], [1]), output("FP64", [1], [1])), None),
        (b'{"outputs": ' + b"[" * 100_000, None),
        (answer(output("FP64", [1], [1])), 0),
        (answer(output("FP64", [1], [1])), 10_000),
        (*with_binary(output("FP64", [1], size=9), b"12345678"),),
        (*with_binary(output("FP64", [1], size=-1), b"12345678"),),
        (*with_binary(output("FP64", [1], size=7), b"1234567"),),
        (*with_binary(output("BYTES", [1], size=4), struct.pack("<I", 9)),),
        (*with_binary(output("BYTES", [1], size=2), b"12"),),
    ],
)
def test_invalid_answer_raises_a_tensor_error(body: bytes, head: int | None) -> None:
    with pytest.raises(TensorError):
        parse_tensors(body, head)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@UNTIMED
@given(entry=st.fixed_dictionaries(dict.fromkeys(("name", "datatype", "shape", "data", "parameters"), _JSON)))
def test_no_json_makes_it_fail_in_another_way(entry: dict[str, Any]) -> None:
    with contextlib.suppress(TensorError):
        parse_tensors(json.dumps({"outputs": [entry | {"datatype": "FP32"}]}).encode())


@UNTIMED
@given(body=st.binary(), head=st.none() | st.integers(-5, 50))
def test_no_bytes_make_it_fail_in_another_way(body: bytes, head: int | None) -> None:
    with contextlib.suppress(TensorError):
        parse_tensors(body, head)
